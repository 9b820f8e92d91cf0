#include "common/log.h"
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "common/buf.h"
#include "common/log_text.h"
#include "common/prefetch.h"

/*
 * The caller packs format and arguments into a record and copies it into the ring: no lock, no system call, no
 * digits made. The log thread turns records into text.
 *
 * The ring counts bytes; a record starts at a multiple of GRAIN. It is complete when its first word, the mark, tells its
 * grains and in which round of the ring it was written: so most lines, which are of one grain, are only read by the log
 * thread, and their memory stays with the callers. Of longer ones it sets the first word of each further grain to 0 before
 * it gives the room back: values stood there, which may look like a mark.
 *
 * The log thread polls while lines come and is woken only when it has gone to sleep (or when half of the ring
 * is used up): waking per line is what makes other asynchronous loggers slower than synchronous ones.
 */
enum {
	RING = 2 << 20, /* a large page */
	GRAIN = 64,
	EVENT_MAX = 128,
	PLACES = 1024, /* a power of two */
	PROBES = 4,
	AHEAD = 8 * GRAIN, /* so far before they are needed callers ask for the ring's lines */
	POLL_NS = 2000000,
	WRITE_BYTES = 64 << 10 /* of text per write */
};
enum { PADDING = 255 }; /* as level: the rest of the ring's end */

/* A place in the program from which lines come. */
struct place {
	const char *event_at, *fmt_at; /* what it says, where these stand for good; NULL: they were only copied */
	const char *event;             /* as said there first; a copy, and behind it the format's */
	const char *event_text;        /* as it stands in a line */
	uint32_t event_text_n;
	struct log_format format;
	char data[];
};

/* What most lines have fits one grain: three numbers and a short name. */
struct record {
	_Atomic uint32_t mark;  /* mark_of: it is complete; before that another, or 0 */
	uint8_t level, event_n; /* of the event that is in data */
	bool own_event;
	uint64_t ticks;            /* when: a look at the clock would be a third of the call */
	const struct place *place; /* NULL: its format is in data */
	char data[]; /* the event if it is not the place's, the format with a NUL if there is no place, packed values */
};
_Static_assert(offsetof(struct record, data) == 24, "nothing between");

/* One look at all clocks. */
struct moment {
	uint64_t ticks, mono_ns, wall_us;
};

struct log {
	struct env *env;
	struct env_loop *loop;
	struct env_file *file;
	char *instance;
	size_t instance_n;
	_Atomic(struct place *) places[PLACES]; /* those that spoke before */
	/* what callers read at each line and nobody writes at each */
	_Alignas(GRAIN) char *ring;
	_Atomic int level;
	_Atomic bool asleep, nudged;
	_Atomic uint64_t dropped;
	/* what callers write */
	_Alignas(GRAIN) _Atomic uint64_t tail; /* bytes ever reserved */
	_Atomic uint64_t head_seen;            /* some head of before: enough while there is much room */
	_Alignas(GRAIN) _Atomic uint64_t head; /* bytes ever given back */
	/* the log thread's own */
	struct moment opened, now;
	double us_per_tick;
	uint64_t dropped_told, lines_pending;
	uint64_t second; /* that date[] spells */
	char date[40];   /* 19 bytes, room for what the compiler thinks possible */
	struct buf out;
};

/* ---- the caller's side --------------------------------------------------------------------------------- */

static struct place *place_new(const char *event, const char *fmt, bool fixed)
{
	size_t event_n = strnlen(event, EVENT_MAX + 1), fmt_n = strnlen(fmt, LOG_FMT_MAX + 1);
	if (event_n > EVENT_MAX || fmt_n > LOG_FMT_MAX)
		return NULL;
	struct place *p = malloc(sizeof *p + event_n + 1 + fmt_n + 1 + LOG_VALUE_ROOM(event_n));
	if (!p)
		return NULL;
	char *own_fmt = (char *)memcpy(p->data, event, event_n + 1) + event_n + 1;
	char *text = (char *)memcpy(own_fmt, fmt, fmt_n + 1) + fmt_n + 1;
	p->event_at = fixed ? event : NULL;
	p->fmt_at = fixed ? fmt : NULL;
	p->event = p->data;
	p->event_text = text;
	p->event_text_n = (uint32_t)(log_put_value(text, event, event_n) - text);
	log_format_parse(&p->format, own_fmt);
	return p;
}

