/* The promises of common/luahost.h: tasks from C, and queues. Scripts run on a real worker. */
#include <check.h>
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>
#include "common/err.h"
#include "tests/support/script.h"
#include "tests/support/suite.h"

/* ---- tasks from C ---- */

static int push_values(lua_State *L, void *arg)
{
	lua_pushinteger(L, 42);
	lua_pushstring(L, arg);
	return 2;
}

static int push_nothing_but_an_error(lua_State *L, void *arg)
{
	(void)L, (void)arg;
	return ERR_TIMEOUT;
}

static int push_raise(lua_State *L, void *arg)
{
	(void)arg;
	return luaL_error(L, "while pushing");
}

ON_LOOP(a_waiting_task_gets_what_it_is_resumed_with)
{
	struct run x = { .ended = 0 };
	add_wait(NULL);
	load_go("local a, b = wait('in') return a, b, wait()");
	start(&x);
	ck_assert(x.task && x.task == waiting && luatask_alive(host, x.task) && !x.ended);
	ck_assert_uint_eq(host ? (luahost_stats(host, &stats_), stats_.tasks) : 0, 1);
	ck_assert(luatask_resume(host, waiting, push_values, "text"));
	ck_assert(!x.ended);
	ck_assert(luatask_resume(host, waiting, NULL, NULL));
	ck_assert_int_eq(x.ended, 1);
	ck_assert_str_eq(x.results, "42 \"text\"");
	ck_assert(!luatask_alive(host, x.task));
	ck_assert(!luatask_resume(host, x.task, NULL, NULL));
	ck_assert(!luatask_cancel(host, x.task));
}

ON_LOOP(an_error_resumes_as_nil_and_its_word)
{
	struct run x = { .ended = 0 };
	add_wait(NULL);
	load_go("return wait()");
	start(&x);
	luatask_resume(host, waiting, push_nothing_but_an_error, NULL);
	ck_assert_str_eq(x.results, "null \"timeout\"");
}

ON_LOOP(what_pushes_may_raise)
{
	struct run x = { .ended = 0 };
	add_wait(NULL);
	load_go("return wait()");
	start(&x);
	luatask_resume(host, waiting, push_raise, NULL);
	ck_assert_int_eq(x.err, ERR_FAILED);
	ck_assert_str_eq(x.message, "init.lua:1: while pushing");
}

static int push_refusal(lua_State *L, struct run *x)
{
	(void)L, (void)x;
	return ERR_BAD_REQUEST;
}

ON_LOOP(a_job_whose_push_refuses_ends_with_its_error)
{
	struct run x = { .push = push_refusal };
	load_go("return 1");
	start(&x);
	ck_assert_int_eq(x.ended, 1);
	ck_assert_int_eq(x.err, ERR_BAD_REQUEST);
	ck_assert_uint_eq(x.task, 0);
	luahost_stats(host, &stats_);
	ck_assert_uint_eq(stats_.failed, 0);
}

ON_LOOP(a_cancelled_task_closes_its_variables_and_ends_once)
{
	struct run x = { .ended = 0 };
	add_wait(NULL);
	load_go("local c <close> = setmetatable({}, {__close = function() state.closed = true end}) wait()");
	start(&x);
	ck_assert(luatask_cancel(host, x.task));
	ck_assert_int_eq(x.ended, 1);
	ck_assert_int_eq(x.err, ERR_UNAVAILABLE);
	load_go("return state.closed");
	struct run y = { .ended = 0 };
	start(&y);
	ck_assert_str_eq(y.results, "true");
}

ON_LOOP(an_aborted_task_puts_in_order_what_it_holds_and_waits_no_more)
{
	struct run x = { .ended = 0 };
	add_wait(NULL);
	load_go("local ok, why = pcall(wait)\n"
		"local again, the_same = pcall(wait)\n"
		"return ok, why, again, why == the_same");
	start(&x);
	ck_assert(luatask_abort(host, x.task));
	ck_assert_int_eq(x.ended, 1);
	ck_assert_int_eq(x.err, 0); /* it has caught it */
	ck_assert_str_eq(x.results, "false \"cancelled: nobody waits for this any more\" false true");
	ck_assert(!luatask_abort(host, x.task));
	ck_assert(!luatask_resume(host, waiting, NULL, NULL));
}

ON_LOOP(an_aborted_task_that_lets_it_pass_ends_unavailable_and_is_no_failure)
{
	struct run x = { .ended = 0 };
	add_wait(NULL);
	load_go("wait() return 1");
	start(&x);
	ck_assert(luatask_abort(host, x.task));
	ck_assert_int_eq(x.err, ERR_UNAVAILABLE);
	luahost_stats(host, &stats_);
	ck_assert_uint_eq(stats_.failed, 0);
	ck_assert_uint_eq(stats_.cancelled, 1);
	struct run y = { .ended = 0 };
	load_go("wait() return 2");
	start(&y);
	luatask_resume(host, waiting, NULL, NULL);
	ck_assert_str_eq(y.results, "2");
}

