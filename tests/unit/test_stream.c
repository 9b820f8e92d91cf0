/* The promises of common/stream.h, on the real environment and real sockets. */
#include "common/stream.h"
#include <check.h>
#include <string.h>
#include "common/err.h"
#include "tests/support/flag.h"
#include "tests/support/on_loop.h"
#include "tests/support/suite.h"

/* One side of a connection under test: what it saw, and what its on_data does. */
struct side {
	struct stream s;
	struct buf got;
	ssize_t (*take)(struct side *side, const char *data, size_t n);
	struct flag opened, closed, received, drained;
	int close_err;
	unsigned calls;
	size_t watermark; /* received is raised once got has so many bytes */
};

static struct env *env;
static struct loop *here, *there;
static struct env_listener *listener;
static struct side client, server;
static struct flag accepted;
static size_t in_max, out_max;

static ssize_t take_all(struct side *side, const char *data, size_t n)
{
	buf_add(&side->got, data, n);
	return (ssize_t)n;
}

static ssize_t on_data(struct stream *s, const char *data, size_t n)
{
	struct side *side = (struct side *)s;
	loop_assert_owner(s->loop);
	side->calls++;
	ssize_t used = side->take(side, data, n);
	if (side->watermark && side->got.len >= side->watermark) {
		side->watermark = 0;
		flag_raise(&side->received);
	}
	return used;
}

static void on_open(struct stream *s)
{
	flag_raise(&((struct side *)s)->opened);
}

static void on_close(struct stream *s, int err)
{
	struct side *side = (struct side *)s;
	side->close_err = err;
	flag_raise(&side->closed);
}

static void on_drained(struct stream *s)
{
	flag_raise(&((struct side *)s)->drained);
}

static const struct stream_ops ops = {
	.on_data = on_data, .on_open = on_open, .on_close = on_close, .on_drained = on_drained
};

static void on_accept(void *arg, struct env_conn *conn)
{
	(void)arg;
	stream_accept(&server.s, there, conn, &ops, in_max, out_max);
	flag_raise(&accepted);
}

static void listen_there(void *arg)
{
	(void)arg;
	ck_assert_int_eq(env_listen(there->ev, "127.0.0.1", 0, on_accept, NULL, &listener), 0);
}

static void unlisten(void *arg)
{
	(void)arg;
	env_listener_close(listener);
}

static void connect_here(void *arg)
{
	uint16_t port = *(uint16_t *)arg;
	ck_assert_int_eq(stream_connect(&client.s, here, "127.0.0.1", port, &ops, in_max, out_max), 0);
}

static void side_init(struct side *side)
{
	memset(side, 0, sizeof *side);
	side->take = take_all;
	flag_init(&side->opened);
	flag_init(&side->closed);
	flag_init(&side->received);
	flag_init(&side->drained);
}

static void setup(void)
{
	env = env_new();
	here = on_loop_new(env, "here");
	there = on_loop_new(env, "there");
	in_max = out_max = 1 << 20;
	side_init(&client);
	side_init(&server);
	flag_init(&accepted);
	on_loop(there, listen_there, NULL);
}

static void connect_both(void)
{
	uint16_t port = env_listener_port(listener);
	on_loop(here, connect_here, &port);
	ck_assert(flag_wait(&client.opened, 1));
	ck_assert(flag_wait(&accepted, 1));
}

static void close_side(void *arg)
{
	struct side *side = arg;
	if (side->s.loop)
		stream_close(&side->s, 0);
}

static void teardown(void)
{
	on_loop(there, unlisten, NULL);
	on_loop(here, close_side, &client);
	on_loop(there, close_side, &server);
	on_loop_free(here);
	on_loop_free(there);
	buf_release(&client.got);
	buf_release(&server.got);
	env_free(env);
}

struct text {
	struct side *side;
	const char *p;
	size_t n;
	int err;
};

static void write_text(void *arg)
{
	struct text *t = arg;
	t->err = stream_write(&t->side->s, t->p, t->n);
}

static int say(struct side *side, const char *p, size_t n)
{
	struct text t = { .side = side, .p = p, .n = n };
	on_loop(side->s.loop, write_text, &t);
	return t.err;
}

