/* The promises of common/msg.h. */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "common/msg.h"
#include "tests/support/changed.h"
#include "tests/support/sample.h"
#include "tests/support/suite.h"

static struct schema *s;

static void setup(void)
{
	s = sample_schema();
}

static void teardown(void)
{
	schema_free(s);
}

static const struct msg_type *type(const char *name)
{
	const struct msg_type *t = schema_type(s, name);
	ck_assert_ptr_nonnull(t);
	return t;
}

static const struct msg_field *field(const struct msg_type *t, const char *name)
{
	const struct msg_field *f = msg_field_name(t, name, strlen(name));
	ck_assert_ptr_nonnull(f);
	ck_assert_ptr_eq(msg_field_number(t, f->number), f);
	ck_assert_ptr_eq(&t->field[f->index], f);
	return f;
}

static const struct msg_method *method(const char *full)
{
	return schema_method(s, full, strlen(full));
}

START_TEST(a_method_is_found_by_its_full_name_and_says_what_the_proto_says)
{
	const struct msg_method *m = method("sample.shopHandler.buy");
	ck_assert_ptr_nonnull(m);
	ck_assert_str_eq(m->service, "sample");
	ck_assert_str_eq(m->group, "shopHandler");
	ck_assert_str_eq(m->name, "buy");
	ck_assert_str_eq(m->full, "sample.shopHandler.buy");
	ck_assert_str_eq(m->in->name, "sample.Buy");
	ck_assert_str_eq(m->out->name, "sample.Item");
	ck_assert_int_eq(m->kind, MSG_ONCE);
	ck_assert(m->is_handler && m->inner);
	ck_assert_ptr_null(m->callers);
	ck_assert_str_eq(m->attr, "scene");
}
END_TEST

START_TEST(what_a_method_does_not_say_is_plain)
{
	const struct msg_method *m = method("sample.sampleRemote.put");
	ck_assert_int_eq(m->kind, MSG_PLAIN);
	ck_assert(!m->is_handler && m->inner && !m->attr && !m->callers && !m->is_public);
}
END_TEST

START_TEST(only_who_says_so_is_public)
{
	ck_assert(method("sample.shopHandler.news")->is_public);
	ck_assert(!method("sample.shopHandler.buy")->is_public);
}
END_TEST

START_TEST(callers_are_checked_by_whole_words)
{
	const struct msg_method *m = method("sample.sampleRemote.get");
	ck_assert(m->inner);
	ck_assert_int_eq(m->kind, MSG_READ);
	ck_assert_str_eq(m->callers, "role, scene");
	ck_assert(msg_method_admits(m, "role") && msg_method_admits(m, "scene"));
	ck_assert(!msg_method_admits(m, "rol") && !msg_method_admits(m, "chat") && !msg_method_admits(m, ""));
	ck_assert(msg_method_admits(method("sample.sampleRemote.put"), "chat"));
	ck_assert(!msg_method_admits(method("sample.shopHandler.buy"), "role"));
	ck_assert(msg_method_admits(method("sample.shopHandler.buy"), "connector"));
}
END_TEST

START_TEST(names_that_are_almost_right_find_nothing)
{
	ck_assert_ptr_null(method("sample.shopHandler.bu"));
	ck_assert_ptr_null(method("sample.shopHandler.buyy"));
	ck_assert_ptr_null(method(""));
	ck_assert_ptr_null(schema_method(s, "sample.shopHandler.buy\0x", 24));
	ck_assert_ptr_null(schema_type(s, "sample.Nothing"));
	ck_assert_ptr_null(msg_field_name(type("sample.Buy"), "ite", 3));
	ck_assert_ptr_null(msg_field_number(type("sample.Buy"), 0));
	ck_assert_ptr_null(msg_field_number(type("sample.Buy"), 4));
	ck_assert_ptr_null(msg_field_number(type("sample.All"), 99999));
}
END_TEST