ON_LOOP(coroutines_are_pooled)
{
	struct run x[50] = { { .ended = 0 } };
	uint64_t first = 0;
	add_wait(NULL);
	load_go("wait()");
	for (int round = 0; round < 3; round++) {
		uint64_t before = first;
		for (int i = 0; i < 50; i++) {
			memset(&x[i], 0, sizeof x[i]);
			start(&x[i]);
			if (!i)
				first = x[i].task;
		}
		ck_assert(!luatask_alive(host, before)); /* though another has its place */
		for (int i = 0; i < 50; i++)
			luatask_resume(host, x[i].task, NULL, NULL);
		ck_assert(!luatask_alive(host, first));
	}
	luahost_stats(host, &stats_);
	ck_assert_uint_eq(stats_.coroutines, 50);
	ck_assert_uint_eq(stats_.started, 150);
	ck_assert_uint_eq(stats_.tasks, 0);
}

ON_LOOP(no_more_coroutines_are_kept_than_1024)
{
	enum { N = 1500 };
	static struct run x[N];
	add_wait(NULL);
	load_go("wait()");
	for (int i = 0; i < N; i++)
		start(&x[i]);
	luahost_stats(host, &stats_);
	ck_assert_uint_eq(stats_.tasks, N);
	for (int i = 0; i < N; i++)
		ck_assert(luatask_resume(host, x[i].task, NULL, NULL));
	luahost_stats(host, &stats_);
	ck_assert_uint_eq(stats_.tasks, 0);
	ck_assert_uint_eq(stats_.coroutines, 1024);
	for (int i = 0; i < N; i++)
		start(&x[i]);
	luahost_stats(host, &stats_);
	ck_assert_uint_eq(stats_.coroutines, N);
}

static struct run late[3];

/* While the host ends: another goes on and ends well, a third would begin. */
static void end_others(struct luajob *job, const struct luaresult *r)
{
	keep(job, r);
	luatask_resume(host, late[1].task, NULL, NULL);
	start(&late[2]);
}

ON_LOOP(nothing_begins_while_the_host_ends)
{
	memset(late, 0, sizeof late);
	add_wait(NULL);
	load_go("wait()");
	start(&late[0]);
	start(&late[1]);
	late[0].job.done = end_others;
	free_host(NULL);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(late[i].ended, 1);
	ck_assert_int_eq(late[0].err, ERR_UNAVAILABLE);
	ck_assert_int_eq(late[1].err, 0);
	ck_assert_int_eq(late[2].err, ERR_UNAVAILABLE);
	ck_assert_str_eq(late[2].message, "closing"); /* and not "cancelled": it never began */
	new_host(NULL);
}

ON_LOOP(more_tasks_than_allowed_are_refused)
{
	free_host(NULL);
	options.tasks_max = 2;
	new_host(NULL);
	struct run x[3] = { { .ended = 0 } };
	add_wait(NULL);
	load_go("wait()");
	for (int i = 0; i < 3; i++)
		start(&x[i]);
	ck_assert_int_eq(x[2].ended, 1);
	ck_assert_int_eq(x[2].err, ERR_BUSY);
	ck_assert(!x[0].ended && !x[1].ended);
	free_host(NULL);
	ck_assert(x[0].ended == 1 && x[0].err == ERR_UNAVAILABLE && x[1].ended == 1);
	new_host(NULL);
}

static struct run outer, inner;
static uint64_t handle; /* outer's */

static int l_nest(lua_State *L)
{
	ck_assert_ptr_eq(luahost_job(L), &outer.job);
	handle = luahost_task(L);
	ck_assert(luatask_alive(host, handle) && luajob_task(&outer.job) == handle);
	inner = (struct run){ .ended = 0 };
	start(&inner);
	ck_assert_ptr_eq(luahost_job(L), &outer.job);
	ck_assert_ptr_eq(luahost_user(luahost_of(L)), options.user);
	return 0;
}

static int open_nest(lua_State *L)
{
	lua_pushcfunction(L, l_nest);
	return 1;
}

ON_LOOP(a_task_may_start_another)
{
	ck_assert_ptr_null(luahost_job(luahost_state(host)));
	luahost_library(host, "nest", open_nest);
	load_go("if not state.once then state.once = true nest() return 'outer' end return 'inner'");
	outer = (struct run){ .ended = 0 };
	start(&outer);
	ck_assert_str_eq(outer.results, "\"outer\"");
	ck_assert_str_eq(inner.results, "\"inner\"");
}

