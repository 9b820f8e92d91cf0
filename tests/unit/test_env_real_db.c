/* The promises of common/env.h about the database, against a private MariaDB. */
#include <check.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/buf.h"
#include "common/env.h"
#include "common/err.h"
#include "tests/support/flag.h"
#include "tests/support/mariadb.h"
#include "tests/support/on_loop.h"
#include "tests/support/suite.h"

static struct mariadb server; /* started once, before the tests fork */
static struct env *env;
static struct loop *loop;
static struct env_db *db;
static struct flag done;
static int opened;

/* The last result, kept as text: "cell,cell|cell,NULL". */
static struct env_db_result last;
static struct buf cells, message;

static void on_open(void *arg, int err)
{
	(void)arg;
	opened = err;
	buf_clear(&message);
	buf_addstr(&message, env_db_message(db));
	flag_raise(&done);
}

static void on_result(void *arg, const struct env_db_result *r)
{
	(void)arg;
	last = *r;
	buf_clear(&cells);
	buf_clear(&message);
	buf_addstr(&message, r->message);
	for (unsigned i = 0; i < r->rows * r->columns; i++) {
		if (i)
			buf_addch(&cells, i % r->columns ? ',' : '|');
		if (r->cells[i])
			buf_add(&cells, r->cells[i], r->cell_bytes[i]);
		else
			buf_addstr(&cells, "NULL");
	}
	flag_raise(&done);
}

static void open_at(void *arg)
{
	struct env_db_options o = { .socket = arg, .user = "root", .database = "" };
	unsigned long before = flag_count(&done);
	ck_assert_int_eq(env_db_open(loop->ev, &o, on_open, NULL, &db), 0);
	ck_assert_uint_eq(flag_count(&done), before); /* never from inside */
}

static void open_socket(char *socket)
{
	unsigned long before = flag_count(&done);
	on_loop(loop, open_at, socket);
	ck_assert(flag_wait(&done, before + 1));
}

static void ask_text(void *arg)
{
	const char *sql = arg;
	unsigned long before = flag_count(&done);
	ck_assert_int_eq(env_db_query(db, sql, strlen(sql), on_result, NULL), 0);
	ck_assert_uint_eq(flag_count(&done), before);
}

static void ask(const char *sql)
{
	unsigned long before = flag_count(&done);
	on_loop(loop, ask_text, (void *)sql);
	ck_assert(flag_wait(&done, before + 1));
}

static void expect(const char *sql, const char *text)
{
	ask(sql);
	ck_assert_msg(last.err == 0, "%s: %s", sql, buf_cstr(&message));
	ck_assert_str_eq(buf_cstr(&cells), text);
}

static void setup(void)
{
	mariadb_signal(&server, SIGCONT); /* a test that failed may have left it stopped: it had no teardown */
	env = env_new();
	loop = on_loop_new(env, "db");
	flag_init(&done);
	open_socket(server.socket);
	ck_assert_int_eq(opened, 0);
	ask("DROP DATABASE IF EXISTS t; CREATE DATABASE t CHARACTER SET utf8mb4; USE t;"
	    "CREATE TABLE gold (id INT PRIMARY KEY, n INT, note VARBINARY(100)) ENGINE=InnoDB;"
	    "INSERT INTO gold VALUES (1, 100, NULL), (2, 200, 'two')");
	ck_assert_msg(last.err == 0, "%s", buf_cstr(&message));
}

static void close_db(void *arg)
{
	(void)arg;
	env_db_close(db);
	db = NULL;
}

static void teardown(void)
{
	on_loop(loop, close_db, NULL);
	on_loop_free(loop);
	buf_release(&cells);
	buf_release(&message);
	env_free(env);
}

START_TEST(rows_come_back_as_texts_with_null_told_apart)
{
	expect("SELECT id, n, note FROM gold ORDER BY id", "1,100,NULL|2,200,two");
	ck_assert_uint_eq(last.rows, 2);
	ck_assert_uint_eq(last.columns, 3);
	expect("SELECT id FROM gold WHERE id > 5", "");
	ck_assert_uint_eq(last.rows, 0);
	ck_assert_uint_eq(last.columns, 1);
}
END_TEST

START_TEST(bytes_and_any_unicode_text_survive)
{
	static const char want[] = "\0\xff',渠道 🎲,F09F8EB2";
	ask("SELECT x'00ff27', '渠道 🎲', HEX('🎲')");
	ck_assert_uint_eq(cells.len, sizeof want - 1);
	ck_assert_mem_eq(cells.data, want, sizeof want - 1);
}
END_TEST

