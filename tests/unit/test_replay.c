/* Landing SQL logs in a real MariaDB, exactly once: dbwriter/replay.h. */
#include "dbwriter/replay.h"
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "common/err.h"
#include "dbwriter/plan.h"
#include "tests/support/folder.h"
#include "tests/support/mariadb.h"
#include "tests/support/on_loop.h"
#include "tests/support/records.h"
#include "tests/support/sql.h"

static struct mariadb server; /* started once, before the tests fork */
static struct env *env;
static struct loop *loop, *second_loop;
static struct log *log_;
static struct sql *q;
static struct replay *replay, *second;
static struct replay_options options;
static char *dir, folder[2][400];

static void setup(void)
{
	char path[400];
	env = env_new();
	dir = folder_new();
	loop = on_loop_new(env, "worker");
	second_loop = on_loop_new(env, "second");
	snprintf(path, sizeof path, "%s/log", dir);
	ck_assert_int_eq(log_open(env, "dbwriter-1", path, LOG_DEBUG, &log_), 0);
	for (int i = 0; i < 2; i++) {
		snprintf(folder[i], sizeof folder[i], "%s/role-%d", dir, i + 1);
		mkdir(folder[i], 0755);
	}
	q = sql_open(server.socket, NULL);
	sql_run(q, "DROP DATABASE IF EXISTS loquat; CREATE DATABASE loquat; USE loquat");
	sql_file(q, "deploy/schema/001-base.sql");
	sql_run(q, "INSERT INTO role (id, uid, name, gold) VALUES (1, 'a', 'Anna', 0), (2, 'b', 'Berta', 0)");
	replay = second = NULL;
	options = (struct replay_options){
		.folder = dir,
		.keep_s = 1000,
		.poll_ms = 50,
		.db = { .socket = server.socket, .user = "root", .password = "", .database = "loquat" }
	};
}

static void start_now(void *arg)
{
	(void)arg;
	replay = replay_new(loop, log_, &options);
}

static void start_second_now(void *arg)
{
	(void)arg;
	second = replay_new(second_loop, log_, &options);
}

static void end_now(void *arg)
{
	replay_free(*(struct replay **)arg);
	*(struct replay **)arg = NULL;
}

static void start(void)
{
	on_loop(loop, start_now, NULL);
}

static void end(void)
{
	on_loop(loop, end_now, &replay);
}

static void teardown(void)
{
	mariadb_signal(&server, SIGCONT); /* a test that failed may have left it stopped */
	end();
	on_loop(second_loop, end_now, &second);
	on_loop_free(loop);
	on_loop_free(second_loop);
	sql_close(q);
	log_close(log_);
	folder_free(dir);
	env_free(env);
}

static bool logged(const char *words)
{
	size_t n;
	char *text = folder_read(dir, "log", &n);
	bool found = strstr(text, words);
	free(text);
	return found;
}

static void until(bool (*fn)(void *arg), void *arg, const char *what)
{
	for (int i = 0; i < 4000; i++) {
		if (fn(arg))
			return;
		usleep(5000);
	}
	size_t n;
	ck_abort_msg("never: %s; the log:\n%s", what, folder_read(dir, "log", &n));
}

struct landing {
	int instance;
	int64_t lsn;
};

static bool in_database(void *arg)
{
	const struct landing *l = arg;
	char text[120];
	snprintf(text, sizeof text, "SELECT lsn FROM loquat_replay WHERE instance = 'role-%d'", l->instance);
	return sql_int(q, text) == l->lsn;
}

struct told {
	const struct landing *landing;
	bool there;
};

static void look(void *arg, const char *instance, const struct replay_figures *f)
{
	struct told *t = arg;
	char name[20];
	snprintf(name, sizeof name, "role-%d", t->landing->instance);
	t->there |= !strcmp(instance, name) && (int64_t)f->lsn == t->landing->lsn;
}

/* The answer to COMMIT comes after everybody can see the rows. */
static bool in_figures(void *arg)
{
	struct told t = { .landing = arg };
	replay_each(replay, look, &t);
	return t.there;
}

static void nothing(void *arg)
{
	(void)arg;
}

/* In the database and, whole, in the replay's own figures. */
static void until_landed(int instance, int64_t lsn)
{
	struct landing l = { instance, lsn };
	until(in_database, &l, "landed");
	until(in_figures, &l, "told as landed");
	on_loop(loop, nothing, NULL);
}

