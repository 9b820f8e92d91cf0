#include <assert.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "dbwriter/replay_private.h"
/*
 * One instance's log: reading ahead of the transaction, and the housekeeping behind it.
 */

#define LOOK_MS        5000
#define ALARM_AFTER_MS 2000 /* a writer that starts mends its tail at once */
#define TRY_AGAIN_MS   400
#define ALARM_AGAIN_MS 60000
#define FIRST_RECORDS  2000 /* lands at once when the database has nothing to do */
#define PIECE_RECORDS  1000 /* read at a time while it has: a millisecond or two */
#define TRANSACTION_MS 400  /* one holds locks, and who waits for a key waits for its end */

/* ---- finding them -------------------------------------------------------------------------------------------- */

static void quarantine_path(const struct stream *s, char out[ENV_PATH_MAX]);

static void on_written(void *arg)
{
	struct stream *s = arg;
	s->dirty = true;
	loop_defer(s->replay->loop, &s->replay->work);
}

static bool is_known(struct replay *r, const char *name)
{
	for (struct stream *s = r->streams; s; s = s->next)
		if (!strcmp(s->name, name))
			return true;
	return false;
}

/* A log has a lock or files; anything else below the folder is not ours. */
static bool is_log(struct replay *r, const char *folder)
{
	uint32_t *numbers;
	size_t n;
	if (sqllog_list(r->loop->env, folder, &numbers, &n) < 0)
		return false;
	free(numbers);
	return n;
}

/* What had landed when this was known last, so that the lag can be told before the database answers. */
static void load_hint(struct stream *s)
{
	char path[ENV_PATH_MAX], *text;
	unsigned long long lsn = 0, epoch = 0;
	size_t n;
	snprintf(path, sizeof path, "%s/replayed", s->folder);
	if (env_file_load(s->replay->loop->env, path, 4096, &text, &n) < 0)
		return;
	if (sscanf(text, "lsn=%llu epoch=%llu", &lsn, &epoch) == 2)
		s->hinted = (struct position){ epoch, lsn };
	if (lsn)
		atomic_store_explicit(&s->counts.lsn, lsn, memory_order_relaxed);
	free(text);
}

/* Keys that a command has landed the records of are let go. */
static void load_held(struct stream *s)
{
	struct env *env = s->replay->loop->env;
	char path[ENV_PATH_MAX];
	quarantine_path(s, path);
	int64_t written_us = s->replay->o.hold_keys ? env_file_mtime_us(env, path) : s->held_us;
	if (written_us == s->held_us)
		return;
	s->held_us = written_us;
	quarantine_see(env, path, &s->held_seen);
	held_load(&s->held, env, path);
}

/*
 * The same at once, before anything is held back: a key that always has records under way would not be let go otherwise,
 * for each that is added is one more to wait for.
 */
static void load_held_if_taken(struct stream *s)
{
	char path[ENV_PATH_MAX];
	struct quarantine_seen now = s->held_seen;
	quarantine_path(s, path);
	if (s->held.text.len)
		quarantine_see(s->replay->loop->env, path, &now);
	if (!quarantine_was_taken(&s->held_seen, &now)) {
		s->held_seen = now;
		return;
	}
	s->held_us = 0; /* also where there is none any more, as there was none when it was looked at last */
	load_held(s);
}

static void load_init(struct load *l, const struct replay_options *o)
{
	batch_init(&l->batch, o->batch_records_max, o->batch_bytes_max);
	l->plan = plan_new();
	l->version = 0;
}

static void load_unplan(struct load *l)
{
	l->version = l->planned = 0;
	l->closed = false;
}

static void load_clear(struct load *l)
{
	batch_clear(&l->batch);
	load_unplan(l);
}

static void load_release(struct load *l)
{
	batch_release(&l->batch);
	plan_free(l->plan);
}

