#include "dbwriter/restore.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "dbwriter/asker.h"
#include "dbwriter/batch.h"
#include "dbwriter/merge.h"
#include "dbwriter/quarantine.h"

#define CHUNK_RECORDS 1000
#define CHUNK_BYTES   (1u << 20)
#define AGAIN_MAX     10 /* times a lock is waited for */

static const char session[] =
	"SET SESSION sql_mode = 'STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION',"
	" autocommit = 1, innodb_lock_wait_timeout = 5";

static void format(struct buf *sql, const char *text, const struct sql_value *values, size_t n)
{
	char why[160];
	int err = sql_format(sql, text, values, n, why, sizeof why);
	assert(!err);
	(void)err;
	buf_addstr(sql, ";\n");
}

static struct sql_value text_value(const char *text)
{
	return (struct sql_value){ .type = SQL_TEXT, .s = { text, strlen(text) } };
}

static struct sql_value int_value(uint64_t v)
{
	return (struct sql_value){ .type = SQL_INT, .i = (int64_t)v };
}

static void add_statements(struct buf *sql, const struct sqllog_record *r)
{
	size_t bytes;
	unsigned count;
	const char *statements = sqllog_statements(r, &bytes, &count);
	buf_add(sql, statements, bytes);
}

/* ---- into an empty database ------------------------------------------------------------------------------------------ */

struct kept { /* a record of the chunk */
	char name[64];
	uint32_t file;
	uint64_t epoch, lsn, time_us;
	size_t at, bytes; /* of its statements, in restore.statements */
};

enum state { BEGIN, TABLES, SCHEMA, EMPTY, CHUNK, ROLLED_BACK, ONE };
struct restore {
	const struct restore_options *o;
	struct buf *out;
	struct env *env;
	struct merge merge;
	enum state state;
	char **table; /* to be looked at, and schema files to be applied */
	size_t tables, at;
	struct buf statements;
	struct kept kept[CHUNK_RECORDS];
	unsigned n, one; /* one: of the chunk, when it goes one by one */
	uint64_t landed, refused;
};

static int say(struct restore *r, int result, const char *what, const char *more)
{
	buf_addf(r->out, "dbwriter: %s%s\n", what, more);
	return result;
}

static void names_free(struct restore *r)
{
	for (size_t i = 0; i < r->tables; i++)
		free(r->table[i]);
	free(r->table);
	r->table = NULL;
	r->tables = r->at = 0;
}

/* Its last record of each instance moves that instance's position. */
static void add_positions(struct restore *r, unsigned from, unsigned to, struct buf *sql)
{
	for (unsigned i = from; i < to; i++) {
		const struct kept *k = &r->kept[i];
		char file[32];
		unsigned later = i + 1;
		while (later < to && strcmp(r->kept[later].name, k->name))
			later++;
		if (later < to)
			continue;
		snprintf(file, sizeof file, "%08u.sql", k->file);
		struct sql_value v[] = { text_value(k->name), int_value(k->epoch), int_value(k->lsn), text_value(file),
					 int_value(k->time_us) };
		format(sql, "REPLACE INTO loquat_replay (instance, epoch, lsn, file, time_us) VALUES (?, ?, ?, ?, ?)",
		       v, 5);
	}
}

static int send(struct restore *r, unsigned from, unsigned to, struct buf *sql)
{
	buf_addstr(sql, "BEGIN;\n");
	for (unsigned i = from; i < to; i++)
		buf_add(sql, r->statements.data + r->kept[i].at, r->kept[i].bytes);
	add_positions(r, from, to, sql);
	buf_addstr(sql, "COMMIT");
	return 1;
}

