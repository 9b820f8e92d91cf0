#include "rpc/clientpb.h"
#include <assert.h>
#include <math.h>
#include <openssl/evp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "common/jsontext.h"

/* ---- how fields travel ---------------------------------------------------------------------------------------- */

enum form { FORM_VARINT, FORM_ZIGZAG, FORM_8, FORM_4, FORM_BYTES };
enum wire { WIRE_VARINT = 0, WIRE_8 = 1, WIRE_BYTES = 2, WIRE_4 = 5 };

static enum form form_of(const struct msg_field *f, enum clientpb_dialect dialect)
{
	bool pomelo = dialect == CLIENTPB_POMELO;

	switch (f->type) {
	case MSG_DOUBLE: return FORM_8;
	case MSG_FLOAT: return FORM_4;
	case MSG_SFIXED64:
	case MSG_SFIXED32: return pomelo ? FORM_ZIGZAG : f->type == MSG_SFIXED64 ? FORM_8 : FORM_4;
	case MSG_FIXED64:
	case MSG_FIXED32: return pomelo ? FORM_VARINT : f->type == MSG_FIXED64 ? FORM_8 : FORM_4;
	case MSG_SINT32:
	case MSG_SINT64: return FORM_ZIGZAG;
	case MSG_INT32:
	case MSG_INT64: return pomelo ? FORM_ZIGZAG : FORM_VARINT;
	case MSG_UINT32:
	case MSG_UINT64:
	case MSG_BOOL: return FORM_VARINT;
	case MSG_ENUM: return pomelo ? FORM_BYTES : FORM_VARINT;
	default: return FORM_BYTES;
	}
}

static enum wire wire_of(enum form form)
{
	static const enum wire wires[] = { WIRE_VARINT, WIRE_VARINT, WIRE_8, WIRE_4, WIRE_BYTES };

	return wires[form];
}

const char *clientpb_pomelo_type(const struct msg_field *f, bool to_client)
{
	switch (f->type) {
	case MSG_DOUBLE: return "double";
	case MSG_FLOAT: return "float";
	case MSG_INT64:
	case MSG_SINT64:
	case MSG_SFIXED64: return to_client ? "double" : "sInt32";
	case MSG_UINT64:
	case MSG_FIXED64: return to_client ? "double" : "uInt32";
	case MSG_INT32: return "int32";
	case MSG_SINT32:
	case MSG_SFIXED32: return "sInt32";
	case MSG_UINT32:
	case MSG_FIXED32:
	case MSG_BOOL: return "uInt32";
	case MSG_MESSAGE: return NULL;
	default: return "string";
	}
}

static bool takes(const struct msg_type *t, bool to_client, int depth)
{
	if (t->any || depth > CLIENTPB_DEPTH)
		return false;
	for (size_t i = 0; i < t->fields; i++) {
		const struct msg_field *f = &t->field[i];
		if (f->map || (!to_client && (f->type == MSG_BOOL || f->type == MSG_DOUBLE)))
			return false;
		if (f->number >= CLIENTPB_ANSWER_TAG && f->number < CLIENTPB_ANSWER_TAG + 4)
			return false;
		if (f->message && f->message != t && !takes(f->message, to_client, depth + 1))
			return false;
	}
	return true;
}

bool clientpb_pomelo_takes(const struct msg_type *type, bool to_client)
{
	return takes(type, to_client, 0);
}

/* ---- reading: what stands in a message ---------------------------------------------------------------------------- */

struct span_in {
	const uint8_t *p, *end;
};

static int varint(struct span_in *s, uint64_t *out)
{
	uint64_t v = 0;

	for (unsigned shift = 0; shift < 64 && s->p < s->end; shift += 7) {
		uint8_t c = *s->p++;
		v |= (uint64_t)(c & 0x7f) << shift;
		if (!(c & 0x80)) {
			*out = v;
			return 0;
		}
	}
	return ERR_BAD_REQUEST;
}

static int fixed(struct span_in *s, unsigned bytes, uint64_t *out)
{
	uint64_t v = 0;

	if ((size_t)(s->end - s->p) < bytes)
		return ERR_BAD_REQUEST;
	for (unsigned i = 0; i < bytes; i++)
		v |= (uint64_t)s->p[i] << 8 * i;
	s->p += bytes;
	*out = v;
	return 0;
}

