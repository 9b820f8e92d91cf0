/*
 * broadcast: one push to 2,000 members of a connector, and beside it the bare send of the same bytes to the same
 * sockets by the same thread, in turns. CPU time of that thread, so that who reads does not count.
 *
 *   broadcast [MEMBERS [ROUNDS]]     prints: members N ours_us X bare_us Y (a send, medians of the rounds)
 */
#include <arpa/inet.h>
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "connector/session.h"
#include "tests/support/edgecluster.h"
#include "tests/support/on_loop.h"
#include "tests/support/suite.h"
#include "tests/support/wireclient.h"

#define ROUTE "onNews"

static struct bench {
	struct edgecluster cluster;
	unsigned members, rounds;
	struct wireclient *client;
	int *fd; /* the connector's ends */
	unsigned fds;
	uint64_t *sid;
	struct buf request, wire; /* the push as asked for, and as it goes to a member */
	struct flag answered;
	uint64_t cpu_ns;
} b;

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- the members -------------------------------------------------------------------------------------------- */

/* All of them read what one round has sent; nobody reads meanwhile, so that waking a reader is no part of a send. */
static void members_read(void)
{
	char bytes[1024];

	for (unsigned i = 0; i < b.members; i++)
		for (size_t left = b.wire.len; left;) {
			ssize_t n = recv(b.client[i].fd, bytes, left, 0);
			if (n <= 0)
				ck_abort_msg("a member was closed");
			left -= (size_t)n;
		}
}

static void members_enter(void)
{
	char body[80];

	b.client = calloc(b.members, sizeof(*b.client));
	for (unsigned i = 0; i < b.members; i++) {
		wireclient_ready(&b.client[i], b.cluster.connector_port[0], false);
		snprintf(body, sizeof(body), "{\"username\":\"m%u\",\"rid\":\"all\"}", i);
		const char *answer = wireclient_ask(&b.client[i], "connector.entryHandler.enter", body);
		ck_assert_msg(answer && strstr(answer, "\"code\":200"), "%s", answer ? answer : "closed");
	}
}

/* Their numbers, on the connector's worker. */
static void sids_take(void *arg)
{
	struct edge *e = b.cluster.connector[0]->worker[0]->user;
	unsigned n = 0;

	(void)arg;
	for (uint32_t i = 0; i < e->slots && n < b.members; i++)
		if (e->slot[i])
			b.sid[n++] = e->slot[i]->conn.sid;
	ck_assert_uint_eq(n, b.members);
}

/* The accepted ends are those whose own port is the connector's. */
static void fds_take(void)
{
	struct rlimit limit;

	getrlimit(RLIMIT_NOFILE, &limit);
	for (int fd = 3; fd < (int)limit.rlim_cur && b.fds < b.members; fd++) {
		struct sockaddr_in own, peer;
		socklen_t own_n = sizeof(own), peer_n = sizeof(peer);
		if (getsockname(fd, (struct sockaddr *)&own, &own_n) == 0 && own.sin_family == AF_INET &&
		    ntohs(own.sin_port) == b.cluster.connector_port[0] &&
		    getpeername(fd, (struct sockaddr *)&peer, &peer_n) == 0)
			b.fd[b.fds++] = fd;
	}
	ck_assert_uint_eq(b.fds, b.members);
}

/* ---- a push ------------------------------------------------------------------------------------------------- */

static void varint(struct buf *out, size_t v)
{
	for (; v >= 128; v >>= 7)
		buf_addch(out, (char)(v | 128));
	buf_addch(out, (char)v);
}

static void field(struct buf *out, unsigned number, const void *p, size_t n)
{
	buf_addch(out, (char)(number << 3 | 2));
	varint(out, n);
	buf_add(out, p, n);
}

