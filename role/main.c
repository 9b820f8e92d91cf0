/* role: players' roles, bags, quests and purchases, and who is online. The logic is in role/lua. */
#include "role/role.h"

int main(int argc, char **argv)
{
	return service_main(argc, argv, &role_service);
}
