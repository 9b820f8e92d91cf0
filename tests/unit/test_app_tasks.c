/* What docs/lua.md promises to scripts, on real instances: tasks, and those that wait for each other. */
#include <check.h>
#include <string.h>
#include "tests/support/scripted.h"
#include "tests/support/suite.h"

/* ---- tasks, waiting, waking -------------------------------------------------------------------------------------------- */

START_TEST(who_waits_goes_on_in_order_when_woken)
{
	begin("state.t.queue, state.t.order = {}, {}\n"
	      "function Remote.put(args)\n"
	      "  app.wait(state.t.queue)\n"
	      "  table.insert(state.t.order, args.text)\n"
	      "  return { words = state.t.order }\n"
	      "end\n"
	      "function Remote.get() local n = #state.t.queue app.wake(state.t.queue) return { number = n } end");
	start_put("{\"text\":\"a\"}", &reply);
	start_put("{\"text\":\"b\"}", &second);
	get(&third);
	ck_says(&third, "{\"number\":2}");
	reply_wait(&reply);
	reply_wait(&second);
	ck_says(&reply, "{\"words\":[\"a\"]}");
	ck_says(&second, "{\"words\":[\"a\",\"b\"]}");
	get(&third);
	ck_says(&third, "{\"number\":0}");
}
END_TEST

START_TEST(a_place_in_a_queue_wakes_once_whatever_scripts_do_with_it)
{
	begin("state.t.queue = {}\n"
	      "function Remote.put()\n"
	      "  app.wait(state.t.queue)\n"
	      "  app.wake(state.t.copy)\n"                          /* itself, while it runs */
	      "  local v = app.rpc.calls.boxRemote.once('k', {})\n" /* waits for something else now */
	      "  return v\n"
	      "end\n"
	      "function Remote.once() app.wake(state.t.copy) return { text = 'right' } end\n"
	      "function Remote.get()\n"
	      "  state.t.copy = { state.t.queue[1], 77, 'text', false }\n"
	      "  app.wake(state.t.queue) app.wake(state.t.copy)\n"
	      "  return {}\n"
	      "end");
	start_put("{}", &reply);
	get(&second);
	reply_wait(&reply);
	ck_says(&reply, "{\"text\":\"right\"}");
}
END_TEST

START_TEST(tasks_that_wake_each_other_for_ever_do_not_hold_up_the_worker)
{
	begin("local function turn(own, other) while true do app.wake(other) app.wait(own) end end\n"
	      "function Remote.put()\n"
	      "  local a, b = {}, {}\n"
	      "  app.task(turn, a, b) app.task(turn, b, a)\n"
	      "  return {}\n"
	      "end\n"
	      "function Remote.get() return { text = 'alive' } end");
	ck_put("{}", "{}");
	get(&reply);
	ck_says(&reply, "{\"text\":\"alive\"}");
}
END_TEST

START_TEST(a_long_chain_of_wakes_is_no_recursion)
{
	begin("function Remote.put()\n"
	      "  local last = {}\n"
	      "  local queue = last\n"
	      "  for _ = 1, 600 do\n"
	      "    local own, next_one = {}, queue\n"
	      "    app.task(function() app.wait(own) app.wake(next_one) end)\n"
	      "    queue = own\n"
	      "  end\n"
	      "  app.wake(queue)\n"
	      "  app.wait(last)\n"
	      "  return { text = 'at the end' }\n"
	      "end");
	ck_put("{}", "{\"text\":\"at the end\"}");
}
END_TEST

START_TEST(a_task_has_its_arguments_and_changes_of_its_own)
{
	begin("function Remote.put()\n"
	      "  app.task(function(t, a, b)\n"
	      "    db.key('role:1') db.exec('UPDATE role SET gold = ? WHERE id = 1', 5)\n"
	      "    db.set(t, 'sum', a) db.set(t, 'missing', tostring(b))\n"
	      "  end, state.t, 7, nil)\n"
	      "  app.task(function(...) state.t.all = select('#', ...) end, nil, 1, nil)\n"
	      "  return { number = state.t.sum, text = state.t.missing .. state.t.all }\n"
	      "end");
	ck_put("{}", "{\"text\":\"nil3\",\"number\":7}");
	until(strstr(log_text(), "SET gold = 5"));
}
END_TEST

START_TEST(a_timer_s_changes_belong_to_a_task)
{
	begin("function Remote.put(args)\n"
	      "  local queue, why = {}, nil\n"
	      "  clock.after(1, function()\n"
	      "    why = select(2, pcall(db.exec, 'DELETE FROM bag'))\n"
	      "    app.wake(queue)\n"
	      "  end)\n"
	      "  app.wait(queue)\n"
	      "  return { text = why }\n"
	      "end");
	put("{}", &reply);
	ck_assert_ptr_nonnull(strstr(reply.body, "use app.task(fn) in a timer"));
}
END_TEST

int main(void)
{
	TCase *one = scripted_case("one worker", setup_calls);

	tcase_add_test(one, who_waits_goes_on_in_order_when_woken);
	tcase_add_test(one, a_place_in_a_queue_wakes_once_whatever_scripts_do_with_it);
	tcase_add_test(one, tasks_that_wake_each_other_for_ever_do_not_hold_up_the_worker);
	tcase_add_test(one, a_long_chain_of_wakes_is_no_recursion);
	tcase_add_test(one, a_task_has_its_arguments_and_changes_of_its_own);
	tcase_add_test(one, a_timer_s_changes_belong_to_a_task);
	return suite_run("app_tasks", one);
}