static void stream_add(struct replay *r, const char *name)
{
	struct stream *s = calloc(1, sizeof *s), *_Atomic *at = &r->streams;
	assert(s);
	s->replay = r;
	snprintf(s->name, sizeof s->name, "%s", name);
	if ((size_t)snprintf(s->folder, sizeof s->folder, "%s/%s", r->o.folder, name) >= sizeof s->folder ||
	    strlen(name) >= sizeof s->name || !is_log(r, s->folder)) {
		free(s);
		return;
	}
	load_hint(s);
	load_held(s);
	s->lane = &r->lane[r->streams_n++ % r->o.connections];
	load_init(&s->load, &r->o);
	load_init(&s->ahead, &r->o);
	s->most = r->o.batch_records_max;
	follow_init(&s->follow, r->loop->env, s->folder, (struct position){ 0 });
	s->dirty = true;
	if (env_watch(r->loop->ev, s->folder, on_written, s, &s->watch) < 0)
		s->watch = NULL; /* the poll finds what is new, later */
	while (*at)
		at = &(*at)->next;
	atomic_store_explicit(at, s, memory_order_release);
	log_info(r->log, "dbwriter.log", "instance=%s folder=%s", s->name, s->folder);
}

void streams_discover(struct replay *r)
{
	char **names;
	size_t n;
	if (env_dir_list(r->loop->env, r->o.folder, &names, &n) < 0)
		return;
	for (size_t i = 0; i < n; i++) {
		if (!is_known(r, names[i]) && !strchr(names[i], '.'))
			stream_add(r, names[i]);
		free(names[i]);
	}
	free(names);
}

void stream_release(struct stream *s)
{
	env_watch_close(s->watch);
	follow_release(&s->follow);
	follow_release(&s->scrub);
	load_release(&s->load);
	load_release(&s->ahead);
	held_release(&s->held);
	free(s);
}

/* ---- reading ahead -------------------------------------------------------------------------------------------- */

/* Its time is its writer's, whose clock may have been ahead: so it counts, too, for how long it is known here. */
static void set_oldest(struct stream *s, uint64_t time_us)
{
	if (time_us == s->counts.oldest_us)
		return;
	atomic_store_explicit(&s->counts.waits_ns, env_mono_ns(s->replay->loop->env), memory_order_relaxed);
	atomic_store_explicit(&s->counts.oldest_us, time_us, memory_order_release);
}

static void note_oldest(struct stream *s)
{
	const struct batch_item *first = batch_first(&s->load.batch);
	set_oldest(s, first ? first->time_us : 0);
}

void stream_begin(struct stream *s, struct position landed)
{
	follow_release(&s->follow);
	follow_init(&s->follow, s->replay->loop->env, s->folder, landed);
	load_clear(&s->load);
	load_clear(&s->ahead);
	s->given_up = s->one_by_one = false;
	s->landed = landed;
	atomic_store_explicit(&s->counts.refused, false, memory_order_relaxed); /* it may have been landed by another */
	s->known = true;
	s->dirty = true;
	atomic_store_explicit(&s->counts.epoch, landed.epoch, memory_order_relaxed);
	atomic_store_explicit(&s->counts.lsn, landed.lsn, memory_order_relaxed);
}

bool stream_asks(struct stream *s)
{
	uint64_t now_ms = s->replay->loop->now_ms;
	if (!s->replay->o.standby_ms)
		return true;
	if (now_ms < s->ask_ms)
		return false;
	s->ask_ms = now_ms + s->replay->o.standby_ms / 4;
	return true;
}

bool stream_takes_over(struct stream *s, struct position landed)
{
	uint64_t now_ms = s->replay->loop->now_ms;
	if (!s->replay->o.standby_ms)
		return true;
	struct position last = follow_last(s->replay->loop->env, s->folder);
	if (!s->moved_ms || position_compare(landed, s->landed) || position_compare(last, landed) <= 0)
		s->moved_ms = now_ms;
	s->landed = landed;
	s->asked = true;
	atomic_store_explicit(&s->counts.epoch, landed.epoch, memory_order_relaxed);
	atomic_store_explicit(&s->counts.lsn, landed.lsn, memory_order_relaxed);
	if (now_ms - s->moved_ms < s->replay->o.standby_ms)
		return false;
	log_warn(s->replay->log, "dbwriter.takes_over", "instance=%s epoch=%llu lsn=%llu copied=%llu why=%s", s->name,
		 (unsigned long long)landed.epoch, (unsigned long long)landed.lsn, (unsigned long long)last.lsn,
		 "nobody lands its log");
	return true;
}

void stream_doubt(struct stream *s)
{
	s->moved_ms = 0;
	load_clear(&s->load);
	load_clear(&s->ahead);
	s->known = s->given_up = s->one_by_one = false;
	s->dirty = true;
}

