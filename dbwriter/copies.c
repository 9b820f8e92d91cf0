#include "dbwriter/copies.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "dbwriter/follow.h"
#include "proto/dbwriter.pb-c.h"

#define FILE_BYTES_MAX (64u << 20)
#define STARTS_MAX     (64u << 10)

static const char first_line[] = "SET NAMES utf8mb4;\n";

struct copy {
	struct copy *next;
	char instance[64];
	char folder[ENV_PATH_MAX];
	uint64_t session; /* 0: none has begun since the start, or since a failure */
	bool known;
	struct position
		last; /* synced; what is behind it where a sync has failed is not trusted, and comes once more */
	uint32_t number;
	struct env_file *file;
	uint64_t bytes;
	uint32_t bad;           /* this file and those behind it are set aside at the next beginning; 0: none */
	struct position landed; /* when that was found */
	struct position whole;  /* when this is here again, what was set aside goes; lsn 0: nothing was */
};
struct copies {
	struct worker *worker;
	char folder[ENV_PATH_MAX - 80];
	struct copy *first;
	uint64_t sessions;
	void (*on_first)(void *arg);
	void *arg;
};

/* ---- answers -------------------------------------------------------------------------------------------------------- */

static void refuse(const struct rpc_request *r, int err, const char *why)
{
	if (r->handle)
		rpc_answer_err(r->worker, r->handle, err, EFFECT_NONE, why);
}

static void answer(const struct rpc_request *r, const struct copy *c)
{
	uint8_t bytes[64];
	Dbwriter__CopyAnswer m = DBWRITER__COPY_ANSWER__INIT;
	m.has_session = m.has_epoch = m.has_lsn = true;
	m.session = c->session;
	m.epoch = c->last.epoch;
	m.lsn = c->last.lsn;
	assert(dbwriter__copy_answer__get_packed_size(&m) <= sizeof bytes);
	size_t n = dbwriter__copy_answer__pack(&m, bytes);
	if (r->handle)
		rpc_answer_ok(r->worker, r->handle, span_of((const char *)bytes, n), NULL, 0);
}

/* The session is over: the writer begins anew, and is told what is here by then. */
static void fail(const struct copies *all, struct copy *c, const struct rpc_request *r, const char *doing, int err)
{
	const char *why = err == ERR_IO ? env_last_error() : err_text(err);
	log_error(all->worker->service->log, "dbwriter.copy_failed", "instance=%s file=%08u.sql doing=%s why=%s",
		  c->instance, c->number, doing, why);
	env_file_close(c->file);
	c->file = NULL;
	c->session = 0;
	refuse(r, ERR_UNAVAILABLE, why);
}

/* ---- files ------------------------------------------------------------------------------------------------------------ */

/* Reads to a file's last record. What another process wrote here it may not have synced. */
static int look_into(struct env *env, struct copy *c, uint32_t number)
{
	char path[ENV_PATH_MAX], why[80];
	struct sqllog_file f = { 0 };
	struct sqllog_record rec;
	struct env_file *whole;
	sqllog_path(path, c->folder, number, "sql");
	int err = env_file_open(env, path, ENV_READ | ENV_WRITE, &whole);
	if (err < 0)
		return err;
	err = env_file_sync(whole);
	env_file_close(whole);
	if (!err)
		err = sqllog_file_open(&f, env, path);
	if (err < 0)
		return err;
	while ((err = sqllog_file_next(&f, &rec, why, sizeof why)) == 1)
		c->last = (struct position){ rec.epoch, rec.lsn };
	sqllog_file_close(&f);
	return err == ERR_IO ? err : 0; /* a torn tail was never answered for, and the next file goes on before it */
}

/* The last record of a folder, and the highest number there is; once. */
static int look(struct env *env, struct copy *c)
{
	uint32_t *numbers;
	size_t n;
	int err = c->known ? 0 : sqllog_list(env, c->folder, &numbers, &n);
	if (err < 0 || c->known)
		return err;
	c->last = (struct position){ 0 };
	c->number = n ? numbers[n - 1] : 0;
	while (n-- && !c->last.lsn && !err)
		err = look_into(env, c, numbers[n]);
	free(numbers);
	(void)copies_aside(env, c->folder, &c->whole);
	c->known = !err;
	return err ? err : env_dir_sync(env, c->folder);
}

static int begin_file(struct env *env, struct copy *c)
{
	char path[ENV_PATH_MAX];
	env_file_close(c->file);
	c->file = NULL;
	int err;
	do {
		sqllog_path(path, c->folder, ++c->number, "sql");
		err = env_file_open(env, path, ENV_WRITE | ENV_CREATE | ENV_EXCLUSIVE, &c->file);
	} while (err == ERR_EXISTS);
	if (!err)
		err = env_file_append(c->file, first_line, sizeof first_line - 1);
	if (!err)
		err = env_file_sync(c->file);
	c->bytes = sizeof first_line - 1;
	return err ? err : env_dir_sync(env, c->folder);
}

