#include "rpc/frame.h"
#include <assert.h>
#include <string.h>
#include "common/err.h"

/* Field tags of proto/rpc.proto: number << 3 | wire type. */
enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };
#define TAG(number, wire) ((number) << 3 | (wire))

/* ---- writing ---------------------------------------------------------------------------------------- */

static char *put_varint(char *p, uint64_t v)
{
	while (v >= 0x80) {
		*p++ = (char)(v | 0x80);
		v >>= 7;
	}
	*p++ = (char)v;
	return p;
}

static char *put_uint(char *p, uint32_t tag, uint64_t v)
{
	if (!v)
		return p;
	return put_varint(put_varint(p, tag), v);
}

static char *put_fixed64(char *p, uint32_t tag, uint64_t v)
{
	if (!v)
		return p;
	p = put_varint(p, tag);
	memcpy(p, &v, 8); /* little-endian, as the wire; see the assertion in frame_put_header */
	return p + 8;
}

static char *put_span(char *p, uint32_t tag, struct span s)
{
	if (!s.n)
		return p;
	p = put_varint(put_varint(p, tag), s.n);
	memcpy(p, s.p, s.n);
	return p + s.n;
}

/* A nested message of a few small fields: its length is filled in afterwards, in one or two bytes. */
static char *put_nested(char *p, uint32_t tag, const char *inner, size_t n)
{
	return put_span(p, tag, span_of(inner, n));
}

size_t frame_put_header(char *out, enum frame_type type, size_t payload)
{
	_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire is little-endian");
	uint32_t length = (uint32_t)payload;
	uint16_t version = FRAME_VERSION;

	memcpy(out, &length, 4);
	out[4] = (char)type;
	out[5] = 0;
	memcpy(out + 6, &version, 2);
	return FRAME_HEADER;
}

size_t frame_put_empty(char *out, enum frame_type type)
{
	return frame_put_header(out, type, 0);
}

size_t frame_request_bytes(const struct frame_request *r)
{
	return FRAME_HEADER + 160 + r->service.n + r->method_name.n + r->key.n + r->uid.n + r->once.key.n + r->body.n;
}

size_t frame_response_bytes(const struct frame_response *r)
{
	size_t n = FRAME_HEADER + 64 + r->message.n + r->body.n;

	for (unsigned i = 0; i < r->attrs; i++)
		n += 24 + r->attr[i].name.n + r->attr[i].value.n;
	return n;
}

static char *put_session(char *p, uint64_t sid, struct span uid)
{
	size_t n = (sid ? 9 : 0);

	if (uid.n)
		n += 1 + (uid.n < 128 ? 1 : uid.n < 16384 ? 2 : 3) + uid.n;
	p = put_varint(put_varint(p, TAG(8, BYTES)), n);
	p = put_fixed64(p, TAG(1, FIXED64), sid);
	return put_span(p, TAG(2, BYTES), uid);
}

static char *put_once(char *p, const struct frame_request *r)
{
	char inner[64 + 256], *q = inner;

	assert(r->once.key.n <= 256);
	q = put_uint(q, TAG(1, VARINT), r->once.client);
	q = put_uint(q, TAG(2, VARINT), r->once.epoch);
	q = put_uint(q, TAG(3, VARINT), r->once.seq);
	q = put_uint(q, TAG(4, VARINT), r->once.first_incomplete);
	q = put_uint(q, TAG(5, VARINT), r->once.attempt);
	q = put_span(q, TAG(6, BYTES), r->once.key);
	return put_nested(p, TAG(9, BYTES), inner, (size_t)(q - inner));
}

size_t frame_put_request(char *out, const struct frame_request *r, enum frame_type type)
{
	char *start = out + FRAME_HEADER, *p = start;

	p = put_uint(p, TAG(1, VARINT), r->id);
	p = put_uint(p, TAG(2, VARINT), r->method);
	p = put_span(p, TAG(3, BYTES), r->service);
	p = put_span(p, TAG(4, BYTES), r->method_name);
	p = put_uint(p, TAG(5, VARINT), r->time_left_ms);
	p = put_fixed64(p, TAG(6, FIXED64), r->trace);
	p = put_span(p, TAG(7, BYTES), r->key);
	if (r->sid || r->uid.n)
		p = put_session(p, r->sid, r->uid);
	if (r->has_once)
		p = put_once(p, r);
	p = put_uint(p, TAG(10, VARINT), r->kind);
	p = put_uint(p, TAG(11, VARINT), r->json);
	p = put_span(p, TAG(15, BYTES), r->body);
	frame_put_header(out, type, (size_t)(p - start));
	return (size_t)(p - out);
}

