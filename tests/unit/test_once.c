/* The server's half of once-calls: what it promises, one by one. The callers': test_once_client.c; both over a bad network: tests/sim/once.c. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/once.h"
#include "tests/support/suite.h"

#define LEASE_MS 1000

static struct once_server *server;
static struct once_result result;
static uint64_t now_ms;

static void begin(bool stored, size_t bytes_max)
{
	now_ms = 1;
	server = once_server_new(
		&(struct once_options){ .stored = stored, .lease_ms = LEASE_MS, .bytes_max = bytes_max });
}

static void setup_memory(void)
{
	begin(false, 0);
}

static void setup_stored(void)
{
	begin(true, 0);
}

static void teardown(void)
{
	once_server_free(server);
}

static struct span text(const char *s)
{
	return span_of(s, strlen(s));
}

/* The call seq of client "a" with a fingerprint of its own; key "": by its number alone. */
static struct once_call a_call(uint64_t seq, const char *key)
{
	return (struct once_call){
		.owner = text("role/p1"),
		.method = text("roleRemote.grant"),
		.key = text(key),
		.client = text("a-1/0/17"),
		.seq = seq,
		.first_incomplete = 1,
		.fingerprint = 100 + seq,
	};
}

static enum once_verdict ask(struct once_call c)
{
	return once_ask(server, &c, now_ms, &result);
}

/* Its end: answered with this. */
static void answer(struct once_call c, const char *with)
{
	ck_assert_int_eq(ask(c), ONCE_RUN);
	once_done(server, result.entry, false, text(with));
}

static void ck_answer(const char *expected)
{
	ck_assert_uint_eq(result.answer.n, strlen(expected));
	ck_assert_mem_eq(result.answer.p, expected, result.answer.n);
}

/* What the database has of the owner: nothing, or a business key of this hash. */
static void load(uint64_t hash)
{
	struct once_owner *o = result.owner;

	if (hash)
		once_load_row(server, o, hash, text(""), 0, now_ms);
	once_loaded(server, o, true);
}

static uint64_t hash_of_key(struct once_call c)
{
	struct once_row row;

	ck_assert_int_eq(ask(c), ONCE_RUN);
	once_row(result.entry, &row);
	uint64_t hash = row.hash;

	once_gone(server, result.entry);
	return hash;
}

/* ---- asking ---------------------------------------------------------------------------------------------------------- */

START_TEST(a_new_call_runs_and_its_repeat_gets_the_first_answer)
{
	answer(a_call(1, ""), "gold: 90");
	ck_assert_int_eq(ask(a_call(1, "")), ONCE_DONE);
	ck_answer("gold: 90");
	answer(a_call(2, "order-17"), "gold: 80");
	struct once_call other = a_call(9, "order-17"); /* from elsewhere, with the same body */

	other.client = text("b-1/0/18");
	other.fingerprint = a_call(2, "").fingerprint;
	ck_assert_int_eq(ask(other), ONCE_DONE);
	ck_answer("gold: 80");
	ck_assert_uint_eq(once_figures(server)->repeats, 2);
}
END_TEST

START_TEST(the_same_key_at_another_owner_or_method_is_another_call)
{
	struct once_call c = a_call(1, "order-17");

	answer(c, "one");
	c.owner = text("role/p2");
	c.seq = 2;
	answer(c, "two");
	c.method = text("roleRemote.take");
	c.seq = 3;
	answer(c, "three");
}
END_TEST

static int told;
static void on_told(struct once_waiter *self)
{
	(void)self;
	told++;
}

START_TEST(a_repeat_waits_while_the_first_runs_and_is_told_of_its_end)
{
	struct once_waiter waiter = { .fn = on_told }, gone = { .fn = on_told }, last = { .fn = on_told };

	told = 0;
	ck_assert_int_eq(ask(a_call(1, "")), ONCE_RUN);
	struct once_entry *e = result.entry;

	ck_assert_int_eq(ask(a_call(1, "")), ONCE_WAIT);
	once_wait(result.waiters, &waiter);
	once_wait(result.waiters, &gone);
	once_leave(&gone);
	once_wait(result.waiters, &last);
	ck_assert_int_eq(told, 0);
	once_done(server, e, false, text("yes"));
	ck_assert_int_eq(told, 2);
	ck_assert_int_eq(ask(a_call(1, "")), ONCE_DONE);
}
END_TEST

