#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "common/err.h"
#include "deploy/loquat/supervisor.h"

/* ---- what has to be right before anything is started --------------------------------------------------------- */

/* One supervisor per data folder: the lock ends with the process, so an old file does no harm. */
static int take_lock(struct supervisor *up)
{
	char path[ENV_PATH_MAX + 16], text[64] = "";

	if (env_dir_make(up->c->env, up->c->var) < 0)
		return complain("paths.var: %s: %s", up->c->var, env_last_error());
	snprintf(path, sizeof path, "%s/loquat.pid", up->c->var);
	up->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (up->lock < 0)
		return complain("%s: %s", path, strerror(errno));
	if (flock(up->lock, LOCK_EX | LOCK_NB) == 0)
		return 0;
	if (read(up->lock, text, sizeof text - 1) < 0)
		text[0] = '\0';
	return complain("this cluster already runs (pid %d): %s status%s", (int)strtol(text, NULL, 10), up->c->typed,
			up->c->option);
}

static int check_port(const char *what, const char *key, const char *host, uint16_t port)
{
	struct holder h;

	if (!port || !port_is_taken(host, port, &h))
		return 0;
	if (h.pid)
		return complain("%s: port %s:%u (%s) is taken by pid %d (%s)", what, host, port, key, h.pid, h.name);
	return complain("%s: port %s:%u (%s): %s", what, host, port, key, strerror(errno));
}

static bool is_started_here(void *arg, size_t row)
{
	const struct supervisor *up = arg;

	return up->instance[row].here && up->instance[row].starts;
}

static int check_ports(struct supervisor *up)
{
	struct cluster *c = up->c;
	int status = check_port("the dashboard", "supervisor.http", c->http_host, c->http_port);

	for (size_t i = 0; i < up->instances && !status; i++) {
		const struct route_row *r = up->instance[i].row;

		if (!is_started_here(up, i))
			continue;
		if ((status = check_port(r->id, "client", route_client_host(r), r->client_port)) == 0 &&
		    (status = check_port(r->id, "rpc", r->host, r->rpc_port)) == 0)
			status = check_port(r->id, "http", r->host, r->http_port);
	}
	return status;
}

/* Before new keys are written: a host that comes to a cluster needs the keys of those that run. */
static int check_keys(struct supervisor *up)
{
	const struct route_row *r;
	const char *which;
	char key[KEY_HEX + 1];

	if (keys_are_known(up->c, is_started_here, up, &r, &which) != ERR_DENIED)
		return 0;
	return complain("%s/keys/%s is %s, and %s runs at %s:%u with another: copy %s/keys/ from its host to here",
			up->c->var, which, key_read(up->c, which, key) ? "not the cluster's" : "missing", r->id,
			r->host, r->http_port, up->c->var);
}

static int make_keys(struct cluster *c)
{
	static const char *const names[] = { "cluster.key", "token.key", "platform-demo.key" };
	char folder[ENV_PATH_MAX + 8], key[KEY_HEX + 1], error[512];

	snprintf(folder, sizeof folder, "%s/keys", c->var);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		if (key_load(c->env, folder, names[i], key, error, sizeof error) < 0)
			return complain("%s", error);
		if (i == 0)
			memcpy(c->key, key, sizeof key);
	}
	return 0;
}

