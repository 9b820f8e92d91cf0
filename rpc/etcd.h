#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"
/*
 * etcd: the requests and answers of etcd's v3 JSON gateway, as text. No I/O.
 *
 * Threads: any; pure.
 * Shapes:  all requests are POSTs; keys and values travel in base64, 64-bit integers as strings, and what is zero is
 *          left out. A watch's answer is one JSON object per line; the last one, an error, may end without a newline.
 */
#define ETCD_RANGE     "/v3/kv/range"
#define ETCD_TXN       "/v3/kv/txn"
#define ETCD_GRANT     "/v3/lease/grant"
#define ETCD_KEEPALIVE "/v3/lease/keepalive"
#define ETCD_REVOKE    "/v3/lease/revoke"
#define ETCD_WATCH     "/v3/watch"
#define ETCD_STATUS    "/v3/maintenance/status"
#define ETCD_LOGIN     "/v3/auth/authenticate"

/* ---- requests: JSON is appended to out ------------------------------------------------------------------------ */
void etcd_put_range(struct buf *out, const char *prefix); /* all keys that begin with prefix, which is not empty */
void etcd_put_watch(struct buf *out, const char *prefix, uint64_t from_revision);
void etcd_put_grant(struct buf *out, unsigned ttl_s);
void etcd_put_lease(struct buf *out, int64_t lease); /* for keepalive and revoke */
/* Writes key if its last change was revision mod (0: if it is not there); else the answer tells what is there. */
void etcd_put_guarded(struct buf *out, const char *key, const char *value, size_t n, int64_t lease, uint64_t mod);

void etcd_put_login(struct buf *out, const char *user, const char *password);

/* ---- answers: 0, or ERR_CORRUPT for what is not such an answer -------------------------------------------------- */
struct etcd_key {
	bool gone; /* deleted: no value */
	const char *key, *value;
	size_t key_n, value_n;
	uint64_t mod; /* revision of its last change */
};
struct etcd_reader {
	void (*on_key)(void *arg, const struct etcd_key *k); /* texts are NUL-ended and valid in the call */
	void *arg;
};
struct etcd_header {
	uint64_t cluster, revision; /* 0: not told */
};
int etcd_get_range(const char *text, size_t n, const struct etcd_reader *r, struct etcd_header *out);

struct etcd_news { /* one line of a watch */
	struct etcd_header header;
	bool created;  /* the watch stands */
	bool canceled; /* it will say no more: the revision was compacted, or an error */
};
int etcd_get_news(const char *text, size_t n, const struct etcd_reader *r, struct etcd_news *out);

/* Of grant and keepalive. ttl_s 0: the lease is dead. */
int etcd_get_lease(const char *text, size_t n, int64_t *lease, int64_t *ttl_s);
/* Of etcd_put_guarded: written says whether; if not, the key as it is goes to r (not there: it is not called). */
int etcd_get_guarded(const char *text, size_t n, const struct etcd_reader *r, bool *written, struct etcd_header *out);
int etcd_get_token(const char *text, size_t n, char *out, size_t size); /* NUL-ended */
/* The words of an error's answer, "" if there are none. text is NUL-ended. */
void etcd_get_error(const char *text, size_t n, char out[128]);
bool etcd_is_open(const char *text,
		  size_t n); /* of a login: etcd asks nobody who one is (`auth enable` was not said) */
