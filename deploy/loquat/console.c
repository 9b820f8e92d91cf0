#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/buf.h"
#include "common/err.h"
#include "deploy/loquat/loquat.h"

/* loquat console, loquat profile: looking into an instance's Lua while it runs, over its HTTP, by the cluster key. */

const char console_help[] =
	"\n  Lines of Lua are run in a task of one worker, as a request is; their values are printed. Without -e they are read\n"
	"  from stdin: code that ends too early goes on in the next line (>>), until it is whole or a dot alone drops it. The\n"
	"  environment is the service's (state, app, require, …), globals you set are kept, and:\n"
	"  .tasks     what runs or waits, with tracebacks      console.tasks()\n"
	"  .timers    what is due when                         console.timers()\n"
	"  .sessions  whose requests this worker runs          console.sessions()\n"
	"  .memory    what `state` and the modules hold        console.memory()\n"
	"  --worker N  which worker (0)\n  -e LUA      one line, then the end; exit 1 if it fails\n";
const char profile_help[] =
	"\n  Prints folded stacks (task;outer;…;inner COUNT), as flame graph programs read them.\n"
	"  --seconds S  how long (5, at most 40)\n  --hz N       samples per second and worker (100)\n";

/* NULL: one line was printed. */
static const struct route_row *instance(struct cluster *c, const char *command, const char *id)
{
	const struct route_row *row = id ? route_find(c->routes, id) : NULL;

	if (!id)
		complain("%s: expected one instance: loquat %s ID", command, command);
	else if (!row)
		complain("%s: %s has no instance \"%s\"", command, c->config_file, id);
	else if (!row->http_port)
		complain("%s: %s has no HTTP port", command, id);
	return row && row->http_port ? row : NULL;
}

/*
 * The answer's text, the caller's to free; NULL: one line was printed, or the code ends too early, which unfinished tells
 * (NULL: that is an error like others).
 */
static char *post(struct cluster *c, const char *command, const struct route_row *row, const char *path,
		  const char *body, bool *unfinished)
{
	char *text = NULL;
	int status = ask(c, row->host, row->http_port, "POST", path, body, &text);

	if (status == 200)
		return text;
	if (unfinished && status == 400 && strstr(text, "near <eof>: the code ends too early")) {
		*unfinished = true;
	} else if (status < 0 && reaches(row->host, row->http_port)) {
		complain("%s: %s took it and does not answer: it may be done yet: %s status%s", command, row->id,
			 c->typed, c->option);
	} else if (status < 0) {
		complain("%s: %s does not answer: %s status%s", command, row->id, c->typed, c->option);
	} else {
		json_t *o = json_loads(text, 0, NULL);
		const char *message = json_string_value(json_object_get(o, "message"));

		complain("%s: %s: %s", command, row->id, message ? message : text);
		json_decref(o);
	}
	free(text);
	return NULL;
}

/* ---- values for people ------------------------------------------------------------------------------------------- */

static void print_plain(const json_t *v)
{
	char *text = json_is_string(v) ? NULL : json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);

	fputs(json_is_string(v) ? json_string_value(v) : text, stdout);
	free(text);
}

/* A record in a line; texts of several lines stand below it. */
static void print_record(json_t *o)
{
	const char *name;
	json_t *v;

	json_object_foreach(o, name, v)
	{
		if (json_is_string(v) && strchr(json_string_value(v), '\n'))
			continue;
		printf("%s=", name);
		print_plain(v);
		putchar(' ');
	}
	putchar('\n');
	json_object_foreach(o, name, v)
	{
		if (json_is_string(v) && strchr(json_string_value(v), '\n'))
			printf("%s\n", json_string_value(v));
	}
}

static void print_value(json_t *v)
{
	json_t *item;
	size_t i;

	if (json_is_array(v) && json_is_object(json_array_get(v, 0))) {
		json_array_foreach(v, i, item) print_record(item);
		return;
	}
	print_plain(v);
	putchar('\n');
}

static int print_values(char *text)
{
	json_t *list = json_loads(text, JSON_DECODE_ANY, NULL), *v;
	size_t i;

	json_array_foreach(list, i, v) print_value(v);
	json_decref(list);
	free(text);
	return 0;
}

