/* loquat: starts, watches and changes a cluster. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/err.h"
#include "deploy/loquat/loquat.h"
#include "rpc/service_config.h"
#include "rpc/version.h"

static const struct command commands[] = {
	{ "up", "", "start the processes of this host and watch them", command_up, NULL },
	{ "status", "[--json]", "the processes and their state", command_status, NULL },
	{ "stats", "[--once]", "live rates and latencies per method", command_stats, NULL },
	{ "logs", "[ID] [-f]", "the log lines of one or all processes", command_logs, NULL },
	{ "start", "ID", "start an instance", command_start, NULL },
	{ "drain", "ID", "let an instance finish what it does, then stop it", command_start, NULL },
	{ "stop", "ID", "stop an instance", command_start, NULL },
	{ "upgrade", "ID", "a new process takes a connector's place, its players stay", command_upgrade, NULL },
	{ "reload", "[SERVICE [--wait] [--lua]]",
	  "new Lua for all instances of a service, new messages for all; or who runs which", command_reload,
	  reload_help },
	{ "loglevel", "LEVEL [ID]", "how much an instance, a service or the whole cluster logs, until the next start",
	  command_loglevel, loglevel_help },
	{ "console", "ID [--worker N] [-e LUA]", "lines of Lua in a worker; its tasks, timers, sessions and memory",
	  command_console, console_help },
	{ "profile", "ID [--seconds S]", "where its Lua spends the time, as folded stacks", command_profile,
	  profile_help },
	{ "lost", "ID [--yes]", "its host is lost for good: the others take its keys", command_lost, lost_help },
	{ "call", "SERVICE.REMOTE.METHOD JSON [--key K]", "one call, its value as JSON", command_call, NULL },
	{ "migrate", "", "apply what is new in deploy/schema while the cluster runs", command_migrate, NULL },
	{ "history", "--key KEY [FROM…]", "every change of a key (role:42), from the SQL logs that are kept",
	  command_history, NULL },
	{ "sql", "[-e STATEMENT]", "a client on the cluster's database", command_sql, NULL },
	{ "bots", "--players N --rate R --seconds S", "load with real player behaviour", command_bots, bots_help },
	{ "doctor", "", "what this machine lacks, each finding with the command that mends it", command_doctor, NULL },
	{ "test", "SERVICE [WORD] [--tap]", "run the tests of a service's Lua, without a cluster", command_test,
	  test_help },
	{ "types", "", "annotations of messages, routes and the library, for editors", command_types, NULL },
	{ "new", "SERVICE [--lua]", "write a new service's folder, ready to build", command_new, new_help },
	{ NULL, NULL, NULL, NULL, NULL },
};

int complain(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fputs("loquat: ", stderr);
	vfprintf(stderr, fmt, args);
	fputc('\n', stderr);
	va_end(args);
	return 2;
}

/* Of UTF-8 text: what goes on with a character takes no column of its own. */
static int columns(const char *text)
{
	int n = 0;

	for (; *text; text++)
		n += (*text & 0xC0) != 0x80;
	return n;
}

static void usage(FILE *to)
{
	fputs("usage: loquat COMMAND [ARGUMENTS] [--config FILE]\n\n", to);
	for (const struct command *k = commands; k->name; k++)
		fprintf(to, "  %-8s %s%*s %s\n", k->name, k->arguments, 38 - columns(k->arguments), "", k->help);
	fputs("\n  --config FILE  the cluster's file (deploy/cluster.lua)\n  --help         this text, or a command's\n"
	      "  --version      the version\n",
	      to);
}

#define DEFAULT_CONFIG "deploy/cluster.lua"

const char *cluster_path(const struct cluster *c, const char *relative, char out[ENV_PATH_MAX])
{
	bool plain = *relative == '/' || !strcmp(c->root, ".");
	int n = plain ? snprintf(out, ENV_PATH_MAX, "%s", relative)
		      : snprintf(out, ENV_PATH_MAX, "%s/%s", c->root, relative);

	if (n >= ENV_PATH_MAX)
		exit(complain("%s: the path is too long", relative));
	return out;
}

