/*
 * Whether a set of messages may take the place of another while peers, clients and stored calls still go by the old one:
 * what both know must be the same in both, on the wire and by its name (JSON, Lua), and nothing new may have to be sent.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/msg.h"

struct follow {
	const struct schema *now, *next;
	bool *fingerprinted; /* by place in next: a once-method's request, or in one */
	char *error;
	size_t error_size;
};

static int __attribute__((format(printf, 2, 3))) refuse(const struct follow *f, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(f->error, f->error_size, fmt, ap);
	va_end(ap);
	return ERR_BAD_REQUEST;
}

static bool same_text(const char *a, const char *b)
{
	return a == b || (a && b && !strcmp(a, b));
}

/* ---- enums -------------------------------------------------------------------------------------------------- */

/* A number's name is the first that has it; the first value is what an enum is without one. */
static int enum_follows(const struct follow *f, const struct msg_enum *a, const struct msg_enum *b)
{
	for (size_t i = 0; i < a->values; i++) {
		const struct msg_enum_value *old = &a->value[i], *v = msg_enum_name(b, old->name, old->name_bytes);
		if (!v)
			return refuse(f, "%s: the value %s is gone", a->name, old->name);
		if (v->number != old->number)
			return refuse(f, "%s: %s was %d and is %d", a->name, old->name, old->number, v->number);
		if (!same_text(msg_enum_number(a, v->number)->name, msg_enum_number(b, v->number)->name))
			return refuse(f, "%s: %d was called %s and is %s", a->name, v->number,
				      msg_enum_number(a, v->number)->name, msg_enum_number(b, v->number)->name);
	}
	if (a->values && a->value[0].number != b->value[0].number)
		return refuse(f, "%s: its first value was %s and is %s", a->name, a->value[0].name, b->value[0].name);
	return 0;
}

/* ---- fields ------------------------------------------------------------------------------------------------- */

static const char *label(const struct msg_field *f)
{
	return f->map ? "map" : f->repeated ? "repeated" : f->required ? "required" : "optional";
}

static const char *type_name(const struct msg_field *f)
{
	static const char *const names[] = { "",        "double",   "float",    "int64",  "uint64",  "int32", "fixed64",
					     "fixed32", "bool",     "string",   "group",  "message", "bytes", "uint32",
					     "enum",    "sfixed32", "sfixed64", "sint32", "sint64" };
	return f->message ? f->message->name : f->enumeration ? f->enumeration->name : names[f->type];
}

static bool same_default(const struct msg_field *a, const struct msg_field *b)
{
	if (a->has_default != b->has_default || !a->has_default)
		return a->has_default == b->has_default;
	if (a->type == MSG_STRING || a->type == MSG_BYTES)
		return a->fallback.s.n == b->fallback.s.n && !memcmp(a->fallback.s.p, b->fallback.s.p, a->fallback.s.n);
	return !memcmp(&a->fallback.i, &b->fallback.i, sizeof a->fallback.i);
}

static int field_follows(const struct follow *f, const struct msg_type *t, const struct msg_field *a)
{
	const struct msg_type *next = schema_type(f->next, t->name);
	const struct msg_field *b = msg_field_number(next, a->number),
			       *named = msg_field_name(next, a->name, a->name_bytes);
	if (named && named->number != a->number)
		return refuse(f, "%s.%s: its number was %u and is %u", t->name, a->name, a->number, named->number);
	if (!b)
		return refuse(f, "%s.%s (%u) is gone", t->name, a->name, a->number);
	if (!named)
		return refuse(f, "%s: field %u was called %s and is %s", t->name, a->number, a->name, b->name);
	if (a->type != b->type || !same_text(type_name(a), type_name(b)))
		return refuse(f, "%s.%s: its type was %s and is %s", t->name, a->name, type_name(a), type_name(b));
	if (!same_text(label(a), label(b)))
		return refuse(f, "%s.%s was %s and is %s", t->name, a->name, label(a), label(b));
	if (a->packed != b->packed)
		return refuse(f, "%s.%s: its option packed has changed", t->name, a->name);
	if (a->oneof != b->oneof)
		return refuse(f, "%s.%s: the oneof it belongs to has changed", t->name, a->name);
	if (a->ignored != b->ignored)
		return refuse(f, "%s.%s: its option ignored has changed", t->name, a->name);
	if (!same_default(a, b))
		return refuse(f, "%s.%s: its default has changed", t->name, a->name);
	return a->enumeration ? enum_follows(f, a->enumeration, b->enumeration) : 0;
}

