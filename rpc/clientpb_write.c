/* The writing half of clientpb.h: JSON in, a client's protobuf out. */
#include <jansson.h>
#include <math.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "rpc/clientpb.h"

const char *const clientpb_answer_fields[4] = { "code", "error", "message", "effect" };

static void varint(struct buf *out, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		buf_addch(out, (char)(v | 0x80));
	buf_addch(out, (char)v);
}

static void fixed(struct buf *out, uint64_t v, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		buf_addch(out, (char)(v >> 8 * i));
}

static void zigzag(struct buf *out, int64_t v)
{
	varint(out, (uint64_t)v << 1 ^ (uint64_t)(v >> 63));
}

static void key(struct buf *out, uint32_t number, unsigned wire)
{
	varint(out, (uint64_t)number << 3 | wire);
}

/* Puts the length before what was written since start. */
static void prefix(struct buf *out, size_t start)
{
	size_t n = out->len - start, head_n = 1;

	for (size_t v = n; v >= 0x80; v >>= 7)
		head_n++;
	buf_reserve(out, head_n);
	memmove(out->data + start + head_n, out->data + start, n);
	out->len = start;
	varint(out, n);
	out->len += n;
}

/* A browser's codec reads each UTF-16 unit as a character of its own. */
static void text(struct buf *out, const char *p, size_t n, bool surrogates)
{
	const uint8_t *u = (const uint8_t *)p;
	size_t start = out->len;

	for (size_t i = 0; surrogates && i < n; i++) {
		if (u[i] < 0xf0) {
			buf_addch(out, p[i]);
			continue;
		}
		uint32_t c =
			(u[i] & 7u) << 18 | (u[i + 1] & 0x3fu) << 12 | (u[i + 2] & 0x3fu) << 6 | (u[i + 3] & 0x3fu);
		uint32_t pair[2] = { 0xd800 + ((c - 0x10000) >> 10), 0xdc00 + (c & 0x3ff) };
		for (int k = 0; k < 2; k++) {
			buf_addch(out, (char)(0xe0 | pair[k] >> 12));
			buf_addch(out, (char)(0x80 | (pair[k] >> 6 & 0x3f)));
			buf_addch(out, (char)(0x80 | (pair[k] & 0x3f)));
		}
		i += 3; /* jansson has checked that they are there */
	}
	if (!surrogates)
		buf_add(out, p, n);
	prefix(out, start);
}

/* ---- numbers ---------------------------------------------------------------------------------------------------- */

static bool integer(const json_t *v, int64_t *out)
{
	double d;

	if (json_is_integer(v))
		*out = json_integer_value(v);
	else if (json_is_boolean(v))
		*out = json_is_true(v);
	else if (!json_is_real(v))
		return false;
	else if (d = json_real_value(v), d != floor(d) || fabs(d) > 9e15)
		return false;
	else
		*out = (int64_t)d;
	return true;
}

static bool in_range(enum msg_field_type type, int64_t v)
{
	switch (type) {
	case MSG_INT32:
	case MSG_SINT32:
	case MSG_SFIXED32:
	case MSG_ENUM: return v >= INT32_MIN && v <= INT32_MAX;
	case MSG_UINT32:
	case MSG_FIXED32: return v >= 0 && v <= UINT32_MAX;
	case MSG_UINT64:
	case MSG_FIXED64: return v >= 0;
	default: return true;
	}
}

static void real(struct buf *out, double d, bool wide)
{
	float f = (float)d;
	uint64_t bits = 0;

	if (wide)
		memcpy(&bits, &d, sizeof(d));
	else
		memcpy(&bits, &f, sizeof(f));
	fixed(out, bits, wide ? 8 : 4);
}

static int enum_write(struct buf *out, const struct msg_field *f, const json_t *v)
{
	const struct msg_enum_value *e = NULL;
	int64_t i;

	if (json_is_string(v))
		e = msg_enum_name(f->enumeration, json_string_value(v), json_string_length(v));
	if (!e && (!integer(v, &i) || !in_range(MSG_ENUM, i)))
		return ERR_BAD_REQUEST;
	varint(out, (uint64_t)(int64_t)(e ? e->number : i));
	return 0;
}

/* Numbers of the standard dialect. */
static int number_standard(struct buf *out, const struct msg_field *f, int64_t v)
{
	switch (f->type) {
	case MSG_SINT32:
	case MSG_SINT64: zigzag(out, v); break;
	case MSG_FIXED32:
	case MSG_SFIXED32: fixed(out, (uint64_t)v, 4); break;
	case MSG_FIXED64:
	case MSG_SFIXED64: fixed(out, (uint64_t)v, 8); break;
	case MSG_BOOL: varint(out, v != 0); break;
	default: varint(out, (uint64_t)v); break;
	}
	return 0;
}

