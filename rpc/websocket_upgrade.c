/* The HTTP half of websocket.h. */
#include "rpc/websocket.h"
#include <ctype.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "common/err.h"
#include "common/jsontext.h"

#define KEY_BYTES 24 /* base64 of 16 random bytes */
#define GUID      "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

struct line {
	const char *p;
	size_t n;
};

/* Whether word stands in a comma-separated list, whatever its case. */
static bool list_has(struct line list, const char *word)
{
	size_t word_n = strlen(word);

	while (list.n) {
		const char *comma = memchr(list.p, ',', list.n);
		size_t n = comma ? (size_t)(comma - list.p) : list.n;
		struct line item = { list.p, n };
		while (item.n && (*item.p == ' ' || *item.p == '\t'))
			item.p++, item.n--;
		while (item.n && (item.p[item.n - 1] == ' ' || item.p[item.n - 1] == '\t'))
			item.n--;
		if (item.n == word_n && strncasecmp(item.p, word, word_n) == 0)
			return true;
		list.p += n + (comma != NULL);
		list.n -= n + (comma != NULL);
	}
	return false;
}

static bool line_next(struct line *rest, struct line *out)
{
	const char *end = memmem(rest->p, rest->n, "\r\n", 2);

	if (!end || end == rest->p)
		return false;
	*out = (struct line){ rest->p, (size_t)(end - rest->p) };
	rest->n -= out->n + 2;
	rest->p = end + 2;
	return true;
}

/* Whether the line is this header; then it becomes the value, without the white space around it. */
static bool is_header(struct line *l, const char *name)
{
	size_t name_n = strlen(name);

	if (l->n <= name_n || l->p[name_n] != ':' || strncasecmp(l->p, name, name_n) != 0)
		return false;
	l->p += name_n + 1;
	l->n -= name_n + 1;
	while (l->n && (*l->p == ' ' || *l->p == '\t'))
		l->p++, l->n--;
	while (l->n && (l->p[l->n - 1] == ' ' || l->p[l->n - 1] == '\t'))
		l->n--;
	return true;
}

/* The value of a header, of the first line with that name; n 0 when absent. */
static struct line header(struct line rest, const char *name)
{
	struct line l;

	while (line_next(&rest, &l))
		if (is_header(&l, name))
			return l;
	return (struct line){ NULL, 0 };
}

static int refuse(struct buf *reply, const char *status, const char *headers, const char *text)
{
	buf_addf(reply,
		 "HTTP/1.1 %s\r\n%sContent-Type: text/plain; charset=utf-8\r\nContent-Length: %zu\r\n"
		 "Connection: close\r\n\r\n%s\n",
		 status, headers, strlen(text) + 1, text);
	return ERR_BAD_REQUEST;
}

