#include "rpc/player.h"
#include <string.h>
#include "common/jsontext.h"

/* U+0080 to U+009F are control characters too. */
static bool control(const unsigned char *p)
{
	return *p < 0x20 || *p == 0x7f || (*p == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f);
}

bool player_uid_ok(const char *uid)
{
	size_t n = strlen(uid);

	if (!n || n > PLAYER_UID_MAX || strchr(uid, '*') || !jsontext_utf8(uid, n))
		return false;
	for (const char *p = uid; *p; p++)
		if (control((const unsigned char *)p))
			return false;
	return true;
}
