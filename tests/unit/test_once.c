/* Once-calls: what each half promises, one by one. tests/sim/once.c puts them together over a bad network. */
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

/* ---- the client's half ------------------------------------------------------------------------------------------- */

START_TEST(numbers_begin_at_1_and_the_first_incomplete_one_waits_for_the_oldest)
{
	struct once_client c = { 0 };

	ck_assert_uint_eq(once_client_first(&c), 1);
	for (uint64_t i = 1; i <= 5; i++)
		ck_assert_uint_eq(once_client_begin(&c), i);
	once_client_end(&c, 2);
	once_client_end(&c, 3);
	ck_assert_uint_eq(once_client_first(&c), 1);
	once_client_end(&c, 1);
	ck_assert_uint_eq(once_client_first(&c), 4);
	once_client_release(&c);
}
END_TEST

START_TEST(a_client_whose_window_is_full_gets_no_number_until_the_oldest_has_ended)
{
	struct once_client c = { 0 };

	for (uint64_t i = 1; i <= ONCE_WINDOW; i++)
		ck_assert_uint_eq(once_client_begin(&c), i);
	once_client_end(&c, 2);
	ck_assert_uint_eq(once_client_begin(&c), 0);
	once_client_end(&c, 1);
	ck_assert_uint_eq(once_client_first(&c), 3);
	ck_assert_uint_eq(once_client_begin(&c), ONCE_WINDOW + 1);
	once_client_release(&c);
}
END_TEST

/* The one that is left is alone in its word, and was given out last. */
START_TEST(the_last_number_given_out_may_be_the_first_incomplete_one)
{
	struct once_client c = { 0 };

	for (uint64_t i = 1; i <= 128; i++)
		ck_assert_uint_eq(once_client_begin(&c), i);
	for (uint64_t i = 2; i < 128; i++)
		once_client_end(&c, i);
	once_client_end(&c, 1);
	ck_assert_uint_eq(once_client_first(&c), 128);
	once_client_end(&c, 128);
	ck_assert_uint_eq(once_client_first(&c), 129);
	once_client_release(&c);
}
END_TEST

/* Three times around the window, with up to the whole of it under way. */
START_TEST(the_first_incomplete_number_is_what_a_plain_list_says)
{
	static bool open[4 * ONCE_WINDOW];
	struct once_client c = { 0 };
	uint64_t first = 1, top = 0;

	srand(7);
	while (top < 3 * ONCE_WINDOW) {
		for (int n = rand() % 500; n > 0; n--) {
			uint64_t seq = once_client_begin(&c);

			ck_assert(seq == (top - first + 1 < ONCE_WINDOW ? top + 1 : 0));
			if (seq)
				open[top = seq] = true;
		}
		for (int n = rand() % 500; n > 0 && first <= top; n--) {
			uint64_t seq = rand() % 4 ? first : first + (uint64_t)rand() % (top - first + 1);

			if (open[seq])
				once_client_end(&c, seq);
			open[seq] = false;
			while (first <= top && !open[first])
				first++;
			ck_assert_uint_eq(once_client_first(&c), first);
		}
	}
	once_client_release(&c);
}
END_TEST

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
	struct once_waiter waiter = { .fn = on_told }, gone = { .fn = on_told };

	told = 0;
	ck_assert_int_eq(ask(a_call(1, "")), ONCE_RUN);
	struct once_entry *e = result.entry;

	ck_assert_int_eq(ask(a_call(1, "")), ONCE_WAIT);
	once_wait(result.waiters, &waiter);
	once_wait(result.waiters, &gone);
	once_leave(&gone);
	ck_assert_int_eq(told, 0);
	once_done(server, e, false, text("yes"));
	ck_assert_int_eq(told, 1);
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

/* ---- fingerprints ---------------------------------------------------------------------------------------------------------- */

