#pragma once
#include "rpc/service.h"
/* platform: the platforms that bring players: logins and payments. The logic is in platform/lua. */
extern const struct service_def platform_service;