static void expect_at(struct side *side, size_t bytes)
{
	side->watermark = bytes;
}

/* ---- input ---- */

static ssize_t echo(struct side *side, const char *data, size_t n)
{
	ck_assert_int_eq(stream_write(&side->s, data, n), 0);
	return (ssize_t)n;
}

START_TEST(what_is_written_on_one_worker_is_read_on_the_other_and_back)
{
	server.take = echo;
	expect_at(&client, 5);
	connect_both();
	ck_assert_int_eq(say(&client, "hello", 5), 0);
	ck_assert(flag_wait(&client.received, 1));
	ck_assert_str_eq(buf_cstr(&client.got), "hello");
	on_loop_turns(there);
	ck_assert_uint_eq(server.s.bytes_in, 5);
	ck_assert_uint_eq(server.s.bytes_out, 5);
}
END_TEST

/* Takes "line;" by "line;", whatever the cuts. */
static ssize_t take_lines(struct side *side, const char *data, size_t n)
{
	size_t used = 0;
	for (const char *end; (end = memchr(data + used, ';', n - used)); used = (size_t)(end - data) + 1)
		buf_add(&side->got, data + used, (size_t)(end - data) + 1 - used);
	return (ssize_t)used;
}

START_TEST(what_is_not_consumed_comes_again_with_more_behind)
{
	server.take = take_lines;
	connect_both();
	expect_at(&server, 12);
	static const char *const parts[] = { "ab", "c;d", "ef;", "g", "h", "i;" };
	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
		say(&client, parts[i], strlen(parts[i]));
		on_loop_turns(here);
		on_loop_turns(there);
	}
	ck_assert(flag_wait(&server.received, 1));
	ck_assert_str_eq(buf_cstr(&server.got), "abc;def;ghi;");
	on_loop_turns(there);
	ck_assert_ptr_null(server.s.in.data);
}
END_TEST

static ssize_t take_none(struct side *side, const char *data, size_t n)
{
	(void)side, (void)data, (void)n;
	return 0;
}

START_TEST(more_left_over_than_in_max_closes_the_stream_as_full)
{
	in_max = 10;
	server.take = take_none;
	connect_both();
	say(&client, "0123456789", 10);
	on_loop_turns(here);
	on_loop_turns(there);
	ck_assert_uint_eq(flag_count(&server.closed), 0);
	say(&client, "x", 1);
	ck_assert(flag_wait(&server.closed, 1));
	ck_assert_int_eq(server.close_err, ERR_FULL);
	ck_assert(flag_wait(&client.closed, 1));
}
END_TEST

static ssize_t refuse(struct side *side, const char *data, size_t n)
{
	(void)side, (void)data, (void)n;
	return ERR_BAD_REQUEST;
}

START_TEST(an_error_from_on_data_closes_the_stream_with_it)
{
	server.take = refuse;
	connect_both();
	say(&client, "garbage", 7);
	ck_assert(flag_wait(&server.closed, 1));
	ck_assert_int_eq(server.close_err, ERR_BAD_REQUEST);
}
END_TEST

static void stop_reading(void *arg)
{
	env_conn_want_read(((struct side *)arg)->s.conn, false);
}

static void poll_server(void *arg)
{
	(void)arg;
	while (!server.s.closing) /* a busy kernel brings what was sent a little later */
		stream_poll(&server.s);
	ck_assert_uint_eq(server.got.len, 5);
	ck_assert_uint_eq(flag_count(&server.closed), 0);
	stream_poll(&server.s);
}

START_TEST(polling_delivers_what_has_come_and_shows_that_the_peer_left)
{
	connect_both();
	on_loop(there, stop_reading, &server);
	say(&client, "hello", 5);
	on_loop_turns(here);
	on_loop(here, close_side, &client);
	on_loop(there, poll_server, NULL);
	ck_assert(flag_wait(&server.closed, 1));
}
END_TEST

/* ---- output ---- */

static void write_thrice(void *arg)
{
	struct side *side = arg;
	stream_write(&side->s, "a", 1);
	memcpy(stream_reserve(&side->s, 100), "bc", 2);
	stream_commit(&side->s, 2);
	stream_write(&side->s, "d", 1);
	ck_assert_uint_eq(stream_pending(&side->s), 4);
}

