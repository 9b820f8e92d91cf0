#include "common/log.h"
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/buf.h"
#include "common/err.h"

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
	ARGS_MAX = 2 * LOG_LINE_MAX,
	EVENT_MAX = 128,
	FMT_MAX = 1024,
	POLL_NS = 2000000,
	WRITE_BYTES = 64 << 10 /* of text per write */
};
enum { PADDING = 255 }; /* as level: the rest of the ring's end */

struct record {
	_Atomic uint32_t bytes; /* with padding up to the next grain; 0: not complete */
	uint8_t level;
	bool cut; /* not all arguments had room */
	uint16_t event_n, fmt_n, args_n;
	uint64_t wall_us;
	char data[]; /* event NUL fmt NUL args */
};

struct log {
	struct env *env;
	struct env_loop *loop;
	struct env_file *file;
	char *instance;
	char *ring;
	_Atomic int level;
	_Atomic uint64_t dropped;
	_Atomic bool asleep, nudged;
	_Alignas(GRAIN) _Atomic uint64_t tail; /* bytes ever reserved */
	_Alignas(GRAIN) _Atomic uint64_t head; /* bytes ever given back */
	/* the log thread's own */
	uint64_t dropped_told, lines_pending;
	uint64_t second; /* that date[] spells */
	char date[40];   /* 19 bytes, room for what the compiler thinks possible */
	struct buf out;
};

/* ---- escaping --------------------------------------------------------------------------------------- */

/* Bytes of the well-formed UTF-8 character at p, without C1 controls and line separators; 0: there is none. */
static unsigned utf8_bytes(const unsigned char *p, size_t n)
{
	unsigned c = p[0], more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
	if (c < 0xc2 || c > 0xf4 || n <= more)
		return 0;
	unsigned low = 0x80, high = 0xbf; /* of the second byte: neither overlong, surrogate nor above U+10FFFF */
	switch (c) {
	case 0xc2: low = 0xa0; break;
	case 0xe0: low = 0xa0; break;
	case 0xed: high = 0x9f; break;
	case 0xf0: low = 0x90; break;
	case 0xf4: high = 0x8f; break;
	default: break;
	}
	if (p[1] < low || p[1] > high)
		return 0;
	for (unsigned i = 2; i <= more; i++)
		if (p[i] < 0x80 || p[i] > 0xbf)
			return 0;
	return c == 0xe2 && p[1] == 0x80 && (p[2] == 0xa8 || p[2] == 0xa9) ? 0 : more + 1;
}

static bool plain(const unsigned char *p, size_t n)
{
	if (n == 0)
		return false;
	for (size_t i = 0; i < n;) {
		unsigned bytes = p[i] < 0x80 ? 1 : utf8_bytes(p + i, n - i);
		if (bytes == 0 || p[i] <= ' ' || p[i] == '"' || p[i] == '\\' || p[i] == '=' || p[i] == 0x7f)
			return false;
		i += bytes;
	}
	return true;
}

static void add_escaped_byte(struct buf *out, unsigned char c)
{
	switch (c) {
	case '\n': buf_addstr(out, "\\n"); break;
	case '\r': buf_addstr(out, "\\r"); break;
	case '\t': buf_addstr(out, "\\t"); break;
	case '"': buf_addstr(out, "\\\""); break;
	case '\\': buf_addstr(out, "\\\\"); break;
	default: buf_addf(out, "\\x%02x", c);
	}
}

static void add_value(struct buf *out, const char *text, size_t n)
{
	const unsigned char *p = (const unsigned char *)text;
	if (plain(p, n)) {
		buf_add(out, text, n);
		return;
	}
	buf_addch(out, '"');
	for (size_t i = 0; i < n;) {
		unsigned bytes = p[i] < 0x80 ? 1 : utf8_bytes(p + i, n - i);
		if (bytes == 0 || p[i] < ' ' || p[i] == '"' || p[i] == '\\' || p[i] == 0x7f) {
			add_escaped_byte(out, p[i++]);
			continue;
		}
		buf_add(out, text + i, bytes);
		i += bytes;
	}
	buf_addch(out, '"');
}

/* ---- conversions: read by the caller to pack, by the log thread to print ------------------------------- */

struct spec {
	bool zero, star;      /* %05d, %.*s */
	int width, precision; /* precision -1: none */
	char length;          /* 0, 'l', 'L' for ll, 'z' */
	char conv;            /* 0: not known */
};

static int read_number(const char **p)
{
	int n = 0;
	while (**p >= '0' && **p <= '9')
		n = n < 10000 ? n * 10 + (*(*p)++ - '0') : n + !(*p)++;
	return n;
}

