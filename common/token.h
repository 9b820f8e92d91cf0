#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
/*
 * token: short texts that only a holder of the cluster's token key can make: login tokens, resume tokens,
 * gate tickets.
 *
 * Form:    BASE64URL(text) "." BASE64URL(HMAC-SHA256(key, text)), where text is kind, expiry and the fields, each
 *          ended by a newline; so a field holds no newline and no NUL. Readable by anybody, forgeable by nobody.
 * Threads: any thread; pure, but a token_once belongs to one worker.
 * Time:    milliseconds UTC, passed in: makers and checkers are different processes.
 */
#define TOKEN_MAX        700 /* of the token's text, its NUL included */
#define TOKEN_FIELDS_MAX 8

struct token {
	uint64_t expires_ms;
	size_t n;
	const char *field[TOKEN_FIELDS_MAX]; /* into text */
	char text[TOKEN_MAX];
};
/* ERR_BAD_REQUEST: a field holds a newline or there are too many; ERR_FULL: longer than size. */
int token_make(const char *key, const char *kind, uint64_t expires_ms, const char *const *fields, size_t n, char *out,
	       size_t size);
/* ERR_DENIED: not ours, changed, of another kind, with other than n fields, or expired; out is untouched then. */
int token_read(const char *key, const char *kind, uint64_t now_ms, const char *token, size_t token_n, size_t n,
	       struct token *out);

/* ---- used once -------------------------------------------------------------------------------------------- */

/*
 * Remembers what was used until keep_ms have passed by the monotonic clock and by the wall clock, which may be set ahead or
 * back meanwhile: two generations of a hash set, the older dropped whole. Bounded: at most max entries per generation; what
 * a clock set back keeps longer goes when its place is needed.
 */
struct token_once;
struct token_once *token_once_new(uint64_t keep_ms, size_t max);
void token_once_free(struct token_once *o);
/* The nonces that it would refuse, for another that takes its place. */
void token_once_each(const struct token_once *o, void (*fn)(void *arg, const char *nonce), void *arg);
/* 0: it was not used before and is now; ERR_DENIED: it was; ERR_BUSY: too many within keep_ms. */
int token_once_use(struct token_once *o, const char *nonce, uint64_t wall_ms, uint64_t mono_ms);

/* ---- helpers ------------------------------------------------------------------------------------------------ */

#define TOKEN_NONCE_MAX 17 /* 16 hex digits and NUL */
void token_nonce(const uint8_t random[8], char out[TOKEN_NONCE_MAX]);
/* Lower-case hex HMAC-SHA256 with NUL, as platforms sign their callbacks and credentials. */
#define TOKEN_HMAC_HEX 65
void token_hmac_hex(const char *key, const void *data, size_t n, char out[TOKEN_HMAC_HEX]);
/*
 * Which key it is, without telling it: the same text for the same key. Processes compare it, for with different ones each
 * refuses the other's tokens.
 */
#define TOKEN_PRINT_MAX 17 /* 16 hex digits and NUL */
void token_print(const char *key, char out[TOKEN_PRINT_MAX]);
/* Compares without telling by its time how much was right. */
bool token_equal(const char *a, size_t a_n, const char *b, size_t b_n);