START_TEST(a_change_says_how_many_rows_it_affected)
{
	ask("UPDATE gold SET n = n - 10");
	ck_assert_int_eq(last.err, 0);
	ck_assert_uint_eq(last.affected, 2);
	ck_assert_uint_eq(last.rows, 0);
}
END_TEST

START_TEST(several_statements_run_in_order_and_the_last_rows_are_kept)
{
	expect("BEGIN; UPDATE gold SET n = 7 WHERE id = 1; SELECT 'first'; SELECT n FROM gold WHERE id = 1; COMMIT;",
	       "7");
	ask("ROLLBACK");
	expect("SELECT n FROM gold WHERE id = 1", "7");
}
END_TEST

START_TEST(the_first_failing_statement_is_named_and_those_after_it_do_not_run)
{
	ask("BEGIN; UPDATE gold SET n = 7 WHERE id = 1; INSERT INTO gold VALUES (1, 1, ''); UPDATE gold SET n = 8; COMMIT");
	ck_assert_int_eq(last.err, ERR_FAILED);
	ck_assert_uint_eq(last.code, 1062);
	ck_assert_uint_eq(last.failed_at, 2);
	ck_assert_ptr_nonnull(strstr(buf_cstr(&message), "Duplicate"));
	expect("SELECT n FROM gold WHERE id = 1", "7"); /* the transaction is still open: the caller's to end */
	ask("ROLLBACK");
	expect("SELECT n FROM gold ORDER BY id", "100|200");
}
END_TEST

START_TEST(the_connection_goes_on_after_a_refused_statement)
{
	ask("SELEKT 1");
	ck_assert_int_eq(last.err, ERR_FAILED);
	ck_assert_uint_eq(last.code, 1064);
	ck_assert_uint_eq(last.failed_at, 0);
	expect("SELECT 1", "1");
}
END_TEST

static void ask_twice(void *arg)
{
	ask_text(arg);
	ck_assert_int_eq(env_db_query(db, "SELECT 2", 8, on_result, NULL), ERR_BUSY);
}

START_TEST(a_second_question_while_one_runs_is_refused)
{
	unsigned long before = flag_count(&done);
	on_loop(loop, ask_twice, "SELECT 1");
	ck_assert(flag_wait(&done, before + 1));
	ck_assert_str_eq(buf_cstr(&cells), "1");
}
END_TEST

static void ask_again(void *arg, const struct env_db_result *r)
{
	on_result(arg, r);
	ask_text("SELECT 'again'");
}

static void ask_with_follow_up(void *arg)
{
	ck_assert_int_eq(env_db_query(db, arg, strlen(arg), ask_again, NULL), 0);
}

START_TEST(the_next_question_may_be_asked_in_the_callback)
{
	unsigned long before = flag_count(&done);
	on_loop(loop, ask_with_follow_up, "SELECT 1");
	ck_assert(flag_wait(&done, before + 2));
	ck_assert_str_eq(buf_cstr(&cells), "again");
}
END_TEST

static void close_inside(void *arg, const struct env_db_result *r)
{
	env_db_close(db);
	db = NULL;
	ck_assert_str_eq(r->cells[0], "1"); /* still valid */
	on_result(arg, &(struct env_db_result){ .message = "" });
}

static void ask_then_close(void *arg)
{
	ck_assert_int_eq(env_db_query(db, arg, strlen(arg), close_inside, NULL), 0);
}

START_TEST(the_handle_may_be_closed_in_the_callback)
{
	unsigned long before = flag_count(&done);
	on_loop(loop, ask_then_close, "SELECT 1");
	ck_assert(flag_wait(&done, before + 1));
}
END_TEST

static void ask_and_close(void *arg)
{
	ask_text(arg);
	close_db(NULL);
}

START_TEST(no_callback_comes_after_closing_and_the_server_is_not_waited_for)
{
	unsigned long before = flag_count(&done);
	on_loop(loop, ask_and_close, "SELECT SLEEP(5)");
	on_loop_turns(loop);
	ck_assert_uint_eq(flag_count(&done), before);
}
END_TEST

static void ask_much_then_close(void *arg)
{
	struct buf *sql = arg;
	ck_assert_int_eq(env_db_query(db, sql->data, sql->len, on_result, NULL), 0);
	close_db(NULL);
}

START_TEST(closing_beside_a_frozen_server_does_not_block_the_worker)
{
	struct buf sql = BUF_INIT; /* more than the socket takes: a goodbye behind it would block */
	memset(buf_reserve(&sql, 8 << 20), ' ', 8 << 20);
	sql.len = 8 << 20;
	mariadb_signal(&server, SIGSTOP);
	on_loop(loop, ask_much_then_close, &sql);
	mariadb_signal(&server, SIGCONT);
	buf_release(&sql);
}
END_TEST

