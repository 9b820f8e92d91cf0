/* What docs/lua.md promises to scripts, on real instances: changes that land together, and the cache beside them. */
#include <check.h>
#include <string.h>
#include "tests/support/scripted.h"
#include "tests/support/suite.h"

/* ---- all or nothing ------------------------------------------------------------------------------------------------------- */

#define CHANGE                                                           \
	"local function change(n)\n"                                     \
	"  db.key('role:1')\n"                                           \
	"  db.exec('UPDATE role SET gold = gold + ? WHERE id = 1', n)\n" \
	"  db.set(state.t, 'gold', (state.t.gold or 0) + n)\n"           \
	"end\n"                                                          \
	"function Remote.get() return { number = state.t.gold or -1 } end\n"

START_TEST(a_change_is_in_memory_and_in_the_log_when_it_is_answered)
{
	begin(CHANGE "function Remote.put(args) change(args.number) return { number = state.t.gold or -1 } end");
	ck_put("{\"number\":10}", "{\"number\":-1}"); /* until it ends the table shows the old value */
	ck_assert_ptr_nonnull(strstr(
		log_text(),
		"BEGIN;\n-- request=calls.boxRemote.put\nUPDATE role SET gold = gold + 10 WHERE id = 1;\nCOMMIT;\n"));
	ck_assert_ptr_nonnull(strstr(log_text(), "key=role:1 "));
	get(&reply);
	ck_says(&reply, "{\"number\":10}");
	ck_put("{\"number\":5}", "{\"number\":10}");
	get(&reply);
	ck_says(&reply, "{\"number\":15}");
}
END_TEST

START_TEST(what_raises_or_refuses_changes_nothing)
{
	begin(CHANGE "function Remote.put(args)\n"
		     "  change(10)\n"
		     "  if args.text == 'raise' then error('broken') end\n"
		     "  if args.text == 'wrong' then return { text = {} } end\n"
		     "  return nil, 'denied'\n"
		     "end");
	put("{\"text\":\"raise\"}", &reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_NONE);
	put("{\"text\":\"wrong\"}", &reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_NONE);
	put("{}", &reply);
	ck_reply(&reply, ERR_DENIED, EFFECT_NONE);
	get(&reply);
	ck_says(&reply, "{\"number\":-1}");
	ck_assert_ptr_null(strstr(log_text(), "gold"));
}
END_TEST

START_TEST(a_record_without_a_key_is_refused)
{
	begin("function Remote.get() return { number = state.t.gold or -1 } end\n"
	      "function Remote.put(args)\n"
	      "  db.exec('DELETE FROM bag WHERE role_id = 1')\n"
	      "  db.set(state.t, 'gold', 1)\n"
	      "  if args.flag then db.commit() end\n"
	      "  return {}\n"
	      "end");
	put("{}", &reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_NONE);
	put("{\"flag\":true}", &reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_NONE);
	get(&reply);
	ck_says(&reply, "{\"number\":-1}");
	ck_assert_ptr_null(strstr(log_text(), "bag"));
}
END_TEST

START_TEST(commit_lands_what_was_collected_so_far)
{
	begin(CHANGE "function Remote.put(args)\n"
		     "  change(1)\n"
		     "  local ok = db.commit()\n"
		     "  local seen = state.t.gold\n"
		     "  change(10)\n"
		     "  if args.flag then error('broken') end\n"
		     "  return { number = seen, flag = ok }\n"
		     "end");
	ck_put("{}", "{\"number\":1,\"flag\":true}");
	put("{\"flag\":true}", &reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_DONE); /* what was committed stays */
	get(&reply);
	ck_says(&reply, "{\"number\":12}");
}
END_TEST

START_TEST(nothing_may_wait_while_changes_are_collected)
{
	begin("local function why(fn, ...) local _, text = pcall(fn, ...) return tostring(text):match('nothing may wait') end\n"
	      "function Remote.get() return {} end\n"
	      "function Remote.put(args)\n"
	      "  if args.flag then db.key('role:1') db.exec('DELETE FROM bag WHERE role_id = 1')\n"
	      "  else db.set(state.t, 'a', 1) end\n"
	      "  return { words = { why(app.rpc.calls.boxRemote.get, 'k', {}), why(app.wait, {}), why(clock.sleep, 1),\n"
	      "    why(db.query, 'SELECT 1'), why(db.load, 'role:1', 'SELECT 1') } }\n"
	      "end");
	static const char five[] = "{\"words\":[\"nothing may wait\",\"nothing may wait\",\"nothing may wait\","
				   "\"nothing may wait\",\"nothing may wait\"]}";
	ck_put("{}", five);
	ck_put("{\"flag\":true}", five);
}
END_TEST

