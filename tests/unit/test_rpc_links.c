/* The promises of rpc/rpc.h when links break, instances go and come back, and the route table changes. */
#include <check.h>
#include <stdio.h>
#include <string.h>
#include "rpc/peer.h"
#include "rpc/server.h"
#include "tests/support/calls.h"
#include "tests/support/suite.h"

static struct calls c;
static struct reply reply, second, third;

static void setup_one(void)
{
	calls_setup(&c, NULL);
}

static void setup_three(void)
{
	calls_setup(&c, &(struct calls_options){ .threads = 3 });
}

static void setup_two(void)
{
	calls_setup(&c, &(struct calls_options){ .threads = 3, .two = true });
}

static void teardown(void)
{
	calls_teardown(&c);
}

/* ---- when the link breaks -------------------------------------------------------------------------------------------- */

START_TEST(a_plain_call_whose_link_breaks_is_never_sent_again)
{
	calls_both(&c);
	calls_call(c.s[CALLER], 0, "calls.boxRemote.put", calls_within(10000, "hold"), &reply);
	until(calls_held(CALLS) == 1);
	calls_cut(c.s[CALLS]);
	reply_wait(&reply);
	ck_reply(&reply, ERR_UNAVAILABLE, EFFECT_UNKNOWN);
	calls_ask(c.s[CALLER], "calls.boxRemote.put", "k", "{}", &second);
	ck_reply(&second, 0, EFFECT_NONE);
	ck_assert_uint_eq(calls_run(CALLS), 2);
}
END_TEST

START_TEST(a_read_whose_link_breaks_is_sent_again_and_answered)
{
	calls_both(&c);
	calls_call(c.s[CALLER], 0, "calls.boxRemote.get", calls_within(10000, "hold"), &reply);
	until(calls_held(CALLS) == 1);
	calls_cut(c.s[CALLS]);
	until(calls_held(CALLS) == 2);
	calls_release(&c, CALLS);
	reply_wait(&reply);
	ck_reply(&reply, 0, EFFECT_NONE);
	ck_assert_int_eq(calls_figure(c.s[CALLER], "loquat_rpc_retries_total"), 1);
	until(calls_figure(c.s[CALLER], "loquat_rpc_calls_in_flight") == 0);
}
END_TEST

START_TEST(a_once_call_is_sent_again_under_the_same_key)
{
	calls_both(&c);
	struct rpc_call call = calls_within(10000, "hold");

	call.once = span_of("order-17", 8);
	calls_call(c.s[CALLER], 0, "calls.boxRemote.once", call, &reply);
	until(calls_held(CALLS) == 1);
	calls_cut(c.s[CALLS]);
	until(calls_held(CALLS) == 2);
	calls_release(&c, CALLS);
	reply_wait(&reply);
	ck_reply(&reply, 0, EFFECT_NONE);
	ck_assert_str_eq(calls_once_keys(CALLS), "order-17;order-17;");
}
END_TEST

START_TEST(once_calls_without_a_key_of_their_own_get_different_ones)
{
	char keys[2000], *at = keys, *first, *other;

	calls_both(&c);
	calls_ask(c.s[CALLER], "calls.boxRemote.once", "k", "{}", &reply);
	calls_ask(c.s[CALLER], "calls.boxRemote.once", "k", "{}", &reply);
	snprintf(keys, sizeof(keys), "%s", calls_once_keys(CALLS));
	first = strsep(&at, ";");
	other = strsep(&at, ";");
	ck_assert_str_ne(first, other);
	ck_assert_str_eq(first, "#1");
}
END_TEST

START_TEST(repeated_calls_keep_their_order)
{
	calls_both(&c);
	static struct reply all[8];

	for (int i = 0; i < 8; i++) {
		char key[8];
		struct rpc_call call = calls_within(10000, "hold");

		call.once = span_of(key, (size_t)snprintf(key, sizeof(key), "k%d", i));
		calls_call(c.s[CALLER], 0, "calls.boxRemote.once", call, &all[i]);
	}
	until(calls_held(CALLS) == 8);
	calls_cut(c.s[CALLS]);
	until(calls_held(CALLS) == 16);
	calls_release(&c, CALLS);
	for (int i = 0; i < 8; i++)
		reply_wait(&all[i]);
	ck_assert_str_eq(calls_once_keys(CALLS), "k0;k1;k2;k3;k4;k5;k6;k7;k0;k1;k2;k3;k4;k5;k6;k7;");
}
END_TEST