START_TEST(methods_are_listed_in_order)
{
	ck_assert_uint_ge(schema_methods(s), 5);
	for (size_t i = 0; i < schema_methods(s); i++) {
		const struct msg_method *m = schema_method_at(s, i);
		ck_assert_uint_eq(m->index, i);
		ck_assert_ptr_eq(method(m->full), m);
		if (i)
			ck_assert_int_lt(strcmp(schema_method_at(s, i - 1)->full, m->full), 0);
	}
}
END_TEST

START_TEST(fields_are_sorted_and_found_by_number_and_by_name)
{
	const struct msg_type *t = type("sample.All");
	ck_assert_uint_eq(t->fields, 25);
	for (unsigned i = 0; i < t->fields; i++) {
		ck_assert_ptr_eq(field(t, t->field[i].name), &t->field[i]);
		if (i)
			ck_assert_uint_gt(t->field[i].number, t->field[i - 1].number);
	}
	ck_assert_int_eq(field(t, "d")->type, MSG_DOUBLE);
	ck_assert_int_eq(field(t, "s64")->type, MSG_SINT64);
	ck_assert_uint_eq(field(t, "far")->number, 100000);
	ck_assert(field(t, "packed")->packed && field(t, "packed")->repeated);
	ck_assert(!field(t, "numbers")->packed && field(t, "numbers")->repeated);
	ck_assert_ptr_eq(field(t, "again")->message, t);
	ck_assert_uint_eq(type("sample.Buy")->required, 3);
	ck_assert(field(type("sample.Buy"), "order")->required);
}
END_TEST

START_TEST(maps_are_told_from_other_repeated_messages)
{
	const struct msg_field *f = field(type("sample.Maps"), "by_number");
	ck_assert(f->map && f->repeated);
	ck_assert_int_eq(f->message->field[0].type, MSG_INT32);
	ck_assert_int_eq(f->message->field[1].type, MSG_STRING);
	ck_assert(!field(type("sample.All"), "items")->map);
}
END_TEST

START_TEST(defaults_are_those_of_the_proto)
{
	const struct msg_type *t = type("sample.Defaults");
	ck_assert_uint_eq(t->defaults, 6);
	ck_assert_str_eq(field(t, "text")->fallback.s.p, "it's");
	ck_assert_uint_eq(field(t, "raw")->fallback.s.n, 3);
	ck_assert_mem_eq(field(t, "raw")->fallback.s.p, "a\001\n", 3);
	ck_assert_int_eq(field(t, "colour")->fallback.i, -3);
	ck_assert(field(t, "d")->fallback.d == -2.5);
	ck_assert_int_eq(field(t, "b")->fallback.i, 1);
	ck_assert(field(t, "i")->fallback.i == -9007199254740993);
	ck_assert(!field(t, "none")->has_default);
	ck_assert_str_eq(field(t, "inside")->message->name, "sample.Defaults.Inside");
	ck_assert_str_eq(field(type("sample.Defaults.Inside"), "mode")->enumeration->name,
			 "sample.Defaults.Inside.Mode");
}
END_TEST

START_TEST(enum_values_are_found_both_ways)
{
	const struct msg_enum *e = field(type("sample.All"), "colour")->enumeration;
	ck_assert_str_eq(msg_enum_number(e, -3)->name, "BLUE");
	ck_assert_int_eq(msg_enum_name(e, "GREEN", 5)->number, 1);
	ck_assert_ptr_null(msg_enum_number(e, 2));
	ck_assert_ptr_null(msg_enum_name(e, "green", 5));
}
END_TEST

START_TEST(an_untyped_message_says_so)
{
	ck_assert(type("loquat.Any")->any);
	ck_assert(!type("sample.Wrapped")->any);
	ck_assert(field(type("sample.Wrapped"), "data")->message->any);
}
END_TEST

START_TEST(equal_names_have_one_id)
{
	ck_assert_uint_eq(field(type("sample.Item"), "item")->id, field(type("sample.Buy"), "item")->id);
	ck_assert_uint_ne(field(type("sample.Item"), "item")->id, field(type("sample.Item"), "count")->id);
	for (uint32_t id = 1; id <= schema_names(s); id++)
		ck_assert_ptr_nonnull(schema_name(s, id, NULL));
	size_t n;
	ck_assert_str_eq(schema_name(s, field(type("sample.Buy"), "order")->id, &n), "order");
	ck_assert_uint_eq(n, 5);
}
END_TEST

