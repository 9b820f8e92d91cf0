/*
 * How players get in at the edge, and in again: tokens, accounts, guests, what is let through before a login, resuming.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "connector/session.h"
#include "tests/support/edgeplay.h"
#include "tests/support/folder.h"
#include "tests/support/suite.h"

START_TEST(a_guest_enters_by_the_gates_token)
{
	struct wireclient gate, c;
	char body[GIVE_BACK_MAX];
	edge_begin(_i, NULL);
	const char *way = query(&gate, 0, "{\"uid\":\"alice\"}");
	ck_assert_str_eq(member(way, "host"), "127.0.0.1");
	ck_assert_str_eq(member(way, "uid"), "alice");
	snprintf(body, sizeof(body), "{\"token\":\"%s\",\"username\":\"alice\",\"rid\":\"r1\"}", member(way, "token"));
	wireclient_ready(&c, (uint16_t)atoi(member(way, "port")), true);
	const char *answer = wireclient_ask(&c, ENTER, body);
	expect(answer,
	       "{\"code\":200,\"uid\":\"alice\",\"role\":{\"id\":1,\"name\":\"alice\",\"gold\":1000},\"users\":[\"alice\",\"other\"],"
	       "\"resume\":\"");
	expect(answer, "\"resumed\":false}");
	ck_assert(edgecluster_asked(&cluster, "login alice;add alice;room r1;"));
	ck_assert_str_eq(wireclient_ask(&c, ECHO, "{\"x\":1,\"y\":[]}"), "{\"x\":1,\"y\":[]}");
	wireclient_close(&c);
	wireclient_close(&gate);
	ck_assert(edgecluster_asked(&cluster, "remove alice;"));
	ck_assert(edgecluster_asked(&cluster, "logout alice;"));
	edge_end();
}
END_TEST

START_TEST(a_token_is_good_once_and_for_its_player)
{
	struct wireclient gate, c;
	char token[TOKEN_MAX], body[TOKEN_MAX + 60];
	edge_begin(_i, NULL);
	const char *way = query(&gate, 0, "{\"uid\":\"bob\"}");
	snprintf(token, sizeof(token), "%s", member(way, "token"));
	uint16_t port = (uint16_t)atoi(member(way, "port"));
	uint16_t other = port == cluster.connector_port[0] ? cluster.connector_port[1] : cluster.connector_port[0];
	/* not here */
	snprintf(body, sizeof(body), "{\"token\":\"%s\"}", token);
	wireclient_ready(&c, other, false);
	expect(wireclient_ask(&c, ENTER, body), "\"error\":\"denied\"");
	wireclient_close(&c);
	/* not another's */
	wireclient_ready(&c, port, false);
	snprintf(body, sizeof(body), "{\"token\":\"%s\",\"username\":\"eve\"}", token);
	expect(wireclient_ask(&c, ENTER, body), "\"error\":\"bad_request\"");
	/* a changed one */
	snprintf(body, sizeof(body), "{\"token\":\"A%s\"}", token);
	expect(wireclient_ask(&c, ENTER, body), "\"error\":\"denied\"");
	/* itself */
	snprintf(body, sizeof(body), "{\"token\":\"%s\"}", token);
	expect(wireclient_ask(&c, ENTER, body), "\"code\":200");
	wireclient_close(&c);
	/* and not again, on whatever worker */
	for (int i = 0; i < 3; i++) {
		wireclient_ready(&c, port, false);
		expect(wireclient_ask(&c, ENTER, body), "this token has been used");
		wireclient_close(&c);
	}
	wireclient_close(&gate);
	edge_end();
}
END_TEST

static const char *not_ready(struct service *s)
{
	const char *why = s->def->not_ready(s);

	return why ? why : "";
}

/* For at most a minute: what a gate and a connector tell each other is asked once a second. */
static bool says(struct service *s, const char *why)
{
	for (int i = 0; i < 6000 && strncmp(not_ready(s), why, strlen(why)) != 0; i++)
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	return !strncmp(not_ready(s), why, strlen(why));
}

static unsigned foreign(struct service *s)
{
	struct buf b = BUF_INIT;

	metrics_prometheus(s->metrics, &b);
	const char *at = strstr(buf_cstr(&b), "\nloquat_token_key_foreign");
	unsigned n = at ? (unsigned)atoi(strrchr(strndupa(at, strcspn(at + 1, "\n") + 1), ' ')) : 99;
	buf_release(&b);
	return n;
}

