/* The promises of common/msg.h about messages that take the place of others while these are still in use. */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "tests/support/changed.h"
#include "tests/support/suite.h"

static struct schema *now, *next;
static char why[256];

static void setup(void)
{
	now = changed_schema(NULL, NULL);
	next = NULL;
}

static void teardown(void)
{
	schema_free(now);
	schema_free(next);
}

static int follow(changed_fn *change)
{
	schema_free(next);
	next = changed_schema(now, change);
	why[0] = '\0';
	return schema_follows(now, next, why, sizeof why);
}

static const struct msg_method *method(const struct schema *s, const char *full)
{
	return schema_method(s, full, strlen(full));
}

/* ---- what may be ---- */

static void add_much(pb_set *set)
{
	changed_add_field(set, "sample.Five", "mood", 6);
	changed_add_field(set, "sample.All", "early", 25);
	changed_add_method(set, "sample.shopHandler", "aFirst", ".sample.Five", ".sample.Item");
	changed_add_method(set, "sample.sampleRemote", "zLast", ".sample.Five", ".sample.Item");
	changed_add_value(set, "sample.Colour", "WHITE", 7);
}

START_TEST(fields_methods_and_values_may_be_added)
{
	ck_assert_msg(follow(add_much) == 0, "%s", why);
	ck_assert_ptr_nonnull(msg_field_name(schema_type(next, "sample.Five"), "mood", 4));
	ck_assert_ptr_nonnull(method(next, "sample.shopHandler.aFirst"));
}
END_TEST

static void open_to_all(pb_set *set)
{
	Google__Protobuf__MethodOptions *o = changed_method(set, "sample.sampleRemote", "get")->options;

	o->base.n_unknown_fields--; /* inner: it is as it would be */
	free(o->base.unknown_fields[o->base.n_unknown_fields].data);
}

START_TEST(who_may_call_a_method_may_change)
{
	ck_assert_msg(follow(open_to_all) == 0, "%s", why);
}
END_TEST

START_TEST(the_same_messages_have_one_version_and_others_another)
{
	ck_assert_int_eq(follow(NULL), 0);
	ck_assert_str_eq(schema_version(now), schema_version(next));
	ck_assert_int_eq(follow(add_much), 0);
	ck_assert_str_ne(schema_version(now), schema_version(next));
	ck_assert_uint_eq(strlen(schema_version(next)), 12);
}
END_TEST

/* ---- numbers ---- */

START_TEST(what_was_there_keeps_its_number_and_what_is_new_gets_a_new_one)
{
	ck_assert_int_eq(follow(add_much), 0);
	for (size_t i = 0; i < schema_methods(now); i++) {
		const struct msg_method *old = schema_method_at(now, i), *m = schema_method_now(next, old);

		ck_assert_ptr_eq(m, method(next, old->full));
		ck_assert_uint_eq(m->index, old->index);
	}
	const struct msg_method *m = method(next, "sample.shopHandler.aFirst");

	ck_assert_uint_ge(m->index, schema_indexes(now));
	ck_assert_uint_lt(m->index, schema_indexes(next));
	ck_assert_ptr_null(schema_method_now(now, m));
	ck_assert_uint_eq(schema_type(next, "sample.Buy")->index, schema_type(now, "sample.Buy")->index);
	ck_assert_uint_ge(schema_type(next, "sample.Five")->index, schema_shapes(now));
	for (uint32_t id = 1; id <= schema_names(now); id++)
		ck_assert_str_eq(schema_name(now, id, NULL), schema_name(next, id, NULL));
}
END_TEST

START_TEST(what_comes_back_has_the_number_it_had)
{
	ck_assert_int_eq(follow(add_much), 0);
	struct schema *without = changed_schema(next, NULL), *back = changed_schema(without, add_much);
	const struct msg_method *m = method(next, "sample.sampleRemote.zLast");

	ck_assert_ptr_null(schema_method_now(without, m));
	ck_assert_ptr_eq(schema_method_now(back, m), method(back, m->full));
	ck_assert_uint_eq(schema_type(back, "sample.Five")->index, schema_type(next, "sample.Five")->index);
	ck_assert_uint_eq(schema_type(without, "sample.Five")->index, schema_type(now, "sample.Five")->index);
	ck_assert_uint_eq(schema_indexes(back), schema_indexes(next));
	schema_free(without);
	schema_free(back);
}
END_TEST

/* ---- what may not be ---- */

static void number_field(pb_set *set)
{
	changed_field(set, "sample.Five", "content")->number = 9;
}

static void drop_field(pb_set *set)
{
	pb_message *m = changed_message(set, "sample.Five");

	google__protobuf__field_descriptor_proto__free_unpacked(m->field[--m->n_field], NULL);
}