START_TEST(damaged_bytes_are_refused_with_a_sentence)
{
	size_t n;
	char *bytes = sample_read("build/tests.desc", &n), error[200] = "";
	struct schema *other = NULL;
	ck_assert_int_eq(schema_load(bytes, n - 3, error, sizeof error, &other), ERR_CORRUPT);
	ck_assert_ptr_null(other);
	ck_assert(strlen(error) > 0);
	free(bytes);
}
END_TEST

/* What may be loaded all the same is compared with what it was, as a reload does. */
static void ck_refused_or_whole(const struct schema *whole, const char *bytes, size_t n)
{
	struct schema *other = NULL;
	char error[200] = "";

	if (schema_load_after(whole, bytes, n, error, sizeof error, &other) < 0) {
		ck_assert_ptr_null(other);
		ck_assert(strlen(error) > 0);
		return;
	}
	schema_follows(whole, other, error, sizeof error);
	schema_follows(other, whole, error, sizeof error);
	schema_free(other);
}

/* Some of many: each load takes half a millisecond. */
START_TEST(a_bit_that_fell_over_does_no_harm)
{
	size_t n;
	char *bytes = sample_read("build/tests.desc", &n);

	for (size_t i = 0; i < n; i += 29) {
		bytes[i] = (char)(bytes[i] ^ 1 << i % 8);
		ck_refused_or_whole(s, bytes, n);
		bytes[i] = (char)(bytes[i] ^ 1 << i % 8);
	}
	free(bytes);
}
END_TEST

static void type_33(pb_set *set)
{
	*(int *)&changed_field(set, "sample.Five", "from")->type = 33;
}

static void label_0(pb_set *set)
{
	*(int *)&changed_field(set, "sample.Five", "from")->label = 0;
}

static void number_0(pb_set *set)
{
	changed_field(set, "sample.Five", "from")->number = 0;
}

static void oneof_9(pb_set *set)
{
	changed_field(set, "sample.Five", "from")->has_oneof_index = true;
	changed_field(set, "sample.Five", "from")->oneof_index = 9;
}

static void without(char **text)
{
	free(*text);
	*text = NULL;
}

static void message_of_no_type(pb_set *set)
{
	without(&changed_field(set, "sample.Maps", "things")->type_name);
}

static void field_without_name(pb_set *set)
{
	without(&changed_field(set, "sample.Five", "from")->name);
}

static void message_without_name(pb_set *set)
{
	without(&changed_message(set, "sample.Five")->name);
}

static void enum_without_name(pb_set *set)
{
	without(&changed_enum(set, "sample.Colour")->name);
}

static void value_without_name(pb_set *set)
{
	without(&changed_enum(set, "sample.Colour")->value[0]->name);
}

static void method_of_nothing(pb_set *set)
{
	without(&changed_method(set, "sample.shopHandler", "buy")->input_type);
}

static void entry_of_one(pb_set *set)
{
	changed_message(set, "sample.Maps")->nested_type[0]->field[1]->number = 3;
}

static void entry_of_a_double(pb_set *set)
{
	*(int *)&changed_message(set, "sample.Maps")->nested_type[0]->field[0]->type = MSG_DOUBLE;
}

START_TEST(what_protoc_never_writes_is_refused_with_a_sentence)
{
	static changed_fn *const wrong[] = { type_33,
					     label_0,
					     number_0,
					     oneof_9,
					     message_of_no_type,
					     field_without_name,
					     message_without_name,
					     enum_without_name,
					     value_without_name,
					     method_of_nothing,
					     entry_of_one,
					     entry_of_a_double };
	struct schema *other = NULL;
	char error[200];
	size_t n;

	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		char *bytes = changed_bytes(wrong[i], &n);

		error[0] = '\0';
		ck_assert_int_eq(schema_load(bytes, n, error, sizeof error, &other), ERR_CORRUPT);
		ck_assert_ptr_null(other);
		ck_assert(strlen(error) > 0);
		free(bytes);
	}
}
END_TEST

