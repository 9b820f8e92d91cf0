/* dbwriter: lands the SQL logs in the database. And, for people: --dump FILE, --verify FILE, --status. */
#include "dbwriter/dbwriter.h"
#include "dbwriter/show_main.h"
#include "rpc/service.h"

int main(int argc, char **argv)
{
	int status;
	if (show_main(argc, argv, &status))
		return status;
	return service_main(argc, argv, &dbwriter_service);
}