START_TEST(several_writes_of_a_turn_leave_together_in_order)
{
	connect_both();
	expect_at(&server, 4);
	on_loop(here, write_thrice, &client);
	ck_assert(flag_wait(&server.received, 1));
	ck_assert_str_eq(buf_cstr(&server.got), "abcd");
	ck_assert_uint_eq(server.calls, 1);
}
END_TEST

static struct stream_shared *shared_text(const char *text)
{
	struct stream_shared *b = stream_shared_new(strlen(text));
	memcpy(b->data, text, b->n);
	return b;
}

static void share_between(void *arg)
{
	struct side *side = arg;
	struct stream_shared *b = shared_text("many");
	ck_assert_int_eq(stream_share(&side->s, b), 0);
	ck_assert_uint_eq(b->refs, 2);
	stream_write(&side->s, "-", 1);
	ck_assert_int_eq(stream_share(&side->s, b), 0);
	ck_assert_uint_eq(b->refs, 2); /* behind other bytes it is copied */
	ck_assert_uint_eq(stream_pending(&side->s), 9);
	stream_shared_unref(b);
}

START_TEST(what_is_shared_leaves_in_order_with_the_streams_own)
{
	connect_both();
	expect_at(&server, 9);
	on_loop(here, share_between, &client);
	ck_assert(flag_wait(&server.received, 1));
	ck_assert_str_eq(buf_cstr(&server.got), "many-many");
	ck_assert_uint_eq(server.calls, 1);
	on_loop_turns(here);
	ck_assert_ptr_null(client.s.shared);
}
END_TEST

static void buffers_look(void *arg)
{
	(void)arg;
	ck_assert_ptr_null(client.s.out.data);
	ck_assert_uint_eq(here->spares, 1);
}

START_TEST(an_idle_stream_holds_no_buffers)
{
	connect_both();
	for (size_t i = 1; i <= 3; i++) {
		expect_at(&server, i);
		ck_assert_int_eq(say(&client, "x", 1), 0);
		ck_assert(flag_wait(&server.received, i));
		on_loop_turns(here);
		on_loop(here, buffers_look, NULL); /* the same one each time */
	}
}
END_TEST

static void resume_reading(void *arg)
{
	env_conn_want_read(((struct side *)arg)->s.conn, true);
}

START_TEST(what_the_socket_does_not_take_waits_up_to_out_max_and_arrives_whole)
{
	static char block[64 * 1024];
	out_max = 32 << 20; /* more than the kernel's buffers take */
	connect_both();
	on_loop(there, stop_reading, &server);
	size_t sent = 0;
	int err;
	while ((err = say(&client, memset(block, (int)('a' + sent / sizeof block % 26), sizeof block), sizeof block)) ==
	       0)
		sent += sizeof block;
	ck_assert_int_eq(err, ERR_FULL);
	ck_assert_uint_ge(sent, out_max);
	expect_at(&server, sent);
	on_loop(there, resume_reading, &server);
	ck_assert(flag_wait(&server.received, 1));
	for (size_t i = 0; i < sent; i++)
		if (server.got.data[i] != (char)('a' + i / sizeof block % 26))
			ck_abort_msg("byte %zu is wrong", i);
	ck_assert(flag_wait(&client.drained, 1));
	on_loop_turns(here);
	ck_assert_ptr_null(client.s.out.data); /* and the memory is gone again */
}
END_TEST

static void share_much(void *arg)
{
	struct stream_shared *b = stream_shared_new(16 << 20);
	for (size_t i = 0; i < b->n; i++)
		b->data[i] = (char)(i * 31 >> 8);
	(void)arg;
	ck_assert_int_eq(stream_share(&client.s, b), 0);
	stream_shared_unref(b);
	stream_write(&client.s, "end", 3);
}