START_TEST(a_key_or_a_number_with_another_body_is_refused)
{
	struct once_call c = a_call(1, "order-17"), same = a_call(2, "");

	answer(c, "yes");
	c.seq = 3;
	c.fingerprint++;
	ck_assert_int_eq(ask(c), ONCE_REUSED);
	answer(same, "yes");
	same.fingerprint++;
	ck_assert_int_eq(ask(same), ONCE_REUSED);
	ck_assert_uint_eq(once_figures(server)->refused, 2);
}
END_TEST

/* ---- many calls, owners and clients ------------------------------------------------------------------------------------------ */

enum { AT_ONCE = 300, NUMBERS = 20000 };
static enum { NEW, RUNS, STORED, REFUSED } state_of[NUMBERS + AT_ONCE];
static struct once_entry *entry_of[NUMBERS + AT_ONCE];

static struct once_call numbered(uint64_t seq, uint64_t first)
{
	struct once_call c = a_call(seq, "");

	c.first_incomplete = first;
	return c;
}

/* Short ones lie behind their method, long ones in a block of their own. */
static struct span answer_of(uint64_t seq, char *room)
{
	size_t n = seq % 5 ? seq % 110 : 500 + seq % 100;

	memset(room, 'a' + (int)(seq % 26), n);
	return span_of(room, n);
}

static void check_known(uint64_t seq, uint64_t first)
{
	char expected[700];
	struct span want = answer_of(seq, expected);
	enum once_verdict verdict = ask(numbered(seq, first));

	if (seq < first) {
		ck_assert_int_eq(verdict, ONCE_FORGOTTEN);
	} else if (state_of[seq] == RUNS) {
		ck_assert_int_eq(verdict, ONCE_WAIT);
	} else if (state_of[seq] == REFUSED) {
		ck_assert_int_eq(verdict, ONCE_REFUSED);
	} else {
		ck_assert_int_eq(verdict, ONCE_DONE);
		ck_assert(result.answer.n == want.n && !memcmp(result.answer.p, want.p, want.n));
	}
}

static void end_somehow(uint64_t seq)
{
	char room[700];

	if (state_of[seq] != RUNS)
		return;
	state_of[seq] = seq % 7 ? STORED : REFUSED;
	if (seq % 7)
		once_done(server, entry_of[seq], false, answer_of(seq, room));
	else
		once_refused(server, entry_of[seq], ERR_DENIED, EFFECT_NONE, text("no"));
}

/*
 * Up to 300 at once: begun, ended and acknowledged in any order, also before they end, singly and in leaps; the places of
 * the server's table come round some 40 times and it grows on the way.
 */
START_TEST(calls_end_and_are_acknowledged_in_any_order)
{
	uint64_t first = 1, top = 0;

	memset(state_of, 0, sizeof state_of);
	srand(11);
	while (top < NUMBERS) {
		for (int n = rand() % 40; n > 0 && top - first + 1 < AT_ONCE; n--) {
			top++;
			ck_assert_int_eq(ask(numbered(top, first)), ONCE_RUN);
			entry_of[top] = result.entry;
			state_of[top] = RUNS;
		}
		for (int n = rand() % 60; n > 0 && top >= first; n--)
			end_somehow(first + (uint64_t)rand() % (top - first + 1));
		if (rand() % 3 == 0)
			first += (uint64_t)rand() % (rand() % 10 ? 8 : AT_ONCE);
		if (first > top)
			first = top + 1;
		for (int n = rand() % 6; n > 0 && top > 0; n--)
			check_known(top - (uint64_t)rand() % (top < 2 * AT_ONCE ? top : 2 * AT_ONCE), first);
	}
	for (uint64_t seq = 1; seq <= top; seq++)
		end_somehow(seq); /* below first, too: they ran when they were given up */
	ck_assert_int_eq(ask(numbered(top + 1, top + 1)), ONCE_RUN);
	once_gone(server, result.entry);
	ck_assert_uint_eq(once_figures(server)->running, 0);
	ck_assert_uint_eq(once_figures(server)->stored, 0);
	ck_assert_uint_eq(once_figures(server)->bytes, 0);
}
END_TEST

