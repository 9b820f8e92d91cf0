/* platform: the platforms that bring players: logins and payments. The logic is in platform/lua. */
#include "platform/platform.h"

int main(int argc, char **argv)
{
	return service_main(argc, argv, &platform_service);
}