/* As a host does that was not given var/keys of the others. */
START_TEST(nobody_is_sent_to_a_connector_with_another_token_key)
{
	static const char key[] = "00000000000000000000000000000000ffffffffffffffffffffffffffffffff";
	struct wireclient gate;
	char uid[32], port[8];
	edge_begin(_i, NULL);
	ck_assert(says(cluster.connector[1], ""));
	edgecluster_end(&cluster, &cluster.connector[1]);
	folder_write(cluster.dir, "var/keys/token.key", key, sizeof(key) - 1);
	edgecluster_begin(&cluster, &cluster.connector[1], "connector-2");
	edgecluster_ready(cluster.connector[1]);
	ck_assert(says(cluster.connector[1], "no gate has this host's token.key"));
	ck_assert_uint_eq(foreign(cluster.connector[1]), 1);
	ck_assert_uint_eq(foreign(cluster.connector[0]), 0);
	ck_assert_str_eq(not_ready(cluster.connector[0]), "");
	ck_assert(says(cluster.gate[0], ""));
	while (foreign(cluster.gate[0]) != 1) /* Check's limit bounds the wait */
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	snprintf(port, sizeof(port), "%u", cluster.connector_port[0]);
	for (int i = 0; i < 6; i++) {
		snprintf(uid, sizeof(uid), "{\"uid\":\"p%d\"}", i);
		ck_assert_str_eq(member(query(&gate, 0, uid), "port"), port);
		wireclient_close(&gate);
	}
	edgecluster_end(&cluster, &cluster.connector[0]);
	ck_assert(says(cluster.gate[0], "no connector has this host's token.key"));
	edge_end();
}
END_TEST

START_TEST(an_account_enters_by_its_platforms_credential)
{
	struct wireclient gate, c;
	edge_begin(_i, NULL);
	expect(query(&gate, 0, "{\"platform\":\"demo\",\"account\":\"none1\",\"credential\":\"bad\"}"),
	       "\"error\":\"denied\"");
	expect(wireclient_ask(&gate, QUERY, "{\"platform\":\"demo\",\"account\":\"x\"}"), "\"error\":\"bad_request\"");
	wireclient_close(&gate);
	enter_by_gate(&c, "{\"platform\":\"demo\",\"account\":\"x\",\"credential\":\"good\"}");
	ck_assert(edgecluster_asked(&cluster, "login demo:x;"));
	wireclient_close(&c);
	edge_end();
}
END_TEST

START_TEST(a_second_login_of_a_living_name_is_answered_as_in_pomelos_chat)
{
	struct wireclient c;
	edge_begin(_i, NULL);
	ck_assert_str_eq(enter_guest(&c, 0, "living1"), "{\"code\":500,\"error\":true,\"message\":\"already here\"}");
	/* the connection may try again */
	expect(wireclient_ask(&c, ENTER, "{\"username\":\"carol\"}"), "\"code\":200");
	wireclient_close(&c);
	edge_end();
}
END_TEST

START_TEST(wrong_login_requests_say_what_is_wrong)
{
	static const struct {
		const char *route, *body, *part;
	} wrong[] = {
		{ ENTER, "{}", "token or username" },
		{ ENTER, "[]", "no JSON object" },
		{ ENTER, "garbage", "no JSON object" },
		{ ENTER, "", "token or username" },
		{ ENTER, "{\"username\":7}", "username: expected a string" },
		{ ENTER, "{\"username\":\"a\",\"colour\":\"red\"}", "colour: there is no such field" },
		{ ENTER, "{\"username\":\"a*b\"}", "username: 1 to 64" },
		{ ENTER, "{\"username\":\"a:b\"}", "username: 1 to 64" },
		{ ENTER, "{\"username\":\"a\\u0007\"}", "username: 1 to 64" },
		{ ENTER, "{\"username\":\"\"}", "username: 1 to 64" },
		{ ENTER, "{\"username\":\"a\",\"rid\":\"*\"}", "rid: 1 to 64" },
		{ RESUME, "{}", "resume: missing" },
		{ RESUME, "{\"resume\":\"AAAA.BBBB\"}", "\"error\":\"denied\"" },
		{ ENTER, "{\"token\":\"\"}", "\"error\":\"denied\"" },
	};
	struct wireclient c;
	edge_begin(_i, NULL);
	wireclient_ready(&c, cluster.connector_port[0], false);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		expect(wireclient_ask(&c, wrong[i].route, wrong[i].body), wrong[i].part);
	expect(wireclient_ask(&c, ENTER, "{\"username\":\"dora\",\"__route__\":\"x\"}"), "\"code\":200");
	expect(wireclient_ask(&c, ENTER, "{\"username\":\"dora\"}"), "\"error\":\"bad_request\"");
	wireclient_close(&c);
	edge_end();
}
END_TEST