START_TEST(a_bad_statement_a_bad_value_or_a_bad_field_raises)
{
	begin("local function fails(fn, ...) return not pcall(fn, ...) and 'raised' or 'passed' end\n"
	      "function Remote.put()\n"
	      "  return { words = { fails(db.exec, 'DROP TABLE role'), fails(db.exec, 'DELETE FROM bag WHERE a = ?'),\n"
	      "    fails(db.exec, 'DELETE FROM bag WHERE a = ?', {}), fails(db.set, {}, nil, 1), fails(db.set, {}, 0/0, 1),\n"
	      "    fails(db.set, 5, 'a', 1), fails(db.key, ''), fails(db.key, ('x'):rep(81)) } }\n"
	      "end");
	ck_put("{}",
	       "{\"words\":[\"raised\",\"raised\",\"raised\",\"raised\",\"raised\",\"raised\",\"raised\",\"raised\"]}");
}
END_TEST

/* A change past the log would be in the database and nowhere else. */
START_TEST(a_read_that_would_change_something_raises)
{
	begin("local function why(fn, ...) return (select(2, pcall(fn, ...))):match('found \".*\"') or 'passed' end\n"
	      "function Remote.put()\n"
	      "  return { words = { why(db.query, 'DELETE FROM role'), why(db.query, ' update role SET gold = ?', 1),\n"
	      "    why(db.load, 'role:1', 'INSERT INTO role (id) VALUES (?)', 1), why(db.query, '(DROP TABLE role)'),\n"
	      "    why(db.query, 'selector') } }\n"
	      "end");
	ck_put("{}", "{\"words\":[\"found \\\"DELETE\\\"\",\"found \\\"update\\\"\",\"found \\\"INSERT\\\"\","
		     "\"found \\\"DROP\\\"\",\"found \\\"selector\\\"\"]}");
}
END_TEST

/* MariaDB refuses WITH before a change, MySQL 8 and TiDB carry it out. */
START_TEST(a_change_behind_named_queries_raises)
{
	begin("local function why(sql)\n"
	      "  local fine, says = pcall(db.query, sql)\n"
	      "  return fine and 'read' or says:match('found \"(.*)\"') or says:match('(.) at byte') or says\n"
	      "end\n"
	      "function Remote.put()\n"
	      "  return { words = { why('WITH a AS (SELECT 1) UPDATE role, a SET gold = 1'),\n"
	      "    why('with recursive a (n, m) AS (select 1, (2) union all select n + 1, m from a where n < (3)),'\n"
	      "      .. 'b AS(SELECT 1)delete from role'), why('WITH a AS (SELECT 1) (DELETE FROM role)'),\n"
	      "    why('(WITH a AS (SELECT 1)\\n  REPLACE INTO role SELECT n FROM a)'),\n"
	      "    why('WITH a AS (SELECT 1) (WITH b AS (SELECT 2) UPDATE role SET gold = 1)'),\n"
	      "    why('WITH a AS (SELECT n FROM a) CYCLE n RESTRICT UPDATE role SET gold = 1'),\n"
	      "    why('WITH a AS (SELECT 1) /* SELECT */ UPDATE role SET gold = 1'),\n"
	      "    why('WITH a AS (SELECT 1) -- SELECT\\n UPDATE role SET gold = 1'),\n"
	      "    why(\"WITH a AS (SELECT ')') SELECT 1) UPDATE role SET gold = 1\"),\n"
	      "    why('WITH `a) SELECT` AS (SELECT 1) UPDATE role SET gold = 1'),\n"
	      "    why('SELECT 1; UPDATE role SET gold = 1'), why('WITH a AS (SELECT 1'), why('WITH') } }\n"
	      "end");
	ck_put("{}", "{\"words\":[\"UPDATE\",\"delete\",\"DELETE\",\"REPLACE\",\"UPDATE\",\"UPDATE\",\"*\",\"-\","
		     "\"'\",\"UPDATE\",\";\",\"\",\"\"]}");
}
END_TEST

