#include <stdio.h>
#include <string.h>
#include <time.h>
#include "common/err.h"
#include "deploy/loquat/control.h"
#include "deploy/loquat/loquat.h"

/* loquat reload: new Lua for a service and new messages for all, or who runs which. */

const char reload_help[] =
	"\n  New messages (proto/, after `make`) are taken by all instances of the cluster, with the Lua of SERVICE. Messages, fields,\n"
	"  methods and enum values may have been added; anything else is refused: it needs all instances to start anew.\n"
	"  Without SERVICE: who runs which version since when, what it ran before, and how the look at its errors ended;\n"
	"  and the messages they go by.\n"
	"  --wait  with SERVICE: returns when the look at its errors has ended (supervisor.reload_watch_s); exit 1 if it was\n"
	"          rolled back\n"
	"  --lua   with SERVICE: its Lua alone, by the messages of now, whatever lies in build/\n";

static const char *text_of(const json_t *o, const char *name)
{
	const char *s = json_string_value(json_object_get(o, name));

	return s && *s ? s : "-";
}

static void print_row(const json_t *o)
{
	const json_t *watch = json_object_get(o, "watch");
	time_t since = (time_t)(json_integer_value(json_object_get(o, "since_ms")) / 1000);
	char when[32];
	struct tm tm;

	strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", localtime_r(&since, &tm));
	printf("%-14s %-8s  since %s  before %-8s  ", text_of(o, "instance"), text_of(o, "version"), when,
	       text_of(o, "previous"));
	if (!json_is_object(watch) || !strcmp(text_of(watch, "state"), "none"))
		printf("\n");
	else
		printf("%s %s%s%s\n", text_of(watch, "version"), text_of(watch, "state"),
		       *text_of(watch, "text") == '-' ? "" : ": ",
		       *text_of(watch, "text") == '-' ? "" : text_of(watch, "text"));
}

/* Nearly always one line: all go by the same. */
static void print_messages(const json_t *list)
{
	json_t *by_version = json_object(), *o, *ids;
	const char *version;
	size_t i;

	json_array_foreach(list, i, o)
	{
		ids = json_object_get(by_version, text_of(o, "version"));
		if (!ids)
			json_object_set_new(by_version, text_of(o, "version"), ids = json_array());
		json_array_append(ids, json_object_get(o, "instance"));
	}
	json_object_foreach(by_version, version, ids)
	{
		printf("messages %s:", version);
		json_array_foreach(ids, i, o) printf(" %s", json_string_value(o));
		printf("\n");
	}
	json_decref(by_version);
}

static void print_followers(const json_t *answer)
{
	json_t *id;
	size_t i;

	json_array_foreach(json_object_get(answer, "follow"), i, id)
		printf("%s: was not ready: it follows when it is\n", json_string_value(id));
}

static int show(struct cluster *c)
{
	json_t *answer, *o;
	size_t i;

	if (supervisor_ask(c, "GET", "/lua", &answer) < 0)
		return 1;
	json_array_foreach(json_object_get(answer, "instances"), i, o) print_row(o);
	print_followers(answer);
	print_messages(json_object_get(answer, "messages"));
	json_decref(answer);
	return 0;
}

/* 0: it goes on; 1: passed, or there is none; -1: rolled back, or nobody can be asked */
static int look(struct cluster *c, const char *service)
{
	json_t *answer, *o, *watch = NULL;
	size_t i;
	int result = 1;

	if (supervisor_ask(c, "GET", "/lua", &answer) < 0)
		return -1;
	json_array_foreach(json_object_get(answer, "instances"), i, o) if (!strcmp(text_of(o, "service"), service))
		watch = json_object_get(o, "watch");
	if (!strcmp(text_of(watch, "state"), "watching"))
		result = 0;
	if (!strcmp(text_of(watch, "state"), "rolled back")) {
		complain("reload: version %s was rolled back: %s", text_of(watch, "version"), text_of(watch, "text"));
		result = -1;
	}
	json_decref(answer);
	return result;
}

static int wait_for_watch(struct cluster *c, const char *service)
{
	int seen;

	while (!(seen = look(c, service)))
		nanosleep(&(struct timespec){ .tv_nsec = 200000000 }, NULL);
	return seen > 0 ? 0 : 1;
}

static int reload(struct cluster *c, const char *service, bool lua_only)
{
	char path[128];
	json_t *answer, *o;
	const json_t *messages;
	size_t i;

	snprintf(path, sizeof path, "/admin/reload?id=%s%s", service, lua_only ? "&what=lua" : "");
	if (supervisor_ask(c, "POST", path, &answer) < 0)
		return 1;
	messages = json_object_get(answer, "messages");
	if (json_integer_value(json_object_get(messages, "taken")))
		printf("messages %s: taken by all %d instances\n", text_of(messages, "version"),
		       (int)json_integer_value(json_object_get(messages, "taken")));
	json_array_foreach(json_object_get(answer, "instances"), i, o)
		printf("%s: runs version %s\n", text_of(o, "instance"), text_of(o, "version"));
	print_followers(answer);
	json_decref(answer);
	return 0;
}

int command_reload(struct cluster *c, int argc, char **argv)
{
	bool wait = false, lua_only = false, known = true;
	int status;

	if (argc == 1)
		return show(c);
	for (int i = 2; i < argc; i++) {
		wait |= !strcmp(argv[i], "--wait");
		lua_only |= !strcmp(argv[i], "--lua");
		known &= !strcmp(argv[i], "--wait") || !strcmp(argv[i], "--lua");
	}
	if (!known || strspn(argv[1], "abcdefghijklmnopqrstuvwxyz0123456789_") != strlen(argv[1]) ||
	    strlen(argv[1]) > 31)
		return complain("reload: expected one service: loquat reload SERVICE [--wait] [--lua]");
	status = reload(c, argv[1], lua_only);
	return status == 0 && wait ? wait_for_watch(c, argv[1]) : status;
}
