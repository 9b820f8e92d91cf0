/* msg.h: from a descriptor set to a schema, in three passes. */
#include "common/msg.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/msg_private.h"
#include "google/protobuf/descriptor.pb-c.h"

#define DEPTH_MAX 32 /* of messages written inside messages */

typedef Google__Protobuf__FileDescriptorSet pb_set;
typedef Google__Protobuf__FileDescriptorProto pb_file;
typedef Google__Protobuf__DescriptorProto pb_message;
typedef Google__Protobuf__FieldDescriptorProto pb_field;
typedef Google__Protobuf__EnumDescriptorProto pb_enum;
typedef Google__Protobuf__ServiceDescriptorProto pb_service;
typedef Google__Protobuf__MethodDescriptorProto pb_method;

/* What a load needs beside the schema; the descriptors of types are remembered until their fields are filled. */
struct loading {
	struct schema *s;
	const pb_message **message; /* beside s->type */
	const pb_file **type_file;
	char *error;
	size_t error_size;
};

static const char *join(struct schema *s, const char *a, const char *b)
{
	size_t n = strlen(a), m = strlen(b);
	char *copy = schema_take(s, n + m + 2);
	memcpy(copy, a, n);
	copy[n] = n ? '.' : 0;
	memcpy(copy + n + (n > 0), b, m + 1);
	return copy;
}

static int __attribute__((format(printf, 2, 3))) refuse(struct loading *l, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(l->error, l->error_size, fmt, ap);
	va_end(ap);
	return ERR_CORRUPT;
}

/* ---- our options: unknown fields to protobuf-c ------------------------------------------------------------ */

static bool option_varint(const ProtobufCMessage *options, uint32_t tag, uint64_t *out)
{
	for (unsigned i = 0; options && i < options->n_unknown_fields; i++) {
		const ProtobufCMessageUnknownField *f = &options->unknown_fields[i];
		if (f->tag != tag || f->wire_type != PROTOBUF_C_WIRE_TYPE_VARINT)
			continue;
		*out = 0;
		for (size_t k = 0; k < f->len && k < 10; k++)
			*out |= (uint64_t)(f->data[k] & 0x7f) << (7 * k);
		return true;
	}
	return false;
}

static bool option_bool(const ProtobufCMessage *options, uint32_t tag)
{
	uint64_t v;
	return option_varint(options, tag, &v) && v;
}

static const char *option_text(struct schema *s, const ProtobufCMessage *options, uint32_t tag)
{
	for (unsigned i = 0; options && i < options->n_unknown_fields; i++) {
		const ProtobufCMessageUnknownField *f = &options->unknown_fields[i];
		if (f->tag != tag || f->wire_type != PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED)
			continue;
		size_t prefix = 1; /* data begins with its own length */
		while (prefix < f->len && f->data[prefix - 1] & 0x80)
			prefix++;
		return schema_take_text(s, (const char *)f->data + prefix, f->len - prefix);
	}
	return NULL;
}

/* ---- what protoc always writes; a damaged file holds anything ----------------------------------------------- */

static bool good_field(const pb_message *m, const pb_field *f)
{
	int type = (int)f->type, label = (int)f->label;
	bool named = type == MSG_MESSAGE || type == MSG_ENUM;
	return f->name && type >= MSG_DOUBLE && type <= MSG_SINT64 && (f->type_name || !named) && label >= 1 &&
	       label <= 3 && f->number > 0 && f->number < 1 << 29 &&
	       (!f->has_oneof_index || (f->oneof_index >= 0 && (size_t)f->oneof_index < m->n_oneof_decl));
}

static bool good_enum(const pb_enum *e)
{
	bool good = e->name && e->n_value;
	for (size_t i = 0; good && i < e->n_value; i++)
		good = e->value[i]->name;
	return good;
}

static bool good_message(const pb_message *m)
{
	bool good = m->name;
	for (size_t i = 0; good && i < m->n_field; i++)
		good = good_field(m, m->field[i]);
	for (size_t i = 0; good && i < m->n_enum_type; i++)
		good = good_enum(m->enum_type[i]);
	for (size_t i = 0; good && i < m->n_nested_type; i++)
		good = good_message(m->nested_type[i]);
	return good;
}

