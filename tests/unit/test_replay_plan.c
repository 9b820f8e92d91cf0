/* Random logs leave the same tables, and the same records refused, however they are gathered, folded and sent. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "dbwriter/replay.h"
#include "tests/support/folder.h"
#include "tests/support/mariadb.h"
#include "tests/support/on_loop.h"
#include "tests/support/random_log.h"
#include "tests/support/records.h"
#include "tests/support/sql.h"
#include "tests/support/suite.h"

static struct mariadb server;
static struct env *env;
static struct loop *loop;
static struct log *log_;
static struct sql *q;
static struct replay *replay;
static bool any_refused;

static void setup(void)
{
	env = env_new();
	loop = on_loop_new(env, "worker");
	ck_assert_int_eq(log_open(env, "dbwriter-1", "/dev/null", LOG_WARN, &log_), 0);
	q = sql_open(server.socket, NULL);
	sql_run(q, "SET sql_mode = 'STRICT_TRANS_TABLES'");
}

static void teardown(void)
{
	sql_close(q);
	on_loop_free(loop);
	log_close(log_);
	env_free(env);
}

static void start_now(void *arg)
{
	replay = replay_new(loop, log_, arg);
}

static void end_now(void *arg)
{
	(void)arg;
	replay_free(replay);
}

/* The rows of every table, and which records were refused with which number. */
static void outcome(const char *dir, unsigned kinds, struct buf *out)
{
	static const char *const selects[] = {
		"SELECT id, gold, level, HEX(name), x, note, debt, HEX(mark) FROM hero ORDER BY id",
		"SELECT * FROM item ORDER BY hero, kind",
		"SELECT hero, quest, HEX(state), progress FROM quest ORDER BY hero, quest",
		"SELECT * FROM seat ORDER BY id",
		"SELECT * FROM purse ORDER BY id",
		"SELECT * FROM word ORDER BY word",
		"SELECT HEX(word), n FROM loose ORDER BY word",
		"SELECT HEX(word), n FROM padded ORDER BY word",
		"SELECT hero, gold FROM told ORDER BY n",
		"SELECT id, v FROM parent ORDER BY id",
		"SELECT id, parent FROM child ORDER BY id",
	};
	for (size_t i = 0; i < (kinds & RANDOM_LOG_EXTRA ? sizeof selects / sizeof *selects : 6); i++) {
		char *text = sql_text(q, selects[i]);
		buf_addf(out, "%s: %s\n", selects[i], text ? text : "");
		free(text);
	}
	size_t n;
	any_refused |= folder_size(dir, "quarantine.sql") >= 0;
	if (folder_size(dir, "quarantine.sql") < 0)
		return;
	char *kept = folder_read(dir, "quarantine.sql", &n);
	for (char *p = kept; (p = strstr(p, "-- quarantine ")); p++)
		buf_addf(out, "%.*s\n", (int)(strstr(p, " message=") - p), p);
	free(kept);
}

struct way {
	const char *name;
	struct replay_options options;
};

static void new_database(void)
{
	sql_run(q, "DROP DATABASE IF EXISTS loquat; CREATE DATABASE loquat; USE loquat");
	sql_file(q, "deploy/schema/001-base.sql");
}

/* Lands the log in the database as it is; returns how many statements were folded. */
static uint64_t land(const char *dir, const struct buf *log, unsigned records, const struct replay_options *way)
{
	char folder[400];
	struct replay_options o = *way;
	struct replay_figures f = { 0 };
	snprintf(folder, sizeof folder, "%s/role-1", dir);
	mkdir(folder, 0755);
	folder_write(folder, "00000001.sql", log->data, log->len);
	o.folder = dir;
	o.keep_s = 1000;
	o.db = (struct env_db_options){ .socket = server.socket, .user = "root", .password = "", .database = "loquat" };
	on_loop(loop, start_now, &o);
	for (int ms = 0; ms < 60000 && f.records < records; ms++) {
		usleep(1000);
		replay_figures(replay, &f);
	}
	on_loop(loop, end_now, NULL);
	ck_assert_uint_eq(f.records, records);
	return f.folded;
}

static uint64_t land_random(const struct buf *log, unsigned records, unsigned kinds, const struct replay_options *way,
			    struct buf *out)
{
	char *dir = folder_new();
	new_database();
	sql_run(q, "DROP TABLE quest");
	sql_run(q, random_log_tables);
	if (kinds & RANDOM_LOG_EXTRA)
		sql_run(q, random_log_extra);
	uint64_t folded = land(dir, log, records, way);
	outcome(dir, kinds, out);
	folder_free(dir);
	return folded;
}

