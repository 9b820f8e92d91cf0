#include <stdio.h>
#include <string.h>
#include "common/luahost.h"
#include "common/text.h"
#include "rpc/app_private.h"

/*
 * What nobody can call is told when code begins to run: a handler's or remote's function that is no method of the .proto
 * files, which often means that `make` was forgotten, and a hook that is spelled almost as one.
 */
#define HOOK_EDITS 2

static const char *const hooks[] = { "init_service", "stop_service", "before", "after",     "on_peer",     "on_leave",
				     "on_moved",     "on_lost",      "check",  "on_reload", "on_rollback", "http" };

static const char *hook_meant(const char *name)
{
	const char *best = NULL;
	size_t least = strlen(name) / 3 < HOOK_EDITS ? strlen(name) / 3 + 1 : HOOK_EDITS + 1;

	for (size_t i = 0; i < sizeof hooks / sizeof *hooks; i++) {
		size_t edits = text_distance(name, hooks[i], strlen(hooks[i]));

		if (edits == 0)
			return NULL;
		if (edits < least) {
			best = hooks[i];
			least = edits;
		}
	}
	return best;
}

static void look_at_hook(struct app *a, const char *name)
{
	const char *meant = hook_meant(name);

	if (meant)
		log_warn(a->worker->service->log, "lua.unreached",
			 "function=init.%s why=\"there is no such hook\" meant=%s", name, meant);
}

static void look_at(void *arg, const char *module, const char *name)
{
	struct app *a = arg;
	struct service *s = a->worker->service;
	char full[160];

	if (!strcmp(module, "init")) {
		look_at_hook(a, name);
		return;
	}
	int n = snprintf(full, sizeof full, "%s.%s.%s", s->def->name, module, name);

	if (n < (int)sizeof full && !schema_method(a->worker->schema, full, (size_t)n))
		log_warn(
			s->log, "lua.unreached", "function=%s.%s why=%s", module, name,
			"no .proto has this method, so nobody can call it (after a change of proto/: make, and reload)");
}

void app_unreached(struct app *a)
{
	if (a->worker->index == 0) /* they all run the same */
		luahost_each_function(a->host, look_at, a);
}
