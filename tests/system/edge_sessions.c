/*
 * What the connector does for who is in: requests to the services, pushes and kicks from them, owners that come anew.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/support/edgeplay.h"
#include "tests/support/suite.h"

START_TEST(requests_go_to_their_service_and_answers_come_back_as_they_are)
{
	struct wireclient c;
	edge_begin(_i, NULL);
	expect(enter_guest(&c, 0, "hugo"), "\"code\":200");
	ck_assert_str_eq(wireclient_ask(&c, "scene.sceneHandler.echo", "{\"a\": [1,  2]}"), "{\"a\": [1,  2]}");
	ck_assert_str_eq(wireclient_ask(&c, "scene.sceneHandler.echo", ""), "{}");
	ck_assert_str_eq(
		wireclient_ask(&c, "scene.sceneHandler.attack", "{\"target\":1}"),
		"{\"code\":500,\"error\":\"failed\",\"message\":\"the handler \\\"raised\\\"\",\"effect\":\"unknown\"}");
	expect(wireclient_ask(&c, "scene.sceneHandler.fly", "{}"), "\"error\":\"not_found\"");
	expect(wireclient_ask(&c, "scene.sceneRemote.echo", "{}"), "\"error\":\"not_found\"");
	expect(wireclient_ask(&c, "nodots", "{}"), "\"error\":\"not_found\"");
	expect(wireclient_ask(&c, QUERY, "{}"), "\"error\":\"not_found\"");
	wireclient_close(&c);
	edge_end();
}
END_TEST

START_TEST(why_a_request_failed_is_not_told_where_players_are_strangers)
{
	struct wireclient c;
	edge_begin(_i, "connector = { tell_failures = false },");
	expect(enter_guest(&c, 0, "hal"), "\"code\":200");
	ck_assert_str_eq(
		wireclient_ask(&c, "scene.sceneHandler.attack", "{\"target\":1}"),
		"{\"code\":500,\"error\":\"failed\",\"message\":\"the handler raised an error\",\"effect\":\"unknown\"}");
	expect(wireclient_ask(&c, "scene.sceneHandler.fly", "{}"), "there is no route scene.sceneHandler.fly");
	wireclient_close(&c);
	edge_end();
}
END_TEST

START_TEST(a_service_that_does_not_run_is_unavailable_in_time)
{
	struct wireclient c;
	edge_begin(_i, "connector = { request_s = 4 },"); /* which is the time to get in, too */
	expect(enter_guest(&c, 0, "ida"), "\"code\":200");
	expect(wireclient_ask(&c, "team.teamHandler.info", "{}"), "\"error\":\"unavailable\"");
	wireclient_close(&c);
	edge_end();
}
END_TEST

START_TEST(emoji_leave_as_escapes_that_every_client_reads)
{
	struct wireclient c;
	edge_begin(_i, NULL);
	expect(enter_guest(&c, 0, "jo"), "\"code\":200");
	ck_assert_str_eq(wireclient_ask(&c, ECHO, "{\"m\":\"\xed\xa0\xbd\xed\xb8\x80\xe4\xb8\xad\"}"),
			 "{\"m\":\"\\ud83d\\ude00\xe4\xb8\xad\"}");
	ck_assert_str_eq(wireclient_ask(&c, ECHO, "{\"m\":\"\xf0\x9f\x98\x80\"}"), "{\"m\":\"\\ud83d\\ude00\"}");
	expect(wireclient_ask(&c, ECHO, "{\"m\":\"\xff\"}"), "\"error\":\"bad_request\"");
	wireclient_close(&c);
	edge_end();
}
END_TEST

