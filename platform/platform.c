#include "platform/platform.h"

static int platform_init(struct service *s)
{
	return service_lua(s, "platform/lua"); /* handlers, remotes, reload */
}

const struct service_def platform_service = {
	.name = "platform",
	.init_service = platform_init,
};
