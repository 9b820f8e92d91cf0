/* The services that have Lua and C of their own: the Makefile finds them. */
#include <string.h>
#include "deploy/luatest/luatest.h"

#define X(name) extern const struct service_def name##_service;
LUATEST_SERVICES
#undef X

const struct service_def *luatest_service(const char *name)
{
	static const struct service_def *const all[] = {
#define X(name) &name##_service,
		LUATEST_SERVICES
#undef X
			NULL,
	};

	for (const struct service_def *const *s = all; *s; s++)
		if (!strcmp((*s)->name, name))
			return *s;
	return NULL;
}
