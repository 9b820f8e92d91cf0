/* The promises of common/env.h about HTTP: the real server and the real client. */
#include <arpa/inet.h>
#include <check.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include "common/buf.h"
#include "common/env.h"
#include "common/err.h"
#include "tests/support/flag.h"
#include "tests/support/on_loop.h"
#include "tests/support/suite.h"

static struct env *env;
static struct loop *loop;
static struct env_http *http;
static struct buf seen;               /* what the handler saw */
static struct env_http_request *held; /* a request whose answer waits */
static struct flag arrived;

static void see_param(void *arg, const char *name, const char *value)
{
	(void)arg;
	buf_addf(&seen, "[%s=%s]", name, value);
}

static void answer_what_was_seen(void *arg, struct env_http_request *r)
{
	size_t n;
	(void)arg;
	const void *body = env_http_body(r, &n);
	const char *header = env_http_header(r, "X-Test"), *value = env_http_query(r, "name");
	buf_clear(&seen);
	buf_addf(&seen, "%s %s ", env_http_method(r), env_http_path(r));
	env_http_query_each(r, see_param, NULL);
	buf_addf(&seen, " name=%s x-test=%s body=", value ? value : "(none)", header ? header : "(none)");
	buf_add(&seen, body, n);
	static const char *const headers[] = { "X-Answer: yes", "Cache-Control: no-store", NULL };
	env_http_reply(r, 201, "text/plain", headers, seen.data, seen.len);
}

static void hold(void *arg, struct env_http_request *r)
{
	(void)arg;
	held = r;
	flag_raise(&arrived);
}

static void (*handler)(void *arg, struct env_http_request *r);

static void on_request(void *arg, struct env_http_request *r)
{
	handler(arg, r);
}

static void serve(void *arg)
{
	(void)arg;
	ck_assert_int_eq(env_http_listen(loop->ev, "127.0.0.1", 0, on_request, NULL, &http), 0);
}

static void unserve(void *arg)
{
	(void)arg;
	env_http_close(http);
	http = NULL;
}

static void setup(void)
{
	env = env_new();
	loop = on_loop_new(env, "http");
	handler = answer_what_was_seen;
	flag_init(&arrived);
	on_loop(loop, serve, NULL);
}

static void teardown(void)
{
	on_loop(loop, unserve, NULL);
	on_loop_free(loop);
	buf_release(&seen);
	env_free(env);
}

/* ---- the client ---- */

struct call {
	const char *method, *path, *const *headers, *body;
	uint16_t port;
	uint32_t timeout_ms;
	int refused, err, status;
	struct buf answer;
	struct flag done;
};

static void on_answer(void *arg, const struct env_http_answer *a)
{
	struct call *c = arg;
	c->err = a->err;
	c->status = a->status;
	buf_add(&c->answer, a->body, a->n + 1); /* the NUL is promised */
	c->answer.len--;
	flag_raise(&c->done);
}

static void start(void *arg)
{
	struct call *c = arg;
	c->refused = env_http_call(loop->ev, "127.0.0.1", c->port ? c->port : env_http_port(http), c->method, c->path,
				   c->headers, c->body, c->body ? strlen(c->body) : 0,
				   c->timeout_ms ? c->timeout_ms : 60000, on_answer, c);
	ck_assert_uint_eq(flag_count(&c->done), 0); /* never from inside */
}

static void call(struct call *c)
{
	flag_init(&c->done);
	on_loop(loop, start, c);
	if (c->refused == 0)
		ck_assert(flag_wait(&c->done, 1));
}

static void expect_answer(struct call *c, int status, const char *text)
{
	call(c);
	ck_assert_int_eq(c->err, 0);
	ck_assert_int_eq(c->status, status);
	ck_assert_str_eq(buf_cstr(&c->answer), text);
	buf_release(&c->answer);
}

START_TEST(a_request_arrives_decoded_and_its_answer_comes_back)
{
	struct call c = { .method = "GET", .path = "/a%20b/%C3%A9+?name=x%26y+z&flag&empty=" };
	expect_answer(&c, 201, "GET /a b/é+ [name=x&y z][flag=][empty=] name=x&y z x-test=(none) body=");
}
END_TEST

START_TEST(headers_and_body_arrive)
{
	static const char *const headers[] = { "X-Test: hello there", "Content-Type: application/json", NULL };
	struct call c = { .method = "POST", .path = "/rpc", .headers = headers, .body = "{\"a\":1}" };
	expect_answer(&c, 201, "POST /rpc  name=(none) x-test=hello there body={\"a\":1}");
}
END_TEST

