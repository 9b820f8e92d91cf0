#include <stdio.h>
#include <stdlib.h>
#include "dbwriter/replay_private.h"
/*
 * Answers of once-calls that nobody will ask for any more, taken out of loquat_once. Their owner deletes a caller's sequence
 * when the caller has acknowledged it, or has been silent for longer than any call lives (rpc/once.h); what it cannot delete
 * are the rows of an owner that nobody asks for again after a restart. Those go here, by their age. Business keys, whose
 * client is empty, are kept: they say for ever that an order was carried out.
 *
 * The rows are found by a plain SELECT, which locks nothing, and deleted one by one by their keys. It reads the index
 * once_by_age from the client where the last one ended, so that it meets neither business keys nor clients it has been at.
 */
#define ROWS 200

static void done(struct lane *l, bool more)
{
	struct replay *r = l->replay;
	r->forget_ms = r->loop->now_ms + (more ? 0 : r->o.forget_each_ms);
	if (!more)
		*r->forget_from = '\0';
	lane_step(l);
}

static void on_deleted(void *arg, const struct env_db_result *res)
{
	struct lane *l = arg;
	if (!lane_answered(l, res))
		return;
	if (!res->err)
		atomic_fetch_add_explicit(&l->replay->forgotten, l->replay->forgetting, memory_order_relaxed);
	else /* one that is locked, say: the next time */
		log_warn(l->replay->log, "dbwriter.forget", "error=%u message=%s", res->code, res->message);
	done(l, !res->err && l->replay->forgetting == ROWS);
}

static void on_found(void *arg, const struct env_db_result *res)
{
	struct lane *l = arg;
	if (!lane_answered(l, res))
		return;
	l->replay->forgetting = res->err ? 0 : res->rows;
	if (res->err || !res->rows) {
		done(l, false);
		return;
	}
	snprintf(l->replay->forget_from, sizeof l->replay->forget_from, "%s", res->cells[4 * (res->rows - 1) + 1]);
	buf_clear(&l->sql);
	for (unsigned i = 0; i < res->rows; i++) {
		struct sql_value key[4];
		for (unsigned k = 0; k < 4; k++)
			key[k] = (struct sql_value){ .type = SQL_TEXT,
						     .s = { res->cells[4 * i + k], res->cell_bytes[4 * i + k] } };
		lane_format(l, "DELETE FROM loquat_once WHERE owner = ? AND client = ? AND method = ? AND once_key = ?",
			    key, 4);
		buf_addstr(&l->sql, i + 1 < res->rows ? ";\n" : "");
	}
	lane_ask(l, l->sql.data, l->sql.len, on_deleted);
}

/* Ages are of the clocks of who wrote the rows: one of ours that is ahead must not make live answers old. */
static uint64_t age_now_us(const struct replay *r)
{
	uint64_t now_us = env_wall_us(r->loop->env);
	return r->newest_us < now_us ? r->newest_us : now_us;
}

void forget_begin(struct lane *l)
{
	struct replay *r = l->replay;
	const char table[] = "loquat_once";
	if (l != r->lane || !r->o.once_keep_s || r->o.standby_ms || r->loop->now_ms < r->forget_ms)
		return;
	r->forget_ms = r->loop->now_ms + r->o.forget_each_ms; /* should this one be lost with its connection */
	uint64_t now_us = age_now_us(r), keep_us = r->o.once_keep_s * 1000000;
	if (now_us <= keep_us || !tables_find(&r->tables, table, sizeof table - 1))
		return;
	struct sql_value v[] = { text_value(""), text_value(r->forget_from), int_value(now_us - keep_us) };
	buf_clear(&l->sql);
	lane_format(l,
		    "SELECT owner, client, method, once_key FROM loquat_once"
		    " WHERE client > ? AND client >= ? AND created_us < ? ORDER BY client, created_us",
		    v, 3);
	buf_addf(&l->sql, " LIMIT %d", ROWS);
	lane_ask(l, l->sql.data, l->sql.len, on_found);
}