static bool is_logged(void *arg)
{
	return logged(arg);
}

static void until_logged(const char *words)
{
	until(is_logged, (void *)words, words);
}

/* A file of records that each add their lsn to role 1's gold: what lands twice, or not at all, is seen in the sum. */
static void adding(const char *to, unsigned number, uint64_t first, uint64_t last, uint64_t epoch)
{
	char name[32], text[100];
	struct buf b = BUF_INIT;
	records_begin(&b);
	for (uint64_t lsn = first; lsn <= last; lsn++) {
		snprintf(text, sizeof text, "UPDATE role SET gold = gold + %llu WHERE id = 1;\n",
			 (unsigned long long)lsn);
		records_add(&b, (struct made){ .lsn = lsn, .epoch = epoch, .keys = "role:1", .statements = text });
	}
	snprintf(name, sizeof name, "%08u.sql", number);
	folder_write(to, name, b.data, b.len);
	buf_release(&b);
}

static int64_t sum_to(int64_t n)
{
	return n * (n + 1) / 2;
}

static int64_t gold(void)
{
	return sql_int(q, "SELECT gold FROM role WHERE id = 1");
}

static struct replay_figures now(void)
{
	struct replay_figures f;
	replay_figures(replay, &f);
	return f;
}

static bool lag_is(void *arg)
{
	return now().lag_records == *(uint64_t *)arg;
}

static bool lags(void *arg)
{
	(void)arg;
	return now().lag_ms > 0;
}

START_TEST(every_record_of_every_log_lands_once)
{
	adding(folder[0], 1, 1, 1500, 1);
	adding(folder[0], 2, 1501, 2500, 2);
	adding(folder[1], 1, 1, 700, 1);
	start();
	until_landed(1, 2500);
	until_landed(2, 700);
	ck_assert_int_eq(gold(), sum_to(2500) + sum_to(700));
	struct replay_figures f = now();
	ck_assert_uint_eq(f.records, 3200);
	ck_assert_uint_le(f.transactions, 6);
	ck_assert_uint_eq(f.streams, 2);
	ck_assert_uint_eq(f.lag_records, 0);
	ck_assert_uint_eq(f.lag_ms, 0);
	ck_assert(f.connected);
}
END_TEST

START_TEST(a_restart_goes_on_where_the_position_stands)
{
	adding(folder[0], 1, 1, 1500, 1);
	start();
	until_landed(1, 1500);
	end();
	adding(folder[0], 2, 1501, 1600, 2);
	start();
	until_landed(1, 1600);
	ck_assert_int_eq(gold(), sum_to(1600));
	ck_assert_int_eq(sql_int(q, "SELECT epoch FROM loquat_replay"), 2);
	char *file = sql_text(q, "SELECT file FROM loquat_replay");
	ck_assert_str_eq(file, "00000002.sql");
	free(file);
}
END_TEST

START_TEST(what_a_writer_appends_lands_while_it_writes)
{
	struct sqllog *l = records_open(env, folder[0]);
	sql_run(q, "UPDATE role SET name = 'role:1' WHERE id = 1");
	start();
	for (int i = 1; i <= 300; i++) {
		records_append(l, "role:1", 1);
		if (i % 100 == 0)
			until_landed(1, i);
	}
	ck_assert_int_eq(gold(), 300);
	sqllog_close(l);
}
END_TEST

START_TEST(a_folder_that_comes_later_is_found)
{
	char later[400];
	start();
	snprintf(later, sizeof later, "%s/role-3", dir);
	mkdir(later, 0755);
	adding(later, 1, 1, 5, 1);
	until_landed(3, 5);
}
END_TEST