/* p is behind the '%'; returns what follows the conversion. */
static const char *spec_read(const char *p, struct spec *s)
{
	*s = (struct spec){ .precision = -1 };
	if (*p == '0') {
		s->zero = true;
		p++;
	}
	s->width = read_number(&p);
	if (*p == '.' && p[1] == '*') {
		s->star = true;
		p += 2;
	} else if (*p == '.') {
		p++;
		s->precision = read_number(&p);
	}
	if (*p == 'l' && p[1] == 'l') {
		s->length = 'L';
		p += 2;
	} else if (*p == 'l' || *p == 'z') {
		s->length = *p++;
	}
	if (*p && strchr("sdiuxXcfg%", *p))
		s->conv = *p++;
	return p;
}

/* ---- the caller's side --------------------------------------------------------------------------------- */

struct pack {
	size_t n;
	bool cut;
	char bytes[ARGS_MAX];
};

static void pack_word(struct pack *a, const void *word)
{
	if (a->n + 8 > sizeof a->bytes) {
		a->cut = true;
		return;
	}
	memcpy(a->bytes + a->n, word, 8);
	a->n += 8;
}

/* n without a character that breaks off at its end. */
static size_t whole_characters(const char *text, size_t n)
{
	const unsigned char *p = (const unsigned char *)text;
	for (size_t back = 1; back <= 3 && back < n; back++) {
		unsigned c = p[n - back];
		if (c >= 0xc0)
			return back < (c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2) ? n - back : n;
		if (c < 0x80)
			return n;
	}
	return n;
}

static void pack_text(struct pack *a, const char *text, int precision)
{
	if (!text)
		text = "(null)";
	size_t most = precision >= 0 && precision < LOG_LINE_MAX ? (size_t)precision : LOG_LINE_MAX;
	size_t n = strnlen(text, most);
	if (n == LOG_LINE_MAX)
		n = whole_characters(text, n);
	if (a->n + 2 + n > sizeof a->bytes) {
		a->cut = true;
		return;
	}
	uint16_t n16 = (uint16_t)n;
	memcpy(a->bytes + a->n, &n16, 2);
	memcpy(a->bytes + a->n + 2, text, n);
	a->n += 2 + n;
}

static long long signed_arg(char length, va_list *args)
{
	switch (length) {
	case 'l': return va_arg(*args, long);
	case 'L': return va_arg(*args, long long);
	case 'z': return va_arg(*args, ssize_t);
	default: return va_arg(*args, int);
	}
}

static unsigned long long unsigned_arg(char length, va_list *args)
{
	switch (length) {
	case 'l': return va_arg(*args, unsigned long);
	case 'L': return va_arg(*args, unsigned long long);
	case 'z': return va_arg(*args, size_t);
	default: return va_arg(*args, unsigned);
	}
}

static void pack_arg(struct pack *a, const struct spec *s, va_list *args)
{
	int precision = s->star ? va_arg(*args, int) : s->precision;
	switch (s->conv) {
	case 'd':
	case 'i': pack_word(a, &(long long){ signed_arg(s->length, args) }); break;
	case 'c': pack_word(a, &(long long){ va_arg(*args, int) }); break;
	case 'u':
	case 'x':
	case 'X': pack_word(a, &(unsigned long long){ unsigned_arg(s->length, args) }); break;
	case 'f':
	case 'g':
		pack_word(a, &(long long){ precision });
		pack_word(a, &(double){ va_arg(*args, double) });
		break;
	case 's': pack_text(a, va_arg(*args, const char *), precision); break;
	default: break;
	}
}

static void pack_args(struct pack *a, const char *fmt, va_list *args)
{
	for (const char *p = strchr(fmt, '%'); p && !a->cut; p = strchr(p, '%')) {
		struct spec s;
		p = spec_read(p + 1, &s);
		if (s.conv)
			pack_arg(a, &s, args);
		else
			a->cut = true; /* what it takes from args is not known, so neither is what follows */
	}
}

static struct record *record_at(const struct log *log, uint64_t position)
{
	return (struct record *)(log->ring + position % RING);
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
	struct pack a;
	a.n = 0;
	a.cut = false;
	va_list args;
	va_start(args, fmt);
	pack_args(&a, fmt, &args);
	va_end(args);

	size_t event_n = strnlen(event, EVENT_MAX), fmt_n = strnlen(fmt, FMT_MAX);
	size_t n = sizeof(struct record) + event_n + 1 + fmt_n + 1 + a.n;
	uint32_t bytes = (uint32_t)((n + GRAIN - 1) / GRAIN * GRAIN);
	struct record *r = reserve(log, bytes);
	if (!r) {
		atomic_fetch_add_explicit(&log->dropped, 1, memory_order_relaxed);
		return;
	}
	r->level = (uint8_t)level;
	r->cut = a.cut || fmt[fmt_n];
	r->event_n = (uint16_t)event_n;
	r->fmt_n = (uint16_t)fmt_n;
	r->args_n = (uint16_t)a.n;
	r->wall_us = env_wall_us(log->env);
	char *p = mempcpy(r->data, event, event_n);
	*p++ = 0;
	p = mempcpy(p, fmt, fmt_n);
	*p++ = 0;
	memcpy(p, a.bytes, a.n);
	atomic_store_explicit(&r->bytes, bytes, memory_order_release); /* pairs with the acquire in drain */
	wake_if_asleep(log);
}