static void alarm_if_lasting(struct stream *s, int state)
{
	struct replay *r = s->replay;
	uint64_t now_ms = r->loop->now_ms;
	bool stopped = state == FOLLOW_STOPPED || state == FOLLOW_WAITING || state < 0;
	atomic_store_explicit(&s->counts.stopped, state == FOLLOW_STOPPED, memory_order_relaxed);
	if (!stopped) {
		if (s->told_ms)
			log_info(r->log, "dbwriter.goes_on", "instance=%s", s->name);
		s->stopped_ms = s->told_ms = 0;
		return;
	}
	s->stopped_ms = s->stopped_ms ? s->stopped_ms : now_ms;
	s->try_again_ms = now_ms + TRY_AGAIN_MS;
	if (now_ms - s->stopped_ms < ALARM_AFTER_MS || (s->told_ms && now_ms - s->told_ms < ALARM_AGAIN_MS))
		return;
	s->told_ms = now_ms;
	if (state == FOLLOW_WAITING)
		log_warn(r->log, "dbwriter.torn", "instance=%s why=%s next=%s", s->name, s->follow.why,
			 "its writer cuts the tail when it starts");
	else
		log_error(r->log, "dbwriter.stopped", "instance=%s why=%s", s->name, s->follow.why);
}

static void tell_oddities(struct stream *s, const struct sqllog_record *rec)
{
	struct replay *r = s->replay;
	if (s->follow.forked && rec)
		log_warn(r->log, "dbwriter.forked",
			 "instance=%s landed_epoch=%llu landed_lsn=%llu epoch=%llu lsn=%llu why=%s", s->name,
			 (unsigned long long)s->landed.epoch, (unsigned long long)s->landed.lsn,
			 (unsigned long long)rec->epoch, (unsigned long long)rec->lsn,
			 "the log ended before what had landed of it");
	if (s->follow.fenced > s->fenced_told) {
		log_error(r->log, "dbwriter.fenced", "instance=%s records=%llu file=%08u.sql why=%s", s->name,
			  (unsigned long long)(s->follow.fenced - s->fenced_told), s->follow.number,
			  "an older epoch behind a newer one");
		atomic_fetch_add_explicit(&s->counts.fenced, s->follow.fenced - s->fenced_told, memory_order_relaxed);
	}
	s->fenced_told = s->follow.fenced;
}

/* Reads records into a batch, at most so many. True: it has room, and there may be more. */
static bool fill(struct stream *s, struct batch *b, unsigned most)
{
	struct sqllog_record rec;
	int state = FOLLOW_RECORD;
	/* a stream that stands still is looked at by the poll, not whenever its log grows behind the bad spot */
	if ((s->counts.stopped && s->replay->loop->now_ms < s->try_again_ms) || !s->dirty || batch_full(b))
		return false;
	while (most-- && !batch_full(b) && (state = follow_next(&s->follow, &rec)) == FOLLOW_RECORD) {
		batch_add(b, &rec, s->follow.number);
		tell_oddities(s, &rec);
	}
	tell_oddities(s, NULL);
	/* a full batch leaves more behind; anything else has to change before it is worth a look */
	s->dirty = state == FOLLOW_RECORD;
	alarm_if_lasting(s, state);
	note_oldest(s);
	if (b->n && b->item[b->n - 1].at.lsn > s->counts.log_lsn)
		atomic_store_explicit(&s->counts.log_lsn, b->item[b->n - 1].at.lsn, memory_order_relaxed);
	return s->dirty && !batch_full(b);
}

/*
 * What is there when the database has nothing to do is landed at once, and what comes meanwhile is read meanwhile: so it
 * never waits for a reader, and loads grow by themselves while they land slower than they are read.
 */
bool stream_fill(struct stream *s)
{
	if (!s->load.batch.n) {
		struct load empty = s->load;
		load_unplan(&empty);
		s->load = s->ahead;
		s->ahead = empty;
		s->one_by_one = false;
	}
	struct batch *b = &s->load.batch;
	b->records_max = s->most;
	if (!s->ahead.batch.n && !s->load.closed && !s->one_by_one && b->n < FIRST_RECORDS)
		fill(s, b, FIRST_RECORDS);
	return b->n;
}