static bool key_ok(struct line key)
{
	if (key.n != KEY_BYTES || memcmp(key.p + 22, "==", 2) != 0)
		return false;
	for (size_t i = 0; i < 22; i++)
		if (!key.p[i] || !strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", key.p[i]))
			return false;
	return true;
}

/* The first of the subprotocols offered, if it is a token; anything else would be a header of its own. */
static struct line subprotocol(struct line offered)
{
	size_t n = 0;

	while (n < offered.n && n < 64 && offered.p[n] &&
	       (isalnum((unsigned char)offered.p[n]) || strchr("!#$%&'*+-.^_`|~", offered.p[n])))
		n++;
	bool whole = n == offered.n || (n && (offered.p[n] == ',' || offered.p[n] == ' '));
	return (struct line){ offered.p, whole ? n : 0 };
}

static void accept_add(struct buf *reply, const char *key, struct line protocol)
{
	unsigned char text[KEY_BYTES + sizeof(GUID) - 1], sum[EVP_MAX_MD_SIZE], accept[64];
	unsigned n = 0;

	memcpy(text, key, KEY_BYTES);
	memcpy(text + KEY_BYTES, GUID, sizeof(GUID) - 1);
	if (EVP_Digest(text, sizeof(text), sum, &n, EVP_sha1(), NULL) != 1)
		abort();
	EVP_EncodeBlock(accept, sum, (int)n);
	buf_addf(reply,
		 "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		 "Sec-WebSocket-Accept: %s\r\n",
		 (char *)accept);
	if (protocol.n)
		buf_addf(reply, "Sec-WebSocket-Protocol: %.*s\r\n", (int)protocol.n, protocol.p);
	buf_addstr(reply, "\r\n");
}

static bool origin_ok(const struct websocket_rules *rules, struct line origin)
{
	if (!rules || !rules->origins || !origin.p)
		return true;
	for (size_t i = 0; i < rules->origins; i++)
		if (strlen(rules->origin[i]) == origin.n && strncasecmp(rules->origin[i], origin.p, origin.n) == 0)
			return true;
	return false;
}

/* request: the first line; headers: the rest. */
static int answer(struct line request, struct line headers, const struct websocket_rules *rules, struct buf *reply)
{
	if (request.n < 14 || strncmp(request.p + request.n - 9, " HTTP/1.1", 9) != 0)
		return refuse(reply, "400 Bad Request", "", "This is not an HTTP/1.1 request.");
	if (strncmp(request.p, "GET ", 4) != 0)
		return refuse(reply, "405 Method Not Allowed", "Allow: GET\r\n",
			      "This port speaks WebSocket and the pomelo protocol.");
	if (!list_has(header(headers, "Upgrade"), "websocket") || !list_has(header(headers, "Connection"), "upgrade"))
		return refuse(reply, "426 Upgrade Required", "Upgrade: websocket\r\n",
			      "This port is for game clients: it speaks WebSocket and the pomelo protocol.");
	if (!list_has(header(headers, "Sec-WebSocket-Version"), "13"))
		return refuse(reply, "426 Upgrade Required", "Sec-WebSocket-Version: 13\r\n",
			      "Only WebSocket version 13 is spoken here.");
	struct line key = header(headers, "Sec-WebSocket-Key");
	if (!key_ok(key))
		return refuse(reply, "400 Bad Request", "", "Sec-WebSocket-Key is missing or wrong.");
	if (!origin_ok(rules, header(headers, "Origin")))
		return refuse(reply, "403 Forbidden", "", "Pages of this origin may not connect.");
	accept_add(reply, key.p, subprotocol(header(headers, "Sec-WebSocket-Protocol")));
	return 0;
}

ssize_t websocket_upgrade(const char *data, size_t n, const struct websocket_rules *rules, struct buf *reply)
{
	const char *end = memmem(data, n < WEBSOCKET_REQUEST_MAX ? n : WEBSOCKET_REQUEST_MAX, "\r\n\r\n", 4);
	struct line request;

	if (!end && n < WEBSOCKET_REQUEST_MAX)
		return ERR_INCOMPLETE;
	if (!end) {
		refuse(reply, "431 Request Header Fields Too Large", "", "The request is too long.");
		return ERR_FULL;
	}
	size_t whole = (size_t)(end - data) + 4;
	struct line rest = { data, whole };
	if (!line_next(&rest, &request))
		return refuse(reply, "400 Bad Request", "", "The request is empty.");
	int err = answer(request, rest, rules, reply);
	return err < 0 ? err : (ssize_t)whole;
}

bool websocket_headers(const char *data, size_t n, const char *name, struct buf *list)
{
	struct line rest = { data, n }, l;
	bool any = false;

	for (bool more = line_next(&rest, &l); more; more = line_next(&rest, &l)) {
		if (!is_header(&l, name))
			continue;
		if (any)
			buf_addstr(list, ", ");
		buf_add(list, l.p, l.n);
		any = true;
	}
	return any;
}

bool websocket_close_ok(const char *p, size_t n)
{
	unsigned code = n >= 2 ? (unsigned)(uint8_t)p[0] << 8 | (uint8_t)p[1] : WEBSOCKET_NORMAL;

	/* 1004 to 1006 and 1015 never travel; 1016 to 2999 are not given out yet */
	return n != 1 &&
	       ((code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999)) &&
	       (n < 3 || jsontext_utf8(p + 2, n - 2));
}
