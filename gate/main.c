/* gate: names a connector to each player; the queue when the cluster is full. */
#include "gate/gate.h"

int main(int argc, char **argv)
{
	return service_main(argc, argv, &gate_service);
}
