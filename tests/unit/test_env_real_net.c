/* The promises of common/env.h about sockets, on the real environment. */
#include <check.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/env.h"
#include "common/err.h"
#include "tests/support/flag.h"
#include "tests/support/on_loop.h"
#include "tests/support/suite.h"

enum { MANY = 200 };

static struct env *env;
static struct loop *here, *there;
static struct env_listener *listener;
static struct env_conn *accepted[MANY], *connected[MANY];
static struct flag accepts, connects, readable, writable;
static int connect_err;
static const char *host;

static void on_accept(void *arg, struct env_conn *conn)
{
	(void)arg;
	accepted[flag_count(&accepts)] = conn;
	flag_raise(&accepts);
}

static void on_readable(void *arg)
{
	env_conn_want_read(*(struct env_conn **)arg, false); /* level-triggered: else it would come again and again */
	flag_raise(&readable);
}

static void on_writable(void *arg)
{
	env_conn_want_write(*(struct env_conn **)arg, false);
	flag_raise(&writable);
}

static void on_connected(void *arg, int err)
{
	(void)arg;
	connect_err = err;
	flag_raise(&connects);
}

static const struct env_conn_ops ops = { .on_readable = on_readable,
					 .on_writable = on_writable,
					 .on_connected = on_connected };

static void listen_there(void *arg)
{
	(void)arg;
	ck_assert_int_eq(env_listen(there->ev, host, 0, on_accept, NULL, &listener), 0);
}

static void unlisten(void *arg)
{
	(void)arg;
	env_listener_close(listener);
	listener = NULL;
}

static void connect_one(void *arg)
{
	struct env_conn **c = arg;
	unsigned long before = flag_count(&connects);
	ck_assert_int_eq(env_connect(here->ev, host, env_listener_port(listener), &ops, c, c), 0);
	ck_assert_uint_eq(flag_count(&connects), before); /* never from inside */
}

static void setup(void)
{
	env = env_new();
	here = on_loop_new(env, "here");
	there = on_loop_new(env, "there");
	host = "127.0.0.1";
	flag_init(&accepts);
	flag_init(&connects);
	flag_init(&readable);
	flag_init(&writable);
	on_loop(there, listen_there, NULL);
}

static void connect_both(void)
{
	on_loop(here, connect_one, &connected[0]);
	ck_assert(flag_wait(&connects, 1));
	ck_assert_int_eq(connect_err, 0);
	ck_assert(flag_wait(&accepts, 1));
}

static void close_conns(void *arg)
{
	struct env_conn **conns = arg;
	for (int i = 0; i < MANY; i++) {
		env_conn_close(conns[i]);
		conns[i] = NULL;
	}
}

static void teardown(void)
{
	on_loop(here, close_conns, connected);
	on_loop(there, close_conns, accepted);
	on_loop(there, unlisten, NULL);
	on_loop_free(here);
	on_loop_free(there);
	env_free(env);
}

static void attach_first(void *arg)
{
	ck_assert_int_eq(env_conn_attach(accepted[0], ((struct loop *)arg)->ev, &ops, &accepted[0]), 0);
}

static void detach_first(void *arg)
{
	(void)arg;
	env_conn_detach(accepted[0]);
}

static void put(void *arg)
{
	struct iovec parts[2] = { { .iov_base = "hel", .iov_len = 3 }, { .iov_base = "lo", .iov_len = 2 } };
	ck_assert_int_eq(env_conn_write(*(struct env_conn **)arg, parts, 2), 5);
}

static void get(void *arg)
{
	char text[16];
	(void)arg;
	ck_assert_int_eq(env_conn_read(accepted[0], text, sizeof text), 5);
	ck_assert_mem_eq(text, "hello", 5);
	ck_assert_int_eq(env_conn_read(accepted[0], text, sizeof text), ERR_AGAIN);
	env_conn_want_read(accepted[0], true);
}

START_TEST(bytes_pass_and_readiness_tells)
{
	connect_both();
	on_loop(there, attach_first, there);
	on_loop(here, put, &connected[0]);
	ck_assert(flag_wait(&readable, 1));
	on_loop(there, get, NULL);
}
END_TEST