/* Takes what the plan does not have yet into it; begins anew when the tables were read anew. */
static void plan_on(struct stream *s, struct load *l)
{
	const struct replay *r = s->replay;
	if (!r->tables.version)
		return;
	if (!l->version || l->version != r->tables.version) {
		plan_begin(l->plan, &r->tables, !r->o.no_fold);
		l->version = r->tables.version;
		l->planned = 0;
		l->closed = false;
	}
	l->planned = batch_plan(&l->batch, l->planned, l->plan);
}

bool stream_read_ahead(struct stream *s)
{
	struct load *l = &s->ahead;
	if (!s->known)
		return false;
	l->batch.records_max = s->most;
	bool more = fill(s, &l->batch, PIECE_RECORDS);
	plan_on(s, l);
	return more;
}

bool stream_plan(struct stream *s)
{
	const struct replay *r = s->replay;
	if (s->one_by_one || s->given_up || s->load.batch.limit || r->o.one_by_one || !r->tables.version)
		return false;
	plan_on(s, &s->load);
	if (!s->load.closed)
		plan_end(s->load.plan);
	s->load.closed = true;
	return true;
}

void stream_unplan(struct stream *s)
{
	load_unplan(&s->load);
}

static void pace(struct stream *s)
{
	uint64_t took_ms = s->replay->loop->now_ms - s->began_ms, most = s->most;
	if (took_ms > TRANSACTION_MS && s->load.batch.sent > FIRST_RECORDS)
		most = s->load.batch.sent / 2;
	else if (took_ms < TRANSACTION_MS / 2)
		most *= 2;
	most = most > FIRST_RECORDS ? most : FIRST_RECORDS;
	s->most = most < s->replay->o.batch_records_max ? (unsigned)most : s->replay->o.batch_records_max;
}

void stream_landed(struct stream *s)
{
	const struct batch_item *last = batch_last(&s->load.batch);
	s->landed = last->at;
	if (last->time_us > s->replay->newest_us)
		s->replay->newest_us = last->time_us;
	atomic_store_explicit(&s->counts.epoch, s->landed.epoch, memory_order_relaxed);
	atomic_store_explicit(&s->counts.lsn, s->landed.lsn, memory_order_relaxed);
	atomic_fetch_add_explicit(&s->counts.records, s->load.batch.sent, memory_order_relaxed);
	atomic_fetch_add_explicit(&s->counts.transactions, 1, memory_order_relaxed);
	if (s->load.closed)
		atomic_fetch_add_explicit(&s->counts.folded, plan_figures(s->load.plan).folded, memory_order_relaxed);
	if (s->load.closed)
		pace(s);
	load_unplan(&s->load);
	batch_landed(&s->load.batch);
	note_oldest(s);
}

/* ---- housekeeping ---------------------------------------------------------------------------------------------- */

void stream_hint(struct stream *s)
{
	char path[ENV_PATH_MAX], text[80];
	if ((!s->known && !s->replay->o.standby_ms) || !s->landed.lsn || !position_compare(s->hinted, s->landed))
		return;
	snprintf(path, sizeof path, "%s/replayed", s->folder);
	int n = snprintf(text, sizeof text, "lsn=%llu epoch=%llu\n", (unsigned long long)s->landed.lsn,
			 (unsigned long long)s->landed.epoch);
	if (!env_file_store(s->replay->loop->env, path, text, (size_t)n, 0))
		s->hinted = s->landed;
}

static bool is_old(struct stream *s, uint32_t number, char path[ENV_PATH_MAX])
{
	struct env *env = s->replay->loop->env;
	sqllog_path(path, s->folder, number, "sql");
	int64_t written_us = env_file_mtime_us(env, path);
	return written_us > 0 && (uint64_t)written_us + s->replay->o.keep_s * 1000000 < env_wall_us(env);
}

/* Before its time: a backup that counts on it has a gap from here on. */
static void log_removed(const struct stream *s, uint32_t number, bool low)
{
	if (low)
		log_warn(s->replay->log, "dbwriter.removed", "instance=%s file=%08u.sql why=%s", s->name, number,
			 "the disk is nearly full");
	else
		log_info(s->replay->log, "dbwriter.removed", "instance=%s file=%08u.sql why=%s", s->name, number,
			 "old");
}

