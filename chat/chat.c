#include "chat/chat.h"

static const struct config_row chat_config[] = {
	{ "chat.per_s", CONFIG_INT, "0", false, 0, 1000,
	  "Messages of one player per second, five seconds' worth at once; above: busy; 0: no bound." },
	{ NULL, CONFIG_INT, NULL, false, 0, 0, NULL },
};

static int chat_init(struct service *s)
{
	return service_lua(s, "chat/lua"); /* handlers, remotes, reload */
}

const struct service_def chat_service = {
	.name = "chat",
	.config = chat_config,
	.init_service = chat_init,
};
