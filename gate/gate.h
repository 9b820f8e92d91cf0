#pragma once
#include "common/token.h"
#include "gate/line.h"
#include "rpc/addrcount.h"
#include "rpc/clientconn.h"
#include "rpc/clientlisten.h"
#include "rpc/clientset.h"
#include "rpc/player.h"
#include "rpc/service.h"
#include "rpc/stats.h"
/*
 * gate: names a connector to each player and lets no more in than the cluster bears.
 *
 *   gate.c     the service: keys, listener, /stats
 *   visitor.c  a client's connection and its answers; query.c reads its queryEntry; search.c finds a ticket's place
 *   place.c    places: who waits, who is admitted, for how long; tickets and tokens
 *   line.c     the order of those who wait
 *   queue.c    admits from the front, as fast and as many as may be
 *   tell.c     how long it will take, and who is told when
 *   load.c     how full the connectors are; asks each of them all the time
 *   peers.c    the other gates: one of them keeps the count for all
 *   remote.c   what connectors and other gates ask
 *
 * Threads: all of it belongs to worker 0: the queue is one thing. Other workers have nothing to do.
 */
extern const struct service_def gate_service;

#define GATE_POLL_MS    200   /* between questions to the connectors */
#define GATE_FRESH_MS   3000  /* a connector that has not answered for so long gets nobody */
#define GATE_PLACE_MS   60000 /* a place without a connection */
#define GATE_ADMIT_MS   30000 /* an admission, and its token */
#define GATE_TICKET_MS  86400000ull
#define GATE_PLACES_MAX 200000
#define GATE_CLASS_MAX  9
#define GATE_PEERS_MAX  16

struct gate;
/* Who is admitted and not in yet, as another gate, or an earlier start of one, told a connector last. */
struct expected {
	char gate[32];
	uint64_t epoch;
	unsigned n;
};
/* A connector as this gate knows it. */
struct load {
	struct gate *gate;
	char instance[32], host[64], start[24];
	uint16_t port;
	unsigned sessions, admitted; /* logged in by its last word; let in by us and not heard of since */
	unsigned limit, told;        /* the limit for guests it is known to keep to; the one it was told last */
	struct expected expected[GATE_PEERS_MAX];
	size_t expecteds;
	double allowance;  /* admissions saved up, where each connector has a rate */
	uint64_t heard_ms; /* 0: never */
	unsigned entered;  /* since it is being asked: its answer may be from before */
	bool draining, asking, listed, asked_again;
	uint64_t wall_ms;         /* its wall clock when it was heard; 0: it does not say */
	uint64_t differs_ms;      /* from ours then */
	uint64_t differs_told_ms; /* when it was logged that ours differs; 0: never */
	bool foreign;             /* its token.key is another one: who is sent there would be refused */
	uint64_t foreign_told_ms; /* when that was logged; 0: never */
};

enum place_state { PLACE_QUEUED, PLACE_ADMITTED };
struct visitor;
/* A player between queryEntry and enter. */
struct place {
	struct line_node node; /* queued */
	struct place *hash_next, *account_next;
	enum place_state state;
	uint8_t rank; /* priority class: 0 is everybody's */
	bool guest;
	char nonce[TOKEN_NONCE_MAX], origin[32]; /* the gate that gave the ticket */
	char uid[PLAYER_UID_MAX + 1];
	struct addrplace from;   /* the address that asked for it */
	uint64_t since_us;       /* wall clock: when it was taken; no two of a gate have the same */
	uint64_t token_ends_ms;  /* admitted: by its connector's wall clock */
	struct timer timer;      /* its end, where it has one; else the next look at what its visitor knows */
	struct visitor *visitor; /* NULL: not connected */
	struct gate *gate;
	struct load *load; /* admitted: where to */
	/* as the visitor was told last */
	unsigned position, eta_s;
	uint64_t told_ms;
};

struct visitor {
	struct clientconn conn;
	struct gate *gate;
	struct place *place;
	struct search *search; /* other gates are asked for its ticket's place */
	struct ask *ask;       /* its platform is asked */
	/* its queryEntry is answered when it is known whether there is room */
	struct visitor *waits_next, **waits_prev; /* NULL: it does not wait */
	uint32_t waits_id;
	uint64_t waits_ns;
};

