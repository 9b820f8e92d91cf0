/* A connector is replaced by a new process with its players on it; they notice nothing. Sockets are real, both in here. */
#include <check.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include "connector/handover.h"
#include "connector/session.h"
#include "rpc/http.h"
#include "rpc/service_private.h"
#include "tests/support/calls.h"
#include "tests/support/certs.h"
#include "tests/support/edgeplay.h"
#include "tests/support/flag.h"
#include "tests/support/folder.h"
#include "tests/support/on_loop.h"
#include "tests/support/suite.h"

#define MOVE "scene.sceneHandler.move"

static void enter(struct wireclient *c, bool web, const char *name)
{
	char body[120];

	wireclient_ready(c, cluster.connector_port[0], web);
	snprintf(body, sizeof(body), "{\"username\":\"%s\"}", name);
	expect(wireclient_ask(c, ENTER, body), "\"code\":200");
}

static void upgrade(void)
{
	ck_assert_str_eq(edgecluster_upgrade(&cluster, 0, 0), "");
}

START_TEST(players_over_tcp_and_websocket_go_on)
{
	struct wireclient c[6];
	char name[20], body[80];

	edge_begin(_i, NULL);
	for (int i = 0; i < 6; i++) {
		snprintf(name, sizeof(name), "p%d", i);
		enter(&c[i], i % 2, name);
		expect(wireclient_ask(&c[i], "scene.sceneHandler.enter", "{\"scene\":7}"), "200");
	}
	unsigned logins = edgecluster_count(&cluster, "login "), leaves = edgecluster_count(&cluster, "logout ");
	for (int round = 0; round < 2; round++) {
		upgrade();
		for (int i = 0; i < 6; i++) {
			snprintf(body, sizeof(body), "{\"round\":%d,\"of\":%d}", round, i);
			ck_assert_str_eq(wireclient_ask(&c[i], ECHO, body), body);
			/* routed by the attribute that the scene has set */
			expect(wireclient_ask(&c[i], MOVE, "{}"), "7");
		}
	}
	ck_assert_uint_eq(edgecluster_count(&cluster, "login "), logins);
	ck_assert_uint_eq(edgecluster_count(&cluster, "logout "), leaves);
	/* they are still players: a second enter is refused, a new one gets in, who leaves is told of */
	expect(wireclient_ask(&c[0], ENTER, "{\"username\":\"p0\"}"), "bad_request");
	for (int i = 0; i < 6; i++)
		wireclient_close(&c[i]);
	ck_assert(edgecluster_asked(&cluster, "logout p5;"));
	enter(&c[0], true, "late");
	wireclient_close(&c[0]);
	edge_end();
}
END_TEST

START_TEST(a_request_that_is_under_way_is_answered_once_before)
{
	struct wireclient c;

	edge_begin(_i, NULL);
	enter(&c, _i, "mover");
	wireclient_ask(&c, "scene.sceneHandler.enter", "{\"scene\":1}");
	for (int i = 0; i < 50; i++)
		wireclient_send(&c, MOVE, "{}");
	upgrade();
	wireclient_send(&c, ECHO, "{\"last\":1}");
	for (int i = 0; i < 51; i++) {
		struct wiregot got = wireclient_next(&c, false);
		ck_assert_uint_eq(got.type, POMELO_DATA);
		ck_assert_uint_eq(got.m.kind, POMELO_RESPONSE);
	}
	wireclient_close(&c);
	edge_end();
}
END_TEST

START_TEST(half_a_package_meets_its_other_half)
{
	char package[200];
	struct wireclient c;

	edge_begin(_i, NULL);
	for (int web = 0; web < 2; web++) {
		enter(&c, web, web ? "halfweb" : "halfraw");
		size_t n = pomelo_request_head(package, 77, 0, ECHO, strlen(ECHO), 9);
		memcpy(package + n, "{\"half\":2", 9);
		package[n + 8] = '}';
		memcpy(package + n, "{\"ha\":12}", 9);
		if (web)
			wireclient_package(&c, POMELO_HEARTBEAT, NULL, 0); /* a frame of its own before */
		else
			wireclient_raw(&c, package, 13);
		upgrade();
		if (web)
			ck_assert_str_eq(wireclient_ask(&c, ECHO, "{\"ha\":12}"), "{\"ha\":12}");
		else {
			wireclient_raw(&c, package + 13, n + 9 - 13);
			ck_assert_str_eq(wireclient_answer(&c, 77), "{\"ha\":12}");
		}
		wireclient_close(&c);
	}
	edge_end();
}
END_TEST