/*
 * Who does not know a new field does not send it. Nor did who made a once-call before, whose repeat is told from another
 * request by what the request is with its defaults.
 */
static int added_fits(const struct follow *f, size_t place, const struct msg_field *b)
{
	const struct msg_type *t = schema_type_at(f->next, place);
	if (b->required)
		return refuse(f, "%s.%s is new and required", t->name, b->name);
	if (b->has_default && f->fingerprinted[place])
		return refuse(f, "%s.%s is new, has a default and belongs to a once-method's request", t->name,
			      b->name);
	return 0;
}

/* ---- messages ----------------------------------------------------------------------------------------------- */

static bool has_word(const char *list, const char *word, size_t n)
{
	for (const char *at = list; at && *(at += strspn(at, ", "));) {
		size_t m = strcspn(at, ", ");
		if (m == n && !memcmp(at, word, n))
			return true;
		at += m;
	}
	return false;
}

static int pushes_follow(const struct follow *f, const struct msg_type *a, const struct msg_type *b)
{
	for (const char *at = a->push; at && *(at += strspn(at, ", "));) {
		size_t n = strcspn(at, ", ");
		if (!has_word(b->push, at, n))
			return refuse(f, "%s: it is not what push %.*s carries any more", a->name, (int)n, at);
		at += n;
	}
	return 0;
}

static size_t place_of(const struct follow *f, const struct msg_type *t)
{
	return (size_t)(t - schema_type_at(f->next, 0));
}

static int type_follows(const struct follow *f, const struct msg_type *a)
{
	const struct msg_type *b = schema_type(f->next, a->name);
	int err = 0;
	if (!b)
		return refuse(f, "the message %s is gone", a->name);
	if (a->any != b->any || a->map_entry != b->map_entry)
		return refuse(f, "%s: its option any has changed", a->name);
	for (size_t i = 0; err == 0 && i < a->fields; i++)
		err = field_follows(f, a, &a->field[i]);
	for (size_t i = 0; err == 0 && i < b->fields; i++)
		if (!msg_field_number(a, b->field[i].number))
			err = added_fits(f, place_of(f, b), &b->field[i]);
	return err < 0 ? err : pushes_follow(f, a, b);
}

static void note_fingerprinted(const struct follow *f, const struct msg_type *t)
{
	bool *seen = &f->fingerprinted[place_of(f, t)];
	if (*seen)
		return;
	*seen = true;
	for (size_t i = 0; i < t->fields; i++)
		if (t->field[i].message)
			note_fingerprinted(f, t->field[i].message);
}

/* ---- methods ------------------------------------------------------------------------------------------------ */

static int method_follows(const struct follow *f, const struct msg_method *a)
{
	static const char *const kinds[] = { "PLAIN", "READ", "ONCE" };
	const struct msg_method *b = schema_method(f->next, a->full, a->full_n);
	if (!b)
		return refuse(f, "the method %s is gone", a->full);
	if (a->kind != b->kind)
		return refuse(f, "%s: its kind was %s and is %s", a->full, kinds[a->kind], kinds[b->kind]);
	if (strcmp(a->in->name, b->in->name))
		return refuse(f, "%s: its request was %s and is %s", a->full, a->in->name, b->in->name);
	if (strcmp(a->out->name, b->out->name))
		return refuse(f, "%s: its answer was %s and is %s", a->full, a->out->name, b->out->name);
	if (a->anywhere != b->anywhere || !same_text(a->attr, b->attr))
		return refuse(f, "%s: what it is routed by has changed", a->full);
	if (!a->once != !b->once || (a->once && strcmp(a->once->name, b->once->name)))
		return refuse(f, "%s: its option once has changed", a->full);
	return 0;
}

int schema_follows(const struct schema *now, const struct schema *next, char *error, size_t error_size)
{
	struct follow f = { now, next, calloc(schema_types(next) + 1, sizeof(bool)), error, error_size };
	int err = 0;
	if (!f.fingerprinted)
		abort();
	for (size_t i = 0; err == 0 && i < schema_methods(now); i++)
		err = method_follows(&f, schema_method_at(now, i));
	for (size_t i = 0; i < schema_methods(next); i++)
		if (schema_method_at(next, i)->kind == MSG_ONCE)
			note_fingerprinted(&f, schema_method_at(next, i)->in);
	for (size_t i = 0; err == 0 && i < schema_types(now); i++)
		err = type_follows(&f, schema_type_at(now, i));
	free(f.fingerprinted);
	return err;
}