START_TEST(an_accepted_connection_may_live_on_another_loop_and_move)
{
	connect_both();
	on_loop(here, attach_first, here);
	on_loop(here, put, &connected[0]);
	ck_assert(flag_wait(&readable, 1));
	on_loop(here, detach_first, NULL);
	on_loop(there, attach_first, there);
	ck_assert(flag_wait(&readable, 2));
	on_loop(there, get, NULL);
}
END_TEST

static void read_end(void *arg)
{
	char text[16];
	ck_assert_int_eq(env_conn_read(accepted[0], text, sizeof text), *(int *)arg);
}

static void half_close(void *arg)
{
	(void)arg;
	env_conn_shutdown(connected[0]);
}

START_TEST(a_half_close_reads_as_the_end_and_the_other_way_still_works)
{
	int end = 0;
	connect_both();
	on_loop(there, attach_first, there);
	on_loop(here, half_close, NULL);
	ck_assert(flag_wait(&readable, 1));
	on_loop(there, read_end, &end);
	on_loop(there, put, &accepted[0]);
	ck_assert(flag_wait(&readable, 2));
}
END_TEST

static void fill(void *arg)
{
	static char block[1 << 16];
	struct iovec iov = { .iov_base = block, .iov_len = sizeof block };
	ssize_t n;
	(void)arg;
	while ((n = env_conn_write(connected[0], &iov, 1)) > 0)
		;
	ck_assert_int_eq(n, ERR_AGAIN);
	env_conn_want_write(connected[0], true);
}

static void drain(void *arg)
{
	static char block[1 << 16];
	(void)arg;
	while (env_conn_read(accepted[0], block, sizeof block) > 0)
		;
	env_conn_want_read(accepted[0], true);
}

START_TEST(a_full_socket_says_again_and_tells_when_there_is_room)
{
	connect_both();
	on_loop(there, attach_first, there);
	on_loop(here, fill, NULL);
	while (flag_count(&writable) == 0) {
		on_loop(there, drain, NULL);
		on_loop_turns(there);
	}
}
END_TEST

static void write_to_gone(void *arg)
{
	struct iovec iov = { .iov_base = "x", .iov_len = 1 };
	ssize_t n;
	(void)arg;
	while ((n = env_conn_write(connected[0], &iov, 1)) > 0 || n == ERR_AGAIN)
		; /* on a busy machine the end comes a little later than the bytes go */
	ck_assert_int_eq(n, ERR_CLOSED);
}

START_TEST(writing_to_a_peer_that_has_gone_is_closed)
{
	connect_both();
	on_loop(there, close_conns, accepted);
	on_loop(here, write_to_gone, NULL);
}
END_TEST

START_TEST(both_ends_know_each_other)
{
	char mine[ENV_ADDR_MAX], theirs[ENV_ADDR_MAX], want[ENV_ADDR_MAX];
	connect_both();
	env_conn_peer(accepted[0], theirs);
	ck_assert_int_eq(strncmp(theirs, "127.0.0.1:", 10), 0);
	env_conn_peer(connected[0], mine);
	snprintf(want, sizeof want, "127.0.0.1:%u", env_listener_port(listener));
	ck_assert_str_eq(mine, want);
}
END_TEST

START_TEST(ipv6_works_too)
{
	char peer[ENV_ADDR_MAX];
	int fd = socket(AF_INET6, SOCK_STREAM, 0);
	if (fd < 0)
		return; /* a machine without it */
	close(fd);
	on_loop(there, unlisten, NULL);
	host = "::1";
	on_loop(there, listen_there, NULL);
	connect_both();
	env_conn_peer(accepted[0], peer);
	ck_assert_int_eq(strncmp(peer, "[::1]:", 6), 0);
}
END_TEST

START_TEST(who_listens_on_both_knows_an_ipv4_peer_by_its_own_address)
{
	char peer[ENV_ADDR_MAX];
	int fd = socket(AF_INET6, SOCK_STREAM, 0);
	if (fd < 0)
		return; /* a machine without it */
	close(fd);
	on_loop(there, unlisten, NULL);
	host = "::";
	on_loop(there, listen_there, NULL);
	host = "127.0.0.1";
	connect_both();
	env_conn_peer(accepted[0], peer);
	ck_assert_int_eq(strncmp(peer, "127.0.0.1:", 10), 0);
}
END_TEST