/* The database has such numbers: these are what it was when they were first written. */
START_TEST(a_fingerprint_is_the_same_on_every_machine_and_for_ever)
{
	static const struct {
		size_t n;
		uint64_t expected;
	} of[] = {
		{ 0, 0x13925a6f41f9e5aa },   { 1, 0x5092627e90b09e3d },  { 7, 0x3ba9d50e2352b458 },
		{ 8, 0xde53311bd0443e75 },   { 15, 0xf73e2513b0e0a077 }, { 16, 0xb428d57f8fcba0c0 },
		{ 17, 0xa3a81b20f9c7f607 },  { 33, 0x9752050ff25454d9 }, { 48, 0x3680a63ee2700262 },
		{ 49, 0xa8a61165bad88b1c },  { 50, 0x008152e4ea83840b }, { 97, 0x2e1037dc685b0b1d },
		{ 200, 0x0ad4bd6b31a8858c },
	};
	char bytes[200];

	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (char)(i * 37 + 200);
	for (size_t i = 0; i < sizeof of / sizeof *of; i++)
		ck_assert_uint_eq(once_fingerprint(0, bytes, of[i].n), of[i].expected);
	ck_assert_uint_eq(once_fingerprint(once_fingerprint(0, "shop.buy", 8), bytes, 50), 0x00f5d5aba387b9f8);
}
END_TEST

/* Each length has a block of its own, so that the sanitizer sees who reads beyond it. */
START_TEST(each_bit_and_the_length_make_another_fingerprint)
{
	uint64_t of_shorter = 0;

	for (size_t n = 0; n <= 160; n++) {
		unsigned char *p = calloc(1, n ? n : 1);
		uint64_t of_zeroes = once_fingerprint(0, p, n);

		ck_assert_uint_ne(of_zeroes, of_shorter);
		ck_assert_uint_ne(of_zeroes, once_fingerprint(1, p, n));
		of_shorter = of_zeroes;
		for (size_t bit = 0; bit < n * 8; bit++) {
			p[bit / 8] ^= (unsigned char)(1u << bit % 8);
			ck_assert_uint_ne(once_fingerprint(0, p, n), of_zeroes);
			p[bit / 8] = 0;
		}
		free(p);
	}
}
END_TEST

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Requests that differ in a small number alone, wherever it stands. */
START_TEST(like_requests_have_different_fingerprints)
{
	enum { N = 20000 };
	static uint64_t of[N];

	for (size_t at = 0; at < 70; at += 7) {
		char bytes[74] = "";

		for (uint32_t i = 0; i < N; i++) {
			memcpy(bytes + at, &i, 4);
			of[i] = once_fingerprint(0, bytes, sizeof bytes);
		}
		qsort(of, N, sizeof *of, by_number);
		for (size_t i = 1; i < N; i++)
			ck_assert_uint_ne(of[i], of[i - 1]);
	}
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

int main(void)
{
	TCase *client = tcase_create("client"), *memory = tcase_create("memory"), *stored = tcase_create("stored"),
	      *small = tcase_create("small");

	tcase_add_checked_fixture(memory, setup_memory, teardown);
	tcase_add_checked_fixture(stored, setup_stored, teardown);
	tcase_add_checked_fixture(small, setup_small, teardown);
	tcase_set_timeout(client, 60);
	tcase_set_timeout(memory, 60);
	tcase_add_test(client, numbers_begin_at_1_and_the_first_incomplete_one_waits_for_the_oldest);
	tcase_add_test(client, a_client_whose_window_is_full_gets_no_number_until_the_oldest_has_ended);
	tcase_add_test(client, the_last_number_given_out_may_be_the_first_incomplete_one);
	tcase_add_test(client, the_first_incomplete_number_is_what_a_plain_list_says);
	tcase_add_test(client, a_fingerprint_is_the_same_on_every_machine_and_for_ever);
	tcase_add_test(client, each_bit_and_the_length_make_another_fingerprint);
	tcase_add_test(client, like_requests_have_different_fingerprints);
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
	tcase_add_test(stored, an_owner_is_loaded_before_anything_old_is_judged);
	tcase_add_test(stored, a_row_without_a_fingerprint_is_answered_to_any_body);
	tcase_add_test(stored, a_stored_key_is_read_back_and_its_body_compared);
	tcase_add_test(stored, a_key_whose_row_is_another_s_is_new);
	tcase_add_test(stored, who_is_lost_runs_again_only_when_the_owner_was_loaded_anew);
	tcase_add_test(stored, acknowledged_rows_are_told_to_be_deleted_once);
	tcase_add_test(small, answers_leave_memory_when_it_is_full_and_their_keys_stay_known);
	return suite_run("once", client, memory, stored, small);
}
