/* Who may speak to a service: hello, welcome, proof, and what comes of those that do not know the cluster key. */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "proto/rpc.pb-c.h"
#include "rpc/auth.h"
#include "rpc/server.h"
#include "tests/support/calls.h"
#include "tests/support/suite.h"

static struct calls c;
static struct reply reply;

/* A client of bare bytes. */
static int fd;
static unsigned char nonce[AUTH_NONCE] = "0123456789abcdef";
static unsigned char server_nonce[AUTH_NONCE];
static char in[1 << 16];
static size_t in_n, used;
static int closed; /* by the server, for what this client did */

static void dial(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(c.rpc[CALLS]) };
	struct timeval limit = { .tv_sec = 60 };

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	in_n = used = 0;
}

static void setup(void)
{
	closed = 0;
	calls_setup(&c, &(struct calls_options){ .threads = 2 });
	calls_begin(&c, CALLS, &calls_box);
	dial();
}

static void teardown(void)
{
	close(fd);
	calls_teardown(&c);
}

static void send_frame(enum frame_type type, const void *payload, size_t n)
{
	char head[FRAME_HEADER];

	frame_put_header(head, type, n);
	ck_assert_int_eq(send(fd, head, sizeof(head), MSG_NOSIGNAL | (n ? MSG_MORE : 0)), (ssize_t)sizeof(head));
	if (n)
		ck_assert_int_eq(send(fd, payload, n, MSG_NOSIGNAL), (ssize_t)n);
}

static void send_message(enum frame_type type, const ProtobufCMessage *m)
{
	uint8_t bytes[1024];

	send_frame(type, bytes, protobuf_c_message_pack(m, bytes));
}

static Loquat__Rpc__Hello hello(void)
{
	Loquat__Rpc__Hello m = LOQUAT__RPC__HELLO__INIT;

	m.has_version = m.has_epoch = m.has_worker = m.has_nonce = true;
	m.version = FRAME_VERSION;
	m.instance = "stranger-1";
	m.service = "stranger";
	m.nonce = (ProtobufCBinaryData){ sizeof(nonce), nonce };
	m.target = "calls-1";
	return m;
}

static void send_hello(void)
{
	Loquat__Rpc__Hello m = hello();

	send_message(FRAME_HELLO, &m.base);
}

static void send_proof(const char *key)
{
	Loquat__Rpc__Prove m = LOQUAT__RPC__PROVE__INIT;
	unsigned char proof[AUTH_PROOF];
	struct auth_names names = { "stranger-1", "calls-1", nonce, server_nonce };

	auth_prove(key, "client", &names, proof);
	m.has_proof = true;
	m.proof = (ProtobufCBinaryData){ sizeof(proof), proof };
	send_message(FRAME_PROVE, &m.base);
}

/* 0: it was closed, or nothing came in a minute. The payload is good until the next. */
static int take(struct span *payload)
{
	enum frame_type type;

	memmove(in, in + used, in_n -= used);
	used = 0;
	for (;;) {
		ssize_t got = frame_split(in, in_n, &type, payload);

		ck_assert_int_ge(got, 0);
		if (got) {
			used = (size_t)got;
			return (int)type;
		}
		ssize_t n = TEMP_FAILURE_RETRY(recv(fd, in + in_n, sizeof(in) - in_n, 0));

		if (n <= 0) {
			in_n = 0;
			return 0;
		}
		in_n += (size_t)n;
	}
}

static void take_welcome(void)
{
	struct span payload;

	ck_assert_int_eq(take(&payload), FRAME_WELCOME);
	Loquat__Rpc__Welcome *w = loquat__rpc__welcome__unpack(NULL, payload.n, (const uint8_t *)payload.p);

	ck_assert_ptr_nonnull(w);
	ck_assert_str_eq(w->instance, "calls-1");
	ck_assert_uint_eq(w->workers, 2);
	ck_assert_uint_eq(w->nonce.len, AUTH_NONCE);
	memcpy(server_nonce, w->nonce.data, AUTH_NONCE);
	struct auth_names names = { "stranger-1", "calls-1", nonce, server_nonce };

	ck_assert(auth_check(c.s[CALLS]->cluster_key, "server", &names, w->proof.data, w->proof.len));
	loquat__rpc__welcome__free_unpacked(w, NULL);
}

static void send_request(uint64_t id, const char *json, uint32_t left_ms)
{
	struct frame_request r = { .id = id,
				   .service = span_of("calls", 5),
				   .method_name = span_of("boxRemote.put", 13),
				   .time_left_ms = left_ms,
				   .json = true,
				   .body = span_of(json, strlen(json)) };
	char bytes[1024];
	size_t n = frame_put_request(bytes, &r, FRAME_REQUEST);

	ck_assert_int_eq(send(fd, bytes, n, MSG_NOSIGNAL), (ssize_t)n);
}

