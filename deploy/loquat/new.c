#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "common/buf.h"
#include "common/err.h"
#include "deploy/loquat/loquat.h"

/*
 * A new service's folder, ready to build: `make` finds it by its main.c; or of Lua alone, hosted by luaservice. In the blanks
 * @ stands for the service's name, ^ for what starts it.
 */
static const char main_c[] = "/* @: what it is for, in a sentence. The logic is in @/lua. */\n"
			     "#include \"@/@.h\"\n"
			     "\n"
			     "int main(int argc, char **argv)\n"
			     "{\n"
			     "\treturn service_main(argc, argv, &@_service);\n"
			     "}\n";

static const char service_h[] = "#pragma once\n"
				"#include \"rpc/service.h\"\n"
				"/* @: what it is for, in a sentence. The logic is in @/lua. */\n"
				"extern const struct service_def @_service;\n";

static const char service_c[] = "#include \"@/@.h\"\n"
				"\n"
				"static int @_init(struct service *s)\n"
				"{\n"
				"\treturn service_lua(s, \"@/lua\"); /* handlers, remotes, reload */\n"
				"}\n"
				"\n"
				"const struct service_def @_service = {\n"
				"\t.name = \"@\",\n"
				"\t.init_service = @_init,\n"
				"};\n";

static const char proto[] = "// @: its messages and methods.\n"
			    "syntax = \"proto2\";\n"
			    "package @;\n"
			    "import \"proto/options.proto\";\n"
			    "\n"
			    "message HelloRequest {\n"
			    "  required string name = 1;\n"
			    "}\n"
			    "message HelloAnswer {\n"
			    "  optional string text = 1;\n"
			    "  optional int64 times = 2;        // how often this name was greeted\n"
			    "}\n"
			    "\n"
			    "// Players' requests: @.@Handler.hello\n"
			    "service @Handler {\n"
			    "  rpc hello(HelloRequest) returns (HelloAnswer);\n"
			    "}\n"
			    "\n"
			    "// Other services' calls: app.rpc.@.@Remote.hello(key, {name = …})\n"
			    "service @Remote {\n"
			    "  rpc hello(HelloRequest) returns (HelloAnswer);\n"
			    "  rpc times(HelloRequest) returns (HelloAnswer) { option (loquat.kind) = READ; }\n"
			    "}\n";

static const char greetings_lua[] = "-- Who was greeted how often. What has to outlive a reload stands in `state`.\n"
				    "local Greetings = {}\n"
				    "\n"
				    "state.times = state.times or {}\n"
				    "\n"
				    "function Greetings.greet(name)\n"
				    "  local times = (state.times[name] or 0) + 1\n"
				    "  state.times[name] = times\n"
				    "  return { text = \"Hello, \" .. name .. \"!\", times = times }\n"
				    "end\n"
				    "\n"
				    "return Greetings\n";

static const char handler_lua[] =
	"-- What players ask of @.\n"
	"local Greetings = require \"greetings\"\n"
	"\n"
	"local Handler = {}\n"
	"\n"
	"function Handler.hello(_, msg)\n"
	"  if #msg.name == 0 then return nil, \"bad_request\", \"name: expected some text\" end\n"
	"  return Greetings.greet(msg.name)\n"
	"end\n"
	"\n"
	"return Handler\n";

static const char remote_lua[] =
	"-- What services ask of @.\n"
	"local Greetings = require \"greetings\"\n"
	"\n"
	"local Remote = {}\n"
	"\n"
	"function Remote.hello(args)\n"
	"  if #args.name == 0 then return nil, \"bad_request\", \"name: expected some text\" end\n"
	"  return Greetings.greet(args.name)\n"
	"end\n"
	"\n"
	"function Remote.times(args)\n"
	"  return { times = state.times[args.name] or 0 }\n"
	"end\n"
	"\n"
	"return Remote\n";

