/* The promises of env_pass_* in common/env.h: sockets go from one loop to another by a door, with bytes. */
#include <check.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "common/err.h"
#include "tests/support/flag.h"
#include "tests/support/folder.h"
#include "tests/support/on_loop.h"
#include "tests/support/suite.h"

static struct env *env;
static struct loop *here;
static char *dir, path[400];
static struct env_pass_door *door;
static struct env_pass *ours, *theirs;
static struct flag knocked, accepted, heard;
static struct env_listener *listener;
static struct env_conn *conn, *client;
static char got[16];

static void on_peer(void *arg, struct env_pass *p)
{
	(void)arg;
	ours = p;
	flag_raise(&knocked);
}

static void door_open(void *arg)
{
	(void)arg;
	ck_assert_int_eq(env_pass_listen(here->ev, path, on_peer, NULL, &door), 0);
}

static void all_close(void *arg)
{
	(void)arg;
	env_pass_door_close(door, true);
	env_listener_close(listener);
	env_conn_close(conn);
	env_conn_close(client);
}

static void setup(void)
{
	env = env_new();
	here = on_loop_new(env, "here");
	dir = folder_new();
	/* longer than a Unix socket's path may be */
	snprintf(path, sizeof(path), "%s/%0*d", dir, 150, 1);
	ck_assert_int_eq(env_dir_make(env, path), 0);
	strcat(path, "/connector-1.door");
	flag_init(&knocked);
	flag_init(&accepted);
	flag_init(&heard);
	door = NULL;
	ours = theirs = NULL;
	listener = NULL;
	conn = client = NULL;
	on_loop(here, door_open, NULL);
	ck_assert_int_eq(env_pass_connect(env, path, &theirs), 0);
	ck_assert(flag_wait(&knocked, 1));
}

static void teardown(void)
{
	env_pass_close(ours);
	env_pass_close(theirs);
	on_loop(here, all_close, NULL);
	on_loop_free(here);
	env_free(env);
	folder_free(dir);
}

START_TEST(messages_come_whole_and_in_order)
{
	struct env_passed *passed;
	char bytes[ENV_PASS_MAX];

	ck_assert_int_eq(env_pass_send(ours, "one", 3, NULL, NULL), 0);
	ck_assert_int_eq(env_pass_send(ours, memset(bytes, 'x', sizeof(bytes)), sizeof(bytes), NULL, NULL), 0);
	ck_assert_int_eq(env_pass_receive(theirs, bytes, sizeof(bytes), 1000, &passed), 3);
	ck_assert_ptr_null(passed);
	ck_assert_int_eq(env_pass_receive(theirs, bytes, sizeof(bytes), 1000, &passed), ENV_PASS_MAX);
	ck_assert_int_eq(env_pass_receive(theirs, bytes, sizeof(bytes), 0, &passed), ERR_TIMEOUT);
}
END_TEST

START_TEST(a_message_larger_than_the_room_is_refused)
{
	struct env_passed *passed;
	char bytes[8];

	ck_assert_int_eq(env_pass_send(ours, "much too long", 13, NULL, NULL), 0);
	ck_assert_int_eq(env_pass_receive(theirs, bytes, sizeof(bytes), 1000, &passed), ERR_FULL);
}
END_TEST

START_TEST(who_has_gone_is_told_of)
{
	struct env_passed *passed;
	char bytes[8];

	env_pass_close(ours);
	ours = NULL;
	ck_assert_int_eq(env_pass_receive(theirs, bytes, sizeof(bytes), 1000, &passed), ERR_CLOSED);
	ck_assert_int_eq(env_pass_send(theirs, "x", 1, NULL, NULL), ERR_CLOSED);
}
END_TEST

START_TEST(a_door_is_this_users_alone_and_gone_when_closed)
{
	struct stat s;
	struct env_pass *p;

	ck_assert_int_eq(stat(path, &s), 0);
	ck_assert_uint_eq(s.st_mode & 0777, 0600);
	on_loop(here, all_close, NULL);
	door = NULL;
	ck_assert_int_eq(env_pass_connect(env, path, &p), ERR_UNAVAILABLE);
}
END_TEST