static void take_answer(uint64_t id, struct frame_response *r)
{
	struct span payload;

	ck_assert_int_eq(take(&payload), FRAME_RESPONSE);
	ck_assert_int_eq(frame_get_response(payload, r), 0);
	ck_assert_uint_eq(r->id, id);
}

/* Why links were closed so far. */
static int64_t closed_for(const char *reason)
{
	const char *values[] = { "calls", reason };

	return metrics_total(c.s[CALLS]->metrics, "loquat_rpc_closed_total", values);
}

static void ck_closed(const char *reason)
{
	struct span payload;

	closed++;
	ck_assert_int_eq(take(&payload), 0);
	ck_assert_uint_eq(calls_run(CALLS), 0);
	until(closed_for(reason) == closed);
	ck_assert_int_eq(calls_figure(c.s[CALLS], "loquat_rpc_closed_total"), closed);
}

/* ---- a stranger ------------------------------------------------------------------------------------------------- */

START_TEST(who_knows_the_cluster_key_is_served)
{
	struct frame_response r;

	send_hello();
	take_welcome();
	send_proof(c.s[CALLS]->cluster_key);
	send_request(7, "{}", 60000); /* may follow at once */
	take_answer(7, &r);
	ck_assert_uint_eq(r.error, 0);
	ck_assert_uint_eq(calls_run(CALLS), 1);
}
END_TEST

START_TEST(no_request_runs_before_the_proof)
{
	send_hello();
	take_welcome();
	send_request(7, "{}", 60000);
	ck_closed("denied");
}
END_TEST

START_TEST(no_request_runs_after_a_wrong_proof)
{
	send_hello();
	take_welcome();
	send_proof("0000000000000000000000000000000000000000000000000000000000000000");
	send_request(7, "{}", 60000);
	ck_closed("denied");
}
END_TEST

START_TEST(the_server_s_own_proof_sent_back_proves_nothing)
{
	struct span payload;
	Loquat__Rpc__Prove m = LOQUAT__RPC__PROVE__INIT;

	send_hello();
	ck_assert_int_eq(take(&payload), FRAME_WELCOME);
	Loquat__Rpc__Welcome *w = loquat__rpc__welcome__unpack(NULL, payload.n, (const uint8_t *)payload.p);
	m.has_proof = true;
	m.proof = w->proof;
	send_message(FRAME_PROVE, &m.base);
	loquat__rpc__welcome__free_unpacked(w, NULL);
	send_request(7, "{}", 60000);
	ck_closed("denied");
}
END_TEST

START_TEST(a_proof_of_another_length_is_no_proof)
{
	send_hello();
	take_welcome();
	send_frame(FRAME_PROVE, NULL, 0);
	ck_closed("denied");
}
END_TEST

START_TEST(a_hello_that_means_another_instance_is_closed)
{
	Loquat__Rpc__Hello m = hello();

	m.target = "calls-2";
	send_message(FRAME_HELLO, &m.base);
	ck_closed("bad_request");
}
END_TEST

START_TEST(a_hello_for_a_worker_that_is_not_there_is_closed)
{
	Loquat__Rpc__Hello m = hello();

	m.worker = 2;
	send_message(FRAME_HELLO, &m.base);
	ck_closed("bad_request");
}
END_TEST

START_TEST(a_hello_with_half_of_its_fields_or_too_long_a_name_is_closed)
{
	Loquat__Rpc__Hello m = hello();

	m.instance = NULL;
	send_message(FRAME_HELLO, &m.base);
	ck_closed("bad_request");
	close(fd);
	dial();
	m = hello();
	m.service = "a service whose name is too long to be one";
	send_message(FRAME_HELLO, &m.base);
	ck_closed("bad_request");
	close(fd);
	dial();
	m = hello();
	m.nonce.len = 8;
	send_message(FRAME_HELLO, &m.base);
	ck_closed("bad_request");
}
END_TEST

START_TEST(what_is_no_hello_is_closed)
{
	static const char *const all[] = { "GET / HTTP/1.1\r\n\r\n", "\0\0\0\0\4\0\1\0", "xxxxxxxxxxxxxxxxxxxxxxxxx" };

	for (int i = 0; i < 3; i++) {
		ck_assert_int_gt(send(fd, all[i], i == 1 ? 8 : strlen(all[i]), MSG_NOSIGNAL), 0);
		ck_closed("corrupt");
		close(fd);
		dial();
	}
}
END_TEST