/* Returns how many statements were folded. */
static uint64_t compare(uint64_t seed, unsigned records, unsigned batch, unsigned kinds)
{
	const struct way ways[] = {
		{ "one by one", { .batch_records_max = batch, .one_by_one = true } },
		{ "gathered", { .batch_records_max = batch, .no_fold = true, .array_rows_min = 1 } },
		{ "folded", { .batch_records_max = batch, .array_rows_min = 1 + seed % 4 } },
		{ "folded, as text", { .batch_records_max = batch, .no_arrays = true } },
	};
	struct buf log = BUF_INIT, expected = BUF_INIT, got = BUF_INIT;
	uint64_t folds = 0;
	random_log(&log, seed, 1, records, kinds);
	for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
		buf_clear(&got);
		folds += land_random(&log, records, kinds, &ways[i].options, i ? &got : &expected);
		if (i && (got.len != expected.len || memcmp(got.data, expected.data, got.len)))
			ck_abort_msg("seed %llu, %u records in batches of %u, kinds %u, %s:\n%s\nexpected:\n%s",
				     (unsigned long long)seed, records, batch, kinds, ways[i].name, buf_cstr(&got),
				     buf_cstr(&expected));
	}
	buf_release(&log);
	buf_release(&expected);
	buf_release(&got);
	return folds;
}

static unsigned seeds(void)
{
	const char *more = getenv("REPLAY_SEEDS");
	return more ? (unsigned)atoi(more) : 2;
}

START_TEST(records_that_all_land_leave_the_same_rows_in_any_way)
{
	uint64_t folds = 0;
	for (unsigned seed = 1; seed <= 2 * seeds(); seed++)
		folds += compare(seed, 300, 100, seed % 2 ? RANDOM_LOG_EXTRA : 0);
	ck_assert_msg(!any_refused, "a log of this kind is to land whole");
	ck_assert_uint_gt(folds, 100);
}
END_TEST

START_TEST(with_records_that_are_refused_among_them_too)
{
	for (unsigned seed = 101; seed <= 100 + 2 * seeds(); seed++)
		compare(seed, 150, 2 + seed % 9, RANDOM_LOG_RISKY | (seed % 2 ? RANDOM_LOG_EXTRA : 0));
}
END_TEST

/*
 * A member holds its role and goes with its guild: so the role can go behind the guild only. Where they lie in one
 * database dbwriter has always known; from another one it must be seen, too.
 */
START_TEST(a_key_from_another_database_keeps_the_order)
{
	static const char *const log_of[] = { "DELETE FROM guild WHERE id = 1;\n", "DELETE FROM role WHERE id = 7;\n",
					      "DELETE FROM guild WHERE id = 5;\n" };
	struct buf log = BUF_INIT;
	char *dir = folder_new();
	records_begin(&log);
	for (unsigned i = 0; i < 3; i++)
		records_add(&log,
			    (struct made){ .lsn = i + 1, .epoch = 1, .keys = "guild:1", .statements = log_of[i] });
	new_database();
	sql_run(q,
		"CREATE TABLE guild (id BIGINT NOT NULL PRIMARY KEY); INSERT INTO guild VALUES (1), (5);"
		"INSERT INTO role (id, uid, name) VALUES (7, 'ann', 'ann');"
		"DROP DATABASE IF EXISTS forum; CREATE DATABASE forum;"
		"CREATE TABLE forum.member (id BIGINT NOT NULL PRIMARY KEY, role BIGINT NOT NULL, guild BIGINT NOT NULL,"
		" FOREIGN KEY (role) REFERENCES loquat.role (id),"
		" FOREIGN KEY (guild) REFERENCES loquat.guild (id) ON DELETE CASCADE);"
		"INSERT INTO forum.member VALUES (1, 7, 5)");
	land(dir, &log, 3, &(struct replay_options){ .batch_records_max = 100, .array_rows_min = 1 });
	ck_assert_int_eq(sql_int(q, "SELECT COUNT(*) FROM guild"), 0);
	ck_assert_int_eq(sql_int(q, "SELECT COUNT(*) FROM role"), 1);
	ck_assert_int_ge(folder_size(dir, "quarantine.sql"), 1);
	sql_run(q, "DROP DATABASE forum");
	buf_release(&log);
	folder_free(dir);
}
END_TEST

int main(void)
{
	if (!mariadb_installed()) {
		printf("skip replay_plan mariadbd is not installed\n");
		return EXIT_SUCCESS;
	}
	mariadb_start(&server);
	TCase *t = tcase_create("replay_plan");
	tcase_set_timeout(t, 240 + 2 * seeds());
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, records_that_all_land_leave_the_same_rows_in_any_way);
	tcase_add_test(t, with_records_that_are_refused_among_them_too);
	tcase_add_test(t, a_key_from_another_database_keeps_the_order);
	int failed = suite_run("replay_plan", t);
	mariadb_end(&server);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