static void push_make(void)
{
	static const char body[] = "{\"text\":\"The gates of the northern castle have fallen; who hears this, come.\"}";
	char head[POMELO_MESSAGE_HEAD_MAX];

	field(&b.request, 1, b.sid, b.members * sizeof(*b.sid));
	field(&b.request, 2, ROUTE, strlen(ROUTE));
	field(&b.request, 3, body, strlen(body));
	buf_add(&b.wire, head, pomelo_push_head(head, 0, ROUTE, strlen(ROUTE), strlen(body)));
	buf_add(&b.wire, body, strlen(body));
}

static void on_pushed(void *arg, const struct rpc_answer *a)
{
	(void)arg;
	ck_assert_int_eq(a->err, 0);
	flag_raise(&b.answered);
}

static void push_ask(void *arg)
{
	struct worker *w = b.cluster.scene->worker[0];
	const char *name = "connector.connectorRemote.push";
	struct rpc_call call = {
		.method = schema_method(w->service->schema, name, strlen(name)),
		.to = { .instance = "connector-1", .worker = 0 },
		.body = span_of(b.request.data, b.request.len),
		.on_answer = on_pushed,
	};

	(void)arg;
	rpc_call(w, &call);
}

static void cpu_take(void *arg)
{
	(void)arg;
	b.cpu_ns = cpu_ns();
}

static void bare(void *arg)
{
	uint64_t start = cpu_ns();

	(void)arg;
	for (unsigned i = 0; i < b.members; i++) /* Check's own assert writes to a file each time */
		if (send(b.fd[i], b.wire.data, b.wire.len, MSG_NOSIGNAL) != (ssize_t)b.wire.len)
			ck_abort_msg("a bare send was not taken whole");
	b.cpu_ns = cpu_ns() - start;
}

static double one_ours(unsigned round)
{
	struct loop *loop = b.cluster.connector[0]->worker[0]->loop;
	uint64_t start;

	on_loop(loop, cpu_take, NULL);
	start = b.cpu_ns;
	on_loop(b.cluster.scene->worker[0]->loop, push_ask, NULL);
	ck_assert(flag_wait(&b.answered, round + 1));
	members_read();
	on_loop(loop, cpu_take, NULL);
	return (double)(b.cpu_ns - start) / 1e3 / b.members;
}

static double one_bare(void)
{
	on_loop(b.cluster.connector[0]->worker[0]->loop, bare, NULL);
	members_read();
	return (double)b.cpu_ns / 1e3 / b.members;
}

static int by_value(const void *x, const void *y)
{
	double d = *(const double *)x - *(const double *)y;

	return d < 0 ? -1 : d > 0;
}

static double median(double *v, unsigned n)
{
	qsort(v, n, sizeof(*v), by_value);
	return v[n / 2];
}

static void run(void)
{
	double *ours = calloc(b.rounds, sizeof(*ours)), *sends = calloc(b.rounds, sizeof(*sends));

	for (unsigned i = 0; i < b.rounds; i++) {
		sends[i] = one_bare();
		ours[i] = one_ours(i);
	}
	printf("members %u ours_us %.3f bare_us %.3f\n", b.members, median(ours, b.rounds), median(sends, b.rounds));
	free(ours);
	free(sends);
}

/* What stands behind it uses Check, whose asserts want to be in a test. */
START_TEST(broadcast)
{
	struct rlimit limit;

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	b.fd = calloc(b.members, sizeof(*b.fd));
	b.sid = calloc(b.members, sizeof(*b.sid));
	flag_init(&b.answered);
	edgecluster_start(&b.cluster, &(struct edgecluster_options){ .lua = "connector = { heartbeat_s = 600 }," });
	members_enter();
	on_loop(b.cluster.connector[0]->worker[0]->loop, sids_take, NULL);
	fds_take();
	push_make();
	run();
	for (unsigned i = 0; i < b.members; i++)
		wireclient_close(&b.client[i]);
	edgecluster_stop(&b.cluster);
}
END_TEST

int main(int argc, char **argv)
{
	b.members = argc > 1 ? (unsigned)atoi(argv[1]) : 2000;
	b.rounds = argc > 2 ? (unsigned)atoi(argv[2]) : 101;
	return suite_run_tool("broadcast", broadcast);
}
