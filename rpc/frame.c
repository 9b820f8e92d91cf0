#include "rpc/frame.h"
#include <assert.h>
#include <string.h>
#include "common/err.h"

/* Field tags of proto/rpc.proto: number << 3 | wire type. */
enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };
#define TAG(number, wire) ((number) << 3 | (wire))

/* ---- writing ---------------------------------------------------------------------------------------- */

/* Inline, so that a tag is one byte stored and the place in the bytes stays in a register. */
static inline char *put_varint(char *p, uint64_t v)
{
	while (v >= 0x80) {
		*p++ = (char)(v | 0x80);
		v >>= 7;
	}
	*p++ = (char)v;
	return p;
}

static inline char *put_uint(char *p, uint32_t tag, uint64_t v)
{
	if (!v)
		return p;
	return put_varint(put_varint(p, tag), v);
}

static inline char *put_fixed64(char *p, uint32_t tag, uint64_t v)
{
	if (!v)
		return p;
	p = put_varint(p, tag);
	memcpy(p, &v, 8); /* little-endian, as the wire; see the assertion in frame_put_header */
	return p + 8;
}

static inline char *put_span(char *p, uint32_t tag, struct span s)
{
	if (!s.n)
		return p;
	return span_copy(put_varint(put_varint(p, tag), s.n), s);
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

/* Nearly all once-calls have their two numbers alone. */
enum { TWO_NUMBERS = 18 };

static inline char *put_two_numbers(char *p, const struct frame_request *r)
{
	p[0] = TAG(9, BYTES);
	p[1] = TWO_NUMBERS;
	p[2] = TAG(3, FIXED64);
	memcpy(p + 3, &r->once.seq, 8);
	p[11] = TAG(4, FIXED64);
	memcpy(p + 12, &r->once.first_incomplete, 8);
	return p + 2 + TWO_NUMBERS;
}

/* Its length is in front of it: nearly always one byte, else the message moves. */
static __attribute__((noinline)) char *put_whole_once(char *p, const struct frame_request *r)
{
	char *inner = p + 2, *q = inner;

	assert(r->once.key.n <= 256);
	q = put_uint(q, TAG(1, VARINT), r->once.client);
	q = put_uint(q, TAG(2, VARINT), r->once.epoch);
	q = put_fixed64(q, TAG(3, FIXED64), r->once.seq);
	q = put_fixed64(q, TAG(4, FIXED64), r->once.first_incomplete);
	q = put_uint(q, TAG(5, VARINT), r->once.attempt);
	q = put_span(q, TAG(6, BYTES), r->once.key);
	size_t n = (size_t)(q - inner);

	if (!n)
		return p;
	if (n >= 128)
		memmove(inner + 1, inner, n);
	return put_varint(put_varint(p, TAG(9, BYTES)), n) + n;
}

static inline char *put_once(char *p, const struct frame_request *r)
{
	bool more = r->once.client || r->once.epoch || r->once.attempt || r->once.key.n;

	if (more || !r->once.seq || !r->once.first_incomplete)
		return put_whole_once(p, r);
	return put_two_numbers(p, r);
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

/*
 * Each reads at p, before end, and returns where it ended; NULL: truncated or ill-formed. Small and inline, so that the
 * place in the bytes stays in a register over a whole message.
 */
static const char *long_varint(const char *p, const char *end, uint64_t *out)
{
	uint64_t v = 0;

	for (unsigned shift = 0; shift < 64 && p < end; shift += 7) {
		uint8_t b = (uint8_t)*p++;

		v |= (uint64_t)(b & 0x7f) << shift;
		if (!(b & 0x80)) {
			*out = v;
			return p;
		}
	}
	return NULL;
}

/* Nearly all are of one byte. */
static inline const char *get_varint(const char *p, const char *end, uint64_t *out)
{
	if (p < end && !(*p & 0x80)) {
		*out = (uint8_t)*p;
		return p + 1;
	}
	return long_varint(p, end, out);
}

static inline const char *get_uint32(const char *p, const char *end, uint32_t *out)
{
	uint64_t v;

	if ((p = get_varint(p, end, &v)))
		*out = (uint32_t)v;
	return p;
}

static inline const char *get_bool(const char *p, const char *end, bool *out)
{
	uint64_t v;

	if ((p = get_varint(p, end, &v)))
		*out = v != 0;
	return p;
}

static inline const char *get_fixed64(const char *p, const char *end, uint64_t *out)
{
	if (end - p < 8)
		return NULL;
	memcpy(out, p, 8);
	return p + 8;
}

static inline const char *get_span(const char *p, const char *end, struct span *out)
{
	uint64_t n;

	if (!(p = get_varint(p, end, &n)) || n > (uint64_t)(end - p))
		return NULL;
	*out = span_of(p, (size_t)n);
	return p + n;
}

static const char *skip(const char *p, const char *end, uint32_t wire)
{
	struct span bytes;
	uint64_t v;

	switch (wire) {
	case VARINT: return get_varint(p, end, &v);
	case FIXED64: return get_fixed64(p, end, &v);
	case BYTES: return get_span(p, end, &bytes);
	case FIXED32: return end - p < 4 ? NULL : p + 4;
	default: return NULL; /* groups never occur in our messages */
	}
}

/* Field number 0 is bad. */
static inline const char *get_tag(const char *p, const char *end, uint64_t *tag)
{
	p = get_varint(p, end, tag);
	return p && *tag >= 8 && *tag <= UINT32_MAX ? p : NULL;
}

static const char *get_session(const char *p, const char *end, struct frame_request *out)
{
	struct span s;
	uint64_t tag;

	if (!(end = get_span(p, end, &s)))
		return NULL;
	for (p = s.p; p && p < end;) {
		if (!(p = get_tag(p, end, &tag)))
			return NULL;
		switch (tag) {
		case TAG(1, FIXED64): p = get_fixed64(p, end, &out->sid); break;
		case TAG(2, BYTES): p = get_span(p, end, &out->uid); break;
		default: p = skip(p, end, tag & 7);
		}
	}
	return p;
}

/*
 * Not inline: the other fields' places would leave their registers for it. Older processes write the two numbers as varints;
 * while a cluster is renewed instance by instance both are there.
 */
static __attribute__((noinline)) const char *get_whole_once(const char *p, const char *end, struct frame_request *out)
{
	struct span s;
	uint64_t tag;

	if (!(end = get_span(p, end, &s)))
		return NULL;
	out->has_once = true;
	for (p = s.p; p && p < end;) {
		if (!(p = get_tag(p, end, &tag)))
			return NULL;
		switch (tag) {
		case TAG(1, VARINT): p = get_uint32(p, end, &out->once.client); break;
		case TAG(2, VARINT): p = get_uint32(p, end, &out->once.epoch); break;
		case TAG(3, FIXED64): p = get_fixed64(p, end, &out->once.seq); break;
		case TAG(4, FIXED64): p = get_fixed64(p, end, &out->once.first_incomplete); break;
		case TAG(3, VARINT): p = get_varint(p, end, &out->once.seq); break;
		case TAG(4, VARINT): p = get_varint(p, end, &out->once.first_incomplete); break;
		case TAG(5, VARINT): p = get_uint32(p, end, &out->once.attempt); break;
		case TAG(6, BYTES): p = get_span(p, end, &out->once.key); break;
		default: p = skip(p, end, tag & 7);
		}
	}
	return out->once.key.n <= 256 ? p : NULL;
}

static inline const char *get_once(const char *p, const char *end, struct frame_request *out)
{
	if (end - p < 1 + TWO_NUMBERS || p[0] != TWO_NUMBERS || p[1] != TAG(3, FIXED64) || p[10] != TAG(4, FIXED64))
		return get_whole_once(p, end, out);
	out->has_once = true;
	memcpy(&out->once.seq, p + 2, 8);
	memcpy(&out->once.first_incomplete, p + 11, 8);
	return p + 1 + TWO_NUMBERS;
}

int frame_get_request(struct span payload, struct frame_request *out)
{
	const char *p = payload.p, *end = p + payload.n;
	uint64_t tag;

	memset(out, 0, sizeof *out);
	while (p < end) {
		if (!(p = get_tag(p, end, &tag)))
			return ERR_CORRUPT;
		switch (tag) {
		case TAG(1, VARINT): p = get_varint(p, end, &out->id); break;
		case TAG(2, VARINT): p = get_uint32(p, end, &out->method); break;
		case TAG(3, BYTES): p = get_span(p, end, &out->service); break;
		case TAG(4, BYTES): p = get_span(p, end, &out->method_name); break;
		case TAG(5, VARINT): p = get_uint32(p, end, &out->time_left_ms); break;
		case TAG(6, FIXED64): p = get_fixed64(p, end, &out->trace); break;
		case TAG(7, BYTES): p = get_span(p, end, &out->key); break;
		case TAG(8, BYTES): p = get_session(p, end, out); break;
		case TAG(9, BYTES): p = get_once(p, end, out); break;
		case TAG(10, VARINT): p = get_uint32(p, end, &out->kind); break;
		case TAG(11, VARINT): p = get_bool(p, end, &out->json); break;
		case TAG(15, BYTES): p = get_span(p, end, &out->body); break;
		default: p = skip(p, end, tag & 7);
		}
		if (!p)
			return ERR_CORRUPT;
	}
	return 0;
}

static const char *get_attr(const char *p, const char *end, struct frame_response *out)
{
	unsigned i = out->attrs;
	struct span s;
	uint64_t tag;

	if (i == FRAME_ATTRS_MAX || !(end = get_span(p, end, &s)))
		return NULL;
	out->attr[i].name = out->attr[i].value = span_of(NULL, 0);
	for (p = s.p; p && p < end;) {
		if (!(p = get_tag(p, end, &tag)))
			return NULL;
		switch (tag) {
		case TAG(1, BYTES): p = get_span(p, end, &out->attr[i].name); break;
		case TAG(2, BYTES): p = get_span(p, end, &out->attr[i].value); break;
		default: p = skip(p, end, tag & 7);
		}
	}
	out->attrs = i + 1;
	return p;
}

int frame_get_response(struct span payload, struct frame_response *out)
{
	const char *p = payload.p, *end = p + payload.n;
	uint64_t tag;

	memset(out, 0, offsetof(struct frame_response, attr));
	while (p < end) {
		if (!(p = get_tag(p, end, &tag)))
			return ERR_CORRUPT;
		switch (tag) {
		case TAG(1, VARINT): p = get_varint(p, end, &out->id); break;
		case TAG(2, VARINT): p = get_uint32(p, end, &out->error); break;
		case TAG(3, VARINT): p = get_uint32(p, end, &out->effect); break;
		case TAG(4, BYTES): p = get_span(p, end, &out->message); break;
		case TAG(5, VARINT): p = get_bool(p, end, &out->json); break;
		case TAG(6, BYTES): p = get_attr(p, end, out); break;
		case TAG(15, BYTES): p = get_span(p, end, &out->body); break;
		default: p = skip(p, end, tag & 7);
		}
		if (!p)
			return ERR_CORRUPT;
	}
	return 0;
}
