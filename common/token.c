#include "common/token.h"
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/buf.h"
#include "common/err.h"

#define MAC_BYTES 32
#define MAC_TEXT  43 /* 32 bytes in base64 without padding */

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static void mac(const char *key, const void *data, size_t n, uint8_t out[MAC_BYTES])
{
	unsigned len = 0;

	if (!HMAC(EVP_sha256(), key, (int)strlen(key), data, n, out, &len) || len != MAC_BYTES)
		abort();
}

static void base64_add(struct buf *out, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i += 3) {
		uint32_t v =
			(uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0);
		size_t chars = n - i >= 3 ? 4 : n - i + 1;
		for (size_t k = 0; k < chars; k++)
			buf_addch(out, alphabet[v >> (18 - 6 * k) & 63]);
	}
}

/* Bytes decoded into out (room for 3/4 of n), or -1. */
static ssize_t base64_take(const char *p, size_t n, uint8_t *out)
{
	uint32_t v = 0;
	size_t bits = 0, len = 0;

	if (n % 4 == 1)
		return -1;
	for (size_t i = 0; i < n; i++) {
		const char *at = p[i] ? strchr(alphabet, p[i]) : NULL;
		if (!at)
			return -1;
		v = v << 6 | (uint32_t)(at - alphabet);
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			out[len++] = (uint8_t)(v >> bits);
		}
	}
	return (ssize_t)len;
}

static bool line_add(struct buf *b, const char *s)
{
	if (strchr(s, '\n'))
		return false;
	buf_addstr(b, s);
	buf_addch(b, '\n');
	return true;
}

int token_make(const char *key, const char *kind, uint64_t expires_ms, const char *const *fields, size_t n, char *out,
	       size_t size)
{
	struct buf text = BUF_INIT, token = BUF_INIT;
	uint8_t sum[MAC_BYTES];
	int err = ERR_BAD_REQUEST;

	if (n > TOKEN_FIELDS_MAX || !line_add(&text, kind))
		goto out;
	buf_addu(&text, expires_ms);
	buf_addch(&text, '\n');
	for (size_t i = 0; i < n; i++)
		if (!line_add(&text, fields[i]))
			goto out;
	mac(key, text.data, text.len, sum);
	base64_add(&token, (const uint8_t *)text.data, text.len);
	buf_addch(&token, '.');
	base64_add(&token, sum, sizeof(sum));
	err = ERR_FULL;
	if (token.len >= size || token.len >= TOKEN_MAX)
		goto out;
	memcpy(out, buf_cstr(&token), token.len + 1);
	err = 0;
out:
	buf_release(&text);
	buf_release(&token);
	return err;
}

/* Splits text into lines in place; the first two are kind and expiry. */
static int fields_take(struct token *t, const char *kind, uint64_t now_ms, size_t n)
{
	char *line = t->text, *end;

	for (size_t i = 0; i < n + 2; i++, line = end + 1) {
		if (!(end = strchr(line, '\n')))
			return ERR_DENIED;
		*end = '\0';
		if (i == 0 && strcmp(line, kind) != 0)
			return ERR_DENIED;
		if (i == 1 && (t->expires_ms = strtoull(line, NULL, 10)) <= now_ms)
			return ERR_DENIED;
		if (i >= 2)
			t->field[i - 2] = line;
	}
	t->n = n;
	return *line ? ERR_DENIED : 0;
}

int token_read(const char *key, const char *kind, uint64_t now_ms, const char *token, size_t token_n, size_t n,
	       struct token *out)
{
	struct token t;
	uint8_t sum[MAC_BYTES], given[MAC_TEXT];
	const char *dot = memchr(token, '.', token_n);

	if (token_n >= TOKEN_MAX || !dot || token_n - (size_t)(dot - token) != MAC_TEXT + 1 || n > TOKEN_FIELDS_MAX)
		return ERR_DENIED;
	ssize_t len = base64_take(token, (size_t)(dot - token), (uint8_t *)t.text);
	if (len < 0 || base64_take(dot + 1, MAC_TEXT, given) != MAC_BYTES || memchr(t.text, '\0', (size_t)len))
		return ERR_DENIED;
	t.text[len] = '\0';
	mac(key, t.text, (size_t)len, sum);
	if (CRYPTO_memcmp(sum, given, MAC_BYTES) != 0 || fields_take(&t, kind, now_ms, n) < 0)
		return ERR_DENIED;
	*out = t;
	for (size_t i = 0; i < n; i++)
		out->field[i] = out->text + (t.field[i] - t.text);
	return 0;
}

/* ---- used once -------------------------------------------------------------------------------------------- */