ON_LOOP(a_task_that_has_waited_may_start_another_in_what_is_free)
{
	struct run other = { .ended = 0 };
	free_host(NULL);
	options.tasks_max = 2;
	new_host(NULL);
	add_wait(NULL);
	luahost_library(host, "nest", open_nest);
	load_go("local n = (state.n or 0) + 1 state.n = n if n == 2 then wait() end "
		"if n == 2 or n == 5 then nest() end return n");
	start(&other);
	outer = (struct run){ .ended = 0 };
	start(&outer);
	start(&other);
	ck_assert(luatask_resume(host, waiting, NULL, NULL));
	ck_assert_int_eq(inner.err, 0);
	ck_assert_str_eq(inner.results, "4");
	ck_assert_str_eq(outer.results, "2");
	start(&outer);
	ck_assert_str_eq(inner.results, "6");
	ck_assert_str_eq(outer.results, "5");
	ck_assert(!luatask_alive(host, handle)); /* it never waited, and its slot serves others now */
}

/* While nothing else runs, and the coroutine of this one could be mistaken for a free one. */
static void start_and_keep(struct luajob *job, const struct luaresult *r)
{
	inner = (struct run){ .ended = 0 };
	start(&inner);
	keep(job, r);
}

ON_LOOP(the_results_of_a_job_outlive_what_its_end_starts)
{
	load_go("state.n = (state.n or 0) + 1 return state.n, 'of its own'");
	for (int n = 1; n <= 5; n += 2) {
		char own[40];
		snprintf(own, sizeof own, "%d \"of its own\"", n);
		outer = (struct run){ .job = { .name = "test.go", .push = push_run, .done = start_and_keep } };
		ck_assert_uint_eq(luatask_start(host, &outer.job), 0);
		ck_assert_str_eq(outer.results, own);
	}
	ck_assert_str_eq(inner.results, "6 \"of its own\"");
	luahost_stats(host, &stats_);
	ck_assert_uint_eq(stats_.coroutines, 2);
	ck_assert_uint_eq(stats_.started, 6);
}

/* ---- queues ---- */

static struct run seq[20];
static struct luaqueue queue;
static char order[200];

static int push_number(lua_State *L, struct run *x)
{
	luahost_push_hook(L, "go");
	lua_pushinteger(L, x - seq);
	return 1;
}

static void keep_order(struct luajob *job, const struct luaresult *r)
{
	struct run *x = (struct run *)job;
	keep(job, r);
	snprintf(order + strlen(order), sizeof order - strlen(order), "%d%s ", (int)(x - seq), x->err ? "!" : "");
	if (x->results[0] == '"')
		luaqueue_close(&queue), memset(&queue, 0xee, sizeof queue);
}

static int queued(int i)
{
	seq[i] = (struct run){ .push = push_number };
	seq[i].job = (struct luajob){ .name = "queued", .push = push_run, .done = keep_order };
	return luaqueue_push(&queue, &seq[i].job);
}

static void new_queue(const char *body)
{
	struct buf text = BUF_INIT;
	add_wait(NULL);
	buf_addf(&text, "return {go = function(i) %s end}", body);
	load(SRC("init", buf_cstr(&text)));
	buf_release(&text);
	luaqueue_init(&queue, host, 4);
	order[0] = 0;
}

ON_LOOP(a_queue_runs_one_after_the_other_in_order)
{
	new_queue("if i % 2 == 0 then wait() end return i");
	ck_assert(luaqueue_idle(&queue));
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(queued(i), 0);
	ck_assert_str_eq(order, "");
	ck_assert(!luaqueue_idle(&queue));
	luatask_resume(host, waiting, NULL, NULL);
	ck_assert_str_eq(order, "0 1 ");
	luatask_resume(host, waiting, NULL, NULL);
	ck_assert_str_eq(order, "0 1 2 3 ");
	ck_assert(luaqueue_idle(&queue));
	ck_assert_int_eq(queued(5), 0);
	ck_assert_str_eq(order, "0 1 2 3 5 ");
}

ON_LOOP(a_failed_job_does_not_stop_its_queue)
{
	new_queue("if i == 0 then wait() error('x') end if i == 1 then error('y') end return i");
	for (int i = 0; i < 3; i++)
		queued(i);
	luatask_resume(host, waiting, NULL, NULL);
	ck_assert_str_eq(order, "0! 1! 2 ");
}