static int store(struct env *env, struct copy *c, const void *records, size_t n)
{
	int err = !c->file || c->bytes + n > FILE_BYTES_MAX ? begin_file(env, c) : 0;
	if (!err)
		err = env_file_append(c->file, records, n);
	if (!err)
		err = env_file_sync(c->file);
	c->bytes += n;
	return err;
}

static struct copy *find(struct copies *all, const char *instance)
{
	for (struct copy *c = all->first; c; c = c->next)
		if (!strcmp(c->instance, instance))
			return c;
	return NULL;
}

/* ---- damage ------------------------------------------------------------------------------------------------------------- */

static const char aside_suffix[] = ".sql.damaged";

/* Tells the last record that is aside, and removes the files if that is wanted. */
static unsigned aside(struct env *env, const char *folder, bool removes, struct position *last)
{
	char path[ENV_PATH_MAX], **names;
	size_t n;
	unsigned found = 0;
	*last = (struct position){ 0 };
	if (env_dir_list(env, folder, &names, &n) < 0)
		return 0;
	for (size_t i = 0; i < n; i++) {
		size_t bytes = strlen(names[i]), suffix = sizeof aside_suffix - 1;
		if (bytes > suffix && !strcmp(names[i] + bytes - suffix, aside_suffix) &&
		    (size_t)snprintf(path, sizeof path, "%s/%s", folder, names[i]) < sizeof path) {
			struct position here = follow_last_of(env, path);
			*last = position_compare(here, *last) > 0 ? here : *last;
			found += !removes || env_file_remove(env, path) < 0;
		}
		free(names[i]);
	}
	free(names);
	return found;
}

unsigned copies_aside(struct env *env, const char *folder, struct position *last)
{
	return aside(env, folder, false, last);
}

/* Whether its writer, as it began last, has the log of this epoch: else nobody can send it again. */
static bool knows(struct env *env, const struct copy *c, struct position at)
{
	char path[ENV_PATH_MAX + 8], line[40], *starts;
	size_t n;
	snprintf(path, sizeof path, "%s/epoch", c->folder);
	if (!at.lsn)
		return true;
	if (env_file_load(env, path, STARTS_MAX, &starts, &n) < 0)
		return false;
	snprintf(line, sizeof line, "epoch=%llu ", (unsigned long long)at.epoch);
	bool known = strstr(starts, line);
	free(starts);
	return known;
}

static bool can_come_again(struct env *env, const struct copy *c, struct position landed)
{
	return knows(env, c, landed) && knows(env, c, c->last);
}

void copies_damaged(struct copies *all, const char *instance, uint32_t file, struct position landed)
{
	struct copy *c = find(all, instance);
	if (!c || !c->session || !can_come_again(all->worker->service->env, c, landed))
		return;
	c->bad = file;
	c->landed = landed;
	c->session = 0;
	env_file_close(c->file);
	c->file = NULL;
}

static int set_aside(const struct copies *all, struct copy *c)
{
	struct env *env = all->worker->service->env;
	char from[ENV_PATH_MAX], to[ENV_PATH_MAX + 16];
	uint32_t *numbers, last = c->number;
	size_t n;
	int err = sqllog_list(env, c->folder, &numbers, &n);
	if (err < 0)
		return err;
	for (size_t i = n; i-- > 0 && !err && numbers[i] >= c->bad;) {
		sqllog_path(from, c->folder, numbers[i], "sql");
		snprintf(to, sizeof to, "%s.damaged", from);
		err = env_file_rename(env, from, to);
	}
	free(numbers);
	c->known = false;
	if (!err)
		err = look(env, c);
	if (err < 0)
		return err;
	c->number = last; /* a number is not used twice */
	c->last = position_compare(c->landed, c->last) > 0 ? c->landed : c->last;
	c->bad = 0;
	log_warn(all->worker->service->log, "dbwriter.copy_again", "instance=%s epoch=%llu lsn=%llu", c->instance,
		 (unsigned long long)c->last.epoch, (unsigned long long)c->last.lsn);
	return 0;
}

/* ---- copyBegin ---------------------------------------------------------------------------------------------------------- */

static struct copy *find_or_add(struct copies *all, const char *instance)
{
	struct copy *c = find(all, instance);
	if (c)
		return c;
	c = calloc(1, sizeof *c);
	assert(c);
	snprintf(c->instance, sizeof c->instance, "%s", instance);
	snprintf(c->folder, sizeof c->folder, "%s/%s", all->folder, instance);
	c->next = all->first;
	all->first = c;
	return c;
}

