#include <check.h>
#include <stdio.h>
#include <string.h>
#include "common/err.h"
#include "rpc/route.h"
#include "rpc/route_rows.h"
#include "tests/support/suite.h"

static struct route_table *table(const char *text)
{
	struct route_table *t;
	char error[256];

	ck_assert_msg(route_from_text(text, strlen(text), error, sizeof error, &t) == 0, "%s", error);
	return t;
}

static const char three[] = "return { version = 7, instances = {"
			    "{ id = 'role-1', service = 'role', host = '127.0.0.1', rpc = 1, workers = 3 },"
			    "{ id = 'role-2', service = 'role', host = '127.0.0.1', rpc = 2, workers = 3, epoch = 9 },"
			    "{ id = 'role-3', service = 'role', host = '127.0.0.1', rpc = 3, workers = 3%s },"
			    "{ id = 'chat-1', service = 'chat', host = '127.0.0.1', rpc = 4, workers = 1 } } }";

static struct route_table *with_third(const char *extra)
{
	char text[1024];

	snprintf(text, sizeof text, three, extra);
	return table(text);
}

static const char *owner(const struct route_table *t, unsigned key)
{
	char text[16];
	int n = snprintf(text, sizeof text, "u%u", key);

	return route_owner(t, "role", text, (size_t)n)->id;
}

START_TEST(keys_are_spread_evenly_over_instances_and_workers)
{
	struct route_table *t = with_third("");
	unsigned of_instance[4] = { 0 }, of_worker[3] = { 0 };

	for (unsigned i = 0; i < 9000; i++) {
		char key[16];
		int n = snprintf(key, sizeof key, "u%u", i);
		const struct route_row *row = route_owner(t, "role", key, (size_t)n);

		of_instance[row->id[5] - '1']++;
		if (row->id[5] == '1')
			of_worker[route_worker(row, key, (size_t)n)]++;
	}
	for (int i = 0; i < 3; i++) {
		ck_assert_uint_ge(of_instance[i], 2700);
		ck_assert_uint_le(of_instance[i], 3300);
		ck_assert_uint_ge(of_worker[i], 800);
		ck_assert_uint_le(of_worker[i], 1200);
	}
	route_unref(t);
}
END_TEST

START_TEST(when_an_instance_goes_only_its_own_keys_move)
{
	struct route_table *before = with_third(""), *after = with_third(", draining = true");
	unsigned moved = 0;

	for (unsigned i = 0; i < 3000; i++) {
		if (strcmp(owner(before, i), "role-3"))
			ck_assert_str_eq(owner(before, i), owner(after, i));
		else
			moved++;
		ck_assert_str_ne(owner(after, i), "role-3");
	}
	ck_assert_uint_ge(moved, 800);
	ck_assert_uint_le(moved, 1200);
	route_unref(before);
	route_unref(after);
}
END_TEST

START_TEST(a_service_without_ready_instances_has_no_owner)
{
	struct route_table *t = with_third("");

	ck_assert_ptr_null(route_owner(t, "team", "u1", 2));
	route_unref(t);
}
END_TEST

START_TEST(a_table_survives_being_written_and_read_again)
{
	struct route_table *t = with_third(", draining = true"), *back;
	struct buf text = BUF_INIT;

	route_to_text(t, &text);
	back = table(buf_cstr(&text));
	ck_assert_uint_eq(back->version, 7);
	ck_assert_uint_eq(back->rows, 4);
	ck_assert_uint_eq(route_find(back, "role-2")->epoch, 9);
	ck_assert_int_eq(route_find(back, "role-3")->state, ROUTE_DRAINING);
	ck_assert_uint_eq(route_find(back, "chat-1")->rpc_port, 4);
	buf_release(&text);
	route_unref(t);
	route_unref(back);
}
END_TEST

START_TEST(players_come_to_an_address_of_its_own_or_to_the_inner_one)
{
	struct route_table *t = with_third(", client = 5, client_host = '10.9.8.7'"), *back;
	const struct route_row *own = route_find(t, "role-3"), *same = route_find(t, "role-1");
	struct route_row row;
	struct buf text = BUF_INIT;
	char error[256];

	ck_assert_str_eq(route_client_host(own), "10.9.8.7");
	ck_assert_str_eq(own->host, "127.0.0.1");
	ck_assert_str_eq(route_client_host(same), "127.0.0.1");
	/* also by the live file, and by etcd's rows */
	route_to_text(t, &text);
	back = table(buf_cstr(&text));
	ck_assert_str_eq(route_client_host(route_find(back, "role-3")), "10.9.8.7");
	ck_assert_str_eq(route_client_host(route_find(back, "role-1")), "127.0.0.1");
	buf_clear(&text);
	route_row_to_json(own, &text);
	ck_assert_int_eq(route_row_get(text.data, text.len, &row, error, sizeof error), 0);
	ck_assert_str_eq(route_client_host(&row), "10.9.8.7");
	buf_clear(&text);
	route_row_to_json(same, &text);
	ck_assert_int_eq(route_row_get(text.data, text.len, &row, error, sizeof error), 0);
	ck_assert_str_eq(route_client_host(&row), "127.0.0.1");
	buf_release(&text);
	route_unref(t);
	route_unref(back);
}
END_TEST

static void refused(const char *text, const char *names)
{
	struct route_table *t = NULL;
	char error[256] = "";

	ck_assert_int_lt(route_from_text(text, strlen(text), error, sizeof error, &t), 0);
	ck_assert_ptr_null(t);
	ck_assert_msg(strstr(error, names), "\"%s\" does not name %s", error, names);
}

START_TEST(a_table_that_does_not_check_is_refused_and_says_why)
{
	refused("return 5", "table");
	refused("return { version = 1 }", "instances");
	refused("return { version = 1, instances = { { id = 'role-1', service = 'role', host = 'h', workers = 1 } } }",
		"instances[1].rpc");
	refused("return { version = 1, instances = { { id = 'x', service = 'role', host = 'h', rpc = 1, workers = 1 } } }",
		"instances[1].id");
	refused("return { version = 1, instances = { { id = 'role-1', service = 'role', host = 'h\"..x', rpc = 1, workers = 1 } } }",
		"instances[1].host");
	refused("return { version = 1, instances = { { id = 'role-1', service = 'role', host = 'h', client_host = 'a\\\\', rpc = 1, "
		"workers = 1 } } }",
		"instances[1].client_host");
	refused("return { version = 1, instances = { { id = 'role-1\\n', service = 'role', host = 'h', rpc = 1, workers = 1 } } }",
		"instances[1].id");
	refused("return { version = 1, instances = { { id = 'role-1', service = 'role', host = 'h', rpc = 1, workers = 1 },"
		"{ id = 'role-1', service = 'role', host = 'h', rpc = 2, workers = 1 } } }",
		"there already");
	refused("return { version = 1, instances = { { id = 'role-1', service = 'role', host = 'h', rpc = 1, workers = 1 },"
		"{ id = 'role-2', service = 'role', host = 'h', rpc = 1, workers = 1 } } }",
		"role-1");
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("route");

	tcase_add_test(t, keys_are_spread_evenly_over_instances_and_workers);
	tcase_add_test(t, when_an_instance_goes_only_its_own_keys_move);
	tcase_add_test(t, a_service_without_ready_instances_has_no_owner);
	tcase_add_test(t, a_table_survives_being_written_and_read_again);
	tcase_add_test(t, players_come_to_an_address_of_its_own_or_to_the_inner_one);
	tcase_add_test(t, a_table_that_does_not_check_is_refused_and_says_why);
	return suite_run("route", t);
}
