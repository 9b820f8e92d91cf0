/* Keys that move (rpc/moves.h), on real instances: who waits for a key that comes, and whose key is another's. */
#include <check.h>
#include <stdio.h>
#include <string.h>
#include "rpc/app_private.h"
#include "rpc/server.h"
#include "tests/support/calls.h"
#include "tests/support/suite.h"

static struct calls c;
static struct reply reply, second;

static int lua_init(struct service *s)
{
	return service_lua(s, "lua");
}

/* Without a database nothing comes by itself: take says when. */
static const struct service_def moving = {
	.name = "calls", .sqllog = true, .keys_move = true, .init_service = lua_init
};

static void setup(void)
{
	calls_setup(&c, &(struct calls_options){ .lua = "database = { host = '127.0.0.1', port = 1 }, "
							"sqllog = { linger_us = 0 }, rpc = { drain_s = 0 }," });
}

static void teardown(void)
{
	calls_teardown(&c);
}

static void begin(const char *on_moved)
{
	char init[300];

	snprintf(init, sizeof init, "local Init = {}\nfunction Init.on_moved() %s end\nreturn Init\n", on_moved);
	calls_file(&c, "init.lua", init);
	calls_file(
		&c, "boxRemote.lua",
		"state.n = state.n or 0\nlocal Remote = {}\n"
		"function Remote.put() state.n = state.n + 1 return { text = tostring(state.n) } end\nreturn Remote\n");
	calls_begin(&c, CALLS, &moving);
	calls_begin(&c, CALLER, &calls_caller);
}

static struct rpc_call within(uint32_t ms, const char *key)
{
	return (struct rpc_call){ .to = { .worker = -1, .key = span_of(key, strlen(key)) },
				  .body = span_of("{}", 2),
				  .timeout_ms = ms };
}

static void put(struct reply *r)
{
	calls_call(c.s[CALLER], 0, "calls.boxRemote.put", within(30000, "k"), r);
}

static void on_take(struct worker *w, void *arg)
{
	(void)arg;
	app_moves_take(w->app, w->turn);
}

static void take(void)
{
	calls_on(c.s[CALLS], 0, on_take, NULL);
}

static void until_waiting(int64_t n)
{
	until(calls_figure(c.s[CALLS], "loquat_keys_waiting") == n);
}

/* ---- who waits for a key ----------------------------------------------------------------------------------------- */

START_TEST(what_waited_for_its_key_runs_in_its_order_when_it_is_here_and_is_sent_to_nobody)
{
	begin("");
	calls_notify(c.s[CALLER], 0, "calls.boxRemote.put", within(30000, "k"));
	until_waiting(1);
	put(&reply);
	until_waiting(2);
	take();
	reply_wait(&reply);
	ck_reply(&reply, 0, EFFECT_NONE);
	ck_assert_str_eq(reply.body, "{\"text\":\"2\"}");
	ck_assert_int_eq(calls_figure(c.s[CALLS], "loquat_rpc_moved_total"), 0);
}
END_TEST

static void notify_many(struct worker *w, void *arg)
{
	struct rpc_call call = within(30000, "k");

	call.method = schema_method(w->service->schema, "calls.boxRemote.put", 19);
	call.json = true;
	for (unsigned n = *(unsigned *)arg; n; n--)
		rpc_call(w, &call);
}

START_TEST(so_many_wait_and_more_are_busy_and_counted)
{
	unsigned n = APP_DETAINED_MAX + 5;

	begin("");
	calls_on(c.s[CALLER], 0, notify_many, &n);
	until_waiting(APP_DETAINED_MAX);
	until(calls_figure(c.s[CALLS], "loquat_rpc_refused_total") == 5);
	put(&reply);
	reply_wait(&reply);
	ck_reply(&reply, ERR_BUSY, EFFECT_NONE);
	take();
	put(&second);
	reply_wait(&second);
	ck_assert_str_eq(second.body, "{\"text\":\"10001\"}");
}
END_TEST

START_TEST(a_notification_whose_key_does_not_come_in_time_is_counted)
{
	begin("");
	put(&reply);
	until_waiting(1); /* the link stands: what follows is sent in time */
	calls_notify(c.s[CALLER], 0, "calls.boxRemote.put", within(300, "k"));
	until(calls_figure(c.s[CALLS], "loquat_rpc_refused_total") == 1);
	until_waiting(1);
}
END_TEST

static void on_close(struct worker *w, void *arg)
{
	(void)arg;
	app_moves_close(w->app);
	rpc_server_close(w->server);
}

static void on_nothing(struct worker *w, void *arg)
{
	(void)w;
	(void)arg;
}

/* As a worker ends: what waits is freed with the app, before the links close. */
START_TEST(who_waits_when_the_app_closes_is_not_told_that_its_caller_has_gone)
{
	begin("");
	put(&reply);
	until_waiting(1);
	calls_on(c.s[CALLS], 0, on_close, NULL);
	until(calls_figure(c.s[CALLS], "loquat_rpc_cancelled_total") == 1);
	calls_on(c.s[CALLS], 0, on_nothing, NULL); /* its turn is over */
	ck_assert_int_eq(calls_figure(c.s[CALLS], "loquat_keys_waiting"), 1);
	reply_wait(&reply);
	ck_reply(&reply, ERR_UNAVAILABLE, EFFECT_UNKNOWN);
}
END_TEST