static int number(struct span_in *s, enum wire wire, uint64_t *out)
{
	return wire == WIRE_VARINT ? varint(s, out) : fixed(s, wire == WIRE_8 ? 8 : 4, out);
}

static int bytes(struct span_in *s, struct span_in *out)
{
	uint64_t n;

	if (varint(s, &n) < 0 || n > (uint64_t)(s->end - s->p))
		return ERR_BAD_REQUEST;
	*out = (struct span_in){ s->p, s->p + n };
	s->p += n;
	return 0;
}

/* One value, or a run of numbers (packed, or pomelo's repeated), found in a message. */
struct found {
	uint32_t next; /* of the same field: index + 1 */
	bool run;
	uint64_t v;
	struct span_in s;
};
struct message {
	struct buf found; /* array of struct found */
	uint32_t first[MSG_FIELDS_MAX], last[MSG_FIELDS_MAX];
};

static void found_add(struct message *m, const struct msg_field *f, const struct found *what)
{
	struct found *all;

	buf_add(&m->found, what, sizeof(*what));
	all = (struct found *)(void *)m->found.data;
	uint32_t at = (uint32_t)(m->found.len / sizeof(*what));
	if (m->first[f->index] && f->repeated)
		all[m->last[f->index] - 1].next = at;
	else
		m->first[f->index] = at;
	m->last[f->index] = at;
}

/* Of a oneof the one that comes last counts. */
static void forget_others(struct message *m, const struct msg_type *t, const struct msg_field *f)
{
	for (size_t i = 0; i < t->fields; i++)
		if (t->field[i].oneof == f->oneof && i != f->index)
			m->first[i] = 0;
}

/* pomelo's repeated number: a count and so many elements. */
static int run_pomelo(struct span_in *s, enum wire wire, struct found *out)
{
	uint64_t n, v;

	if (varint(s, &n) < 0 || n > (uint64_t)(s->end - s->p))
		return ERR_BAD_REQUEST;
	out->run = true;
	out->s.p = s->p;
	while (n--)
		if (number(s, wire, &v) < 0)
			return ERR_BAD_REQUEST;
	out->s.end = s->p;
	return 0;
}

static int value_read(struct span_in *s, const struct msg_field *f, enum clientpb_dialect dialect, enum wire wire,
		      struct found *out)
{
	enum wire own = wire_of(form_of(f, dialect));

	if (dialect == CLIENTPB_POMELO && f->repeated && own != WIRE_BYTES)
		return run_pomelo(s, own, out);
	if (dialect == CLIENTPB_POMELO || own == wire)
		return own == WIRE_BYTES ? bytes(s, &out->s) : number(s, own, &out->v);
	if (wire != WIRE_BYTES || !f->repeated)
		return ERR_BAD_REQUEST;
	out->run = true;
	return bytes(s, &out->s);
}

static int skip(struct span_in *s, unsigned wire)
{
	struct span_in ignored;
	uint64_t v;

	switch (wire) {
	case WIRE_VARINT: return varint(s, &v);
	case WIRE_8: return fixed(s, 8, &v);
	case WIRE_4: return fixed(s, 4, &v);
	case WIRE_BYTES: return bytes(s, &ignored);
	default: return ERR_BAD_REQUEST;
	}
}

static int message_scan(struct message *m, const struct msg_type *t, enum clientpb_dialect dialect, struct span_in s)
{
	uint64_t key;

	while (s.p < s.end) {
		struct found what = { 0 };
		if (varint(&s, &key) < 0 || key >> 3 > UINT32_MAX)
			return ERR_BAD_REQUEST;
		const struct msg_field *f = msg_field_number(t, (uint32_t)(key >> 3));
		int err = f                            ? value_read(&s, f, dialect, (enum wire)(key & 7), &what)
			  : dialect == CLIENTPB_POMELO ? ERR_BAD_REQUEST
						       : skip(&s, key & 7);
		if (err < 0)
			return err;
		if (!f || f->ignored)
			continue;
		found_add(m, f, &what);
		if (f->oneof)
			forget_others(m, t, f);
	}
	return 0;
}

/* ---- reading: the text ----------------------------------------------------------------------------------------------- */