size_t frame_put_response(char *out, const struct frame_response *r)
{
	char *start = out + FRAME_HEADER, *p = start;

	p = put_uint(p, TAG(1, VARINT), r->id);
	p = put_uint(p, TAG(2, VARINT), r->error);
	p = put_uint(p, TAG(3, VARINT), r->effect);
	p = put_span(p, TAG(4, BYTES), r->message);
	p = put_uint(p, TAG(5, VARINT), r->json);
	for (unsigned i = 0; i < r->attrs; i++) {
		size_t n = 0, name = r->attr[i].name.n, value = r->attr[i].value.n;

		assert(name < 128 && value < 128);
		n = (name ? 2 + name : 0) + (value ? 2 + value : 0);
		p = put_varint(put_varint(p, TAG(6, BYTES)), n);
		p = put_span(p, TAG(1, BYTES), r->attr[i].name);
		p = put_span(p, TAG(2, BYTES), r->attr[i].value);
	}
	p = put_span(p, TAG(15, BYTES), r->body);
	frame_put_header(out, FRAME_RESPONSE, (size_t)(p - start));
	return (size_t)(p - out);
}

/* ---- reading ---------------------------------------------------------------------------------------- */

ssize_t frame_split(const char *data, size_t n, enum frame_type *type, struct span *payload)
{
	uint32_t length;
	uint16_t version;

	if (n < FRAME_HEADER)
		return 0;
	memcpy(&length, data, 4);
	memcpy(&version, data + 6, 2);
	if (version != FRAME_VERSION || data[4] < FRAME_HELLO || data[4] > FRAME_GOAWAY || length > FRAME_PAYLOAD_MAX)
		return ERR_CORRUPT;
	if (n - FRAME_HEADER < length)
		return 0;
	*type = (enum frame_type)data[4];
	*payload = span_of(data + FRAME_HEADER, length);
	return (ssize_t)(FRAME_HEADER + (size_t)length);
}

struct cursor {
	const char *p, *end;
	bool bad;
};

static uint64_t get_long_varint(struct cursor *c)
{
	uint64_t v = 0;

	for (unsigned shift = 0; shift < 64 && c->p < c->end; shift += 7) {
		uint8_t b = (uint8_t)*c->p++;

		v |= (uint64_t)(b & 0x7f) << shift;
		if (!(b & 0x80))
			return v;
	}
	c->bad = true;
	return 0;
}

/* Nearly all are of one byte. */
static inline uint64_t get_varint(struct cursor *c)
{
	if (c->p < c->end && !(*c->p & 0x80))
		return (uint8_t)*c->p++;
	return get_long_varint(c);
}

static uint64_t get_fixed64(struct cursor *c)
{
	uint64_t v = 0;

	if (c->end - c->p < 8) {
		c->bad = true;
		return 0;
	}
	memcpy(&v, c->p, 8);
	c->p += 8;
	return v;
}

static struct span get_span(struct cursor *c)
{
	uint64_t n = get_varint(c);
	struct span s = { c->p, 0 };

	if (c->bad || n > (uint64_t)(c->end - c->p)) {
		c->bad = true;
		return s;
	}
	s.n = (size_t)n;
	c->p += n;
	return s;
}

static void skip(struct cursor *c, uint32_t wire)
{
	switch (wire) {
	case VARINT: get_varint(c); break;
	case FIXED64: get_fixed64(c); break;
	case BYTES: get_span(c); break;
	case FIXED32:
		if (c->end - c->p < 4)
			c->bad = true;
		else
			c->p += 4;
		break;
	default: c->bad = true; /* groups never occur in our messages */
	}
}

/* A tag of a field we know; 0 at the end or when the bytes are bad. Field number 0 is bad. */
static uint32_t get_tag(struct cursor *c)
{
	uint64_t tag;

	if (c->bad || c->p >= c->end)
		return 0;
	tag = get_varint(c);
	if (tag < 8 || tag > UINT32_MAX) {
		c->bad = true;
		return 0;
	}
	return (uint32_t)tag;
}

