/*
 * campaign: the SQL log under fire. Four writers make 5,000 changes a second through the real log writer, a real dbwriter
 * lands them in a real MariaDB; writers, dbwriter and database are killed at random moments and at numbered failpoints,
 * stopped, lose their power, run into a full disk. Then all faults end, everything goes on by itself, and a checker
 * compares what was acknowledged with the tables: nothing missing, nothing twice, each account's changes in their order.
 *
 * Then the database is away for a while, and the load goes on.
 *
 * usage: campaign [SEED [ROUNDS]]        (CAMPAIGN_ROUNDS=24 CAMPAIGN_AWAY_S=4; `make soak`: 240 and 60)
 */
#include <check.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "common/env.h"
#include "common/sqllog.h"
#include "dbwriter/follow.h"
#include "tests/support/clock.h"
#include "tests/support/crash.h"
#include "tests/support/crash_synced.h"
#include "tests/support/folder.h"
#include "tests/support/mariadb.h"
#include "tests/support/ports.h"
#include "tests/support/sql.h"
#include "tests/support/suite.h"

enum { WRITERS = 4, ON_SMALL_DISK = 2, ANSWERS_WRITTEN = 3, SMALL_DISK_MIB = 64, MEMORY_MIB = 400 };

static unsigned setting(const char *name, unsigned otherwise)
{
	const char *text = getenv(name);
	return text ? (unsigned)atoi(text) : otherwise;
}

static void rest_ms(unsigned ms)
{
	const struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000l };
	nanosleep(&t, NULL);
}

/* ---- the world ---------------------------------------------------------------------------------------------------- */

struct writer {
	pid_t pid;
	bool met_full_disk; /* since it was started */
	char name[16], folder[200], ledger[200], log[200], synced[200];
};
struct world {
	struct mariadb db;
	struct sql *q;
	struct ports ports; /* of both dbwriters, whoever of them is away */
	char *dir, config[200];
	struct writer writer[WRITERS];
	pid_t dbwriter;
	uint16_t port;
	struct crash_random random;
	unsigned seed, kills, rounds, per_s;
	unsigned cuts, torn, stops, full, failpoints, seconds;
	uint64_t lost_bytes;
	bool small_disk;
	char wrong[300];
};
static struct world world;

static unsigned draw(struct world *w, unsigned below)
{
	return crash_draw(&w->random, below);
}

static bool wrong(struct world *w, const char *what, const char *which)
{
	if (!*w->wrong)
		snprintf(w->wrong, sizeof w->wrong, "%s: %s", which, what);
	return false;
}

/* ---- processes ---------------------------------------------------------------------------------------------------- */

static pid_t start(struct world *w, const char *program, char *const argv[], const char *failpoint)
{
	char log[240];
	snprintf(log, sizeof log, "%s/children.log", w->dir);
	pid_t pid = fork();
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
	dup2(fd, 1);
	dup2(fd, 2);
	if (failpoint)
		setenv("LOQUAT_FAILPOINT", failpoint, 1);
	execv(program, argv);
	_exit(127);
}

static void start_writer(struct world *w, unsigned i, const char *failpoint)
{
	struct writer *x = &w->writer[i];
	char number[16], rate[16];
	snprintf(number, sizeof number, "%u", i + 1);
	snprintf(rate, sizeof rate, "%u", w->per_s / WRITERS);
	char *argv[] = { (char[]){ "campaign" },
			 (char[]){ "write" },
			 x->name,
			 x->folder,
			 x->ledger,
			 x->log,
			 x->synced,
			 w->db.socket,
			 number,
			 rate,
			 i == ANSWERS_WRITTEN ? (char[]){ "written" } : NULL,
			 NULL };
	x->met_full_disk = false;
	x->pid = start(w, "/proc/self/exe", argv, failpoint);
}