START_TEST(calls_go_on_after_the_other_side_was_started_anew)
{
	calls_both(&c);
	calls_ask(c.s[CALLER], "calls.boxRemote.put", "k", "{}", &reply);
	calls_end(&c, CALLS);
	calls_call(c.s[CALLER], 0, "calls.boxRemote.put", calls_by_key("k", "{}"), &reply);
	calls_begin(&c, CALLS, &calls_box);
	reply_wait(&reply);
	ck_reply(&reply, 0, EFFECT_NONE);
}
END_TEST

struct counted {
	_Atomic int up, down;
	_Atomic uint64_t epoch;
};
static struct counted counted;

static void count_peer(struct worker *w, const char *instance, uint64_t epoch, bool up)
{
	(void)w;
	if (strcmp(instance, "calls-1"))
		return;
	counted.epoch = epoch; /* first: who sees the count looks at it */
	(*(up ? &counted.up : &counted.down))++;
}

static void watch_peers(struct worker *w, void *arg)
{
	static const char *const keep[] = { "calls", NULL };

	(void)arg;
	counted.up = counted.down = 0;
	w->on_peer = count_peer;
	rpc_keep(w, keep);
}

struct links {
	unsigned ready;
	unsigned char nonce[16]; /* of the one to worker 1: each greeting has another */
};

static void look_at_links(struct worker *w, void *arg)
{
	struct links *l = arg;

	l->ready = 0;
	for (struct peer *p = w->client->peers; p; p = p->next) {
		if (p->state != PEER_READY || strcmp(p->instance, "calls-1") != 0)
			continue;
		l->ready++;
		if (p->remote_worker == 1)
			memcpy(l->nonce, p->nonce, sizeof(l->nonce));
	}
}

static struct links links(void)
{
	struct links l = { 0 };

	calls_on(c.s[CALLER], 0, look_at_links, &l);
	return l;
}

static bool link_made_anew(const struct links *before)
{
	struct links now = links();

	return now.ready == 3 && memcmp(now.nonce, before->nonce, sizeof(now.nonce)) != 0;
}

static void cut_one(struct worker *w, void *arg)
{
	(void)arg;
	rpc_server_close(w->server);
}

START_TEST(a_worker_is_told_once_that_an_instance_came_and_once_that_it_went)
{
	calls_both(&c);
	calls_on(c.s[CALLER], 0, watch_peers, NULL);
	until(links().ready == 3);
	ck_assert_int_eq(counted.up, 1);
	ck_assert_uint_eq(counted.epoch, c.s[CALLS]->epoch);
	struct links before = links();

	calls_on(c.s[CALLS], 1, cut_one, NULL); /* one link of three is not the instance */
	until(link_made_anew(&before));
	ck_assert_int_eq(counted.up, 1);
	ck_assert_int_eq(counted.down, 0);
	calls_end(&c, CALLS);
	until(counted.down == 1);
	calls_begin(&c, CALLS, &calls_box);
	until(counted.up == 2);
	ck_assert_uint_eq(counted.epoch, c.s[CALLS]->epoch);
}
END_TEST

/* ---- going away ---------------------------------------------------------------------------------------------------------- */

static void stop(unsigned which)
{
	service_stop(c.s[which]);
	until(atomic_load(&c.s[which]->state) != SERVICE_READY);
}

static void join(unsigned which)
{
	loop_join(c.s[which]->control);
	service_free(c.s[which]);
	c.s[which] = NULL;
}

static void release_named(void)
{
	struct rpc_call call = { .to = { .instance = "calls-1", .worker = 0 }, .body = span_of("release", 7) };

	calls_call(c.s[CALLER], 0, "calls.boxRemote.put", call, &third);
	reply_wait(&third);
}

START_TEST(an_instance_that_goes_finishes_what_is_under_way_and_new_calls_wait_for_its_return)
{
	calls_both(&c);
	calls_call(c.s[CALLER], 0, "calls.boxRemote.put", calls_within(10000, "hold"), &reply);
	until(calls_held(CALLS) == 1);
	stop(CALLS);
	until(c.s[CALLS]->worker[0]->server->draining && c.s[CALLS]->worker[0]->server->unacked == 0);
	calls_call(c.s[CALLER], 0, "calls.boxRemote.put", calls_within(10000, "{}"), &second);
	ck_assert_uint_eq(calls_run(CALLS), 1);
	release_named();
	reply_wait(&reply);
	ck_reply(&reply, 0, EFFECT_NONE);
	join(CALLS);
	ck_assert_uint_eq(calls_run(CALLS), 2);
	calls_begin(&c, CALLS, &calls_box);
	reply_wait(&second);
	ck_reply(&second, 0, EFFECT_NONE);
}
END_TEST