/* 1: there are records; 0: no more; or an error that was told */
static int read_chunk(struct restore *r)
{
	const struct merge_log *where;
	struct sqllog_record rec;
	int got;
	buf_clear(&r->statements);
	for (r->n = 0; r->n < CHUNK_RECORDS && r->statements.len < CHUNK_BYTES;) {
		if ((got = merge_next(&r->merge, &rec, &where)) < 0)
			return say(r, got, r->merge.why, "");
		if (!got)
			break;
		if (where->missing) {
			char text[160];
			snprintf(text, sizeof text,
				 "%.80s: records before lsn %llu are missing; nothing can be restored over them",
				 where->name, (unsigned long long)rec.lsn);
			return say(r, ERR_CORRUPT, text, "");
		}
		if (rec.time_us > r->o->until_us)
			continue;
		struct kept *k = &r->kept[r->n++];
		*k = (struct kept){ .file = where->number[where->next < where->n ? where->next : where->n - 1],
				    .epoch = rec.epoch,
				    .lsn = rec.lsn,
				    .time_us = rec.time_us,
				    .at = r->statements.len };
		snprintf(k->name, sizeof k->name, "%s", where->name);
		add_statements(&r->statements, &rec);
		k->bytes = r->statements.len - k->at;
	}
	return r->n > 0;
}

static int next_chunk(struct restore *r, struct buf *sql)
{
	int got = read_chunk(r);
	if (got != 1)
		return got;
	r->state = CHUNK;
	return send(r, 0, r->n, sql);
}

static int next_one(struct restore *r, struct buf *sql)
{
	if (r->one == r->n)
		return next_chunk(r, sql);
	r->state = ONE;
	return send(r, r->one, r->one + 1, sql);
}

static int roll_back(struct restore *r, struct buf *sql)
{
	r->state = ROLLED_BACK;
	buf_addstr(sql, "ROLLBACK");
	return 1;
}

/* A record alone was refused: it is told; the position moves with the next one. */
static void tell_refused(struct restore *r, const struct env_db_result *last)
{
	const struct kept *k = &r->kept[r->one];
	r->refused++;
	buf_addf(r->out, "refused: instance=%s epoch=%llu lsn=%llu error=%u %s\n", k->name,
		 (unsigned long long)k->epoch, (unsigned long long)k->lsn, last->code, last->message);
}

static int look_at_next(struct restore *r, struct buf *sql)
{
	if (r->at == r->tables)
		return next_chunk(r, sql);
	r->state = EMPTY;
	buf_addf(sql, "SELECT 1 FROM `%s` LIMIT 1", r->table[r->at]);
	return 1;
}

/* A file, and that it is applied: as `loquat up` does, which would apply it once more otherwise. */
static int schema_next(struct restore *r, struct buf *sql)
{
	char path[ENV_PATH_MAX], sum[16], *text;
	size_t n;
	if (r->at == r->tables) {
		names_free(r);
		return next_chunk(r, sql);
	}
	const char *name = r->table[r->at++];
	snprintf(path, sizeof path, "%.400s/%s", r->o->schema, name);
	int err = env_file_load(r->env, path, 4 << 20, &text, &n);
	if (err < 0)
		return say(r, err, "cannot be read: ", path);
	snprintf(sum, sizeof sum, "%08x", crc32c(0, text, n));
	struct sql_value v[] = { int_value(strtoul(name, NULL, 10)), text_value(name), text_value(sum) };
	buf_addstr(sql,
		   "CREATE TABLE IF NOT EXISTS loquat_schema (version INT NOT NULL PRIMARY KEY, name VARCHAR(200) NOT "
		   "NULL, applied_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, checksum CHAR(8)) ENGINE=InnoDB;\n");
	buf_add(sql, text, n);
	buf_addch(sql, '\n');
	format(sql, "INSERT INTO loquat_schema (version, name, checksum) VALUES (?, ?, ?)", v, 3);
	free(text);
	r->state = SCHEMA;
	return 1;
}

/* The migrations' names, in their order. */
static int list_schema(struct restore *r)
{
	char **names;
	size_t n;
	if (env_dir_list(r->env, r->o->schema, &names, &n) < 0)
		return say(r, ERR_NOT_FOUND, "the database has no tables, and there is no schema in ", r->o->schema);
	for (size_t i = 0; i < n; i++) {
		const char *dot = strrchr(names[i], '.');
		if (*names[i] != '.' && dot && !strcmp(dot, ".sql"))
			names[r->tables++] = names[i];
		else
			free(names[i]);
	}
	r->table = names;
	return 0;
}