START_TEST(an_encoded_nul_is_a_bad_request)
{
	struct call path = { .method = "GET", .path = "/a%00b" }, query = { .method = "GET", .path = "/?a=%00" };
	call(&path);
	ck_assert_int_eq(path.status, 400);
	call(&query);
	ck_assert_int_eq(query.status, 400);
	buf_release(&path.answer);
	buf_release(&query.answer);
}
END_TEST

START_TEST(a_refused_connection_is_unavailable)
{
	uint16_t port = env_http_port(http);
	on_loop(loop, unserve, NULL);
	struct call c = { .method = "GET", .path = "/", .port = port };
	call(&c);
	ck_assert_int_eq(c.err, ERR_UNAVAILABLE);
	buf_release(&c.answer);
}
END_TEST

START_TEST(no_answer_in_time_is_a_timeout)
{
	handler = hold;
	struct call c = { .method = "GET", .path = "/", .timeout_ms = 50 };
	call(&c);
	ck_assert_int_eq(c.err, ERR_TIMEOUT);
	buf_release(&c.answer);
}
END_TEST

static void call_badly(void *arg)
{
	static const char *const broken[] = { "X: a\r\nY: b", NULL };
	(void)arg;
	struct env_loop *ev = loop->ev;
	uint16_t port = env_http_port(http);
	ck_assert_int_eq(env_http_call(ev, "no.name", port, "GET", "/", NULL, NULL, 0, 9, on_answer, NULL),
			 ERR_BAD_REQUEST);
	ck_assert_int_eq(env_http_call(ev, "127.0.0.1", port, "FLY", "/", NULL, NULL, 0, 9, on_answer, NULL),
			 ERR_BAD_REQUEST);
	ck_assert_int_eq(env_http_call(ev, "127.0.0.1", port, "GET", "/", broken, NULL, 0, 9, on_answer, NULL),
			 ERR_BAD_REQUEST);
}

START_TEST(a_call_that_makes_no_sense_is_refused_at_once)
{
	on_loop(loop, call_badly, NULL);
}
END_TEST

/* ---- answering later ---- */

static void release_held(void *arg)
{
	(void)arg;
	env_http_reply(held, 200, "text/plain", NULL, "late", 4);
	held = NULL;
}

START_TEST(an_answer_may_come_later)
{
	handler = hold;
	struct call c = { .method = "GET", .path = "/" };
	flag_init(&c.done);
	on_loop(loop, start, &c);
	ck_assert(flag_wait(&arrived, 1));
	on_loop(loop, release_held, NULL);
	ck_assert(flag_wait(&c.done, 1));
	ck_assert_str_eq(buf_cstr(&c.answer), "late");
	buf_release(&c.answer);
}
END_TEST

START_TEST(answering_after_the_server_was_closed_harms_nobody)
{
	handler = hold;
	struct call c = { .method = "GET", .path = "/" };
	flag_init(&c.done);
	on_loop(loop, start, &c);
	ck_assert(flag_wait(&arrived, 1));
	on_loop(loop, unserve, NULL);
	on_loop(loop, release_held, NULL);
	ck_assert(flag_wait(&c.done, 1));
	ck_assert_int_eq(c.err, ERR_UNAVAILABLE);
	buf_release(&c.answer);
}
END_TEST

START_TEST(a_call_under_way_ends_silently_with_its_loop)
{
	struct loop *server = loop;
	handler = hold;
	struct call c = { .method = "GET", .path = "/" };
	flag_init(&c.done);
	loop = on_loop_new(env, "caller");
	on_loop(loop, start, &c);
	ck_assert(flag_wait(&arrived, 1));
	on_loop_free(loop);
	loop = server;
	on_loop(loop, release_held, NULL);
	ck_assert_uint_eq(flag_count(&c.done), 0);
}
END_TEST

/* ---- bounds, spoken raw ---- */

static int raw_connect(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(env_http_port(http)) };
	struct timeval patience = { .tv_sec = 60 };
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
	return fd;
}

