#include "tests/support/records.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "tests/support/folder.h"

void records_begin(struct buf *b)
{
	buf_addstr(b, "SET NAMES utf8mb4;\n");
}

void records_add(struct buf *b, struct made m)
{
	char head[SQLLOG_HEAD_MAX];
	struct buf body = BUF_INIT;
	buf_addf(&body, "BEGIN;\n%sCOMMIT;\n", m.statements);
	struct sqllog_record r = { .lsn = m.lsn,
				   .epoch = m.epoch,
				   .time_us = m.time_us ? m.time_us : 1700000000000000 + m.lsn,
				   .keys = m.keys,
				   .keys_bytes = strlen(m.keys),
				   .body = body.data,
				   .body_bytes = body.len };
	buf_add(b, head, sqllog_head(head, &r));
	buf_add(b, body.data, body.len);
	buf_release(&body);
}

void records_add_newer(struct buf *b, struct made m)
{
	struct buf ours = BUF_INIT;
	records_add(&ours, m);
	const char *text = buf_cstr(&ours), *body = strchr(text, '\n') + 1, *len = strstr(text, " len="),
		   *crc = strstr(text, " crc=");
	size_t start = b->len;
	buf_add(b, text, (size_t)(len - text));
	buf_addstr(b, " zone=7");
	buf_add(b, len, (size_t)(crc - len));
	uint32_t sum = crc32c(crc32c(0, b->data + start, b->len - start), body, strlen(body));
	buf_addf(b, " crc=%08x\n%s", sum, body);
	buf_release(&ours);
}

void records_file(const char *folder, unsigned number, uint64_t first, uint64_t last, uint64_t epoch)
{
	char name[32], text[100];
	struct buf b = BUF_INIT;
	records_begin(&b);
	for (uint64_t lsn = first; lsn <= last; lsn++) {
		snprintf(text, sizeof text, "UPDATE role SET gold = %llu WHERE id = 1;\n", (unsigned long long)lsn);
		records_add(&b, (struct made){ .lsn = lsn, .epoch = epoch, .keys = "role:1", .statements = text });
	}
	snprintf(name, sizeof name, "%08u.sql", number);
	folder_write(folder, name, b.data, b.len);
	buf_release(&b);
}

struct sqllog *records_open(struct env *env, const char *folder)
{
	struct sqllog_options o = { .folder = folder, .linger_us = UINT32_MAX, .workers = 4 };
	struct sqllog *l;
	char error[300] = "";
	int err = sqllog_open(env, NULL, NULL, &o, error, sizeof error, &l);
	ck_assert_msg(!err, "%s: %s", err_word(err), error);
	return l;
}

uint64_t records_append(struct sqllog *l, const char *key, int64_t gold)
{
	struct sql_record r;
	struct sql_value v[] = { { .type = SQL_INT, .i = gold }, { .type = SQL_TEXT, .s = { key, strlen(key) } } };
	char why[200];
	uint64_t lsn = 0;
	sql_record_init(&r);
	ck_assert_int_eq(sql_record_key(&r, key), 0);
	ck_assert_int_eq(sql_record_add(&r, "UPDATE role SET gold = gold + ? WHERE name = ?", v, 2, why, sizeof why),
			 0);
	int err = sqllog_append(l, &r, &lsn);
	sql_record_release(&r);
	ck_assert_msg(!err, "append: %s", err_word(err));
	return lsn;
}

static void add_file(struct buf *out, struct env *env, const char *folder, uint32_t number)
{
	char path[ENV_PATH_MAX], why[80];
	struct sqllog_file f;
	struct sqllog_record r;
	uint64_t first = 0, last = 0;
	int err;
	sqllog_path(path, folder, number, "sql");
	ck_assert_int_eq(sqllog_file_open(&f, env, path), 0);
	while ((err = sqllog_file_next(&f, &r, why, sizeof why)) == 1) {
		if (first && r.lsn != last + 1) {
			buf_addf(out, "%llu-%llu,", (unsigned long long)first, (unsigned long long)last);
			first = 0;
		}
		first = first ? first : r.lsn;
		last = r.lsn;
	}
	if (first)
		buf_addf(out, "%llu-%llu", (unsigned long long)first, (unsigned long long)last);
	buf_addstr(out, err < 0 ? "!\n" : "\n");
	sqllog_file_close(&f);
}

char *records_read(struct env *env, const char *folder)
{
	uint32_t *numbers;
	size_t n;
	struct buf out = BUF_INIT;
	ck_assert_int_eq(sqllog_list(env, folder, &numbers, &n), 0);
	for (size_t i = 0; i < n; i++)
		add_file(&out, env, folder, numbers[i]);
	free(numbers);
	buf_addch(&out, '\0');
	return out.data;
}