START_TEST(before_login_everything_else_is_denied_and_the_tenth_kicked)
{
	static const char *const routes[] = { ECHO, "scene.sceneHandler.move", "role.roleHandler.get", "no.such.route",
					      "nodots" };
	struct wireclient c;
	edge_begin(_i, NULL);
	for (int gate = 0; gate < 2; gate++) {
		wireclient_ready(&c, gate ? cluster.gate_port[0] : cluster.connector_port[0], false);
		for (int i = 0; i < 10; i++)
			expect(wireclient_ask(&c, routes[i % 5], "{}"), "\"error\":\"denied\"");
		expect(wireclient_kick(&c), "before login");
		wireclient_close(&c);
	}
	edge_end();
}
END_TEST

/* calls.boxHandler.news is public, .say is not */
static const char NEWS[] = "calls.boxHandler.news";

static void begin_with_calls(int i)
{
	struct edgecluster_options o = { .threads = threads[i], .calls = true };

	edgecluster_start(&cluster, &o);
}

START_TEST(before_login_a_public_method_is_answered_and_no_other)
{
	struct wireclient c;

	begin_with_calls(_i);
	wireclient_ready(&c, cluster.connector_port[0], false);
	for (int i = 0; i < 2 * CLIENTCONN_STRIKES; i++) /* it counts for no strike */
		expect(wireclient_ask(&c, NEWS, "{}"), "\"uid \"");
	expect(wireclient_ask(&c, "calls.boxHandler.say", "{}"), "\"error\":\"denied\"");
	expect(wireclient_ask(&c, ENTER, "{\"username\":\"gina\"}"), "\"code\":200");
	expect(wireclient_ask(&c, NEWS, "{}"), "\"key gina\",\"uid gina\"");
	expect(wireclient_ask(&c, "calls.boxHandler.say", "{}"), "{}");
	wireclient_close(&c);
	edge_end();
}
END_TEST

START_TEST(what_a_public_method_sets_before_login_is_not_what_a_session_goes_by)
{
	struct wireclient c;

	begin_with_calls(_i);
	wireclient_ready(&c, cluster.connector_port[0], false);
	uint32_t id = wireclient_send(&c, NEWS, "{\"text\":\"wait\"}");
	expect(wireclient_ask(&c, ENTER, "{\"username\":\"hugo\"}"), "\"code\":200");
	edgecluster_release(&cluster);
	expect(wireclient_answer(&c, id), "\"uid \"");
	expect(wireclient_ask(&c, "scene.sceneHandler.move", "{}"), "\"key\":\"hugo\"");
	wireclient_close(&c);
	edge_end();
}
END_TEST

START_TEST(before_login_few_public_requests_are_under_way)
{
	char all[SESSION_PUBLIC_MAX * sizeof("held it;")] = "";
	struct wireclient c;
	uint32_t id = 0;

	begin_with_calls(_i);
	wireclient_ready(&c, cluster.connector_port[0], false);
	for (int i = 0; i < SESSION_PUBLIC_MAX; i++) {
		id = wireclient_send(&c, NEWS, "{\"text\":\"wait\"}");
		strcat(all, "held it;");
	}
	expect(wireclient_ask(&c, NEWS, "{}"), "\"error\":\"busy\"");
	ck_assert(edgecluster_asked(&cluster, all));
	edgecluster_release(&cluster); /* the last of them */
	expect(wireclient_answer(&c, id), "\"uid \"");
	wireclient_close(&c);
	edge_end();
}
END_TEST

START_TEST(guests_are_refused_where_they_need_a_token)
{
	struct wireclient c;
	edge_begin(_i, "connector = { guests = false },");
	expect(enter_guest(&c, 0, "frank"), "\"error\":\"denied\"");
	wireclient_close(&c);
	enter_by_gate(&c, "{\"uid\":\"frank\"}");
	wireclient_close(&c);
	edge_end();
}
END_TEST