START_TEST(who_has_proved_nothing_gets_no_room_for_large_frames)
{
	char head[FRAME_HEADER], bytes[4096] = { 0 };

	send_hello();
	take_welcome();
	frame_put_header(head, FRAME_PROVE, 1 << 20);
	send(fd, head, sizeof(head), MSG_NOSIGNAL);
	send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL);
	ck_closed("full");
}
END_TEST

START_TEST(a_request_whose_time_is_over_before_its_turn_is_not_executed)
{
	struct frame_response r;

	send_hello();
	take_welcome();
	send_proof(c.s[CALLS]->cluster_key);
	send_request(1, "{}", 60000);
	take_answer(1, &r);
	char bytes[1024];
	struct frame_request first = { .id = 2,
				       .service = span_of("calls", 5),
				       .method_name = span_of("boxRemote.put", 13),
				       .time_left_ms = 60000,
				       .json = true,
				       .body = span_of("work", 4) };
	size_t n = frame_put_request(bytes, &first, FRAME_REQUEST);
	first.id = 3;
	first.time_left_ms = 20;
	first.body = span_of("{}", 2);
	n += frame_put_request(bytes + n, &first, FRAME_REQUEST);
	ck_assert_int_eq(send(fd, bytes, n, MSG_NOSIGNAL), (ssize_t)n);
	take_answer(2, &r);
	ck_assert_uint_eq(r.error, 0);
	take_answer(3, &r);
	ck_assert_uint_eq(r.error, (uint32_t)-ERR_TIMEOUT);
	ck_assert_uint_eq(r.effect, EFFECT_NONE);
	ck_assert_uint_eq(calls_run(CALLS), 2);
}
END_TEST

START_TEST(a_frame_that_is_no_frame_closes_the_link_and_harms_no_other)
{
	struct frame_response r;

	calls_begin(&c, CALLER, &calls_caller);
	calls_ask(c.s[CALLER], "calls.boxRemote.put", "k", "{}", &reply);
	send_hello();
	take_welcome();
	send_proof(c.s[CALLS]->cluster_key);
	send_request(1, "{}", 60000);
	take_answer(1, &r);
	int64_t links = calls_figure(c.s[CALLS], "loquat_rpc_connections");
	send_frame(FRAME_REQUEST, "\xff\xff\xff", 3);
	struct span payload;
	ck_assert_int_eq(take(&payload), 0);
	/* the figure follows the end of the connection: each call gives the server's worker a turn */
	for (int i = 0; i < 500 && calls_figure(c.s[CALLS], "loquat_rpc_connections") != links - 1; i++)
		calls_ask(c.s[CALLER], "calls.boxRemote.put", "k", "{}", &reply);
	calls_ask(c.s[CALLER], "calls.boxRemote.put", "k", "{}", &reply);
	ck_assert_int_eq(reply.err, 0);
	ck_assert_int_eq(calls_figure(c.s[CALLS], "loquat_rpc_connections"), links - 1);
	ck_assert_int_eq(closed_for("corrupt"), 1);
}
END_TEST

/* ---- a server that is not what it should be --------------------------------------------------------------------------- */

START_TEST(a_client_gives_nothing_to_a_server_without_the_cluster_key)
{
	struct calls other;

	calls_setup(&other, NULL);
	memcpy(other.rpc, c.rpc, sizeof(c.rpc)); /* its route table leads to the first one's ports */
	calls_begin(&other, CALLER, &calls_caller);
	char rows[600];
	snprintf(rows, sizeof(rows), "%s %s", calls_row(&other, CALLER, ""), calls_row(&other, CALLS, ""));
	calls_routes(&other, 10, rows);
	until(calls_routes_version(other.s[CALLER], 0) == 10);
	struct rpc_call call = { .to = { .instance = "calls-1", .worker = 0 }, .timeout_ms = 300 };

	calls_call(other.s[CALLER], 0, "calls.boxRemote.put", call, &reply);
	reply_wait(&reply);
	ck_assert_int_eq(reply.err, ERR_UNAVAILABLE);
	ck_assert_int_eq(reply.effect, EFFECT_NONE);
	ck_assert_uint_eq(calls_run(CALLS), 0);
	calls_teardown(&other);
}
END_TEST

/* How often the log of this process, caught in that file, says it. */
static unsigned said(const char *path, const char *text)
{
	char line[600];
	unsigned n = 0;
	FILE *f = fopen(path, "r");

	ck_assert_ptr_nonnull(f);
	while (fgets(line, sizeof(line), f))
		n += strstr(line, text) != NULL;
	fclose(f);
	return n;
}