static const char lua_test[] =
	"-- What @ promises: build/bin/loquat test @ (docs/testing.md).\n"
	"local ann\n"
	"\n"
	"test.before(function() ann = test.session(\"ann\") end)\n"
	"\n"
	"test(\"a player is greeted by name\", function()\n"
	"  test.equal(ann:request(\"@.@Handler.hello\", { name = \"ann\" }), { code = 200, text = \"Hello, ann!\", times = 1 })\n"
	"end)\n"
	"\n"
	"test(\"greetings are counted by name, whoever asks\", function()\n"
	"  ann:request(\"@.@Handler.hello\", { name = \"bob\" })\n"
	"  test.equal(test.call(\"@.@Remote.hello\", \"bob\", { name = \"bob\" }).times, 2)\n"
	"  test.equal(test.call(\"@.@Remote.times\", \"bob\", { name = \"bob\" }), { times = 2 })\n"
	"end)\n"
	"\n"
	"test(\"a name without text is refused\", function()\n"
	"  test.refused(ann:request(\"@.@Handler.hello\", { name = \"\" }), \"bad_request\", \"name\")\n"
	"  local _, err = test.call(\"@.@Remote.hello\", \"\", { name = \"\" })\n"
	"  test.equal(err, \"bad_request\")\n"
	"end)\n";

static const char readme[] = "# @\n"
			     "\n"
			     "What it is for, in a sentence.\n"
			     "\n"
			     "| where | what |\n"
			     "|---|---|\n"
			     "| `proto/@.proto` | its messages and methods |\n"
			     "| `@/lua/@Handler.lua` | what players ask: route `@.@Handler.METHOD` |\n"
			     "| `@/lua/@Remote.lua` | what services ask: `app.rpc.@.@Remote.METHOD(key, args)` |\n"
			     "| `@/lua/tests/` | what its Lua promises: `build/bin/loquat test @` |\n"
			     "| `tests/system/@` | the service alone, started and called |\n"
			     "| `deploy/schema/NNN-@.sql` | its tables: NNN from 500 on |\n"
			     "\n"
			     "After a change of its Lua: `build/bin/loquat reload @`.\n";

static const char test[] =
	"#!/bin/bash\n"
	"# @ alone: what its methods promise.\n"
	"# shellcheck disable=SC2154 # lib.sh sets work and config\n"
	"source \"$(dirname \"$0\")/lib.sh\"\n"
	"\n"
	"base=$(free_ports)\n"
	"cat >\"$config\" <<-END\n"
	"\treturn {\n"
	"\t  instances = { { id = \"@-1\", service = \"@\", rpc = $base, http = $((base + 1)) } },\n"
	"\t  supervisor = { http = $((base + 2)), database = false },\n"
	"\t  database = { socket = \"$work/none.sock\" },\n"
	"\t  paths = { var = \"$work/var\" },\n"
	"\t}\n"
	"END\n"
	"start ^ --config \"$config\" --instance @-1\n"
	"wait_for 20 \"@-1 is ready\" http_ok $((base + 1)) /readyz\n"
	"\n"
	"is \"a name is greeted\" '{\"text\":\"Hello, ann!\",\"times\":1}' \"$(loquat call @.@Remote.hello '{\"name\":\"ann\"}')\"\n"
	"is \"greetings are counted by name\" '{\"text\":\"Hello, ann!\",\"times\":2}' "
	"\"$(loquat call @.@Remote.hello '{\"name\":\"ann\"}')\"\n"
	"loquat call @.@Remote.hello '{\"name\":\"\"}' >\"$work/out\" 2>&1\n"
	"is \"a name without text is refused\" 1 $?\n"
	"loquat call @.@Remote.hello '{\"nam\":\"ann\"}' >\"$work/out\" 2>&1\n"
	"holds \"an unknown field is named\" \"$work/out\" nam\n";