START_TEST(where_guests_are_not_let_in_only_accounts_get_a_token)
{
	struct wireclient gate, c;
	edge_begin(_i, "gate = { guests = false }, connector = { guests = false },");
	expect(query(&gate, 0, "{\"uid\":\"frank\"}"), "\"error\":\"denied\"");
	wireclient_close(&gate);
	enter_by_gate(&c, "{\"platform\":\"demo\",\"account\":\"x\",\"credential\":\"good\"}");
	wireclient_close(&c);
	edge_end();
}
END_TEST

START_TEST(a_login_that_the_owner_refuses_leaves_the_connection_outside)
{
	struct wireclient c;
	edge_begin(_i, NULL);
	expect(enter_guest(&c, 0, "denied1"), "\"message\":\"not you\"");
	expect(wireclient_ask(&c, ECHO, "{}"), "\"error\":\"denied\"");
	wireclient_close(&c);
	edge_end();
}
END_TEST

START_TEST(a_connection_lost_during_login_is_logged_out_again)
{
	struct wireclient c;
	edge_begin(_i, NULL);
	wireclient_ready(&c, cluster.connector_port[0], false);
	wireclient_send(&c, ENTER, "{\"username\":\"slow2\"}");
	ck_assert(edgecluster_asked(&cluster, "held it;"));
	wireclient_close(&c);
	edgecluster_release(&cluster);
	ck_assert(edgecluster_asked(&cluster, "logout slow2;"));
	ck_assert(edgecluster_count(&cluster, "add slow2;") == 0 || edgecluster_asked(&cluster, "remove slow2;"));
	edge_end();
}
END_TEST

START_TEST(a_resume_token_takes_the_session_over_once)
{
	struct wireclient c, again;
	char body[GIVE_BACK_MAX];
	edge_begin(_i, NULL);
	const char *in = enter_guest(&c, 0, "gina");
	give_back(body, in, "resume");
	wireclient_ready(&again, cluster.connector_port[1], true);
	in = wireclient_ask(&again, RESUME, body);
	expect(in, "\"resumed\":true");
	expect(in, "\"uid\":\"gina\"");
	ck_assert(edgecluster_asked(&cluster, "login gina;add gina;room lobby;"));
	wireclient_close(&again);
	wireclient_ready(&again, cluster.connector_port[1], true);
	expect(wireclient_ask(&again, RESUME, body), "\"error\":\"denied\"");
	wireclient_close(&again);
	wireclient_close(&c);
	edge_end();
}
END_TEST

static void push_to(const char *connector, uint64_t sid, const char *body, const char *supersedes)
{
	edgecluster_push_named(&cluster, connector, sid, "onNews", body, supersedes);
}

START_TEST(who_resumes_gets_what_was_pushed_meanwhile_in_order)
{
	struct wireclient c;
	char resume[GIVE_BACK_MAX];
	uint64_t sid;
	edge_begin(_i, NULL);
	enter_to_resume(&c, "lost1", &sid, resume);
	wireclient_close(&c);
	ck_assert(edgecluster_asked(&cluster, "logout lost1;"));
	push_to("connector-1", sid, "{\"n\":1}", NULL);
	push_to("connector-1", sid, "{\"at\":\"here\"}", "role 7");
	push_to("connector-1", sid, "{\"n\":2}", NULL);
	push_to("connector-1", sid, "{\"at\":\"there\",\"e\":1.50}", "role 7");
	wireclient_ready(&c, cluster.connector_port[1], true);
	const char *answer = wireclient_ask(&c, RESUME, resume);
	expect(answer, "\"resumed\":true");
	expect(answer, "\"missed\":3,\"reload\":false");
	ck_assert_str_eq(wireclient_push(&c, "onNews"), "{\"n\":1}");
	ck_assert_str_eq(wireclient_push(&c, "onNews"), "{\"n\":2}");
	ck_assert_str_eq(wireclient_push(&c, "onNews"), "{\"at\":\"there\",\"e\":1.50}");
	wireclient_close(&c);
	edge_end();
}
END_TEST

