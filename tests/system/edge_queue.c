/*
 * Who is let in when not all fit: the gate's queue and its tickets, two gates, guests without a token, pace.
 */
#include <check.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "tests/support/clock.h"
#include "tests/support/edgeplay.h"
#include "tests/support/suite.h"

START_TEST(who_does_not_fit_waits_and_is_admitted_when_somebody_leaves)
{
	struct wireclient gate, in[2], c;
	edge_begin(_i, "gate = { players_max = 2 },");
	enter_by_gate(&in[0], "{\"uid\":\"in0\"}");
	enter_by_gate(&in[1], "{\"uid\":\"in1\"}");
	const char *queued = query(&gate, 0, "{\"uid\":\"waits\"}");
	expect(queued, "\"code\":202");
	expect(queued, "\"position\":1,\"eta\":");
	wireclient_close(&in[0]);
	const char *admit = wireclient_push(&gate, "onAdmit");
	ck_assert_ptr_null(strstr(admit, "\"code\""));
	enter_admitted(&c, admit, "waits");
	wireclient_close(&c);
	wireclient_close(&in[1]);
	wireclient_close(&gate);
	edge_end();
}
END_TEST

START_TEST(a_ticket_keeps_the_place_of_who_comes_again)
{
	struct wireclient gate[3], in;
	char body[GIVE_BACK_MAX];
	edge_begin(_i, "gate = { players_max = 1 },");
	enter_by_gate(&in, "{\"uid\":\"in\"}");
	const char *first = query(&gate[0], 0, "{\"uid\":\"first\"}");
	give_back(body, first, "ticket");
	expect(query(&gate[1], 0, "{\"uid\":\"second\"}"), "\"position\":2");
	wireclient_close(&gate[0]);
	first = query(&gate[2], 0, body);
	expect(first, "\"code\":202");
	expect(first, "\"position\":1");
	expect(body, member(first, "ticket"));
	expect(wireclient_ask(&gate[2], QUERY, "{\"ticket\":\"AAAA\"}"), "\"error\":\"not_found\"");
	wireclient_close(&in);
	expect(wireclient_push(&gate[2], "onAdmit"), "\"uid\":\"first\"");
	expect(wireclient_push(&gate[1], "onQueue"), "\"position\":1");
	/* an admission is told again to who lost it */
	expect(wireclient_ask(&gate[2], QUERY, body), "\"code\":200");
	wireclient_close(&gate[1]);
	wireclient_close(&gate[2]);
	edge_end();
}
END_TEST

START_TEST(a_ticket_is_good_at_any_gate)
{
	struct wireclient gate[2], in;
	char body[GIVE_BACK_MAX];
	edgecluster_start(&cluster, &(struct edgecluster_options){ .threads = threads[_i],
								   .lua = "gate = { players_max = 1 },",
								   .two_gates = true });
	enter_by_gate(&in, "{\"uid\":\"in\"}");
	give_back(body, query(&gate[0], 0, "{\"uid\":\"moves\"}"), "ticket");
	wireclient_close(&gate[0]);
	expect(query(&gate[1], 1, body), "\"position\":1");
	/* and back again: the connection that had it is told */
	expect(query(&gate[0], 0, body), "\"position\":1");
	expect(wireclient_kick(&gate[1]), "taken at another gate");
	wireclient_close(&gate[1]);
	/* who is in has used it up */
	wireclient_close(&in);
	enter_admitted(&in, wireclient_push(&gate[0], "onAdmit"), "moves");
	wireclient_close(&gate[0]);
	for (int i = 0; i < 2; i++) {
		expect(query(&gate[0], i, body), "\"error\":\"not_found\"");
		wireclient_close(&gate[0]);
	}
	wireclient_close(&in);
	edge_end();
}
END_TEST

START_TEST(a_gate_that_starts_anew_believes_the_tickets_in_their_order)
{
	struct wireclient gate[4], in;
	char body[40], ticket[3][GIVE_BACK_MAX], uid[20];
	edge_begin(_i, "gate = { players_max = 1 },");
	enter_by_gate(&in, "{\"uid\":\"in\"}");
	for (int i = 0; i < 3; i++) {
		snprintf(body, sizeof(body), "{\"uid\":\"w%d\"}", i);
		give_back(ticket[i], query(&gate[i], 0, body), "ticket");
	}
	for (int i = 0; i < 3; i++)
		wireclient_close(&gate[i]);
	edgecluster_end(&cluster, &cluster.gate[0]);
	edgecluster_begin(&cluster, &cluster.gate[0], "gate-1");
	edgecluster_ready(cluster.gate[0]);
	expect(query(&gate[3], 0, "{\"uid\":\"late\"}"), "\"code\":202");
	for (int i = 2; i >= 0; i--)
		expect(query(&gate[i], 0, ticket[i]), "\"position\":1");
	for (int i = 0; i < 4; i++) {
		wireclient_close(&in);
		snprintf(uid, sizeof(uid), i < 3 ? "w%d" : "late", i);
		enter_admitted(&in, wireclient_push(&gate[i], "onAdmit"), uid);
		wireclient_close(&gate[i]);
	}
	/* a ticket of this start is used up */
	wireclient_close(&in);
	edge_end();
}
END_TEST

