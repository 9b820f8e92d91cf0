/* team: small groups of players. The logic is in team/lua. */
#include "team/team.h"

int main(int argc, char **argv)
{
	return service_main(argc, argv, &team_service);
}
