#include "chat/chat.h"

static int chat_init(struct service *s)
{
	return service_lua(s, "chat/lua"); /* handlers, remotes, reload */
}

const struct service_def chat_service = {
	.name = "chat",
	.init_service = chat_init,
};