/* Few calls have a small table, where numbers far apart stand at one place. */
START_TEST(numbers_at_one_place_are_acknowledged_one_by_one)
{
	for (uint64_t seq = 1; seq <= 4 * 1024 + 1; seq += 1024)
		answer(numbered(seq, 1), "yes");
	for (uint64_t first = 2; first <= 4 * 1024 + 1; first += first % 1024 == 1 ? 1 : 1023) {
		ck_assert_int_eq(ask(numbered(4 * 1024 + 1, first)), ONCE_DONE);
		for (uint64_t seq = 1; seq < 4 * 1024; seq += 1024)
			ck_assert_int_eq(ask(numbered(seq, first)), seq < first ? ONCE_FORGOTTEN : ONCE_DONE);
	}
}
END_TEST

/* As far as its window goes, and one call that stays: its place is another's, too, each time round. */
START_TEST(the_oldest_call_of_a_full_window_is_still_known)
{
	struct once_call oldest = numbered(1, 1);

	answer(oldest, "the first");
	for (uint64_t seq = 2; seq <= ONCE_WINDOW; seq++)
		answer(numbered(seq, 1), "x");
	ck_assert_uint_eq(once_figures(server)->stored, ONCE_WINDOW);
	ck_assert_int_eq(ask(oldest), ONCE_DONE);
	ck_answer("the first");
	answer(numbered(ONCE_WINDOW + 1, ONCE_WINDOW + 1), "y"); /* all of them at once */
	ck_assert_uint_eq(once_figures(server)->stored, 1);
	ck_assert_uint_eq(once_figures(server)->forgotten, ONCE_WINDOW);
	ck_assert_int_eq(ask(oldest), ONCE_FORGOTTEN);
}
END_TEST

/* Names of each length that differ in one byte: owners, methods, clients. */
START_TEST(names_that_are_nearly_alike_are_not_taken_for_each_other)
{
	for (size_t n = 1; n <= 70; n++)
		for (size_t at = 0; at < n; at++) {
			char a[80], b[80];
			struct once_call c = a_call(1, "order-17"), numbered_call = a_call(1, "");

			memset(a, 'n', n);
			memcpy(b, a, n);
			b[at] = 'm';
			c.client = span_of("", 0);
			c.seq = 0;
			c.owner = c.method = numbered_call.client = span_of(a, n);
			if (at == 0) {
				answer(c, "a");
				answer(numbered_call, "a");
			}
			ck_assert_int_eq(ask(c), ONCE_DONE);
			c.owner = span_of(b, n);
			answer(c, "b");
			c.owner = span_of(a, n);
			c.method = span_of(b, n);
			answer(c, "b");
			numbered_call.client = span_of(b, n);
			answer(numbered_call, "b");
		}
}
END_TEST

/* ---- the ends ----------------------------------------------------------------------------------------------------------- */

START_TEST(what_changed_nothing_and_told_nobody_may_run_again)
{
	ck_assert_int_eq(ask(a_call(1, "")), ONCE_RUN);
	once_gone(server, result.entry);
	ck_assert_int_eq(ask(a_call(1, "")), ONCE_RUN);
	once_gone(server, result.entry);
	ck_assert_uint_eq(once_figures(server)->running, 0);
}
END_TEST

START_TEST(an_error_that_was_told_is_remembered_for_its_call_and_not_for_its_key)
{
	ck_assert_int_eq(ask(a_call(1, "order-17")), ONCE_RUN);
	once_refused(server, result.entry, ERR_DENIED, EFFECT_NONE, text("too little gold"));
	ck_assert_int_eq(ask(a_call(1, "order-17")), ONCE_REFUSED); /* an earlier attempt that comes late */
	ck_assert_int_eq(result.err, ERR_DENIED);
	ck_answer("too little gold");
	answer(a_call(2, "order-17"), "now it does");
	ck_assert_int_eq(ask(a_call(3, "")), ONCE_RUN);
	once_refused(server, result.entry, ERR_DENIED, EFFECT_NONE, text("too little gold"));
	ck_assert_int_eq(ask(a_call(3, "")), ONCE_REFUSED);
}
END_TEST

/* ---- forgetting ------------------------------------------------------------------------------------------------------------ */

