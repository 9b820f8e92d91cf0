/* When a copy is landed by who keeps it, and which of its files may go: dbwriter/replay_stream.c, by a clock of the test's. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "dbwriter/replay_private.h"
#include "tests/support/folder.h"
#include "tests/support/records.h"
#include "tests/support/suite.h"

#define STANDBY_MS 5000
#define START_MS   777000 /* by a clock that does not begin with us */

static struct env *env;
static struct loop loop;
static struct replay r;
static struct stream s;
static char *dir;

static void setup(void)
{
	char path[420];
	env = env_new();
	dir = folder_new();
	loop.env = env;
	loop.now_ms = START_MS;
	r.loop = &loop;
	r.o.standby_ms = STANDBY_MS;
	r.o.keep_s = 1000000;
	s.replay = &r;
	snprintf(s.name, sizeof s.name, "role-1");
	snprintf(s.folder, sizeof s.folder, "%s/role-1", dir);
	ck_assert_int_eq(env_dir_make(env, s.folder), 0);
	snprintf(path, sizeof path, "%s/log", dir);
	ck_assert_int_eq(log_open(env, "dbwriter-2", path, LOG_DEBUG, &r.log), 0);
	follow_init(&s.follow, env, s.folder, (struct position){ 0 });
}

static void teardown(void)
{
	follow_release(&s.follow);
	follow_release(&s.scrub);
	log_close(r.log);
	folder_free(dir);
	env_free(env);
}

static bool takes_over(uint64_t after_ms, uint64_t lsn)
{
	loop.now_ms += after_ms;
	return stream_takes_over(&s, (struct position){ 1, lsn });
}

/* ---- whose turn it is --------------------------------------------------------------------------------------------- */

START_TEST(a_position_that_stands_still_is_taken_over_when_its_time_is_full)
{
	records_file(s.folder, 1, 1, 9, 1);
	ck_assert(!takes_over(0, 0)); /* however long it may have stood before */
	ck_assert(!takes_over(STANDBY_MS - 1, 0));
	ck_assert(takes_over(1, 0));
}
END_TEST

START_TEST(somebody_who_lands_slowly_is_not_overtaken)
{
	records_file(s.folder, 1, 1, 9, 1);
	ck_assert(!takes_over(0, 1));
	for (uint64_t lsn = 2; lsn < 8; lsn++)
		ck_assert(!takes_over(STANDBY_MS - 1, lsn));
	ck_assert(!takes_over(STANDBY_MS - 1, 7));
	ck_assert(takes_over(1, 7));
}
END_TEST

START_TEST(what_comes_after_a_rest_gives_its_host_the_whole_time)
{
	records_file(s.folder, 1, 1, 9, 1);
	ck_assert(!takes_over(0, 9));
	ck_assert(!takes_over(10 * STANDBY_MS, 9)); /* nothing to land */
	records_file(s.folder, 2, 10, 10, 1);
	ck_assert(!takes_over(STANDBY_MS - 1, 9));
	ck_assert(takes_over(1, 9));
}
END_TEST

START_TEST(who_has_landed_all_there_was_waits_anew)
{
	records_file(s.folder, 1, 1, 9, 1);
	ck_assert(!takes_over(0, 5));
	ck_assert(takes_over(STANDBY_MS, 5));
	stream_doubt(&s);
	ck_assert(!takes_over(0, 5));
	ck_assert(!takes_over(STANDBY_MS - 1, 5));
	ck_assert(takes_over(1, 5));
}
END_TEST

START_TEST(a_position_is_asked_for_now_and_then)
{
	ck_assert(stream_asks(&s));
	ck_assert(!stream_asks(&s));
	loop.now_ms += STANDBY_MS / 4 - 1;
	ck_assert(!stream_asks(&s));
	loop.now_ms++;
	ck_assert(stream_asks(&s));
	r.o.standby_ms = 0; /* the own logs are not waited for */
	ck_assert(stream_asks(&s) && stream_asks(&s));
}
END_TEST

/* ---- files that may go -------------------------------------------------------------------------------------------- */

static unsigned files(void)
{
	uint32_t *numbers;
	size_t n;
	ck_assert_int_eq(sqllog_list(env, s.folder, &numbers, &n), 0);
	free(numbers);
	return (unsigned)n;
}

static void look(uint64_t landed)
{
	s.landed = (struct position){ 1, landed };
	loop.now_ms += 10000;
	stream_look(&s, loop.now_ms);
}

static void four_files(void)
{
	for (unsigned i = 1; i <= 4; i++)
		records_file(s.folder, i, 10 * i + 1, 10 * i + 10, 1);
	r.o.low_bytes = UINT64_MAX; /* so all that may go does */
}

