#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "common/err.h"
#include "deploy/loquat/control.h"
#include "deploy/loquat/supervisor.h"

/* ---- asking the supervisor ------------------------------------------------------------------------------------ */

uint16_t supervisor_port(struct cluster *c)
{
	char path[ENV_PATH_MAX + 16];
	unsigned pid, port = 0;

	if (c->http_port)
		return c->http_port;
	snprintf(path, sizeof path, "%s/loquat.pid", c->var);
	FILE *f = fopen(path, "re");

	if (f && fscanf(f, "%u %u", &pid, &port) != 2)
		port = 0;
	if (f)
		fclose(f);
	return (uint16_t)port;
}

int supervisor_ask(struct cluster *c, const char *method, const char *path, json_t **out)
{
	char *text = NULL;
	uint16_t port = supervisor_port(c);
	int status = port ? ask(c, c->http_host, port, method, path, NULL, &text) : ERR_UNAVAILABLE;

	if (status < 0) {
		complain("this cluster does not run (nothing answers at %s:%u): %s up%s", c->http_host,
			 port ? port : c->http_port, c->typed, c->option);
		return ERR_UNAVAILABLE;
	}
	*out = json_loads(text, 0, NULL);
	free(text);
	if (*out && status == 200)
		return 0;
	const char *message = json_string_value(json_object_get(*out, "message"));

	complain("%s",
		 message ? message : "the supervisor's port answers, but not as a supervisor: is it another program?");
	json_decref(*out);
	return ERR_FAILED;
}

/* ---- status ------------------------------------------------------------------------------------------------------ */

static const char *text_of(const json_t *o, const char *name)
{
	const char *s = json_string_value(json_object_get(o, name));

	return s && *s ? s : "-";
}

static void print_row(const char *id, const json_t *o)
{
	static const char *const colours[][2] = { { "ready", "\033[32m" },
						  { "failed", "\033[31m" },
						  { "backoff", "\033[31m" } };
	const json_t *pid = json_object_get(o, "pid");
	const char *state = text_of(o, "state"), *colour = "";
	char number[16] = "-", mib[16] = "-";
	double rss = json_number_value(json_object_get(o, "rss_bytes"));

	if (json_is_integer(pid))
		snprintf(number, sizeof number, "%d", (int)json_integer_value(pid));
	if (rss > 0)
		snprintf(mib, sizeof mib, "%.1f", rss / 1048576);
	for (size_t i = 0; i < 3 && isatty(1); i++)
		if (!strcmp(colours[i][0], state))
			colour = colours[i][1];
	printf("%-14s %s%-9s%s %8s %9d  %-21s %-21s %-21s %6s%s%s\n", id, colour, state, *colour ? "\033[0m" : "",
	       number, (int)json_integer_value(json_object_get(o, "restarts")), text_of(o, "client"), text_of(o, "rpc"),
	       text_of(o, "http"), mib, *text_of(o, "why") == '-' ? "" : "  ",
	       *text_of(o, "why") == '-' ? "" : text_of(o, "why"));
}

static void print_table(const json_t *status)
{
	const json_t *o;
	size_t i;

	printf("%-14s %-9s %8s %9s  %-21s %-21s %-21s %6s\n", "instance", "state", "pid", "restarts", "client", "rpc",
	       "http", "MiB");
	if (json_is_true(json_object_get(json_object_get(status, "database"), "private")))
		print_row("mariadb", json_object_get(status, "database"));
	json_array_foreach(json_object_get(status, "instances"), i, o) print_row(text_of(o, "id"), o);
}

static void print_json(const json_t *status)
{
	static const char *const keys[] = { "id", "service", "pid", "state", "client", "rpc", "http", "restarts" };
	json_t *list = json_array(), *o;
	size_t i;

	json_array_foreach(json_object_get(status, "instances"), i, o)
	{
		json_t *row = json_object();

		for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
			json_object_set(row, keys[k], json_object_get(o, keys[k]));
		json_array_append_new(list, row);
	}
	json_dumpf(list, stdout, JSON_INDENT(1));
	putchar('\n');
	json_decref(list);
}

int command_status(struct cluster *c, int argc, char **argv)
{
	bool json = argc == 2 && !strcmp(argv[1], "--json");
	json_t *status;

	if (argc > 1 && !json)
		return complain("status: unknown argument \"%s\" (loquat status --help)", argv[1]);
	if (supervisor_ask(c, "GET", "/status", &status) < 0)
		return 1;
	if (json)
		print_json(status);
	else
		print_table(status);
	json_decref(status);
	return 0;
}

/* ---- start, drain, stop ---------------------------------------------------------------------------------------------- */

#define WAIT_MS 60000
#define LOOK_MS 50