static int message_text(struct buf *out, const struct msg_type *t, enum clientpb_dialect dialect, struct span_in s,
			int depth);

static int real_text(struct buf *out, double d)
{
	if (!isfinite(d))
		return ERR_BAD_REQUEST;
	buf_addf(out, "%.17g", d);
	return 0;
}

static int float_text(struct buf *out, uint32_t bits)
{
	float f;

	memcpy(&f, &bits, sizeof(f));
	if (!isfinite(f))
		return ERR_BAD_REQUEST;
	buf_addf(out, "%.9g", (double)f);
	return 0;
}

static int signed_text(struct buf *out, int64_t v, bool wide)
{
	if (!wide && (v < INT32_MIN || v > INT32_MAX))
		return ERR_BAD_REQUEST;
	buf_addi(out, v);
	return 0;
}

static int unsigned_text(struct buf *out, uint64_t v, bool wide)
{
	if (!wide && v > UINT32_MAX)
		return ERR_BAD_REQUEST;
	buf_addu(out, v);
	return 0;
}

/* Unknown numbers are sent on as numbers: who reads the text says what is wrong with them. */
static int enum_text(struct buf *out, const struct msg_field *f, int32_t v)
{
	const struct msg_enum_value *e = msg_enum_number(f->enumeration, v);

	if (e)
		jsontext_quote(out, e->name, e->name_bytes);
	else
		buf_addi(out, v);
	return 0;
}

static int number_text(struct buf *out, const struct msg_field *f, enum clientpb_dialect dialect, uint64_t v)
{
	double d;

	if (form_of(f, dialect) == FORM_ZIGZAG)
		v = v >> 1 ^ (0 - (v & 1));
	switch (f->type) {
	case MSG_DOUBLE: memcpy(&d, &v, sizeof(d)); return real_text(out, d);
	case MSG_FLOAT: return float_text(out, (uint32_t)v);
	case MSG_BOOL: buf_addstr(out, v ? "true" : "false"); return 0;
	case MSG_ENUM: return enum_text(out, f, (int32_t)v);
	case MSG_SFIXED32:
		return signed_text(out, dialect == CLIENTPB_POMELO ? (int64_t)v : (int64_t)(int32_t)v, false);
	case MSG_INT32:
	case MSG_SINT32: return signed_text(out, (int64_t)v, false);
	case MSG_INT64:
	case MSG_SINT64:
	case MSG_SFIXED64: return signed_text(out, (int64_t)v, true);
	default: return unsigned_text(out, v, f->type == MSG_UINT64 || f->type == MSG_FIXED64);
	}
}

static void base64_text(struct buf *out, struct span_in s)
{
	size_t n = (size_t)(s.end - s.p);

	buf_addch(out, '"');
	if (n) {
		char *to = buf_reserve(out, (n + 2) / 3 * 4 + 1);
		out->len += (size_t)EVP_EncodeBlock((unsigned char *)to, s.p, (int)n);
	}
	buf_addch(out, '"');
}

static int value_text(struct buf *out, const struct msg_field *f, enum clientpb_dialect dialect,
		      const struct found *what, int depth)
{
	if (wire_of(form_of(f, dialect)) != WIRE_BYTES)
		return number_text(out, f, dialect, what->v);
	if (f->message)
		return message_text(out, f->message, dialect, what->s, depth + 1);
	if (f->type == MSG_BYTES && dialect == CLIENTPB_STANDARD)
		base64_text(out, what->s);
	else
		jsontext_quote(out, (const char *)what->s.p, (size_t)(what->s.end - what->s.p));
	return 0;
}

static int run_text(struct buf *out, const struct msg_field *f, enum clientpb_dialect dialect, struct span_in s,
		    bool *any)
{
	enum wire wire = wire_of(form_of(f, dialect));
	uint64_t v;

	while (s.p < s.end) {
		if (wire == WIRE_BYTES || number(&s, wire, &v) < 0)
			return ERR_BAD_REQUEST;
		if (*any)
			buf_addch(out, ',');
		*any = true;
		int err = number_text(out, f, dialect, v);
		if (err < 0)
			return err;
	}
	return 0;
}