START_TEST(who_is_in_the_middle_of_the_handshake_goes_on)
{
	struct wireclient c, silent;

	edge_begin(_i, NULL);
	wireclient_open(&silent, cluster.connector_port[0]);
	wireclient_open(&c, cluster.connector_port[0]);
	wireclient_package(&c, POMELO_HANDSHAKE, "{\"sys\":{}}", 10);
	wireclient_next(&c, false);
	upgrade();
	wireclient_package(&c, POMELO_ACK, NULL, 0);
	expect(wireclient_ask(&c, ENTER, "{\"username\":\"late\"}"), "\"code\":200");
	wireclient_package(&silent, POMELO_HANDSHAKE, "{\"sys\":{}}", 10);
	ck_assert_uint_eq(wireclient_next(&silent, false).type, POMELO_HANDSHAKE);
	wireclient_close(&c);
	wireclient_close(&silent);
	edge_end();
}
END_TEST

static _Atomic size_t unsent;
static void unsent_look(struct worker *w, void *arg)
{
	struct edge *e = w->user;
	struct flag *looked = arg;

	for (uint32_t i = 0; i < e->slots; i++)
		if (e->slot[i])
			unsent += stream_pending(&e->slot[i]->conn.stream);
	flag_raise(looked);
}

/* Whether the connector waits for the reader. */
static bool waits(void)
{
	struct flag looked;

	flag_init(&looked);
	unsent = 0;
	service_each(cluster.connector[0], unsent_look, &looked);
	ck_assert(flag_wait(&looked, cluster.connector[0]->workers));
	return unsent > 20000;
}

START_TEST(what_a_slow_reader_has_not_taken_comes_whole_and_in_order)
{
	static char body[30001];
	struct wireclient c;
	char begin_of[40];
	int sent;

	edge_begin(_i, NULL);
	enter(&c, false, "reader");
	setsockopt(c.fd, SOL_SOCKET, SO_RCVBUF, &(int){ 65536 }, sizeof(int));
	for (sent = 0; !waits(); sent++) {
		ck_assert_int_lt(sent, 1000);
		memset(body, 'x', sizeof(body) - 1);
		int n = snprintf(body, sizeof(body), "{\"n\":%d,\"x\":\"", sent);
		body[n] = 'x';
		memcpy(body + sizeof(body) - 3, "\"}", 3);
		wireclient_send(&c, ECHO, body);
	}
	upgrade();
	for (int i = 0; i < sent; i++) {
		struct wiregot got = wireclient_next(&c, false);
		snprintf(begin_of, sizeof(begin_of), "{\"n\":%d,", i);
		ck_assert_uint_eq(got.m.n, sizeof(body) - 1);
		ck_assert_int_eq(strncmp(got.m.body, begin_of, strlen(begin_of)), 0);
	}
	wireclient_close(&c);
	edge_end();
}
END_TEST

START_TEST(pushes_find_their_players_afterwards)
{
	struct wireclient c;

	edge_begin(_i, NULL);
	enter(&c, true, "listener");
	wireclient_ask(&c, "scene.sceneHandler.enter", "{\"scene\":1}");
	uint64_t sid = cluster.sid;
	upgrade();
	edgecluster_push(&cluster, "connector-1", &sid, 1, "onNews", "{\"a\":1}");
	ck_assert_str_eq(wireclient_push(&c, "onNews"), "{\"a\":1}");
	wireclient_close(&c);
	edge_end();
}
END_TEST

/* One every few ms, as Lua's app.push sends them: nobody waits for an answer. */
struct stream_of_pushes {
	struct timer timer;
	struct loop *loop;
	uint64_t sid;
	int sent;
	_Atomic bool stop;
	struct flag ended;
};

static void push_one(struct timer *t, uint64_t now_ms)
{
	struct stream_of_pushes *p = (struct stream_of_pushes *)((char *)t - offsetof(struct stream_of_pushes, timer));
	static const char method[] = "connector.connectorRemote.push";
	char bytes[100], body[40];
	size_t at = 10;

	(void)now_ms;
	if (p->stop) {
		flag_raise(&p->ended);
		return;
	}
	int n = snprintf(body, sizeof(body), "{\"n\":%d}", p->sent++);
	memcpy(bytes, "\x0a\x08", 2);
	memcpy(bytes + 2, &p->sid, 8);
	at += (size_t)snprintf(bytes + at, sizeof(bytes) - at, "\x12\x06onNews\x1a%c%s", n, body);
	rpc_call(cluster.scene->worker[0],
		 &(struct rpc_call){ .method = schema_method(cluster.scene->schema, method, sizeof(method) - 1),
				     .to = { .instance = "connector-1", .worker = (int)(p->sid >> 48) },
				     .body = span_of(bytes, at) });
	loop_timer(p->loop, t, 2);
}