START_TEST(what_is_meant_for_this_very_instance_still_reaches_it_while_it_goes)
{
	calls_both(&c);
	calls_call(c.s[CALLER], 0, "calls.boxRemote.put", calls_within(10000, "hold"), &reply);
	until(calls_held(CALLS) == 1);
	stop(CALLS);
	until(c.s[CALLS]->worker[0]->server->draining && c.s[CALLS]->worker[0]->server->unacked == 0);
	release_named();
	ck_reply(&third, 0, EFFECT_NONE);
	reply_wait(&reply);
	join(CALLS);
}
END_TEST

/* One call after the other, by many keys, while the instance goes and comes back: none may fail. */
struct stream_of_calls {
	struct worker *w;
	struct rpc_call call;
	_Atomic unsigned ok, wrong;
	_Atomic bool end;
	_Atomic unsigned under_way;
};
static struct stream_of_calls flow;

static void flow_next(struct stream_of_calls *f)
{
	f->under_way++;
	rpc_call(f->w, &f->call);
}

static void flow_ended(void *arg, const struct rpc_answer *a)
{
	struct stream_of_calls *f = arg;

	(*(a->err ? &f->wrong : &f->ok))++;
	if (!f->end)
		flow_next(f);
	f->under_way--;
}

static void flow_start(struct worker *w, void *arg)
{
	struct stream_of_calls *f = arg;

	f->w = w;
	f->call = calls_within(10000, "{}");
	f->call.method = schema_method(w->service->schema, "calls.boxRemote.put", 19);
	f->call.on_answer = flow_ended;
	f->call.arg = f;
	for (int i = 0; i < 50; i++)
		flow_next(f);
}

START_TEST(no_call_fails_when_an_instance_is_stopped_and_started_again)
{
	calls_both(&c);
	flow = (struct stream_of_calls){ .ok = 0 };
	calls_on(c.s[CALLER], 0, flow_start, &flow);
	for (int i = 0; i < 3; i++) {
		unsigned before = flow.ok;

		until(flow.ok > before + 200 || flow.wrong);
		calls_end(&c, CALLS);
		calls_begin(&c, CALLS, &calls_box);
	}
	flow.end = true;
	until(!flow.under_way);
	ck_assert_uint_eq(flow.wrong, 0);
}
END_TEST

START_TEST(a_stop_waits_no_longer_than_rpc_drain_s)
{
	calls_teardown(&c);
	calls_setup(&c, &(struct calls_options){ .lua = "rpc = { drain_s = 0 }," });
	calls_both(&c);
	calls_call(c.s[CALLER], 0, "calls.boxRemote.put", calls_within(10000, "hold"), &reply);
	until(calls_held(CALLS) == 1);
	calls_end(&c, CALLS);
	reply_wait(&reply);
	ck_reply(&reply, ERR_UNAVAILABLE, EFFECT_UNKNOWN);
}
END_TEST

START_TEST(a_caller_that_stops_with_calls_under_way_leaves_nothing_behind)
{
	calls_both(&c);
	calls_call(c.s[CALLER], 0, "calls.boxRemote.put", calls_within(10000, "hold"), &reply);
	calls_call(c.s[CALLER], 0, "calls.boxRemote.once", calls_within(10000, "hold"), &second);
	until(calls_held(CALLS) == 2);
	calls_end(&c, CALLER);
	calls_release(&c, CALLS);
	ck_assert_uint_eq(flag_count(&reply.done), 0);
}
END_TEST

/* ---- the route table changes ------------------------------------------------------------------------------------------------ */

static char rows[2000];

static void table_is(unsigned version, bool first, bool second_, const char *extra)
{
	snprintf(rows, sizeof(rows), "%s %s %s", calls_row(&c, CALLER, ""), first ? calls_row(&c, CALLS, extra) : "",
		 second_ ? calls_row(&c, CALLS_2, "") : "");
	calls_routes(&c, version, rows);
	until(calls_routes_version(c.s[CALLER], 0) == version);
}

START_TEST(a_call_that_waits_goes_where_its_key_has_moved_to)
{
	calls_begin(&c, CALLS_2, &calls_box);
	calls_begin(&c, CALLER, &calls_caller);
	table_is(10, true, false, ""); /* calls-1, which does not run, owns everything */
	calls_call(c.s[CALLER], 0, "calls.boxRemote.put", calls_by_key("k", "{}"), &reply);
	table_is(11, false, true, "");
	reply_wait(&reply);
	ck_reply(&reply, 0, EFFECT_NONE);
	ck_assert_uint_eq(calls_run(CALLS_2), 1);
}
END_TEST

