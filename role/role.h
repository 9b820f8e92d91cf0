#pragma once
#include "rpc/service.h"
/* role: players' roles, bags, quests and purchases, and who is online. The logic is in role/lua. */
extern const struct service_def role_service;
