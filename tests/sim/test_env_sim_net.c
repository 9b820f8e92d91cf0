#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "tests/support/simtest.h"
#include "tests/support/suite.h"
/*
 * The network of the simulated world keeps the promises of common/env.h and of common/env_sim.h: sockets, HTTP.
 */

/* ---- sockets ---------------------------------------------------------------------------------------------------- */

struct side {
	struct env *env;
	struct env_loop *loop;
	struct env_listener *listener;
	struct env_conn *conn;
	int connect_err, ended; /* 1: nothing yet */
	bool hold, opened, close_after;
	uint64_t sent, got, sum, wrong, agains, to_send;
	bool shut_when_sent, shut;
};

static void push_bytes(struct side *s)
{
	char buf[3000];
	while (s->sent < s->to_send && !s->hold) {
		size_t n = s->to_send - s->sent < sizeof(buf) ? s->to_send - s->sent : sizeof(buf);
		for (size_t i = 0; i < n; i++)
			buf[i] = (char)((s->sent + i) * 131 >> 3);
		struct iovec iov[2] = { { buf, n / 2 }, { buf + n / 2, n - n / 2 } };
		ssize_t put = env_conn_write(s->conn, iov, 2);
		if (put == ERR_AGAIN) {
			s->agains++;
			env_conn_want_write(s->conn, true);
			return;
		}
		if (put < 0) {
			s->ended = (int)put;
			return;
		}
		s->sent += (uint64_t)put;
	}
	env_conn_want_write(s->conn, false);
	if (s->shut_when_sent && !s->shut) {
		env_conn_shutdown(s->conn);
		s->shut = true;
	}
}

static void pull_bytes(void *arg)
{
	struct side *s = arg;
	char buf[1000];
	ssize_t n = env_conn_read(s->conn, buf, sizeof(buf));
	if (n == ERR_AGAIN)
		return;
	if (n <= 0) {
		s->ended = (int)n;
		env_conn_close(s->conn);
		s->conn = NULL;
		return;
	}
	for (ssize_t i = 0; i < n; i++)
		s->wrong += buf[i] != (char)((s->got + (uint64_t)i) * 131 >> 3);
	s->got += (uint64_t)n;
}

static void may_write(void *arg)
{
	push_bytes(arg);
}

static void was_connected(void *arg, int err)
{
	struct side *s = arg;
	s->connect_err = err;
	if (err < 0) {
		env_conn_close(s->conn);
		s->conn = NULL;
		return;
	}
	s->opened = true;
	push_bytes(s);
}

static const struct env_conn_ops conn_ops = { .on_readable = pull_bytes,
					      .on_writable = may_write,
					      .on_connected = was_connected };

static void was_accepted(void *arg, struct env_conn *conn)
{
	struct side *s = arg;
	s->conn = conn;
	s->opened = true;
	env_conn_attach(conn, s->loop, &conn_ops, s);
	push_bytes(s);
}

static void listens(void *arg, struct env_loop *loop)
{
	struct side *s = arg;
	env_listen(loop, "0.0.0.0", 99, was_accepted, s, &s->listener);
}

static void connects(void *arg, struct env_loop *loop)
{
	struct side *s = arg;
	env_connect(loop, "10.0.0.1", 99, &conn_ops, s, &s->conn);
}

static void server_main(struct env *env, void *arg)
{
	static const struct env_loop_ops ops = { .on_start = listens, .on_turn = simtest_never };
	struct side *s = arg;
	s->env = env;
	env_loop_start(env, "server", &ops, s, &s->loop);
}

static void client_main(struct env *env, void *arg)
{
	static const struct env_loop_ops ops = { .on_start = connects, .on_turn = simtest_never };
	struct side *s = arg;
	s->env = env;
	env_loop_start(env, "client", &ops, s, &s->loop);
}

static void sends_now(struct env *env, void *arg)
{
	(void)env;
	push_bytes(arg);
}

static struct side a, b; /* server, client */

static void set_up_pair(void)
{
	simtest_set_up();
	a = b = (struct side){ .connect_err = 1, .ended = 1 };
	sim_process(w, "a", "10.0.0.1", server_main, &a);
	sim_run_ms(w, 10);
}

static void start_client(void)
{
	sim_process(w, "b", "10.0.0.2", client_main, &b);
}

