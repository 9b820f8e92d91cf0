/* Overload: what a method's limits (rpc.limits) do to those who are let in, to those who are not, and to others. */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/server.h"
#include "tests/support/scripted.h"
#include "tests/support/suite.h"

static struct reply all[200];

static void setup_limits(void)
{
	setup_with(1,
		   "rpc = { drain_s = 1, limits = { { method = 'calls.boxRemote.put', running = 2, queued = 3 } } },");
}

static void put_on(unsigned from, const char *json, uint32_t timeout_ms, struct reply *r)
{
	start_on(from, "calls.boxRemote.put", json, timeout_ms, r);
}

START_TEST(so_many_run_so_many_wait_and_more_are_busy_at_once)
{
	calls_both(&c);
	for (int i = 0; i < 7; i++)
		put_on(CALLER, "hold", 20000, &all[i]);
	for (int i = 5; i < 7; i++) {
		reply_wait(&all[i]);
		ck_assert_int_eq(all[i].err, ERR_BUSY);
		ck_assert_int_eq(all[i].effect, EFFECT_NONE);
	}
	ck_assert_uint_eq(calls_run(CALLS), 2);
	calls_ask(c.s[CALLER], "calls.boxRemote.get", "k", "{}", &reply); /* another method has no limit */
	ck_assert_int_eq(reply.err, 0);
	calls_release(&c, CALLS);
	until(calls_held(CALLS) == 2);
	calls_release(&c, CALLS);
	until(calls_held(CALLS) == 1);
	calls_release(&c, CALLS);
	for (int i = 0; i < 5; i++) {
		reply_wait(&all[i]);
		ck_assert_int_eq(all[i].err, 0);
	}
}
END_TEST

START_TEST(who_waits_and_is_given_up_never_runs)
{
	calls_both(&c);
	for (int i = 0; i < 2; i++)
		put_on(CALLER, "hold", 20000, &all[i]);
	until(calls_held(CALLS) == 2); /* the link stands: what follows is sent in time */
	put_on(CALLER, "{}", 20000, &all[2]);
	put_on(CALLER, "{}", 50, &all[3]);
	put_on(CALLER, "{}", 20000, &all[4]);
	reply_wait(&all[3]);
	ck_assert_int_eq(all[3].err, ERR_TIMEOUT);
	calls_cancel(c.s[CALLER], 0, all[2].handle);
	until(calls_figure(c.s[CALLS], "loquat_rpc_cancelled_total") == 2);
	calls_release(&c, CALLS);
	reply_wait(&all[4]);
	ck_assert_int_eq(all[4].err, 0);
	ck_assert_uint_eq(calls_run(CALLS), 3);
}
END_TEST

START_TEST(a_connection_that_floods_delays_itself)
{
	calls_both(&c);
	calls_begin(&c, OTHER, &calls_other);
	for (int i = 0; i < 2; i++)
		put_on(CALLER, "hold", 20000, &all[i]);
	until(calls_held(CALLS) == 2);
	for (int i = 2; i < 100; i++)
		put_on(CALLER, "hold", 20000, &all[i]);
	for (int i = 5; i < 100; i++) {
		reply_wait(&all[i]);
		ck_assert_int_eq(all[i].err, ERR_BUSY);
	}
	put_on(OTHER, "{}", 20000, &reply); /* behind three that were there before it */
	until(calls_figure(c.s[OTHER], "loquat_rpc_calls_in_flight") == 1);
	calls_ask(c.s[OTHER], "calls.boxRemote.get", "k", "{}", &all[100]); /* what it sent before has come */
	calls_release(&c, CALLS);
	reply_wait(&reply);
	ck_assert_int_eq(reply.err, 0);
	until(calls_held(CALLS) == 2); /* and two of the three are held now */
	calls_release(&c, CALLS);
	until(calls_held(CALLS) == 1);
	calls_release(&c, CALLS);
	for (int i = 0; i < 5; i++)
		reply_wait(&all[i]);
}
END_TEST

/* The number that follows these words in the server's /stats of put. */
static long figure(const char *words)
{
	static struct http_reply http;
	char *at;

	calls_http(&c, CALLS, "GET", "/stats", false, NULL, &http);
	at = strstr(http.body, "\"calls.boxRemote.put\"");
	at = at ? strstr(at, words) : NULL;
	return at ? strtol(at + strlen(words), NULL, 10) : -1;
}

enum { WAVE = 20 };
static struct {
	_Atomic unsigned fine, busy, ended;
} waves;

static void wave_ended(void *arg, const struct rpc_answer *a)
{
	(void)arg;
	waves.fine += !a->err;
	waves.busy += a->err == ERR_BUSY && a->effect == EFFECT_NONE;
	waves.ended++;
}

/* All at once, in one frame. */
static void send_wave(struct worker *w, void *unused)
{
	struct rpc_call call = { .to = { .worker = -1, .key = span_of("k", 1) },
				 .body = span_of("{}", 2),
				 .json = true,
				 .timeout_ms = 60000,
				 .on_answer = wave_ended };

	(void)unused;
	call.method = schema_method(w->service->schema, "calls.boxRemote.put", strlen("calls.boxRemote.put"));
	for (int i = 0; i < WAVE; i++)
		ck_assert_uint_ne(rpc_call(w, &call), 0);
}

