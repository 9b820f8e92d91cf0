#include "team/team.h"

static int team_init(struct service *s)
{
	return service_lua(s, "team/lua"); /* handlers, remotes, reload */
}

const struct service_def team_service = {
	.name = "team",
	.init_service = team_init,
};