static const struct blank {
	const char *path, *text;
	mode_t mode;
	bool c; /* not of a service that is Lua alone */
} blanks[] = {
	{ "@/main.c", main_c, 0644, true },
	{ "@/@.h", service_h, 0644, true },
	{ "@/@.c", service_c, 0644, true },
	{ "@/README.md", readme, 0644, false },
	{ "@/lua/greetings.lua", greetings_lua, 0644, false },
	{ "@/lua/@Handler.lua", handler_lua, 0644, false },
	{ "@/lua/@Remote.lua", remote_lua, 0644, false },
	{ "@/lua/tests/hello.lua", lua_test, 0644, false },
	{ "proto/@.proto", proto, 0644, false },
	{ "tests/system/@", test, 0755, false },
};

struct wanted {
	const char *name;
	bool lua_alone;
};

static const char *filled(struct buf *b, const char *text, const struct wanted *w)
{
	buf_clear(b);
	for (; *text; text++) {
		if (*text == '@')
			buf_addstr(b, w->name);
		else if (*text == '^')
			buf_addf(b, w->lua_alone ? "build/bin/luaservice --service %s" : "build/bin/%s", w->name);
		else
			buf_addch(b, *text);
	}
	return buf_cstr(b);
}

static const char *path_of(struct cluster *c, const struct blank *t, const struct wanted *w, struct buf *b,
			   char out[2 * ENV_PATH_MAX])
{
	snprintf(out, 2 * ENV_PATH_MAX, "%s/%s", c->home, filled(b, t->path, w));
	return out;
}

/* What every service would collide with: folders, a file that each has (main.c), words that Lua does not take for a name. */
static bool is_ours(const char *name)
{
	static const char *const taken[] = { "common", "rpc",   "proto",  "deploy",   "tests",      "build",
					     "docs",   "var",   "loquat", "luatest",  "luaservice", "unknown",
					     "main",   "and",   "break",  "do",       "else",       "elseif",
					     "end",    "false", "for",    "function", "goto",       "if",
					     "in",     "local", "nil",    "not",      "or",         "repeat",
					     "return", "then",  "true",   "until",    "while",      NULL };

	for (const char *const *t = taken; *t; t++)
		if (!strcmp(*t, name))
			return true;
	return false;
}

static int check_name(const char *name)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < n; i++)
		if (!islower((unsigned char)name[i]) && !(i && (isdigit((unsigned char)name[i]) || name[i] == '_')))
			return complain("new: \"%s\": a service's name is small letters, digits and _, as \"market\"",
					name);
	if (n < 2 || n > 24 || is_ours(name))
		return complain("new: \"%s\" cannot be a service's name: %s", name,
				is_ours(name) ? "it has a meaning here" : "2 to 24 letters");
	return 0;
}

static int write_one(struct cluster *c, const struct blank *t, const struct wanted *w, struct buf *b)
{
	char path[2 * ENV_PATH_MAX], folder[2 * ENV_PATH_MAX];

	path_of(c, t, w, b, path);
	snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(path, '/') - path), path);
	if (env_dir_make(c->env, folder) < 0)
		return complain("new: %s: %s", folder, env_last_error());
	filled(b, t->text, w);
	if (env_file_store(c->env, path, b->data, b->len, 0) < 0 || chmod(path, t->mode) < 0)
		return complain("new: %s: %s", path, strerror(errno));
	printf(" + %s\n", path + strlen(c->home) + 1);
	return 0;
}

static int write_all(struct cluster *c, const struct wanted *w, struct buf *b)
{
	const size_t n = sizeof blanks / sizeof *blanks;
	char path[2 * ENV_PATH_MAX];

	for (size_t i = 0; i < n; i++)
		if (access(path_of(c, &blanks[i], w, b, path), F_OK) == 0)
			return complain("new: %s is there already: nothing was written", path);
	for (size_t i = 0; i < n; i++)
		if (!(blanks[i].c && w->lua_alone) && write_one(c, &blanks[i], w, b))
			return 2;
	return 0;
}

