#include "rpc/service_config.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "rpc/route_source.h"

/* The keys every process knows. A service's own rows stand in its struct service_def. */
const struct config_row service_config_rows[] = {
	{ "cluster", CONFIG_STRING, "loquat", false, 1, 31, "The cluster's name." },
	{ "instances", CONFIG_TABLE, NULL, false, 0, 0, "One row per process." },
	{ "instances[].id", CONFIG_STRING, NULL, false, 1, 31, "SERVICE-NUMBER, unique." },
	{ "instances[].service", CONFIG_STRING, NULL, false, 1, 31, "Which program it is." },
	{ "instances[].host", CONFIG_STRING, "127.0.0.1", false, 1, 63, "Address it listens at." },
	{ "instances[].client_host", CONFIG_STRING, "", false, 0, 63,
	  "Address of the players' port, told to them too; empty: host, as for the inner ports." },
	{ "instances[].client", CONFIG_INT, "0", false, 0, 65535, "Port for players; 0: none." },
	{ "instances[].rpc", CONFIG_INT, NULL, false, 1, 65535, "Port for calls between services." },
	{ "instances[].http", CONFIG_INT, "0", false, 0, 65535, "Port for HTTP; 0: none." },
	{ "instances[].start", CONFIG_BOOL, "true", false, 0, 0,
	  "Started with the cluster; else by `loquat start ID`." },
	{ "supervisor.host", CONFIG_STRING, "127.0.0.1", false, 1, 63, "Where the dashboard listens." },
	{ "supervisor.http", CONFIG_INT, "8000", false, 0, 65535, "Its port." },
	{ "supervisor.database", CONFIG_BOOL, "true", false, 0, 0, "Start a private MariaDB in paths.var." },
	{ "supervisor.reload_watch_s", CONFIG_INT, "10", false, 0, 3600,
	  "How long a service's errors are looked at after a reload; 0: not." },
	{ "supervisor.reload_errors_percent", CONFIG_INT, "10", false, 1, 100,
	  "It is rolled back if the failed part of a method's requests grows by this." },
	{ "discovery.kind", CONFIG_STRING, "file", false, 4, 4,
	  "Where the route table comes from: file (one machine) or etcd." },
	{ "discovery.endpoints", CONFIG_TABLE, "", true, 0, 0,
	  "Addresses of etcd: \"http://10.0.0.1:2379\", or https, up to 8." },
	{ "discovery.endpoints[]", CONFIG_STRING, NULL, false, 3, 80, "One of them." },
	{ "discovery.user", CONFIG_STRING, "", false, 0, 80, "Who we are to etcd; empty: it asks nobody." },
	{ "discovery.password", CONFIG_STRING, "", false, 0, 255, "Its password." },
	{ "discovery.tls.ca", CONFIG_STRING, "", false, 0, 400,
	  "PEM file: who must have signed etcd's certificate, where an endpoint says https." },
	{ "discovery.tls.cert", CONFIG_STRING, "", false, 0, 400, "PEM file: what etcd is shown; empty: nothing." },
	{ "discovery.tls.key", CONFIG_STRING, "", false, 0, 400, "PEM file: its key." },
	{ "discovery.prefix", CONFIG_STRING, "/loquat", false, 1, 100, "Its keys are PREFIX/CLUSTER/instances/ID." },
	{ "discovery.lease_s", CONFIG_INT, "5", false, 2, 60, "An instance that dies is missed after this." },
	{ "discovery.missing_s", CONFIG_INT, "5", false, 0, 3600,
	  "Who is missed is dropped after this, unless it answers." },
	{ "paths.var", CONFIG_STRING, "var", false, 1, 400, "Folder of all data." },
	{ "paths.messages", CONFIG_STRING, "build/loquat.desc", false, 1, 400, "Descriptor set of proto/." },
	{ "database.socket", CONFIG_STRING, "", false, 0, 400, "Unix socket; empty: the private one in paths.var." },
	{ "database.host", CONFIG_STRING, "", false, 0, 255, "Host of a database elsewhere; empty: the socket." },
	{ "database.port", CONFIG_INT, "3306", false, 1, 65535, "Its port." },
	{ "database.user", CONFIG_STRING, "root", false, 1, 80, "Its user." },
	{ "database.password", CONFIG_STRING, "", false, 0, 255, "Its password." },
	{ "database.name", CONFIG_STRING, "loquat", false, 1, 64, "The database there." },
	{ "log.level", CONFIG_STRING, "info", false, 4, 5, "debug, info, warn or error." },
	{ "rpc.timeout_ms", CONFIG_INT, "5000", false, 1, 600000, "Deadline of a call that names none." },
	{ "rpc.tls.cert", CONFIG_STRING, "", false, 0, 400,
	  "PEM file: what inner links show of themselves; empty: no TLS." },
	{ "rpc.tls.key", CONFIG_STRING, "", false, 0, 400, "PEM file: its key." },
	{ "rpc.tls.ca", CONFIG_STRING, "", false, 0, 400, "PEM file: who must have signed the other side's." },
	{ "rpc.drain_s", CONFIG_INT, "5", false, 0, 3600, "How long a draining instance waits for what is under way." },
	{ "rpc.once_bytes_max", CONFIG_INT, "67108864", false, 65536, 1e12,
	  "Memory for the once-calls one worker remembers; older answers are read back from the database." },
	{ "rpc.limits", CONFIG_TABLE, "", true, 0, 0, "Methods with limits of their own, per worker." },
	{ "rpc.limits[].method", CONFIG_STRING, NULL, false, 3, 127, "Which: \"role.shopHandler.buy\"." },
	{ "rpc.limits[].running", CONFIG_INT, NULL, false, 1, 65536, "So many requests of it run at once." },
	{ "rpc.limits[].queued", CONFIG_INT, "0", false, 0, 10000,
	  "So many of each connection wait; more are busy at once." },
	{ "client.tls.cert", CONFIG_STRING, "", false, 0, 400,
	  "PEM file: the chain shown to players; empty: no TLS on their ports." },
	{ "client.tls.key", CONFIG_STRING, "", false, 0, 400, "PEM file: its key." },
	{ "client.tls.required", CONFIG_BOOL, "false", false, 0, 0, "Players without TLS are refused." },
	{ "client.balancers", CONFIG_TABLE, "", true, 0, 0,
	  "Who may say for whom it speaks, by PROXY protocol v2 or X-Forwarded-For." },
	{ "client.balancers[]", CONFIG_STRING, NULL, false, 2, 60, "An address, or a subnet: \"10.1.0.0/16\"." },
	{ "client.origins", CONFIG_TABLE, "", true, 0, 0, "Pages that may connect; left out: all." },
	{ "client.origins[]", CONFIG_STRING, NULL, false, 1, 200, "One: \"https://play.example.com\"." },
	{ "client.protobuf", CONFIG_STRING, "asked", false, 5, 6,
	  "Bodies in protobuf: never, always, or asked: with clients that ask for it." },
	{ "client.dictionary", CONFIG_BOOL, "true", false, 0, 0, "Connectors tell clients the routes' codes." },
	{ "client.least", CONFIG_TABLE, "", true, 0, 0, "Older clients are refused with 501." },
	{ "client.least[].type", CONFIG_STRING, "*", false, 1, 31, "Which: sys.type of the handshake, or *." },
	{ "client.least[].version", CONFIG_STRING, NULL, false, 1, 31, "The least version." },
	{ "session.grace_s", CONFIG_INT, "30", false, 0, 86400, "How long a lost connection's session is kept." },
	{ "sqllog.file_bytes_max", CONFIG_INT, "67108864", false, 4096, 4e9, "A log file is closed at this size." },
	{ "sqllog.ring_bytes", CONFIG_INT, "16777216", false, 65536, 1e9,
	  "Room for records not yet written; when it is full, changes are busy." },
	{ "sqllog.linger_us", CONFIG_INT, "1000", false, 0, 1e6,
	  "How long a sync waits for more records, at most: fewer syncs, later answers." },
	{ "sqllog.durable", CONFIG_STRING, "synced", false, 6, 10,
	  "When a change is acknowledged: synced, or replicated: when the standby has it, too." },
	{ "sqllog.standby", CONFIG_STRING, "", false, 0, 255,
	  "The dbwriters that keep copies (\"dbwriter-1,dbwriter-2\"): the first on another host has ours." },
	{ "lua.memory_bytes_max", CONFIG_INT, "1073741824", false, 1048576, 1e12,
	  "Bound of one worker's Lua; a task that reaches it fails." },
	{ "lua.budget_ms", CONFIG_INT, "1000", false, 1, 600000,
	  "What computes this long without waiting is stopped, and fails." },
	{ "lua.gc", CONFIG_STRING, "incremental", false, 4, 12,
	  "The collector: incremental, generational, or auto: the second while its pauses are short." },
	{ "lua.texts", CONFIG_INT, "0", false, 0, 100000000,
	  "Room for so many different short texts is made at the start; for heaps of 50 MB and more." },
	{ "lua.slow_ms", CONFIG_INT, "1000", false, 0, 3600000,
	  "A request that waits longer in one place is logged with its traceback; 0: none." },
	{ NULL, CONFIG_INT, NULL, false, 0, 0, NULL },
};

