/* The reader of common/sqllog.h: every byte that is wrong is noticed, whatever is cut. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "common/sqllog.h"
#include "tests/support/records.h"

/* both ways to the checksum, whatever this processor has */
#define crc32c crc32c_here
uint32_t crc32c_here(uint32_t crc, const void *p, size_t n);
#include "common/crc32c.c"
#include "tests/support/suite.h"
#undef crc32c

static struct buf file;
static size_t starts[101];
static char why[200];

static void add_record(struct buf *b, uint64_t lsn, const char *keys, const char *statements)
{
	char head[SQLLOG_HEAD_MAX], body[600];
	int n = snprintf(body, sizeof body, "BEGIN;\n%sCOMMIT;\n", statements);
	struct sqllog_record r = { .lsn = lsn,
				   .epoch = 3,
				   .time_us = 1700000000000000 + lsn,
				   .trace = lsn * 17,
				   .keys = keys,
				   .keys_bytes = strlen(keys),
				   .body = body,
				   .body_bytes = (size_t)n };
	buf_add(b, head, sqllog_head(head, &r));
	buf_add(b, body, (size_t)n);
}

static void setup(void)
{
	buf_init(&file);
	buf_addstr(&file, "SET NAMES utf8mb4;\n");
	for (unsigned i = 0; i < 10; i++) {
		char text[200];
		snprintf(text, sizeof text, "UPDATE role SET gold = gold + -%u, name = '\\'%u' WHERE id = %u;\n", i, i,
			 i);
		starts[i] = file.len;
		add_record(&file, i + 1, "role:1,bag:1", text);
	}
	starts[10] = file.len;
	why[0] = '\0';
}

static void teardown(void)
{
	buf_release(&file);
}

/* Reads all records; returns how many verified, *end: what stopped it. */
static unsigned read_all(const char *data, size_t n, ssize_t *end)
{
	struct sqllog_record r;
	unsigned count = 0;
	size_t at = 0;
	while ((*end = sqllog_read(data + at, n - at, &r, why, sizeof why)) > 0) {
		at += (size_t)*end;
		if (r.lsn && ++count != r.lsn)
			break;
	}
	return count;
}