START_TEST(bytes_arrive_whole_and_in_order_whatever_the_cuts)
{
	*sim_chances(w) = (struct sim_chances){ .wake_us_max = 10,
						.delay_us_min = 1,
						.delay_us_max = 900,
						.split_ppm = 500000,
						.short_ppm = 500000,
						.buffer_min = 2000,
						.buffer_max = 2000 };
	a.to_send = 100000;
	b.to_send = 50000;
	start_client();
	sim_run_ms(w, 20000);
	ck_assert_uint_eq(b.got, 100000);
	ck_assert_uint_eq(a.got, 50000);
	ck_assert_uint_eq(a.wrong + b.wrong, 0);
	ck_assert_uint_gt(a.agains, 0);
}
END_TEST

START_TEST(connecting_where_nobody_listens_is_unavailable)
{
	sim_kill(sim_find(w, "a"));
	start_client();
	sim_run_ms(w, 100);
	ck_assert_int_eq(b.connect_err, ERR_UNAVAILABLE);
}
END_TEST

START_TEST(a_half_closed_connection_still_carries_the_other_way)
{
	b.to_send = 5000;
	b.shut_when_sent = true;
	start_client();
	sim_run_ms(w, 100);
	ck_assert_uint_eq(a.got, 5000);
	ck_assert_int_eq(a.ended, 0);
	ck_assert_int_eq(b.ended, 0); /* a closed when it saw the end */
}
END_TEST

START_TEST(a_reset_is_told_to_both_sides)
{
	start_client();
	sim_run_ms(w, 100);
	sim_link_reset(w, "b", NULL);
	sim_run_ms(w, 10);
	ck_assert_int_eq(a.ended, ERR_CLOSED);
	ck_assert_int_eq(b.ended, ERR_CLOSED);
}
END_TEST

START_TEST(a_stalled_link_fails_nothing_and_delivers_later)
{
	start_client();
	sim_run_ms(w, 100);
	sim_link_stall(w, "a", "b", true);
	a.to_send = 1000;
	sim_thread(sim_find(w, "a"), sends_now, &a);
	sim_run_ms(w, 60000);
	ck_assert_uint_eq(a.sent, 1000);
	ck_assert_uint_eq(b.got, 0);
	sim_link_stall(w, "a", "b", false);
	sim_run_ms(w, 10);
	ck_assert_uint_eq(b.got, 1000);
	ck_assert_int_eq(b.ended, 1);
}
END_TEST

START_TEST(a_stalled_process_connects_when_the_link_is_back)
{
	sim_process(w, "b", "10.0.0.2", client_main, &b);
	sim_partition(w, "b", true);
	sim_run_ms(w, 5000);
	ck_assert_int_eq(b.connect_err, 1);
	sim_partition(w, "b", false);
	sim_run_ms(w, 2000);
	ck_assert_int_eq(b.connect_err, 0);
}
END_TEST

START_TEST(a_killed_process_closes_its_connections)
{
	start_client();
	sim_run_ms(w, 100);
	ck_assert(b.opened);
	sim_kill(sim_find(w, "a"));
	sim_run_ms(w, 10);
	ck_assert_int_eq(b.ended, 0);
}
END_TEST

START_TEST(of_a_machine_without_power_nobody_hears)
{
	start_client();
	sim_run_ms(w, 100);
	sim_crash_host(w, "10.0.0.1");
	sim_run_ms(w, 60000);
	ck_assert_int_eq(b.ended, 1);
}
END_TEST

/* ---- HTTP --------------------------------------------------------------------------------------------------------------- */

struct web {
	struct env_loop *loop;
	struct env_http *http;
	struct env_http_request *kept;
	int status, err, again;
	char body[64];
};

static void on_request(void *arg, struct env_http_request *r)
{
	static const char *const headers[] = { "X-Test: 1", NULL };
	struct web *web = arg;
	char text[200];
	size_t n;
	const char *body = env_http_body(r, &n), *name = env_http_query(r, "name"), *key = env_http_header(r, "x-key");
	if (strcmp(env_http_path(r), "/slow") == 0) {
		web->kept = r;
		return;
	}
	snprintf(text, sizeof(text), "%s %s %s %s %.*s", env_http_method(r), env_http_path(r), name ? name : "-",
		 key ? key : "-", (int)n, body);
	env_http_reply(r, 201, "text/plain", headers, text, strlen(text));
}

static void serves(void *arg, struct env_loop *loop)
{
	struct web *web = arg;
	ck_assert_int_eq(env_http_listen(loop, "0.0.0.0", 8000, on_request, web, &web->http), 0);
	web->again = env_http_listen(loop, "0.0.0.0", 8000, on_request, web, &web->http);
}

static void web_main(struct env *env, void *arg)
{
	static const struct env_loop_ops ops = { .on_start = serves, .on_turn = simtest_never };
	struct web *web = arg;
	env_loop_start(env, "web", &ops, web, &web->loop);
}

