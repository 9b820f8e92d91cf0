#pragma once
#include "rpc/etcd.h"
#include "rpc/etcd_config.h"
#include "rpc/route_rows.h"
#include "rpc/route_source.h"
/*
 * route_etcd: what the parts of the etcd source share: route_etcd.c (its life), route_etcd_look.c (reading and watching the
 * rows), route_etcd_own.c (the own row and its lease), route_etcd_login.c (the token). Private to rpc/.
 *
 * Threads: the loop's.
 * Calls:   at most one of each kind is under way, and bounded by ETCD_CALL_MS; the answer of none is relied on: a write is
 *          guarded by the revision that was seen, and a reading goes on where the last one ended.
 */
#define ETCD_CALL_MS     1000
#define ETCD_BACKOFF_MIN 100
#define ETCD_BACKOFF_MAX 1000
#define ETCD_PREFIX_MAX  200
#define ETCD_MISSING_MS  500        /* how often somebody is looked for */
#define ETCD_SAVE_MS     500        /* a burst of changes is one file */
#define ETCD_LINE_MAX    (8u << 20) /* of a watch */
#define ETCD_TOKEN_MAX   4096       /* of a token; those of the kind jwt are long */

#define ETCD_AUTHORIZATION "Authorization: "

enum own_step { OWN_NONE, OWN_GRANT, OWN_PUT, OWN_KEEP, OWN_REVOKE };

struct etcd_source {
	struct route_source base;
	struct route_source_options o;
	struct etcd_config config;
	unsigned host_now;
	char prefix[ETCD_PREFIX_MAX]; /* of the rows' keys, with its last slash */
	unsigned lease_s, missing_s;
	bool closed;
	bool away; /* etcd does not answer: said once */
	struct metric *connected, *refused, *lost;
	/* the login */
	char authorization[sizeof ETCD_AUTHORIZATION + ETCD_TOKEN_MAX]; /* a header; empty: there is no token */
	bool logging_in;
	bool open, open_told; /* it asks nobody who one is: no token is needed; that was said */
	struct timer login;
	uint32_t login_backoff_ms;
	/* looking */
	struct route_rows *rows;
	bool reading, linked, published, changed;
	bool own_read; /* the reading under way has met the own row */
	uint64_t revision, cluster, version;
	uint64_t newest; /* revision of the newest change of a row */
	struct env_http_stream *watch;
	struct buf line;
	struct timer look;
	uint32_t look_backoff_ms;
	struct timer missing;
	bool asking;
	char asked[32];
	struct timer save;
	struct route_table *last; /* published last, to be saved */
	/* the own row */
	enum own_step step; /* the call under way */
	bool entered, leaving, left, dirty, registered, known;
	enum route_state state;
	int64_t lease;
	uint64_t mod; /* of the own key, 0: it is not there */
	struct timer own;
	uint32_t own_backoff_ms;
	char taken[160]; /* who else has the name; empty: nobody */
};

/* route_etcd.c */
int etcd_ask(struct etcd_source *s, const char *path, const struct buf *body, uint32_t timeout_ms,
	     void (*on_answer)(void *arg, const struct env_http_answer *a)); /* on_answer(s, …) */
const struct etcd_host *etcd_host_now(const struct etcd_source *s);
struct env_tls *etcd_tls_now(const struct etcd_source *s); /* for that host; NULL: plain */
struct etcd_headers {
	const char *line[4]; /* NULL-ended */
};
struct etcd_headers etcd_headers(const struct etcd_source *s);
/* etcd did not do what was asked: logged once, the next endpoint is tried next. */
void etcd_failed(struct etcd_source *s, const struct env_http_answer *a);
void etcd_well(struct etcd_source *s);
uint32_t etcd_backoff(struct etcd_source *s, uint32_t *ms); /* doubles it; with jitter */
/* route_etcd_login.c */
void login_init(struct etcd_source *s);
void login_close(struct etcd_source *s);
/* False: a token is asked for first; when it is there, look_go and own_soon are called. */
bool login_done(struct etcd_source *s);
void login_forget(struct etcd_source *s); /* the token was refused */
/* route_etcd_look.c */
void look_go(struct etcd_source *s); /* the next step, unless one is under way */
void look_start(struct etcd_source *s);
void look_close(struct etcd_source *s);
/* route_etcd_own.c */
void own_soon(struct etcd_source *s); /* something is to be said */
void own_spoilt(struct etcd_source *s,
		uint64_t mod); /* somebody wrote what is no row over the own one: it is put anew */
void own_init(struct etcd_source *s);