START_TEST(an_account_has_one_place_and_a_class_stands_before_those_below_it)
{
	struct wireclient gate[4], in;
	edge_begin(_i, "gate = { players_max = 1 },");
	enter_by_gate(&in, "{\"uid\":\"in\"}");
	expect(query(&gate[0], 0, "{\"uid\":\"guest\"}"), "\"position\":1");
	expect(query(&gate[1], 0, "{\"platform\":\"demo\",\"account\":\"x\",\"credential\":\"good\"}"),
	       "\"position\":2");
	/* the account comes again without its ticket: its place is its own */
	expect(query(&gate[2], 0, "{\"platform\":\"demo\",\"account\":\"x\",\"credential\":\"good\"}"),
	       "\"position\":2");
	expect(wireclient_kick(&gate[1]), "another connection has taken this place");
	expect(query(&gate[3], 0, "{\"platform\":\"demo\",\"account\":\"rank2\",\"credential\":\"good\"}"),
	       "\"position\":1");
	wireclient_close(&in);
	expect(wireclient_push(&gate[3], "onAdmit"), "\"uid\":\"demo:rank2\"");
	for (int i = 0; i < 4; i++)
		wireclient_close(&gate[i]);
	edge_end();
}
END_TEST

START_TEST(a_connector_takes_no_more_than_its_own_limit)
{
	struct wireclient in[4], gate;
	char body[40];
	edge_begin(_i, "gate = { connector_players_max = 2 },");
	for (int i = 0; i < 4; i++) {
		snprintf(body, sizeof(body), "{\"uid\":\"in%d\"}", i);
		enter_by_gate(&in[i], body);
	}
	expect(query(&gate, 0, "{\"uid\":\"waits\"}"), "\"code\":202");
	wireclient_close(&in[2]);
	expect(wireclient_push(&gate, "onAdmit"), "\"uid\":\"waits\"");
	wireclient_close(&gate);
	wireclient_close(&in[0]);
	wireclient_close(&in[1]);
	wireclient_close(&in[3]);
	edge_end();
}
END_TEST

START_TEST(reserved_places_are_for_who_resumes)
{
	struct wireclient in, gate, again;
	char body[GIVE_BACK_MAX];
	edge_begin(_i, "gate = { players_max = 2, reserved = 1 }, connector = { guests = false },");
	const char *way = query(&gate, 0, "{\"uid\":\"lost\"}");
	give_back(body, enter_admitted(&in, way, "lost"), "resume");
	wireclient_close(&gate);
	wireclient_close(&in);
	way = query(&gate, 0, "{\"uid\":\"next\"}");
	if (strstr(way, "\"code\":202")) /* the gate hears of the loss a moment later */
		way = wireclient_push(&gate, "onAdmit");
	enter_admitted(&in, way, "next");
	wireclient_close(&gate);
	expect(query(&gate, 0, "{\"uid\":\"waits\"}"), "\"code\":202");
	wireclient_ready(&again, cluster.connector_port[0], false);
	expect(wireclient_ask(&again, RESUME, body), "\"code\":200");
	wireclient_close(&again);
	wireclient_close(&in);
	wireclient_close(&gate);
	edge_end();
}
END_TEST

/* Looks at what has come without waiting for more. */
static bool admitted_by_now(struct wireclient *c)
{
	struct pollfd p = { .fd = c->fd, .events = POLLIN };

	while (c->in.len || poll(&p, 1, 0) == 1) {
		struct wiregot got = wireclient_next(c, true);
		if (!got.type)
			return false;
		if (got.type == POMELO_DATA && got.m.kind == POMELO_PUSH && strncmp(got.m.route, "onAdmit", 7) == 0)
			return true;
	}
	return false;
}