static int on_tables(struct restore *r, const struct env_db_result *last, struct buf *sql)
{
	if (!last->rows) {
		int err = list_schema(r);
		return err < 0 ? err : schema_next(r, sql);
	}
	r->table = calloc(last->rows, sizeof *r->table);
	assert(r->table);
	for (unsigned i = 0; i < last->rows; i++)
		if (strcmp(last->cells[i], "loquat_schema"))
			r->table[r->tables++] = strdup(last->cells[i]);
	return look_at_next(r, sql);
}

static int failed(struct restore *r, const struct env_db_result *last, struct buf *sql)
{
	if (batch_fault(last->code) == BATCH_AGAIN || (r->state != CHUNK && r->state != ONE))
		return say(r, ERR_FAILED, "the database refuses: ", last->message);
	if (r->state == ONE) {
		tell_refused(r, last);
		r->one++;
	} else {
		r->one = 0;
	}
	return roll_back(r, sql);
}

static int restore_step(void *arg, const struct env_db_result *last, struct buf *sql)
{
	struct restore *r = arg;
	if (last && last->err < 0)
		return failed(r, last, sql);
	switch (r->state) {
	case BEGIN:
		if (!last) {
			buf_addstr(sql, session);
			return 1;
		}
		r->state = TABLES;
		buf_addstr(
			sql,
			"SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE'");
		return 1;
	case TABLES: return on_tables(r, last, sql);
	case SCHEMA: return schema_next(r, sql);
	case EMPTY:
		if (last->rows)
			return say(r, ERR_EXISTS,
				   "the database is not empty, so nothing is restored into it: there are rows in ",
				   r->table[r->at]);
		r->at++;
		return look_at_next(r, sql);
	case CHUNK: r->landed += r->n; return next_chunk(r, sql);
	case ROLLED_BACK: return next_one(r, sql);
	case ONE: break;
	}
	r->landed++;
	r->one++;
	return next_one(r, sql);
}

int restore_replay(struct env *env, const struct restore_options *o, struct buf *out)
{
	struct restore *r = calloc(1, sizeof *r);
	char why[300] = "";
	assert(r);
	r->o = o;
	r->out = out;
	r->env = env;
	int result = merge_open(&r->merge, env, o->from, o->from_n);
	if (result < 0) {
		say(r, result, r->merge.why, "");
	} else {
		result = asker_run(env, &o->db, restore_step, r, why, sizeof why);
		if (*why)
			say(r, result, why, "");
		buf_addf(out, "%llu records of %u log%s landed, %llu refused\n", (unsigned long long)r->landed,
			 r->merge.n, r->merge.n == 1 ? "" : "s", (unsigned long long)r->refused);
		for (unsigned i = 0; i < r->merge.n; i++) /* a host whose logs were forgotten is seen here alone */
			if (r->merge.log[i].log == i)
				buf_addf(out, "%s: read up to lsn %llu of epoch %llu\n", r->merge.log[i].name,
					 (unsigned long long)r->merge.log[i].last.lsn,
					 (unsigned long long)r->merge.log[i].last.epoch);
	}
	result = result < 0 ? result : r->refused > 0;
	names_free(r);
	merge_release(&r->merge);
	buf_release(&r->statements);
	free(r);
	return result;
}

/* ---- the quarantine ---------------------------------------------------------------------------------------------------- */

struct mend {
	struct buf *out;
	struct quarantine_entry *entry;
	size_t n, at;
	enum { MEND_SESSION, MEND_TABLE, MEND_RECORD, MEND_BACK } state;
	struct held_keys held; /* of those that stay */
	unsigned again;        /* how often this one met a lock */
};

