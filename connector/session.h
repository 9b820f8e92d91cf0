#pragma once
#include "connector/connector.h"
#include "rpc/clientconn.h"
#include "rpc/player.h"
#include "rpc/stats.h"
/*
 * session: one player's connection on a worker of the connector.
 *
 * Threads: owner worker only. Number: sid = worker << 48 | generation << 20 | slot, so that a push finds worker and
 *          session without a search; never the same twice within 2^28 sessions of a worker.
 * Memory:  freed when the connection is closed. What outlives it (a call under way) holds no pointer to it: session_end
 *          cuts them.
 */
#define SESSION_ATTRS_MAX  4
#define SESSION_HELD_MAX   64  /* requests that wait for enter, resume or scene.enter */
#define SESSION_FLIGHT_MAX 512 /* requests without an answer */
#define SESSION_PUBLIC_MAX 8   /* the same before login */
#define SESSION_NONCE_MAX  64

enum session_stage { SESSION_OUT, SESSION_ENTERING, SESSION_IN };

#define SESSION_ATTR_NAME 31

/* Allocated with its texts: most sessions have one or none. */
struct session_attr {
	uint8_t name_n;
	char text[]; /* the name, NUL, the value, NUL */
};

/* A request that waits its turn. */
struct held {
	struct held *next;
	struct edge_method *method;
	uint32_t id;
	size_t n;
	char body[];
};

struct forward;
struct entry;
struct edge_method;
struct session {
	struct clientconn conn;
	struct edge *edge;
	enum session_stage stage;
	char uid[PLAYER_UID_MAX + 1], rid[PLAYER_UID_MAX + 1], name[PLAYER_NAME_MAX + 1];
	char resume[SESSION_NONCE_MAX + 1]; /* nonce of the token that may take this session over */
	struct session_attr *attr[SESSION_ATTRS_MAX];
	struct forward *forwards; /* calls under way */
	unsigned flights;
	struct entry *entry;  /* the login under way */
	bool comes_back;      /* its kick tells it to resume */
	const char *deciding; /* the attribute that a request under way may change, or NULL */
	struct held *held, **held_last;
	unsigned helds;
};

/* An instance of another service as this worker last saw it. */
struct known {
	char instance[32];
	uint64_t epoch; /* 0: it is away */
};

#define EDGE_MISSED 4096
/* One per worker. */
struct edge {
	struct connector *connector;
	struct worker *worker;
	struct clientconn_face face;
	struct clienttold *told; /* to clients, after what the connector's set has */
	struct session **slot;
	uint32_t *free_slot;
	uint32_t slots, frees, generation;
	struct edge_methods *methods;     /* those of worker->schema */
	struct edge_methods *all_methods; /* and those of before, which requests refer to */
	struct forward *idle_forwards;
	struct entry *entries;   /* logins under way, so that stopping frees them */
	struct token_once *once; /* worker 0's */
	struct known *known;     /* announce.c: instances and the start they were told of */
	size_t knowns;
	struct route_table *routes; /* announce.c: as it was told last */
	uint64_t rings;             /* announce.c: counts the sets of role instances */
	struct method_stats unknown;
	struct metric *sessions;
	const struct msg_method *login, *logout, *announce, *chat_add, *chat_remove, *entered, *ask_missed, *left;
	struct watcher *watchers; /* watch.c: who is told of sessions' ends */
	struct loop_deferred tell;
	struct missed *missed[EDGE_MISSED]; /* missed.c: by number */
	size_t missed_bytes;
	uint64_t trace;
	struct timer drain;
	bool stopping;
	struct timer hand; /* handover.c: looks whether nothing is under way, or whether the links stand */
	bool handing;      /* another process takes this one's place */
	bool quiet;        /* and was told that nothing is under way here */
	bool taking;       /* this one takes another's place, and has not got its sessions yet */
	uint64_t join_until_ms;
	struct known *former; /* what that one knew of other instances */
	size_t formers;
};

/* NULL: gone, or another worker's. */
struct session *session_find(struct edge *e, uint64_t sid);
/* Takes an accepted connection. */
void session_accept(struct edge *e, struct env_conn *conn, const char *addr);
/* One that had its number in the process before this one; session_numbers_taken after the last. */
struct session *session_take(struct edge *e, uint64_t sid);
void session_numbers_taken(struct edge *e);
void session_counted(struct session *s); /* it is logged in */
void session_forget(struct session *s);  /* another process has it */
struct session *session_of(struct clientconn *c);
void session_end(struct clientconn *c); /* clientconn_ops.on_end */
/* "" when it has none. */
const char *session_attr(const struct session *s, const char *name, size_t n);
void session_attrs_free(struct session *s);
/* value empty: forget it. ERR_FULL: too many names or too long. */
int session_attr_set(struct session *s, struct span name, struct span value);
/* Lets a login in: counts it, stops the deadline, runs what waited. */
void session_login(struct session *s);
/* A login that failed: back to before it. */
void session_logout(struct session *s);
/* Kicks it, with a reason that says to resume. After any other kick its resume token is void. */
void session_send_on(struct session *s, const char *reason);
/* The routes of the schema's handlers, with their figures. */
struct edge_method {
	const struct msg_method *method; /* NULL: a free slot */
	bool local;                      /* the connector answers it itself */
	struct method_stats stats;
};
struct edge_methods { /* by hash of the route's text, open addressing */
	struct edge_methods *next;
	const struct schema *schema;
	uint32_t slots; /* a power of two */
	struct edge_method slot[];
};
struct edge_method *edge_method(struct edge *e, const char *route, size_t n); /* NULL: no such handler */
uint64_t edge_trace(struct edge *e);
