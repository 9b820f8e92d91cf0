#include "role/role.h"

static int role_init(struct service *s)
{
	return service_lua(s, "role/lua"); /* handlers, remotes, reload */
}

const struct service_def role_service = {
	.name = "role",
	.sqllog = true,
	.keys_move = true,
	.init_service = role_init,
};
