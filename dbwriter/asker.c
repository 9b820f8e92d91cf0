#include "dbwriter/asker.h"
#include <stdio.h>
#include "common/err.h"
#include "common/loop.h"

#define WAIT_MS 60000 /* for one answer */

struct asker {
	const struct env_db_options *options;
	asker_step *step;
	void *arg;
	struct loop *loop;
	struct env_db *db;
	struct timer late;
	struct buf sql;
	int result;
	char *why;
	size_t why_size;
};

static void end(struct asker *a, int result)
{
	a->result = result;
	loop_timer_stop(a->loop, &a->late);
	loop_stop(a->loop);
}

static void lost(struct asker *a, const char *why)
{
	snprintf(a->why, a->why_size, "the database does not answer: %s", why && *why ? why : "no connection");
	end(a, ERR_UNAVAILABLE);
}

static void on_result(void *arg, const struct env_db_result *r);

static void go_on(struct asker *a, const struct env_db_result *last)
{
	buf_clear(&a->sql);
	int result = a->step(a->arg, last, &a->sql);
	if (result != 1) {
		end(a, result);
		return;
	}
	loop_timer(a->loop, &a->late, WAIT_MS);
	if (env_db_query(a->db, a->sql.data, a->sql.len, on_result, a) < 0)
		lost(a, env_db_message(a->db));
}

static void on_result(void *arg, const struct env_db_result *r)
{
	struct asker *a = arg;
	if (r->err == ERR_UNAVAILABLE)
		lost(a, r->message);
	else
		go_on(a, r);
}

static void on_open(void *arg, int err)
{
	struct asker *a = arg;
	if (err < 0)
		lost(a, env_db_message(a->db));
	else
		go_on(a, NULL);
}

static void on_late(struct timer *t, uint64_t now_ms)
{
	(void)now_ms;
	lost((struct asker *)((char *)t - offsetof(struct asker, late)), "no answer");
}

static void on_start(struct loop *loop, void *arg)
{
	struct asker *a = arg;
	a->loop = loop;
	a->late.fire = on_late;
	loop_timer(loop, &a->late, 10000);
	if (env_db_open(loop->ev, a->options, on_open, a, &a->db) < 0)
		lost(a, NULL);
}

static void on_stop(struct loop *loop, void *arg)
{
	(void)loop;
	env_db_close(((struct asker *)arg)->db);
}

int asker_run(struct env *env, const struct env_db_options *db, asker_step *step, void *arg, char *why, size_t why_size)
{
	struct asker a = { .options = db, .step = step, .arg = arg, .why = why, .why_size = why_size };
	struct loop *loop;
	if (loop_start(env, "asker", 0, on_start, on_stop, &a, &loop) < 0) {
		snprintf(why, why_size, "no thread could be started");
		return ERR_UNAVAILABLE;
	}
	loop_join(loop);
	buf_release(&a.sql);
	return a.result;
}