START_TEST(an_acknowledged_number_is_forgotten_and_never_runs_again)
{
	answer(a_call(1, ""), "yes");
	struct once_call next = a_call(2, "");

	next.first_incomplete = 2;
	answer(next, "yes");
	ck_assert_uint_eq(once_figures(server)->forgotten, 1);
	ck_assert_int_eq(ask(a_call(1, "")), ONCE_FORGOTTEN);
	ck_assert_int_eq(ask(next), ONCE_DONE);
}
END_TEST

START_TEST(what_is_acknowledged_while_it_runs_goes_at_its_end)
{
	ck_assert_int_eq(ask(a_call(1, "")), ONCE_RUN);
	struct once_entry *e = result.entry;
	struct once_call next = a_call(2, "");

	next.first_incomplete = 2; /* the first was given up */
	answer(next, "yes");
	ck_assert_uint_eq(once_figures(server)->forgotten, 0);
	once_done(server, e, false, text("late"));
	ck_assert_uint_eq(once_figures(server)->forgotten, 1);
	ck_assert_int_eq(ask(a_call(1, "")), ONCE_FORGOTTEN);
}
END_TEST

START_TEST(a_silent_client_s_numbers_go_after_its_lease_and_no_sooner_and_business_keys_stay)
{
	answer(a_call(1, ""), "yes");
	answer(a_call(2, "order-17"), "kept");
	now_ms += LEASE_MS - 1;
	ck_assert(once_tick(server, now_ms));
	ck_assert_uint_eq(once_figures(server)->forgotten, 0);
	now_ms++;
	once_tick(server, now_ms);
	ck_assert_uint_eq(once_figures(server)->forgotten, 1);
	ck_assert(!once_tick(server, now_ms)); /* no client is left */
	ck_assert_int_eq(ask(a_call(2, "order-17")), ONCE_DONE);
	ck_answer("kept");
}
END_TEST

START_TEST(a_client_is_known_while_one_of_its_calls_runs_however_long)
{
	struct once_call c = a_call(5, "order-17");

	ck_assert_int_eq(ask(c), ONCE_RUN);
	struct once_entry *e = result.entry;

	now_ms += 2 * LEASE_MS;
	ck_assert(once_tick(server, now_ms));
	once_refused(server, e, ERR_DENIED, EFFECT_NONE, text("too late"));
	ck_assert_int_eq(ask(c), ONCE_REFUSED);
	ck_answer("too late");
}
END_TEST

/* ---- with a database ----------------------------------------------------------------------------------------------------- */

START_TEST(an_owner_is_loaded_before_anything_old_is_judged)
{
	ck_assert_int_eq(ask(a_call(1, "")), ONCE_RUN); /* never sent before: it is new, whatever the database has */
	once_gone(server, result.entry);
	struct once_call again = a_call(2, "");

	again.attempt = 1;
	ck_assert_int_eq(ask(again), ONCE_LOAD);
	struct once_owner *o = result.owner;

	ck_assert_int_eq(ask(a_call(3, "order-17")), ONCE_WAIT); /* one reads for all */
	once_loaded(server, o, false);
	ck_assert_int_eq(ask(again), ONCE_LOAD); /* it could not be read: nothing runs */
	once_load_row(server, result.owner, 0, again.client, 2, now_ms);
	once_loaded(server, result.owner, true);
	ck_assert_int_eq(ask(again), ONCE_READ); /* it was answered before */
	once_read(server, result.entry, again.fingerprint, false, text("yes"));
	ck_assert_int_eq(ask(again), ONCE_DONE);
	ck_answer("yes");
	ck_assert_int_eq(ask(a_call(3, "order-17")), ONCE_RUN);
	once_gone(server, result.entry);
}
END_TEST

static bool nothing_is_kept(const void *arg, uint64_t key_hash)
{
	(void)arg, (void)key_hash;
	return false;
}

/* Others have answered meanwhile. */
static void load_again_with(uint64_t hash, struct once_call c)
{
	once_unload(server, nothing_is_kept, NULL);
	ck_assert_int_eq(ask(c), ONCE_LOAD);
	load(hash);
	ck_assert_int_eq(ask(c), ONCE_READ);
}

