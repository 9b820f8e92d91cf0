#include "common/log.h"
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "common/log_text.h"

/*
 * The caller packs format and arguments into a record and copies it into the ring: no lock, no system call, no
 * digits made. The log thread turns records into text.
 *
 * The ring counts bytes; a record starts at a multiple of GRAIN, its first word is 0 until it is complete. The
 * log thread sets the first word of each grain back to 0 before it gives the room back, so wherever the next
 * record starts it finds its word 0.
 *
 * The log thread polls while lines come and is woken only when it has gone to sleep (or when half of the ring
 * is used up): waking per line is what makes other asynchronous loggers slower than synchronous ones.
 */
enum {
	RING = 1 << 20,
	GRAIN = 64,
	EVENT_MAX = 128,
	FORMATS = 1024, /* a power of two; each is a place in the program */
	PROBES = 4,
	AHEAD = 8 * GRAIN, /* so far before they are needed callers ask for the ring's lines */
	POLL_NS = 2000000,
	WRITE_BYTES = 64 << 10 /* of text per write */
};
enum { PADDING = 255 }; /* as level: the rest of the ring's end */

struct record {
	_Atomic uint32_t bytes; /* with padding up to the next grain; 0: not complete */
	uint8_t level;
	bool cut; /* not all arguments had room */
	uint16_t event_n, fmt_n, args_n;
	uint64_t ticks;                  /* when: a look at the clock would be a third of the call */
	const struct log_format *format; /* NULL: it is in data */
	char data[];                     /* event, fmt with a NUL if fmt_n > 0, args */
};

/* One look at all clocks. */
struct moment {
	uint64_t ticks, mono_ns, wall_us;
};