static inline _Atomic(struct place *) *place_at(struct log *log, const char *event, const char *fmt, unsigned probe)
{
	uint64_t both = (uint64_t)(uintptr_t)fmt + ((uint64_t)(uintptr_t)event << 16);
	return &log->places[((both * UINT64_C(0x9e3779b97f4a7c15) >> 32) + probe) % PLACES];
}

static inline bool place_fits(const struct place *p, const char *event, const char *fmt, bool fixed)
{
	return fixed ? p->fmt_at == fmt && p->event_at == event : !strcmp(p->format.text, fmt);
}

/*
 * The place that says this, made at its first line; NULL: there is no room for more. An address alone proves nothing of a
 * text that a caller may have built, so such a format is compared; its event is, when the line is written.
 */
static inline const struct place *place_of(struct log *log, const char *event, const char *fmt, bool fixed)
{
	for (unsigned i = 0; i < PROBES; i++) {
		_Atomic(struct place *) *at = place_at(log, fixed ? event : NULL, fmt, i);
		/* acquire: pairs with the release below, so the place is seen whole */
		struct place *p = atomic_load_explicit(at, memory_order_acquire), *made;
		if (!p && (made = place_new(event, fmt, fixed))) {
			if (atomic_compare_exchange_strong_explicit(at, &p, made, memory_order_release,
								    memory_order_acquire))
				return made;
			free(made);
		}
		if (__builtin_expect(p && place_fits(p, event, fmt, fixed), 1))
			return p;
	}
	return NULL;
}

static struct record *record_at(const struct log *log, uint64_t position)
{
	return (struct record *)(log->ring + position % RING);
}

/* Of a record that was written at the position: never 0, and in no other round the same but after 2^16 of them. */
static inline uint32_t mark_of(uint64_t position, uint64_t bytes)
{
	return (uint32_t)((position / RING + 1) << 16 | bytes / GRAIN);
}

/*
 * The log thread has read these lines since, and its processor a few more on its own account: what is asked for now is here
 * when this record or one of the next needs it. Otherwise its stores hold up the exchange in the reserve of the one after
 * it. All of them each time and before all else: the first record of a burst asks for what was taken away since the last
 * one while it waits for code and tables, and what is here costs next to nothing. Behind the ring's end it asks for
 * nothing: eight lines in a round.
 */
static inline void ask_ahead(struct log *log)
{
	const char *first = (const char *)record_at(log, atomic_load_explicit(&log->tail, memory_order_relaxed));
#pragma GCC unroll 9
	for (uint32_t at = 0; at <= AHEAD; at += GRAIN)
		prefetch_write(first + at);
}

/* Half of the ring is full, as far as is known: looks how much it is, and tells the log thread once. */
static int64_t used_now(struct log *log, uint64_t end)
{
	/* acquire: pairs with the release in give_back, so we write only where it has zeroed, and so does who sees head_seen */
	uint64_t head = atomic_load_explicit(&log->head, memory_order_acquire);
	atomic_store_explicit(&log->head_seen, head, memory_order_release);
	int64_t used = (int64_t)(end - head);
	if (used > RING / 2 && !atomic_load_explicit(&log->nudged, memory_order_relaxed) &&
	    !atomic_exchange_explicit(&log->nudged, true, memory_order_relaxed))
		env_loop_wake(log->loop);
	return used;
}