/* ---- sockets */

static void on_accept(void *arg, struct env_conn *c)
{
	(void)arg;
	conn = c;
	flag_raise(&accepted);
}

static void ignore(void *arg)
{
	(void)arg;
}

static void on_connected(void *arg, int err)
{
	(void)arg;
	ck_assert_int_eq(err, 0);
	ck_assert_int_eq((int)env_conn_write(client, &(struct iovec){ "hello", 5 }, 1), 5);
}

static void on_readable(void *arg)
{
	(void)arg;
	ssize_t n = env_conn_read(conn, got, sizeof(got) - 1);
	if (n > 0)
		flag_raise(&heard);
}

static const struct env_conn_ops client_ops = { ignore, ignore, on_connected }, ops = { on_readable, ignore, NULL };

static void listen_here(void *arg)
{
	(void)arg;
	ck_assert_int_eq(env_listen(here->ev, "127.0.0.1", 0, on_accept, NULL, &listener), 0);
}

static void connect_client(void *arg)
{
	const uint16_t *port = arg;

	ck_assert_int_eq(env_connect(here->ev, "127.0.0.1", *port, &client_ops, NULL, &client), 0);
}

static void attach(void *arg)
{
	(void)arg;
	ck_assert_int_eq(env_conn_attach(conn, here->ev, &ops, NULL), 0);
}

START_TEST(a_connection_goes_on_at_the_other_side)
{
	struct env_passed *passed;
	char bytes[8], before[ENV_ADDR_MAX], after[ENV_ADDR_MAX];

	on_loop(here, listen_here, NULL);
	uint16_t port = env_listener_port(listener);
	on_loop(here, connect_client, &port);
	ck_assert(flag_wait(&accepted, 1));
	ck_assert(env_conn_passable(conn));
	env_conn_peer(conn, before);
	ck_assert_int_eq(env_pass_send(ours, "conn", 4, conn, NULL), 0);
	env_conn_close(conn); /* the other side's stays open */
	ck_assert_int_eq(env_pass_receive(theirs, bytes, sizeof(bytes), 1000, &passed), 4);
	ck_assert_ptr_nonnull(passed);
	ck_assert_int_eq(env_passed_conn(passed, &conn), 0);
	env_conn_peer(conn, after);
	ck_assert_str_eq(before, after);
	on_loop(here, attach, NULL);
	ck_assert(flag_wait(&heard, 1));
	ck_assert_str_eq(got, "hello");
}
END_TEST

static void rest(void *arg)
{
	env_listener_rest(listener, *(bool *)arg);
}

static struct env_passed *port_passed;
static void listener_close(void *arg)
{
	(void)arg;
	env_listener_close(listener);
	ck_assert_int_eq(env_passed_listen(port_passed, here->ev, on_accept, NULL, &listener), 0);
}

START_TEST(who_connects_while_a_port_rests_is_accepted_at_the_other_side)
{
	bool yes = true;
	char bytes[8];

	on_loop(here, listen_here, NULL);
	uint16_t port = env_listener_port(listener);
	on_loop(here, rest, &yes);
	on_loop(here, connect_client, &port);
	on_loop_turns(here);
	ck_assert_ptr_null(conn);
	ck_assert_int_eq(env_pass_send(ours, "port", 4, NULL, listener), 0);
	ck_assert_int_eq(env_pass_receive(theirs, bytes, sizeof(bytes), 1000, &port_passed), 4);
	on_loop(here, listener_close, NULL);
	ck_assert(flag_wait(&accepted, 1));
	ck_assert_uint_eq(env_listener_port(listener), port);
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("env_real_pass");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, messages_come_whole_and_in_order);
	tcase_add_test(tcase, a_message_larger_than_the_room_is_refused);
	tcase_add_test(tcase, who_has_gone_is_told_of);
	tcase_add_test(tcase, a_door_is_this_users_alone_and_gone_when_closed);
	tcase_add_test(tcase, a_connection_goes_on_at_the_other_side);
	tcase_add_test(tcase, who_connects_while_a_port_rests_is_accepted_at_the_other_side);
	return suite_run("env_real_pass", tcase);
}
