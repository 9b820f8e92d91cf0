/* The promises of scene/view.h. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "scene/view.h"
#include "tests/support/suite.h"

static struct view *v;
static json_t *last; /* what was told last */
static uint64_t last_sid;
static char last_connector[VIEW_CONNECTOR_MAX];

static void set_up(void)
{
	v = view_new(&(struct view_options){ .width = 1000, .height = 1000, .reach = 100, .players_max = 3 });
	last = NULL;
}

static void tear_down(void)
{
	json_decref(last);
	view_free(v);
}

static void add(int64_t id, enum view_kind kind, double x, double y)
{
	struct view_thing t = {
		.id = id, .kind = kind, .name = "it", .name_n = 2, .x = x, .y = y, .hp = 100, .hp_max = 100
	};

	ck_assert_int_eq(view_add(v, &t), 0);
}

static void add_watcher(int64_t id, double x, double y)
{
	add(id, VIEW_PLAYER, x, y);
	ck_assert(view_watch(v, id, "connector-1", (uint64_t)id + 1000));
}

static void keep(void *arg, const char *connector, uint64_t sid, const char *text, size_t n)
{
	(void)arg;
	json_decref(last);
	last = json_loadb(text, n, 0, NULL);
	ck_assert_msg(last != NULL, "no JSON: %.*s", (int)n, text);
	last_sid = sid;
	snprintf(last_connector, sizeof last_connector, "%s", connector);
}

static unsigned tell(void)
{
	json_decref(last);
	last = NULL;
	return view_tell(v, 1, 7, keep, NULL);
}

/* "1 2" of a list of things or numbers, "" if there is none */
static const char *ids_of(const char *list)
{
	static char text[256];
	json_t *all = json_object_get(last, list), *one;
	size_t i;

	*text = '\0';
	json_array_foreach(all, i, one)
	{
		json_t *id = json_is_object(one) ? json_object_get(one, "id") : one;

		snprintf(text + strlen(text), sizeof text - strlen(text), "%s%lld", i ? " " : "",
			 (long long)json_integer_value(id));
	}
	return text;
}

START_TEST(who_comes_into_view_is_told_once_and_in_order)
{
	add_watcher(1, 500, 500);
	add(9, VIEW_PLAYER, 510, 500);
	add(4, VIEW_MONSTER, 500, 520);
	add(5, VIEW_MONSTER, 500, 601);
	ck_assert_uint_eq(tell(), 1);
	ck_assert_str_eq(ids_of("enter"), "4 9");
	ck_assert_int_eq(json_integer_value(json_object_get(last, "tick")), 7);
	ck_assert_uint_eq(json_object_size(last), 2);
	ck_assert_uint_eq(last_sid, 1001);
	ck_assert_str_eq(last_connector, "connector-1");
	ck_assert_uint_eq(tell(), 0);
}
END_TEST

START_TEST(a_thing_that_enters_is_told_whole)
{
	struct view_thing t = { .id = 2,
				.kind = VIEW_DROP,
				.name = "a \"b\"",
				.name_n = 5,
				.x = 500.25,
				.y = 1.0 / 3,
				.hp = 1,
				.hp_max = 2 };

	add_watcher(1, 500, 0);
	ck_assert_int_eq(view_add(v, &t), 0);
	tell();
	json_t *e = json_array_get(json_object_get(last, "enter"), 0);

	ck_assert_str_eq(json_string_value(json_object_get(e, "kind")), "drop");
	ck_assert_str_eq(json_string_value(json_object_get(e, "name")), "a \"b\"");
	ck_assert(json_real_value(json_object_get(e, "x")) == 500.25);
	ck_assert(json_real_value(json_object_get(e, "y")) == 1.0 / 3);
	ck_assert_int_eq(json_integer_value(json_object_get(e, "hp")), 1);
	ck_assert_int_eq(json_integer_value(json_object_get(e, "hp_max")), 2);
	ck_assert_uint_eq(json_object_size(e), 7);
}
END_TEST

