/* scene: the world: movement, monsters, fights. The logic is in scene/lua. */
#include "scene/scene.h"

int main(int argc, char **argv)
{
	return service_main(argc, argv, &scene_service);
}
