#include "rpc/pomelo.h"
#include <assert.h>
#include <string.h>
#include "common/err.h"

void pomelo_package_head(char out[POMELO_HEAD], enum pomelo_type type, size_t body_n)
{
	assert(body_n <= POMELO_BODY_MAX);
	out[0] = (char)type;
	out[1] = (char)(body_n >> 16);
	out[2] = (char)(body_n >> 8);
	out[3] = (char)body_n;
}

ssize_t pomelo_package_read(const char *data, size_t n, size_t body_max, struct pomelo_package *out)
{
	const uint8_t *p = (const uint8_t *)data;

	if (n && (p[0] < POMELO_HANDSHAKE || p[0] > POMELO_DATA))
		return ERR_BAD_REQUEST;
	if (n < POMELO_HEAD)
		return ERR_INCOMPLETE;
	size_t body_n = (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
	if (body_n > body_max)
		return ERR_FULL;
	if (n - POMELO_HEAD < body_n)
		return ERR_INCOMPLETE;
	out->type = (enum pomelo_type)p[0];
	out->body = data + POMELO_HEAD;
	out->n = body_n;
	return (ssize_t)(POMELO_HEAD + body_n);
}

/* ---- messages ------------------------------------------------------------------------------------------- */

enum { FLAG_CODE = 1, FLAG_KIND = 7 << 1, FLAG_COMPRESSED = 1 << 4, FLAG_ERROR = 1 << 5, FLAG_UNKNOWN = 0xe0 };

/* Base 128, least significant group first. Returns the bytes taken or ERR_BAD_REQUEST. */
static int id_read(const uint8_t *p, const uint8_t *end, uint32_t *out)
{
	uint64_t id = 0;

	for (int i = 0; i < 5 && p + i < end; i++) {
		id |= (uint64_t)(p[i] & 0x7f) << (7 * i);
		if (p[i] & 0x80)
			continue;
		if (id > UINT32_MAX)
			return ERR_BAD_REQUEST;
		*out = (uint32_t)id;
		return i + 1;
	}
	return ERR_BAD_REQUEST;
}

static int route_read(const uint8_t *p, const uint8_t *end, bool coded, struct pomelo_message *m)
{
	if (coded) {
		if (end - p < 2)
			return ERR_BAD_REQUEST;
		m->code = (uint16_t)(p[0] << 8 | p[1]);
		return m->code ? 2 : ERR_BAD_REQUEST;
	}
	if (end - p < 1 || end - p - 1 < p[0] || memchr(p + 1, '\0', p[0]))
		return ERR_BAD_REQUEST;
	m->route = (const char *)p + 1;
	m->route_n = p[0];
	return 1 + p[0];
}

int pomelo_message_read(const char *data, size_t n, struct pomelo_message *out)
{
	const uint8_t *p = (const uint8_t *)data, *end = p + n;
	struct pomelo_message m = { .code = 0 };
	int took;

	if (!n)
		return ERR_BAD_REQUEST;
	uint8_t flag = *p++;
	if ((flag & FLAG_UNKNOWN) || (flag & FLAG_KIND) >> 1 > POMELO_PUSH)
		return ERR_BAD_REQUEST;
	m.kind = (enum pomelo_kind)((flag & FLAG_KIND) >> 1);
	m.compressed = flag & FLAG_COMPRESSED;
	if (m.kind == POMELO_REQUEST || m.kind == POMELO_RESPONSE) {
		if ((took = id_read(p, end, &m.id)) < 0)
			return took;
		p += took;
	}
	if (m.kind != POMELO_RESPONSE) {
		if ((took = route_read(p, end, flag & FLAG_CODE, &m)) < 0)
			return took;
		p += took;
	}
	if (m.kind == POMELO_REQUEST && m.id == 0)
		m.kind = POMELO_NOTIFY;
	m.body = (const char *)p;
	m.n = (size_t)(end - p);
	*out = m;
	return 0;
}

static char *id_write(char *p, uint32_t id)
{
	for (; id >= 0x80; id >>= 7)
		*p++ = (char)(id | 0x80);
	*p++ = (char)id;
	return p;
}

static char *route_write(char *p, uint16_t code, const char *route, size_t route_n)
{
	if (code) {
		*p++ = (char)(code >> 8);
		*p++ = (char)code;
		return p;
	}
	assert(route_n <= POMELO_ROUTE_MAX);
	*p++ = (char)route_n;
	memcpy(p, route, route_n);
	return p + route_n;
}

/* The message head stands at out + POMELO_HEAD and ends at end. */
static size_t head_end(char *out, const char *end, size_t body_n)
{
	size_t head_n = (size_t)(end - out);

	pomelo_package_head(out, POMELO_DATA, head_n - POMELO_HEAD + body_n);
	return head_n;
}

size_t pomelo_response_head(char *out, uint32_t id, size_t body_n)
{
	out[POMELO_HEAD] = POMELO_RESPONSE << 1;
	return head_end(out, id_write(out + POMELO_HEAD + 1, id), body_n);
}

void pomelo_response_is_error(char *head)
{
	head[POMELO_HEAD] |= FLAG_ERROR;
}

size_t pomelo_push_head(char *out, uint16_t code, const char *route, size_t route_n, size_t body_n)
{
	out[POMELO_HEAD] = (char)(POMELO_PUSH << 1 | (code ? FLAG_CODE : 0));
	return head_end(out, route_write(out + POMELO_HEAD + 1, code, route, route_n), body_n);
}

size_t pomelo_request_head(char *out, uint32_t id, uint16_t code, const char *route, size_t route_n, size_t body_n)
{
	char *p = out + POMELO_HEAD;

	*p++ = (char)((id ? POMELO_REQUEST : POMELO_NOTIFY) << 1 | (code ? FLAG_CODE : 0));
	if (id)
		p = id_write(p, id);
	return head_end(out, route_write(p, code, route, route_n), body_n);
}