START_TEST(moves_wounds_and_departures_are_told)
{
	add_watcher(1, 500, 500);
	for (int64_t id = 2; id <= 5; id++)
		add(id, VIEW_MONSTER, 500, 510);
	tell();
	view_move(v, 2, 520.5, 510);
	view_hp(v, 3, 40);
	view_move(v, 4, 900, 900);
	view_remove(v, 5);
	ck_assert_uint_eq(tell(), 1);
	ck_assert_str_eq(ids_of("move"), "2");
	ck_assert_str_eq(ids_of("hp"), "3");
	ck_assert_str_eq(ids_of("leave"), "4 5");
	ck_assert(!json_object_get(last, "enter"));
	ck_assert(json_real_value(json_object_get(json_array_get(json_object_get(last, "move"), 0), "x")) == 520.5);
	ck_assert_int_eq(json_integer_value(json_object_get(json_array_get(json_object_get(last, "hp"), 0), "hp")), 40);
}
END_TEST

START_TEST(ones_own_steps_are_not_told_but_throws_and_wounds_are)
{
	add_watcher(1, 500, 500);
	view_move(v, 1, 501, 500);
	ck_assert_uint_eq(tell(), 0);
	view_throw(v, 1, 10, 10);
	view_hp(v, 1, 50);
	ck_assert_uint_eq(tell(), 1);
	ck_assert_str_eq(ids_of("move"), "1");
	ck_assert_str_eq(ids_of("hp"), "1");
	ck_assert_uint_eq(tell(), 0);
}
END_TEST

START_TEST(of_a_crowd_only_the_nearest_players_are_seen)
{
	add_watcher(1, 500, 500);
	for (int64_t id = 2; id <= 9; id++)
		add(id, VIEW_PLAYER, 500 + 5 * (double)id, 500);
	add(10, VIEW_MONSTER, 590, 500);
	tell();
	ck_assert_str_eq(ids_of("enter"), "2 3 4 10");
	view_move(v, 2, 599, 500);
	tell();
	ck_assert_str_eq(ids_of("leave"), "2");
	ck_assert_str_eq(ids_of("enter"), "5");
}
END_TEST

START_TEST(looking_tells_the_ids_and_counts_as_told)
{
	const int64_t *ids;

	add_watcher(1, 500, 500);
	add(7, VIEW_MONSTER, 500, 501);
	add(6, VIEW_PLAYER, 500, 502);
	ck_assert_int_eq(view_look(v, 1, &ids), 2);
	ck_assert_int_eq(ids[0], 6);
	ck_assert_int_eq(ids[1], 7);
	ck_assert_uint_eq(tell(), 0);
	ck_assert_int_eq(view_look(v, 7, &ids), ERR_NOT_FOUND);
	ck_assert_int_eq(view_look(v, 99, &ids), ERR_NOT_FOUND);
}
END_TEST

START_TEST(at_a_new_connection_everything_is_told_anew)
{
	add_watcher(1, 500, 500);
	add(2, VIEW_MONSTER, 500, 501);
	tell();
	ck_assert(view_watch(v, 1, "connector-2", 5));
	ck_assert_uint_eq(view_watchers(v), 1);
	ck_assert_uint_eq(tell(), 1);
	ck_assert_str_eq(ids_of("enter"), "2");
	ck_assert_uint_eq(last_sid, 5);
	ck_assert_str_eq(last_connector, "connector-2");
}
END_TEST

START_TEST(watchers_take_turns)
{
	uint64_t seen = 0;

	for (int64_t id = 1; id <= 4; id++)
		add_watcher(id, 500, 500 + (double)id);
	for (int i = 0; i < 4; i++) {
		ck_assert_uint_eq(tell(), 1);
		seen |= UINT64_C(1) << (last_sid - 1000);
	}
	ck_assert_uint_eq(seen, 0x1e);
	view_remove(v, 2);
	ck_assert_uint_eq(view_watchers(v), 3);
	ck_assert_uint_eq(view_tell(v, 10, 8, keep, NULL), 3);
}
END_TEST

START_TEST(the_nearest_living_player_is_found)
{
	add(1, VIEW_PLAYER, 100, 100);
	add(2, VIEW_PLAYER, 130, 100);
	add(3, VIEW_PLAYER, 70, 100);
	add(4, VIEW_MONSTER, 110, 100);
	ck_assert_int_eq(view_nearest_player(v, 110, 100, 50), 1);
	view_hp(v, 1, 0);
	ck_assert_int_eq(view_nearest_player(v, 100, 100, 50), 2);
	ck_assert_int_eq(view_nearest_player(v, 100, 100, 30), 0);
	ck_assert_int_eq(view_nearest_player(v, 900, 900, 100), 0);
}
END_TEST