START_TEST(a_large_statement_and_a_large_answer_are_whole)
{
	struct buf sql = BUF_INIT;
	enum { BYTES = 3 << 20 };
	buf_addstr(&sql, "SELECT CONCAT('x', '");
	memset(buf_reserve(&sql, BYTES), 'y', BYTES);
	sql.len += BYTES;
	buf_addstr(&sql, "')");
	ask(buf_cstr(&sql));
	ck_assert_int_eq(last.err, 0);
	ck_assert_uint_eq(cells.len, BYTES + 1);
	ck_assert_int_eq(cells.data[BYTES], 'y');
	buf_release(&sql);
}
END_TEST

START_TEST(many_rows_are_all_there)
{
	ask("SELECT seq, 'text' FROM seq_1_to_20000");
	if (last.err == ERR_FAILED) /* a server without the sequence engine */
		return;
	ck_assert_uint_eq(last.rows, 20000);
	ck_assert_uint_eq(last.columns, 2);
}
END_TEST

static void ask_refused(void *arg)
{
	(void)arg;
	ck_assert_int_eq(env_db_query(db, "SELECT 1", 8, on_result, NULL), ERR_UNAVAILABLE);
}

START_TEST(a_server_that_is_not_there_is_unavailable_with_its_reason)
{
	on_loop(loop, close_db, NULL);
	open_socket("/tmp/no/such/socket");
	ck_assert_int_eq(opened, ERR_UNAVAILABLE);
	ck_assert_ptr_nonnull(strstr(buf_cstr(&message), "/tmp/no/such/socket"));
	on_loop(loop, ask_refused, NULL);
}
END_TEST

/* Another thread's descriptors while the server is away: none of them may be closed under it. */
static _Atomic bool opening;
static unsigned stolen;

static void *open_and_look(void *arg)
{
	(void)arg;
	while (opening) {
		int fd[16];
		for (int i = 0; i < 16; i++)
			fd[i] = eventfd(0, EFD_CLOEXEC);
		for (int i = 0; i < 16; i++)
			if (close(fd[i]) < 0)
				stolen++;
	}
	return NULL;
}

START_TEST(a_server_that_is_not_there_costs_nobody_a_descriptor)
{
	pthread_t other;

	opening = true;
	ck_assert_int_eq(pthread_create(&other, NULL, open_and_look, NULL), 0);
	for (int i = 0; i < 1000; i++) {
		on_loop(loop, close_db, NULL);
		open_socket("/tmp/no/such/socket");
	}
	opening = false;
	pthread_join(other, NULL);
	ck_assert_uint_eq(stolen, 0);
}
END_TEST

START_TEST(a_lost_connection_is_unavailable_and_stays_so)
{
	ask("KILL CONNECTION_ID()");
	ck_assert_int_eq(last.err, ERR_UNAVAILABLE);
	on_loop(loop, ask_refused, NULL);
	on_loop(loop, close_db, NULL);
	open_socket(server.socket);
	expect("SELECT n FROM t.gold WHERE id = 2", "200");
}
END_TEST

int main(void)
{
	if (!mariadb_installed()) {
		printf("skip env_real_db mariadbd is not installed\n");
		return EXIT_SUCCESS;
	}
	mariadb_start(&server);
	TCase *t = tcase_create("db");
	tcase_set_timeout(t, 30);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, rows_come_back_as_texts_with_null_told_apart);
	tcase_add_test(t, bytes_and_any_unicode_text_survive);
	tcase_add_test(t, a_change_says_how_many_rows_it_affected);
	tcase_add_test(t, several_statements_run_in_order_and_the_last_rows_are_kept);
	tcase_add_test(t, the_first_failing_statement_is_named_and_those_after_it_do_not_run);
	tcase_add_test(t, the_connection_goes_on_after_a_refused_statement);
	tcase_add_test(t, a_second_question_while_one_runs_is_refused);
	tcase_add_test(t, the_next_question_may_be_asked_in_the_callback);
	tcase_add_test(t, the_handle_may_be_closed_in_the_callback);
	tcase_add_test(t, no_callback_comes_after_closing_and_the_server_is_not_waited_for);
	tcase_add_test(t, closing_beside_a_frozen_server_does_not_block_the_worker);
	tcase_add_test(t, a_large_statement_and_a_large_answer_are_whole);
	tcase_add_test(t, many_rows_are_all_there);
	tcase_add_test(t, a_server_that_is_not_there_is_unavailable_with_its_reason);
	tcase_add_test(t, a_server_that_is_not_there_costs_nobody_a_descriptor);
	tcase_add_test(t, a_lost_connection_is_unavailable_and_stays_so);
	int failed = suite_run("env_real_db", t);
	mariadb_end(&server);
	return failed;
}