START_TEST(any_text_is_the_same_in_the_database)
{
	static const char text[] = "O'Neill \"\\\0\n\r\x1a%_ -- /* ; \xe6\x9e\x87\xe6\x9d\xb7 \xf0\x9f\x8d\x8a";
	struct sqllog *l = records_open(env, folder[0]);
	struct sql_record r;
	struct sql_value v[] = { { .type = SQL_TEXT, .s = { text, sizeof text - 1 } },
				 { .type = SQL_INT, .i = INT64_MIN },
				 { .type = SQL_DOUBLE, .d = 0.1 },
				 { .type = SQL_DOUBLE, .d = -1e-300 } };
	char why[100], hex[200] = "", *got;
	sql_record_init(&r);
	ck_assert_int_eq(sql_record_add(&r, "UPDATE role SET name = ?, gold = ?, x = ?, y = ? WHERE id = 1", v, 4, why,
					sizeof why),
			 0);
	ck_assert_int_eq(sqllog_append(l, &r, NULL), 0);
	sql_record_release(&r);
	start();
	until_landed(1, 1);
	for (size_t i = 0; i < sizeof text - 1; i++)
		sprintf(hex + 2 * i, "%02X", (unsigned char)text[i]);
	got = sql_text(q, "SELECT HEX(name) FROM role WHERE id = 1");
	ck_assert_str_eq(got, hex);
	free(got);
	ck_assert_int_eq(
		sql_int(q, "SELECT gold = -9223372036854775808 AND x = 0.1e0 AND y = -1e-300 FROM role WHERE id = 1"),
		1);
	sqllog_close(l);
}
END_TEST

START_TEST(a_killed_database_loses_nothing_and_lands_nothing_twice)
{
	adding(folder[0], 1, 1, 8000, 1);
	options.batch_records_max = 50;
	start();
	for (int i = 0; i < 3; i++) {
		int64_t before = -1;
		for (int wait = 0;
		     wait < 400 && (before = sql_int(q, "SELECT lsn FROM loquat_replay")) < 2000 * (i + 1); wait++)
			usleep(2000);
		sql_close(q);
		mariadb_signal(&server, SIGKILL);
		mariadb_again(&server);
		q = sql_open(server.socket, "loquat");
	}
	until_landed(1, 8000);
	ck_assert_int_eq(gold(), sum_to(8000));
	until_logged("dbwriter.database_away");
	sql_run(q, "SELECT 1");
}
END_TEST

START_TEST(a_database_that_is_away_at_first_is_waited_for_and_the_lag_is_told)
{
	char *real = server.socket, away[400];
	snprintf(away, sizeof away, "%s/nobody.sock", dir);
	adding(folder[0], 1, 1, 30, 1);
	options.db.socket = away;
	start();
	until(lag_is, &(uint64_t){ 30 }, "a lag of 30 records");
	until(lags, NULL, "a lag in time");
	ck_assert(!now().connected);
	ck_assert_int_eq(symlink(real, away), 0);
	until_landed(1, 30);
	ck_assert_uint_eq(now().lag_records, 0);
	ck_assert(now().connected);
}
END_TEST

static bool is_connected(void *arg)
{
	struct replay_figures f;
	replay_figures(replay, &f);
	return f.connected == *(bool *)arg;
}

START_TEST(a_database_that_is_stopped_counts_as_away_also_when_nothing_is_to_be_done)
{
	bool yes = true, no = false;
	start();
	until(is_connected, &yes, "connected");
	mariadb_signal(&server, SIGSTOP);
	until(is_connected, &no, "noticed");
	until_logged("dbwriter.database_silent");
	mariadb_signal(&server, SIGCONT);
	until(is_connected, &yes, "answers again");
	adding(folder[0], 1, 1, 10, 1);
	until_landed(1, 10);
}
END_TEST

START_TEST(two_dbwriters_land_nothing_twice)
{
	adding(folder[0], 1, 1, 6000, 1);
	adding(folder[1], 1, 1, 6000, 1);
	options.batch_records_max = 20;
	start();
	on_loop(second_loop, start_second_now, NULL);
	until_landed(1, 6000);
	until_landed(2, 6000);
	ck_assert_int_eq(gold(), 2 * sum_to(6000));
	until_logged("dbwriter.overtaken");
}
END_TEST

START_TEST(a_row_that_somebody_holds_is_waited_for)
{
	struct sql *other = sql_open(server.socket, "loquat");
	adding(folder[0], 1, 1, 10, 1);
	sql_run(other, "BEGIN; UPDATE role SET gold = gold + 1000 WHERE id = 1");
	start();
	until_logged("dbwriter.again");
	ck_assert_int_eq(sql_int(q, "SELECT lsn FROM loquat_replay"), 0);
	sql_run(other, "COMMIT");
	until_landed(1, 10);
	ck_assert_int_eq(gold(), 1000 + sum_to(10));
	sql_close(other);
}
END_TEST