static void pushes_begin(void *arg)
{
	struct stream_of_pushes *p = arg;

	push_one(&p->timer, 0);
}

START_TEST(pushes_during_the_hand_over_come_once_and_in_order)
{
	struct stream_of_pushes p = { .timer.fire = push_one };
	struct wireclient c;
	char body[40];

	edge_begin(_i, NULL);
	enter(&c, _i, "listener");
	wireclient_ask(&c, "scene.sceneHandler.enter", "{\"scene\":1}");
	p.sid = cluster.sid;
	p.loop = cluster.scene->worker[0]->loop;
	flag_init(&p.ended);
	loop_call(p.loop, pushes_begin, &p);
	for (int round = 0; round < 2; round++) {
		ck_assert_ptr_nonnull(wireclient_push(&c, "onNews")); /* they come */
		upgrade();
	}
	p.stop = true;
	ck_assert(flag_wait(&p.ended, 1));
	for (int i = 2; i < p.sent; i++) {
		snprintf(body, sizeof(body), "{\"n\":%d}", i);
		ck_assert_str_eq(wireclient_push(&c, "onNews"), body);
	}
	wireclient_close(&c);
	edge_end();
}
END_TEST

START_TEST(what_was_missed_before_and_after_comes_with_the_resume)
{
	struct wireclient c;
	char resume[GIVE_BACK_MAX];
	uint64_t sid;

	edge_begin(_i, NULL);
	enter_to_resume(&c, "lost", &sid, resume);
	wireclient_close(&c);
	ck_assert(edgecluster_asked(&cluster, "logout lost;"));
	edgecluster_push_named(&cluster, "connector-1", sid, "onNews", "{\"n\":1}", "role 7");
	edgecluster_push(&cluster, "connector-1", &sid, 1, "onNews", "{\"n\":2}");
	upgrade();
	edgecluster_push_named(&cluster, "connector-1", sid, "onNews", "{\"n\":3}", "role 7");
	wireclient_ready(&c, cluster.connector_port[1], true);
	expect(wireclient_ask(&c, RESUME, resume), "\"missed\":2,\"reload\":false");
	ck_assert_str_eq(wireclient_push(&c, "onNews"), "{\"n\":2}");
	ck_assert_str_eq(wireclient_push(&c, "onNews"), "{\"n\":3}");
	wireclient_close(&c);
	edge_end();
}
END_TEST

START_TEST(who_missed_too_much_before_is_told_so_after)
{
	static char large[30000];
	struct wireclient c;
	char resume[GIVE_BACK_MAX];
	uint64_t sid;

	edge_begin(_i, NULL);
	enter_to_resume(&c, "lost", &sid, resume);
	wireclient_close(&c);
	ck_assert(edgecluster_asked(&cluster, "logout lost;"));
	memset(large, 'x', sizeof(large) - 1);
	memcpy(large, "{\"x\":\"", 6);
	memcpy(large + sizeof(large) - 3, "\"}", 3);
	for (int i = 0; i < 3; i++)
		edgecluster_push(&cluster, "connector-1", &sid, 1, "onNews", large);
	upgrade();
	wireclient_ready(&c, cluster.connector_port[0], false);
	expect(wireclient_ask(&c, RESUME, resume), "\"missed\":0,\"reload\":true");
	wireclient_close(&c);
	edge_end();
}
END_TEST

/* The cluster with a certificate for players, and a balancer that may speak for others. */
static void begin_secure(int i, char **folder)
{
	char lua[1200];

	*folder = folder_new();
	struct certs *ca = certs_new(*folder, "authority");
	certs_sign(ca, *folder, "players");
	certs_free(ca);
	snprintf(
		lua, sizeof(lua),
		"client = { tls = { cert = \"%s/players.pem\", key = \"%s/players.key\" }, balancers = { \"127.0.0.1\" } },",
		*folder, *folder);
	edge_begin(i, lua);
}

