/* connector: the players' sockets and sessions; forwards their requests, brings pushes to them. */
#include "connector/connector.h"

int main(int argc, char **argv)
{
	return service_main(argc, argv, &connector_service);
}
