#include "tests/support/landing.h"
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "tests/support/folder.h"
#include "tests/support/on_loop.h"
#include "tests/support/records.h"
#include "tests/support/suite.h"

void landing_setup(struct landing *t)
{
	char path[400];
	mariadb_signal(&t->server, SIGCONT); /* a test that failed may have left it stopped: it had no teardown */
	t->env = env_new();
	t->dir = folder_new();
	t->loop = on_loop_new(t->env, "worker");
	t->second_loop = on_loop_new(t->env, "second");
	snprintf(path, sizeof path, "%s/log", t->dir);
	ck_assert_int_eq(log_open(t->env, "dbwriter-1", path, LOG_DEBUG, &t->log), 0);
	for (int i = 0; i < 2; i++) {
		snprintf(t->folder[i], sizeof t->folder[i], "%s/role-%d", t->dir, i + 1);
		mkdir(t->folder[i], 0755);
	}
	t->q = sql_open(t->server.socket, NULL);
	sql_run(t->q, "DROP DATABASE IF EXISTS loquat; CREATE DATABASE loquat; USE loquat");
	t->replay = t->second = NULL;
	t->options = (struct replay_options){
		.folder = t->dir,
		.keep_s = 1000,
		.poll_ms = 50,
		.db = { .socket = t->server.socket, .user = "root", .password = "", .database = "loquat" }
	};
}

void landing_tables(struct landing *t)
{
	sql_file(t->q, "deploy/schema/001-base.sql");
	sql_run(t->q, "INSERT INTO role (id, uid, name, gold) VALUES (1, 'a', 'Anna', 0), (2, 'b', 'Berta', 0)");
}

static void start_now(void *arg)
{
	struct landing *t = arg;
	t->replay = replay_new(t->loop, t->log, &t->options);
}

static void start_second_now(void *arg)
{
	struct landing *t = arg;
	t->second = replay_new(t->second_loop, t->log, &t->options);
}

static void end_now(void *arg)
{
	replay_free(*(struct replay **)arg);
	*(struct replay **)arg = NULL;
}

void landing_start(struct landing *t)
{
	on_loop(t->loop, start_now, t);
}

void landing_start_second(struct landing *t)
{
	on_loop(t->second_loop, start_second_now, t);
}

void landing_end(struct landing *t)
{
	on_loop(t->loop, end_now, &t->replay);
}

void landing_teardown(struct landing *t)
{
	landing_end(t);
	on_loop(t->second_loop, end_now, &t->second);
	on_loop_free(t->loop);
	on_loop_free(t->second_loop);
	sql_close(t->q);
	log_close(t->log);
	folder_free(t->dir);
	env_free(t->env);
}

static bool logged(struct landing *t, const char *words)
{
	size_t n;
	char *text = folder_read(t->dir, "log", &n);
	bool found = strstr(text, words);
	free(text);
	return found;
}

void landing_until(struct landing *t, bool (*fn)(void *arg), void *arg, const char *what)
{
	for (int i = 0; i < 12000; i++) {
		if (fn(arg))
			return;
		usleep(5000);
	}
	size_t n;
	ck_abort_msg("never: %s; the log:\n%s", what, folder_read(t->dir, "log", &n));
}

struct words {
	struct landing *landing;
	const char *words;
};

static bool is_logged(void *arg)
{
	const struct words *w = arg;
	return logged(w->landing, w->words);
}

void landing_until_logged(struct landing *t, const char *words)
{
	struct words w = { t, words };
	landing_until(t, is_logged, &w, words);
}

struct place { /* of a log */
	struct landing *landing;
	int number;
	int64_t lsn;
	bool told;
};

static bool in_database(void *arg)
{
	const struct place *p = arg;
	char text[120];
	snprintf(text, sizeof text, "SELECT lsn FROM loquat_replay WHERE instance = 'role-%d'", p->number);
	return sql_int(p->landing->q, text) == p->lsn;
}

static void look(void *arg, const char *instance, const struct replay_figures *f)
{
	struct place *p = arg;
	char name[20];
	snprintf(name, sizeof name, "role-%d", p->number);
	p->told |= !strcmp(instance, name) && (int64_t)f->lsn == p->lsn;
}

/* The answer to COMMIT comes after everybody can see the rows. */
static bool in_figures(void *arg)
{
	struct place *p = arg;
	replay_each(p->landing->replay, look, p);
	return p->told;
}

static void nothing(void *arg)
{
	(void)arg;
}

void landing_until_landed(struct landing *t, int number, int64_t lsn)
{
	struct place p = { t, number, lsn, false };
	landing_until(t, in_database, &p, "landed");
	landing_until(t, in_figures, &p, "told as landed");
	on_loop(t->loop, nothing, NULL);
}

struct replay_figures landing_now(struct landing *t)
{
	struct replay_figures f;
	replay_figures(t->replay, &f);
	return f;
}

void landing_adding(const char *to, unsigned number, uint64_t first, uint64_t last, uint64_t epoch)
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

int64_t landing_sum_to(int64_t n)
{
	return n * (n + 1) / 2;
}

int64_t landing_gold(struct landing *t)
{
	return sql_int(t->q, "SELECT gold FROM role WHERE id = 1");
}

/* ---- a program of such tests ------------------------------------------------------------------------------- */

static struct landing *current; /* Check's fixtures take no argument */

static void usual_setup(void)
{
	landing_setup(current);
	landing_tables(current);
}

static void usual_teardown(void)
{
	landing_teardown(current);
}

int landing_main_tests(struct landing *t, const char *name, void (*setup)(void), void (*teardown)(void),
		       const TTest *const *tests)
{
	if (!mariadb_installed()) {
		printf("skip %s mariadbd is not installed\n", name);
		return EXIT_SUCCESS;
	}
	mariadb_start(&t->server);
	current = t;
	TCase *cases = tcase_create(name);
	tcase_set_timeout(cases, 50);
	tcase_add_checked_fixture(cases, setup ? setup : usual_setup, teardown ? teardown : usual_teardown);
	for (; *tests; tests++)
		tcase_add_test(cases, *tests);
	int failed = suite_run(name, cases);
	mariadb_end(&t->server);
	return failed;
}