/* Of each service: NAME stands for its name. */
const struct config_row service_config_each[] = {
	{ "NAME.threads", CONFIG_INT, "1", false, 1, 64, "Worker threads of each instance." },
	{ "NAME.poll_us", CONFIG_INT, "0", false, 0, 10000,
	  "How long a worker that had something to do looks for more before it sleeps, in microseconds." },
	{ "NAME.cache_mb", CONFIG_INT, "16", false, 1, 65536, "Bound of each worker's cache for scripts, in MiB." },
	{ NULL, CONFIG_INT, NULL, false, 0, 0, NULL },
};
#define EACH (sizeof service_config_each / sizeof *service_config_each - 1)

#define ROWS_MAX  512
#define NAMES_MAX 64

struct rows {
	struct config_row row[ROWS_MAX];
	size_t n;
	char path[NAMES_MAX][EACH + 1][48]; /* a service's keys and its table, where rows point to */
	size_t names;
};

static void rows_add(struct rows *r, const struct config_row *row)
{
	assert(r->n < ROWS_MAX - 1);
	r->row[r->n++] = *row;
}

static void rows_add_all(struct rows *r, const struct config_row *rows)
{
	for (; rows && rows->path; rows++)
		rows_add(r, rows);
}

static bool rows_have(const struct rows *r, const char *path)
{
	for (size_t i = 0; i < r->n; i++)
		if (!strcmp(r->row[i].path, path))
			return true;
	return false;
}