START_TEST(what_is_shared_waits_for_a_slow_socket_and_arrives_whole)
{
	out_max = 32 << 20;
	connect_both();
	on_loop(there, stop_reading, &server);
	expect_at(&server, (16 << 20) + 3);
	on_loop(here, share_much, &client);
	on_loop_turns(here);
	on_loop(there, resume_reading, &server);
	ck_assert(flag_wait(&server.received, 1));
	for (size_t i = 0; i < 16 << 20; i++)
		if (server.got.data[i] != (char)(i * 31 >> 8))
			ck_abort_msg("byte %zu is wrong", i);
	ck_assert_int_eq(memcmp(server.got.data + (16 << 20), "end", 3), 0);
}
END_TEST

static void share_and_close(void *arg)
{
	struct stream_shared *b = arg;
	ck_assert_int_eq(stream_share(&client.s, b), 0);
	stream_close(&client.s, 0);
	ck_assert_int_eq(stream_share(&client.s, b), ERR_CLOSED);
}

START_TEST(a_closed_stream_lets_go_of_what_is_shared)
{
	connect_both();
	struct stream_shared *b = shared_text("never");
	on_loop(here, share_and_close, b);
	ck_assert(flag_wait(&client.closed, 1));
	on_loop_turns(here);
	ck_assert_uint_eq(b->refs, 1);
	stream_shared_unref(b);
}
END_TEST

static void write_before_open(void *arg)
{
	connect_here(arg);
	ck_assert_int_eq(stream_write(&client.s, "early", 5), 0);
}

START_TEST(output_before_the_connection_stands_waits_for_it)
{
	uint16_t port = env_listener_port(listener);
	expect_at(&server, 5);
	on_loop(here, write_before_open, &port);
	ck_assert(flag_wait(&server.received, 1));
	ck_assert_str_eq(buf_cstr(&server.got), "early");
}
END_TEST

/* ---- closing ---- */

static void close_twice(void *arg)
{
	struct side *side = arg;
	stream_close(&side->s, ERR_DENIED);
	stream_close(&side->s, ERR_BUSY);
	stream_close_flushed(&side->s);
	ck_assert_uint_eq(flag_count(&side->closed), 0); /* never from inside */
	ck_assert_int_eq(stream_write(&side->s, "x", 1), ERR_CLOSED);
	ck_assert_ptr_null(stream_reserve(&side->s, 1));
}

START_TEST(on_close_comes_exactly_once_after_the_caller_with_the_first_reason)
{
	connect_both();
	on_loop(here, close_twice, &client);
	ck_assert(flag_wait(&client.closed, 1));
	ck_assert_int_eq(client.close_err, ERR_DENIED);
	on_loop(here, close_side, &client);
	on_loop_turns(here);
	ck_assert_uint_eq(flag_count(&client.closed), 1);
}
END_TEST

START_TEST(a_peer_that_closes_is_no_error)
{
	connect_both();
	on_loop(here, close_side, &client);
	ck_assert(flag_wait(&server.closed, 1));
	ck_assert_int_eq(server.close_err, 0);
}
END_TEST

static ssize_t close_inside(struct side *side, const char *data, size_t n)
{
	(void)data;
	stream_write(&side->s, "never seen", 10);
	stream_close(&side->s, ERR_DENIED);
	ck_assert_uint_eq(flag_count(&side->closed), 0);
	return (ssize_t)n;
}

START_TEST(closing_inside_on_data_is_safe_and_drops_output)
{
	server.take = close_inside;
	connect_both();
	say(&client, "x", 1);
	ck_assert(flag_wait(&client.closed, 1));
	ck_assert(flag_wait(&server.closed, 1));
	ck_assert_int_eq(server.close_err, ERR_DENIED);
	ck_assert_uint_eq(client.got.len, 0);
}
END_TEST

static ssize_t answer_and_leave(struct side *side, const char *data, size_t n)
{
	(void)data;
	stream_write(&side->s, "goodbye", 7);
	stream_close_flushed(&side->s);
	ck_assert_int_eq(stream_write(&side->s, "x", 1), ERR_CLOSED);
	return (ssize_t)n;
}