static const char *state_of(const json_t *status, const char *id, const json_t **row)
{
	size_t i;
	const json_t *o;

	json_array_foreach(json_object_get(status, "instances"), i, o) if (!strcmp(text_of(o, "id"), id))
	{
		*row = o;
		return text_of(o, "state");
	}
	return "";
}

static int tell_end(const char *id, const json_t *row, const char *state)
{
	if (!strcmp(state, "ready"))
		printf("%s: ready, pid %d\n", id, (int)json_integer_value(json_object_get(row, "pid")));
	else if (!strcmp(state, "failed"))
		return complain("%s: failed: %s", id, text_of(row, "why")), 1;
	else
		printf("%s: %s\n", id, state);
	return 0;
}

/* Waits until it is what was asked for, so that a script can go on with the next step. */
static int wait_until(struct cluster *c, const char *id, const char *wanted)
{
	const struct timespec look = { .tv_nsec = LOOK_MS * 1000000 };

	for (int ms = 0; ms < WAIT_MS; ms += LOOK_MS) {
		const json_t *row = NULL;
		json_t *status;

		if (supervisor_ask(c, "GET", "/status", &status) < 0)
			return 1;
		const char *state = state_of(status, id, &row);

		if (!strcmp(state, wanted) || !strcmp(state, "failed")) {
			int end = tell_end(id, row, state);

			json_decref(status);
			return end;
		}
		json_decref(status);
		nanosleep(&look, NULL);
	}
	complain("%s is not %s after %d s: %s logs %s%s", id, wanted, WAIT_MS / 1000, c->typed, id, c->option);
	return 1;
}

static bool is_name(const char *id)
{
	return strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == strlen(id) &&
	       strlen(id) <= 31;
}

/* Each host's supervisor starts and stops its own: the one of the instance's host is asked, from whichever host. */
static int go_to_its_host(struct cluster *c, const char *id)
{
	const struct route_row *row = route_find(c->routes, id);

	if (!row || !c->http_port || host_is_here(row->host))
		return 0;
	if (!reaches(row->host, c->http_port)) {
		complain("%s belongs to another host, and no supervisor answers at %s:%u: try it there", id, row->host,
			 c->http_port);
		return ERR_UNAVAILABLE;
	}
	c->http_host = row->host;
	return 0;
}

int command_start(struct cluster *c, int argc, char **argv)
{
	char path[128];
	json_t *answer;

	if (argc != 2)
		return complain("%s: expected one instance: loquat %s ID", argv[0], argv[0]);
	if (*argv[1] == '-' || !is_name(argv[1]))
		return complain("%s: \"%s\" is no instance's name", argv[0], argv[1]);
	snprintf(path, sizeof path, "/admin/%s?id=%s", argv[0], argv[1]);
	if (go_to_its_host(c, argv[1]) < 0 || supervisor_ask(c, "POST", path, &answer) < 0)
		return 1;
	json_decref(answer);
	return wait_until(c, argv[1], !strcmp(argv[0], "start") ? "ready" : "stopped");
}

/* Until the new process is the instance, or has ended without becoming it. */
static int wait_upgraded(struct cluster *c, const char *id, json_int_t pid)
{
	const struct timespec look = { .tv_nsec = LOOK_MS * 1000000 };

	for (int ms = 0; ms < WAIT_MS; ms += LOOK_MS) {
		const json_t *row = NULL;
		json_t *status;

		if (supervisor_ask(c, "GET", "/status", &status) < 0)
			return 1;
		state_of(status, id, &row);
		json_int_t now = json_integer_value(json_object_get(row, "pid"));
		bool under_way = json_object_get(row, "upgrading");

		if (!under_way && now == pid)
			printf("%s: upgraded, pid %d; its players stayed\n", id, (int)now);
		else if (!under_way)
			complain("%s goes on as it was (pid %d): %s", id, (int)now, text_of(row, "not_upgraded"));
		json_decref(status);
		if (!under_way)
			return now != pid;
		nanosleep(&look, NULL);
	}
	complain("%s is not upgraded after %d s: %s logs %s%s", id, WAIT_MS / 1000, c->typed, id, c->option);
	return 1;
}

int command_upgrade(struct cluster *c, int argc, char **argv)
{
	char path[128];
	json_t *answer;

	if (argc != 2 || !is_name(argv[1]))
		return complain("upgrade: expected one connector: loquat upgrade ID");
	snprintf(path, sizeof path, "/admin/upgrade?id=%s", argv[1]);
	if (go_to_its_host(c, argv[1]) < 0 || supervisor_ask(c, "POST", path, &answer) < 0)
		return 1;
	json_int_t pid = json_integer_value(json_object_get(answer, "upgrading"));
	json_decref(answer);
	return wait_upgraded(c, argv[1], pid);
}
