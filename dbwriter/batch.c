#include "dbwriter/batch.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* One by one they take the database long: what is asked at a time has an end, and a refusal costs no more than this. */
#define TEXT_RECORDS_MAX 1000
#define TEXT_BYTES_MAX   (1u << 20)

void batch_init(struct batch *b, unsigned records_max, size_t bytes_max)
{
	*b = (struct batch){ .records_max = records_max, .bytes_max = bytes_max };
	b->item = calloc(records_max, sizeof *b->item);
	assert(b->item);
	b->capacity = records_max;
	buf_reserve(&b->raw, bytes_max + SQLLOG_RECORD_MAX + SQLLOG_HEAD_MAX);
}

void batch_release(struct batch *b)
{
	buf_release(&b->raw);
	buf_release(&b->sql);
	free(b->item);
	*b = (struct batch){ 0 };
}

void batch_clear(struct batch *b)
{
	buf_clear(&b->raw);
	b->n = b->sent = b->limit = 0;
}

bool batch_full(const struct batch *b)
{
	return b->n == b->records_max || b->raw.len >= b->bytes_max;
}

void batch_add(struct batch *b, const struct sqllog_record *r, uint32_t file)
{
	struct batch_item *i = &b->item[b->n++];
	assert(b->n <= b->capacity);
	const char *raw = r->body + r->body_bytes - r->bytes;
	*i = (struct batch_item){ .at = { r->epoch, r->lsn },
				  .time_us = r->time_us,
				  .file = file,
				  .raw = b->raw.len,
				  .raw_bytes = r->bytes };
	const char *statements = sqllog_statements(r, &i->statement_bytes, &i->statements);
	i->statement = b->raw.len + (size_t)(statements - raw);
	assert(b->raw.cap - b->raw.len >= r->bytes); /* what was planned points into it */
	buf_add(&b->raw, raw, r->bytes);
}

void batch_sql(struct batch *b)
{
	static const char commit[] = "COMMIT";
	unsigned most = b->limit && b->limit < b->n ? b->limit : b->n;
	assert(b->n);
	buf_clear(&b->sql);
	most = most < TEXT_RECORDS_MAX ? most : TEXT_RECORDS_MAX;
	for (b->sent = 0; b->sent < most && b->sql.len < TEXT_BYTES_MAX; b->sent++) {
		const struct batch_item *i = &b->item[b->sent];
		buf_add(&b->sql, b->raw.data + i->statement, i->statement_bytes);
	}
	buf_add(&b->sql, commit, sizeof commit - 1);
}

unsigned batch_plan(const struct batch *b, unsigned from, struct plan *p)
{
	unsigned i = from;
	for (; i < b->n && !plan_full(p); i++)
		plan_add(p, b->raw.data + b->item[i].statement, b->item[i].statement_bytes);
	return i;
}

void batch_sent(struct batch *b, unsigned n)
{
	assert(n && n <= b->n);
	b->sent = n;
}

const struct batch_item *batch_last(const struct batch *b)
{
	assert(b->sent && b->sent <= b->n);
	return &b->item[b->sent - 1];
}

const struct batch_item *batch_first(const struct batch *b)
{
	return b->n ? &b->item[0] : NULL;
}

struct sqllog_record batch_record(const struct batch *b, const struct batch_item *i)
{
	struct sqllog_record r = { 0 };
	char why[80];
	ssize_t n = sqllog_read(b->raw.data + i->raw, i->raw_bytes, &r, why, sizeof why);
	assert(n == (ssize_t)i->raw_bytes); /* it was verified when it came in */
	return r;
}

static void drop_front(struct batch *b, unsigned n)
{
	size_t bytes = b->item[n - 1].raw + b->item[n - 1].raw_bytes;
	buf_consume(&b->raw, bytes);
	memmove(b->item, b->item + n, (b->n - n) * sizeof *b->item);
	b->n -= n;
	for (unsigned i = 0; i < b->n; i++) {
		b->item[i].raw -= bytes;
		b->item[i].statement -= bytes;
	}
}

void batch_landed(struct batch *b)
{
	assert(b->sent);
	drop_front(b, b->sent);
	/* Behind a transaction that was made smaller stands the record that was refused: alone, to be sure. */
	b->limit = b->limit && b->sent > 1 ? 1 : 0;
	b->sent = 0;
}

/* The record that holds the statement; sent: it is the COMMIT's. */
static unsigned record_of(const struct batch *b, unsigned statement)
{
	unsigned i = 0;
	for (unsigned seen = 0; i < b->sent; i++) {
		seen += b->item[i].statements;
		if (statement < seen)
			break;
	}
	return i;
}

bool batch_refused(struct batch *b, unsigned failed_at)
{
	unsigned at = record_of(b, failed_at);
	if (b->sent == 1)
		return true;
	if (at >= b->sent)
		b->limit = b->sent / 2;
	else
		b->limit = at ? at : 1;
	b->sent = 0;
	return false;
}

enum batch_fault batch_fault(unsigned code)
{
	switch (code) {
	case 3:    /* a file could not be written: no space, mostly */
	case 20:   /* disk full, the client's number of it */
	case 1020: /* record has changed since last read */
	case 1021: /* disk full */
	case 1026: /* a file could not be written */
	case 1030: /* the storage engine's trouble: 28 is a full disk, 194 a table whose file is gone */
	case 1034: /* a table or an index is damaged: its records are sound, and land when it was repaired … */
	case 1035:
	case 1037: /* out of memory */
	case 1038: /* out of sort memory */
	case 1040: /* too many connections */
	case 1041: /* out of resources */
	case 1044: /* access denied … */
	case 1045:
	case 1046: /* no database selected */
	case 1047: /* not ready yet (a cluster's node) */
	case 1049: /* unknown database */
	case 1053: /* shutdown in progress */
	case 1099: /* table locked */
	case 1100:
	case 1114: /* table full */
	case 1142: /* command denied … */
	case 1143:
	case 1153: /* packet larger than the server takes */
	case 1180: /* error during COMMIT */
	case 1181:
	case 1194:
	case 1195:
	case 1203: /* too many connections of this user */
	case 1205: /* lock wait timeout */
	case 1206: /* lock table full */
	case 1213: /* deadlock */
	case 1226: /* user's limit reached */
	case 1227: /* access denied */
	case 1290: /* the server runs with an option: read only */
	case 1317: /* interrupted */
	case 1598: /* nothing can be written to the binary log */
	case 1712: /* … an index is damaged */
	case 1792: /* transaction is read only */
	case 1814: /* … or a table's file is not there */
	case 1836: /* read only mode */
	case 1877: /* … a table is damaged */
	case 1878: /* a temporary file could not be written */
	case 1932: /* … the engine knows no such table, though the server does */
	case 1969: /* statement timeout */
	case 3024: return BATCH_AGAIN;
	default: return code >= 8000 ? BATCH_AGAIN : BATCH_REFUSED; /* 8000 and 9000: TiDB's, all of a moment */
	}
}