static void rename_field(pb_set *set)
{
	changed_name(&changed_field(set, "sample.Five", "content")->name, "text");
}

static void type_field(pb_set *set)
{
	changed_field(set, "sample.Five", "kind")->type = GOOGLE__PROTOBUF__FIELD_DESCRIPTOR_PROTO__TYPE__TYPE_STRING;
}

static void message_field(pb_set *set)
{
	changed_name(&changed_field(set, "sample.All", "one")->type_name, ".sample.Buy");
}

static void repeat_field(pb_set *set)
{
	changed_field(set, "sample.Five", "kind")->label =
		GOOGLE__PROTOBUF__FIELD_DESCRIPTOR_PROTO__LABEL__LABEL_REPEATED;
}

static void default_field(pb_set *set)
{
	changed_name(&changed_field(set, "sample.Item", "count")->default_value, "2");
}

static void need_field(pb_set *set)
{
	changed_add_field(set, "sample.Five", "mood", 6)->label =
		GOOGLE__PROTOBUF__FIELD_DESCRIPTOR_PROTO__LABEL__LABEL_REQUIRED;
}

static void add_default_to_once(pb_set *set)
{
	changed_add_field(set, "sample.Buy", "mood", 6)->default_value = strdup("good");
}

static void rename_message(pb_set *set)
{
	changed_name(&changed_message(set, "sample.Wrapped")->name, "Packed");
}

static void kind_of_method(pb_set *set)
{
	Google__Protobuf__MethodOptions *o = changed_method(set, "sample.shopHandler", "buy")->options;

	o->base.unknown_fields[0].data[0] = MSG_READ;
}

static void drop_method(pb_set *set)
{
	changed_name(&changed_method(set, "sample.shopHandler", "news")->name, "newer");
}

static void request_of_method(pb_set *set)
{
	changed_name(&changed_method(set, "sample.shopHandler", "items")->input_type, ".sample.Item");
}

static void answer_of_method(pb_set *set)
{
	changed_name(&changed_method(set, "sample.shopHandler", "items")->output_type, ".sample.Item");
}

static void number_value(pb_set *set)
{
	changed_enum(set, "sample.Colour")->value[1]->number = 5;
}

static void rename_value(pb_set *set)
{
	changed_name(&changed_enum(set, "sample.Colour")->value[1]->name, "LIME");
}

static const struct {
	changed_fn *change;
	const char *why;
} wrong[] = {
	{ number_field, "sample.Five.content: its number was 3 and is 9" },
	{ drop_field, "sample.Five.time (5) is gone" },
	{ rename_field, "sample.Five: field 3 was called content and is text" },
	{ type_field, "sample.Five.kind: its type was int32 and is string" },
	{ message_field, "sample.All.one: its type was sample.Item and is sample.Buy" },
	{ repeat_field, "sample.Five.kind was optional and is repeated" },
	{ default_field, "sample.Item.count: its default has changed" },
	{ need_field, "sample.Five.mood is new and required" },
	{ add_default_to_once, "sample.Buy.mood is new, has a default and belongs to a once-method's request" },
	{ rename_message, "the message sample.Wrapped is gone" },
	{ kind_of_method, "sample.shopHandler.buy: its kind was ONCE and is READ" },
	{ drop_method, "the method sample.shopHandler.news is gone" },
	{ request_of_method, "sample.shopHandler.items: its request was sample.Five and is sample.Item" },
	{ answer_of_method, "sample.shopHandler.items: its answer was sample.All and is sample.Item" },
	{ number_value, "sample.Colour: GREEN was 1 and is 5" },
	{ rename_value, "sample.Colour: the value GREEN is gone" },
};

START_TEST(what_those_who_know_the_old_would_not_understand_is_refused_by_name)
{
	ck_assert_int_eq(follow(wrong[_i].change), ERR_BAD_REQUEST);
	ck_assert_str_eq(why, wrong[_i].why);
}
END_TEST

int main(void)
{
	TCase *c = tcase_create("msg_follow");

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, fields_methods_and_values_may_be_added);
	tcase_add_test(c, who_may_call_a_method_may_change);
	tcase_add_test(c, the_same_messages_have_one_version_and_others_another);
	tcase_add_test(c, what_was_there_keeps_its_number_and_what_is_new_gets_a_new_one);
	tcase_add_test(c, what_comes_back_has_the_number_it_had);
	tcase_add_loop_test(c, what_those_who_know_the_old_would_not_understand_is_refused_by_name, 0,
			    sizeof wrong / sizeof *wrong);
	return suite_run("msg_follow", c);
}