START_TEST(a_server_that_refuses_is_told_of_once_however_often_it_is_tried)
{
	struct calls other;
	char rows[600], path[400];
	const char *denied[] = { "caller", "denied" };
	int before = dup(STDERR_FILENO);

	calls_setup(&other, &(struct calls_options){ .lua = "log = { level = 'warn' }," });
	memcpy(other.rpc, c.rpc, sizeof(c.rpc));
	snprintf(path, sizeof(path), "%s/log", other.dir);
	ck_assert_ptr_nonnull(freopen(path, "w", stderr));
	calls_begin(&other, CALLER, &calls_caller);
	snprintf(rows, sizeof(rows), "%s %s", calls_row(&other, CALLER, ""), calls_row(&other, CALLS, ""));
	calls_routes(&other, 10, rows);
	until(calls_routes_version(other.s[CALLER], 0) == 10);
	struct rpc_call call = { .to = { .instance = "calls-1", .worker = 0 }, .timeout_ms = 60000 };

	calls_call(other.s[CALLER], 0, "calls.boxRemote.put", call, &reply);
	until(metrics_total(other.s[CALLER]->metrics, "loquat_rpc_closed_total", denied) >= 3);
	ck_assert(calls_cancel(other.s[CALLER], 0, reply.handle));
	calls_end(&other, CALLER); /* its log is written */
	dup2(before, STDERR_FILENO);
	close(before);
	ck_assert_uint_eq(said(path, "rpc.refused peer=calls-1 why=\"it does not know the cluster key\""), 1);
	calls_teardown(&other);
}
END_TEST

static int listen_at(uint16_t *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	socklen_t size = sizeof(a);
	int at = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ck_assert_int_eq(bind(at, (struct sockaddr *)&a, sizeof(a)), 0);
	ck_assert_int_eq(listen(at, 16), 0);
	ck_assert_int_eq(getsockname(at, (struct sockaddr *)&a, &size), 0);
	*port = ntohs(a.sin_port);
	return at;
}

START_TEST(a_server_that_hangs_up_is_tried_again_more_and_more_rarely)
{
	enum { TIMES = 6 };
	struct calls other;
	uint64_t at_ms[TIMES], least_ms = 0;

	calls_setup(&other, NULL);
	int listener = listen_at(&other.rpc[CALLS]);

	calls_begin(&other, CALLER, &calls_caller);
	char rows[600];
	snprintf(rows, sizeof(rows), "%s %s", calls_row(&other, CALLER, ""), calls_row(&other, CALLS, ""));
	calls_routes(&other, 10, rows);
	until(calls_routes_version(other.s[CALLER], 0) == 10);
	struct rpc_call call = { .to = { .instance = "calls-1", .worker = 0 }, .timeout_ms = 60000 };

	calls_call(other.s[CALLER], 0, "calls.boxRemote.put", call, &reply);
	for (int i = 0; i < TIMES; i++) {
		int link = accept(listener, NULL, NULL);

		ck_assert_int_ge(link, 0);
		at_ms[i] = env_mono_ns(other.env) / 1000000;
		close(link);
	}
	/* at least the half of 50 ms, 100 ms, 200 ms, …: the other half is left to chance */
	for (int i = 1; i < TIMES; i++)
		least_ms += 25u << (i - 1);
	ck_assert_uint_ge(at_ms[TIMES - 1] - at_ms[0], least_ms - TIMES);
	ck_assert(calls_cancel(other.s[CALLER], 0, reply.handle));
	calls_teardown(&other);
	close(listener);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("greeting");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, who_knows_the_cluster_key_is_served);
	tcase_add_test(t, no_request_runs_before_the_proof);
	tcase_add_test(t, no_request_runs_after_a_wrong_proof);
	tcase_add_test(t, the_server_s_own_proof_sent_back_proves_nothing);
	tcase_add_test(t, a_proof_of_another_length_is_no_proof);
	tcase_add_test(t, a_hello_that_means_another_instance_is_closed);
	tcase_add_test(t, a_hello_for_a_worker_that_is_not_there_is_closed);
	tcase_add_test(t, a_hello_with_half_of_its_fields_or_too_long_a_name_is_closed);
	tcase_add_test(t, what_is_no_hello_is_closed);
	tcase_add_test(t, who_has_proved_nothing_gets_no_room_for_large_frames);
	tcase_add_test(t, a_request_whose_time_is_over_before_its_turn_is_not_executed);
	tcase_add_test(t, a_frame_that_is_no_frame_closes_the_link_and_harms_no_other);
	tcase_add_test(t, a_client_gives_nothing_to_a_server_without_the_cluster_key);
	tcase_add_test(t, a_server_that_refuses_is_told_of_once_however_often_it_is_tried);
	tcase_add_test(t, a_server_that_hangs_up_is_tried_again_more_and_more_rarely);
	return suite_run("rpc_greeting", t);
}