/* ---- console ------------------------------------------------------------------------------------------------------- */

static const char *lua_of(const char *line)
{
	static const char *const words[][2] = {
		{ ".tasks", "console.tasks()" },
		{ ".timers", "console.timers()" },
		{ ".sessions", "console.sessions()" },
		{ ".memory",
		  "(function() local t = console.memory() table.sort(t, function(a, b) return a.bytes > b.bytes end) "
		  "return t end)()" },
	};

	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (!strcmp(words[i][0], line))
			return words[i][1];
	return line;
}

static int run_code(struct cluster *c, const struct route_row *row, const char *worker, const char *code,
		    bool *unfinished)
{
	char path[64];

	snprintf(path, sizeof path, "/admin/console?worker=%.8s", worker);
	char *text = post(c, "console", row, path, lua_of(code), unfinished);

	return text ? print_values(text) : 1;
}

static void prompt(bool people, const struct buf *code)
{
	if (people)
		fputs(code->len ? ">> " : "> ", stdout);
	fflush(stdout);
}

/* The line behind those before it, which end too early by themselves. */
static void add_line(struct cluster *c, const struct route_row *row, const char *worker, struct buf *code,
		     const char *line)
{
	bool unfinished = false;

	if (code->len)
		buf_addch(code, '\n');
	buf_addstr(code, line);
	run_code(c, row, worker, buf_cstr(code), &unfinished);
	if (!unfinished)
		buf_clear(code);
}

static int run_lines(struct cluster *c, const struct route_row *row, const char *worker)
{
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;
	bool people = isatty(0);
	struct buf code = BUF_INIT;

	if (!reaches(row->host, row->http_port)) {
		complain("console: %s does not answer: %s status%s", row->id, c->typed, c->option);
		return 1;
	}
	if (people)
		printf("%s, worker %s: Lua, or .tasks .timers .sessions .memory; Ctrl-D ends\n", row->id, worker);
	for (prompt(people, &code); (n = getline(&line, &cap, stdin)) >= 0; prompt(people, &code)) {
		while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == ' '))
			line[--n] = '\0';
		if (code.len && !strcmp(line, "."))
			buf_clear(&code);
		else if (n)
			add_line(c, row, worker, &code, line);
	}
	if (code.len)
		run_code(c, row, worker, buf_cstr(&code), NULL); /* says what is missing */
	buf_release(&code);
	free(line);
	return 0;
}

int command_console(struct cluster *c, int argc, char **argv)
{
	const char *id = NULL, *worker = "0", *line = NULL;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--worker") && i + 1 < argc)
			worker = argv[++i];
		else if (!strcmp(argv[i], "-e") && i + 1 < argc)
			line = argv[++i];
		else if (!id && argv[i][0] != '-')
			id = argv[i];
		else
			return complain("console: unexpected \"%s\" (loquat console --help)", argv[i]);
	}
	const struct route_row *row = instance(c, "console", id);

	if (!row || !*worker || strspn(worker, "0123456789") != strlen(worker))
		return row ? complain("console: --worker: expected a number") : 2;
	return line ? run_code(c, row, worker, line, NULL) : run_lines(c, row, worker);
}

/* ---- profile --------------------------------------------------------------------------------------------------------- */

int command_profile(struct cluster *c, int argc, char **argv)
{
	const char *id = NULL, *seconds = "5", *hz = "100";
	char path[96];

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--seconds") && i + 1 < argc)
			seconds = argv[++i];
		else if (!strcmp(argv[i], "--hz") && i + 1 < argc)
			hz = argv[++i];
		else if (!id && argv[i][0] != '-')
			id = argv[i];
		else
			return complain("profile: unexpected \"%s\" (loquat profile --help)", argv[i]);
	}
	const struct route_row *row = instance(c, "profile", id);

	if (!row)
		return 2;
	if (strspn(seconds, "0123456789") != strlen(seconds) || strspn(hz, "0123456789") != strlen(hz))
		return complain("profile: --seconds and --hz: expected numbers");
	snprintf(path, sizeof path, "/admin/profile?seconds=%.8s&hz=%.8s", seconds, hz);
	char *text = post(c, "profile", row, path, "", NULL);

	if (!text)
		return 1;
	fputs(text, stdout);
	free(text);
	return 0;
}