struct generation {
	char (*slot)[TOKEN_NONCE_MAX]; /* "" is free */
	size_t n, slots;
	uint64_t latest_ms; /* the wall clock's latest time when one was used */
};

struct token_once {
	struct generation now, before;
	uint64_t keep_ms, turned_ms; /* by the monotonic clock */
	size_t max;
};

struct token_once *token_once_new(uint64_t keep_ms, size_t max)
{
	struct token_once *o = calloc(1, sizeof(*o));

	o->keep_ms = keep_ms;
	o->max = max;
	return o;
}

void token_once_free(struct token_once *o)
{
	if (!o)
		return;
	free(o->now.slot);
	free(o->before.slot);
	free(o);
}

/* The nonce's place: where it is, or the free one where it would be. */
static char *place(const struct generation *g, const char *nonce)
{
	uint64_t h = 1469598103934665603u;

	for (const char *p = nonce; *p; p++)
		h = (h ^ (uint8_t)*p) * 1099511628211u;
	for (h ^= h >> 32;; h++) {
		char *at = g->slot[h & (g->slots - 1)];
		if (!*at || strcmp(at, nonce) == 0)
			return at;
	}
}

static void grow(struct generation *g)
{
	struct generation wide = { .n = g->n, .slots = g->slots ? g->slots * 2 : 64, .latest_ms = g->latest_ms };

	wide.slot = calloc(wide.slots, sizeof(*wide.slot));
	for (size_t i = 0; i < g->slots; i++)
		if (*g->slot[i])
			memcpy(place(&wide, g->slot[i]), g->slot[i], TOKEN_NONCE_MAX);
	free(g->slot);
	*g = wide;
}

static void turn(struct token_once *o, uint64_t wall_ms, uint64_t mono_ms)
{
	if (mono_ms - o->turned_ms < o->keep_ms)
		return;
	/* the wall clock was set back: the tokens of before may be good again, so they stay while there is room */
	if (wall_ms < o->before.latest_ms + o->keep_ms && o->now.n < o->max)
		return;
	free(o->before.slot);
	o->before = o->now;
	o->now = (struct generation){ .n = 0 };
	o->turned_ms = mono_ms;
}

static void each(const struct generation *g, void (*fn)(void *arg, const char *nonce), void *arg)
{
	for (size_t i = 0; i < g->slots; i++)
		if (*g->slot[i])
			fn(arg, g->slot[i]);
}

void token_once_each(const struct token_once *o, void (*fn)(void *arg, const char *nonce), void *arg)
{
	each(&o->before, fn, arg);
	each(&o->now, fn, arg);
}

int token_once_use(struct token_once *o, const char *nonce, uint64_t wall_ms, uint64_t mono_ms)
{
	if (!*nonce || strlen(nonce) >= TOKEN_NONCE_MAX)
		return ERR_DENIED;
	turn(o, wall_ms, mono_ms);
	if (o->before.n && *place(&o->before, nonce))
		return ERR_DENIED;
	if (o->now.n * 2 >= o->now.slots)
		grow(&o->now);
	char *at = place(&o->now, nonce);
	if (*at)
		return ERR_DENIED;
	if (o->now.n >= o->max)
		return ERR_BUSY;
	memcpy(at, nonce, strlen(nonce) + 1);
	o->now.n++;
	if (wall_ms > o->now.latest_ms)
		o->now.latest_ms = wall_ms;
	return 0;
}

/* ---- helpers ------------------------------------------------------------------------------------------------ */

static void hex(const uint8_t *p, size_t n, char *out)
{
	static const char digit[] = "0123456789abcdef";

	for (size_t i = 0; i < n; i++) {
		*out++ = digit[p[i] >> 4];
		*out++ = digit[p[i] & 15];
	}
	*out = '\0';
}

void token_nonce(const uint8_t random[8], char out[TOKEN_NONCE_MAX])
{
	hex(random, 8, out);
}

void token_hmac_hex(const char *key, const void *data, size_t n, char out[TOKEN_HMAC_HEX])
{
	uint8_t sum[MAC_BYTES];

	mac(key, data, n, sum);
	hex(sum, sizeof(sum), out);
}

void token_print(const char *key, char out[TOKEN_PRINT_MAX])
{
	static const char what[] =
		"loquat: which key this is"; /* no token's text begins so: its kind ends with a newline */
	uint8_t sum[MAC_BYTES];

	mac(key, what, sizeof(what) - 1, sum);
	hex(sum, (TOKEN_PRINT_MAX - 1) / 2, out);
}

bool token_equal(const char *a, size_t a_n, const char *b, size_t b_n)
{
	return a_n == b_n && CRYPTO_memcmp(a, b, a_n) == 0;
}