/* Reserves need bytes that lie together, with the rest of the ring's end if they would cross it; NULL: full. */
static inline bool reserve(struct log *log, uint32_t need, uint64_t *position)
{
	uint64_t tail = atomic_load_explicit(&log->tail, memory_order_relaxed), skip;
	do {
		uint64_t rest = RING - tail % RING, seen = atomic_load_explicit(&log->head_seen, memory_order_acquire);
		skip = rest < need ? rest : 0;
		uint64_t end = tail + skip + need; /* an old tail may be before the head: then the exchange fails */
		if ((int64_t)(end - seen) > RING / 2 && used_now(log, end) > RING)
			return false;
		/* seq_cst: pairs with asleep and tail in sleep_or_poll: one of the two sees the other */
	} while (!atomic_compare_exchange_weak_explicit(&log->tail, &tail, tail + skip + need, memory_order_seq_cst,
							memory_order_relaxed));
	if (skip) {
		struct record *r = record_at(log, tail);
		r->level = PADDING;
		atomic_store_explicit(&r->mark, mark_of(tail, skip), memory_order_release);
	}
	*position = tail + skip;
	return true;
}

static void wake_if_asleep(struct log *log)
{
	if (atomic_load_explicit(&log->asleep, memory_order_seq_cst) &&
	    atomic_exchange_explicit(&log->asleep, false, memory_order_seq_cst))
		env_loop_wake(log->loop);
}

/* A line as the place, or who has none, says it: event is NULL if it is the place's, fmt if the place has it. */
static inline __attribute__((always_inline)) void say_as(struct log *log, enum log_level level,
							 const struct place *place, const struct log_format *format,
							 const char *event, const char *fmt, const uint64_t *words)
{
	uint64_t ticks = env_ticks(log->env); /* long under way, so it begins before what it can go beside */
	struct log_strings strings;
	log_strings_take(&strings, format, words);
	size_t event_n = event ? strnlen(event, EVENT_MAX) : 0, fmt_n = fmt ? format->text_n + 1u : 0;
	size_t bytes = sizeof(struct record) + event_n + fmt_n + log_packed_bytes(format, &strings);
	bytes = (bytes + GRAIN - 1) / GRAIN * GRAIN;
	uint64_t position;
	if (!reserve(log, (uint32_t)bytes, &position)) {
		atomic_fetch_add_explicit(&log->dropped, 1, memory_order_relaxed);
		return;
	}
	struct record *r = record_at(log, position);
	r->level = (uint8_t)level;
	r->own_event = event;
	r->event_n = (uint8_t)event_n;
	r->ticks = ticks;
	r->place = place;
	char *p = r->data;
	if (event)
		p = log_copy(p, event, event_n);
	if (fmt) {
		p = log_copy(p, fmt, fmt_n - 1);
		*p++ = 0;
	}
	log_pack(p, format, words, &strings);
	atomic_store_explicit(&r->mark, mark_of(position, bytes),
			      memory_order_release); /* pairs with the acquire in drain */
	wake_if_asleep(log);
}

/* Each line but the usual one. Out of the way, so that nothing of it is in the usual one's. */
static __attribute__((noinline)) void say_other(struct log *log, enum log_level level, const char *event,
						const char *fmt, bool fixed, const uint64_t *words)
{
	const struct place *place = place_of(log, event, fmt, fixed);
	struct log_format own;
	if (place && (fixed || !strcmp(place->event, event))) {
		say_as(log, level, place, &place->format, NULL, NULL, words);
	} else if (place) {
		say_as(log, level, place, &place->format, event, NULL, words);
	} else {
		log_format_parse(&own, fmt);
		say_as(log, level, NULL, &own, event, fmt, words);
	}
}

void log_words(struct log *log, enum log_level level, const char *event, const char *fmt, bool fixed,
	       const uint64_t *words)
{
	if (log_level_get(log) > level)
		return;
	ask_ahead(log);
	const struct place *place = atomic_load_explicit(place_at(log, event, fmt, 0), memory_order_acquire);
	if (__builtin_expect(fixed && place && place_fits(place, event, fmt, true), 1))
		say_as(log, level, place, &place->format, NULL, NULL, words);
	else
		say_other(log, level, event, fmt, fixed, words);
}

/* ---- the log thread: text ------------------------------------------------------------------------------- */