START_TEST(what_is_read_while_others_answer_is_not_believed)
{
	struct once_call c = a_call(1, "order-17");

	ck_assert_int_eq(ask(c), ONCE_LOAD);
	struct once_owner *o = result.owner;

	once_unload(server, nothing_is_kept, NULL);
	once_loaded(server, o, true);
	ck_assert_int_eq(ask(c), ONCE_LOAD);
	load(0);
	ck_assert_int_eq(ask(c), ONCE_RUN);
	once_gone(server, result.entry);
}
END_TEST

START_TEST(a_row_without_a_fingerprint_is_answered_to_any_body)
{
	struct once_call c = a_call(1, "order-17"), other = a_call(2, "order-17");

	ck_assert_int_eq(ask(c), ONCE_LOAD);
	load(0);
	load_again_with(hash_of_key(c), c);
	once_read(server, result.entry, 0, false, text("kept"));
	ck_assert_int_eq(ask(c), ONCE_DONE);
	ck_assert_int_eq(ask(other), ONCE_DONE);
	ck_answer("kept");
}
END_TEST

START_TEST(a_stored_key_is_read_back_and_its_body_compared)
{
	struct once_call c = a_call(1, "order-17"), other = a_call(2, "order-17");

	ck_assert_int_eq(ask(c), ONCE_LOAD);
	load(0);
	uint64_t hash = hash_of_key(c);

	load_again_with(hash, c);
	once_read(server, result.entry, c.fingerprint, false, text("kept"));
	ck_assert_int_eq(ask(c), ONCE_DONE);
	ck_answer("kept");
	ck_assert_int_eq(ask(other), ONCE_REUSED);
}
END_TEST

START_TEST(a_key_whose_row_is_another_s_is_new)
{
	struct once_call c = a_call(1, "order-17");

	ck_assert_int_eq(ask(c), ONCE_LOAD);
	load(0);
	uint64_t hash = hash_of_key(c);

	once_unload(server, nothing_is_kept, NULL);
	ck_assert_int_eq(ask(c), ONCE_LOAD);
	load(hash);
	ck_assert_int_eq(ask(c), ONCE_READ);
	once_read_failed(server, result.entry, true);
	answer(c, "yes");
}
END_TEST

START_TEST(who_is_lost_runs_again_only_when_the_owner_was_loaded_anew)
{
	ck_assert_int_eq(ask(a_call(1, "")), ONCE_RUN);
	once_lost(server, result.entry); /* its record may be there or not */
	ck_assert_int_eq(ask(a_call(1, "")), ONCE_LOAD);
	load(0);
	answer(a_call(1, ""), "yes");
}
END_TEST

START_TEST(acknowledged_rows_are_told_to_be_deleted_once)
{
	struct once_forget f;

	ck_assert_int_eq(ask(a_call(1, "")), ONCE_RUN);
	struct once_entry *first = result.entry;

	ck_assert(!once_forget(server, first, 1, &f));
	once_done(server, first, false, text("yes"));
	answer(a_call(2, ""), "yes");
	struct once_call next = a_call(3, "");

	next.first_incomplete = 3;
	ck_assert_int_eq(ask(next), ONCE_RUN);
	struct once_entry *e = result.entry;

	ck_assert(!once_forget(server, e, 3, &f));
	ck_assert(once_forget(server, e, 2, &f));
	ck_assert_uint_eq(f.below, 3);
	ck_assert_uint_eq(f.client.n, strlen("a-1/0/17"));
	ck_assert_mem_eq(f.client.p, "a-1/0/17", f.client.n);
	ck_assert(!once_forget(server, e, 1, &f));
	once_done(server, e, false, text("yes"));
}
END_TEST

/* ---- memory ---------------------------------------------------------------------------------------------------------------- */

static void setup_small(void)
{
	begin(true, 64 << 10);
}