START_TEST(an_attribute_set_by_an_answer_routes_what_follows)
{
	struct wireclient c;
	edge_begin(_i, NULL);
	expect(enter_guest(&c, 0, "kim"), "\"code\":200");
	expect(wireclient_ask(&c, "scene.sceneHandler.move", "{}"), "\"key\":\"kim\",\"uid\":\"kim\"");
	expect(wireclient_ask(&c, "scene.sceneHandler.enter", "{\"scene\":7}"), "\"scene\":7");
	expect(wireclient_ask(&c, "scene.sceneHandler.move", "{}"), "\"key\":\"7\",\"uid\":\"kim\"");
	char json[100];
	snprintf(json, sizeof(json), "{\"sid\":%llu,\"name\":\"scene\",\"value\":\"8\"}",
		 (unsigned long long)cluster.sid);
	ck_assert_str_eq(edgecluster_call(&cluster, "connector.connectorRemote.attr", cluster.connector_id, cluster.sid,
					  json),
			 "{}");
	expect(wireclient_ask(&c, "scene.sceneHandler.move", "{}"), "\"key\":\"8\"");
	wireclient_close(&c);
	edge_end();
}
END_TEST

START_TEST(what_comes_behind_enter_waits_for_it)
{
	struct wireclient c;
	edge_begin(_i, NULL);
	wireclient_ready(&c, cluster.connector_port[0], false);
	uint32_t enter = wireclient_send(&c, ENTER, "{\"username\":\"slow1\"}");
	uint32_t echo = wireclient_send(&c, ECHO, "{\"n\":1}");
	uint32_t move = wireclient_send(&c, "scene.sceneHandler.move", "{}");
	edgecluster_release(&cluster);
	expect(wireclient_answer(&c, enter), "\"code\":200");
	expect(wireclient_answer(&c, echo), "{\"n\":1}");
	expect(wireclient_answer(&c, move), "\"uid\":\"slow1\"");
	wireclient_close(&c);
	edge_end();
}
END_TEST

START_TEST(what_comes_behind_scene_enter_goes_where_that_decides)
{
	struct wireclient c;
	edge_begin(_i, NULL);
	expect(enter_guest(&c, 0, "lea"), "\"code\":200");
	uint32_t enter = wireclient_send(&c, "scene.sceneHandler.enter", "{\"scene\":99}");
	uint32_t move = wireclient_send(&c, "scene.sceneHandler.move", "{}");
	/* other services are not held up */
	ck_assert_str_eq(wireclient_ask(&c, ECHO, "{}"), "{}");
	edgecluster_release(&cluster);
	expect(wireclient_answer(&c, enter), "\"scene\":99");
	expect(wireclient_answer(&c, move), "\"key\":\"99\"");
	wireclient_close(&c);
	edge_end();
}
END_TEST

START_TEST(sixty_four_requests_wait_and_the_next_is_busy)
{
	struct wireclient c;
	uint32_t id[66];
	edge_begin(_i, NULL);
	wireclient_ready(&c, cluster.connector_port[0], false);
	uint32_t enter = wireclient_send(&c, ENTER, "{\"username\":\"slow3\"}");
	for (int i = 0; i < 66; i++)
		id[i] = wireclient_send(&c, ECHO, "{}");
	expect(wireclient_answer(&c, id[64]), "\"error\":\"busy\"");
	expect(wireclient_answer(&c, id[65]), "\"error\":\"busy\"");
	edgecluster_release(&cluster);
	expect(wireclient_answer(&c, enter), "\"code\":200");
	for (int i = 0; i < 64; i++)
		ck_assert_str_eq(wireclient_answer(&c, id[i]), "{}");
	wireclient_close(&c);
	edge_end();
}
END_TEST

START_TEST(a_push_reaches_each_session_named)
{
	struct wireclient a, b;
	uint64_t sids[3];
	edge_begin(_i, NULL);
	expect(enter_guest(&a, 0, "mia"), "\"code\":200");
	wireclient_ask(&a, "scene.sceneHandler.enter", "{\"scene\":1}");
	sids[0] = cluster.sid;
	sids[1] = cluster.sid ^ 0x100000; /* somebody long gone */
	edgecluster_push(&cluster, "connector-1", sids, 2, "onHello", "{\"n\":1}");
	ck_assert_str_eq(wireclient_push(&a, "onHello"), "{\"n\":1}");
	/* one push for all who are on one worker */
	for (;;) {
		expect(enter_guest(&b, 0, "nora"), "\"code\":200");
		wireclient_ask(&b, "scene.sceneHandler.enter", "{\"scene\":1}");
		if (cluster.sid >> 48 == sids[0] >> 48)
			break;
		wireclient_close(&b);
	}
	sids[2] = cluster.sid;
	edgecluster_push(&cluster, "connector-1", sids, 3, "onHello", "{\"n\":2}");
	ck_assert_str_eq(wireclient_push(&a, "onHello"), "{\"n\":2}");
	ck_assert_str_eq(wireclient_push(&b, "onHello"), "{\"n\":2}");
	wireclient_close(&a);
	wireclient_close(&b);
	edge_end();
}
END_TEST