/* A thread may lose its core between two clocks: of some looks the one that took the least. */
static struct moment moment_now(const struct log *log)
{
	enum { TRIES = 16, SHORT_NS = 1000 };
	struct moment best = { 0 };
	uint64_t least = UINT64_MAX;
	for (unsigned i = 0; i < TRIES && least > SHORT_NS; i++) {
		struct moment m = { .mono_ns = env_mono_ns(log->env) };
		m.ticks = env_ticks(log->env);
		m.wall_us = env_wall_us(log->env);
		uint64_t took = env_mono_ns(log->env) - m.mono_ns;
		if (took < least) {
			best = m;
			least = took;
		}
	}
	return best;
}

/*
 * What ticks are worth is known from all the time since opening, by the clock that is never set; where they stand, from
 * the last look at the one that may be.
 */
static void look_at_clocks(struct log *log)
{
	log->now = moment_now(log);
	uint64_t ticks = log->now.ticks - log->opened.ticks;
	if (ticks)
		log->us_per_tick = (double)(log->now.mono_ns - log->opened.mono_ns) / 1000 / (double)ticks;
}

static uint64_t wall_us_of(const struct log *log, uint64_t ticks)
{
	double us = (double)(int64_t)(ticks - log->now.ticks) * log->us_per_tick; /* most often before now */
	return log->now.wall_us + (uint64_t)(int64_t)us;
}

/* Days since 1970 as a date: H. Hinnant, "chrono-compatible low-level date algorithms". */
static void date_set(struct log *log, uint64_t second)
{
	uint64_t z = second / 86400 + 719468, era = z / 146097, doe = z % 146097;
	uint64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365,
		 doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	unsigned mp = (unsigned)((5 * doy + 2) / 153), day = (unsigned)(doy - (153 * mp + 2) / 5 + 1);
	unsigned month = mp < 10 ? mp + 3 : mp - 9, year = (unsigned)(yoe + era * 400 + (month <= 2));
	unsigned s = (unsigned)(second % 86400);
	log->second = second;
	snprintf(log->date, sizeof log->date, "%04u-%02u-%02uT%02u:%02u:%02u", year % 10000, month, day, s / 3600,
		 s / 60 % 60, s % 60);
}

/* Up to the event; returns the end. */
static char *put_head(struct log *log, char *o, uint64_t wall_us, unsigned level)
{
	static const struct {
		char text[8];
		uint32_t n;
	} words[] = { { "debug ", 6 }, { "info ", 5 }, { "warn ", 5 }, { "error ", 6 } };
	unsigned rest = (unsigned)(wall_us % 1000000);
	if (log->second != wall_us / 1000000)
		date_set(log, wall_us / 1000000);
	memcpy(o, log->date, 19);
	memcpy(o + 19, ".000000Z ", 9);
	for (int i = 25; i > 19; i--, rest /= 10)
		o[i] = (char)('0' + rest % 10);
	memcpy(o + 28, words[level].text, sizeof words[level].text);
	o = mempcpy(o + 28 + words[level].n, log->instance, log->instance_n);
	*o++ = ' ';
	return o;
}

/* Room for any line before it is cut. */
static char *line_room(struct log *log)
{
	enum { HEAD_MAX = 64 };
	return buf_reserve(&log->out, HEAD_MAX + log->instance_n + LOG_VALUE_ROOM(EVENT_MAX) + LOG_FORMAT_ROOM);
}

/* Cuts at a character, ends with the newline; spaces at the end (a format without fields) go. */
static void line_end(struct log *log, char *end, bool cut)
{
	static const char mark[] = "…\n";
	enum { MOST = LOG_LINE_MAX - (sizeof mark - 1) };
	char *start = log->out.data + log->out.len;
	if (cut || end - start >= LOG_LINE_MAX) {
		char *stop = end - start > MOST ? start + MOST : end;
		while (stop < end && ((unsigned char)*stop & 0xc0) == 0x80)
			stop--;
		end = mempcpy(stop, mark, sizeof mark - 1);
	} else {
		while (end[-1] == ' ')
			end--;
		*end++ = '\n';
	}
	log->out.len = (size_t)(end - log->out.data);
	log->lines_pending++;
}