/* Records 1 to 9; some of them are such as no database takes. */
static void with_refusals(void)
{
	static const char *const bad[] = {
		[3] = "INSERT INTO role (id, uid, name) VALUES (2, 'x', 'y');\n",
		[4] = "UPDATE role SET level = 99999999999 WHERE id = 1;\n",
		[7] = "UPDATE nosuch SET a = 1;\n",
		[9] = "UPDATE role SET gold = gold + 500 WHERE id = 1;\nUPDATE role SET nosuch = 1 WHERE id = 1;\n"
	};
	struct buf b = BUF_INIT;
	records_begin(&b);
	for (uint64_t lsn = 1; lsn <= 9; lsn++)
		records_add(&b, (struct made){ .lsn = lsn,
					       .epoch = 1,
					       .keys = "role:1",
					       .statements =
						       bad[lsn] ? bad[lsn]
								: "UPDATE role SET gold = gold + 1 WHERE id = 1;\n" });
	folder_write(folder[0], "00000001.sql", b.data, b.len);
	buf_release(&b);
}

static bool four_are_kept(void *arg)
{
	(void)arg;
	return now().kept == 4;
}

START_TEST(what_the_database_refuses_for_good_is_kept_aside_and_the_rest_lands)
{
	size_t n;
	with_refusals();
	start();
	until_landed(1, 9);
	ck_assert_int_eq(gold(), 5); /* and of the ninth nothing, though its first statement was fine */
	ck_assert_uint_eq(now().quarantined, 4);
	until(four_are_kept, NULL, "told that somebody has to look");
	char *text = folder_read(dir, "quarantine.sql", &n);
	ck_assert(!strncmp(
		text,
		"SET NAMES utf8mb4;\n-- quarantine instance=role-1 epoch=1 lsn=3 file=00000001.sql error=1062 message=Duplicate entry",
		110));
	ck_assert(strstr(text, "lsn=4 file=00000001.sql error=1264"));
	ck_assert(strstr(text, "lsn=7 file=00000001.sql error=1146"));
	ck_assert(strstr(text, "lsn=9 file=00000001.sql error=1054"));
	ck_assert(strstr(text, "\nBEGIN;\nUPDATE nosuch SET a = 1;\nCOMMIT;\n"));
	ck_assert(!strstr(text, "gold + 1 "));
	free(text);
	until_logged("error dbwriter-1 dbwriter.quarantined");
	end();
	start();
	adding(folder[0], 2, 10, 10, 1);
	until_landed(1, 10);
	ck_assert_int_eq(gold(), 15);
	ck_assert_uint_eq(now().quarantined, 0);
}
END_TEST

START_TEST(where_keys_are_held_later_records_of_a_refused_one_wait_with_it)
{
	static const struct {
		const char *keys, *statement;
	} made[] = { { "role:1", "UPDATE role SET gold = gold + 1 WHERE id = 1;\n" },
		     { "role:1,bag:1", "UPDATE role SET nosuch = 1 WHERE id = 1;\n" },
		     { "role:2", "UPDATE role SET gold = gold + 1 WHERE id = 2;\n" },
		     { "bag:1", "UPDATE role SET gold = gold + 100 WHERE id = 1;\n" },
		     { "role:12", "UPDATE role SET gold = gold + 1 WHERE id = 2;\n" },
		     { "role:1", "UPDATE role SET gold = gold + 100 WHERE id = 1;\n" } };
	struct buf b = BUF_INIT;
	records_begin(&b);
	for (uint64_t i = 0; i < 6; i++)
		records_add(&b,
			    (struct made){
				    .lsn = i + 1, .epoch = 1, .keys = made[i].keys, .statements = made[i].statement });
	folder_write(folder[0], "00000001.sql", b.data, b.len);
	options.hold_keys = true;
	start();
	until_landed(1, 6);
	ck_assert_int_eq(gold(), 1);
	ck_assert_int_eq(sql_int(q, "SELECT gold FROM role WHERE id = 2"), 2);
	ck_assert_uint_eq(now().quarantined, 3);
	end();
	start(); /* and it is known after a restart */
	buf_clear(&b);
	records_begin(&b);
	records_add(&b, (struct made){ .lsn = 7, .epoch = 1, .keys = "role:1", .statements = made[0].statement });
	folder_write(folder[0], "00000002.sql", b.data, b.len);
	until_landed(1, 7);
	ck_assert_int_eq(gold(), 1);
	buf_release(&b);
}
END_TEST