static bool good_service(const pb_service *s)
{
	bool good = s->name;
	for (size_t i = 0; good && i < s->n_method; i++)
		good = s->method[i]->name && s->method[i]->input_type && s->method[i]->output_type;
	return good;
}

static bool good_set(const pb_set *set)
{
	bool good = true;
	for (size_t i = 0; good && i < set->n_file; i++) {
		const pb_file *f = set->file[i];
		for (size_t k = 0; good && k < f->n_enum_type; k++)
			good = good_enum(f->enum_type[k]);
		for (size_t k = 0; good && k < f->n_message_type; k++)
			good = good_message(f->message_type[k]);
		for (size_t k = 0; good && k < f->n_service; k++)
			good = good_service(f->service[k]);
	}
	return good;
}

/* ---- first pass: every type and enum gets its place and name -------------------------------------------- */

static bool ours(const pb_file *f)
{
	return !f->name || strcmp(f->name, "google/protobuf/descriptor.proto") != 0;
}

static void count_message(const pb_message *m, struct schema *s, unsigned depth)
{
	s->types++;
	s->enums += m->n_enum_type;
	for (size_t i = 0; depth < DEPTH_MAX && i < m->n_nested_type; i++)
		count_message(m->nested_type[i], s, depth + 1);
}

static void count(const pb_set *set, struct schema *s)
{
	for (size_t i = 0; i < set->n_file; i++) {
		const pb_file *f = set->file[i];
		if (!ours(f))
			continue;
		s->enums += f->n_enum_type;
		for (size_t k = 0; k < f->n_message_type; k++)
			count_message(f->message_type[k], s, 0);
		for (size_t k = 0; k < f->n_service; k++)
			s->methods += f->service[k]->n_method;
	}
}

static void fill_enum(struct schema *s, struct msg_enum *e, const pb_enum *from, const char *scope)
{
	e->name = join(s, scope, from->name);
	e->values = from->n_value;
	struct msg_enum_value *value = schema_take(s, e->values * sizeof *value + 1);
	for (size_t i = 0; i < e->values; i++) {
		value[i].number = from->value[i]->number;
		value[i].id = schema_name_id(s, from->value[i]->name);
		value[i].name = schema_take_text(s, from->value[i]->name, strlen(from->value[i]->name));
		value[i].name_bytes = strlen(value[i].name);
	}
	e->value = value;
}

static void place_enum(struct loading *l, const pb_enum *e, const char *scope)
{
	fill_enum(l->s, &l->s->enumeration[l->s->enums++], e, scope);
}

static void place_message(struct loading *l, const pb_file *file, const pb_message *m, const char *scope,
			  unsigned depth)
{
	struct schema *s = l->s;
	size_t at = s->types++;
	struct msg_type *t = &s->type[at];
	t->name = join(s, scope, m->name);
	t->any = m->options && option_bool(&m->options->base, 50001);
	t->push = m->options ? option_text(s, &m->options->base, 50002) : NULL;
	t->map_entry = m->options && m->options->has_map_entry && m->options->map_entry;
	l->message[at] = m;
	l->type_file[at] = file;
	for (size_t i = 0; i < m->n_enum_type; i++)
		place_enum(l, m->enum_type[i], t->name);
	for (size_t i = 0; depth < DEPTH_MAX && i < m->n_nested_type; i++)
		place_message(l, file, m->nested_type[i], t->name, depth + 1);
}