static void on_answer(void *arg, const struct env_http_answer *answer)
{
	struct web *web = arg;
	web->err = answer->err;
	web->status = answer->status;
	snprintf(web->body, sizeof(web->body), "%s", answer->body);
}

static void calls(void *arg, struct env_loop *loop)
{
	static const char *const headers[] = { "X-Key: k", NULL };
	ck_assert_int_eq(env_http_call(loop, "10.0.0.1", 8000, "POST", "/a%20b?name=x+%26y&z", headers, "body", 4, 1000,
				       on_answer, arg),
			 0);
}

static void calls_slow(void *arg, struct env_loop *loop)
{
	env_http_call(loop, "10.0.0.1", 8000, "GET", "/slow", NULL, NULL, 0, 1000, on_answer, arg);
}

static void caller_main(struct env *env, void *arg)
{
	static const struct env_loop_ops ops = { .on_start = calls, .on_turn = simtest_never };
	struct env_loop *loop;
	env_loop_start(env, "caller", &ops, arg, &loop);
}

static void slow_caller_main(struct env *env, void *arg)
{
	static const struct env_loop_ops ops = { .on_start = calls_slow, .on_turn = simtest_never };
	struct env_loop *loop;
	env_loop_start(env, "caller", &ops, arg, &loop);
}

START_TEST(a_request_reaches_who_listens_and_its_answer_comes_back)
{
	struct web server = { .again = 0 }, client = { .err = 1 };
	struct sim_http_answer answer;
	sim_process(w, "web", "10.0.0.1", web_main, &server);
	sim_run_ms(w, 10);
	ck_assert_int_eq(server.again, ERR_EXISTS);
	sim_process(w, "caller", "10.0.0.2", caller_main, &client);
	sim_run_ms(w, 10);
	ck_assert_int_eq(client.err, 0);
	ck_assert_int_eq(client.status, 201);
	ck_assert_str_eq(client.body, "POST /a b x &y k body");
	ck_assert_int_eq(sim_http(w, "web", 8000, "GET", "/x", NULL, NULL, 0, 1000, &answer), 201);
	ck_assert_str_eq(answer.body, "GET /x - - ");
	ck_assert_str_eq(answer.content_type, "text/plain");
	sim_http_release(&answer);
}
END_TEST

START_TEST(a_request_without_an_answer_ends_in_an_error)
{
	struct web server = { .again = 0 }, client = { .err = 1 };
	struct sim_http_answer answer;
	sim_process(w, "web", "10.0.0.1", web_main, &server);
	struct sim_process *p = sim_process(w, "caller", "10.0.0.2", slow_caller_main, &client);
	sim_run_ms(w, 2000);
	ck_assert_int_eq(client.err, ERR_TIMEOUT);
	client.err = 1;
	sim_restart(p);
	sim_run_ms(w, 10);
	ck_assert_int_eq(sim_http(w, "web", 8000, "GET", "/slow", NULL, NULL, 0, 5, &answer), ERR_TIMEOUT);
	sim_kill(sim_find(w, "web"));
	sim_run_ms(w, 10);
	ck_assert_int_eq(client.err, ERR_UNAVAILABLE);
	ck_assert_int_eq(sim_http(w, "web", 8000, "GET", "/x", NULL, NULL, 0, 1000, &answer), ERR_UNAVAILABLE);
	sim_http_release(&answer);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("HTTP"), *net = tcase_create("sockets");

	tcase_add_checked_fixture(t, simtest_set_up, simtest_tear_down);
	tcase_add_checked_fixture(net, set_up_pair, simtest_tear_down);
	tcase_set_timeout(t, 60);
	tcase_set_timeout(net, 60);
	tcase_add_test(net, bytes_arrive_whole_and_in_order_whatever_the_cuts);
	tcase_add_test(net, connecting_where_nobody_listens_is_unavailable);
	tcase_add_test(net, a_half_closed_connection_still_carries_the_other_way);
	tcase_add_test(net, a_reset_is_told_to_both_sides);
	tcase_add_test(net, a_stalled_link_fails_nothing_and_delivers_later);
	tcase_add_test(net, a_stalled_process_connects_when_the_link_is_back);
	tcase_add_test(net, a_killed_process_closes_its_connections);
	tcase_add_test(net, of_a_machine_without_power_nobody_hears);
	tcase_add_test(t, a_request_reaches_who_listens_and_its_answer_comes_back);
	tcase_add_test(t, a_request_without_an_answer_ends_in_an_error);
	return suite_run("env_sim_net", net, t);
}