START_TEST(what_is_pushed_while_a_player_resumes_comes_after_what_it_has_missed)
{
	struct wireclient c;
	char resume[GIVE_BACK_MAX];
	uint64_t sid;
	edge_begin(_i, NULL);
	wireclient_ready(&c, cluster.connector_port[0], false);
	uint32_t id = wireclient_send(&c, ENTER, "{\"username\":\"slow9\"}");
	edgecluster_release(&cluster);
	give_back(resume, wireclient_answer(&c, id), "resume");
	sid = cluster.login_sid;
	wireclient_close(&c);
	ck_assert(edgecluster_asked(&cluster, "logout slow9;"));
	push_to("connector-1", sid, "{\"n\":1}", NULL);
	wireclient_ready(&c, cluster.connector_port[1], false);
	id = wireclient_send(&c, RESUME, resume);
	while (edgecluster_count(&cluster, "held it;") < 2)
		ck_assert(flag_wait(&cluster.asks, flag_count(&cluster.asks) + 1));
	push_to("connector-2", cluster.login_sid, "{\"n\":2}", NULL);
	edgecluster_release(&cluster);
	expect(wireclient_answer(&c, id), "\"missed\":1,\"reload\":false");
	ck_assert_str_eq(wireclient_push(&c, "onNews"), "{\"n\":1}");
	ck_assert_str_eq(wireclient_push(&c, "onNews"), "{\"n\":2}");
	wireclient_close(&c);
	edge_end();
}
END_TEST

static void reset(struct wireclient *c)
{
	struct linger at_once = { .l_onoff = 1, .l_linger = 0 };

	setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	wireclient_close(c);
}

START_TEST(who_cannot_be_given_all_it_missed_is_told_to_reload)
{
	enum { TOO_MUCH, BROKEN, GONE };
	static char large[8000] = "{\"x\":\"";
	static const char *const names[] = { "much", "broken", "gone" };
	struct wireclient c;
	char resume[GIVE_BACK_MAX], words[40];
	uint64_t sid;
	memset(large + 6, 'x', sizeof(large) - 9);
	memcpy(large + sizeof(large) - 3, "\"}", 3);
	for (int why = TOO_MUCH; why <= GONE; why++) {
		edge_begin(_i, NULL);
		enter_to_resume(&c, names[why], &sid, resume);
		if (why == BROKEN)
			reset(&c);
		else
			wireclient_close(&c);
		snprintf(words, sizeof(words), "logout %s;", names[why]);
		ck_assert(edgecluster_asked(&cluster, words));
		for (int i = 0; i < (why == TOO_MUCH ? 10 : 1); i++)
			push_to("connector-1", sid, large, NULL);
		if (why == GONE)
			edgecluster_end(&cluster, &cluster.connector[0]);
		wireclient_ready(&c, cluster.connector_port[1], true);
		expect(wireclient_ask(&c, RESUME, resume), "\"missed\":0,\"reload\":true");
		ck_assert_str_eq(wireclient_ask(&c, ECHO, "{}"), "{}");
		wireclient_close(&c);
		edge_end();
	}
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("edge_login");

	tcase_set_timeout(t, 30);
#define BOTH(test) tcase_add_loop_test(t, test, 0, 2)
	BOTH(a_guest_enters_by_the_gates_token);
	BOTH(a_token_is_good_once_and_for_its_player);
	BOTH(nobody_is_sent_to_a_connector_with_another_token_key);
	BOTH(an_account_enters_by_its_platforms_credential);
	BOTH(a_second_login_of_a_living_name_is_answered_as_in_pomelos_chat);
	BOTH(wrong_login_requests_say_what_is_wrong);
	BOTH(before_login_everything_else_is_denied_and_the_tenth_kicked);
	BOTH(before_login_a_public_method_is_answered_and_no_other);
	BOTH(what_a_public_method_sets_before_login_is_not_what_a_session_goes_by);
	BOTH(before_login_few_public_requests_are_under_way);
	BOTH(guests_are_refused_where_they_need_a_token);
	BOTH(where_guests_are_not_let_in_only_accounts_get_a_token);
	BOTH(a_login_that_the_owner_refuses_leaves_the_connection_outside);
	BOTH(a_connection_lost_during_login_is_logged_out_again);
	BOTH(a_resume_token_takes_the_session_over_once);
	BOTH(who_resumes_gets_what_was_pushed_meanwhile_in_order);
	BOTH(what_is_pushed_while_a_player_resumes_comes_after_what_it_has_missed);
	BOTH(who_cannot_be_given_all_it_missed_is_told_to_reload);
	return suite_run("edge_login", t);
}
