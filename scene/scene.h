#pragma once
#include "rpc/service.h"
/* scene: the world: movement, monsters, fights. The logic is in scene/lua. */
extern const struct service_def scene_service;