START_TEST(answers_leave_memory_when_it_is_full_and_their_keys_stay_known)
{
	enum { KEYS = 500 };
	char key[16];

	ck_assert_int_eq(ask(a_call(1, "")), ONCE_RUN);
	once_gone(server, result.entry);
	ck_assert_int_eq(ask(a_call(1, "k")), ONCE_LOAD);
	load(0);
	for (uint64_t i = 1; i <= KEYS; i++) {
		struct once_call c = a_call(i, key);

		snprintf(key, sizeof(key), "order-%u", (unsigned)i);
		c.key = text(key);
		c.first_incomplete = i;
		now_ms += 200; /* what was just used stays a moment */
		answer(c, "yes");
	}
	ck_assert_uint_le(once_figures(server)->bytes, (64 << 10) + 1024);
	ck_assert_uint_eq(once_figures(server)->stored, KEYS);
	struct once_call first = a_call(KEYS + 1, "order-1");

	first.fingerprint = a_call(1, "").fingerprint;
	first.first_incomplete = KEYS + 1;
	ck_assert_int_eq(ask(first), ONCE_READ); /* never run again */
	once_read(server, result.entry, first.fingerprint, false, text("yes"));
	ck_assert_int_eq(ask(first), ONCE_DONE);
}
END_TEST

static enum once_verdict know(unsigned owner)
{
	char name[24];

	snprintf(name, sizeof(name), "role/p%u", owner);
	return once_know(server, text(name), now_ms, &result);
}

/* So many business keys are in the database. */
static void loaded_with(struct once_owner *o, uint64_t keys)
{
	for (uint64_t hash = 1; hash <= keys; hash++)
		once_load_row(server, o, hash * 0x9e3779b97f4a7c15u, text(""), 0, now_ms);
	once_loaded(server, o, true);
}

static void know_with(unsigned owner, uint64_t keys)
{
	ck_assert_int_eq(know(owner), ONCE_LOAD);
	loaded_with(result.owner, keys);
}

START_TEST(of_owners_who_was_used_longest_ago_goes_first)
{
	enum { KEYS = 700 }; /* 8 KiB of 64 */

	for (unsigned i = 0; i < 7; i++) {
		now_ms += 1000;
		know_with(i, KEYS);
	}
	now_ms += 1000;
	ck_assert_int_eq(know(0), ONCE_DONE);
	know_with(7, KEYS); /* one too many */
	now_ms += 1000;
	ck_assert_int_eq(know(0), ONCE_DONE);
	ck_assert_int_eq(know(1), ONCE_LOAD);
	once_loaded(server, result.owner, false);
	ck_assert_uint_le(once_figures(server)->bytes, 64 << 10);
}
END_TEST

START_TEST(owners_that_were_just_used_stay_however_full_the_memory_is)
{
	enum { KEYS = 700 };

	for (unsigned i = 0; i < 7; i++)
		know_with(i, KEYS);
	now_ms += 1000;
	for (unsigned i = 0; i < 7; i++)
		ck_assert_int_eq(know(i), ONCE_DONE);
	know_with(7, KEYS);
	now_ms += 50;
	for (unsigned i = 0; i < 8; i++)
		ck_assert_int_eq(know(i), ONCE_DONE);
}
END_TEST

START_TEST(an_owner_whose_load_took_long_is_there_for_who_waits)
{
	now_ms = 1000;
	ck_assert_int_eq(know(0), ONCE_LOAD);
	struct once_owner *o = result.owner;

	now_ms = 1500;
	know_with(1, 0);
	loaded_with(o, 10000); /* more than there is room for */
	now_ms = 1550;
	ck_assert_int_eq(know(0), ONCE_DONE);
	now_ms = 2000;
	ck_assert_int_eq(know(0), ONCE_LOAD);
	once_loaded(server, result.owner, false);
}
END_TEST

START_TEST(an_answer_that_was_just_used_stays_and_the_others_go)
{
	char large[70000];
	struct once_call c = a_call(1, "large"), small = a_call(2, "small");

	memset(large, 'x', sizeof(large) - 1);
	large[sizeof(large) - 1] = '\0';
	ck_assert_int_eq(ask(c), ONCE_LOAD);
	load(0);
	answer(c, large);
	answer(small, "yes");
	ck_assert_int_eq(ask(c), ONCE_DONE);
	now_ms += 1000;
	ck_assert_int_eq(ask(c), ONCE_READ); /* it was not used for long */
	once_read(server, result.entry, c.fingerprint, false, text(large));
	now_ms += 50;
	ck_assert_int_eq(ask(c), ONCE_DONE); /* just read */
	now_ms += 90;
	ck_assert_int_eq(ask(c), ONCE_DONE); /* just asked for */
	ck_assert_int_eq(ask(small), ONCE_READ);
	once_read(server, result.entry, small.fingerprint, false, text("yes"));
	now_ms += 1000;
	ck_assert_int_eq(ask(small), ONCE_DONE); /* the large one was used before it: it goes, and that is enough */
	ck_assert_uint_le(once_figures(server)->bytes, 64 << 10);
}
END_TEST