START_TEST(a_draining_instance_gets_no_new_keys)
{
	calls_begin(&c, CALLS_2, &calls_box);
	calls_both(&c);
	table_is(10, true, true, ", draining = true");
	for (int i = 0; i < 20; i++) {
		char key[16];

		snprintf(key, sizeof(key), "key%d", i);
		calls_ask(c.s[CALLER], "calls.boxRemote.put", key, "{}", &reply);
		ck_reply(&reply, 0, EFFECT_NONE);
	}
	ck_assert_uint_eq(calls_run(CALLS_2), 20);
}
END_TEST

START_TEST(calls_at_an_instance_that_left_the_table_end)
{
	calls_both(&c);
	calls_on(c.s[CALLER], 0, watch_peers, NULL);
	until(counted.up == 1);
	calls_call(c.s[CALLER], 0, "calls.boxRemote.put", calls_within(10000, "hold"), &reply);
	calls_call(c.s[CALLER], 0, "calls.boxRemote.once", calls_within(10000, "hold"), &second);
	calls_call(c.s[CALLER], 0, "calls.boxRemote.get", calls_within(10000, "hold"), &third);
	until(calls_held(CALLS) == 3);
	table_is(10, false, false, "");
	reply_wait(&reply);
	reply_wait(&second);
	reply_wait(&third);
	ck_reply(&reply, ERR_UNAVAILABLE, EFFECT_UNKNOWN);
	ck_reply(&second, ERR_UNKNOWN, EFFECT_UNKNOWN);
	ck_reply(&third, ERR_UNAVAILABLE, EFFECT_NONE);
	ck_assert_int_eq(counted.down, 1);
	table_is(11, true, false, "");
	calls_ask(c.s[CALLER], "calls.boxRemote.put", "k", "{}", &reply);
	ck_reply(&reply, 0, EFFECT_NONE);
}
END_TEST

START_TEST(a_table_that_does_not_check_or_is_older_changes_nothing)
{
	calls_both(&c);
	table_is(10, true, false, "");
	calls_routes(&c, 11, "{ id = \"calls-1\" },");
	until(calls_figure(c.s[CALLER], "loquat_routes_refused_total") >= 1);
	calls_routes(&c, 9, "");
	table_is(12, true, false, "");
	calls_ask(c.s[CALLER], "calls.boxRemote.put", "k", "{}", &reply);
	ck_reply(&reply, 0, EFFECT_NONE);
}
END_TEST

int main(void)
{
	TCase *one = tcase_create("one worker"), *three = tcase_create("three workers"),
	      *two = tcase_create("two instances");

	tcase_add_checked_fixture(one, setup_one, teardown);
	tcase_set_timeout(one, 60);
	tcase_add_checked_fixture(three, setup_three, teardown);
	tcase_set_timeout(three, 60);
	tcase_add_checked_fixture(two, setup_two, teardown);
	tcase_set_timeout(two, 60);
	tcase_add_test(three, a_worker_is_told_once_that_an_instance_came_and_once_that_it_went);
	tcase_add_test(three, no_call_fails_when_an_instance_is_stopped_and_started_again);
	tcase_add_test(two, a_draining_instance_gets_no_new_keys);
	tcase_add_test(one, a_plain_call_whose_link_breaks_is_never_sent_again);
	tcase_add_test(one, a_read_whose_link_breaks_is_sent_again_and_answered);
	tcase_add_test(one, a_once_call_is_sent_again_under_the_same_key);
	tcase_add_test(one, once_calls_without_a_key_of_their_own_get_different_ones);
	tcase_add_test(one, repeated_calls_keep_their_order);
	tcase_add_test(one, calls_go_on_after_the_other_side_was_started_anew);
	tcase_add_test(one, an_instance_that_goes_finishes_what_is_under_way_and_new_calls_wait_for_its_return);
	tcase_add_test(one, what_is_meant_for_this_very_instance_still_reaches_it_while_it_goes);
	tcase_add_test(one, no_call_fails_when_an_instance_is_stopped_and_started_again);
	tcase_add_test(one, a_stop_waits_no_longer_than_rpc_drain_s);
	tcase_add_test(one, a_caller_that_stops_with_calls_under_way_leaves_nothing_behind);
	tcase_add_test(one, a_call_that_waits_goes_where_its_key_has_moved_to);
	tcase_add_test(one, calls_at_an_instance_that_left_the_table_end);
	tcase_add_test(one, a_table_that_does_not_check_or_is_older_changes_nothing);
	return suite_run("rpc_links", one, three, two);
}