START_TEST(one_bad_record_among_thousands_costs_a_few_transactions)
{
	char name[32] = "00000001.sql", text[100];
	struct buf b = BUF_INIT;
	records_begin(&b);
	for (uint64_t lsn = 1; lsn <= 3000; lsn++) {
		snprintf(text, sizeof text, "UPDATE role SET %s = gold + 1 WHERE id = 1;\n",
			 lsn == 1777 ? "silver" : "gold");
		records_add(&b, (struct made){ .lsn = lsn, .epoch = 1, .keys = "role:1", .statements = text });
	}
	folder_write(folder[0], name, b.data, b.len);
	buf_release(&b);
	start();
	until_landed(1, 3000);
	ck_assert_int_eq(gold(), 2999);
	ck_assert_uint_eq(now().quarantined, 1);
	ck_assert_uint_le(now().transactions, 6);
}
END_TEST

START_TEST(statements_that_cannot_be_gathered_land_in_transactions_of_bounded_plans)
{
	struct buf b = BUF_INIT;
	sql_run(q, "CREATE TABLE told (n BIGINT NOT NULL PRIMARY KEY AUTO_INCREMENT, lsn BIGINT NOT NULL)");
	records_begin(&b);
	for (uint64_t lsn = 1; lsn <= 5000; lsn++) {
		char text[160];
		snprintf(text, sizeof text,
			 "UPDATE role SET gold = (gold * 31 + %llu) %% 1000007 WHERE id = 1;\n"
			 "INSERT INTO told (lsn) VALUES (%llu);\n",
			 (unsigned long long)lsn, (unsigned long long)lsn);
		records_add(&b, (struct made){ .lsn = lsn, .epoch = 1, .keys = "role:1", .statements = text });
	}
	folder_write(folder[0], "00000001.sql", b.data, b.len);
	buf_release(&b);
	start();
	until_landed(1, 5000);
	ck_assert_uint_ge(now().transactions, 5000 / (PLAN_GROUPS_MAX / 2));
	int64_t expected = 0;
	for (int64_t lsn = 1; lsn <= 5000; lsn++)
		expected = (expected * 31 + lsn) % 1000007;
	ck_assert_int_eq(gold(), expected);
	ck_assert_int_eq(sql_int(q, "SELECT COUNT(*) FROM told AS a JOIN told AS b ON a.n < b.n AND a.lsn > b.lsn WHERE b.n < 50"), 0);
	ck_assert_int_eq(sql_int(q, "SELECT COUNT(*) FROM told"), 5000);
}
END_TEST

START_TEST(a_damaged_log_stops_alone)
{
	size_t n;
	adding(folder[0], 1, 1, 100, 1);
	adding(folder[1], 1, 1, 100, 1);
	char *bytes = folder_read(folder[0], "00000001.sql", &n);
	bytes[n / 2] ^= 1;
	folder_write(folder[0], "00000001.sql", bytes, n);
	start();
	until_landed(2, 100);
	until_logged("dbwriter.stopped");
	ck_assert_uint_eq(now().stopped, 1);
	ck_assert_uint_gt(now().lag_records, 40);
	bytes[n / 2] ^= 1;
	folder_write(folder[0], "00000001.sql", bytes, n);
	until_landed(1, 100);
	ck_assert_int_eq(gold(), 2 * sum_to(100));
	ck_assert_uint_eq(now().stopped, 0);
	free(bytes);
}
END_TEST

START_TEST(without_the_positions_table_nothing_lands_until_it_is_there)
{
	adding(folder[0], 1, 1, 10, 1);
	sql_run(q, "DROP TABLE loquat_replay");
	start();
	until_logged("error=1146");
	ck_assert_int_eq(gold(), 0);
	sql_file(q, "deploy/schema/001-base.sql");
	until_landed(1, 10);
	ck_assert_int_eq(gold(), sum_to(10));
}
END_TEST

START_TEST(an_older_schema_than_the_builds_is_waited_out)
{
	sql_run(q,
		"CREATE TABLE loquat_schema (version INT PRIMARY KEY, name VARCHAR(200)); INSERT INTO loquat_schema VALUES (1, 'a')");
	options.schema_version = 2;
	adding(folder[0], 1, 1, 10, 1);
	start();
	until_logged("its schema has version 1 and this build needs 2");
	sql_run(q, "INSERT INTO loquat_schema VALUES (2, 'b')");
	until_landed(1, 10);
}
END_TEST