START_TEST(what_is_not_there_or_there_twice_is_refused)
{
	struct view_thing t = { .id = 1, .name = "x", .name_n = 1 };

	add(1, VIEW_PLAYER, -50, 5000);
	ck_assert_int_eq(view_add(v, &t), ERR_EXISTS);
	t.id = 0;
	ck_assert_int_eq(view_add(v, &t), ERR_BAD_REQUEST);
	ck_assert(!view_move(v, 2, 1, 1));
	ck_assert(!view_throw(v, 2, 1, 1));
	ck_assert(!view_hp(v, 2, 1));
	ck_assert(!view_remove(v, 2));
	ck_assert(!view_watch(v, 2, "connector-1", 1));
	ck_assert(view_move(v, 1, NAN, INFINITY));
	ck_assert(view_remove(v, 1));
}
END_TEST

/* Against a slow one that looks at everything: what a client would know after each update is what it should see. */
#define CROWD 60
struct place {
	double x, y;
	bool there;
};

static bool is_seen(const struct place *p, int64_t self, int64_t id)
{
	double d = hypot(p[id].x - p[self].x, p[id].y - p[self].y);

	return id != self && p[id].there && d <= 100;
}

static void take_update(bool knows[CROWD + 1], json_t *u)
{
	json_t *one;
	size_t i;

	json_array_foreach(json_object_get(u, "leave"), i, one)
	{
		ck_assert(knows[json_integer_value(one)]);
		knows[json_integer_value(one)] = false;
	}
	json_array_foreach(json_object_get(u, "enter"), i, one)
	{
		int64_t id = json_integer_value(json_object_get(one, "id"));

		ck_assert(!knows[id]);
		knows[id] = true;
	}
	json_array_foreach(json_object_get(u, "move"), i, one)
	{
		ck_assert(knows[json_integer_value(json_object_get(one, "id"))]);
	}
}

static void random_step(struct place *p)
{
	int64_t id = 2 + rand() % (CROWD - 1);

	if (p[id].there && rand() % 8 == 0) {
		view_remove(v, id);
		p[id].there = false;
		return;
	}
	p[id].x = rand() % 1000;
	p[id].y = rand() % 400;
	if (p[id].there)
		view_move(v, id, p[id].x, p[id].y);
	else
		add(id, VIEW_MONSTER, p[id].x, p[id].y);
	p[id].there = true;
}

START_TEST(a_client_that_follows_the_updates_knows_what_is_in_view)
{
	struct place p[CROWD + 1] = { 0 };
	bool knows[CROWD + 1] = { 0 };

	srand(_i + 1);
	add_watcher(1, 500, 200);
	p[1] = (struct place){ 500, 200, true };
	for (int round = 0; round < 2000; round++) {
		random_step(p);
		if (round % 7 == 0) {
			p[1].x = rand() % 1000;
			view_move(v, 1, p[1].x, p[1].y);
		}
		if (round % 3)
			continue;
		tell();
		if (last)
			take_update(knows, last);
		for (int64_t id = 1; id <= CROWD; id++)
			ck_assert_msg(knows[id] == is_seen(p, 1, id), "round %d, thing %d", round, (int)id);
	}
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("view");

	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_test(tc, who_comes_into_view_is_told_once_and_in_order);
	tcase_add_test(tc, a_thing_that_enters_is_told_whole);
	tcase_add_test(tc, moves_wounds_and_departures_are_told);
	tcase_add_test(tc, ones_own_steps_are_not_told_but_throws_and_wounds_are);
	tcase_add_test(tc, of_a_crowd_only_the_nearest_players_are_seen);
	tcase_add_test(tc, looking_tells_the_ids_and_counts_as_told);
	tcase_add_test(tc, at_a_new_connection_everything_is_told_anew);
	tcase_add_test(tc, watchers_take_turns);
	tcase_add_test(tc, the_nearest_living_player_is_found);
	tcase_add_test(tc, what_is_not_there_or_there_twice_is_refused);
	tcase_add_loop_test(tc, a_client_that_follows_the_updates_knows_what_is_in_view, 0, 10);
	return suite_run("view", tc);
}
