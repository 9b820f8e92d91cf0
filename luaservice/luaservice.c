#include "luaservice/luaservice.h"
#include <stdio.h>
#include <string.h>
#include "rpc/service.h"

static int init(struct service *s)
{
	char folder[64];

	snprintf(folder, sizeof folder, "%.31s/lua", s->def->name);
	return service_lua(s, folder); /* handlers, remotes, reload */
}

/* Takes "--service NAME" out of the arguments. */
static const char *take_name(int *argc, char **argv)
{
	const char *slash = strrchr(argv[0], '/'), *name = slash ? slash + 1 : argv[0];
	int kept = 1;

	for (int i = 1; i < *argc; i++) {
		if (!strcmp(argv[i], "--service") && i + 1 < *argc)
			name = argv[++i];
		else
			argv[kept++] = argv[i];
	}
	*argc = kept;
	argv[kept] = NULL;
	return name;
}

int luaservice_main(int argc, char **argv)
{
	const char *name = take_name(&argc, argv);
	const struct service_def def = { .name = name, .sqllog = true, .init_service = init };

	return service_main(argc, argv, &def);
}