START_TEST(of_a_copy_what_others_have_landed_goes_and_what_has_not_stays)
{
	four_files();
	look(29); /* the 30 of the second file has not */
	ck_assert_uint_eq(files(), 4);
	look(41);
	ck_assert_uint_eq(files(), 2); /* the last of what has landed shows how the log goes on */
	ck_assert_int_ge(folder_size(s.folder, "replayed"), 1);
	ck_assert_int_eq(folder_size(s.folder, "00000002.sql"), -1);
}
END_TEST

/* Without the note its writer would take what is gone for missing. */
START_TEST(what_has_landed_stays_while_that_cannot_be_noted)
{
	char path[500];
	four_files();
	look(15);
	snprintf(path, sizeof path, "%s/replayed", s.folder);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(mkdir(path, 0755), 0);
	look(41);
	look(45);
	ck_assert_uint_eq(files(), 4);
	ck_assert_int_eq(rmdir(path), 0);
	look(46);
	ck_assert_uint_eq(files(), 2);
}
END_TEST

/* ---- reading it through -------------------------------------------------------------------------------------------- */

static unsigned told;

static void on_damaged(void *arg, const char *instance, uint32_t file, struct position landed)
{
	(void)arg, (void)landed;
	ck_assert_str_eq(instance, "role-1");
	ck_assert_uint_eq(file, 1);
	told++;
}

/* Record 2,500 of the first file is damaged; what has landed is told to be up to an lsn. */
static void rotten(uint64_t landed)
{
	size_t n;
	records_file(s.folder, 1, 1, 3000, 1);
	records_file(s.folder, 2, 3001, 3100, 1);
	char *bytes = folder_read(s.folder, "00000001.sql", &n);
	strstr(bytes, "gold = 2500 ")[7] ^= 1;
	folder_write(s.folder, "00000001.sql", bytes, n);
	free(bytes);
	r.o.on_damaged = on_damaged;
	told = 0;
	ck_assert(!takes_over(0, landed));
}

static void scrub(unsigned looks)
{
	for (; looks; looks--, loop.now_ms += 500)
		stream_scrub(&s, loop.now_ms);
}

START_TEST(damage_is_told_as_long_as_it_is_there)
{
	rotten(100);
	scrub(1); /* it reads slowly */
	ck_assert_uint_eq(told, 0);
	scrub(1);
	ck_assert(told == 1 && s.counts.stopped);
	scrub(100);
	ck_assert_uint_gt(told, 1);
	records_file(s.folder, 1, 1, 3000, 1);
	scrub(100);
	ck_assert(!s.counts.stopped);
	told = 0;
	scrub(200); /* of a sound one nobody is told */
	ck_assert(!told && !s.counts.stopped);
}
END_TEST

START_TEST(what_lands_while_it_is_read_is_no_damage)
{
	rotten(100);
	scrub(1);
	ck_assert(!takes_over(0, 3050)); /* the next file has it */
	scrub(200);
	ck_assert(!told && !s.counts.stopped);
}
END_TEST

START_TEST(damage_before_the_position_counts_while_its_file_is_the_one_that_would_be_read)
{
	rotten(100);
	scrub(1);
	ck_assert(!takes_over(0, 2800));
	scrub(1);
	ck_assert(told && s.counts.stopped);
}
END_TEST

START_TEST(before_its_position_is_known_nothing_is_read)
{
	rotten(100);
	s.asked = false; /* the database is away since the start, say: what is there may have landed */
	scrub(10);
	ck_assert(!told && !s.counts.stopped);
}
END_TEST

START_TEST(while_it_lands_here_nothing_else_reads_it)
{
	rotten(100);
	s.known = true;
	scrub(10);
	ck_assert(!told && !s.counts.stopped);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("replay_standby");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, a_position_that_stands_still_is_taken_over_when_its_time_is_full);
	tcase_add_test(t, somebody_who_lands_slowly_is_not_overtaken);
	tcase_add_test(t, what_comes_after_a_rest_gives_its_host_the_whole_time);
	tcase_add_test(t, who_has_landed_all_there_was_waits_anew);
	tcase_add_test(t, a_position_is_asked_for_now_and_then);
	tcase_add_test(t, of_a_copy_what_others_have_landed_goes_and_what_has_not_stays);
	tcase_add_test(t, what_has_landed_stays_while_that_cannot_be_noted);
	tcase_add_test(t, damage_is_told_as_long_as_it_is_there);
	tcase_add_test(t, what_lands_while_it_is_read_is_no_damage);
	tcase_add_test(t, damage_before_the_position_counts_while_its_file_is_the_one_that_would_be_read);
	tcase_add_test(t, before_its_position_is_known_nothing_is_read);
	tcase_add_test(t, while_it_lands_here_nothing_else_reads_it);
	return suite_run("replay_standby", t);
}