static void place(struct loading *l, const pb_set *set)
{
	struct schema *s = l->s;
	s->type = schema_take(s, s->types * sizeof *s->type + 1);
	s->enumeration = schema_take(s, s->enums * sizeof *s->enumeration + 1);
	l->message = schema_take(s, s->types * sizeof *l->message + 1);
	l->type_file = schema_take(s, s->types * sizeof *l->type_file + 1);
	s->types = s->enums = 0;
	for (size_t i = 0; i < set->n_file; i++) {
		const pb_file *f = set->file[i];
		if (!ours(f))
			continue;
		const char *scope = f->package ? f->package : "";
		for (size_t k = 0; k < f->n_enum_type; k++)
			place_enum(l, f->enum_type[k], scope);
		for (size_t k = 0; k < f->n_message_type; k++)
			place_message(l, f, f->message_type[k], scope, 0);
	}
}

/* ---- second pass: fields ---------------------------------------------------------------------------------- */

static const struct msg_enum *find_enum(const struct schema *s, const char *name)
{
	name += *name == '.';
	for (size_t i = 0; i < s->enums; i++)
		if (!strcmp(s->enumeration[i].name, name))
			return &s->enumeration[i];
	return NULL;
}

/* protoc writes the default of a bytes field with C escapes: letters and three octal digits. */
static size_t unescape(char *p)
{
	static const char from[] = "nrt\"'\\", to[] = "\n\r\t\"'\\";
	size_t n = 0;
	for (const char *q = p; *q;) {
		const char *letter;
		if (*q != '\\' || !q[1]) {
			p[n++] = *q++;
		} else if ((letter = strchr(from, q[1]))) {
			p[n++] = to[letter - from];
			q += 2;
		} else {
			unsigned v = 0;
			int digits = 0;
			for (q++; digits < 3 && *q >= '0' && *q <= '7'; digits++)
				v = v * 8 + (unsigned)(*q++ - '0');
			p[n++] = (char)v;
		}
	}
	return n;
}

static int fill_default(struct loading *l, const struct msg_type *t, struct msg_field *f, const char *text)
{
	f->has_default = true;
	switch (f->type) {
	case MSG_STRING:
	case MSG_BYTES: {
		char *copy = (char *)schema_take_text(l->s, text, strlen(text));
		f->fallback.s.n = f->type == MSG_BYTES ? unescape(copy) : strlen(copy);
		f->fallback.s.p = copy;
		return 0;
	}
	case MSG_DOUBLE:
	case MSG_FLOAT: f->fallback.d = strtod(text, NULL); return 0;
	case MSG_BOOL: f->fallback.i = !strcmp(text, "true"); return 0;
	case MSG_ENUM: {
		const struct msg_enum_value *v = msg_enum_name(f->enumeration, text, strlen(text));
		if (!v)
			return refuse(l, "%s.%s: default %s is no value of its enum", t->name, f->name, text);
		f->fallback.i = v->number;
		return 0;
	}
	default:
		if ((f->type == MSG_UINT64 || f->type == MSG_FIXED64) && strtoull(text, NULL, 10) > INT64_MAX)
			return refuse(l, "%s.%s: default %s is over 2^63 - 1", t->name, f->name, text);
		f->fallback.i = strtoll(text, NULL, 10);
		return 0;
	}
}

static bool packs(const pb_file *file, const pb_field *from)
{
	if (from->options && from->options->has_packed)
		return from->options->packed;
	return file->syntax && !strcmp(file->syntax, "proto3");
}

static enum msg_wire wire_of(enum msg_field_type type)
{
	switch (type) {
	case MSG_DOUBLE:
	case MSG_FIXED64:
	case MSG_SFIXED64: return MSG_WIRE_8;
	case MSG_FLOAT:
	case MSG_FIXED32:
	case MSG_SFIXED32: return MSG_WIRE_4;
	case MSG_STRING:
	case MSG_BYTES:
	case MSG_MESSAGE: return MSG_WIRE_BYTES;
	default: return MSG_WIRE_VARINT;
	}
}