START_TEST(the_checksum_is_crc32c)
{
	unsigned char bytes[32];
	ck_assert_uint_eq(crc32c(0, "123456789", 9), 0xe3069283);
	memset(bytes, 0, sizeof bytes);
	ck_assert_uint_eq(crc32c(0, bytes, 32), 0x8a9136aa); /* RFC 3720 */
	memset(bytes, 0xff, sizeof bytes);
	ck_assert_uint_eq(crc32c(0, bytes, 32), 0x62a8ab43);
	ck_assert_uint_eq(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
	ck_assert_uint_eq(crc32c(0, "", 0), 0);
}
END_TEST

START_TEST(the_checksum_is_the_same_with_and_without_the_instruction)
{
	unsigned char bytes[100];
	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (unsigned char)(i * 151 + 7);
	for (size_t n = 0; n <= sizeof bytes; n++) {
		ck_assert_uint_eq(~by_table(~7u, bytes, n), crc32c(7, bytes, n));
		ck_assert_uint_eq(crc32c_here(7, bytes, n), crc32c(7, bytes, n));
	}
}
END_TEST

START_TEST(a_record_stands_as_the_interface_says)
{
	struct buf b = BUF_INIT;
	add_record(&b, 7, "role:42,bag:42", "DELETE FROM bag;\n");
	char *crc = strstr(buf_cstr(&b), " crc=");
	ck_assert(crc);
	unsigned covered = crc32c(crc32c(0, b.data, (size_t)(crc - b.data)), "BEGIN;\nDELETE FROM bag;\nCOMMIT;\n", 32),
		 said;
	ck_assert_int_eq(sscanf(crc, " crc=%8x\n", &said), 1);
	ck_assert_uint_eq(said, covered);
	*crc = '\0';
	ck_assert_str_eq(b.data, "-- loquat lsn=7 epoch=3 time=1700000000000007 key=role:42,bag:42 trace=77 len=32");
	buf_release(&b);
}
END_TEST

START_TEST(the_first_line_comes_as_a_record_without_number)
{
	struct sqllog_record r;
	ck_assert_int_eq(sqllog_read(file.data, file.len, &r, why, sizeof why), 19);
	ck_assert_uint_eq(r.lsn, 0);
	ck_assert_uint_eq(r.bytes, 19);
}
END_TEST

START_TEST(a_record_gives_its_parts)
{
	struct sqllog_record r;
	size_t at = 0, n;
	unsigned count;
	const char *key;
	ck_assert_int_gt(sqllog_read(file.data + starts[4], file.len - starts[4], &r, why, sizeof why), 0);
	ck_assert_uint_eq(r.lsn, 5);
	ck_assert_uint_eq(r.epoch, 3);
	ck_assert_uint_eq(r.time_us, 1700000000000005);
	ck_assert_uint_eq(r.trace, 85);
	ck_assert_uint_eq(r.bytes, starts[5] - starts[4]);
	ck_assert(sqllog_key_next(&r, &at, &key, &n) && n == 6 && !memcmp(key, "role:1", 6));
	ck_assert(sqllog_key_next(&r, &at, &key, &n) && n == 5 && !memcmp(key, "bag:1", 5));
	ck_assert(!sqllog_key_next(&r, &at, &key, &n));
	const char *text = sqllog_statements(&r, &n, &count);
	ck_assert_uint_eq(count, 1);
	ck_assert(!strncmp(text, "UPDATE role SET gold = gold + -4", 32) && text[n - 1] == '\n');
}
END_TEST

START_TEST(a_record_tells_which_request_made_it_and_that_is_no_statement)
{
	struct sqllog_record r;
	size_t n;
	unsigned count;
	struct buf b = BUF_INIT;
	add_record(&b, 1, "role:1", "-- request=role.shopHandler.buy\nDELETE FROM bag;\n");
	ck_assert_int_gt(sqllog_read(b.data, b.len, &r, why, sizeof why), 0);
	const char *request = sqllog_request(&r, &n);
	ck_assert(n == 20 && !memcmp(request, "role.shopHandler.buy", n));
	const char *text = sqllog_statements(&r, &n, &count);
	ck_assert_uint_eq(count, 1);
	ck_assert(n == 17 && !memcmp(text, "DELETE FROM bag;\n", n));
	buf_clear(&b);
	add_record(&b, 1, "role:1", "-- request=alone\n");
	ck_assert_int_gt(sqllog_read(b.data, b.len, &r, why, sizeof why), 0);
	sqllog_statements(&r, &n, &count);
	ck_assert_uint_eq(count + n, 0);
	buf_release(&b);
	ck_assert_int_gt(sqllog_read(file.data + starts[4], file.len - starts[4], &r, why, sizeof why), 0);
	sqllog_request(&r, &n);
	ck_assert_uint_eq(n, 0);
}
END_TEST

START_TEST(a_record_without_keys_or_statements_can_be_read)
{
	struct sqllog_record r;
	size_t at = 0, n;
	unsigned count;
	const char *key;
	struct buf b = BUF_INIT;
	add_record(&b, 1, "", "");
	ck_assert_int_gt(sqllog_read(b.data, b.len, &r, why, sizeof why), 0);
	ck_assert(!sqllog_key_next(&r, &at, &key, &n));
	sqllog_statements(&r, &n, &count);
	ck_assert_uint_eq(count + n, 0);
	buf_release(&b);
}
END_TEST

START_TEST(a_file_cut_anywhere_gives_all_whole_records_and_asks_for_more)
{
	for (size_t n = 0; n <= file.len; n++) {
		ssize_t end;
		unsigned whole = 0;
		while (whole < 10 && starts[whole + 1] <= n)
			whole++;
		char *copy = malloc(n ? n : 1); /* of its exact size, so that a sanitizer sees a step too far */
		memcpy(copy, file.data, n);
		ck_assert_uint_eq(read_all(copy, n, &end), whole);
		ck_assert_int_eq(end, ERR_INCOMPLETE);
		free(copy);
	}
}
END_TEST

START_TEST(no_flipped_bit_passes)
{
	for (size_t at = 0; at < file.len; at++)
		for (int bit = 0; bit < 8; bit++) {
			ssize_t end;
			unsigned sound = 0;
			while (sound < 10 && starts[sound + 1] <= at)
				sound++;
			file.data[at] ^= (char)(1 << bit);
			unsigned got = read_all(file.data, file.len, &end);
			file.data[at] ^= (char)(1 << bit);
			ck_assert_msg(got == (at < starts[0] ? 0 : sound), "byte %zu bit %d: %u records", at, bit, got);
			ck_assert_msg(end == ERR_CORRUPT || end == ERR_INCOMPLETE, "byte %zu bit %d: %zd", at, bit,
				      end);
			/* and what is behind it is found, so that it can be told from a torn tail */
			if (at >= starts[0] && at < starts[9])
				ck_assert_int_eq(sqllog_find(file.data, file.len, starts[sound + 1]),
						 (ssize_t)starts[sound + 1]);
		}
}
END_TEST

START_TEST(nothing_is_found_where_nothing_verifies)
{
	file.data[starts[10] - 5] ^= 1;
	ck_assert_int_eq(sqllog_find(file.data, file.len, starts[9]), -1);
	ck_assert_int_eq(sqllog_find(file.data, file.len, starts[8]), (ssize_t)starts[8]);
	ck_assert_int_eq(sqllog_find(file.data, file.len, starts[8] + 1), -1);
	ck_assert_int_eq(sqllog_find("", 0, 0), -1);
}
END_TEST

START_TEST(a_body_that_could_leave_its_transaction_is_corrupt)
{
	struct buf b = BUF_INIT;
	struct sqllog_record bad = { .lsn = 1, .epoch = 1, .keys = "", .body = "DELETE FROM bag;\n", .body_bytes = 17 },
			     r;
	char head[SQLLOG_HEAD_MAX];
	buf_add(&b, head, sqllog_head(head, &bad));
	buf_add(&b, bad.body, bad.body_bytes);
	ck_assert_int_eq(sqllog_read(b.data, b.len, &r, why, sizeof why), ERR_CORRUPT);
	ck_assert_str_eq(why, "the body is not BEGIN; to COMMIT;");
	buf_release(&b);
}
END_TEST

START_TEST(numbers_out_of_bounds_are_corrupt)
{
	static const char *const lines[] = {
		"-- loquat lsn=99999999999999999999999 epoch=1 time=1 key= trace=0 len=16 crc=00000000\n",
		"-- loquat lsn=0 epoch=1 time=1 key= trace=0 len=16 crc=00000000\n",
		"-- loquat lsn=1 epoch=1 time=1 key= trace=0 len=1048577 crc=00000000\n",
		"-- loquat lsn= epoch=1 time=1 key= trace=0 len=16 crc=00000000\n",
		"-- loquat lsn=1 epoch=1 time=1 key= trace=0 len=16 crc=0000000\n",
		"-- loquat lsn=1 epoch=1 time=1 key= trace=0 len=16 crc=000000000\n",
		"-- loquat lsn=1 epoch=1 time=-1 key= trace=0 len=16 crc=00000000\n",
	};
	struct sqllog_record r;
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
		ck_assert_int_eq(sqllog_read(lines[i], strlen(lines[i]), &r, why, sizeof why), ERR_CORRUPT);
}
END_TEST

START_TEST(what_a_newer_version_wrote_is_told_from_what_is_torn_or_damaged)
{
	struct buf b = BUF_INIT;
	struct sqllog_record r;
	records_add_newer(&b, (struct made){ 1, 2, "role:1", "DELETE FROM bag WHERE role_id = 1;\n", 0 });
	ck_assert_int_eq(sqllog_read(b.data, b.len, &r, why, sizeof why), ERR_NEWER);
	ck_assert_str_eq(why, "a newer version wrote it");
	ck_assert_int_eq(sqllog_find(b.data, b.len, 0), 0);
	for (size_t n = 1; n < b.len; n++) {
		ssize_t torn = sqllog_read(b.data, n, &r, why, sizeof why);
		ck_assert(torn == ERR_INCOMPLETE || torn == ERR_CORRUPT);
	}
	for (size_t bit = 0; bit < 8 * b.len; bit++) {
		b.data[bit / 8] ^= (char)(1 << bit % 8);
		ck_assert_int_ne(sqllog_read(b.data, b.len, &r, why, sizeof why), ERR_NEWER);
		ck_assert_int_lt(sqllog_read(b.data, b.len, &r, why, sizeof why), 0);
		b.data[bit / 8] ^= (char)(1 << bit % 8);
	}
	buf_release(&b);
}
END_TEST

START_TEST(a_first_line_that_says_more_is_a_newer_versions)
{
	static const char line[] = "SET NAMES utf8mb4; -- loquat format=2\n", not_ours[] = "SET NAMES utf8mb4;\r\n";
	struct sqllog_record r;
	ck_assert_int_eq(sqllog_read(line, sizeof line - 1, &r, why, sizeof why), ERR_NEWER);
	ck_assert_int_eq(sqllog_read(line, 18, &r, why, sizeof why), ERR_INCOMPLETE);
	ck_assert_int_eq(sqllog_read(not_ours, sizeof not_ours - 1, &r, why, sizeof why), ERR_CORRUPT);
}
END_TEST

START_TEST(a_comment_line_without_end_is_corrupt_not_waited_for)
{
	char line[SQLLOG_HEAD_MAX + 1];
	struct sqllog_record r;
	memset(line, 'k', sizeof line);
	memcpy(line, "-- loquat lsn=1 epoch=1 time=1 key=", 35);
	ck_assert_int_eq(sqllog_read(line, sizeof line, &r, why, sizeof why), ERR_CORRUPT);
	ck_assert_int_eq(sqllog_read(line, 100, &r, why, sizeof why), ERR_INCOMPLETE);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("read");
	tcase_set_timeout(t, 30);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, the_checksum_is_crc32c);
	tcase_add_test(t, the_checksum_is_the_same_with_and_without_the_instruction);
	tcase_add_test(t, a_record_stands_as_the_interface_says);
	tcase_add_test(t, the_first_line_comes_as_a_record_without_number);
	tcase_add_test(t, a_record_gives_its_parts);
	tcase_add_test(t, a_record_tells_which_request_made_it_and_that_is_no_statement);
	tcase_add_test(t, a_record_without_keys_or_statements_can_be_read);
	tcase_add_test(t, a_file_cut_anywhere_gives_all_whole_records_and_asks_for_more);
	tcase_add_test(t, no_flipped_bit_passes);
	tcase_add_test(t, nothing_is_found_where_nothing_verifies);
	tcase_add_test(t, a_body_that_could_leave_its_transaction_is_corrupt);
	tcase_add_test(t, numbers_out_of_bounds_are_corrupt);
	tcase_add_test(t, what_a_newer_version_wrote_is_told_from_what_is_torn_or_damaged);
	tcase_add_test(t, a_first_line_that_says_more_is_a_newer_versions);
	tcase_add_test(t, a_comment_line_without_end_is_corrupt_not_waited_for);
	return suite_run("sqllog_read", t);
}
