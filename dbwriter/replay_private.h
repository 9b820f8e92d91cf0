#pragma once
#include <stdatomic.h>
#include <string.h>
#include "common/sqllog.h"
#include "dbwriter/batch.h"
#include "dbwriter/plan.h"
#include "dbwriter/tables.h"
#include "dbwriter/follow.h"
#include "dbwriter/quarantine.h"
#include "dbwriter/replay.h"
/*
 * replay_private: what replay.c (whose turn it is), replay_lane.c (a connection), replay_land.c (a transaction),
 * replay_stream.c (one instance's log), replay_scrub.c and replay_figures.c share.
 */

/* Written by the loop, read by anybody. */
struct replay_counts {
	_Atomic uint64_t records, transactions, quarantined, fenced, retries, folded;
	_Atomic uint64_t epoch, lsn, log_lsn; /* position; last lsn known to be in the log */
	_Atomic uint64_t oldest_us;           /* time of the oldest record not landed; 0: none known */
	_Atomic uint64_t waits_ns;            /* since when that one is known to wait, by the clock that never jumps */
	_Atomic bool stopped;
	_Atomic bool refused; /* what the database says of a moment, it has said for a second */
};

struct load { /* records that were read, and how they are to be landed */
	struct batch batch;
	struct plan *plan;
	unsigned version; /* of the tables the plan is made by; 0: there is no plan */
	unsigned planned; /* records that are in it */
	bool closed;      /* the plan is complete: nothing more is read into this load */
};

struct stream {
	struct stream *_Atomic next; /* only ever added to, so that any thread may walk the list */
	struct replay *replay;
	struct lane *lane;
	char name[64];
	char folder[ENV_PATH_MAX - 64];
	struct env_watch *watch;
	bool dirty; /* there may be something to read */
	bool known; /* the position was read from the database */
	struct position landed;
	struct follow follow;
	struct load load, ahead; /* what lands next; what was read while that was under way */
	bool one_by_one;         /* the load's plan was refused: its records as they stand in the log */
	unsigned most;           /* records in a load: as many as land in about TRANSACTION_MS */
	uint64_t began_ms;       /* the transaction under way */
	uint64_t look_again_ms;  /* at the last lsn, the hint, old files */
	uint64_t stopped_ms, told_ms, try_again_ms;
	struct position hinted;
	bool given_up;                    /* the batch's first record is passed over in the next transaction */
	struct position kept;             /* the record that was put into quarantine last */
	struct held_keys held;            /* of refused records, where keys are held */
	int64_t held_us;                  /* when the quarantine they were read from was written */
	struct quarantine_seen held_seen; /* that one, or as it has grown since */
	unsigned refusal_code;
	char refusal[300];
	uint64_t fenced_told;
	uint64_t moved_ms, ask_ms; /* of a copy: its position moved, or it landed last; it is asked again */
	bool asked;                /* … it was told once */
	struct follow scrub;       /* … read through while nobody needs it */
	bool scrubs;               /* … in the middle of it */
	uint64_t scrub_ms;         /* … the next time */
	struct replay_counts counts;
};

struct lane { /* a connection, and the streams that land over it */
	struct replay *replay;
	struct stream *current; /* of the transaction under way, or of the query for its position */
	struct stream *turn;    /* whose turn comes next */
	struct timer retry, patience;
	struct env_db *db;
	bool ready;  /* the connection stands and is set up */
	bool busy;   /* a query is under way */
	bool silent; /* for long: the database does not count as connected until it answers */
	bool asks;   /* the query only asks whether somebody is there */
	uint64_t asked_ms, heard_ms;
	bool resting; /* until the retry timer */
	bool away_told;
	bool joins;          /* the database knows JSON_TABLE */
	bool planned;        /* the transaction under way is the load's plan */
	unsigned group, row; /* of it: what comes next */
	uint32_t backoff_ms;
	struct buf sql;
};