START_TEST(an_empty_set_is_an_empty_schema)
{
	struct schema *other = NULL;
	char error[200];
	ck_assert_int_eq(schema_load("", 0, error, sizeof error, &other), 0);
	ck_assert_uint_eq(schema_methods(other), 0);
	ck_assert_ptr_null(schema_method(other, "a.b.c", 5));
	schema_free(other);
}
END_TEST

/* One file with one message whose one field is of a type that the set does not hold. */
START_TEST(a_field_of_an_unknown_type_is_refused_by_name)
{
	Google__Protobuf__FieldDescriptorProto f = GOOGLE__PROTOBUF__FIELD_DESCRIPTOR_PROTO__INIT;
	f.name = "thing", f.has_number = f.has_type = f.has_label = 1, f.number = 1;
	f.type = GOOGLE__PROTOBUF__FIELD_DESCRIPTOR_PROTO__TYPE__TYPE_MESSAGE, f.type_name = ".x.Lost";
	f.label = GOOGLE__PROTOBUF__FIELD_DESCRIPTOR_PROTO__LABEL__LABEL_OPTIONAL;
	Google__Protobuf__DescriptorProto m = GOOGLE__PROTOBUF__DESCRIPTOR_PROTO__INIT;
	m.name = "M", m.n_field = 1, m.field = (Google__Protobuf__FieldDescriptorProto *[]){ &f };
	Google__Protobuf__FileDescriptorProto file = GOOGLE__PROTOBUF__FILE_DESCRIPTOR_PROTO__INIT;
	file.name = "x.proto", file.package = "x", file.n_message_type = 1;
	file.message_type = (Google__Protobuf__DescriptorProto *[]){ &m };
	Google__Protobuf__FileDescriptorSet set = GOOGLE__PROTOBUF__FILE_DESCRIPTOR_SET__INIT;
	set.n_file = 1, set.file = (Google__Protobuf__FileDescriptorProto *[]){ &file };
	uint8_t bytes[200];
	size_t n = google__protobuf__file_descriptor_set__pack(&set, bytes);
	char error[200];
	struct schema *other = NULL;
	ck_assert_int_eq(schema_load(bytes, n, error, sizeof error, &other), ERR_CORRUPT);
	ck_assert_str_eq(error, "x.M.thing: unknown type .x.Lost");
}
END_TEST

START_TEST(nothing_is_no_schema_and_may_be_freed)
{
	schema_free(NULL);
}
END_TEST

int main(void)
{
	TCase *c = tcase_create("msg");
	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, a_method_is_found_by_its_full_name_and_says_what_the_proto_says);
	tcase_add_test(c, what_a_method_does_not_say_is_plain);
	tcase_add_test(c, only_who_says_so_is_public);
	tcase_add_test(c, callers_are_checked_by_whole_words);
	tcase_add_test(c, names_that_are_almost_right_find_nothing);
	tcase_add_test(c, methods_are_listed_in_order);
	tcase_add_test(c, fields_are_sorted_and_found_by_number_and_by_name);
	tcase_add_test(c, maps_are_told_from_other_repeated_messages);
	tcase_add_test(c, defaults_are_those_of_the_proto);
	tcase_add_test(c, enum_values_are_found_both_ways);
	tcase_add_test(c, an_untyped_message_says_so);
	tcase_add_test(c, equal_names_have_one_id);
	tcase_add_test(c, damaged_bytes_are_refused_with_a_sentence);
	tcase_add_test(c, a_bit_that_fell_over_does_no_harm);
	tcase_add_test(c, what_protoc_never_writes_is_refused_with_a_sentence);
	tcase_add_test(c, an_empty_set_is_an_empty_schema);
	tcase_add_test(c, a_field_of_an_unknown_type_is_refused_by_name);
	tcase_add_test(c, nothing_is_no_schema_and_may_be_freed);
	return suite_run("msg", c);
}
