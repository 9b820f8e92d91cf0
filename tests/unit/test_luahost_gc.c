/* The promises of common/luahost.h for the collector: bounded heaps, measured pieces at ends of turns. On a real worker. */
#include <check.h>
#include <string.h>
#include "common/err.h"
#include "tests/support/script.h"
#include "tests/support/suite.h"

static void host_with(unsigned gc, uint32_t texts)
{
	on_loop(loop, free_host, NULL);
	options.gc = gc;
	options.texts = texts;
	on_loop(loop, new_host, NULL);
}

/* Turn after turn leaves garbage: 200 times 100 KB. */
static const char turns[] = "for i = 1, 200 do local t = {} for k = 1, 1000 do t[k] = {k} end clock.sleep(0) end";

START_TEST(garbage_of_many_turns_is_collected_at_their_ends_and_measured)
{
	gives(turns);
	ck_assert_uint_gt(stats()->gc_cycles, 0);
	ck_assert_uint_gt(stats()->gc_pause_max_us, 0);
	ck_assert_uint_le(stats()->gc_pause_p99_us, stats()->gc_pause_max_us + stats()->gc_pause_max_us / 10 + 1);
	ck_assert_uint_lt(stats()->memory_peak_bytes, 12 << 20);
}
END_TEST

START_TEST(garbage_of_one_long_turn_does_not_pile_up)
{
	gives("for i = 1, 1000 do local t = {} for k = 1, 1000 do t[k] = {k} end end"); /* 75 MB */
	ck_assert_uint_lt(stats()->memory_peak_bytes, 40 << 20);
}
END_TEST

START_TEST(the_generational_way_collects_too)
{
	host_with(LUAHOST_GC_GENERATIONAL, 0);
	gives(turns);
	ck_assert(stats()->gc_generational);
	ck_assert_uint_gt(stats()->gc_pause_max_us, 0);
	ck_assert_uint_lt(stats()->memory_peak_bytes, 20 << 20);
}
END_TEST

START_TEST(auto_becomes_incremental_for_good_when_the_heap_is_large)
{
	host_with(LUAHOST_GC_AUTO, 0);
	gives("return 1");
	ck_assert(stats()->gc_generational);
	gives("state.list = {} for i = 1, 200 do for k = 1, 1000 do state.list[#state.list + 1] = {k} end clock.sleep(0) end");
	ck_assert(!stats()->gc_generational);
	ck_logged("lua.gc mode=incremental");
	gives("state.list = nil");
	gives(turns);
	ck_assert(!stats()->gc_generational);
}
END_TEST

static void collect(void *unused)
{
	(void)unused;
	lua_gc(luahost_state(host), LUA_GCCOLLECT);
	lua_gc(luahost_state(host), LUA_GCCOLLECT);
}

START_TEST(room_for_texts_is_made_at_once_and_stays)
{
	on_loop(loop, collect, NULL);
	uint64_t before = stats()->memory_bytes;
	host_with(LUAHOST_GC_INCREMENTAL, 100000);
	on_loop(loop, collect, NULL);
	on_loop(loop, collect, NULL);
	uint64_t room = stats()->memory_bytes - before; /* 131,072 pointers, and a quarter of so many texts */
	ck_assert_uint_gt(room, 131072 * sizeof(void *) + 32768 * 40);
	ck_assert_uint_lt(room, 131072 * sizeof(void *) + 32768 * 60);
	gives("state.t = {} for i = 1, 60000 do state.t[i] = 'text ' .. i end");
	ck_gives("return #state.t, state.t[777]", "60000 \"text 777\"");
}
END_TEST

int main(void)
{
	TCase *c = tcase_create("luahost_gc");
	tcase_set_timeout(c, 60);
	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, garbage_of_many_turns_is_collected_at_their_ends_and_measured);
	tcase_add_test(c, garbage_of_one_long_turn_does_not_pile_up);
	tcase_add_test(c, the_generational_way_collects_too);
	tcase_add_test(c, auto_becomes_incremental_for_good_when_the_heap_is_large);
	tcase_add_test(c, room_for_texts_is_made_at_once_and_stays);
	return suite_run("luahost_gc", c);
}