/* Who is let in never has more than two beside and three before it, however many come: so its time is bounded too. */
START_TEST(in_waves_of_four_times_what_fits_the_places_are_used_and_the_rest_is_busy)
{
	enum { TIMES = 10, PLACES = 2 + 3 };

	calls_file(&c, "boxRemote.lua",
		   "local Remote = {}\nstate.now, state.most = state.now or 0, state.most or 0\n"
		   "function Remote.put()\n"
		   "  state.now = state.now + 1\n"
		   "  state.most = math.max(state.most, state.now)\n"
		   "  clock.sleep(20)\n"
		   "  state.now = state.now - 1\n"
		   "  return {}\n"
		   "end\n"
		   "function Remote.get() return { number = state.most } end\n"
		   "return Remote\n");
	calls_begin(&c, CALLS, &calls_lua);
	calls_begin(&c, CALLER, &calls_caller);
	calls_ask(c.s[CALLER], "calls.boxRemote.get", "k", "{}", &reply); /* the link stands */
	for (unsigned i = 1; i <= TIMES; i++) {
		calls_on(c.s[CALLER], 0, send_wave, NULL);
		until(waves.ended == i * WAVE);
		until(c.s[CALLS]->worker[0]->server->in_flight == 0);
	}
	ck_assert_uint_eq(waves.fine, TIMES * PLACES);
	ck_assert_uint_eq(waves.busy, TIMES * (WAVE - PLACES));
	ck_assert_int_eq(figure("\"count\":"), TIMES * PLACES);
	calls_ask(c.s[CALLER], "calls.boxRemote.get", "k", "{}", &reply);
	ck_assert_str_eq(reply.body, "{\"number\":2}");
}
END_TEST

static void note(int times)
{
	struct rpc_call call = { .to = { .worker = -1, .key = span_of("k", 1) }, .body = span_of("{}", 2) };

	for (int i = 0; i < times; i++)
		calls_notify(c.s[CALLER], 0, "calls.boxRemote.put", call);
}

/* Which of them have begun, says the script. */
static bool begun(const char *number)
{
	calls_ask(c.s[CALLER], "calls.boxRemote.get", "k", "{}", &reply);
	return !reply.err && strstr(reply.body, number);
}

START_TEST(notifications_have_the_same_limits_and_those_refused_are_counted)
{
	calls_file(&c, "boxRemote.lua",
		   "local Remote = {}\n"
		   "function Remote.put()\n"
		   "  state.n = (state.n or 0) + 1\n"
		   "  while not state.go do clock.sleep(10) end\n"
		   "end\n"
		   "function Remote.get(args) return { number = state.n or 0 } end\n"
		   "function Remote.peek() state.go = true return {} end\n"
		   "return Remote\n");
	calls_begin(&c, CALLS, &calls_lua);
	calls_begin(&c, CALLER, &calls_caller);
	note(9);
	until(calls_figure(c.s[CALLS], "loquat_rpc_refused_total") == 4);
	until(begun("\"number\":2"));
	calls_ask(c.s[CALLER], "calls.boxRemote.peek", "k", "{}", &reply);
	until(begun("\"number\":5"));
	until(c.s[CALLS]->worker[0]->server->in_flight == 0);
	note(5); /* all places are free again */
	until(begun("\"number\":10"));
	ck_assert_int_eq(calls_figure(c.s[CALLS], "loquat_rpc_refused_total"), 4);
}
END_TEST

static void notify_large(struct worker *w, void *arg)
{
	static char big[3 << 20];
	struct rpc_call call = { .to = { .worker = -1, .key = span_of("k", 1) }, .body = span_of(big, sizeof(big)) };

	call.method = schema_method(w->service->schema, "calls.boxRemote.peek", strlen("calls.boxRemote.peek"));
	for (int i = 0; i < *(int *)arg; i++)
		ck_assert_uint_eq(rpc_call(w, &call), 0);
}

/* 16 MB of output hold five of them; they are written at the end of the turn. */
START_TEST(a_notification_that_does_not_fit_into_the_links_queue_is_dropped_and_counted)
{
	int times = 7;

	calls_both(&c);
	calls_ask(c.s[CALLER], "calls.boxRemote.get", "k", "{}", &reply); /* the link stands */
	ck_assert_int_eq(reply.err, 0);
	calls_on(c.s[CALLER], 0, notify_large, &times);
	ck_assert_int_eq(calls_figure(c.s[CALLER], "loquat_rpc_dropped_total"), 2);
	calls_ask(c.s[CALLER], "calls.boxRemote.get", "k", "{}", &reply); /* and the link still stands */
	ck_assert_int_eq(reply.err, 0);
}
END_TEST

int main(void)
{
	TCase *t = scripted_case("limits", setup_limits);

	tcase_add_test(t, so_many_run_so_many_wait_and_more_are_busy_at_once);
	tcase_add_test(t, who_waits_and_is_given_up_never_runs);
	tcase_add_test(t, a_connection_that_floods_delays_itself);
	tcase_add_test(t, notifications_have_the_same_limits_and_those_refused_are_counted);
	tcase_add_test(t, a_notification_that_does_not_fit_into_the_links_queue_is_dropped_and_counted);
	tcase_add_test(t, in_waves_of_four_times_what_fits_the_places_are_used_and_the_rest_is_busy);
	return suite_run("rpc_limit", t);
}
