#pragma once
#include <arpa/inet.h>
#include <ftw.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include "tests/bench/rpc_load.h"
#include "common/buf.h"
#include "rpc/service.h"

/*
 * rpc_pair: two instances for the programs of the group rpc, calls-1 and caller-1, each a real service in a process of its
 * own: a folder with their configuration, and their start.
 *
 * Threads: one, before the services have begun.
 */
struct pair {
	char dir[64];
	int port; /* of calls-1 */
};

static inline void pair_file(const struct pair *p, const char *name, const char *text, size_t n)
{
	char path[160];
	FILE *file;
	snprintf(path, sizeof path, "%s/%s", p->dir, name);
	*strrchr(path, '/') = '\0';
	mkdir(path, 0700);
	path[strlen(path)] = '/';
	if (!(file = fopen(path, "w")) || fwrite(text, 1, n, file) != n || fclose(file) != 0)
		load_die(path);
}

static inline int pair_free_port(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	socklen_t size = sizeof a;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || getsockname(fd, (struct sockaddr *)&a, &size) < 0)
		load_die("a free port");
	close(fd);
	return ntohs(a.sin_port);
}

/* options: more of the configuration, behind a comma each. */
static inline void pair_make(struct pair *p, const char *options)
{
	const char *tmp = getenv("TMPDIR");
	struct buf b = BUF_INIT;
	char root[512];
	snprintf(p->dir, sizeof p->dir, "%s/loquat-bench-XXXXXX", tmp && strlen(tmp) < 32 ? tmp : "/tmp");
	if (!mkdtemp(p->dir))
		load_die(p->dir);
	if (!getcwd(root, sizeof root))
		load_die("the working folder");
	p->port = pair_free_port();
	buf_addf(&b,
		 "return { instances = {\n"
		 "{ id = 'calls-1', service = 'calls', rpc = %d },\n"
		 "{ id = 'caller-1', service = 'caller', rpc = %d } },\n"
		 "paths = { var = '%s/var', messages = '%s/build/tests.desc' }, log = { level = 'warn' },\n"
		 "%s }\n",
		 p->port, pair_free_port(), p->dir, root, options);
	pair_file(p, "deploy/cluster.lua", b.data, b.len);
	buf_release(&b);
}

static inline int pair_remove_one(const char *path, const struct stat *st, int kind, struct FTW *where)
{
	(void)st, (void)kind, (void)where;
	return remove(path);
}

static inline void pair_remove(const struct pair *p)
{
	nftw(p->dir, pair_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static inline struct service *pair_start(const struct pair *p, const struct service_def *def, const char *instance,
					 void *user)
{
	struct service *s;
	char error[600], file[600];
	snprintf(file, sizeof file, "%s/deploy/cluster.lua", p->dir);
	struct service_options o = { .config_file = file, .instance = instance, .user = user };
	if (service_start(env_new(), def, &o, error, sizeof error, &s) < 0) {
		fprintf(stderr, "%s\n", error);
		exit(2);
	}
	return s;
}

/* In the server's process: tells its port when it listens, and never returns. */
static inline void pair_serve(const struct pair *p, const struct service_def *def, void *user, int told)
{
	struct service *s = pair_start(p, def, "calls-1", user);
	while (atomic_load(&s->state) == SERVICE_STARTING)
		usleep(1000);
	if (write(told, &p->port, sizeof p->port) < 0)
		exit(2);
	for (;;)
		pause();
}

static inline const struct msg_method *pair_method(struct worker *w, const char *name)
{
	return schema_method(w->service->schema, name, strlen(name));
}

/* A Text whose text fills the 50 bytes. */
static inline void pair_body(char body[LOAD_BODY])
{
	memset(body, 'x', LOAD_BODY);
	body[0] = 1 << 3 | 2;
	body[1] = LOAD_BODY - 2;
}