/* A map's entry as "key":value; JSON's names are strings. */
static int entry_text(struct buf *out, const struct msg_field *f, const struct found *what, int depth)
{
	struct message m = { .found = BUF_INIT };
	const struct msg_field *key = msg_field_number(f->message, 1), *value = msg_field_number(f->message, 2);
	static const uint8_t nothing[1];
	const struct found *all, none = { .s = { nothing, nothing } };
	int err = message_scan(&m, f->message, CLIENTPB_STANDARD, what->s);

	if (err == 0) {
		all = (const struct found *)(const void *)m.found.data;
		const struct found *k = m.first[key->index] ? &all[m.first[key->index] - 1] : &none;
		const struct found *v = m.first[value->index] ? &all[m.first[value->index] - 1] : &none;
		bool quoted = key->type == MSG_STRING;
		if (!quoted)
			buf_addch(out, '"');
		err = value_text(out, key, CLIENTPB_STANDARD, k, depth);
		buf_addstr(out, quoted ? ":" : "\":");
		if (err == 0)
			err = value_text(out, value, CLIENTPB_STANDARD, v, depth);
	}
	buf_release(&m.found);
	return err;
}

static int list_text(struct buf *out, const struct msg_field *f, enum clientpb_dialect dialect, const struct message *m,
		     int depth)
{
	const struct found *all = (const struct found *)(const void *)m->found.data;
	bool any = false;
	int err = 0;

	buf_addch(out, f->map ? '{' : '[');
	for (uint32_t at = m->first[f->index]; at && err == 0; at = all[at - 1].next) {
		if (all[at - 1].run) {
			err = run_text(out, f, dialect, all[at - 1].s, &any);
			continue;
		}
		if (any)
			buf_addch(out, ',');
		any = true;
		err = f->map ? entry_text(out, f, &all[at - 1], depth)
			     : value_text(out, f, dialect, &all[at - 1], depth);
	}
	buf_addch(out, f->map ? '}' : ']');
	return err;
}

static int fields_text(struct buf *out, const struct msg_type *t, enum clientpb_dialect dialect,
		       const struct message *m, int depth)
{
	const struct found *all = (const struct found *)(const void *)m->found.data;
	bool any = false;
	int err = 0;

	buf_addch(out, '{');
	for (size_t i = 0; i < t->fields && err == 0; i++) {
		const struct msg_field *f = &t->field[i];
		if (!m->first[f->index])
			continue;
		if (any)
			buf_addch(out, ',');
		any = true;
		jsontext_quote(out, f->name, f->name_bytes);
		buf_addch(out, ':');
		err = f->repeated ? list_text(out, f, dialect, m, depth)
				  : value_text(out, f, dialect, &all[m->first[f->index] - 1], depth);
	}
	buf_addch(out, '}');
	return err;
}

/* An untyped message is the JSON object in its one field. */
static int any_text(struct buf *out, const struct message *m)
{
	const struct found *all = (const struct found *)(const void *)m->found.data;
	struct jsontext checked;
	const char *why;

	if (!m->first[0]) {
		buf_addstr(out, "{}");
		return 0;
	}
	const struct span_in *s = &all[m->first[0] - 1].s;
	const char *p = (const char *)s->p;
	size_t n = (size_t)(s->end - s->p);
	if (jsontext_object(p, n, &checked, &why) < 0)
		return ERR_BAD_REQUEST;
	buf_add(out, p, n);
	return 0;
}

static int message_text(struct buf *out, const struct msg_type *t, enum clientpb_dialect dialect, struct span_in s,
			int depth)
{
	struct message m = { .found = BUF_INIT };

	if (depth > CLIENTPB_DEPTH)
		return ERR_BAD_REQUEST;
	int err = message_scan(&m, t, dialect, s);
	if (err == 0)
		err = t->any ? any_text(out, &m) : fields_text(out, t, dialect, &m, depth);
	buf_release(&m.found);
	return err;
}

int clientpb_read(struct buf *out, const struct msg_type *type, enum clientpb_dialect dialect, const char *p, size_t n)
{
	size_t before = out->len;
	struct span_in s = { (const uint8_t *)p, n ? (const uint8_t *)p + n : (const uint8_t *)p }; /* p may be NULL */
	int err = message_text(out, type, dialect, s, 0);

	if (err < 0)
		out->len = before;
	return err;
}
