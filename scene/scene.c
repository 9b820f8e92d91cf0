#include "scene/scene.h"
#include "scene/view_lua.h"

static const struct config_row scene_config[] = {
	{ "scene.view_max", CONFIG_INT, "32", false, 1, 1000, "Nearest players an update holds at most." },
	{ "scene.count", CONFIG_INT, "4", false, 1, 100000, "Scenes are numbered from 1 to this." },
	{ "scene.monsters", CONFIG_INT, "40", false, 0, 100000, "Monsters in each scene." },
	{ NULL, CONFIG_INT, NULL, false, 0, 0, NULL },
};

static int scene_init(struct service *s)
{
	return service_lua(s, "scene/lua"); /* handlers, remotes, reload */
}

static const struct service_library libraries[] = { { "views", view_lua_open }, { NULL, NULL } };

const struct service_def scene_service = {
	.name = "scene",
	.config = scene_config,
	.init_service = scene_init,
	.libraries = libraries,
};