static void add_record(struct log *log, const struct record *r)
{
	const char *p = r->data + r->event_n;
	struct log_format own;
	const struct log_format *format = r->place ? &r->place->format : &own;
	if (!r->place) {
		log_format_parse(&own, p);
		p += own.text_n + 1;
	}
	char *o = put_head(log, line_room(log), wall_us_of(log, r->ticks), r->level);
	o = r->own_event ? log_put_value(o, r->data, r->event_n)
			 : mempcpy(o, r->place->event_text, r->place->event_text_n);
	*o++ = ' ';
	char *end = log_put_format(o, format, p);
	/* Values are escaped; a newline in the format itself would be our own mistake, but not a forged line. */
	for (; format->newline && (o = memchr(o, '\n', (size_t)(end - o)));)
		*o = ' ';
	line_end(log, end, format->cut);
}

/* ---- the log thread: the ring ---------------------------------------------------------------------------- */

static void write_out(struct log *log)
{
	if (!log->out.len)
		return;
	if (env_file_append(log->file, log->out.data, log->out.len) < 0) /* a full disk must not stop the game */
		atomic_fetch_add_explicit(&log->dropped, log->lines_pending, memory_order_relaxed);
	log->lines_pending = 0;
	buf_clear(&log->out);
}

static void tell_dropped(struct log *log)
{
	uint64_t dropped = log_dropped(log);
	if (dropped == log->dropped_told)
		return;
	char *o = put_head(log, line_room(log), env_wall_us(log->env), LOG_WARN);
	o += snprintf(o, LOG_LINE_MAX, "log.dropped lines=%llu total=%llu",
		      (unsigned long long)(dropped - log->dropped_told), (unsigned long long)dropped);
	line_end(log, o, false);
	log->lines_pending--; /* if it cannot be written that is no new loss */
	log->dropped_told = dropped;
}

/* What may look like a mark. The room is given back in larger pieces, each costs the callers a cache miss. */
static void clear(struct log *log, uint64_t position, uint32_t bytes)
{
	for (uint32_t i = GRAIN; i < bytes; i += GRAIN)
		atomic_store_explicit(&record_at(log, position + i)->mark, 0, memory_order_relaxed);
}

static void give_back(struct log *log, uint64_t head)
{
	atomic_store_explicit(&log->head, head, memory_order_release); /* pairs with the acquire in reserve */
}

/* Writes what is complete, at most one ring full; returns the bytes of the ring it took. */
static uint64_t drain(struct log *log)
{
	uint64_t first = atomic_load_explicit(&log->head, memory_order_relaxed), head = first, given = first;
	if (atomic_load_explicit(&log->nudged,
				 memory_order_relaxed)) /* a line that callers read is not written for nothing */
		atomic_store_explicit(&log->nudged, false, memory_order_relaxed);
	look_at_clocks(log);
	/* Behind the tail nothing is looked at: a line that is read here is taken from the caller who writes it next. */
	uint64_t tail = head;
	while (head - first < RING) {
		if (head == tail && (tail = atomic_load_explicit(&log->tail, memory_order_relaxed)) == head)
			break;
		struct record *r = record_at(log, head);
		uint32_t mark = atomic_load_explicit(&r->mark, memory_order_acquire); /* pairs with say */
		uint32_t bytes = (mark & 0xffff) * GRAIN;
		if (!bytes || mark != mark_of(head, bytes))
			break;
		if (r->level != PADDING)
			add_record(log, r);
		clear(log, head, bytes);
		head += bytes;
		if (head - given >= RING / 64)
			give_back(log, given = head);
		if (log->out.len >= WRITE_BYTES)
			write_out(log);
	}
	give_back(log, head);
	tell_dropped(log);
	write_out(log);
	return head - first;
}