/* Each service has these keys; what else stands in another service's table is that service's to check. */
static void rows_add_service(struct rows *r, const char *name, bool own)
{
	if (r->names == NAMES_MAX)
		return;
	char(*path)[48] = r->path[r->names];

	for (size_t i = 0; i < EACH; i++)
		snprintf(path[i], sizeof path[i], "%s%s", name, service_config_each[i].path + strlen("NAME"));
	if (rows_have(r, path[0]))
		return;
	r->names++;
	for (size_t i = 0; i < EACH; i++) {
		struct config_row row = service_config_each[i];

		row.path = path[i];
		rows_add(r, &row);
	}
	if (own)
		return;
	snprintf(path[EACH], sizeof path[EACH], "%s", name);
	rows_add(r, &(struct config_row){ path[EACH], CONFIG_ANY, NULL, true, 0, 0, "Keys of another service." });
}

static int rows_add_services(struct rows *r, struct env *env, const char *file, const char *own, char *error,
			     size_t size)
{
	static const struct config_row loose[] = {
		{ "*", CONFIG_ANY, NULL, true, 0, 0, "" },
		{ NULL, CONFIG_INT, NULL, false, 0, 0, NULL },
	};
	struct config *c;
	int err = config_load(env, file, loose, error, size, &c);

	if (err < 0)
		return err;
	for (size_t i = 1; i <= config_count(c, "instances"); i++) {
		char path[64];

		snprintf(path, sizeof path, "instances[%zu].service", i);
		const char *name = config_string(c, path, "");

		if (*name && strlen(name) < 32)
			rows_add_service(r, name, own && !strcmp(name, own));
	}
	config_free(c);
	return 0;
}

static int check_discovery(const char *file, struct config **c, char *error, size_t size)
{
	char why[400];
	int err = route_source_check(*c, why, sizeof why);

	if (err < 0) {
		snprintf(error, size, "%s: %s", file, why);
		config_free(*c);
		*c = NULL;
	}
	return err;
}

int service_config_load(struct env *env, const char *file, const char *own, const struct config_row *own_rows,
			char *error, size_t error_size, struct config **out)
{
	struct rows *r = calloc(1, sizeof *r);
	int err;

	assert(r);
	rows_add_all(r, service_config_rows);
	rows_add_all(r, own_rows);
	err = rows_add_services(r, env, file, own, error, error_size);
	if (err == 0)
		err = config_load(env, file, r->row, error, error_size, out);
	free(r);
	return err < 0 ? err : check_discovery(file, out, error, error_size);
}
