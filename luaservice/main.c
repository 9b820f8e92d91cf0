/* luaservice: hosts a service that is Lua alone: a folder SERVICE/lua and proto/SERVICE.proto, no C. */
#include "luaservice/luaservice.h"

int main(int argc, char **argv)
{
	return luaservice_main(argc, argv);
}