static struct cursor cursor_of(struct span s)
{
	return (struct cursor){ s.p, s.p + s.n, false };
}

static bool get_session(struct span s, struct frame_request *out)
{
	struct cursor c = cursor_of(s);
	uint32_t tag;

	while ((tag = get_tag(&c))) {
		switch (tag) {
		case TAG(1, FIXED64): out->sid = get_fixed64(&c); break;
		case TAG(2, BYTES): out->uid = get_span(&c); break;
		default: skip(&c, tag & 7);
		}
	}
	return !c.bad;
}

static bool get_once(struct span s, struct frame_request *out)
{
	struct cursor c = cursor_of(s);
	uint32_t tag;

	out->has_once = true;
	while ((tag = get_tag(&c))) {
		switch (tag) {
		case TAG(1, VARINT): out->once.client = (uint32_t)get_varint(&c); break;
		case TAG(2, VARINT): out->once.epoch = (uint32_t)get_varint(&c); break;
		case TAG(3, VARINT): out->once.seq = get_varint(&c); break;
		case TAG(4, VARINT): out->once.first_incomplete = get_varint(&c); break;
		case TAG(5, VARINT): out->once.attempt = (uint32_t)get_varint(&c); break;
		case TAG(6, BYTES): out->once.key = get_span(&c); break;
		default: skip(&c, tag & 7);
		}
	}
	return !c.bad && out->once.key.n <= 256;
}

int frame_get_request(struct span payload, struct frame_request *out)
{
	struct cursor c = cursor_of(payload);
	uint32_t tag;

	memset(out, 0, sizeof *out);
	while ((tag = get_tag(&c))) {
		switch (tag) {
		case TAG(1, VARINT): out->id = get_varint(&c); break;
		case TAG(2, VARINT): out->method = (uint32_t)get_varint(&c); break;
		case TAG(3, BYTES): out->service = get_span(&c); break;
		case TAG(4, BYTES): out->method_name = get_span(&c); break;
		case TAG(5, VARINT): out->time_left_ms = (uint32_t)get_varint(&c); break;
		case TAG(6, FIXED64): out->trace = get_fixed64(&c); break;
		case TAG(7, BYTES): out->key = get_span(&c); break;
		case TAG(8, BYTES): c.bad |= !get_session(get_span(&c), out); break;
		case TAG(9, BYTES): c.bad |= !get_once(get_span(&c), out); break;
		case TAG(10, VARINT): out->kind = (uint32_t)get_varint(&c); break;
		case TAG(11, VARINT): out->json = get_varint(&c) != 0; break;
		case TAG(15, BYTES): out->body = get_span(&c); break;
		default: skip(&c, tag & 7);
		}
	}
	return c.bad ? ERR_CORRUPT : 0;
}

static bool get_attr(struct span s, struct frame_response *out)
{
	struct cursor c = cursor_of(s);
	uint32_t tag;
	unsigned i = out->attrs;

	if (i == FRAME_ATTRS_MAX)
		return false;
	while ((tag = get_tag(&c))) {
		switch (tag) {
		case TAG(1, BYTES): out->attr[i].name = get_span(&c); break;
		case TAG(2, BYTES): out->attr[i].value = get_span(&c); break;
		default: skip(&c, tag & 7);
		}
	}
	out->attrs = i + 1;
	return !c.bad;
}

int frame_get_response(struct span payload, struct frame_response *out)
{
	struct cursor c = cursor_of(payload);
	uint32_t tag;

	memset(out, 0, sizeof *out);
	while ((tag = get_tag(&c))) {
		switch (tag) {
		case TAG(1, VARINT): out->id = get_varint(&c); break;
		case TAG(2, VARINT): out->error = (uint32_t)get_varint(&c); break;
		case TAG(3, VARINT): out->effect = (uint32_t)get_varint(&c); break;
		case TAG(4, BYTES): out->message = get_span(&c); break;
		case TAG(5, VARINT): out->json = get_varint(&c) != 0; break;
		case TAG(6, BYTES): c.bad |= !get_attr(get_span(&c), out); break;
		case TAG(15, BYTES): out->body = get_span(&c); break;
		default: skip(&c, tag & 7);
		}
	}
	return c.bad ? ERR_CORRUPT : 0;
}