static void find_root(struct cluster *c)
{
	const char *slash = strrchr(c->config_file, '/');

	if (!slash)
		snprintf(c->root, sizeof c->root, "..");
	else if (!memchr(c->config_file, '/', (size_t)(slash - c->config_file)))
		snprintf(c->root, sizeof c->root, ".");
	else
		snprintf(c->root, sizeof c->root, "%.*s/..", (int)(slash - c->config_file), c->config_file);
}

/* Programs and pages stand beside this very program, wherever the configuration is. */
static void find_home(struct cluster *c)
{
	ssize_t n = readlink("/proc/self/exe", c->programs, sizeof c->programs - 1);

	c->programs[n > 0 ? n : 0] = '\0';
	char *slash = strrchr(c->programs, '/');

	if (slash)
		*slash = '\0';
	snprintf(c->home, sizeof c->home, "%s", c->programs);
	for (int up = 0; up < 2 && (slash = strrchr(c->home, '/')); up++)
		*slash = '\0';
}

void service_program(const struct cluster *c, const char *service, char out[ENV_PATH_MAX + 40])
{
	char folder[ENV_PATH_MAX + 40];

	snprintf(out, ENV_PATH_MAX + 40, "%s/%s", c->programs, service);
	snprintf(folder, sizeof folder, "%s/%s/lua", c->home, service);
	if (access(out, X_OK) < 0 && access(folder, R_OK) == 0)
		snprintf(out, ENV_PATH_MAX + 40, "%s/luaservice", c->programs);
}

static void find_database(struct cluster *c)
{
	const char *socket = config_string(c->config, "database.socket", "");
	char path[ENV_PATH_MAX];

	c->private_database = !*socket && !*config_string(c->config, "database.host", "") &&
			      config_bool(c->config, "supervisor.database", true);
	if (*socket)
		snprintf(c->socket, sizeof c->socket, "%s", cluster_path(c, socket, path));
	else
		snprintf(c->socket, sizeof c->socket, "%s/mariadb/mysqld.sock", c->var);
}

bool key_read(struct cluster *c, const char *name, char key[KEY_HEX + 1])
{
	char path[ENV_PATH_MAX + 32], *text;
	size_t n;

	snprintf(path, sizeof path, "%s/keys/%s", c->var, name);
	if (env_file_load(c->env, path, 4096, &text, &n) < 0)
		return false;
	if (n == KEY_HEX)
		memcpy(key, text, KEY_HEX + 1);
	free(text);
	return n == KEY_HEX;
}

static void cluster_close(struct cluster *c)
{
	route_unref(c->routes);
	config_free(c->config);
	env_free(c->env);
}

/* Reads the configuration; typed: argv[0]. On failure prints one line and returns ERR_CONFIG. */
static int cluster_open(struct cluster *c, const char *typed, const char *config_file)
{
	char error[512];

	*c = (struct cluster){ .env = env_new(), .typed = typed };
	snprintf(c->config_file, sizeof c->config_file, "%s", config_file);
	if (strcmp(config_file, DEFAULT_CONFIG))
		snprintf(c->option, sizeof c->option, " --config %s", c->config_file);
	if (service_config_load(c->env, config_file, NULL, NULL, error, sizeof error, &c->config) < 0 ||
	    route_from_config(c->config, true, error, sizeof error, &c->routes) < 0) {
		complain("%s", error);
		cluster_close(c);
		return ERR_CONFIG;
	}
	find_root(c);
	find_home(c);
	cluster_path(c, config_string(c->config, "paths.var", "var"), c->var);
	find_database(c);
	key_read(c, "cluster.key", c->key);
	c->http_host = config_string(c->config, "supervisor.host", "127.0.0.1");
	c->http_port = (uint16_t)config_int(c->config, "supervisor.http", 8000);
	return 0;
}