struct log {
	struct env *env;
	struct env_loop *loop;
	struct env_file *file;
	char *instance;
	char *ring;
	_Atomic(struct log_format *) formats[FORMATS]; /* those seen before, by the address of their text */
	_Atomic int level;
	_Atomic uint64_t dropped;
	_Atomic bool asleep, nudged;
	_Alignas(GRAIN) _Atomic uint64_t tail; /* bytes ever reserved */
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

static struct log_format *format_new(const char *fmt)
{
	size_t n = strlen(fmt) + 1;
	struct log_format *f = n <= LOG_FMT_MAX ? malloc(sizeof *f + n) : NULL;
	if (f)
		log_format_parse(f, memcpy(f + 1, fmt, n));
	return f;
}

/*
 * The parsed format of this place in the program, made at its first line; NULL: there is no room for more. The
 * address alone proves nothing (a caller may build its format), so the text is compared.
 */
static const struct log_format *format_seen(struct log *log, const char *fmt)
{
	uint64_t hash = (uint64_t)(uintptr_t)fmt * UINT64_C(0x9e3779b97f4a7c15) >> 32;
	for (unsigned i = 0; i < PROBES; i++) {
		_Atomic(struct log_format *) *at = &log->formats[(hash + i) % FORMATS];
		/* acquire: pairs with the release below, so the format is seen whole */
		struct log_format *f = atomic_load_explicit(at, memory_order_acquire), *made;
		if (!f && (made = format_new(fmt))) {
			if (atomic_compare_exchange_strong_explicit(at, &f, made, memory_order_release,
								    memory_order_acquire))
				return made;
			free(made);
		}
		if (f && !strcmp(f->text, fmt))
			return f;
	}
	return NULL;
}

static struct record *record_at(const struct log *log, uint64_t position)
{
	return (struct record *)(log->ring + position % RING);
}

/*
 * The log thread wrote these lines last, so they are in the other core's cache: what is asked for now is here when one of
 * the next records needs it. Otherwise that record's stores hold up the exchange in the reserve of the one after it. A
 * first record asks for all those that its followers will find on their way.
 */
static inline void ask_ahead(const struct log *log, uint64_t position, uint32_t bytes, bool first)
{
	uint32_t from = first ? bytes : AHEAD, to = bytes < AHEAD ? AHEAD + bytes : AHEAD;
	for (uint32_t at = from; at < to; at += GRAIN)
		__builtin_prefetch(log->ring + (position + at) % RING, 1);
}

/* Reserves need bytes that lie together, with the rest of the ring's end if they would cross it; NULL: full. */
static struct record *reserve(struct log *log, uint32_t need)
{
	uint64_t tail = atomic_load_explicit(&log->tail, memory_order_relaxed), skip, used;
	do {
		/* acquire: pairs with the release in give_back, so we write only where it has zeroed */
		uint64_t head = atomic_load_explicit(&log->head, memory_order_acquire);
		uint64_t rest = RING - tail % RING;
		skip = rest < need ? rest : 0;
		used = tail - head + skip + need;
		if ((int64_t)(tail - head) < 0) /* our tail is old: the exchange fails and reads it anew */
			used = 0;
		if (used > RING)
			return NULL;
		/* seq_cst: pairs with asleep and tail in sleep_or_poll: one of the two sees the other */
	} while (!atomic_compare_exchange_weak_explicit(&log->tail, &tail, tail + skip + need, memory_order_seq_cst,
							memory_order_relaxed));
	if (skip) {
		struct record *r = record_at(log, tail);
		r->level = PADDING;
		atomic_store_explicit(&r->bytes, (uint32_t)skip, memory_order_release);
	}
	if (used > RING / 2 && !atomic_load_explicit(&log->nudged, memory_order_relaxed) &&
	    !atomic_exchange_explicit(&log->nudged, true, memory_order_relaxed))
		env_loop_wake(log->loop);
	ask_ahead(log, tail + skip, need, used == skip + need);
	return record_at(log, tail + skip);
}

static void wake_if_asleep(struct log *log)
{
	if (atomic_load_explicit(&log->asleep, memory_order_seq_cst) &&
	    atomic_exchange_explicit(&log->asleep, false, memory_order_seq_cst))
		env_loop_wake(log->loop);
}

void log_write(struct log *log, enum log_level level, const char *event, const char *fmt, ...)
{
	if (log_level_get(log) > level)
		return;
	struct log_format own;
	const struct log_format *seen = format_seen(log, fmt), *format = seen;
	if (!format) {
		log_format_parse(&own, fmt);
		format = &own;
	}
	struct log_args taken;
	va_list args;
	va_start(args, fmt);
	log_args_take(&taken, format, &args);
	va_end(args);

	size_t event_n = strnlen(event, EVENT_MAX), fmt_n = seen ? 0 : format->text_n + 1u;
	uint32_t bytes =
		(uint32_t)((sizeof(struct record) + event_n + fmt_n + taken.bytes + GRAIN - 1) / GRAIN * GRAIN);
	struct record *r = reserve(log, bytes);
	if (!r) {
		atomic_fetch_add_explicit(&log->dropped, 1, memory_order_relaxed);
		return;
	}
	r->level = (uint8_t)level;
	r->cut = taken.cut || format->cut;
	r->event_n = (uint16_t)event_n;
	r->fmt_n = (uint16_t)fmt_n;
	r->args_n = (uint16_t)taken.bytes;
	r->ticks = env_ticks(log->env);
	r->format = seen;
	char *p = log_copy(r->data, event, event_n);
	if (fmt_n) {
		p = log_copy(p, fmt, fmt_n - 1);
		*p++ = 0;
	}
	log_args_put(&taken, p);
	atomic_store_explicit(&r->bytes, bytes, memory_order_release); /* pairs with the acquire in drain */
	wake_if_asleep(log);
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

static void line_begin(struct log *log, uint64_t wall_us, unsigned level, const char *event, size_t event_n)
{
	static const char *const words[] = { "debug", "info", "warn", "error" };
	char us[8];
	unsigned rest = (unsigned)(wall_us % 1000000);
	if (log->second != wall_us / 1000000)
		date_set(log, wall_us / 1000000);
	us[0] = '.';
	for (int i = 6; i > 0; i--, rest /= 10)
		us[i] = (char)('0' + rest % 10);
	us[7] = 'Z';
	buf_add(&log->out, log->date, 19);
	buf_add(&log->out, us, 8);
	buf_addch(&log->out, ' ');
	buf_addstr(&log->out, words[level]);
	buf_addch(&log->out, ' ');
	buf_addstr(&log->out, log->instance);
	buf_addch(&log->out, ' ');
	log_add_value(&log->out, event, event_n);
}

/* Cuts at a character, ends with the newline; spaces at the end (a format without fields) go. */
static void line_end(struct log *log, size_t start, bool cut)
{
	static const char mark[] = "…\n";
	enum { MOST = LOG_LINE_MAX - (sizeof mark - 1) };
	struct buf *out = &log->out;
	size_t n = out->len - start;
	if (cut || n >= LOG_LINE_MAX) {
		n = n > MOST ? MOST : n;
		while (n && ((unsigned char)out->data[start + n] & 0xc0) == 0x80 && start + n < out->len)
			n--;
		out->len = start + n;
		buf_addstr(out, mark);
	} else {
		while (out->len > start && out->data[out->len - 1] == ' ')
			out->len--;
		buf_addch(out, '\n');
	}
	log->lines_pending++;
}

static void add_record(struct log *log, const struct record *r)
{
	size_t start = log->out.len;
	const char *fmt = r->data + r->event_n, *args = fmt + r->fmt_n;
	struct log_format own;
	const struct log_format *format = r->format;
	if (!format) {
		log_format_parse(&own, fmt);
		format = &own;
	}
	line_begin(log, wall_us_of(log, r->ticks), r->level, r->data, r->event_n);
	buf_addch(&log->out, ' ');
	size_t fields = log->out.len;
	bool whole = log_format_print(format, args, r->args_n, &log->out);
	/* Values are escaped; a newline in the format itself would be our own mistake, but not a forged line. */
	for (char *p; (p = memchr(log->out.data + fields, '\n', log->out.len - fields));
	     fields = (size_t)(p - log->out.data))
		*p = ' ';
	line_end(log, start, r->cut || !whole);
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
	size_t start = log->out.len;
	line_begin(log, env_wall_us(log->env), LOG_WARN, "log.dropped", strlen("log.dropped"));
	buf_addf(&log->out, " lines=%llu total=%llu", (unsigned long long)(dropped - log->dropped_told),
		 (unsigned long long)dropped);
	line_end(log, start, false);
	log->lines_pending--; /* if it cannot be written that is no new loss */
	log->dropped_told = dropped;
}

/* Zeroed only: the room is given back in larger pieces, each costs the callers a cache miss. */
static void clear(struct log *log, uint64_t position, uint32_t bytes)
{
	for (uint32_t i = 0; i < bytes; i += GRAIN)
		atomic_store_explicit(&record_at(log, position + i)->bytes, 0, memory_order_relaxed);
}

static void give_back(struct log *log, uint64_t head)
{
	atomic_store_explicit(&log->head, head, memory_order_release); /* pairs with the acquire in reserve */
}

/* Writes what is complete, at most one ring full; returns the bytes of the ring it took. */
static uint64_t drain(struct log *log)
{
	uint64_t first = atomic_load_explicit(&log->head, memory_order_relaxed), head = first, given = first;
	atomic_store_explicit(&log->nudged, false, memory_order_relaxed);
	look_at_clocks(log);
	while (head - first < RING) {
		struct record *r = record_at(log, head);
		uint32_t bytes = atomic_load_explicit(&r->bytes, memory_order_acquire); /* pairs with log_write */
		if (!bytes)
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
	for (unsigned i = 0; i < FORMATS; i++)
		free(log->formats[i]);
	free(log->instance);
	free(log->ring);
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
	log->ring = aligned_alloc(GRAIN, RING);
	if (!log->instance || !log->ring)
		goto fail;
	memset(log->ring, 0, RING);
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