START_TEST(a_push_that_is_none_is_refused)
{
	static const char *const wrong[] = { "{}", "{\"sid\":[1],\"route\":\"onHello\",\"body\":\"e30=\"}" };
	edge_begin(_i, NULL);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
		ck_assert_str_eq(edgecluster_call(&cluster, "connector.connectorRemote.push", "connector-1", 0,
						  wrong[i]),
				 "bad_request");
	edge_end();
}
END_TEST

START_TEST(a_kick_reaches_the_player_and_its_owner_hears_of_it)
{
	struct wireclient c;
	char json[100];
	edge_begin(_i, NULL);
	expect(enter_guest(&c, 0, "olga"), "\"code\":200");
	wireclient_ask(&c, "scene.sceneHandler.enter", "{\"scene\":1}");
	snprintf(json, sizeof(json), "{\"sid\":%llu,\"reason\":\"newer login\"}", (unsigned long long)cluster.sid);
	ck_assert_str_eq(edgecluster_call(&cluster, "connector.connectorRemote.kick", "connector-1", cluster.sid, json),
			 "{}");
	ck_assert_str_eq(wireclient_kick(&c), "newer login");
	ck_assert(edgecluster_asked(&cluster, "void olga;"));
	wireclient_close(&c);
	edge_end();
}
END_TEST

START_TEST(a_connection_is_alive_until_its_client_closed_it)
{
	char json[64];
	edge_begin(_i, NULL);
	for (int i = 0; i < 20; i++) {
		struct wireclient c;
		expect(enter_guest(&c, 0, "paul"), "\"code\":200");
		wireclient_ask(&c, "scene.sceneHandler.enter", "{\"scene\":1}");
		snprintf(json, sizeof(json), "{\"sid\":%llu}", (unsigned long long)cluster.sid);
		const char *alive =
			edgecluster_call(&cluster, "connector.connectorRemote.alive", "connector-1", cluster.sid, json);
		ck_assert_str_eq(alive, "{\"alive\":true}");
		wireclient_close(&c);
		alive = edgecluster_call(&cluster, "connector.connectorRemote.alive", "connector-1", cluster.sid, json);
		ck_assert_str_eq(alive, "{\"alive\":false}");
	}
	edge_end();
}
END_TEST

START_TEST(a_new_owner_is_told_who_is_here)
{
	struct wireclient c;
	edge_begin(_i, NULL);
	expect(enter_guest(&c, 0, "quin"), "\"code\":200");
	edgecluster_end(&cluster, &cluster.role);
	edgecluster_begin(&cluster, &cluster.role, "role-1");
	ck_assert(edgecluster_asked(&cluster, "announce quin;"));
	edgecluster_end(&cluster, &cluster.chat);
	unsigned adds = edgecluster_count(&cluster, "add quin;");
	edgecluster_begin(&cluster, &cluster.chat, "chat-1");
	while (edgecluster_count(&cluster, "add quin;") == adds)
		ck_assert(flag_wait(&cluster.asks, flag_count(&cluster.asks) + 1));
	/* its player has noticed nothing */
	ck_assert_str_eq(wireclient_ask(&c, ECHO, "{}"), "{}");
	wireclient_close(&c);
	edge_end();
}
END_TEST