static uint64_t sleep_or_poll(struct log *log)
{
	atomic_store_explicit(&log->asleep, true, memory_order_seq_cst);
	if (atomic_load_explicit(&log->tail, memory_order_seq_cst) ==
	    atomic_load_explicit(&log->head, memory_order_relaxed))
		return ENV_NEVER;
	atomic_store_explicit(&log->asleep, false, memory_order_seq_cst);
	return env_mono_ns(log->env) + POLL_NS;
}

static void on_start(void *arg, struct env_loop *loop)
{
	(void)arg, (void)loop;
}

static uint64_t on_turn(void *arg)
{
	struct log *log = arg;
	uint64_t took = drain(log);
	if (took > RING / 4)
		return 0;
	return took ? env_mono_ns(log->env) + POLL_NS : sleep_or_poll(log);
}

static void on_stop(void *arg)
{
	drain(arg);
}

/* ---- opening ---------------------------------------------------------------------------------------------- */

static void log_free(struct log *log)
{
	env_file_close(log->file);
	buf_release(&log->out);
	for (unsigned i = 0; i < PLACES; i++)
		free(log->places[i]);
	free(log->instance);
	env_memory_free(log->env, log->ring, RING);
	free(log);
}

/* The instance stands unquoted in every line; what would need quotes is replaced. */
static char *instance_word(const char *instance)
{
	char *word = strdup(*instance ? instance : "-");
	for (unsigned char *p = (unsigned char *)word; p && *p; p++)
		if (*p <= ' ' || *p >= 0x7f || *p == '"' || *p == '=' || *p == '\\')
			*p = '_';
	return word;
}

int log_open(struct env *env, const char *instance, const char *path, enum log_level level, struct log **out)
{
	static const struct env_loop_ops ops = { .on_start = on_start, .on_turn = on_turn, .on_stop = on_stop };
	int err = ERR_NOMEM;
	struct log *log = aligned_alloc(GRAIN, (sizeof *log + GRAIN - 1) / GRAIN * GRAIN);
	if (!log)
		return err;
	*log = (struct log){ .env = env, .level = level, .second = UINT64_MAX };
	log->instance = instance_word(instance);
	log->ring = env_memory(env, RING);
	if (!log->instance || !log->ring)
		goto fail;
	log->instance_n = strlen(log->instance);
	err = env_file_open(env, path ? path : "/dev/stderr", ENV_WRITE | (path ? ENV_CREATE : 0), &log->file);
	if (err < 0)
		goto fail;
	log->opened = log->now = moment_now(log);
	if ((err = env_loop_start(env, "log", &ops, log, &log->loop)) < 0)
		goto fail;
	*out = log;
	return 0;
fail:
	log_free(log);
	return err;
}

void log_close(struct log *log)
{
	if (!log)
		return;
	env_loop_stop(log->loop);
	env_loop_join(log->loop);
	log_free(log);
}

void log_level_set(struct log *log, enum log_level level)
{
	atomic_store_explicit(&log->level, (int)level, memory_order_relaxed);
}

enum log_level log_level_get(const struct log *log)
{
	return (enum log_level)atomic_load_explicit(&log->level, memory_order_relaxed);
}

int log_level_parse(const char *word)
{
	static const char *const words[] = { "debug", "info", "warn", "error" };
	for (int i = LOG_DEBUG; i <= LOG_ERROR; i++)
		if (!strcmp(word, words[i]))
			return i;
	return ERR_BAD_REQUEST;
}

uint64_t log_dropped(const struct log *log)
{
	return atomic_load_explicit(&log->dropped, memory_order_relaxed);
}

bool log_bound_fits(struct log_bound *b, struct log *log, uint64_t now_ms)
{
	if (b->second != now_ms / 1000) {
		if (b->left_out)
			log_info(log, "log.left_out", "lines=%u why=%s", b->left_out,
				 "too many of their kind in a second");
		*b = (struct log_bound){ .second = now_ms / 1000 };
	}
	if (b->lines++ < LOG_BOUND_LINES)
		return true;
	b->left_out++;
	return false;
}