/* Takes "--config FILE" out of the arguments, wherever it stands. NULL: the file is missing. */
static const char *take_config(int *argc, char **argv)
{
	const char *file = DEFAULT_CONFIG;
	int kept = 0;

	for (int i = 0; i < *argc; i++) {
		if (!strcmp(argv[i], "--config"))
			file = i + 1 < *argc ? argv[++i] : NULL;
		else if (!strncmp(argv[i], "--config=", 9))
			file = argv[i] + 9;
		else
			argv[kept++] = argv[i];
	}
	argv[kept] = NULL;
	*argc = kept;
	return file;
}

#define WORD_MAX 31
/* How many letters have to be put in, left out, changed or swapped with their neighbour to make b of a. */
static size_t distance(const char *a, const char *b)
{
	size_t n = strlen(a), m = strlen(b), rows[3][WORD_MAX + 1];

	if (n > WORD_MAX || m > WORD_MAX)
		return SIZE_MAX;
	for (size_t k = 0; k <= m; k++)
		rows[0][k] = k;
	for (size_t i = 1; i <= n; i++) {
		size_t *row = rows[i % 3], *above = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];

		row[0] = i;
		for (size_t k = 1; k <= m; k++) {
			size_t best = above[k - 1] + (a[i - 1] != b[k - 1]);

			best = above[k] + 1 < best ? above[k] + 1 : best;
			best = row[k - 1] + 1 < best ? row[k - 1] + 1 : best;
			if (i > 1 && k > 1 && a[i - 1] == b[k - 2] && a[i - 2] == b[k - 1] && before[k - 2] + 1 < best)
				best = before[k - 2] + 1;
			row[k] = best;
		}
	}
	return rows[n % 3][m];
}

static int unknown(const char *name)
{
	const struct command *best = commands;

	for (const struct command *k = commands; k->name; k++)
		if (distance(name, k->name) < distance(name, best->name))
			best = k;
	if (distance(name, best->name) > strlen(best->name) / 2) /* not a word of it is right */
		return complain("there is no command \"%s\" (loquat --help lists all)", name);
	return complain("there is no command \"%s\"; did you mean \"%s\"? (loquat --help lists all)", name, best->name);
}

static int run(const struct command *k, const char *typed, const char *config_file, int argc, char **argv)
{
	struct cluster c;
	int status = 2;

	if (cluster_open(&c, typed, config_file) == 0) {
		status = k->run(&c, argc, argv);
		cluster_close(&c);
	}
	return status;
}

static const struct command *command_of(const char *name)
{
	for (const struct command *k = commands; k->name; k++)
		if (!strcmp(k->name, name))
			return k;
	return NULL;
}

static bool asks_help(const char *word)
{
	return !strcmp(word, "--help") || !strcmp(word, "-h");
}

/* loquat --help, loquat help, loquat help COMMAND */
static int help(const char *name)
{
	const struct command *k = name ? command_of(name) : NULL;

	if (name && !k)
		return unknown(name);
	if (k)
		printf("usage: loquat %s %s%s[--config FILE]\n\n%s.\n%s", k->name, k->arguments,
		       *k->arguments ? " " : "", k->help, k->more ? k->more : "");
	else
		usage(stdout);
	return 0;
}

int main(int argc, char **argv)
{
	const char *config_file = take_config(&argc, argv);

	if (!config_file)
		return complain("--config: which file? loquat COMMAND --config deploy/cluster.lua");
	if (argc < 2) {
		usage(stderr);
		return 2;
	}
	if (asks_help(argv[1]) || !strcmp(argv[1], "help"))
		return help(argc > 2 ? argv[2] : NULL);
	if (!strcmp(argv[1], "--version")) {
		puts("loquat " LOQUAT_VERSION);
		return 0;
	}
	const struct command *k = command_of(argv[1]);

	if (!k)
		return unknown(argv[1]);
	return argc > 2 && asks_help(argv[2]) ? help(k->name) : run(k, argv[0], config_file, argc - 1, argv + 1);
}