static int fill_field(struct loading *l, const pb_file *file, struct msg_type *t, struct msg_field *f,
		      const pb_field *from)
{
	struct schema *s = l->s;
	f->number = (uint32_t)from->number;
	f->type = (enum msg_field_type)from->type;
	f->repeated = from->label == GOOGLE__PROTOBUF__FIELD_DESCRIPTOR_PROTO__LABEL__LABEL_REPEATED;
	f->required = from->label == GOOGLE__PROTOBUF__FIELD_DESCRIPTOR_PROTO__LABEL__LABEL_REQUIRED;
	f->id = schema_name_id(s, from->name);
	f->name = schema_take_text(s, from->name, strlen(from->name));
	f->name_bytes = strlen(f->name);
	if (f->type == MSG_GROUP)
		return refuse(l, "%s.%s: groups are not supported", t->name, f->name);
	if (f->type == MSG_MESSAGE && !(f->message = schema_type(s, from->type_name)))
		return refuse(l, "%s.%s: unknown type %s", t->name, f->name, from->type_name);
	if (f->type == MSG_ENUM && !(f->enumeration = find_enum(s, from->type_name)))
		return refuse(l, "%s.%s: unknown enum %s", t->name, f->name, from->type_name);
	f->map = f->repeated && f->type == MSG_MESSAGE && f->message->map_entry;
	f->ignored = from->options && option_bool(&from->options->base, 50001);
	f->packed = f->repeated && packs(file, from) && f->type != MSG_STRING && f->type != MSG_BYTES &&
		    f->type != MSG_MESSAGE;
	f->oneof = from->has_oneof_index ? (uint16_t)(from->oneof_index + 1) : 0;
	f->wire = wire_of(f->type);
	f->tag = f->number << 3 | (f->packed ? MSG_WIRE_BYTES : f->wire);
	return from->default_value && !f->oneof ? fill_default(l, t, f, from->default_value) : 0;
}

static bool is_entry(const struct msg_type *t)
{
	if (t->fields != 2 || t->field[0].number != 1 || t->field[1].number != 2 || t->field[0].repeated ||
	    t->field[1].repeated)
		return false;
	switch (t->field[0].type) {
	case MSG_DOUBLE:
	case MSG_FLOAT:
	case MSG_BYTES:
	case MSG_ENUM:
	case MSG_MESSAGE: return false;
	default: return true;
	}
}

static int fill_type(struct loading *l, struct msg_type *t, const pb_message *m, const pb_file *file)
{
	if (m->n_field > MSG_FIELDS_MAX)
		return refuse(l, "%s has %zu fields, at most %d are supported", t->name, m->n_field, MSG_FIELDS_MAX);
	struct msg_field *field = schema_take(l->s, m->n_field * sizeof *field + 1);
	t->fields = (uint16_t)m->n_field;
	t->oneofs = (uint16_t)m->n_oneof_decl;
	for (size_t i = 0; i < m->n_field; i++) {
		int err = fill_field(l, file, t, &field[i], m->field[i]);
		if (err < 0)
			return err;
	}
	schema_index(l->s, t, field);
	if (t->map_entry && !is_entry(t))
		return refuse(l, "%s: a map's entry is a key and a value", t->name);
	const struct msg_field *json = msg_field_name(t, "json", 4);
	if (t->any && (t->fields != 1 || !json || json->number != 1 || json->type != MSG_BYTES || json->repeated))
		return refuse(l, "%s: a message with the option any has one field: optional bytes json = 1", t->name);
	return 0;
}

/* ---- third pass: methods ---------------------------------------------------------------------------------- */

static bool ends_in(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);
	return n > m && !strcmp(text + n - m, end);
}

static int fill_once(struct loading *l, struct msg_method *m, const char *name)
{
	if (!name)
		return 0;
	m->once = msg_field_name(m->in, name, strlen(name));
	if (m->kind != MSG_ONCE || !m->once || m->once->type != MSG_STRING || m->once->repeated)
		return refuse(l, "%s: option once names no string of a ONCE method's request: %s", m->full, name);
	return 0;
}

