/* The promises of common/env.h about HTTP answers that come in pieces: the real client against a server spoken by hand. */
#include <arpa/inet.h>
#include <check.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/buf.h"
#include "common/env.h"
#include "common/err.h"
#include "tests/support/flag.h"
#include "tests/support/on_loop.h"
#include "tests/support/suite.h"

static struct env *env;
static struct loop *loop;
static int listening;
static uint16_t port;

struct asked {
	struct env_http_stream *stream;
	struct buf got;
	struct flag piece, end;
	bool close_at_piece;
	uint32_t idle_ms;
	int err, status, refused;
};
static struct asked a;

static void on_piece(void *arg, const char *bytes, size_t n)
{
	(void)arg;
	buf_add(&a.got, bytes, n);
	if (a.close_at_piece) {
		env_http_stream_close(a.stream);
		a.stream = NULL;
	}
	flag_raise(&a.piece);
}

static void on_end(void *arg, int err, int status)
{
	(void)arg;
	a.err = err;
	a.status = status;
	env_http_stream_close(a.stream);
	a.stream = NULL;
	flag_raise(&a.end);
}

static void ask(void *arg)
{
	static const struct env_http_stream_ops ops = { on_piece, on_end };
	(void)arg;
	a.refused = env_http_stream(loop->ev, NULL, "127.0.0.1", port, "POST", "/watch", NULL, "{}", 2,
				    a.idle_ms ? a.idle_ms : 60000, &ops, NULL, &a.stream);
}

static void setup(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET };
	socklen_t n = sizeof at;
	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(listening, (struct sockaddr *)&at, sizeof at), 0);
	ck_assert_int_eq(listen(listening, 4), 0);
	getsockname(listening, (struct sockaddr *)&at, &n);
	port = ntohs(at.sin_port);
	env = env_new();
	loop = on_loop_new(env, "stream");
	a = (struct asked){ .err = 1 };
	flag_init(&a.piece);
	flag_init(&a.end);
}

static void teardown(void)
{
	on_loop_free(loop);
	env_free(env);
	buf_release(&a.got);
	close(listening);
}

static int accept_request(void)
{
	char text[2048];
	on_loop(loop, ask, NULL);
	int fd = accept(listening, NULL, NULL);
	ssize_t n = recv(fd, text, sizeof text - 1, 0);
	ck_assert_int_gt(n, 0);
	text[n] = '\0';
	ck_assert_ptr_nonnull(strstr(text, "POST /watch HTTP/1.1\r\n"));
	return fd;
}

static void say(int fd, const char *text)
{
	ck_assert_int_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

#define BEGIN "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"

static void begin(int fd)
{
	say(fd, BEGIN);
}

START_TEST(each_piece_is_told_while_the_answer_goes_on)
{
	int fd = accept_request();
	begin(fd);
	ck_assert(flag_wait(&a.piece, 1));
	ck_assert_str_eq(buf_cstr(&a.got), "one");
	say(fd, "4\r\n two\r\n");
	ck_assert(flag_wait(&a.piece, 2));
	ck_assert_str_eq(buf_cstr(&a.got), "one two");
	ck_assert_uint_eq(flag_count(&a.end), 0);
	say(fd, "0\r\n\r\n");
	ck_assert(flag_wait(&a.end, 1));
	ck_assert_int_eq(a.err, 0);
	ck_assert_int_eq(a.status, 200);
	close(fd);
}
END_TEST

START_TEST(silence_for_too_long_is_a_timeout)
{
	unsigned long times = 0;
	a.idle_ms = 50;
	do { /* we ourselves may be silent for too long, on a machine that has much else to do */
		a.idle_ms *= 2;
		on_loop(loop, ask, NULL);
		int fd = accept(listening, NULL, NULL);
		send(fd, BEGIN, sizeof BEGIN - 1, MSG_NOSIGNAL);
		ck_assert(flag_wait(&a.end, ++times));
		ck_assert_int_eq(a.err, ERR_TIMEOUT);
		close(fd);
	} while (!flag_count(&a.piece) && times < 6);
	ck_assert_str_eq(buf_cstr(&a.got), "one");
}
END_TEST

START_TEST(a_connection_that_is_lost_is_unavailable_after_what_came)
{
	int fd = accept_request();
	begin(fd);
	close(fd);
	ck_assert(flag_wait(&a.end, 1));
	ck_assert_int_eq(a.err, ERR_UNAVAILABLE);
	ck_assert_str_eq(buf_cstr(&a.got), "one");
}
END_TEST

START_TEST(nobody_there_is_unavailable)
{
	close(listening);
	on_loop(loop, ask, NULL);
	ck_assert(flag_wait(&a.end, 1));
	ck_assert_int_eq(a.err, ERR_UNAVAILABLE);
	listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
}
END_TEST

START_TEST(an_error_has_its_status_and_its_words)
{
	int fd = accept_request();
	say(fd, "HTTP/1.1 400 Bad Request\r\nContent-Length: 5\r\n\r\nwrong");
	ck_assert(flag_wait(&a.end, 1));
	ck_assert_int_eq(a.err, 0);
	ck_assert_int_eq(a.status, 400);
	ck_assert_str_eq(buf_cstr(&a.got), "wrong");
	close(fd);
}
END_TEST

START_TEST(it_may_be_closed_when_a_piece_comes)
{
	char byte;
	a.close_at_piece = true;
	int fd = accept_request();
	begin(fd);
	ck_assert(flag_wait(&a.piece, 1));
	ck_assert_int_eq(recv(fd, &byte, 1, 0), 0); /* the server sees it end */
	ck_assert_uint_eq(flag_count(&a.end), 0);
	close(fd);
}
END_TEST

START_TEST(one_under_way_ends_silently_with_its_loop)
{
	int fd = accept_request();
	begin(fd);
	ck_assert(flag_wait(&a.piece, 1));
	on_loop_free(loop);
	loop = on_loop_new(env, "another");
	ck_assert_uint_eq(flag_count(&a.end), 0);
	close(fd);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("stream");
	tcase_set_timeout(t, 30);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, each_piece_is_told_while_the_answer_goes_on);
	tcase_add_test(t, silence_for_too_long_is_a_timeout);
	tcase_add_test(t, a_connection_that_is_lost_is_unavailable_after_what_came);
	tcase_add_test(t, nobody_there_is_unavailable);
	tcase_add_test(t, an_error_has_its_status_and_its_words);
	tcase_add_test(t, it_may_be_closed_when_a_piece_comes);
	tcase_add_test(t, one_under_way_ends_silently_with_its_loop);
	return suite_run("env_real_stream", t);
}