static int number(struct buf *out, const struct msg_field *f, const struct clientpb_write *w, const json_t *v)
{
	int64_t i;

	if (f->type == MSG_DOUBLE || f->type == MSG_FLOAT) {
		if (!json_is_number(v))
			return ERR_BAD_REQUEST;
		real(out, json_number_value(v), f->type == MSG_DOUBLE);
		return 0;
	}
	if (f->type == MSG_ENUM)
		return enum_write(out, f, v);
	if (!integer(v, &i) || !in_range(f->type, i))
		return ERR_BAD_REQUEST;
	if (w->dialect == CLIENTPB_STANDARD)
		return number_standard(out, f, i);
	switch (clientpb_pomelo_type(f, true)[0]) {
	case 'd': real(out, (double)i, true); break;
	case 'u': varint(out, (uint64_t)i); break;
	default: zigzag(out, i); break;
	}
	return 0;
}

static unsigned wire(const struct msg_field *f, const struct clientpb_write *w)
{
	if (w->dialect == CLIENTPB_POMELO) {
		const char *type = clientpb_pomelo_type(f, true);
		return !type || *type == 's' ? (type && type[1] == 'I' ? 0 : 2)
		       : *type == 'd'        ? 1
		       : *type == 'f'        ? 5
					     : 0;
	}
	switch (f->type) {
	case MSG_DOUBLE:
	case MSG_FIXED64:
	case MSG_SFIXED64: return 1;
	case MSG_FLOAT:
	case MSG_FIXED32:
	case MSG_SFIXED32: return 5;
	case MSG_STRING:
	case MSG_BYTES:
	case MSG_MESSAGE: return 2;
	default: return 0;
	}
}

/* ---- messages --------------------------------------------------------------------------------------------------------- */

static int message(struct buf *out, const struct msg_type *t, const struct clientpb_write *w, const json_t *o,
		   int depth);

static int base64(struct buf *out, const char *p, size_t n)
{
	size_t start = out->len, pad = n && p[n - 1] == '=' ? n > 1 && p[n - 2] == '=' ? 2 : 1 : 0;

	if (n % 4)
		return ERR_BAD_REQUEST;
	if (n) {
		unsigned char *to = (unsigned char *)buf_reserve(out, n);
		int got = EVP_DecodeBlock(to, (const unsigned char *)p, (int)n);
		if (got < 0)
			return ERR_BAD_REQUEST;
		out->len += (size_t)got - pad;
	}
	prefix(out, start);
	return 0;
}

/* A value behind its key. */
static int value(struct buf *out, const struct msg_field *f, const struct clientpb_write *w, const json_t *v, int depth)
{
	size_t start = out->len;

	if (wire(f, w) != 2)
		return number(out, f, w, v);
	if (f->type == MSG_MESSAGE) {
		int err = message(out, f->message, w, v, depth + 1);
		if (err == 0)
			prefix(out, start);
		return err;
	}
	if (!json_is_string(v))
		return ERR_BAD_REQUEST;
	if (f->type == MSG_BYTES && w->dialect == CLIENTPB_STANDARD)
		return base64(out, json_string_value(v), json_string_length(v));
	text(out, json_string_value(v), json_string_length(v), w->surrogates);
	return 0;
}

/* Numbers in a run: packed by bytes, or pomelo's by count. */
static int run(struct buf *out, const struct msg_field *f, const struct clientpb_write *w, const json_t *list)
{
	bool pomelo = w->dialect == CLIENTPB_POMELO;
	size_t start, i;
	const json_t *v;
	int err;

	key(out, f->number, pomelo ? wire(f, w) : 2);
	if (pomelo)
		varint(out, json_array_size(list));
	start = out->len;
	json_array_foreach(list, i, v) if ((err = number(out, f, w, v)) < 0) return err;
	if (!pomelo)
		prefix(out, start);
	return 0;
}

static int list_write(struct buf *out, const struct msg_field *f, const struct clientpb_write *w, const json_t *list,
		      int depth)
{
	size_t i;
	const json_t *v;
	int err;

	/* Lua's empty table is an empty object where its type is not known */
	if (!json_is_array(list))
		return json_is_object(list) && !json_object_size(list) ? 0 : ERR_BAD_REQUEST;
	if (!json_array_size(list))
		return 0;
	if (wire(f, w) != 2 && (f->packed || w->dialect == CLIENTPB_POMELO))
		return run(out, f, w, list);
	json_array_foreach(list, i, v)
	{
		key(out, f->number, wire(f, w));
		if ((err = value(out, f, w, v, depth)) < 0)
			return err;
	}
	return 0;
}