/* Each service knows its own keys of the configuration: it is asked, and prints its own line. */
static int check_service(struct cluster *c, const struct route_row *row)
{
	char program[ENV_PATH_MAX + 40];
	int status;

	service_program(c, row->service, program);
	if (access(program, X_OK) < 0)
		return complain("%s: there is no program %s: run `make`, or correct the service's name", row->id,
				program);
	pid_t pid = fork();

	if (pid == 0) {
		execl(program, row->service, "--config", c->config_file, "--instance", row->id, "--check",
		      (char *)NULL);
		_exit(2);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return complain("%s: %s", program, strerror(errno));
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : 2;
}

static int check_services(struct supervisor *up)
{
	for (size_t i = 0; i < up->instances; i++) {
		bool seen = false;

		for (size_t k = 0; k < i; k++)
			seen |= !strcmp(up->instance[i].row->service, up->instance[k].row->service);
		if (!seen && up->instance[i].here && check_service(up->c, up->instance[i].row))
			return 2;
	}
	return 0;
}

/* Their methods are not known before `make`, which is forgotten easily: clients would be told that there is no such route. */
static void tell_of_new_messages(const struct cluster *c)
{
	const char *messages = config_string(c->config, "paths.messages", "build/loquat.desc"), *newer = NULL;
	char path[2 * ENV_PATH_MAX];
	struct stat made, proto;
	struct dirent *e;

	snprintf(path, sizeof path, "%s%s%s", *messages == '/' ? "" : c->root, *messages == '/' ? "" : "/", messages);
	if (stat(path, &made) < 0)
		return; /* the services name it */
	snprintf(path, sizeof path, "%s/proto", c->root);
	DIR *folder = opendir(path);

	while (folder && !newer && (e = readdir(folder))) {
		const char *dot = strrchr(e->d_name, '.');

		if (dot && !strcmp(dot, ".proto") && fstatat(dirfd(folder), e->d_name, &proto, 0) == 0 &&
		    proto.st_mtime > made.st_mtime)
			newer = e->d_name;
	}
	if (newer)
		complain("proto/%s is newer than %s: what it says is not known before `make`", newer, messages);
	if (folder)
		closedir(folder);
}

static int make_folders(struct cluster *c)
{
	char path[ENV_PATH_MAX + 8];

	snprintf(path, sizeof path, "%s/log", c->var);
	return env_dir_make(c->env, path) < 0 ? complain("%s: %s", path, env_last_error()) : 0;
}

static int open_etcd(struct supervisor *up)
{
	char error[600];
	int err = etcd_tls_open(up->c->env, up->c->config, up->c->root, error, sizeof error, &up->etcd_tls);

	return err < 0 ? complain("%s", error) : 0;
}

/* What would end each process at its start is better said once, before anything has started. */
static int check_certificate(struct supervisor *up, const char *section)
{
	char error[300], file[ENV_PATH_MAX];
	struct env_tls *tls;
	int err = certificate_open(up->c, section, file, error, sizeof error, &tls);

	env_tls_free(tls);
	return err < 0 ? complain("%s: %s", section, error) : 0;
}

static bool serves_players(const struct supervisor *up)
{
	for (size_t i = 0; i < up->instances; i++)
		if (up->instance[i].here && up->instance[i].row->client_port)
			return true;
	return false;
}

static int prepare(struct supervisor *up)
{
	int status = check_services(up);

	if (status || (status = check_certificate(up, "rpc.tls")) ||
	    (serves_players(up) && (status = check_certificate(up, "client.tls"))) || (status = open_etcd(up)) ||
	    (status = take_lock(up)) || (status = check_ports(up)) || (status = check_keys(up)) ||
	    (status = make_folders(up->c)) || (status = make_keys(up->c)))
		return status;
	tell_of_new_messages(up->c);
	return up->c->private_database ? database_prepare(up->c) : 0;
}

/* ---- the life of the supervisor --------------------------------------------------------------------------------- */

/* For the other commands, and for a second `up`. */
static void note_pid(struct supervisor *up)
{
	char text[32];
	int n = snprintf(text, sizeof text, "%d %u\n", (int)getpid(), up->http_port);

	if (ftruncate(up->lock, 0) < 0 || pwrite(up->lock, text, (size_t)n, 0) != n)
		complain("%s/loquat.pid: %s", up->c->var, strerror(errno));
}

static void on_start(struct loop *loop, void *arg)
{
	struct supervisor *up = arg;

	up->loop = loop;
	supervisor_start(up);
	note_pid(up);
}

static void init(struct supervisor *up, struct cluster *c)
{
	up->c = c;
	up->lock = -1;
	up->width = 7;
	up->colour = isatty(1) && !getenv("NO_COLOR");
	up->instances = c->routes->rows;
	up->instance = calloc(up->instances ? up->instances : 1, sizeof *up->instance);
	for (size_t i = 0; i < up->instances; i++) {
		struct instance *k = &up->instance[i];
		char path[48];

		k->up = up;
		k->row = &c->routes->row[i];
		snprintf(path, sizeof path, "instances[%zu].start", i + 1);
		k->starts = config_bool(c->config, path, true);
		k->here = host_is_here(k->row->host);
		if ((int)strlen(k->row->id) > up->width)
			up->width = (int)strlen(k->row->id);
	}
}

int command_up(struct cluster *c, int argc, char **argv)
{
	struct supervisor up = { .status = 0 };
	struct loop *loop;
	int status;

	if (argc > 1)
		return complain("up takes no \"%s\" (loquat up --help)", argv[1]);
	init(&up, c);
	if ((status = prepare(&up)) == 0) {
		signal(SIGPIPE, SIG_IGN);
		setenv("LOQUAT_HOME", c->home, 1); /* for a configuration that stands elsewhere */
		if (loop_start(c->env, "supervisor", 0, on_start, NULL, &up, &loop) < 0)
			return complain("a thread could not be started: %s", env_last_error());
		loop_join(loop);
		route_source_free(up.source);
		env_tls_free(up.etcd_tls);
		route_unref(up.table);
		log_close(up.log);
		status = up.status;
		if (status == 0)
			printf("loquat: stopped\n");
	}
	watch_free(&up);
	buf_release(&up.held);
	free((void *)(uintptr_t)up.db_child.argv);
	free(up.instance);
	return status;
}