START_TEST(an_answer_that_is_used_again_lets_older_ones_go_before_it)
{
	char half[30000];
	struct once_call first = a_call(1, "1"), second = a_call(2, "2"), third = a_call(3, "3");

	memset(half, 'x', sizeof(half) - 1);
	half[sizeof(half) - 1] = '\0';
	ck_assert_int_eq(ask(first), ONCE_LOAD);
	load(0);
	answer(first, half);
	answer(second, half);
	now_ms += 1000;
	ck_assert_int_eq(ask(first), ONCE_DONE);
	answer(third, half);
	now_ms += 50;
	ck_assert_int_eq(ask(first), ONCE_DONE);
	ck_assert_int_eq(ask(second), ONCE_READ);
	once_read_failed(server, result.entry, false);
	ck_assert_int_eq(ask(third), ONCE_DONE);
}
END_TEST

int main(void)
{
	TCase *memory = tcase_create("memory"), *stored = tcase_create("stored"), *small = tcase_create("small");

	tcase_add_checked_fixture(memory, setup_memory, teardown);
	tcase_add_checked_fixture(stored, setup_stored, teardown);
	tcase_add_checked_fixture(small, setup_small, teardown);
	tcase_set_timeout(memory, 60);
	tcase_add_test(memory, calls_end_and_are_acknowledged_in_any_order);
	tcase_add_test(memory, numbers_at_one_place_are_acknowledged_one_by_one);
	tcase_add_test(memory, the_oldest_call_of_a_full_window_is_still_known);
	tcase_add_test(memory, names_that_are_nearly_alike_are_not_taken_for_each_other);
	tcase_add_test(memory, a_new_call_runs_and_its_repeat_gets_the_first_answer);
	tcase_add_test(memory, the_same_key_at_another_owner_or_method_is_another_call);
	tcase_add_test(memory, a_repeat_waits_while_the_first_runs_and_is_told_of_its_end);
	tcase_add_test(memory, a_key_or_a_number_with_another_body_is_refused);
	tcase_add_test(memory, what_changed_nothing_and_told_nobody_may_run_again);
	tcase_add_test(memory, an_error_that_was_told_is_remembered_for_its_call_and_not_for_its_key);
	tcase_add_test(memory, an_acknowledged_number_is_forgotten_and_never_runs_again);
	tcase_add_test(memory, what_is_acknowledged_while_it_runs_goes_at_its_end);
	tcase_add_test(memory, a_silent_client_s_numbers_go_after_its_lease_and_no_sooner_and_business_keys_stay);
	tcase_add_test(memory, a_client_is_known_while_one_of_its_calls_runs_however_long);
	tcase_add_test(stored, what_is_read_while_others_answer_is_not_believed);
	tcase_add_test(stored, an_owner_is_loaded_before_anything_old_is_judged);
	tcase_add_test(stored, a_row_without_a_fingerprint_is_answered_to_any_body);
	tcase_add_test(stored, a_stored_key_is_read_back_and_its_body_compared);
	tcase_add_test(stored, a_key_whose_row_is_another_s_is_new);
	tcase_add_test(stored, who_is_lost_runs_again_only_when_the_owner_was_loaded_anew);
	tcase_add_test(stored, acknowledged_rows_are_told_to_be_deleted_once);
	tcase_add_test(small, answers_leave_memory_when_it_is_full_and_their_keys_stay_known);
	tcase_add_test(small, of_owners_who_was_used_longest_ago_goes_first);
	tcase_add_test(small, owners_that_were_just_used_stay_however_full_the_memory_is);
	tcase_add_test(small, an_owner_whose_load_took_long_is_there_for_who_waits);
	tcase_add_test(small, an_answer_that_was_just_used_stays_and_the_others_go);
	tcase_add_test(small, an_answer_that_is_used_again_lets_older_ones_go_before_it);
	return suite_run("once", memory, stored, small);
}