static pid_t start_dbwriter(struct world *w, const char *id, const char *failpoint)
{
	char instance[16];
	snprintf(instance, sizeof instance, "%s", id);
	char *argv[] = {
		(char[]){ "dbwriter" }, (char[]){ "--config" }, w->config, (char[]){ "--instance" }, instance, NULL
	};
	return start(w, "build/bin/dbwriter", argv, failpoint);
}

/* Waits for its end, and brings it about when patience ends. */
static int end_of(pid_t *pid, unsigned patience_ms)
{
	int status = 0;
	for (uint64_t until = clock_ms() + patience_ms; waitpid(*pid, &status, WNOHANG) == 0; rest_ms(1))
		if (clock_ms() >= until) {
			kill(*pid, SIGKILL);
			waitpid(*pid, &status, 0);
			break;
		}
	*pid = 0;
	return status;
}

static bool killed(int status)
{
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

/* It died by SIGKILL, its own or ours; anything else is a fault. */
static bool reap(struct world *w, pid_t *pid, const char *which, unsigned patience_ms)
{
	return killed(end_of(pid, patience_ms)) || wrong(w, "ended by itself", which);
}

/* Who starts on a full disk cannot take its log over: it ends, and is started again. */
static bool found_no_room(const struct writer *x, int status)
{
	return x->met_full_disk && WIFEXITED(status) && WEXITSTATUS(status) == CRASH_NO_LOG;
}

static bool kill_writer(struct world *w, unsigned i)
{
	int status = end_of(&w->writer[i].pid, 0);
	w->kills++;
	return killed(status) || found_no_room(&w->writer[i], status) || wrong(w, "ended by itself", w->writer[i].name);
}

/* It runs: it did, or is started again. */
static bool is_supervised(struct world *w, unsigned i)
{
	struct writer *x = &w->writer[i];
	int status;
	if (waitpid(x->pid, &status, WNOHANG) == 0)
		return true;
	x->pid = 0;
	if (!found_no_room(x, status))
		return wrong(w, "ended by itself", x->name);
	start_writer(w, i, NULL);
	return true;
}

static bool kill_dbwriter(struct world *w)
{
	w->kills++;
	return reap(w, &w->dbwriter, "dbwriter", 0);
}

/* ---- faults -------------------------------------------------------------------------------------------------------- */

static bool writer_dies(struct world *w)
{
	unsigned i = draw(w, WRITERS);
	if (!kill_writer(w, i))
		return false;
	crash_tear(w->writer[i].folder, &w->random);
	w->torn++;
	start_writer(w, i, NULL);
	return true;
}

static bool dbwriter_dies(struct world *w)
{
	bool ok = kill_dbwriter(w);
	w->dbwriter = start_dbwriter(w, "dbwriter-1", NULL);
	return ok;
}

static bool database_dies(struct world *w)
{
	mariadb_signal(&w->db, SIGKILL);
	w->kills++;
	rest_ms(draw(w, 200));
	mariadb_again(&w->db);
	return true;
}

static bool dies_at_failpoint(struct world *w)
{
	static const char *const points[] = {
		"sqllog.before_write", "sqllog.after_write",     "sqllog.after_sync",
		crash_failpoint,       "dbwriter.before_commit", "dbwriter.after_commit"
	};
	unsigned which = w->failpoints++ % 6, i = draw(w, WRITERS);
	char text[64];
	snprintf(text, sizeof text, "%s:%u", points[which], 1 + draw(w, which == 3 ? 300 : 40));
	if (!(which < 4 ? kill_writer(w, i) : kill_dbwriter(w)))
		return false;
	if (which < 4) {
		start_writer(w, i, text);
		if (!reap(w, &w->writer[i].pid, w->writer[i].name, 1500))
			return false;
		start_writer(w, i, NULL);
	} else {
		w->dbwriter = start_dbwriter(w, "dbwriter-1", text);
		if (!reap(w, &w->dbwriter, "dbwriter", 1500))
			return false;
		w->dbwriter = start_dbwriter(w, "dbwriter-1", NULL);
	}
	w->kills++;
	return true;
}

static bool somebody_stops(struct world *w)
{
	unsigned who = draw(w, WRITERS + 2);
	pid_t pid = who < WRITERS ? w->writer[who].pid : who == WRITERS ? w->dbwriter : w->db.pid;
	kill(pid, SIGSTOP);
	rest_ms(20 + draw(w, draw(w, 4) ? 200 : 1500));
	kill(pid, SIGCONT);
	w->stops++;
	return true;
}

/* dbwriter stands still, so another one is started; then it goes on, and one of the two dies. */
static bool two_dbwriters(struct world *w)
{
	kill(w->dbwriter, SIGSTOP);
	pid_t second = start_dbwriter(w, "dbwriter-2", NULL);
	rest_ms(100 + draw(w, 400));
	kill(w->dbwriter, SIGCONT);
	rest_ms(draw(w, 300));
	w->stops++;
	bool ok = reap(w, &second, "the second dbwriter", 0);
	w->kills++;
	return ok && (draw(w, 2) || dbwriter_dies(w));
}

/* All of the host dies; of the logs what was not synced. Who answers what is only written loses what it answered. */
static bool power_is_cut(struct world *w)
{
	bool ok = kill_dbwriter(w);
	for (unsigned i = 0; ok && i < WRITERS; i++) {
		struct writer *x = &w->writer[i];
		if (i == ANSWERS_WRITTEN || (i == ON_SMALL_DISK && w->small_disk))
			continue;
		if (!kill_writer(w, i))
			return false;
		struct crash_synced s = crash_synced_read(x->synced);
		w->lost_bytes += crash_power_cut(x->folder, &s, &w->random);
	}
	w->cuts++;
	w->dbwriter = start_dbwriter(w, "dbwriter-1", NULL);
	for (unsigned i = 0; i < WRITERS; i++)
		if (!w->writer[i].pid)
			start_writer(w, i, NULL);
	return ok;
}

static unsigned failures_told(const struct writer *x)
{
	size_t bytes;
	unsigned n = 0;
	char *name = strrchr(x->log, '/') + 1, dir[200];
	snprintf(dir, sizeof dir, "%.*s", (int)(name - 1 - x->log), x->log);
	if (folder_size(dir, name) < 0)
		return 0;
	char *text = folder_read(dir, name, &bytes);
	for (char *p = text; (p = strstr(p, "sqllog.failing")); p++)
		n++;
	free(text);
	return n;
}

static bool disk_is_full(struct world *w)
{
	struct writer *x = &w->writer[ON_SMALL_DISK];
	char path[240];
	if (!w->small_disk)
		return true;
	unsigned before = failures_told(x);
	x->met_full_disk = true;
	snprintf(path, sizeof path, "%s/filler", x->folder);
	int fd = open(path, O_WRONLY | O_CREAT, 0600);
	off_t end = 0;
	for (off_t step = SMALL_DISK_MIB << 20; step; step /= 2)
		while (fallocate(fd, 0, end, step) == 0)
			end += step;
	close(fd);
	for (uint64_t until = clock_ms() + 1500; clock_ms() < until && failures_told(x) == before;)
		rest_ms(10);
	w->full += failures_told(x) > before;
	rest_ms(draw(w, 300));
	bool ok = draw(w, 2) || kill_writer(w, ON_SMALL_DISK); /* with a batch that could not be written */
	if (!x->pid && draw(w, 2)) {
		start_writer(w, ON_SMALL_DISK, NULL);
		x->met_full_disk = true;
		rest_ms(draw(w, 100));
	}
	unlink(path);
	if (!x->pid)
		start_writer(w, ON_SMALL_DISK, NULL);
	return ok;
}

static bool one_round(struct world *w, unsigned round)
{
	static bool (*const faults[])(struct world *) = {
		writer_dies,  dies_at_failpoint, dbwriter_dies,  power_is_cut,      writer_dies,   dies_at_failpoint,
		disk_is_full, database_dies,     somebody_stops, dies_at_failpoint, dbwriter_dies, two_dbwriters,
	};
	const unsigned n = sizeof faults / sizeof *faults;
	rest_ms(draw(w, w->rounds < 100 ? 150 : 1200));
	if (!is_supervised(w, ON_SMALL_DISK))
		return false;
	/* each kind once in n rounds, but in no order: twice in a row, or two at once, is part of it */
	return faults[(round * 5 + w->seed) % n](w) && (draw(w, 6) || faults[draw(w, n)](w));
}

/* ---- the beginning and the end -------------------------------------------------------------------------------------- */

static void write_configuration(struct world *w)
{
	char text[1200], home[200];
	snprintf(w->config, sizeof w->config, "%s/cluster.lua", w->dir);
	int n = snprintf(text, sizeof text,
			 "return { cluster = 'campaign', instances = {\n"
			 " { id = 'dbwriter-1', service = 'dbwriter', host = '127.0.0.1', rpc = %u, http = %u },\n"
			 " { id = 'dbwriter-2', service = 'dbwriter', host = '127.0.0.1', rpc = %u, http = %u } },\n"
			 " paths = { var = '%s' }, dbwriter = { keep_s = 2, poll_ms = 50 },\n"
			 " database = { socket = '%s' } }\n",
			 ports_hold(&w->ports), ports_hold(&w->ports), ports_hold(&w->ports), ports_hold(&w->ports),
			 w->dir, w->db.socket);
	folder_write(w->dir, "cluster.lua", text, (size_t)n);
	if (getcwd(home, sizeof home))
		setenv("LOQUAT_HOME", home, 0);
}

static bool mount_small_disk(const char *folder)
{
	char size[32];
	snprintf(size, sizeof size, "size=%dm", SMALL_DISK_MIB);
	return unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("none", folder, "tmpfs", 0, size) == 0;
}

static void make_accounts(struct world *w)
{
	sql_run(w->q, "CREATE DATABASE loquat; USE loquat");
	sql_file(w->q, "deploy/schema/001-base.sql");
	sql_run(w->q, crash_schema);
	for (unsigned i = 0; i < WRITERS; i++)
		for (unsigned j = 0; j < CRASH_ACCOUNTS; j++) {
			char sql[80];
			snprintf(sql, sizeof sql, "INSERT INTO account (id) VALUES (%u)", 1000 * (i + 1) + j);
			sql_run(w->q, sql);
		}
}

static void prepare(struct world *w, bool small_disk)
{
	mariadb_start(&w->db);
	w->dir = folder_new();
	w->random.state = w->seed * 0x9e3779b97f4a7c15u + 1;
	w->q = sql_open(w->db.socket, NULL);
	make_accounts(w);
	sql_close(w->q);
	write_configuration(w);
	char path[200];
	snprintf(path, sizeof path, "%s/sqllog", w->dir);
	mkdir(path, 0755);
	for (unsigned i = 0; i < WRITERS; i++) {
		struct writer *x = &w->writer[i];
		snprintf(x->name, sizeof x->name, "writer-%u", i + 1);
		snprintf(x->folder, sizeof x->folder, "%s/sqllog/%s", w->dir, x->name);
		snprintf(x->ledger, sizeof x->ledger, "%s/%s.ledger", w->dir, x->name);
		snprintf(x->log, sizeof x->log, "%s/%s.log", w->dir, x->name);
		snprintf(x->synced, sizeof x->synced, "%s/%s.synced", w->dir, x->name);
		mkdir(x->folder, 0755);
	}
	w->small_disk = small_disk && mount_small_disk(w->writer[ON_SMALL_DISK].folder);
	if (small_disk && !w->small_disk)
		printf("skip campaign: the full disk needs root\n");
}

static long acks_of(struct world *w, unsigned i)
{
	return folder_size(w->dir, strrchr(w->writer[i].ledger, '/') + 1) / 8;
}

/* No fault any more: every writer goes on by itself. */
static bool all_go_on(struct world *w)
{
	for (unsigned i = 0; i < WRITERS; i++) {
		long before = acks_of(w, i);
		/* it reads its accounts back, so it waits until what the faults have left has landed */
		for (uint64_t until = clock_ms() + 30000 + 3000 * w->rounds; acks_of(w, i) < before + 200; rest_ms(10))
			if (!is_supervised(w, i))
				return false;
			else if (clock_ms() > until)
				return wrong(w, "did not go on after the last fault", w->writer[i].name);
	}
	return true;
}

static bool stop_writers(struct world *w)
{
	for (unsigned i = 0; i < WRITERS; i++) {
		int status = -1;
		kill(w->writer[i].pid, SIGTERM);
		waitpid(w->writer[i].pid, &status, 0);
		w->writer[i].pid = 0;
		if (status)
			return wrong(w, "did not stop in order", w->writer[i].name);
	}
	return true;
}

static uint64_t last_lsn(const char *folder)
{
	char path[ENV_PATH_MAX], text[100] = "";
	unsigned long long lsn = 0;
	snprintf(path, sizeof path, "%s/clean", folder);
	FILE *f = fopen(path, "r");
	if (f && fgets(text, sizeof text, f))
		sscanf(text, "lsn=%llu", &lsn);
	if (f)
		fclose(f);
	return lsn;
}

static bool all_lands(struct world *w, unsigned *took_ms)
{
	uint64_t from = clock_ms();
	for (unsigned i = 0; i < WRITERS; i++) {
		int64_t last = (int64_t)last_lsn(w->writer[i].folder);
		char sql[100];
		snprintf(sql, sizeof sql, "SELECT lsn FROM loquat_replay WHERE instance = '%s'", w->writer[i].name);
		while (sql_int(w->q, sql) != last) {
			if (clock_ms() - from > 60000 + 3000 * w->rounds)
				return wrong(w, "its log does not land to its end", w->writer[i].name);
			rest_ms(5);
		}
	}
	*took_ms = (unsigned)(clock_ms() - from);
	return true;
}

static bool checks(struct world *w, unsigned drain_ms, unsigned least)
{
	const char *ledgers[WRITERS];
	struct crash_report r;
	for (unsigned i = 0; i < WRITERS; i++)
		ledgers[i] = w->writer[i].ledger;
	crash_check(w->db.socket, ledgers, WRITERS, &r);
	printf("   %u rounds, %u kills (%u at failpoints, %u power cuts that lost %llu bytes, %u torn tails), %u stops, %u full disks in %u s\n",
	       w->rounds, w->kills, w->failpoints, w->cuts, (unsigned long long)w->lost_bytes, w->torn, w->stops,
	       w->full, w->seconds);
	printf("   %llu changes acknowledged, %llu landed, %llu of them not acknowledged; the rest landed in %u ms (seed %u)\n",
	       (unsigned long long)r.acknowledged, (unsigned long long)r.landed, (unsigned long long)r.unacknowledged,
	       drain_ms, w->seed);
	if (r.faults)
		return wrong(w, r.first, "the check");
	if (folder_size(w->dir, "sqllog/quarantine.sql") != -1)
		return wrong(w, "a record was refused", "dbwriter");
	return r.acknowledged > least || wrong(w, "too few changes to show anything", "the load");
}

static bool run(struct world *w)
{
	unsigned drain_ms;
	uint64_t from = clock_ms();
	w->dbwriter = start_dbwriter(w, "dbwriter-1", NULL);
	for (unsigned i = 0; i < WRITERS; i++)
		start_writer(w, i, NULL);
	if (!all_go_on(w))
		return false;
	for (unsigned round = 0; round < w->rounds; round++)
		if (!one_round(w, round))
			return false;
	if (!all_go_on(w) || !stop_writers(w))
		return false;
	w->seconds = (unsigned)((clock_ms() - from) / 1000);
	w->q = sql_open(w->db.socket, "loquat");
	bool ok = all_lands(w, &drain_ms) && checks(w, drain_ms, 100 * w->rounds);
	sql_close(w->q);
	return ok;
}

static void tidy(struct world *w)
{
	char command[300];
	for (unsigned i = 0; i < WRITERS; i++)
		if (w->writer[i].pid)
			reap(w, &w->writer[i].pid, w->writer[i].name, 0);
	if (w->dbwriter)
		reap(w, &w->dbwriter, "dbwriter", 0);
	snprintf(command, sizeof command, "tail -n 20 %s/children.log", w->dir);
	if (*w->wrong && system(command))
		printf("(no log)\n");
	if (getenv("CAMPAIGN_KEEP"))
		return;
	if (w->small_disk)
		umount(w->writer[ON_SMALL_DISK].folder);
	ports_release(&w->ports);
	mariadb_end(&w->db);
	folder_free(w->dir);
}

START_TEST(whoever_is_killed_when_what_was_acknowledged_is_there_once_and_in_order)
{
	struct world *w = &world;
	prepare(w, true);
	run(w);
	tidy(w);
	ck_assert_msg(!*w->wrong, "%s; once more: build/tests/system/campaign %u %u", w->wrong, w->seed, w->rounds);
}
END_TEST

/* ---- the database is away ------------------------------------------------------------------------------------------ */

static long all_acks(struct world *w)
{
	long sum = 0;
	for (unsigned i = 0; i < WRITERS; i++)
		sum += acks_of(w, i);
	return sum;
}

static int by_size(const void *a, const void *b)
{
	unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
	return x < y ? -1 : x > y;
}

/* The median of windows of half a second: what else the machine does falls into few of them. */
static unsigned changes_per_s(struct world *w, unsigned ms)
{
	unsigned each[240], n = 0;
	for (; n < ms / 500 && n < 240; n++) {
		uint64_t from = clock_ms();
		long before = all_acks(w);
		rest_ms(500);
		each[n] = (unsigned)((uint64_t)(all_acks(w) - before) * 1000 / (clock_ms() - from));
	}
	qsort(each, n, sizeof *each, by_size);
	return each[n / 2];
}

static unsigned resident_mib(pid_t pid)
{
	char path[40];
	unsigned long total = 0, resident = 0;
	snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
	FILE *f = fopen(path, "r");
	if (f && fscanf(f, "%lu %lu", &total, &resident) != 2)
		resident = 0;
	if (f)
		fclose(f);
	return (unsigned)(resident * (unsigned long)sysconf(_SC_PAGESIZE) >> 20);
}

static unsigned resident_most(struct world *w)
{
	unsigned most = resident_mib(w->dbwriter);
	for (unsigned i = 0; i < WRITERS; i++)
		if (resident_mib(w->writer[i].pid) > most)
			most = resident_mib(w->writer[i].pid);
	return most;
}

/* How long changes waited for their acknowledgement so far, all writers together. */
static struct crash_waits waits_of(struct world *w)
{
	struct crash_waits sum = { 0 };
	for (unsigned i = 0; i < WRITERS; i++)
		crash_waits_add(&sum, w->writer[i].ledger);
	return sum;
}

/* While the load goes on: until no log is further ahead of its position than what comes in a moment. */
static bool catches_up(struct world *w, unsigned deadline_ms, unsigned *took_ms, unsigned *mib)
{
	struct env *env = env_new();
	uint64_t from = clock_ms();
	bool behind = true;
	while (behind && clock_ms() - from < deadline_ms) {
		behind = false;
		for (unsigned i = 0; i < WRITERS && !behind; i++) {
			char sql[100];
			snprintf(sql, sizeof sql, "SELECT lsn FROM loquat_replay WHERE instance = '%s'",
				 w->writer[i].name);
			int64_t last = (int64_t)follow_last_lsn(env, w->writer[i].folder);
			behind = sql_int(w->q, sql) + w->per_s / WRITERS < last;
		}
		unsigned now = resident_most(w);
		*mib = now > *mib ? now : *mib;
		rest_ms(20);
	}
	env_free(env);
	*took_ms = (unsigned)(clock_ms() - from);
	return !behind || wrong(w, "does not catch up", "dbwriter");
}

static bool go_without_database(struct world *w, unsigned away_s)
{
	unsigned took_ms = 0, drain_ms = 0, before = changes_per_s(w, 2000), mib = resident_most(w), mib_back = 0;
	struct crash_waits began = waits_of(w), went;
	mariadb_signal(&w->db, SIGKILL);
	unsigned during = changes_per_s(w, away_s * 1000), mib_then = resident_most(w);
	went = waits_of(w);
	struct crash_waited waited = crash_waited(&began, &went);
	mariadb_again(&w->db);
	w->q = sql_open(w->db.socket, "loquat");
	bool ok = catches_up(w, 60000 + away_s * 10000, &took_ms, &mib_back);
	printf("   %u changes/s with a database, %u without for %u s; caught up in %u ms under load; memory %u MiB, then %u, catching up %u at most\n",
	       before, during, away_s, took_ms, mib, mib_then, mib_back);
	printf("   without a database a caller waited %.1f ms (median), %.1f (p99), %.1f (longest), each at most\n",
	       waited.p50_ms, waited.p99_ms, waited.max_ms);
	fflush(stdout); /* it is the figure, also of one that fails */
	if (ok && during < before * 3 / 4)
		ok = wrong(w, "acknowledge less without a database", "writers");
	if (ok && waited.p99_ms > away_s * 500)
		ok = wrong(w, "wait for a database that is away", "callers");
	if (ok && mib_then > mib + 32)
		ok = wrong(w, "grows while the database is away", "memory");
	if (ok && mib_back > MEMORY_MIB)
		ok = wrong(w, "grows while dbwriter catches up", "memory");
	ok = ok && stop_writers(w) && all_lands(w, &drain_ms) && checks(w, drain_ms, w->per_s * away_s / 2);
	sql_close(w->q);
	return ok;
}

START_TEST(without_a_database_the_load_goes_on_memory_stays_bounded_and_the_lag_returns_to_zero)
{
	struct world *w = &world;
	unsigned away_s = setting("CAMPAIGN_AWAY_S", 4);
	if (away_s < 60) /* among other tests the database has no core to itself to make good with */
		w->per_s = w->per_s * 15 / 100;
	prepare(w, false);
	w->dbwriter = start_dbwriter(w, "dbwriter-1", NULL);
	for (unsigned i = 0; i < WRITERS; i++)
		start_writer(w, i, NULL);
	if (all_go_on(w))
		go_without_database(w, away_s);
	tidy(w);
	ck_assert_msg(!*w->wrong, "%s", w->wrong);
}
END_TEST

static int write_load(char **argv)
{
	struct crash_load load = { .instance = argv[0],
				   .folder = argv[1],
				   .ledger = argv[2],
				   .log = argv[3],
				   .socket = argv[5],
				   .writer = (unsigned)atoi(argv[6]),
				   .per_s = (unsigned)atoi(argv[7]),
				   .written = argv[8] != NULL };
	crash_synced_note(argv[4]);
	return crash_write(&load);
}

int main(int argc, char **argv)
{
	if (argc >= 10 && !strcmp(argv[1], "write"))
		return write_load(argv + 2);
	if (!mariadb_installed()) {
		printf("skip campaign mariadbd is not installed\n");
		return 0;
	}
	world.seed = argc > 1 ? (unsigned)atoi(argv[1]) : (unsigned)time(NULL) % 100000;
	world.rounds = argc > 2 ? (unsigned)atoi(argv[2]) : setting("CAMPAIGN_ROUNDS", 24);
	world.per_s = setting("CAMPAIGN_RATE", 5000);
	TCase *t = tcase_create("campaign");
	tcase_set_timeout(t, 0); /* its own deadlines end it, and tests/run.sh */
	tcase_add_test(t, whoever_is_killed_when_what_was_acknowledged_is_there_once_and_in_order);
	if (argc < 2)
		tcase_add_test(t, without_a_database_the_load_goes_on_memory_stays_bounded_and_the_lag_returns_to_zero);
	return suite_run("campaign", t);
}