static int fill_method(struct loading *l, struct msg_method *m, const pb_file *f, const pb_service *group,
		       const pb_method *from)
{
	struct schema *s = l->s;
	const ProtobufCMessage *options = from->options ? &from->options->base : NULL;
	uint64_t kind = MSG_PLAIN, inner = 1, anywhere = 0, public = 0;
	m->service = schema_take_text(s, f->package ? f->package : "", f->package ? strlen(f->package) : 0);
	m->group = schema_take_text(s, group->name, strlen(group->name));
	m->name = schema_take_text(s, from->name, strlen(from->name));
	m->full = join(s, join(s, m->service, m->group), m->name);
	m->full_n = (uint16_t)strlen(m->full);
	m->local = m->full + strlen(m->service) + 1;
	m->local_n = (uint16_t)strlen(m->local);
	if (!(m->in = schema_type(s, from->input_type)) || !(m->out = schema_type(s, from->output_type)))
		return refuse(l, "%s: unknown message type", m->full);
	if (option_varint(options, 50001, &kind) && kind > MSG_ONCE)
		return refuse(l, "%s: unknown kind %llu", m->full, (unsigned long long)kind);
	m->kind = (enum msg_kind)kind;
	m->callers = option_text(s, options, 50002);
	m->inner = !option_varint(options, 50003, &inner) || inner;
	if (!m->inner && (m->kind != MSG_READ || m->callers))
		return refuse(l, "%s: inner = false is for a READ that any service may call", m->full);
	m->anywhere = option_varint(options, 50005, &anywhere) && anywhere;
	if (m->anywhere && m->kind == MSG_ONCE)
		return refuse(l, "%s: a ONCE method goes to the owner of its key, not anywhere", m->full);
	m->attr = option_text(s, group->options ? &group->options->base : NULL, 50001);
	m->is_handler = ends_in(m->group, "Handler");
	m->is_public = option_varint(options, 50006, &public) && public;
	if (m->is_public && (!m->is_handler || m->kind == MSG_ONCE))
		return refuse(l, "%s: public is for a handler's method that is not ONCE", m->full);
	return fill_once(l, m, option_text(s, options, 50004));
}

static int by_full(const void *a, const void *b)
{
	return strcmp(((const struct msg_method *)a)->full, ((const struct msg_method *)b)->full);
}

static int fill_methods(struct loading *l, const pb_set *set)
{
	struct schema *s = l->s;
	s->method = schema_take(s, s->methods * sizeof *s->method + 1);
	size_t n = 0;
	for (size_t i = 0; i < set->n_file; i++) {
		const pb_file *f = set->file[i];
		for (size_t k = 0; ours(f) && k < f->n_service; k++)
			for (size_t j = 0; j < f->service[k]->n_method; j++) {
				int err = fill_method(l, &s->method[n++], f, f->service[k], f->service[k]->method[j]);
				if (err < 0)
					return err;
			}
	}
	qsort(s->method, s->methods, sizeof *s->method, by_full);
	return 0;
}

int schema_load(const void *bytes, size_t n, char *error, size_t error_size, struct schema **out)
{
	return schema_load_after(NULL, bytes, n, error, error_size, out);
}

int schema_load_after(const struct schema *before, const void *bytes, size_t n, char *error, size_t error_size,
		      struct schema **out)
{
	struct loading l = { .error = error, .error_size = error_size };
	pb_set *set = google__protobuf__file_descriptor_set__unpack(NULL, n, bytes);
	if (!set || !good_set(set)) {
		google__protobuf__file_descriptor_set__free_unpacked(set, NULL);
		return refuse(&l, "the descriptor set is damaged (build/loquat.desc: run make)");
	}
	struct schema *s = l.s = calloc(1, sizeof *s);
	if (!s)
		abort();
	schema_number_names(s, before);
	count(set, s);
	place(&l, set);
	int err = 0;
	for (size_t i = 0; err == 0 && i < s->types; i++)
		err = fill_type(&l, &s->type[i], l.message[i], l.type_file[i]);
	if (err == 0)
		err = fill_methods(&l, set);
	google__protobuf__file_descriptor_set__free_unpacked(set, NULL);
	if (err < 0) {
		schema_free(s);
		return err;
	}
	schema_number(s, before);
	schema_sign(s);
	*out = s;
	return 0;
}