/* The table has another role instance; nobody listens there. */
static void role_2_comes(void)
{
	const struct route_table *now = cluster.connector[0]->worker[0]->routes;
	struct route_table t = { .version = now->version + 1, .row = calloc(now->rows + 1, sizeof(*t.row)) };
	struct buf text = BUF_INIT;
	char path[400];

	ck_assert_ptr_nonnull(t.row);
	for (; t.rows < now->rows; t.rows++)
		t.row[t.rows] = now->row[t.rows];
	t.row[t.rows] = *route_find(now, "role-1");
	snprintf(t.row[t.rows].id, sizeof(t.row[t.rows].id), "role-2");
	t.row[t.rows++].rpc_port = 1;
	route_to_text(&t, &text);
	snprintf(path, sizeof(path), "%s/var/routes.lua", cluster.dir);
	ck_assert_int_eq(env_file_store(cluster.env, path, text.data, text.len, 0), 0);
	buf_release(&text);
	free(t.row);
}

/* A player of role-1's, also when role-2 has come. */
static const char *who_stays(char uid[32])
{
	uint64_t first = route_hash("role-1", 6), second = route_hash("role-2", 6), key;

	for (int i = 0;; i++) {
		snprintf(uid, 32, "slow%d", i);
		key = route_hash(uid, strlen(uid));
		if (route_score(key, first) > route_score(key, second))
			return uid;
	}
}

START_TEST(who_entered_while_role_instances_changed_is_announced)
{
	struct wireclient c;
	char uid[32], text[80];
	edge_begin(_i, NULL);
	wireclient_ready(&c, cluster.connector_port[0], false);
	snprintf(text, sizeof(text), "{\"username\":\"%s\"}", who_stays(uid));
	uint32_t id = wireclient_send(&c, ENTER, text);
	ck_assert(edgecluster_asked(&cluster, "held it;"));
	unsigned told = edgecluster_count(&cluster, "announced connector-1;");
	role_2_comes();
	while (edgecluster_count(&cluster, "announced connector-1;") < told + threads[_i])
		ck_assert(flag_wait(&cluster.asks, flag_count(&cluster.asks) + 1));
	snprintf(text, sizeof(text), "announce %s;", uid);
	ck_assert_uint_eq(edgecluster_count(&cluster, text), 0); /* it is not in yet */
	edgecluster_release(&cluster);
	expect(wireclient_answer(&c, id), "\"code\":200");
	ck_assert(edgecluster_asked(&cluster, text));
	wireclient_close(&c);
	edge_end();
}
END_TEST

START_TEST(a_draining_connector_sends_its_players_away_with_a_reason)
{
	struct wireclient c;
	edge_begin(_i, NULL);
	expect(enter_guest(&c, 0, "rosa"), "\"code\":200");
	service_stop(cluster.connector[0]);
	expect(wireclient_kick(&c), "going away");
	ck_assert(edgecluster_asked(&cluster, "logout rosa;"));
	ck_assert_uint_eq(edgecluster_count(&cluster, "void "), 0); /* it may resume */
	wireclient_close(&c);
	edge_end();
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("edge_sessions");

	tcase_set_timeout(t, 30);
#define BOTH(test) tcase_add_loop_test(t, test, 0, 2)
	BOTH(requests_go_to_their_service_and_answers_come_back_as_they_are);
	BOTH(why_a_request_failed_is_not_told_where_players_are_strangers);
	BOTH(a_service_that_does_not_run_is_unavailable_in_time);
	BOTH(emoji_leave_as_escapes_that_every_client_reads);
	BOTH(an_attribute_set_by_an_answer_routes_what_follows);
	BOTH(what_comes_behind_enter_waits_for_it);
	BOTH(what_comes_behind_scene_enter_goes_where_that_decides);
	BOTH(sixty_four_requests_wait_and_the_next_is_busy);
	BOTH(a_push_reaches_each_session_named);
	BOTH(a_push_that_is_none_is_refused);
	BOTH(a_kick_reaches_the_player_and_its_owner_hears_of_it);
	BOTH(a_connection_is_alive_until_its_client_closed_it);
	BOTH(a_new_owner_is_told_who_is_here);
	BOTH(who_entered_while_role_instances_changed_is_announced);
	BOTH(a_draining_connector_sends_its_players_away_with_a_reason);
	return suite_run("edge_sessions", t);
}