/* However the players are spread over the gates, not one more is let in. */
START_TEST(two_gates_together_let_in_no_more_than_one)
{
	enum { MAX = 10, PLAYERS = 40 };
	struct wireclient gate[PLAYERS];
	uint32_t id[PLAYERS];
	char body[40];
	unsigned in = 0, queued = 0;
	edgecluster_start(&cluster, &(struct edgecluster_options){ .threads = threads[_i],
								   .lua = "gate = { players_max = 10 },",
								   .two_gates = true });
	for (int i = 0; i < PLAYERS; i++) {
		wireclient_ready(&gate[i], cluster.gate_port[i % 2], false);
		snprintf(body, sizeof(body), "{\"uid\":\"p%d\"}", i);
		id[i] = wireclient_send(&gate[i], QUERY, body);
	}
	for (int i = 0; i < PLAYERS; i++) {
		const char *answer = wireclient_answer(&gate[i], id[i]);
		in += answer && strstr(answer, "\"code\":200");
		queued += answer && strstr(answer, "\"code\":202");
	}
	ck_assert_uint_eq(in + queued, PLAYERS);
	/* some are told later; one more than fits would then be told within a few of the gates' looks at the connectors */
	for (int late = 0, turn = 0; turn < 30 && late < 3000; turn += in >= MAX, late++) {
		for (int i = 0; i < PLAYERS; i++)
			in += admitted_by_now(&gate[i]);
		nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
	}
	ck_assert_uint_eq(in, MAX);
	for (int i = 0; i < PLAYERS; i++)
		wireclient_close(&gate[i]);
	edge_end();
}
END_TEST

START_TEST(guests_without_token_are_busy_when_the_cluster_is_full)
{
	struct wireclient in, c;
	edge_begin(_i, "gate = { players_max = 1 },");
	enter_by_gate(&in, "{\"uid\":\"in\"}");
	/* the gate's word reaches the connectors with its next question */
	for (bool busy = false; !busy;) {
		busy = strstr(enter_guest(&c, 0, "sam"), "\"error\":\"busy\"");
		wireclient_close(&c);
	}
	wireclient_close(&in);
	edge_end();
}
END_TEST

/* Until the gate has spoken to both connectors; how many tokens that took: their places are kept. */
static unsigned tokens_for_both(void)
{
	struct wireclient gate;
	bool seen[2] = { false, false };
	unsigned tokens = 0;

	for (; !seen[0] || !seen[1]; tokens++) {
		char body[40];
		snprintf(body, sizeof(body), "{\"uid\":\"token%u\"}", tokens);
		int port = atoi(member(query(&gate, 0, body), "port"));
		seen[port == cluster.connector_port[1]] = true;
		wireclient_close(&gate);
		nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL); /* each token takes a place */
	}
	return tokens;
}

START_TEST(guests_without_token_take_all_places_and_not_one_more)
{
	enum { MAX = 20, GUESTS = 60 };
	struct wireclient c[GUESTS];
	uint32_t id[GUESTS];
	char body[80];
	unsigned in = 0, busy = 0;
	edge_begin(_i, "gate = { players_max = 20 },");
	unsigned tokens = tokens_for_both();
	for (int i = 0; i < GUESTS; i++) {
		wireclient_ready(&c[i], cluster.connector_port[i % 3 == 0], false);
		snprintf(body, sizeof(body), "{\"username\":\"g%d\"}", i);
		id[i] = wireclient_send(&c[i], ENTER, body);
	}
	for (int i = 0; i < GUESTS; i++) {
		const char *answer = wireclient_answer(&c[i], id[i]);
		in += answer && strstr(answer, "\"code\":200");
		busy += answer && strstr(answer, "\"error\":\"busy\"");
	}
	ck_assert_msg(in <= MAX && in + tokens >= MAX, "%u guests of %u are in beside %u tokens", in, MAX, tokens);
	ck_assert_uint_eq(in + busy, GUESTS);
	for (int i = 0; i < GUESTS; i++)
		wireclient_close(&c[i]);
	edge_end();
}
END_TEST

static void open_from_elsewhere(struct wireclient *c, unsigned gate)
{
	wireclient_open_from(c, cluster.gate_port[gate], "127.0.0.9");
	wireclient_package(c, POMELO_HANDSHAKE, "{\"sys\":{}}", 10);
	ck_assert_int_eq(wireclient_next(c, false).type, POMELO_HANDSHAKE);
	wireclient_package(c, POMELO_ACK, NULL, 0);
}

