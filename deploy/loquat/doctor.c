#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "common/err.h"
#include "deploy/loquat/database.h"
#include "deploy/loquat/supervisor.h"
#include "rpc/etcd.h"

/* Looks at what a cluster needs of its machine. Each finding is one line with the command that mends it. */
struct doctor {
	struct cluster *c;
	unsigned findings;
	bool runs; /* the cluster runs: its ports are held by itself */
};

static void good(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void good(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fputs(" ✓ ", stdout);
	vprintf(fmt, args);
	va_end(args);
	putchar('\n');
}

/* what is wrong and, after an arrow, what to do. */
static void finding(struct doctor *d, const char *cure, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void finding(struct doctor *d, const char *cure, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fputs(" ! ", stdout);
	vprintf(fmt, args);
	va_end(args);
	printf("\n   → %s\n", cure);
	d->findings++;
}

/* ---- limits and kernel settings ------------------------------------------------------------------------- */

static void check_files(struct doctor *d)
{
	struct rlimit r;
	long players = (long)config_int(d->c->config, "gate.players_max", 10000), wanted = players + 1000;
	char cure[96];

	if (getrlimit(RLIMIT_NOFILE, &r) < 0)
		return;
	snprintf(cure, sizeof cure, "ulimit -n %ld", wanted > 65536 ? wanted : 65536);
	if (r.rlim_cur != RLIM_INFINITY && (long)r.rlim_cur < wanted)
		finding(d, cure,
			"open files: at most %ld per process, and gate.players_max is %ld: enough for about %ld players",
			(long)r.rlim_cur, players, (long)r.rlim_cur > 200 ? (long)r.rlim_cur - 200 : 0);
	else
		good("open files: %ld per process, for %ld players", (long)r.rlim_cur, players);
}

static long number_in(const char *path)
{
	FILE *f = fopen(path, "re");
	long v = -1;

	if (f && fscanf(f, "%ld", &v) != 1)
		v = -1;
	if (f)
		fclose(f);
	return v;
}

static void check_kernel(struct doctor *d)
{
	static const struct {
		const char *path, *name, *why;
		long least;
	} rows[] = {
		{ "/proc/sys/net/core/somaxconn", "net.core.somaxconn", "logins that come at once are refused", 1024 },
		{ "/proc/sys/net/ipv4/tcp_max_syn_backlog", "net.ipv4.tcp_max_syn_backlog",
		  "logins that come at once wait", 512 },
		{ "/proc/sys/fs/inotify/max_user_instances", "fs.inotify.max_user_instances",
		  "each process watches the route table", 64 },
	};
	char cure[160];

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		long v = number_in(rows[i].path);

		if (v < 0)
			continue;
		snprintf(cure, sizeof cure, "sudo sysctl -w %s=%ld", rows[i].name, 4 * rows[i].least);
		if (v < rows[i].least)
			finding(d, cure, "%s is %ld: %s", rows[i].name, v, rows[i].why);
		else
			good("%s: %ld", rows[i].name, v);
	}
}

static void check_memory(struct doctor *d)
{
	long pages = sysconf(_SC_AVPHYS_PAGES), size = sysconf(_SC_PAGESIZE), mib = pages / 1024 * size / 1024;
	FILE *f = fopen("/proc/meminfo", "re");
	char line[128];

	while (f && fgets(line, sizeof line, f)) {
		long kib;

		if (sscanf(line, "MemAvailable: %ld kB", &kib) == 1)
			mib = kib / 1024;
	}
	if (f)
		fclose(f);
	if (mib < 1024)
		finding(d, "free --mebi; ps aux --sort=-rss | head",
			"memory: %ld MiB are available; a cluster with its database wants 1024", mib);
	else
		good("memory: %ld MiB available", mib);
}

/* ---- programs ---------------------------------------------------------------------------------------------- */

static void check_programs(struct doctor *d)
{
	static const char *const packages[][2] = { { "mariadbd", "mariadb-server-core" },
						   { "mariadb", "mariadb-client-core" } };
	char path[ENV_PATH_MAX + 64], cure[96]; /* longer than a program's */

	for (size_t i = 0; i < 2; i++) {
		if (i == 0 && !d->c->private_database)
			continue;
		snprintf(cure, sizeof cure, "sudo apt-get install %s", packages[i][1]);
		if (find_program(packages[i][0], path))
			good("%s: %s", packages[i][0], path);
		else
			finding(d, cure, "%s is not installed", packages[i][0]);
	}
	for (size_t i = 0; i < d->c->routes->rows; i++) {
		service_program(d->c, d->c->routes->row[i].service, path);
		if (access(path, X_OK) < 0)
			finding(d, "make", "%s: there is no program %s", d->c->routes->row[i].id, path);
	}
}

/* ---- ports --------------------------------------------------------------------------------------------------- */

static unsigned check_port(struct doctor *d, const char *id, const char *what, const char *host, uint16_t port)
{
	struct holder h;
	char cure[128];

	if (!port || !port_is_taken(host, port, &h))
		return 0;
	if (h.pid)
		snprintf(cure, sizeof cure, "end pid %d, or choose another port in %.60s", h.pid, d->c->config_file);
	else
		snprintf(cure, sizeof cure, "choose another port in %.60s", d->c->config_file);
	if (h.pid)
		finding(d, cure, "%s: %s port %s:%u is taken by pid %d (%s)", id, what, host, port, h.pid, h.name);
	else
		finding(d, cure, "%s: %s port %s:%u: %s", id, what, host, port, strerror(errno));
	return 1;
}

static void check_ports(struct doctor *d)
{
	unsigned taken = 0, n = 0;

	if (d->runs) {
		good("ports: the cluster itself holds them");
		return;
	}
	taken += check_port(d, "the dashboard", "http", d->c->http_host, d->c->http_port);
	for (size_t i = 0; i < d->c->routes->rows; i++) {
		const struct route_row *r = &d->c->routes->row[i];

		if (!host_is_here(r->host))
			continue;
		n++;
		taken += check_port(d, r->id, "client", route_client_host(r), r->client_port) +
			 check_port(d, r->id, "rpc", r->host, r->rpc_port) +
			 check_port(d, r->id, "http", r->host, r->http_port);
	}
	if (!taken)
		good("ports: those of %u instances and the dashboard are free", n);
}

/* ---- the disk -------------------------------------------------------------------------------------------------- */

#define SYNCS 32

static int by_number(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* How long a record of money waits: writing a block and syncing it, the middle and the worst of some. */
static int time_syncs(const char *folder, double out[SYNCS])
{
	char path[ENV_PATH_MAX + 32], block[4096];
	int err = 0;

	snprintf(path, sizeof path, "%s/.doctor-XXXXXX", folder);
	int fd = mkstemp(path);

	if (fd < 0)
		return -1;
	unlink(path);
	memset(block, 'x', sizeof block);
	for (size_t i = 0; i < SYNCS && !err; i++) {
		double start = now_ms();

		err = write(fd, block, sizeof block) != sizeof block || fdatasync(fd) < 0;
		out[i] = now_ms() - start;
	}
	close(fd);
	qsort(out, SYNCS, sizeof *out, by_number);
	return err ? -1 : 0;
}

static void check_disk(struct doctor *d)
{
	double ms[SYNCS];
	struct statvfs fs;
	const char *folder = access(d->c->var, W_OK) == 0 ? d->c->var : d->c->root;

	if (time_syncs(folder, ms) < 0)
		finding(d, "choose another folder in paths.var", "%s cannot be written: %s", folder, strerror(errno));
	else if (ms[SYNCS / 2] > 10)
		finding(d, "put paths.var on a faster disk; batches keep the throughput, only the wait grows",
			"disk: a sync in %s takes %.1f ms (worst of %d: %.1f ms): so long a purchase waits", folder,
			ms[SYNCS / 2], SYNCS, ms[SYNCS - 1]);
	else
		good("disk: a sync in %s takes %.2f ms (worst of %d: %.2f ms)", folder, ms[SYNCS / 2], SYNCS,
		     ms[SYNCS - 1]);
	if (statvfs(folder, &fs) < 0)
		return;
	double gib = (double)fs.f_bavail * (double)fs.f_frsize / 1073741824;

	if (gib < 2)
		finding(d, "df -h; remove what is not needed",
			"disk: %.1f GiB are free; logs and database want 2 at least", gib);
	else
		good("disk: %.1f GiB free", gib);
}

/* ---- keys and the database ----------------------------------------------------------------------------------------- */

static void check_keys(struct doctor *d)
{
	static const char *const names[] = { "cluster.key", "token.key", "platform-demo.key" };
	char path[ENV_PATH_MAX + 64], cure[ENV_PATH_MAX + 96];
	struct stat st;

	for (size_t i = 0; i < 3; i++) {
		snprintf(path, sizeof path, "%s/keys/%s", d->c->var, names[i]);
		if (stat(path, &st) < 0)
			continue; /* written at the first start */
		snprintf(cure, sizeof cure, "chmod 600 %s", path);
		if (st.st_mode & 077)
			finding(d, cure, "%s can be read by others", path);
	}
}

/* Whether `loquat sql` gets an answer; else the first line of what the client said. */
static bool ask_database(struct doctor *d, char said[256])
{
	char self[ENV_PATH_MAX + 16], config[ENV_PATH_MAX + 16];
	int ends[2], status;

	said[0] = '\0';
	snprintf(self, sizeof self, "%s/loquat", d->c->programs);
	snprintf(config, sizeof config, "--config=%s", d->c->config_file);
	if (pipe2(ends, O_CLOEXEC) < 0)
		return false;
	fflush(stdout);
	pid_t pid = fork();

	if (pid == 0) {
		dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), 1);
		dup2(ends[1], 2);
		execl(self, self, "sql", "-e", "SELECT 1", config, (char *)NULL);
		_exit(2);
	}
	close(ends[1]);
	FILE *f = fdopen(ends[0], "r");

	if (f && fgets(said, 256, f))
		said[strcspn(said, "\n")] = '\0';
	while (f && getc(f) != EOF) {
	}
	if (f)
		fclose(f);
	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void check_certificate(struct doctor *d, const char *section)
{
	char error[300], file[ENV_PATH_MAX];
	struct env_tls *tls;
	int err = certificate_open(d->c, section, file, error, sizeof error, &tls);

	if (err < 0)
		finding(d, "correct it, or put the right file there", "%s: %s", section, error);
	if (!tls)
		return;
	long long left_s = env_tls_life(tls).ends_s - (long long)(env_wall_us(d->c->env) / 1000000);

	env_tls_free(tls);
	if (left_s < 14 * 86400)
		finding(d, "put a new one in its place: running processes take it", "%s: %s %s %lld days", section,
			file, left_s < 0 ? "has ended since" : "ends in", llabs(left_s) / 86400);
	else
		good("%s: %s is good for %lld days", section, file, left_s / 86400);
}

static bool is_here(void *arg, size_t row)
{
	const struct doctor *d = arg;

	return host_is_here(d->c->routes->row[row].host);
}

static void check_other_hosts(struct doctor *d)
{
	const struct route_row *r;
	const char *which;
	char cure[ENV_PATH_MAX + 96];
	int err = keys_are_known(d->c, is_here, d, &r, &which);

	snprintf(cure, sizeof cure, "copy %s/keys/ from that host to here, then start anew", d->c->var);
	if (err == 0)
		good("cluster.key, token.key: %s at %s has the same", r->id, r->host);
	else if (err == ERR_DENIED)
		finding(d, cure, "%s/keys/%s is not the one of %s at %s", d->c->var, which, r->id, r->host);
}

static void check_database(struct doctor *d)
{
	const char *host = config_string(d->c->config, "database.host", "");
	const char *where = *host ? host : d->c->socket, *name = config_string(d->c->config, "database.name", "loquat");
	char said[256], cure[320];

	if (d->c->private_database && !d->runs) {
		good("database: a private one, started with the cluster");
		return;
	}
	if (ask_database(d, said))
		good("database: %s answers", where);
	else if (strstr(said, "Unknown database"))
		good("database: %s answers; the first `up` makes \"%s\" there", where, name);
	else
		finding(d, database_cure(d->c, said, cure), "database: %s: %s", where,
			*said ? said : "does not answer");
}

/* ---- etcd ------------------------------------------------------------------------------------------------------------- */

static void check_etcd_login(struct doctor *d, struct env_tls *tls, const struct etcd_config *e,
			     const struct etcd_host *h, const char *text)
{
	struct buf body = BUF_INIT;
	char *answer = NULL, why[160], said[128] = "";

	etcd_put_login(&body, e->user, e->password);
	int status = ask_etcd(d->c, tls, h, ETCD_LOGIN, buf_cstr(&body), &answer, why);

	if (answer)
		etcd_get_error(answer, strlen(answer), said);
	if (status == 200)
		good("etcd: %s knows %s", text, e->user);
	else if (answer && etcd_is_open(answer, strlen(answer)))
		finding(d, "etcdctl auth enable", "etcd: %s asks nobody who they are, though discovery.user is %s",
			text, e->user);
	else
		finding(d, "correct discovery.user and discovery.password, or etcdctl user add",
			"etcd: %s does not take discovery.user %s: %s", text, e->user, *said ? said : why);
	buf_release(&body);
	free(answer);
}

static bool check_etcd_host(struct doctor *d, struct env_tls *tls, const struct etcd_host *h, const char *name,
			    const char *text)
{
	char *answer = NULL, why[160];
	int status = ask_etcd(d->c, tls, h, ETCD_STATUS, "{}", &answer, why);

	if (status != 200 && answer)
		etcd_get_error(answer, strlen(answer), why);
	json_t *o = answer ? json_loads(answer, 0, NULL) : NULL;
	const char *version = json_string_value(json_object_get(o, "version"));
	bool leads = status == 200 && version && json_object_get(o, "leader");

	if (leads)
		good("etcd: %s answers (%s)", text, version);
	else if (status == 200)
		finding(d, "start the other members: without a majority nothing can be registered",
			"etcd: %s has no leader", text);
	else if (status == ERR_DENIED)
		finding(d, "correct discovery.tls in the configuration, or etcd's certificate", "etcd: %s (%s): %s",
			text, name, why);
	else
		finding(d, "correct discovery.endpoints in the configuration, or start etcd", "etcd: %s (%s): %s", text,
			name, *why ? why : "it does not speak etcd's v3 JSON");
	json_decref(o);
	free(answer);
	return leads;
}

static void check_etcd(struct doctor *d)
{
	const struct config *c = d->c->config;
	struct env_tls *tls;
	struct etcd_config e;
	char error[600], name[48];

	if (strcmp(config_string(c, "discovery.kind", "file"), "etcd") ||
	    etcd_config_read(c, &e, error, sizeof error) < 0) /* cluster_open has refused that */
		return;
	if (etcd_tls_open(d->c->env, c, d->c->root, error, sizeof error, &tls) < 0) {
		finding(d, "correct discovery.tls in the configuration", "etcd: %s", error);
		return;
	}
	for (unsigned i = 0; i < e.hosts; i++) {
		snprintf(name, sizeof name, "discovery.endpoints[%u]", i + 1);
		const char *text = config_string(c, name, "");

		if (check_etcd_host(d, tls, &e.host[i], name, text) && *e.user)
			check_etcd_login(d, tls, &e, &e.host[i], text);
	}
	env_tls_free(tls);
}

static void check_cluster(struct doctor *d)
{
	char *text = NULL, hint[2 * ENV_PATH_MAX + 64];

	snprintf(hint, sizeof hint, "it does not run: %s up%s starts it", d->c->typed, d->c->option);
	d->runs = d->c->http_port && ask(d->c, d->c->http_host, d->c->http_port, "GET", "/readyz", NULL, &text) > 0 &&
		  text && (!strncmp(text, "ok", 2) || !strncmp(text, "starting", 8) || !strncmp(text, "draining", 8));
	good("cluster: %s", d->runs ? "it runs" : hint);
	free(text);
}

int command_doctor(struct cluster *c, int argc, char **argv)
{
	struct doctor d = { .c = c };

	if (argc > 1)
		return complain("doctor takes no \"%s\" (loquat doctor --help)", argv[1]);
	good("configuration: %s", c->config_file);
	check_cluster(&d);
	check_programs(&d);
	check_ports(&d);
	check_files(&d);
	check_kernel(&d);
	check_memory(&d);
	check_disk(&d);
	check_keys(&d);
	check_other_hosts(&d);
	check_certificate(&d, "rpc.tls");
	check_certificate(&d, "client.tls");
	check_database(&d);
	check_etcd(&d);
	printf("\n%u finding%s\n", d.findings, d.findings == 1 ? "" : "s");
	return d.findings ? 1 : 0;
}
