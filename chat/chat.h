#pragma once
#include "rpc/service.h"
/* chat: rooms, channels and their history. The logic is in chat/lua. */
extern const struct service_def chat_service;