static int open_copy(struct copies *all, struct copy *c, const Dbwriter__CopyBeginRequest *m)
{
	struct env *env = all->worker->service->env;
	char path[ENV_PATH_MAX + 8];
	/* one without a record is used further: who can copy nothing begins again and again */
	bool has_file = c->file && c->bytes == sizeof first_line - 1;
	c->session = 0;
	int err = env_dir_make(env, c->folder);
	if (!err)
		err = look(env, c);
	if (!err && (c->last.epoch > m->epoch || c->whole.epoch > m->epoch))
		return ERR_DENIED;
	snprintf(path, sizeof path, "%s/epoch", c->folder);
	if (!err && m->has_starts)
		err = env_file_store(env, path, m->starts.data, m->starts.len, 0);
	if (!err && c->bad && can_come_again(env, c, c->landed))
		err = set_aside(all, c);
	return err || has_file ? err : begin_file(env, c);
}

static void on_begin(void *arg, struct rpc_request *r)
{
	struct copies *all = arg;
	Dbwriter__CopyBeginRequest *m =
		r->json ? NULL : dbwriter__copy_begin_request__unpack(NULL, r->body.n, (const uint8_t *)r->body.p);
	if (!m || !route_is_name(m->instance) || m->starts.len > STARTS_MAX) {
		refuse(r, ERR_BAD_REQUEST, "expected dbwriter.CopyBeginRequest as protobuf");
	} else {
		struct copy *c = find_or_add(all, m->instance);
		int err = open_copy(all, c, m);
		if (err == ERR_DENIED) {
			refuse(r, err, "a newer epoch's records are here: it is a former owner");
		} else if (err < 0) {
			fail(all, c, r, "beginning", err);
		} else {
			c->session = ++all->sessions;
			log_info(all->worker->service->log, "dbwriter.copy",
				 "instance=%s writer_epoch=%llu epoch=%llu lsn=%llu", c->instance,
				 (unsigned long long)m->epoch, (unsigned long long)c->last.epoch,
				 (unsigned long long)c->last.lsn);
			answer(r, c);
			all->on_first(all->arg);
		}
	}
	if (m)
		dbwriter__copy_begin_request__free_unpacked(m, NULL);
}

/* ---- copy ------------------------------------------------------------------------------------------------------------------ */

/* Whether these are whole records, each behind the one before; *last then is the last of them. */
static bool verify(const struct copy *c, const ProtobufCBinaryData *d, struct position *last)
{
	struct sqllog_record rec;
	char why[80];
	*last = c->last;
	for (size_t at = 0; at < d->len;) {
		ssize_t n = sqllog_read((const char *)d->data + at, d->len - at, &rec, why, sizeof why);
		struct position here = { rec.epoch, rec.lsn };
		if (n <= 0 || !rec.lsn || position_compare(here, *last) <= 0)
			return false;
		*last = here;
		at += (size_t)n;
	}
	return d->len;
}

static void take(struct copies *all, struct rpc_request *r, const Dbwriter__CopyRequest *m)
{
	struct copy *c = find(all, m->instance);
	struct position last;
	int err;
	if (!c || !m->session || c->session != m->session)
		refuse(r, ERR_DENIED, "another session has begun");
	else if (!verify(c, &m->records, &last))
		refuse(r, ERR_BAD_REQUEST, "expected whole records that follow those that are here");
	else if ((err = store(all->worker->service->env, c, m->records.data, m->records.len)) < 0)
		fail(all, c, r, "writing", err);
	else {
		c->last = last;
		if (c->whole.lsn && position_compare(last, c->whole) >= 0 &&
		    !aside(all->worker->service->env, c->folder, true, &last))
			c->whole = (struct position){ 0 };
		answer(r, c);
	}
}

static void on_copy(void *arg, struct rpc_request *r)
{
	Dbwriter__CopyRequest *m =
		r->json ? NULL : dbwriter__copy_request__unpack(NULL, r->body.n, (const uint8_t *)r->body.p);
	if (!m) {
		refuse(r, ERR_BAD_REQUEST, "expected dbwriter.CopyRequest as protobuf");
		return;
	}
	take(arg, r, m);
	dbwriter__copy_request__free_unpacked(m, NULL);
}

static void handle(struct copies *all, const char *name, rpc_handler *fn)
{
	const struct msg_method *m = schema_method(all->worker->schema, name, strlen(name));
	assert(m);
	rpc_handle(all->worker, m, fn, all);
}

struct copies *copies_new(struct worker *w, const char *folder, void (*on_first)(void *arg), void *arg)
{
	struct copies *all = calloc(1, sizeof *all);
	assert(all);
	all->worker = w;
	all->on_first = on_first;
	all->arg = arg;
	all->sessions = env_wall_us(w->service->env); /* other than those of an earlier start */
	snprintf(all->folder, sizeof all->folder, "%s", folder);
	handle(all, "dbwriter.dbwriterRemote.copyBegin", on_begin);
	handle(all, "dbwriter.dbwriterRemote.copy", on_copy);
	return all;
}

void copies_free(struct copies *all)
{
	if (!all)
		return;
	for (struct copy *c = all->first, *next; c; c = next) {
		next = c->next;
		env_file_close(c->file);
		free(c);
	}
	free(all);
}