static int mend_next(struct mend *m, struct buf *sql)
{
	while (m->at < m->n && held_any(&m->held, &m->entry[m->at].record)) /* an earlier one of its keys stays */
		m->at++;
	if (m->at == m->n)
		return 0;
	const struct quarantine_entry *e = &m->entry[m->at];
	struct sql_value v[] = { text_value(e->instance), int_value(e->record.epoch), int_value(e->record.lsn) };
	m->state = MEND_RECORD;
	buf_addstr(sql, "BEGIN;\n");
	format(sql, "INSERT INTO loquat_quarantine_done (instance, epoch, lsn) VALUES (?, ?, ?)", v, 3);
	add_statements(sql, &e->record);
	buf_addstr(sql, "COMMIT");
	return 1;
}

static int mend_refused(struct mend *m, const struct env_db_result *last, struct buf *sql)
{
	struct quarantine_entry *e = &m->entry[m->at];
	m->state = MEND_BACK;
	buf_addstr(sql, "ROLLBACK");
	if (batch_fault(last->code) == BATCH_AGAIN && m->again++ < AGAIN_MAX)
		return 1;
	m->again = 0;
	if (last->code == 1062 && last->failed_at == 1) {
		e->landed = true; /* by a run that was killed before it wrote the file */
	} else {
		buf_addf(m->out, "stays: instance=%s epoch=%llu lsn=%llu error=%u %s\n", e->instance,
			 (unsigned long long)e->record.epoch, (unsigned long long)e->record.lsn, last->code,
			 last->message);
		held_add(&m->held, &e->record);
	}
	m->at++;
	return 1;
}

static int mend_step(void *arg, const struct env_db_result *last, struct buf *sql)
{
	static const char table[] =
		"CREATE TABLE IF NOT EXISTS loquat_quarantine_done (instance VARCHAR(64) NOT NULL, epoch BIGINT NOT NULL,"
		" lsn BIGINT NOT NULL, PRIMARY KEY (instance, epoch, lsn))";
	struct mend *m = arg;
	if (last && last->err < 0 && m->state != MEND_RECORD) {
		buf_addf(m->out, "dbwriter: the database refuses: %s\n", last->message);
		return ERR_FAILED;
	}
	if (!last) {
		buf_addstr(sql, session);
		return 1;
	}
	if (m->state == MEND_SESSION) {
		m->state = MEND_TABLE;
		buf_addstr(sql, table);
		return 1;
	}
	if (m->state == MEND_RECORD && last->err < 0)
		return mend_refused(m, last, sql);
	if (m->state == MEND_RECORD) {
		m->entry[m->at++].landed = true;
		m->again = 0;
	}
	return mend_next(m, sql);
}

int restore_quarantine(struct env *env, const char *folder, const struct env_db_options *db, struct buf *out)
{
	char path[ENV_PATH_MAX], why[300] = "";
	struct mend m = { .out = out };
	struct quarantine q;
	size_t landed = 0;
	snprintf(path, sizeof path, "%.490s/quarantine.sql", folder);
	int err = quarantine_open(&q, env, path, why, sizeof why);
	if (err < 0) {
		buf_addf(out, "dbwriter: %s\n", why);
		return err;
	}
	m.entry = q.entry;
	m.n = q.n;
	int result = q.n ? asker_run(env, db, mend_step, &m, why, sizeof why) : 0;
	if (*why)
		buf_addf(out, "dbwriter: %s\n", why);
	for (size_t i = 0; i < q.n; i++)
		landed += q.entry[i].landed;
	if (landed && (err = quarantine_rewrite(&q)) < 0)
		buf_addf(out, "dbwriter: %s cannot be written: %s\n", path,
			 err == ERR_IO ? env_last_error() : err_text(err));
	buf_addf(out, "%zu records landed, %zu stay in %s\n", landed, q.n - landed, path);
	result = result < 0 ? result : err < 0 ? err : landed < q.n;
	held_release(&m.held);
	quarantine_close(&q);
	return result;
}