static void listen_badly(void *arg)
{
	struct env_listener *l;
	struct env_conn *c;
	(void)arg;
	ck_assert_int_eq(env_listen(there->ev, host, env_listener_port(listener), on_accept, NULL, &l), ERR_EXISTS);
	ck_assert_int_eq(env_listen(there->ev, "localhost", 0, on_accept, NULL, &l), ERR_BAD_REQUEST);
	ck_assert_int_eq(env_listen(there->ev, "192.0.2.1", 0, on_accept, NULL, &l), ERR_IO);
	ck_assert_int_eq(env_connect(there->ev, "localhost", 1, &ops, NULL, &c), ERR_BAD_REQUEST);
}

START_TEST(a_taken_address_and_a_name_are_refused)
{
	on_loop(there, listen_badly, NULL);
}
END_TEST

static void connect_many(void *arg)
{
	(void)arg;
	for (int i = 0; i < MANY; i++)
		connect_one(&connected[i]);
}

static void count_turns(void *arg)
{
	*(uint64_t *)arg = there->turns;
}

/* The connections are made in the kernel's queue; accepting them needs descriptors that are not there. */
START_TEST(out_of_descriptors_accepting_rests_and_goes_on_when_there_are_some)
{
	struct rlimit limit, low;
	uint64_t before, after;
	on_loop(here, connect_many, NULL);
	ck_assert(flag_wait(&accepts, MANY));
	on_loop(here, close_conns, connected);
	on_loop(there, close_conns, accepted);
	flag_init(&accepts);
	flag_init(&connects);
	getrlimit(RLIMIT_NOFILE, &limit);
	on_loop(here, connect_one, &connected[0]);
	ck_assert(flag_wait(&accepts, 1));
	low = (struct rlimit){ .rlim_cur = (rlim_t)dup(0), .rlim_max = limit.rlim_max };
	close((int)low.rlim_cur);
	low.rlim_cur++; /* one more: the client's */
	setrlimit(RLIMIT_NOFILE, &low);
	uint64_t from_ns = env_mono_ns(env);
	on_loop(there, count_turns, &before);
	on_loop(here, connect_one, &connected[1]);
	ck_assert(flag_wait(&connects, 2));
	for (int i = 0; i < 500; i++) /* while the other worker does a thousand turns this one must not spin */
		on_loop_turns(here);
	on_loop(there, count_turns, &after);
	ck_assert_uint_le(after - before, 10 + (env_mono_ns(env) - from_ns) / 20000000);
	ck_assert_uint_eq(flag_count(&accepts), 1);
	setrlimit(RLIMIT_NOFILE, &limit);
	ck_assert(flag_wait(&accepts, 2));
}
END_TEST

static void on_accept_close(void *arg, struct env_conn *conn)
{
	(void)arg;
	env_conn_close(conn);
	unlisten(NULL);
	flag_raise(&accepts);
}

static void listen_once(void *arg)
{
	unlisten(arg);
	ck_assert_int_eq(env_listen(there->ev, host, 0, on_accept_close, NULL, &listener), 0);
}

START_TEST(a_listener_may_be_closed_while_it_accepts)
{
	on_loop(there, listen_once, NULL);
	on_loop(here, connect_one, &connected[0]);
	ck_assert(flag_wait(&accepts, 1));
	on_loop_turns(there);
	on_loop(there, listen_there, NULL);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("env_real_net");
	tcase_set_timeout(t, 30);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, bytes_pass_and_readiness_tells);
	tcase_add_test(t, an_accepted_connection_may_live_on_another_loop_and_move);
	tcase_add_test(t, a_half_close_reads_as_the_end_and_the_other_way_still_works);
	tcase_add_test(t, a_full_socket_says_again_and_tells_when_there_is_room);
	tcase_add_test(t, writing_to_a_peer_that_has_gone_is_closed);
	tcase_add_test(t, both_ends_know_each_other);
	tcase_add_test(t, ipv6_works_too);
	tcase_add_test(t, who_listens_on_both_knows_an_ipv4_peer_by_its_own_address);
	tcase_add_test(t, a_taken_address_and_a_name_are_refused);
	tcase_add_test(t, out_of_descriptors_accepting_rests_and_goes_on_when_there_are_some);
	tcase_add_test(t, a_listener_may_be_closed_while_it_accepts);
	return suite_run("env_real_net", t);
}