START_TEST(who_speaks_tls_is_told_to_resume_and_goes_on_where_it_was)
{
	struct wireclient c;
	char resume[GIVE_BACK_MAX], *folder;

	begin_secure(_i, &folder);
	wireclient_ready_tls(&c, cluster.connector_port[0]);
	give_back(resume, wireclient_ask(&c, ENTER, "{\"username\":\"tess\"}"), "resume");
	upgrade();
	expect(wireclient_kick(&c), "resume");
	wireclient_close(&c);
	wireclient_ready_tls(&c, cluster.connector_port[0]);
	expect(wireclient_ask(&c, RESUME, resume), "\"resumed\":true");
	ck_assert_str_eq(wireclient_ask(&c, ECHO, "{\"a\":1}"), "{\"a\":1}");
	wireclient_close(&c);
	edge_end();
	folder_free(folder);
}
END_TEST

START_TEST(who_stands_in_the_door_comes_in_afterwards)
{
	/* a balancer's header, for 1.2.3.4 */
	static const char header[] = "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\1\2\3\4\5\6\7\x08\x10\xe1\0\x50";
	struct wireclient silent, half;
	char *folder;

	begin_secure(_i, &folder);
	wireclient_open(&silent, cluster.connector_port[0]);
	wireclient_open(&half, cluster.connector_port[0]);
	wireclient_raw(&half, header, 15);
	upgrade();
	wireclient_raw(&half, header + 15, sizeof(header) - 1 - 15);
	wireclient_package(&half, POMELO_HANDSHAKE, "{\"sys\":{}}", 10);
	ck_assert_int_eq(wireclient_next(&half, false).type, POMELO_HANDSHAKE);
	wireclient_package(&silent, POMELO_HANDSHAKE, "{\"sys\":{}}", 10);
	ck_assert_int_eq(wireclient_next(&silent, false).type, POMELO_HANDSHAKE);
	wireclient_close(&half);
	wireclient_close(&silent);
	edge_end();
	folder_free(folder);
}
END_TEST

START_TEST(another_number_of_threads_is_refused_and_nothing_has_happened)
{
	struct wireclient c;

	edge_begin(_i, NULL);
	enter(&c, false, "stays");
	expect(edgecluster_upgrade(&cluster, 0, threads[_i] + 1), "threads");
	ck_assert_str_eq(wireclient_ask(&c, ECHO, "{\"a\":1}"), "{\"a\":1}");
	upgrade();
	ck_assert_str_eq(wireclient_ask(&c, ECHO, "{\"a\":2}"), "{\"a\":2}");
	wireclient_close(&c);
	edge_end();
}
END_TEST

/* ---- a reload under way -------------------------------------------------------------------------------------------- */

static void look_quiet(void *arg)
{
	*(bool *)arg = http_face_quiet(cluster.connector[0]->p->http);
}

START_TEST(a_reload_that_is_under_way_ends_before_the_hand_over)
{
	static struct loop_hold busy;
	struct service *s;
	struct http_reply reply;
	struct env_pass *pass;
	struct env_passed *passed;
	struct wireclient c;
	char path[400], text[ENV_PASS_MAX], hello[260], shared[160];
	bool quiet = true;

	edge_begin(_i, NULL);
	enter(&c, false, "stays");
	s = cluster.connector[0];
	loop_hold(s->worker[0]->loop, &busy);
	struct calls operator= { .s = { s }, .http = { s->row->http_port } };
	int fd = calls_http_send(&operator, 0, "POST", "/admin/reload?step=rollback&version=00000000", true, "");
	while (quiet)
		on_loop(s->control, look_quiet, &quiet);
	snprintf(path, sizeof(path), "%s/var/connector-1.door", cluster.dir);
	snprintf(hello, sizeof(hello), "take-over 1 connector-1 %u %s", threads[_i],
		 connector_handover.shared(s, shared, sizeof(shared)));
	ck_assert_int_eq(env_pass_connect(cluster.env, path, &pass), 0);
	ck_assert_int_eq(env_pass_send(pass, hello, strlen(hello), NULL, NULL), 0);
	ck_assert_int_eq((int)env_pass_receive(pass, text, sizeof(text), 300, &passed), ERR_TIMEOUT);
	loop_let_go(&busy);
	calls_http_take(fd, &reply);
	expect(reply.body, "\"running\"");
	ck_assert_int_eq((int)env_pass_receive(pass, text, sizeof(text), 8000, &passed), 2);
	ck_assert_int_eq(memcmp(text, "go", 2), 0);
	env_pass_close(pass);
	ck_assert_str_eq(wireclient_ask(&c, ECHO, "{\"a\":1}"), "{\"a\":1}");
	wireclient_close(&c);
	edge_end();
}
END_TEST