/* Another gate. */
struct peer {
	char instance[32];
	bool listed, met; /* met: its link stood at least once */
	uint64_t epoch;
	uint64_t lost_ms;       /* when its link went down, or we started; 0: it stands */
	uint64_t heard_ms;      /* it asked us for admissions; 0: never */
	unsigned waiting, held; /* by its word, and what it was given */
	uint64_t entered;       /* of these so many are in, ever */
	unsigned entered_now,
		entered_before; /* and do not stand in the connectors' words yet: since we ask them, before */
	unsigned due;           /* admissions it may fetch */
	double pass;            /* whose turn it is: the lowest */
};

#define GATE_HASH    65536
#define GATE_SECONDS 60
struct gate {
	struct worker *worker;
	struct service *service;
	struct clientconn_face face;
	struct clientlisten *listen;
	struct clientset *set;
	struct clienttold *told; /* to clients, after what the set has */
	bool stopping;
	uint64_t start_ms, start_us; /* of this start; by the loop's clock and the wall's */
	/* place.c */
	struct line line;
	struct place *place[GATE_HASH], *account[GATE_HASH];
	struct addrcount held; /* places, by the address that asked for them */
	unsigned per_address_max, per_subnet_max;
	bool guests;               /* may come */
	unsigned places, admitted; /* admitted: and not heard of since */
	uint64_t entered;          /* heard of */
	uint64_t since_us;         /* the last place's */
	/* queue.c */
	unsigned players_max, admit_per_s, connector_players_max, connector_admit_per_s, reserved, rank_lead_s;
	double allowance, pass; /* admissions saved up; whose turn it is */
	uint64_t allowance_ms;
	uint64_t hold_until_ms, settle_ms; /* nobody is admitted until; old tickets come since */
	struct visitor *waits;
	unsigned waiting; /* how many these are */
	struct timer pump;
	/* tell.c: admissions of each second, and whether the cluster was full then */
	struct {
		unsigned admissions;
		bool full;
	} second[GATE_SECONDS];
	uint64_t second_now, seconds;
	/* load.c */
	struct load **load;
	size_t loads;
	struct timer poll;
	unsigned sessions, polls, usable; /* usable: connectors that take players */
	char token_key[TOKEN_PRINT_MAX];  /* which one it is */
	uint64_t asked_ms;                /* somebody came for a token */
	const struct msg_method *ask_load, *verify, *take, *allow;
	/* peers.c */
	struct peer peer[GATE_PEERS_MAX];
	size_t peers;
	struct peer *keeper; /* NULL: this gate keeps the count */
	unsigned grants;     /* admissions the keeper gave us */
	bool allow_asking, allow_again;
	double share_room, share_rate; /* our part of room and rate by the keeper's word */
	/* visitor.c */
	struct method_stats query;
	struct ask *asks;
	struct search *searches;
	uint64_t visitors; /* so far */
	struct metric *queued_metric, *usable_metric, *foreign_metric, *differs_metric, *admitted_metric, *told_metric,
		*believed_metric;
};

/* ---- place.c */
/* Not too many, in all or of that address or subnet. */
bool place_fits(struct gate *g, const char *addr);
/*
 * A new place by its age, for who asks from addr. origin and nonce NULL: one of our own, at the end of its class; NULL: it does not
 * fit. Others are of tickets, given up where they were: they have fitted before they were asked for.
 */
struct place *place_new(struct gate *g, const char *addr, const char *uid, bool guest, unsigned rank,
			const char *origin, const char *nonce, uint64_t since_us);
#define PLACES_FULL "the queue is full, or this address holds too many places in it"
struct place *place_find(struct gate *g, const char *nonce);
struct place *place_of_account(struct gate *g, const char *uid);
void place_free(struct place *p);
/* The visitor looks after the place from now on, another one is sent away; NULL: it has gone. */
void place_attach(struct place *p, struct visitor *v);
void place_admit(struct place *p, struct load *l);
unsigned place_position(const struct place *p); /* from 1; 0: admitted */
/* Nothing of it changes: the same place has the same ticket. */
int place_ticket(const struct place *p, char out[TOKEN_MAX]);
int place_token(const struct place *p, char out[TOKEN_MAX]); /* admitted: for its connector */
struct place *place_first(const struct gate *g);             /* NULL: nobody waits */
void place_stop(struct gate *g);

