#pragma once
#include "common/token.h"
#include "connector/session.h"
/*
 * entry_private: what entry.c (the steps of a login) and entry_read.c (its request) share.
 *
 * A login on its way: token used once (worker 0) → the uid's owner → the chat room → the answer. It lives until
 * its last step even when the connection ends before: then what it did is undone.
 *
 * Threads: the session's worker.
 */
struct entry {
	struct entry *next, **prev; /* of the edge */
	struct edge *edge;
	struct session *session; /* NULL: the connection has ended */
	struct edge_method *method;
	uint64_t sid, start_ns, due_ms;
	uint64_t rings; /* edge.rings when the owner was asked */
	uint32_t id;
	bool guest;  /* without a token: an older living connection refuses it */
	bool create; /* a role is made if there is none */
	bool resumed;
	bool counted; /* among those who enter, see guests.h */
	char uid[PLAYER_UID_MAX + 1], rid[PLAYER_UID_MAX + 1], name[PLAYER_NAME_MAX + 1];
	char nonce[TOKEN_NONCE_MAX], gate[32]; /* of the login token */
	char take_over[SESSION_NONCE_MAX + 1]; /* of the resume token */
	char resume[SESSION_NONCE_MAX + 1];    /* of the next one */
	char scene[64];
	/* a resume: where the session was; what was pushed there since, and here meanwhile */
	char older[32];
	uint64_t older_sid;
	struct clientlate *missed, *came;
	unsigned misses;
	unsigned lost;      /* answers of the owner */
	bool reload;        /* not all of it is known */
	struct buf role;    /* its JSON text */
	struct timer place; /* a guest waits for one */
};

/* A failed check of the request: what is wrong goes to message. */
struct wrong {
	int err;
	char message[200];
};
/* Reads the request's body into t; false: w says what is wrong. */
bool entry_read(struct entry *t, bool resume, const char *body, size_t n, struct wrong *w);