START_TEST(a_select_behind_named_queries_reads)
{
	begin("local function reads(sql) return (pcall(db.query, sql)) and 'read' or 'raised' end\n"
	      "function Remote.once()\n"
	      "  state.t.words = { reads('WITH a AS (SELECT 1) SELECT 1 FROM a'),\n"
	      "    reads('with recursive update_all (n) as (select 1 union all select n + 1 from update_all), b as (select 2)'\n"
	      "      .. '\\n(select n from update_all)'),\n"
	      "    reads('(WITH a AS (SELECT 1) (WITH b AS (SELECT 2) SELECT 1 FROM a, b) FOR UPDATE)'),\n"
	      "    reads('WITH a AS (SELECT n FROM a) CYCLE n RESTRICT SELECT n FROM a') }\n"
	      "end\n"
	      "function Remote.get() return { words = state.t.words } end");
	do { /* without a database each takes what is left of this time */
		start_on(CALLER, "calls.boxRemote.once", "{}", 300, &reply);
		reply_wait(&reply);
		get(&second);
	} while (!strcmp(second.body, "{}"));
	ck_says(&second, "{\"words\":[\"read\",\"read\",\"read\",\"read\"]}");
}
END_TEST

START_TEST(a_nil_that_is_set_forgets_the_field)
{
	begin("function Remote.get() return { text = state.t.name or 'nobody' } end\n"
	      "function Remote.put(args) db.set(state.t, 'name', args.text) return {} end");
	ck_put("{\"text\":\"a\"}", "{}");
	get(&reply);
	ck_says(&reply, "{\"text\":\"a\"}");
	ck_put("{}", "{}");
	get(&reply);
	ck_says(&reply, "{\"text\":\"nobody\"}");
}
END_TEST

START_TEST(sync_waits_for_what_others_have_recorded)
{
	begin(CHANGE "function Remote.put() db.relaxed() change(3) return {} end\n"
		     "function Remote.once() db.sync() return { number = state.t.gold or -1 } end");
	put("{}", &reply);
	ck_reply(&reply, 0, EFFECT_NONE);
	calls_ask(c.s[CALLER], "calls.boxRemote.once", "k", "{}", &reply);
	ck_says(&reply, "{\"number\":3}");
	ck_assert_uint_eq(sqllog_durable_lsn(c.s[CALLS]->sqllog), sqllog_lsn(c.s[CALLS]->sqllog));
}
END_TEST

/* ---- the cache --------------------------------------------------------------------------------------------------- */

START_TEST(the_cache_gives_back_what_was_put_as_a_copy)
{
	begin("function Remote.put(args)\n"
	      "  cache.put('text', 'a\\0b') cache.put('table', { n = { 1, 2.5, true }, o = json.array({}) })\n"
	      "  local t = cache.get('table')\n"
	      "  t.n[1] = 7\n"
	      "  return { words = { cache.get('text') == 'a\\0b' and 'same', json.encode(cache.get('table')),\n"
	      "    tostring(cache.get('nothing')) } }\n"
	      "end\n"
	      "function Remote.get() cache.delete('text') return { text = tostring(cache.get('text')) } end");
	ck_put("{}", "{\"words\":[\"same\",\"{\\\"n\\\":[1,2.5,true],\\\"o\\\":[]}\",\"nil\"]}");
	get(&reply);
	ck_says(&reply, "{\"text\":\"nil\"}");
}
END_TEST

START_TEST(a_key_or_a_value_that_cannot_be_cached_raises_and_a_large_one_is_refused)
{
	begin("local function try(...) local _, err = pcall(cache.put, ...) return tostring(err) end\n"
	      "function Remote.put()\n"
	      "  local loop = {} loop.loop = loop\n"
	      "  local ok, err = cache.put('k', string.rep('x', 1 << 21))\n"
	      "  return { words = { try('', 1), try('k'), try(('k'):rep(128), 1), try('k', loop), try('k', 1, -1), err } }\n"
	      "end");
	put("{}", &reply);
	ck_reply(&reply, 0, EFFECT_NONE);
	const char *expected[] = { "1 to 127 bytes", "cache.delete", "1 to 127 bytes",
				   "levels",         "seconds",      "bad_request" };
	for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
		ck_assert_msg(strstr(reply.body, expected[i]), "no \"%s\" in %s", expected[i], reply.body);
}
END_TEST