START_TEST(files_that_have_landed_and_are_old_enough_are_removed)
{
	adding(folder[0], 1, 1, 10, 1);
	adding(folder[0], 2, 11, 20, 1);
	adding(folder[0], 3, 21, 25, 1);
	adding(folder[0], 4, 26, 30, 1);
	options.keep_s = 0;
	start();
	until_landed(1, 30);
	until_logged("dbwriter.removed instance=role-1 file=00000002.sql why=old");
	ck_assert_int_eq(folder_size(folder[0], "00000001.sql"), -1);
	ck_assert_int_gt(folder_size(folder[0], "00000003.sql"), 0);
	ck_assert_int_gt(folder_size(folder[0], "00000004.sql"), 0);
	end();
	/* and the log goes on behind them */
	struct sqllog *l = records_open(env, folder[0]);
	ck_assert_uint_eq(records_append(l, "role:1", 1), 31);
	sqllog_close(l);
	start();
	until_landed(1, 31);
}
END_TEST

START_TEST(on_a_disk_that_is_nearly_full_what_has_landed_is_removed_before_its_time)
{
	adding(folder[0], 1, 1, 10, 1);
	adding(folder[0], 2, 11, 20, 1);
	adding(folder[0], 3, 21, 25, 1);
	adding(folder[0], 4, 26, 30, 1);
	options.keep_s = 1000000;
	options.low_bytes = UINT64_MAX; /* any disk has less */
	start();
	until_landed(1, 30);
	until_logged("dbwriter.removed instance=role-1 file=00000001.sql why=\"the disk is nearly full\"");
	ck_assert_int_gt(folder_size(folder[0], "00000003.sql"), 0);
	ck_assert_int_gt(folder_size(folder[0], "00000004.sql"), 0);
	ck_assert_int_eq(gold(), sum_to(30));
}
END_TEST

START_TEST(records_that_landed_and_were_lost_with_the_machine_are_no_hindrance)
{
	adding(folder[0], 1, 1, 10, 7);
	start();
	until_landed(1, 10);
	end();
	adding(folder[0], 1, 1, 8, 7);
	adding(folder[0], 2, 9, 12, 8);
	start();
	until_landed(1, 12);
	ck_assert_int_eq(gold(), sum_to(10) + 9 + 10 + 11 + 12);
	until_logged("dbwriter.forked");
}
END_TEST

int main(void)
{
	if (!mariadb_installed()) {
		printf("skip replay mariadbd is not installed\n");
		return EXIT_SUCCESS;
	}
	mariadb_start(&server);
	TCase *t = tcase_create("replay");
	tcase_set_timeout(t, 50);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, every_record_of_every_log_lands_once);
	tcase_add_test(t, a_restart_goes_on_where_the_position_stands);
	tcase_add_test(t, what_a_writer_appends_lands_while_it_writes);
	tcase_add_test(t, a_folder_that_comes_later_is_found);
	tcase_add_test(t, any_text_is_the_same_in_the_database);
	tcase_add_test(t, a_database_that_is_away_at_first_is_waited_for_and_the_lag_is_told);
	tcase_add_test(t, a_database_that_is_stopped_counts_as_away_also_when_nothing_is_to_be_done);
	tcase_add_test(t, two_dbwriters_land_nothing_twice);
	tcase_add_test(t, a_row_that_somebody_holds_is_waited_for);
	tcase_add_test(t, what_the_database_refuses_for_good_is_kept_aside_and_the_rest_lands);
	tcase_add_test(t, where_keys_are_held_later_records_of_a_refused_one_wait_with_it);
	tcase_add_test(t, one_bad_record_among_thousands_costs_a_few_transactions);
	tcase_add_test(t, statements_that_cannot_be_gathered_land_in_transactions_of_bounded_plans);
	tcase_add_test(t, a_damaged_log_stops_alone);
	tcase_add_test(t, without_the_positions_table_nothing_lands_until_it_is_there);
	tcase_add_test(t, an_older_schema_than_the_builds_is_waited_out);
	tcase_add_test(t, files_that_have_landed_and_are_old_enough_are_removed);
	tcase_add_test(t, on_a_disk_that_is_nearly_full_what_has_landed_is_removed_before_its_time);
	tcase_add_test(t, records_that_landed_and_were_lost_with_the_machine_are_no_hindrance);
	tcase_add_test(t, a_killed_database_loses_nothing_and_lands_nothing_twice);
	Suite *s = suite_create("replay");
	suite_add_tcase(s, t);
	SRunner *run = srunner_create(s);
	srunner_run_all(run, CK_NORMAL);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	mariadb_end(&server);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
