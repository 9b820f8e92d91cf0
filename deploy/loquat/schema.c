#include "deploy/loquat/schema.h"
#include <assert.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/buf.h"
#include "common/err.h"
#include "common/sqllog.h"
#include "dbwriter/replay.h"
#include "rpc/version.h"

#define FILE_BYTES_MAX (4u << 20)
#define FILES_MAX      999
#define LOCK_S         60

struct file {
	char name[200];
	unsigned number;
	unsigned recorded_as; /* the number it was applied under, where that is another; 0: it is not */
	char *text;
	size_t bytes;
	char checksum[9];
	bool applied, noted; /* noted: with its checksum */
};
struct schema {
	struct env *env;
	struct env_db *db;
	char folder[ENV_PATH_MAX];
	void (*on_done)(void *arg, const char *why, unsigned applied);
	void *arg;
	struct file *file; /* by number */
	unsigned n, at, applied;
	struct buf sql;
	char why[2 * ENV_PATH_MAX + 400];
};

/* ---- the end ------------------------------------------------------------------------------------------------------ */

static int refuse(struct schema *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int refuse(struct schema *s, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(s->why, sizeof s->why, fmt, ap);
	va_end(ap);
	return ERR_FAILED;
}

static void on_unlocked(void *arg, const struct env_db_result *r)
{
	struct schema *s = arg;

	(void)r;
	s->on_done(s->arg, *s->why ? s->why : NULL, s->applied); /* may free s */
}

static void end(struct schema *s)
{
	static const char sql[] = "DO RELEASE_LOCK(CONCAT('loquat_schema.', DATABASE()))";

	if (env_db_query(s->db, sql, sizeof sql - 1, on_unlocked, s) < 0)
		on_unlocked(s, NULL);
}

static const char *words(const struct env_db_result *r)
{
	return r->message && *r->message ? r->message : err_text(r->err);
}

static void ask(struct schema *s, void (*fn)(void *arg, const struct env_db_result *r))
{
	if (env_db_query(s->db, s->sql.data, s->sql.len, fn, s) == 0)
		return;
	refuse(s, "the schema: %s", env_db_message(s->db));
	end(s);
}

/* ---- the files ---------------------------------------------------------------------------------------------------- */

/* NNN-name.sql with letters, digits, '-', '_' and '.' in the name; 0: not so. */
static unsigned number_of(const char *name)
{
	unsigned v = 0;
	const char *p = name;

	for (; isdigit((unsigned char)*p) && p - name < 3; p++)
		v = v * 10 + (unsigned)(*p - '0');
	if (p - name != 3 || *p != '-')
		return 0;
	for (; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr("-_.", *p))
			return 0;
	return v;
}

static int read_file(struct schema *s, const char *name)
{
	struct file *f = &s->file[s->n];
	char path[2 * ENV_PATH_MAX];
	int err;

	f->number = number_of(name);
	if (!f->number || strlen(name) >= sizeof f->name)
		return refuse(s, "%s/%s: a migration is named NNN-name.sql, from 001 on, a game's own from %u on",
			      s->folder, name, SCHEMA_GAMES);
	if (s->n == FILES_MAX)
		return refuse(s, "%s: more than %d files", s->folder, FILES_MAX);
	snprintf(f->name, sizeof f->name, "%s", name);
	snprintf(path, sizeof path, "%s/%s", s->folder, name);
	err = env_file_load(s->env, path, FILE_BYTES_MAX, &f->text, &f->bytes);
	if (err < 0)
		return refuse(s, "%s: %s", path, err == ERR_IO ? env_last_error() : err_text(err));
	snprintf(f->checksum, sizeof f->checksum, "%08x", crc32c(0, f->text, f->bytes));
	s->n++;
	return 0;
}

static bool same_range(unsigned a, unsigned b)
{
	return (a >= SCHEMA_GAMES) == (b >= SCHEMA_GAMES);
}

/* The one behind the last of the range that number is of. */
static unsigned next_number(const struct schema *s, unsigned number)
{
	unsigned next = number >= SCHEMA_GAMES ? SCHEMA_GAMES : 1;

	for (unsigned i = 0; i < s->n; i++)
		if (same_range(s->file[i].number, number))
			next = s->file[i].number + 1;
	return next;
}

static int refuse_twice(struct schema *s, const struct file *a, const struct file *b)
{
	unsigned next = next_number(s, SCHEMA_GAMES);

	if (a->number >= SCHEMA_GAMES)
		return refuse(s, "%s: %s and %s have the same number: rename one of them to %03u-…", s->folder, a->name,
			      b->name, next);
	return refuse(s,
		      "%s: %s and %s have the same number: rename the game's own to %03u-… (numbers below %u are "
		      "Loquat's)",
		      s->folder, a->name, b->name, next, SCHEMA_GAMES);
}

static int check_numbers(struct schema *s)
{
	for (unsigned i = 0; i < s->n; i++) {
		const struct file *f = &s->file[i], *before = i ? f - 1 : NULL;
		unsigned expected = f->number >= SCHEMA_GAMES ? SCHEMA_GAMES : 1;

		if (before && same_range(before->number, f->number))
			expected = before->number + 1;
		if (f->number < expected)
			return refuse_twice(s, before, f);
		if (f->number > expected)
			return refuse(s, "%s: %s is there and %03u is missing", s->folder, f->name, expected);
	}
	return 0;
}

static bool is_sql(const char *name)
{
	size_t n = strlen(name);

	return n > 4 && !strcmp(name + n - 4, ".sql") && name[0] != '.';
}

/* Programs were put in the place of older ones, and not the folder beside them: the tables would not take what they write. */
static int check_newest(struct schema *s)
{
	unsigned newest = 0;

	for (unsigned i = 0; i < s->n; i++)
		if (s->file[i].number < SCHEMA_GAMES && s->file[i].number > newest)
			newest = s->file[i].number;
	return newest < LOQUAT_SCHEMA
		       ? refuse(s, "%s: there is no %03u, which this build needs: take the folder that it came with",
				s->folder, LOQUAT_SCHEMA)
		       : 0;
}

static int read_files(struct schema *s)
{
	char **names;
	size_t n;
	int err = env_dir_list(s->env, s->folder, &names, &n);

	if (err < 0)
		return refuse(s, "%s: %s", s->folder, err == ERR_IO ? env_last_error() : err_text(err));
	s->file = calloc(FILES_MAX + 1, sizeof *s->file);
	assert(s->file);
	for (size_t i = 0; i < n; i++) {
		if (!err && is_sql(names[i]))
			err = read_file(s, names[i]);
		free(names[i]);
	}
	free(names);
	return err < 0 || (err = check_numbers(s)) < 0 ? err : check_newest(s);
}

/* ---- applying ----------------------------------------------------------------------------------------------------- */

static void next_file(struct schema *s);

static void on_applied(void *arg, const struct env_db_result *r)
{
	struct schema *s = arg;
	struct file *f = &s->file[s->at];

	if (r->err < 0) {
		refuse(s, "%s/%s, statement %u: %s (not recorded: it runs again from its beginning)", s->folder,
		       f->name, r->failed_at + 1, words(r));
		end(s);
		return;
	}
	s->applied += !f->applied;
	s->at++;
	next_file(s);
}

static void next_file(struct schema *s)
{
	while (s->at < s->n && s->file[s->at].applied && s->file[s->at].noted)
		s->at++;
	if (s->at == s->n) {
		end(s);
		return;
	}
	struct file *f = &s->file[s->at];

	buf_clear(&s->sql);
	if (f->applied) { /* before there were checksums */
		buf_addf(&s->sql, "UPDATE loquat_schema SET checksum = '%s' WHERE version = %u", f->checksum,
			 f->number);
	} else {
		buf_add(&s->sql, f->text, f->bytes);
		buf_addf(&s->sql, "\nINSERT INTO loquat_schema (version, name, checksum) VALUES (%u, '%s', '%s')",
			 f->number, f->name, f->checksum);
	}
	ask(s, on_applied);
}

static struct file *file_of(struct schema *s, unsigned number)
{
	for (unsigned i = 0; i < s->n; i++)
		if (s->file[i].number == number)
			return &s->file[i];
	return NULL;
}

/* The same file, where a game has given it another number since. */
static struct file *renumbered(struct schema *s, const char *name, const char *checksum)
{
	for (unsigned i = 0; i < s->n; i++) {
		struct file *f = &s->file[i];

		if (f->number >= SCHEMA_GAMES && !f->applied && strlen(name) > 3 && !strcmp(f->name + 3, name + 3) &&
		    checksum && !strcmp(f->checksum, checksum))
			return f;
	}
	return NULL;
}

static int note_applied(struct schema *s, unsigned number, const char *name, const char *checksum, const char *when)
{
	struct file *f = file_of(s, number), *moved;

	if ((!f || strcmp(f->name, name)) && (moved = renumbered(s, name, checksum))) {
		moved->applied = moved->noted = true;
		moved->recorded_as = number;
		return 0;
	}
	if (!f)
		return 0; /* a newer installation's: its tables hold what ours write */
	if (strcmp(f->name, name))
		return refuse(s, "%s: %s is there, and as %03u %s was applied: put that back, a game's own as %03u-%s",
			      s->folder, f->name, number, name, next_number(s, SCHEMA_GAMES), name + 4);
	if (checksum && strcmp(f->checksum, checksum))
		return refuse(s,
			      "%s/%s was changed after it had been applied (%s): put it back, and write what is new "
			      "as %03u-name.sql",
			      s->folder, f->name, when, next_number(s, number));
	f->applied = true;
	f->noted = checksum;
	return 0;
}

static int refuse_order(struct schema *s, const struct file *before, const struct file *f)
{
	if (f->number >= SCHEMA_GAMES)
		return refuse(s, "%s: %s was not applied, and %s was already: exchange their numbers", s->folder,
			      before->name, f->name);
	return refuse(s, "%s: %s was not applied, and %s was already: if that is the game's own, rename it to %03u%s",
		      s->folder, before->name, f->name, next_number(s, SCHEMA_GAMES), f->name + 3);
}

/* Each range by itself: what an update of Loquat's brings comes behind what the game has applied already. */
static int in_order(struct schema *s)
{
	for (unsigned i = 1; i < s->n; i++) {
		const struct file *f = &s->file[i], *before = f - 1;

		if (f->applied && !before->applied && same_range(f->number, before->number))
			return refuse_order(s, before, f);
	}
	return 0;
}

static void on_renumbered(void *arg, const struct env_db_result *r)
{
	struct schema *s = arg;

	if (r->err < 0) {
		refuse(s, "the schema: %s", words(r));
		end(s);
	} else {
		next_file(s);
	}
}

/* Before anything is applied: the number may be wanted. */
static void renumber(struct schema *s)
{
	buf_clear(&s->sql);
	for (unsigned i = 0; i < s->n; i++) {
		const struct file *f = &s->file[i];

		if (f->recorded_as)
			buf_addf(&s->sql, "%sUPDATE loquat_schema SET version = %u, name = '%s' WHERE version = %u",
				 s->sql.len ? "; " : "", f->number, f->name, f->recorded_as);
	}
	if (s->sql.len)
		ask(s, on_renumbered);
	else
		next_file(s);
}

static void on_listed(void *arg, const struct env_db_result *r)
{
	struct schema *s = arg;
	int err = r->err < 0 ? refuse(s, "the schema: %s", words(r)) : 0;

	for (unsigned i = 0; i < r->rows && !err; i++) {
		const char *const *cell = r->cells + (size_t)i * 4;

		err = note_applied(s, (unsigned)strtoul(cell[0], NULL, 10), cell[1], cell[2], cell[3]);
	}
	if (!err)
		err = in_order(s);
	if (err < 0)
		end(s);
	else
		renumber(s);
}

static void on_locked(void *arg, const struct env_db_result *r)
{
	struct schema *s = arg;

	if (!r->err && r->rows && r->cells[0] && strcmp(r->cells[0], "1"))
		refuse(s, "the schema: somebody else has been changing it for %d s", LOCK_S);
	else if (r->err < 0)
		refuse(s, "the schema: %s", words(r));
	if (*s->why || read_files(s) < 0) {
		end(s);
		return;
	}
	buf_clear(&s->sql);
	buf_addstr(
		&s->sql,
		"CREATE TABLE IF NOT EXISTS loquat_schema (version INT NOT NULL PRIMARY KEY, name VARCHAR(200) NOT NULL, "
		"applied_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP) ENGINE=InnoDB; "
		"ALTER TABLE loquat_schema ADD COLUMN IF NOT EXISTS checksum CHAR(8); "
		"SELECT version, name, checksum, applied_at FROM loquat_schema ORDER BY version");
	ask(s, on_listed);
}

struct schema *schema_apply(struct env *env, struct env_db *db, const char *folder,
			    void (*on_done)(void *arg, const char *why, unsigned applied), void *arg)
{
	struct schema *s = calloc(1, sizeof *s);

	assert(s);
	*s = (struct schema){ .env = env, .db = db, .on_done = on_done, .arg = arg };
	snprintf(s->folder, sizeof s->folder, "%s", folder);
	buf_addf(&s->sql, "SELECT GET_LOCK(CONCAT('loquat_schema.', DATABASE()), %d)", LOCK_S);
	int err = env_db_query(db, s->sql.data, s->sql.len, on_locked, s);
	assert(!err);
	return s;
}

void schema_steps_free(struct schema *s)
{
	if (!s)
		return;
	for (unsigned i = 0; i < s->n; i++)
		free(s->file[i].text);
	free(s->file);
	buf_release(&s->sql);
	free(s);
}