/* ---- the log thread: text ------------------------------------------------------------------------------- */

struct unpack {
	const char *p, *end;
};

static bool unpack(struct unpack *a, void *word, size_t n)
{
	if ((size_t)(a->end - a->p) < n)
		return false;
	memcpy(word, a->p, n);
	a->p += n;
	return true;
}

/* Digits of v with a sign, filled up to the width. */
static void add_digits(struct buf *out, const struct spec *s, unsigned long long v, bool negative, unsigned base)
{
	char digits[24], *p = digits + sizeof digits;
	const char *alphabet = s->conv == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
	do
		*--p = alphabet[v % base];
	while (v /= base);
	int n = (int)(digits + sizeof digits - p) + negative;
	int fill = s->width < 64 && s->width > n ? s->width - n : 0;
	while (!s->zero && fill && fill--)
		buf_addch(out, ' ');
	if (negative)
		buf_addch(out, '-');
	while (fill-- > 0)
		buf_addch(out, '0');
	buf_add(out, p, (size_t)(digits + sizeof digits - p));
}

static void add_double(struct buf *out, const struct spec *s, int precision, double v)
{
	char text[64];
	precision = precision < 0 ? 6 : precision > 20 ? 20 : precision;
	bool fixed = s->conv == 'f' && v < 1e30 && v > -1e30; /* 300 digits help nobody */
	int n = fixed ? snprintf(text, sizeof text, "%.*f", precision, v)
		      : snprintf(text, sizeof text, "%.*g", precision, v);
	buf_add(out, text, (size_t)n);
}

static bool add_arg(struct buf *out, const struct spec *s, struct unpack *a)
{
	union {
		long long i;
		unsigned long long u;
		double d;
	} v;
	long long precision;
	uint16_t n;
	switch (s->conv) {
	case 0: return false;
	case '%': buf_addch(out, '%'); return true;
	case 's':
		if (!unpack(a, &n, sizeof n) || a->end - a->p < n)
			return false;
		add_value(out, a->p, n);
		a->p += n;
		return true;
	case 'f':
	case 'g':
		if (!unpack(a, &precision, 8) || !unpack(a, &v, 8))
			return false;
		add_double(out, s, (int)precision, v.d);
		return true;
	default:
		if (!unpack(a, &v, 8))
			return false;
	}
	if (s->conv == 'c')
		add_value(out, &(char){ (char)v.i }, 1);
	else if (s->conv == 'd' || s->conv == 'i')
		add_digits(out, s, v.i < 0 ? -v.u : v.u, v.i < 0, 10);
	else
		add_digits(out, s, v.u, false, s->conv == 'u' ? 10 : 16);
	return true;
}

/* false: the arguments ended before the format did */
static bool add_fields(struct buf *out, const char *fmt, struct unpack *a)
{
	for (;;) {
		const char *p = strchrnul(fmt, '%');
		buf_add(out, fmt, (size_t)(p - fmt));
		if (!*p)
			return true;
		struct spec s;
		fmt = spec_read(p + 1, &s);
		if (!add_arg(out, &s, a))
			return false;
	}
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
	add_value(&log->out, event, event_n);
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
	const char *fmt = r->data + r->event_n + 1, *args = fmt + r->fmt_n + 1;
	line_begin(log, r->wall_us, r->level, r->data, r->event_n);
	buf_addch(&log->out, ' ');
	size_t fields = log->out.len;
	bool whole = add_fields(&log->out, fmt, &(struct unpack){ args, args + r->args_n });
	/* Values are escaped; a newline in the format itself would be our own mistake, but not a forged line. */
	for (char *p = log->out.data + fields; p < log->out.data + log->out.len; p++)
		if (*p == '\n')
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

static void give_back(struct log *log, uint64_t head, uint32_t bytes)
{
	for (uint32_t i = 0; i < bytes; i += GRAIN)
		atomic_store_explicit(&record_at(log, head + i)->bytes, 0, memory_order_relaxed);
	atomic_store_explicit(&log->head, head + bytes, memory_order_release); /* pairs with reserve */
}

/* Writes what is complete, at most one ring full; returns the bytes of the ring it took. */
static uint64_t drain(struct log *log)
{
	uint64_t first = atomic_load_explicit(&log->head, memory_order_relaxed), head = first;
	atomic_store_explicit(&log->nudged, false, memory_order_relaxed);
	while (head - first < RING) {
		struct record *r = record_at(log, head);
		uint32_t bytes = atomic_load_explicit(&r->bytes, memory_order_acquire); /* pairs with log_write */
		if (!bytes)
			break;
		if (r->level != PADDING)
			add_record(log, r);
		give_back(log, head, bytes);
		head += bytes;
		if (log->out.len >= WRITE_BYTES)
			write_out(log);
	}
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
