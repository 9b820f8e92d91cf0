#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/*
 * wire: the pomelo packages and messages that the benchmarks speak. A second, independent writing
 * of the protocol: the limits must not share code with what they are compared to.
 *
 * Threads: any; there is no state.
 * Memory:  reading points into the caller's bytes, writing goes to the caller's room.
 */
enum wire_package { WIRE_HANDSHAKE = 1, WIRE_ACK = 2, WIRE_HEARTBEAT = 3, WIRE_DATA = 4, WIRE_KICK = 5 };
enum wire_type { WIRE_REQUEST = 0, WIRE_NOTIFY = 1, WIRE_RESPONSE = 2, WIRE_PUSH = 3 };

enum {
	WIRE_HEAD_BYTES = 4,                    /* type, 24 bit length */
	WIRE_MESSAGE_HEAD_MAX = 1 + 5 + 1 + 255 /* flag, id, length of the route, route */
};

struct wire_message {
	enum wire_type type;
	uint8_t flag;
	uint32_t id;          /* requests and responses; else 0 */
	const uint8_t *route; /* requests, notifies and pushes with a plain route; else NULL */
	size_t route_bytes;
	const uint8_t *body;
	size_t body_bytes;
};

/* Writes a package's head, returns its size (4). */
static inline size_t wire_head(uint8_t *out, enum wire_package type, size_t body_bytes)
{
	out[0] = (uint8_t)type;
	out[1] = (uint8_t)(body_bytes >> 16);
	out[2] = (uint8_t)(body_bytes >> 8);
	out[3] = (uint8_t)body_bytes;
	return WIRE_HEAD_BYTES;
}

/* The body's size of the package that starts at p; its 4 bytes of head must be there. */
static inline size_t wire_body_bytes(const uint8_t *p)
{
	return (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
}

/* Writes an id, least significant group first, returns its size (1 to 5). */
static inline size_t wire_put_id(uint8_t *out, uint32_t id)
{
	size_t n = 0;
	for (; id >= 128; id >>= 7)
		out[n++] = (uint8_t)(id | 128);
	out[n++] = (uint8_t)id;
	return n;
}

/* Reads an id; false: cut off or longer than 5 bytes. */
static inline bool wire_get_id(const uint8_t **p, const uint8_t *end, uint32_t *id)
{
	uint64_t v = 0;
	for (int shift = 0; shift < 35 && *p < end; shift += 7) {
		uint8_t byte = *(*p)++;
		v |= (uint64_t)(byte & 127) << shift;
		if (byte < 128) {
			*id = (uint32_t)v;
			return true;
		}
	}
	return false;
}

/* Takes the body of a data package apart; false: no message. */
static inline bool wire_read_message(const uint8_t *p, size_t bytes, struct wire_message *m)
{
	const uint8_t *end = p + bytes;
	if (p == end)
		return false;
	*m = (struct wire_message){ .flag = *p, .type = (enum wire_type)(*p >> 1 & 7) };
	p++;
	if (m->type > WIRE_PUSH)
		return false;
	if ((m->type == WIRE_REQUEST || m->type == WIRE_RESPONSE) && !wire_get_id(&p, end, &m->id))
		return false;
	if (m->type != WIRE_RESPONSE && (m->flag & 1)) {
		p += 2;
	} else if (m->type != WIRE_RESPONSE) {
		if (p == end)
			return false;
		m->route_bytes = *p++;
		m->route = p;
		p += m->route_bytes;
	}
	if (p > end)
		return false;
	m->body = p;
	m->body_bytes = (size_t)(end - p);
	return true;
}

/* Writes a whole response package to out (4 + 6 + body_bytes at most), returns its size. */
static inline size_t wire_put_response(uint8_t *out, uint32_t id, const void *body, size_t body_bytes)
{
	uint8_t *p = out + WIRE_HEAD_BYTES;
	*p++ = WIRE_RESPONSE << 1;
	p += wire_put_id(p, id);
	memcpy(p, body, body_bytes);
	p += body_bytes;
	wire_head(out, WIRE_DATA, (size_t)(p - out) - WIRE_HEAD_BYTES);
	return (size_t)(p - out);
}

/* Writes a whole request package (4 + WIRE_MESSAGE_HEAD_MAX + body_bytes at most), returns its size. */
static inline size_t wire_put_request(uint8_t *out, uint32_t id, const char *route, const void *body, size_t body_bytes)
{
	size_t route_bytes = strlen(route);
	uint8_t *p = out + WIRE_HEAD_BYTES;
	*p++ = WIRE_REQUEST << 1;
	p += wire_put_id(p, id);
	*p++ = (uint8_t)route_bytes;
	memcpy(p, route, route_bytes);
	p += route_bytes;
	memcpy(p, body, body_bytes);
	p += body_bytes;
	wire_head(out, WIRE_DATA, (size_t)(p - out) - WIRE_HEAD_BYTES);
	return (size_t)(p - out);
}