START_TEST(a_cached_value_goes_when_its_seconds_are_over)
{
	begin("function Remote.put()\n"
	      "  cache.put('k', 1, 0.02)\n"
	      "  local there = cache.get('k')\n"
	      "  clock.sleep(60)\n"
	      "  return { words = { tostring(there), tostring(cache.get('k')) } }\n"
	      "end");
	ck_put("{}", "{\"words\":[\"1\",\"nil\"]}");
}
END_TEST

START_TEST(what_is_cached_beside_a_change_takes_effect_with_it_or_not_at_all)
{
	begin(CHANGE "function Remote.put(args)\n"
		     "  cache.put('gold', 1)\n"
		     "  change(2)\n"
		     "  cache.put('gold', 2)\n"
		     "  local before = cache.get('gold')\n"
		     "  if args.flag then return nil, 'denied', tostring(before) end\n"
		     "  return { number = before }\n"
		     "end\n"
		     "function Remote.get() return { number = cache.get('gold') } end");
	put("{\"flag\":true}", &reply);
	ck_reply(&reply, ERR_DENIED, EFFECT_NONE);
	get(&reply);
	ck_says(&reply, "{\"number\":1}");
	ck_put("{}", "{\"number\":1}");
	get(&reply);
	ck_says(&reply, "{\"number\":2}");
}
END_TEST

START_TEST(a_delete_beside_a_change_takes_effect_with_it)
{
	begin(CHANGE "function Remote.put()\n"
		     "  cache.put('gold', 1)\n"
		     "  change(2)\n"
		     "  cache.delete('gold')\n"
		     "  return { number = cache.get('gold') }\n"
		     "end\n"
		     "function Remote.get() return { text = tostring(cache.get('gold')) } end");
	ck_put("{}", "{\"number\":1}");
	get(&reply);
	ck_says(&reply, "{\"text\":\"nil\"}");
}
END_TEST

START_TEST(a_read_without_a_database_is_unavailable_in_time)
{
	begin("function Remote.put()\n"
	      "  local rows, err = db.query('SELECT 1')\n"
	      "  state.t.words = { tostring(rows), err }\n"
	      "  return { words = state.t.words }\n"
	      "end\n"
	      "function Remote.get() return { words = state.t.words } end");
	struct rpc_call call = { .to = { .worker = -1, .key = span_of("k", 1) }, .timeout_ms = 500 };

	do { /* a machine that has much else to do may not even have begun it in its time */
		calls_call(c.s[CALLER], 0, "calls.boxRemote.put", call, &reply);
		reply_wait(&reply); /* in time, but on such a machine */
		get(&second);
	} while (!strcmp(second.body, "{}"));
	ck_says(&second, "{\"words\":[\"nil\",\"unavailable\"]}");
}
END_TEST

int main(void)
{
	TCase *one = scripted_case("one worker", setup_calls);

	tcase_add_test(one, a_change_is_in_memory_and_in_the_log_when_it_is_answered);
	tcase_add_test(one, what_raises_or_refuses_changes_nothing);
	tcase_add_test(one, a_record_without_a_key_is_refused);
	tcase_add_test(one, commit_lands_what_was_collected_so_far);
	tcase_add_test(one, nothing_may_wait_while_changes_are_collected);
	tcase_add_test(one, a_bad_statement_a_bad_value_or_a_bad_field_raises);
	tcase_add_test(one, a_read_that_would_change_something_raises);
	tcase_add_test(one, a_change_behind_named_queries_raises);
	tcase_add_test(one, a_select_behind_named_queries_reads);
	tcase_add_test(one, a_nil_that_is_set_forgets_the_field);
	tcase_add_test(one, sync_waits_for_what_others_have_recorded);
	tcase_add_test(one, the_cache_gives_back_what_was_put_as_a_copy);
	tcase_add_test(one, a_key_or_a_value_that_cannot_be_cached_raises_and_a_large_one_is_refused);
	tcase_add_test(one, a_cached_value_goes_when_its_seconds_are_over);
	tcase_add_test(one, what_is_cached_beside_a_change_takes_effect_with_it_or_not_at_all);
	tcase_add_test(one, a_delete_beside_a_change_takes_effect_with_it);
	tcase_add_test(one, a_read_without_a_database_is_unavailable_in_time);
	return suite_run("app_changes", one);
}