/* ---- queue.c */
void queue_init(struct gate *g);
void queue_stop(struct gate *g);
/* Admits who fits, from the front; answers those who wait to know. */
void queue_pump(struct gate *g);
/* The player of this admission is in: its place is counted by its connector from now on. */
void queue_entered(struct gate *g, const char *nonce);
/* Tickets of an earlier start come back: nobody is admitted until they are all here, so that their order is kept. */
void queue_settle(struct gate *g);
bool queue_stands(const struct gate *g); /* somebody waits who knows it, here or at another gate */

/* ---- tell.c */
void tell_init(struct gate *g);
void tell_second(struct gate *g, unsigned admissions); /* each pump: how many it let in */
void tell_note(struct place *p, unsigned position);    /* its visitor has been told */
void tell_look(struct place *p);                       /* tells its visitor if that knows worse */
#define TELL_LOOK_MS 2000

/* ---- load.c */
void load_init(struct gate *g);
void load_stop(struct gate *g);
struct load *load_least(struct gate *g);     /* NULL: no connector takes players */
uint64_t load_wall_ms(const struct load *l); /* its wall clock now, as far as it told */
unsigned load_room(const struct gate *g);    /* players that still fit */
unsigned load_free(const struct gate *g);    /* of these, not promised to guests without a token */
bool load_recall(struct gate *g);            /* asks for those back; false: nothing was promised */
bool load_known(const struct gate *g);       /* every connector has spoken */

/* ---- peers.c */
void peers_poll(struct gate *g);
/* For admissions, of the keeper, if there is one; again: once more if an answer is under way, somebody has come. */
void peers_ask(struct gate *g, bool again);
unsigned peers_held(const struct gate *g); /* admissions of other gates that are not in yet */
unsigned peers_listed(const struct gate *g);
unsigned peers_waiting(const struct gate *g);
bool peers_met(const struct gate *g); /* every other gate has been reached */
/* The keeper's turn by turn: the other gate that is next, or NULL for this one, which has so many waiting. */
struct peer *peers_turn(struct gate *g, unsigned waiting);
void peers_parts(const struct gate *g, const struct peer *p, unsigned waiting, double *room, double *rate);
struct peer *peer_of(struct gate *g, const char *instance); /* NULL: too many */
/* That gate asks: what it holds, who waits there. Returns how many it may admit. */
unsigned peers_allow(struct gate *g, struct peer *p, unsigned waiting, unsigned held, uint64_t entered);
void peers_counted(struct gate *g);                                           /* all connectors have answered */
bool peers_known(const struct gate *g, const char *instance, uint64_t epoch); /* counted by peers_held */

/* ---- search.c */
void search_start(struct visitor *v, uint32_t id, const struct token *t, uint64_t start_ns);
void search_stop(struct gate *g);
void search_cut(struct visitor *v);
#define TICKET_FIELDS 6                                   /* uid, guest or account, origin, nonce, since, rank */
bool gate_young(const struct gate *g, uint64_t since_us); /* it may have forgotten a place as old as that */

/* ---- query.c */
void query_message(struct clientconn *c, const struct pomelo_message *m); /* clientconn_ops.on_message */
void query_stop(struct gate *g);
void query_cut(struct visitor *v);

/* ---- visitor.c */
void visitor_accept(struct gate *g, struct env_conn *conn, const char *addr);
void visitor_told(struct place *p, unsigned position); /* push onQueue */
void visitor_admitted(struct place *p);                /* push onAdmit, or the answer it waits for */
void visitor_wait(struct visitor *v, uint32_t id, uint64_t start_ns);
void visitor_wait_end(struct visitor *v); /* it is answered with what is */
void visitor_answer(struct visitor *v, uint32_t id, struct place *p, uint64_t start_ns);
void visitor_refuse(struct visitor *v, uint32_t id, uint64_t start_ns, int err, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
void visitor_note(struct gate *g, int err, uint64_t start_ns);
struct visitor *visitor_of(struct clientconn *c);
extern const struct clientconn_ops visitor_ops;

/* ---- remote.c */
void gate_remotes(struct gate *g);
/* ---- gate.c */
void gate_free(struct gate *g);
uint64_t gate_now_ms(const struct gate *g);
uint64_t gate_wall_us(const struct gate *g);