/* A map's key is a string in JSON whatever it is in the message. */
static int map_key(struct buf *out, const struct msg_field *f, const struct clientpb_write *w, const char *name)
{
	json_t *v = NULL;

	if (f->type == MSG_STRING)
		v = json_string(name);
	else if (f->type == MSG_BOOL)
		v = json_boolean(strcmp(name, "true") == 0);
	else
		v = json_loads(name, JSON_DECODE_ANY, NULL);
	key(out, 1, wire(f, w));
	int err = v ? value(out, f, w, v, 0) : ERR_BAD_REQUEST;
	json_decref(v);
	return err;
}

static int map_write(struct buf *out, const struct msg_field *f, const struct clientpb_write *w, const json_t *o,
		     int depth)
{
	const struct msg_field *k = msg_field_number(f->message, 1), *v = msg_field_number(f->message, 2);
	const char *name;
	json_t *one;
	int err;

	if (!json_is_object(o))
		return ERR_BAD_REQUEST;
	json_object_foreach((json_t *)(uintptr_t)o, name, one)
	{
		key(out, f->number, 2);
		size_t start = out->len;
		if ((err = map_key(out, k, w, name)) < 0)
			return err;
		key(out, 2, wire(v, w));
		if ((err = value(out, v, w, one, depth)) < 0)
			return err;
		prefix(out, start);
	}
	return 0;
}

static int any_write(struct buf *out, const json_t *o)
{
	char *json = json_dumps(o, JSON_COMPACT);

	if (!json)
		return ERR_BAD_REQUEST;
	key(out, 1, 2);
	size_t start = out->len;
	buf_addstr(out, json);
	prefix(out, start);
	free(json);
	return 0;
}

static int message(struct buf *out, const struct msg_type *t, const struct clientpb_write *w, const json_t *o,
		   int depth)
{
	if (!json_is_object(o) || depth > CLIENTPB_DEPTH)
		return ERR_BAD_REQUEST;
	if (t->any)
		return any_write(out, o);
	for (size_t i = 0; i < t->fields; i++) {
		const struct msg_field *f = &t->field[i];
		const json_t *v = json_object_get(o, f->name);
		int err = 0;
		if (!v || json_is_null(v)) {
			if (f->required)
				return ERR_BAD_REQUEST;
			continue;
		}
		if (f->map) {
			err = map_write(out, f, w, v, depth);
		} else if (f->repeated) {
			err = list_write(out, f, w, v, depth);
		} else {
			key(out, f->number, wire(f, w));
			err = value(out, f, w, v, depth);
		}
		if (err < 0)
			return err;
	}
	return 0;
}

/* What stands beside the message's own fields in every answer. */
static void answer_fields(struct buf *out, const struct msg_type *t, const struct clientpb_write *w, const json_t *o)
{
	for (unsigned i = 0; i < 4; i++) {
		const char *name = clientpb_answer_fields[i];
		const json_t *v = json_object_get(o, name);
		if (!v || msg_field_name(t, name, strlen(name)))
			continue;
		if (i == 0 && json_is_integer(v)) {
			key(out, CLIENTPB_ANSWER_TAG, 0);
			varint(out, (uint64_t)json_integer_value(v));
		} else if (i > 0 && (json_is_string(v) || json_is_true(v))) {
			key(out, CLIENTPB_ANSWER_TAG + i, 2);
			if (json_is_string(v))
				text(out, json_string_value(v), json_string_length(v), w->surrogates);
			else /* pomelo's example answers error: true */
				text(out, "true", 4, false);
		}
	}
}

int clientpb_write(struct buf *out, const struct msg_type *type, const struct clientpb_write *w, const char *json,
		   size_t n)
{
	size_t before = out->len;
	json_t *o = json_loadb(json, n, JSON_ALLOW_NUL, NULL);
	int err = message(out, type, w, o, 0);
	bool refused = json_integer_value(json_object_get(o, "code")) >= 300;

	if (err < 0 && refused && json_is_object(o)) { /* an error has none of the answer's fields */
		out->len = before;
		err = 0;
	}
	if (err == 0 && w->dialect == CLIENTPB_POMELO)
		answer_fields(out, type, w, o);
	json_decref(o);
	if (err < 0)
		out->len = before;
	return err;
}

/* ---- pitaya's errors ------------------------------------------------------------------------------------------------------ */

static void field_text(struct buf *out, uint32_t number, const char *p)
{
	key(out, number, 2);
	text(out, p, strlen(p), false);
}

static void metadata(struct buf *out, const char *name, const char *v)
{
	key(out, 3, 2);
	size_t start = out->len;
	field_text(out, 1, name);
	field_text(out, 2, v);
	prefix(out, start);
}

void clientpb_pitaya_error(struct buf *out, const char *code, const char *message_text, const char *error,
			   const char *effect)
{
	field_text(out, 1, code);
	field_text(out, 2, message_text);
	metadata(out, "error", error);
	metadata(out, "effect", effect);
}