START_TEST(close_flushed_lets_the_last_words_arrive)
{
	server.take = answer_and_leave;
	connect_both();
	say(&client, "x", 1);
	ck_assert(flag_wait(&client.closed, 1));
	ck_assert_int_eq(client.close_err, 0);
	ck_assert_str_eq(buf_cstr(&client.got), "goodbye");
	ck_assert(flag_wait(&server.closed, 1));
	ck_assert_int_eq(server.close_err, 0);
}
END_TEST

static void flood(void *arg)
{
	static const char much[1 << 16];

	(void)arg;
	while (stream_write(&client.s, much, sizeof(much)) == 0)
		;
}

START_TEST(after_close_flushed_a_flood_is_not_read_to_its_end)
{
	out_max = 8 << 20;
	server.take = answer_and_leave;
	connect_both();
	on_loop(here, stop_reading, &client); /* so that it does not see the end, and goes on */
	on_loop(here, flood, NULL);
	ck_assert(flag_wait(&server.closed, 1));
	ck_assert_uint_lt(server.s.bytes_in, 2 << 20);
}
END_TEST

START_TEST(close_flushed_waits_at_most_a_second_for_a_peer_that_does_not_read)
{
	server.take = answer_and_leave;
	connect_both();
	on_loop(here, stop_reading, &client);
	say(&client, "x", 1);
	ck_assert(flag_wait(&server.closed, 1));
	ck_assert_uint_eq(flag_count(&client.closed), 0);
}
END_TEST

START_TEST(a_refused_connection_is_reported_as_unavailable)
{
	uint16_t port = env_listener_port(listener);
	on_loop(there, unlisten, NULL);
	on_loop(here, connect_here, &port);
	ck_assert(flag_wait(&client.closed, 1));
	ck_assert_int_eq(client.close_err, ERR_UNAVAILABLE);
	ck_assert_uint_eq(flag_count(&client.opened), 0);
	on_loop(there, listen_there, NULL);
}
END_TEST

static void connect_nowhere(void *arg)
{
	(void)arg;
	ck_assert_int_eq(stream_connect(&client.s, here, "no.such.host", 1, &ops, 1, 1), ERR_BAD_REQUEST);
	client.s.loop = NULL; /* not started */
}

START_TEST(a_host_that_is_no_address_is_refused_at_once)
{
	on_loop(here, connect_nowhere, NULL);
	on_loop_turns(here);
	ck_assert_uint_eq(flag_count(&client.closed), 0);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("stream");
	tcase_set_timeout(t, 30);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, what_is_written_on_one_worker_is_read_on_the_other_and_back);
	tcase_add_test(t, what_is_not_consumed_comes_again_with_more_behind);
	tcase_add_test(t, more_left_over_than_in_max_closes_the_stream_as_full);
	tcase_add_test(t, an_error_from_on_data_closes_the_stream_with_it);
	tcase_add_test(t, polling_delivers_what_has_come_and_shows_that_the_peer_left);
	tcase_add_test(t, several_writes_of_a_turn_leave_together_in_order);
	tcase_add_test(t, an_idle_stream_holds_no_buffers);
	tcase_add_test(t, what_is_shared_leaves_in_order_with_the_streams_own);
	tcase_add_test(t, what_the_socket_does_not_take_waits_up_to_out_max_and_arrives_whole);
	tcase_add_test(t, a_closed_stream_lets_go_of_what_is_shared);
	tcase_add_test(t, what_is_shared_waits_for_a_slow_socket_and_arrives_whole);
	tcase_add_test(t, output_before_the_connection_stands_waits_for_it);
	tcase_add_test(t, on_close_comes_exactly_once_after_the_caller_with_the_first_reason);
	tcase_add_test(t, a_peer_that_closes_is_no_error);
	tcase_add_test(t, closing_inside_on_data_is_safe_and_drops_output);
	tcase_add_test(t, close_flushed_lets_the_last_words_arrive);
	tcase_add_test(t, after_close_flushed_a_flood_is_not_read_to_its_end);
	tcase_add_test(t, close_flushed_waits_at_most_a_second_for_a_peer_that_does_not_read);
	tcase_add_test(t, a_refused_connection_is_reported_as_unavailable);
	tcase_add_test(t, a_host_that_is_no_address_is_refused_at_once);
	return suite_run("stream", t);
}