/* ---- on_moved ------------------------------------------------------------------------------------------------------ */

static void ck_fails(const char *on_moved)
{
	struct service *s;

	begin(on_moved);
	put(&reply);
	until_waiting(1);
	take();
	s = c.s[CALLS];
	until(atomic_load(&s->state) == SERVICE_STOPPED);
	loop_join(s->control);
	ck_assert_ptr_nonnull(service_failure(s));
	ck_assert_ptr_nonnull(strstr(service_failure(s), "on_moved"));
	service_free(s);
	c.s[CALLS] = NULL;
	reply_wait(&reply);
	ck_assert_int_lt(reply.err, 0);
}

START_TEST(an_instance_whose_on_moved_raises_takes_nothing_and_ends)
{
	ck_fails("error('no')");
}
END_TEST

START_TEST(on_moved_may_not_wait)
{
	ck_fails("app.wait({})");
}
END_TEST

/* ---- who calls for a key that is another's ------------------------------------------------------------------------ */

static _Atomic unsigned attempts, other_attempts; /* of key "stuck", and of others */

static void on_moved_key(void *arg, struct rpc_request *r)
{
	struct frame_request again = { .key = r->key, .uid = r->uid, .body = r->body };

	(void)arg;
	atomic_fetch_add(r->key.n == 5 ? &attempts : &other_attempts, 1);
	rpc_answer_moved(r->worker, r->handle, &again);
}

static int refuser_start(struct worker *w)
{
	rpc_handle(w, schema_method(w->service->schema, "calls.boxRemote.get", 19), on_moved_key, NULL);
	return 0;
}

static const struct service_def refuser = { .name = "calls", .worker_start = refuser_start };

static void begin_stuck(void)
{
	atomic_store(&attempts, 0);
	atomic_store(&other_attempts, 0);
	calls_begin(&c, CALLS, &refuser);
	calls_begin(&c, CALLER, &calls_caller);
	calls_call(c.s[CALLER], 0, "calls.boxRemote.get", within(30000, "stuck"), &reply);
	until(atomic_load(&attempts) > 0);
}

/* What its waits, each longer by 10 ms than the one before, to 200 ms, leave time for. */
static unsigned attempts_within(uint64_t ms)
{
	unsigned n = 1;

	for (uint64_t at = 10; at <= ms; at += 10 * (n < 20 ? n : 20))
		n++;
	return n;
}

START_TEST(a_call_whose_key_stays_away_is_sent_more_and_more_rarely_and_holds_up_nobody)
{
	uint64_t start_ns = env_mono_ns(c.env);

	begin_stuck();
	until(atomic_load(&attempts) >= 20);
	uint64_t middle_ns = env_mono_ns(c.env);
	unsigned before = atomic_load(&attempts);

	calls_call(c.s[CALLER], 0, "calls.boxRemote.get", within(30000, "k"), &second);
	until(atomic_load(&other_attempts) >= 12); /* some 800 ms, in which the first is sent four times */
	unsigned n = atomic_load(&attempts);
	uint64_t end_ns = env_mono_ns(c.env);

	ck_assert_uint_le(n - before,
			  2 + (end_ns - middle_ns) / 190000000); /* the waits are of 190 ms and more by now */
	ck_assert_uint_le(n, attempts_within((end_ns - start_ns) / 1000000 + 1));
	calls_cancel(c.s[CALLER], 0, reply.handle);
	calls_cancel(c.s[CALLER], 0, second.handle);
}
END_TEST

static void on_crowd(struct worker *w, void *arg)
{
	peer_find(w->client, "calls-1", 0)->pendings += *(int *)arg;
}

START_TEST(a_call_whose_key_has_moved_to_where_too_much_is_under_way_is_busy)
{
	int more = PEER_PENDING_MAX + 1, less = -more;

	begin_stuck();
	calls_on(c.s[CALLER], 0, on_crowd, &more);
	reply_wait(&reply);
	calls_on(c.s[CALLER], 0, on_crowd, &less);
	ck_reply(&reply, ERR_BUSY, EFFECT_NONE);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("keys that move");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, what_waited_for_its_key_runs_in_its_order_when_it_is_here_and_is_sent_to_nobody);
	tcase_add_test(t, so_many_wait_and_more_are_busy_and_counted);
	tcase_add_test(t, a_notification_whose_key_does_not_come_in_time_is_counted);
	tcase_add_test(t, who_waits_when_the_app_closes_is_not_told_that_its_caller_has_gone);
	tcase_add_test(t, an_instance_whose_on_moved_raises_takes_nothing_and_ends);
	tcase_add_test(t, on_moved_may_not_wait);
	tcase_add_test(t, a_call_whose_key_stays_away_is_sent_more_and_more_rarely_and_holds_up_nobody);
	tcase_add_test(t, a_call_whose_key_has_moved_to_where_too_much_is_under_way_is_busy);
	return suite_run("moves", t);
}