/* ---- its row in the cluster's file --------------------------------------------------------------------------- */

/* Behind the highest that is given: by a hundred where they are given by hundreds. */
static unsigned next_port(const struct cluster *c, bool http)
{
	unsigned highest = 0;

	for (size_t i = 0; i < c->routes->rows; i++) {
		const struct route_row *row = &c->routes->row[i];
		unsigned port = http ? row->http_port : row->rpc_port;

		highest = port > highest ? port : highest;
	}
	return highest + (highest % 100 ? 1 : 100);
}

static bool has_service(const struct cluster *c, const char *name)
{
	for (size_t i = 0; i < c->routes->rows; i++)
		if (!strcmp(c->routes->row[i].service, name))
			return true;
	return false;
}

/* The end of the last line that is an instance's row, or NULL: the file computes its rows, or writes them otherwise. */
static const char *last_row(const char *text, const char **line)
{
	const char *found = NULL, *at = text;

	while ((at = strstr(at, "service = \""))) {
		const char *begin = at, *end = strchr(at, '\n');

		while (begin > text && begin[-1] != '\n')
			begin--;
		if (end && begin[strspn(begin, " \t")] == '{' && end[-1] == ',') {
			found = end + 1;
			*line = begin;
		}
		at++;
	}
	return found;
}

static void row_of(const struct cluster *c, const char *name, bool host, struct buf *out)
{
	buf_addf(out, "{ id = \"%s-1\", service = \"%s\", %srpc = %u, http = %u },", name, name,
		 host ? "host = host, " : "", next_port(c, false), next_port(c, true));
}

static void put_row(struct buf *b, const struct cluster *c, const char *name, const char *text, size_t n)
{
	const char *line = NULL, *at = last_row(text, &line);
	bool host = at && memmem(line, (size_t)(at - line), "host = host", 11);

	buf_add(b, text, (size_t)(at - text));
	buf_add(b, line, strspn(line, " \t"));
	row_of(c, name, host, b);
	buf_addch(b, '\n');
	buf_add(b, at, n - (size_t)(at - text));
}

/* 1: the file has it now, or had it before; 0: it must be written by hand. */
static int add_row(struct cluster *c, const char *name, struct buf *b)
{
	const char *line;
	char *text;
	size_t n;

	if (has_service(c, name))
		return 1;
	if (env_file_load(c->env, c->config_file, 1 << 20, &text, &n) < 0)
		return 0;
	buf_clear(b);
	int added = last_row(text, &line) != NULL;

	if (added) {
		put_row(b, c, name, text, n);
		added = env_file_store(c->env, c->config_file, b->data, b->len, 0) == 0;
	}
	free(text);
	if (added)
		printf(" + %s-1 in %s\n", name, c->config_file);
	return added;
}

const char new_help[] =
	"\n"
	"  --lua    without C: build/bin/luaservice hosts its lua folder. It has an SQL log, and no keys of the\n"
	"           configuration but those of every service.\n";

int command_new(struct cluster *c, int argc, char **argv)
{
	struct buf b = BUF_INIT;
	int status;

	if (argc < 2 || argc > 3 || (argc == 3 && strcmp(argv[2], "--lua") != 0))
		return complain("new: expected a name: loquat new SERVICE [--lua]");
	const struct wanted w = { .name = argv[1], .lua_alone = argc == 3 };

	if ((status = check_name(w.name)) == 0)
		status = write_all(c, &w, &b);
	if (status == 0 && !add_row(c, w.name, &b)) {
		buf_clear(&b);
		row_of(c, w.name, false, &b);
		printf("\n Give it a row in %s:\n   %s\n", c->config_file, buf_cstr(&b));
	}
	buf_release(&b);
	if (status == 0)
		printf("\n Next   make && build/bin/loquat test %s && make run   (docs/first-service.md)\n", w.name);
	return status;
}
