/* chat: rooms, channels and their history. The logic is in chat/lua. */
#include "chat/chat.h"

int main(int argc, char **argv)
{
	return service_main(argc, argv, &chat_service);
}