struct replay {
	struct loop *loop;
	struct log *log;
	struct replay_options o;
	struct stream *_Atomic streams;
	unsigned streams_n;
	struct lane lane[REPLAY_CONNECTIONS_MAX];
	struct env_watch *watch;
	struct loop_deferred work;
	struct timer poll, ahead;      /* ahead: runs while there is something to read, and the database has work */
	struct tables tables, fresh;   /* fresh: being read */
	struct lane *reader;           /* who reads; NULL: nobody */
	unsigned query;                /* of tables.h, under way */
	bool stale;                    /* the tables may have changed */
	uint64_t schema, schema_fresh; /* rows of loquat_schema when the tables were read; 0: none */
	_Atomic uint64_t kept;         /* records in quarantine.sql */
	_Atomic uint64_t forgotten;    /* rows of loquat_once, since the start */
	unsigned forgetting;           /* of them, under way */
	uint64_t forget_ms;            /* the next look at them */
	uint64_t newest_us;            /* of the records that have landed since the start */
	char forget_from[64 * 4 + 1];  /* the client it begins with; empty: the first */
	int64_t kept_us;               /* when it was written, as of that count */
	_Atomic unsigned connected;    /* lanes that are ready and not silent */
};

/* ---- a connection: replay_lane.c ------------------------------------------------------------------------------------- */

void lane_init(struct lane *l, struct replay *r); /* begins to connect; the lane is zero */
void lane_release(struct lane *l);
/* One query is under way at a time; fn begins with lane_answered. */
void lane_ask(struct lane *l, const char *sql, size_t n, void (*fn)(void *arg, const struct env_db_result *res));
void lane_ask_text(struct lane *l, const char *sql, void (*fn)(void *arg, const struct env_db_result *res));
void lane_begin_asking(struct lane *l); /* for what is asked otherwise than by lane_ask */
/* Every answer passes here first. False: the connection is gone, and everything is settled. */
bool lane_answered(struct lane *l, const struct env_db_result *res);
void lane_disconnect(struct lane *l, const char *why);
void lane_rest(struct lane *l); /* the next step only after a while, each time a longer one */
void lane_watch(struct lane *l, uint64_t now_ms);
void lane_format(struct lane *l, const char *sql, const struct sql_value *values, size_t n); /* adds to l->sql */
static inline struct sql_value text_value(const char *text)
{
	return (struct sql_value){ .type = SQL_TEXT, .s = { text, strlen(text) } };
}
static inline struct sql_value int_value(uint64_t v)
{
	return (struct sql_value){ .type = SQL_INT, .i = (int64_t)v };
}

/* What comes next on it, if it is free: replay.c */
void lane_step(struct lane *l);

/* ---- a transaction: replay_land.c -------------------------------------------------------------------------------------- */

void land_begin(struct lane *l, struct stream *s); /* of what stream_fill has read */
/* The trouble is of this moment: the transaction is given back, and the same is tried again after a rest. */
void land_again_later(struct lane *l, const struct env_db_result *res, const char *doing);
/* A timer's: while the database works the next records are read, by pieces, so that no answer waits long for us. */
void land_read_ahead(struct timer *t, uint64_t now_ms);

/* Nothing is to land: takes out what of loquat_once is too old, if it is time. replay_forget.c */
void forget_begin(struct lane *l);

/* ---- one instance's log: replay_stream.c ------------------------------------------------------------------------------- */

/* Finds the folders that are new. */
void streams_discover(struct replay *r);
void stream_release(struct stream *s);
/* Takes out of quarantine.sql what is read from the log again from this position on. */
int stream_take_back(struct stream *s, struct position landed);
/* The position is known: reads from there. */
void stream_begin(struct stream *s, struct position landed);
/* Of a copy that is not landed here: reads on in it, for damage. replay_scrub.c */
void stream_scrub(struct stream *s, uint64_t now_ms);
/* Of a copy: whether it is time to ask for its position; and, knowing that, to land what is behind it. */
bool stream_asks(struct stream *s);
bool stream_takes_over(struct stream *s, struct position landed);
/* The position is in doubt: what was read ahead is forgotten. */
void stream_doubt(struct stream *s);
/* Reads what lands next. True: there is something. */
bool stream_fill(struct stream *s);
/* While that is under way: reads and plans the next piece of what lands then. False: nothing more is to be read. */
bool stream_read_ahead(struct stream *s);
/* Completes the load's plan; false: it has to land one by one. */
bool stream_plan(struct stream *s);
/* The load is not to land as it was planned. */
void stream_unplan(struct stream *s);
/* The transaction under way was committed. */
void stream_landed(struct stream *s);
/* Now and then: the last lsn in the log, the hint for its writer, files that have landed long ago. */
void stream_look(struct stream *s, uint64_t now_ms);
void stream_hint(struct stream *s);
/* Where keys are held: lets the next transaction end before the first record of one, or passes over it if that is first. */
void stream_hold_back(struct stream *s);
/* Appends the batch's first record to quarantine.sql, synced, with the reason in s. */
int stream_quarantine(struct stream *s);