START_TEST(a_ticket_that_a_gate_has_no_room_for_keeps_its_place_at_another)
{
	struct wireclient gate, full, asks, in;
	char body[GIVE_BACK_MAX];
	edgecluster_start(&cluster,
			  &(struct edgecluster_options){ .threads = threads[_i],
							 .lua = "gate = { players_max = 1, per_address_max = 2 },",
							 .two_gates = true });
	enter_by_gate(&in, "{\"uid\":\"in\"}");
	open_from_elsewhere(&gate, 0);
	give_back(body, wireclient_ask(&gate, QUERY, "{\"uid\":\"moves\"}"), "ticket");
	wireclient_close(&gate);
	expect(query(&full, 1, "{\"uid\":\"a\"}"), "\"code\":202");
	expect(wireclient_ask(&full, QUERY, "{\"uid\":\"b\"}"), "\"code\":202");
	expect(query(&asks, 1, body), "\"error\":\"busy\"");
	open_from_elsewhere(&gate, 0);
	expect(wireclient_ask(&gate, QUERY, body), "\"position\":1");
	wireclient_close(&gate);
	wireclient_close(&asks);
	wireclient_close(&full);
	wireclient_close(&in);
	edge_end();
}
END_TEST

/* Who takes admissions under many names and uses none of them keeps nobody else out. */
START_TEST(an_address_holds_no_more_places_than_connections)
{
	struct wireclient gate, other, in;
	char body[40], way[TOKEN_MAX + 200];
	edge_begin(_i, "gate = { per_address_max = 3, players_max = 10 },");
	snprintf(way, sizeof(way), "%s", query(&gate, 0, "{\"uid\":\"n0\"}"));
	expect(way, "\"code\":200");
	for (int i = 1; i < 3; i++) {
		snprintf(body, sizeof(body), "{\"uid\":\"n%d\"}", i);
		expect(wireclient_ask(&gate, QUERY, body), "\"code\":200");
	}
	expect(wireclient_ask(&gate, QUERY, "{\"uid\":\"n3\"}"), "\"error\":\"busy\"");
	open_from_elsewhere(&other, 0);
	expect(wireclient_ask(&other, QUERY, "{\"uid\":\"other\"}"), "\"code\":200");
	/* a place that was used is free again */
	enter_admitted(&in, way, "n0");
	const char *answer = "";
	for (int i = 0; i < 400 && !strstr(answer, "\"code\":200"); i++) {
		nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
		answer = wireclient_ask(&gate, QUERY, "{\"uid\":\"n3\"}");
	}
	expect(answer, "\"code\":200");
	expect(wireclient_ask(&gate, QUERY, "{\"uid\":\"n4\"}"), "\"error\":\"busy\"");
	wireclient_close(&in);
	wireclient_close(&other);
	wireclient_close(&gate);
	edge_end();
}
END_TEST

/* In how many seconds. */
static double twenty_admissions(int tries)
{
	struct wireclient gate[20];
	uint64_t from = clock_ms();
	const char *answer = NULL;
	char text[40];

	for (int i = 0; i < 20; i++) {
		snprintf(text, sizeof(text), "{\"uid\":\"p%d-%d\"}", tries, i);
		answer = query(&gate[i], 0, text);
		expect(answer, "\"code\":20");
	}
	snprintf(text, sizeof(text), "\"uid\":\"p%d-19\"", tries);
	if (strstr(answer, "\"code\":202"))
		expect(wireclient_push(&gate[19], "onAdmit"), text);
	double s = (double)(clock_ms() - from) / 1e3;
	for (int i = 0; i < 20; i++)
		wireclient_close(&gate[i]);
	return s;
}

START_TEST(admissions_keep_their_pace)
{
	edge_begin(_i, "gate = { admit_per_s = 10 },");
	double s = 20;
	for (int tries = 0; tries < 3 && s >= 8; tries++) { /* a machine with other work may be slow once */
		s = twenty_admissions(tries);
		ck_assert_msg(s > 1.5, "20 admissions at 10 per second took %.2f s", s);
	}
	ck_assert_msg(s < 8, "20 admissions at 10 per second took %.2f s", s);
	edge_end();
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("edge_queue");

	tcase_set_timeout(t, 30);
#define BOTH(test) tcase_add_loop_test(t, test, 0, 2)
	BOTH(who_does_not_fit_waits_and_is_admitted_when_somebody_leaves);
	BOTH(a_ticket_keeps_the_place_of_who_comes_again);
	BOTH(a_ticket_is_good_at_any_gate);
	BOTH(a_ticket_that_a_gate_has_no_room_for_keeps_its_place_at_another);
	BOTH(a_gate_that_starts_anew_believes_the_tickets_in_their_order);
	BOTH(an_account_has_one_place_and_a_class_stands_before_those_below_it);
	BOTH(a_connector_takes_no_more_than_its_own_limit);
	BOTH(reserved_places_are_for_who_resumes);
	BOTH(two_gates_together_let_in_no_more_than_one);
	BOTH(guests_without_token_are_busy_when_the_cluster_is_full);
	BOTH(guests_without_token_take_all_places_and_not_one_more);
	BOTH(an_address_holds_no_more_places_than_connections);
	BOTH(admissions_keep_their_pace);
	return suite_run("edge_queue", t);
}