ON_LOOP(a_full_queue_refuses)
{
	new_queue("wait()");
	for (int i = 0; i < 5; i++)
		ck_assert_int_eq(queued(i), 0);
	ck_assert_int_eq(queued(6), ERR_BUSY);
	ck_assert_int_eq(seq[6].ended, 0);
	luaqueue_close(&queue);
	ck_assert_str_eq(order, "0! 1! 2! 3! 4! ");
	ck_assert_int_eq(queued(6), ERR_CLOSED);
}

ON_LOOP(a_queue_may_go_inside_a_jobs_end)
{
	new_queue("if i == 1 then wait() return 'close' end return i");
	for (int i = 0; i < 4; i++)
		queued(i);
	luatask_resume(host, waiting, NULL, NULL);
	ck_assert_str_eq(order, "0 1 2! 3! ");
	new_queue("return 'close'");
	queued(0);
	ck_assert_str_eq(order, "0 ");
}

static void push_again(struct luajob *job, const struct luaresult *r)
{
	int i = (int)((struct run *)job - seq);
	keep(job, r);
	if (i < 18) {
		seq[i + 1] = (struct run){ .push = push_number };
		seq[i + 1].job = (struct luajob){ .name = "queued", .push = push_run, .done = push_again };
		ck_assert_int_eq(luaqueue_push(&queue, &seq[i + 1].job), 0);
	}
}

ON_LOOP(a_job_is_taken_out_of_its_queue)
{
	new_queue("wait() return i");
	queued(0);
	queued(1);
	queued(2);
	ck_assert(luaqueue_remove(&queue, &seq[2].job));
	ck_assert(luaqueue_remove(&queue, &seq[1].job));
	ck_assert(!luaqueue_remove(&queue, &seq[1].job));
	ck_assert(!luaqueue_remove(&queue, &seq[0].job));
	for (int i = 1; i < 5; i++) /* their places are free again */
		ck_assert_int_eq(queued(i), 0);
	ck_assert_int_eq(queued(5), ERR_BUSY);
	for (int i = 1; i < 5; i++)
		ck_assert(luaqueue_remove(&queue, &seq[i].job));
	luatask_resume(host, waiting, NULL, NULL);
	ck_assert_int_eq(seq[0].ended + seq[1].ended + seq[2].ended, 1);
	ck_assert(luaqueue_idle(&queue));
}

ON_LOOP(a_jobs_end_may_push_the_next)
{
	new_queue("return i");
	seq[0] = (struct run){ .push = push_number };
	seq[0].job = (struct luajob){ .name = "queued", .push = push_run, .done = push_again };
	luaqueue_push(&queue, &seq[0].job);
	ck_assert_int_eq(seq[18].ended, 1);
}

START_TEST(a_wait_counts_from_its_beginning_however_long_the_script_computed_before)
{
	ck_gives("local from = clock.now_ms() while clock.now_ms() - from < 60 do end "
		 "local at = clock.now_ms() clock.sleep(30) return clock.now_ms() - at >= 30",
		 "true");
}
END_TEST

int main(void)
{
	TCase *c = tcase_create("luahost_task");
	tcase_set_timeout(c, 60);
	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, a_waiting_task_gets_what_it_is_resumed_with);
	tcase_add_test(c, an_error_resumes_as_nil_and_its_word);
	tcase_add_test(c, what_pushes_may_raise);
	tcase_add_test(c, a_job_whose_push_refuses_ends_with_its_error);
	tcase_add_test(c, a_cancelled_task_closes_its_variables_and_ends_once);
	tcase_add_test(c, an_aborted_task_puts_in_order_what_it_holds_and_waits_no_more);
	tcase_add_test(c, an_aborted_task_that_lets_it_pass_ends_unavailable_and_is_no_failure);
	tcase_add_test(c, coroutines_are_pooled);
	tcase_add_test(c, no_more_coroutines_are_kept_than_1024);
	tcase_add_test(c, nothing_begins_while_the_host_ends);
	tcase_add_test(c, more_tasks_than_allowed_are_refused);
	tcase_add_test(c, a_task_may_start_another);
	tcase_add_test(c, a_task_that_has_waited_may_start_another_in_what_is_free);
	tcase_add_test(c, the_results_of_a_job_outlive_what_its_end_starts);
	tcase_add_test(c, a_queue_runs_one_after_the_other_in_order);
	tcase_add_test(c, a_failed_job_does_not_stop_its_queue);
	tcase_add_test(c, a_full_queue_refuses);
	tcase_add_test(c, a_queue_may_go_inside_a_jobs_end);
	tcase_add_test(c, a_job_is_taken_out_of_its_queue);
	tcase_add_test(c, a_jobs_end_may_push_the_next);
	tcase_add_test(c, a_wait_counts_from_its_beginning_however_long_the_script_computed_before);
	return suite_run("luahost_task", c);
}