/* A new process that dies at each step of the way. */
static void die_after(const char *const *words, int n)
{
	struct env_pass *pass;
	struct env_passed *passed;
	char path[400], text[ENV_PASS_MAX];

	snprintf(path, sizeof(path), "%s/var/connector-1.door", cluster.dir);
	/* the one before it may not have been cleared away yet: then this one is shut out, and knocks again */
	for (int tries = 0; n; tries++) {
		ck_assert_int_eq(env_pass_connect(cluster.env, path, &pass), 0);
		int sent = env_pass_send(pass, words[0], strlen(words[0]), NULL, NULL);
		if (sent == 0 && env_pass_receive(pass, text, sizeof(text), 8000, &passed) > 0)
			break;
		env_pass_close(pass);
		ck_assert_int_lt(tries, 400);
		nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
	}
	if (!n)
		ck_assert_int_eq(env_pass_connect(cluster.env, path, &pass), 0);
	for (int i = 1; i < n; i++) {
		ck_assert_int_eq(env_pass_send(pass, words[i], strlen(words[i]), NULL, NULL), 0);
		ck_assert_int_gt((int)env_pass_receive(pass, text, sizeof(text), 8000, &passed), 0);
		env_passed_close(passed);
	}
	env_pass_close(pass);
}

START_TEST(a_new_process_that_dies_costs_nothing)
{
	char hello[260];
	const char *const words[] = { hello, "ready" };
	struct wireclient c;

	edge_begin(_i, NULL);
	enter(&c, true, "survivor");
	wireclient_ask(&c, "scene.sceneHandler.enter", "{\"scene\":1}");
	uint64_t sid = cluster.sid;
	char shared[160];
	snprintf(hello, sizeof(hello), "take-over 1 connector-1 %u %s", threads[_i],
		 connector_handover.shared(cluster.connector[0], shared, sizeof(shared)));
	for (int n = 0; n <= 2; n++) {
		die_after(words, n);
		ck_assert_str_eq(wireclient_ask(&c, ECHO, "{\"a\":1}"), "{\"a\":1}");
		expect(wireclient_ask(&c, MOVE, "{}"), "1");
		/* and others reach it */
		edgecluster_push(&cluster, "connector-1", &sid, 1, "onNews", "{\"a\":1}");
		ck_assert_str_eq(wireclient_push(&c, "onNews"), "{\"a\":1}");
	}
	/* who is the first to try again may meet it before it has opened its door again */
	const char *why = "";
	for (int i = 0; i < 200 && *(why = edgecluster_upgrade(&cluster, 0, 0)); i++)
		nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
	ck_assert_str_eq(why, "");
	ck_assert_str_eq(wireclient_ask(&c, ECHO, "{\"a\":1}"), "{\"a\":1}");
	wireclient_close(&c);
	edge_end();
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("handover");

	tcase_set_timeout(tcase, 30);
	tcase_add_loop_test(tcase, players_over_tcp_and_websocket_go_on, 0, 2);
	tcase_add_loop_test(tcase, a_request_that_is_under_way_is_answered_once_before, 0, 2);
	tcase_add_loop_test(tcase, half_a_package_meets_its_other_half, 0, 2);
	tcase_add_loop_test(tcase, who_is_in_the_middle_of_the_handshake_goes_on, 0, 2);
	tcase_add_loop_test(tcase, what_a_slow_reader_has_not_taken_comes_whole_and_in_order, 0, 2);
	tcase_add_loop_test(tcase, pushes_find_their_players_afterwards, 0, 2);
	tcase_add_loop_test(tcase, pushes_during_the_hand_over_come_once_and_in_order, 0, 2);
	tcase_add_loop_test(tcase, what_was_missed_before_and_after_comes_with_the_resume, 0, 2);
	tcase_add_loop_test(tcase, who_missed_too_much_before_is_told_so_after, 0, 2);
	tcase_add_loop_test(tcase, who_speaks_tls_is_told_to_resume_and_goes_on_where_it_was, 0, 2);
	tcase_add_loop_test(tcase, who_stands_in_the_door_comes_in_afterwards, 0, 2);
	tcase_add_loop_test(tcase, another_number_of_threads_is_refused_and_nothing_has_happened, 0, 2);
	tcase_add_loop_test(tcase, a_reload_that_is_under_way_ends_before_the_hand_over, 0, 2);
	tcase_add_loop_test(tcase, a_new_process_that_dies_costs_nothing, 0, 2);
	return suite_run("handover", tcase);
}
