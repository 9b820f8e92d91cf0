#pragma once
#include <stdbool.h>
/*
 * player: what may be a player's uid, or a chat room's name.
 *
 * Threads: any; pure.
 */
#define PLAYER_UID_MAX  64
#define PLAYER_NAME_MAX 80 /* a uid and "#2" behind it */
/* 1 to 64 bytes of UTF-8 without control characters and '*'. A guest's has no ':' besides. */
bool player_uid_ok(const char *uid);