START_TEST(answering_a_client_that_has_gone_harms_nobody)
{
	static const char request[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
	handler = hold;
	int fd = raw_connect();
	ck_assert_int_eq(send(fd, request, sizeof request - 1, MSG_NOSIGNAL), sizeof request - 1);
	ck_assert(flag_wait(&arrived, 1));
	close(fd);
	on_loop_turns(loop);
	on_loop(loop, release_held, NULL);
	handler = answer_what_was_seen;
	struct call again = { .method = "GET", .path = "/" };
	expect_answer(&again, 201, "GET /  name=(none) x-test=(none) body=");
}
END_TEST

/* The status of the answer to text followed by filler bytes; 0: closed without one. */
static int raw_status(const char *text, size_t filler)
{
	char answer[4096] = "", block[4096];
	int fd = raw_connect(), status = 0;
	memset(block, 'x', sizeof block);
	send(fd, text, strlen(text), MSG_NOSIGNAL);
	for (; filler >= sizeof block; filler -= sizeof block)
		if (send(fd, block, sizeof block, MSG_NOSIGNAL) < 0)
			break;
	ssize_t n = recv(fd, answer, sizeof answer - 1, 0);
	if (n > 0)
		sscanf(answer, "HTTP/1.%*d %d", &status);
	close(fd);
	return status;
}

START_TEST(garbage_is_not_served)
{
	int status = raw_status("\x01\x02garbage\r\n\r\n", 0);
	ck_assert(status == 400 || status == 0);
}
END_TEST

START_TEST(a_header_over_16_kib_is_not_served)
{
	int status = raw_status("GET / HTTP/1.1\r\nHost: x\r\nX-Long: ", 64 * 1024);
	ck_assert(status >= 400 || status == 0);
}
END_TEST

START_TEST(a_body_over_one_mib_is_not_served)
{
	int status = raw_status("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n", 0);
	ck_assert(status == 413 || status == 0);
}
END_TEST

START_TEST(a_second_request_on_the_same_connection_is_served)
{
	char answer[4096];
	static const char request[] = "GET /one HTTP/1.1\r\nHost: x\r\n\r\n";
	int fd = raw_connect();
	for (int i = 0; i < 2; i++) {
		size_t got = 0;
		ck_assert_int_eq(send(fd, request, sizeof request - 1, MSG_NOSIGNAL), sizeof request - 1);
		do {
			ssize_t n = recv(fd, answer + got, sizeof answer - 1 - got, 0);
			ck_assert_int_gt(n, 0);
			got += (size_t)n;
			answer[got] = '\0';
		} while (!strstr(answer, "body="));
		ck_assert_ptr_nonnull(strstr(answer, "HTTP/1.1 201"));
		ck_assert_ptr_nonnull(strstr(answer, "X-Answer: yes\r\n"));
		ck_assert_ptr_nonnull(strstr(answer, "Content-Type: text/plain\r\n"));
	}
	close(fd);
}
END_TEST

static void serve_same(void *arg)
{
	struct env_http *second;
	(void)arg;
	ck_assert_int_eq(env_http_listen(loop->ev, "127.0.0.1", env_http_port(http), on_request, NULL, &second),
			 ERR_EXISTS);
	ck_assert_int_eq(env_http_listen(loop->ev, "nowhere", 0, on_request, NULL, &second), ERR_BAD_REQUEST);
}

START_TEST(a_taken_address_says_so)
{
	on_loop(loop, serve_same, NULL);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("http");
	tcase_set_timeout(t, 30);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, a_request_arrives_decoded_and_its_answer_comes_back);
	tcase_add_test(t, headers_and_body_arrive);
	tcase_add_test(t, an_encoded_nul_is_a_bad_request);
	tcase_add_test(t, a_refused_connection_is_unavailable);
	tcase_add_test(t, no_answer_in_time_is_a_timeout);
	tcase_add_test(t, a_call_that_makes_no_sense_is_refused_at_once);
	tcase_add_test(t, an_answer_may_come_later);
	tcase_add_test(t, answering_a_client_that_has_gone_harms_nobody);
	tcase_add_test(t, answering_after_the_server_was_closed_harms_nobody);
	tcase_add_test(t, a_call_under_way_ends_silently_with_its_loop);
	tcase_add_test(t, garbage_is_not_served);
	tcase_add_test(t, a_header_over_16_kib_is_not_served);
	tcase_add_test(t, a_body_over_one_mib_is_not_served);
	tcase_add_test(t, a_second_request_on_the_same_connection_is_served);
	tcase_add_test(t, a_taken_address_says_so);
	return suite_run("env_real_http", t);
}
