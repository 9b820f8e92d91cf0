#pragma once
#include "rpc/service.h"
/* team: small groups of players. The logic is in team/lua. */
extern const struct service_def team_service;