/*
 * Files before the one that holds the position have landed whole; which that is, their records tell: numbers of files
 * may be used anew after a power cut. They go only when the folder's own note says so too, for it tells their writer that
 * nothing is missing. And the last of them stays: should the machine lose the end of the log, it shows how that goes on.
 */
static void remove_old(struct stream *s, bool low)
{
	struct env *env = s->replay->loop->env;
	char path[ENV_PATH_MAX];
	uint32_t *numbers;
	size_t n;
	if (!s->hinted.lsn || sqllog_list(env, s->folder, &numbers, &n) < 0)
		return;
	uint32_t holder = n > 2 && (low || is_old(s, numbers[0], path)) ? follow_file_of(env, s->folder, s->hinted) : 0;
	for (size_t i = 0; i + 1 < n && numbers[i + 1] < holder; i++)
		if ((is_old(s, numbers[i], path) || low) && !env_file_remove(env, path))
			log_removed(s, numbers[i], low);
	free(numbers);
}

/* A disk that is full of logs would take neither records nor the note of what has landed: what is noted already goes first. */
static bool is_low(const struct stream *s)
{
	int64_t left = env_disk_free(s->replay->loop->env, s->folder);
	return left >= 0 && (uint64_t)left < s->replay->o.low_bytes;
}

/* The lag as far as it can be told without reading everything. */
static void look_behind(struct stream *s)
{
	struct env *env = s->replay->loop->env;
	uint64_t last = follow_last_lsn(env, s->folder);
	if (last)
		atomic_store_explicit(&s->counts.log_lsn, last, memory_order_relaxed);
	if (last > s->counts.lsn && !s->counts.oldest_us)
		set_oldest(s, env_wall_us(env));
}

void stream_look(struct stream *s, uint64_t now_ms)
{
	if (s->known && !s->load.batch.n)
		s->dirty = true;
	if (!s->known || s->load.batch.n || s->counts.stopped)
		look_behind(s);
	stream_scrub(s, now_ms);
	if (now_ms < s->look_again_ms)
		return;
	s->look_again_ms = now_ms + LOOK_MS;
	load_held(s);
	stream_hint(s);
	remove_old(s, is_low(s));
}

/* ---- what the database refuses -------------------------------------------------------------------------------- */

static void quarantine_path(const struct stream *s, char out[ENV_PATH_MAX])
{
	snprintf(out, ENV_PATH_MAX, "%s/quarantine.sql", s->replay->o.folder);
}

/*
 * What was kept before its transaction was lost, or behind a copy of the database that was put in its place. The log has it:
 * in the quarantine it would land a second time.
 */
int stream_take_back(struct stream *s, struct position landed)
{
	char path[ENV_PATH_MAX];
	quarantine_path(s, path);
	int err = quarantine_take_behind(s->replay->loop->env, path, s->name, landed.epoch, landed.lsn);
	if (!err)
		s->kept = (struct position){ 0 };
	return err;
}

int stream_quarantine(struct stream *s)
{
	char path[ENV_PATH_MAX];
	const struct batch_item *first = batch_first(&s->load.batch);
	const struct sqllog_record r = batch_record(&s->load.batch, first);
	const struct quarantine_note note = { s->name, first->file, s->refusal_code, s->refusal,
					      s->refusal_code ? NULL : &s->held_seen };
	quarantine_path(s, path);
	int err = quarantine_add(s->replay->loop->env, path, &note, &r);
	for (struct stream *each = s->replay->streams; !err && s->replay->o.hold_keys && each; each = each->next)
		held_add(&each->held, &r);
	return err;
}

void stream_hold_back(struct stream *s)
{
	struct batch *b = &s->load.batch;
	unsigned i = 0;
	load_held_if_taken(s);
	while (s->held.text.len && i < b->n) {
		const struct sqllog_record r = batch_record(b, &b->item[i]);
		if (held_any(&s->held, &r))
			break;
		i++;
	}
	if (!s->held.text.len || i == b->n)
		return;
	if (i) {
		b->limit = b->limit && b->limit < i ? b->limit : i;
		return;
	}
	s->given_up = true;
	b->limit = 1;
	s->refusal_code = 0;
	snprintf(s->refusal, sizeof s->refusal, "its key waits: an earlier record of it was refused");
}
