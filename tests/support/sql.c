#include "tests/support/sql.h"
#include <check.h>
#include <mysql.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/buf.h"

struct sql {
	MYSQL mysql;
};

struct sql *sql_open(const char *socket, const char *database)
{
	struct sql *q = malloc(sizeof *q);
	mysql_init(&q->mysql);
	mysql_options(&q->mysql, MYSQL_SET_CHARSET_NAME, "utf8mb4");
	ck_assert_msg(mysql_real_connect(&q->mysql, NULL, "root", "", database, 0, socket, CLIENT_MULTI_STATEMENTS),
		      "%s", mysql_error(&q->mysql));
	return q;
}

void sql_close(struct sql *q)
{
	if (!q)
		return;
	mysql_close(&q->mysql);
	free(q);
}

static void drop_results(struct sql *q)
{
	int more = 0;
	do
		mysql_free_result(mysql_store_result(&q->mysql));
	while (!more && !(more = mysql_next_result(&q->mysql)));
}

void sql_run(struct sql *q, const char *statements)
{
	ck_assert_msg(!mysql_query(&q->mysql, statements), "%s", mysql_error(&q->mysql));
	drop_results(q);
	ck_assert_msg(!mysql_errno(&q->mysql), "%s", mysql_error(&q->mysql));
}

char *sql_text(struct sql *q, const char *select)
{
	struct buf b = BUF_INIT;
	MYSQL_ROW row;
	ck_assert_msg(!mysql_query(&q->mysql, select), "%s: %s", select, mysql_error(&q->mysql));
	MYSQL_RES *r = mysql_store_result(&q->mysql);
	ck_assert_msg(r, "%s: %s", select, mysql_error(&q->mysql));
	while ((row = mysql_fetch_row(r))) {
		if (b.len)
			buf_addch(&b, '|');
		for (unsigned i = 0; i < mysql_num_fields(r); i++)
			buf_addf(&b, "%s%s", i ? "," : "", row[i] ? row[i] : "NULL");
	}
	mysql_free_result(r);
	buf_addch(&b, '\0');
	return b.data;
}

int64_t sql_int(struct sql *q, const char *select)
{
	char *text = sql_text(q, select);
	int64_t v = *text && *text != 'N' ? strtoll(text, NULL, 10) : -1;
	free(text);
	return v;
}

void sql_file(struct sql *q, const char *path)
{
	FILE *f = fopen(path, "rb");
	ck_assert_msg(f, "%s cannot be read", path);
	struct buf b = BUF_INIT;
	size_t got;
	while ((got = fread(buf_reserve(&b, 65536), 1, 65536, f)) > 0)
		b.len += got;
	fclose(f);
	sql_run(q, buf_cstr(&b));
	buf_release(&b);
}
