#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"
#include "common/jsontext.h"
#include "common/metrics.h"
#include "deploy/loquat/loquat.h"
/*
 * bots: players made of nothing, for load: each asks the gate, logs in, enters the scene and then sends its mix of
 * requests from a schedule that waits for no answer.
 *
 * Threads: one, with an epoll of its own.
 * Memory:  an array of players and a ring of the requests under way, made once; buffers only while bytes wait.
 * Time:    ns of the monotonic clock. The clock of a run ticks each BOTS_TICK_NS: what is due is sent and what has
 *          come is read then, so a latency holds up to two ticks of our own, and each turn serves many players.
 *          Latency counts from the time a request was meant to leave: a server that stalls is not excused.
 * Files:   bots.c the command and the run, bots_player.c one player's protocol, bots_act.c what it does and how an
 *          answer is judged, bots_sight.c the monsters it knows, bots_stats.c the servers' figures, bots_report.c.
 */
#define BOTS_TICK_NS     1000000u
#define BOTS_DEADLINE_NS 5000000000u /* of an answer */
#define BOTS_LOGIN_NS    30000000000u
#define BOTS_REASONS_MAX 12
#define BOTS_GATES_MAX   16
#define BOTS_MIX         18 /* length of the mix */
#define BOTS_READ_BYTES  (256u << 10)
#define BOTS_RATE_KEPT   0.95
#define BOTS_WORDS       4 /* kinds of refusal counted per action */
#define SIGHT_MAX        8

struct bots_options {
	unsigned players, seconds, login_rate, room;
	double rate;
	bool json;
};

enum bots_action { BOTS_MOVE, BOTS_ECHO, BOTS_ATTACK, BOTS_BUY, BOTS_CHAT, BOTS_ACTIONS };

/* A request without an answer. Its id is its place in the ring. */
struct flight {
	uint64_t intended_ns; /* 0: answered */
	uint32_t player, id;
	enum bots_action action;
};

/* The monsters a player knows, as its scene tells it. */
struct monster {
	int64_t id;
	double x, y;
};
struct sight {
	struct monster monster[SIGHT_MAX];
	unsigned n;
};

enum bot_stage {
	BOT_WAITS,      /* for its turn to log in */
	BOT_GATE_SHAKE, /* for the gate's handshake */
	BOT_GATE_QUERY, /* for queryEntry's answer, or in the queue for onAdmit */
	BOT_SHAKE,      /* for the connector's handshake */
	BOT_ENTER,      /* for enter's answer */
	BOT_SCENE,      /* for scene.enter's answer */
	BOT_PLAYS,
	BOT_FAILED,
};

struct bot {
	int fd; /* -1: none */
	uint32_t index;
	enum bot_stage stage;
	bool waits_out; /* epoll tells when the socket takes bytes again */
	bool touched;   /* stands in the list of those to flush */
	uint16_t port;  /* of the connector the gate named, 0: not asked yet */
	char host[64], *token;
	struct buf in, out;
	uint64_t heartbeat_ns, heartbeat_due_ns, login_ns, login_due_ns;
	/* playing */
	struct sight sight;
	int64_t id; /* of its own entity */
	double x, y, heading;
	uint64_t moved_ns;
	uint64_t attack_due_ns;                               /* not before: it cools down */
	uint32_t turn, owed, sent, answered, moves_under_way; /* owed: attacks put off, see next_action */
	uint64_t last_ns;                                     /* of its answers */
};

struct action_stats {
	uint64_t sent, answered;
	struct hist latency;
	struct {
		char word[24];
		uint64_t count;
	} refused[BOTS_WORDS];
};

struct reason {
	char text[96];
	unsigned count;
};

/* What the servers say of themselves: CPU by service, requests answered by the connectors. */
#define SERVED_MAX 32
struct served {
	struct {
		char service[32];
		uint64_t cpu_us;
	} by[SERVED_MAX];
	unsigned services;
	unsigned connectors; /* that answered */
	uint64_t answered;
	uint64_t machine_us, own_us; /* CPU of the whole machine, and ours */
	uint64_t at_ns;
};

struct bots {
	struct cluster *cluster;
	struct bots_options o;
	char run[16]; /* makes players' names and orders unique */
	uint64_t seed;
	int epoll;
	struct bot *bot;
	const struct route_row *gate[BOTS_GATES_MAX];
	unsigned gates, scenes;
	double width, height, speed, range, cooldown_ns; /* from scene.enter */
	unsigned started, logged_in, login_failed, failed;
	uint64_t login_took_ns, login_ns_max, heartbeat_look_ns;
	/* the run */
	uint64_t start_ns, scheduled, next;
	struct flight *ring;
	uint64_t ring_size, oldest; /* requests before oldest are answered or given up */
	uint32_t *touched, touches;
	struct action_stats action[BOTS_ACTIONS];
	struct hist late; /* how long after its time a request left */
	uint64_t pushes, push_bytes, updates;
	struct reason reason[BOTS_REASONS_MAX];
	unsigned reasons;
	struct served before, after;
	char read[BOTS_READ_BYTES];
};

uint64_t bots_now_ns(void);
double bots_random(struct bots *b); /* in [0, 1), repeatable from the seed */

/* ---- bots_player.c: one player's connection */
void bot_connect(struct bots *b, struct bot *p);
/* The socket is readable or writable. */
void bot_ready(struct bots *b, struct bot *p, bool readable);
/* Adds a request to the output; bot_flush writes it. */
void bot_request(struct bot *p, uint32_t id, const char *route, const char *body, size_t n);
void bot_flush(struct bots *b, struct bot *p);
void bot_heartbeat(struct bots *b, struct bot *p, uint64_t now);
/* Counts the reason, closes. */
void bot_fail(struct bots *b, struct bot *p, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void bot_close(struct bot *p);

/* ---- bots_act.c: the mix */
extern const char *const bots_action_name[BOTS_ACTIONS];
/* Sends the player's next request, the n-th of the run, meant for intended_ns. */
void bots_act(struct bots *b, struct bot *p, uint64_t n, uint64_t intended_ns);
void bots_answer(struct bots *b, struct bot *p, uint32_t id, const char *body, size_t n);
/* Gives up what is unanswered for too long; how many are still under way. */
uint64_t bots_overdue(struct bots *b, uint64_t now);
/* The answer of scene.enter; false: it is none. */
bool bots_placed(struct bots *b, struct bot *p, const char *body, size_t n);

/* ---- bots_sight.c */
/* An update of the scene, or the entities of its first view. */
void sight_update(struct sight *s, const char *body, size_t n);
/* The nearest known monster and how far it is; NULL: none. */
const struct monster *sight_nearest(const struct sight *s, double x, double y, double *distance);
/* The number, or the text (escapes as they are, cut to fit), of a member of a flat object; false: absent. */
bool sight_number(const char *body, size_t n, const char *name, double *out);
bool sight_text(const char *body, size_t n, const char *name, char *out, size_t size);

/* ---- bots_stats.c */
void served_read(struct cluster *c, struct served *out); /* of all processes that answer */
/* Fills in the gates that are ready. */
void bots_find_gates(struct bots *b);

/* ---- bots_report.c: prints it and returns the exit status */
int bots_report(const struct bots *b);
