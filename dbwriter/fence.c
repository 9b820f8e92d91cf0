#include "dbwriter/fence.h"
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include "common/err.h"
#include "common/sqllog.h"
#include "proto/dbwriter.pb-c.h"

static void refuse(struct rpc_request *r, int err, const char *why)
{
	rpc_answer_err(r->worker, r->handle, err, EFFECT_NONE, why);
}

static void answer(struct rpc_request *r, const Dbwriter__FenceAnswer *m)
{
	uint8_t bytes[64];

	assert(dbwriter__fence_answer__get_packed_size(m) <= sizeof bytes);
	size_t n = dbwriter__fence_answer__pack(m, bytes);

	rpc_answer_ok(r->worker, r->handle, span_of((const char *)bytes, n), NULL, 0);
}

static void fence(struct rpc_request *r, const Dbwriter__FenceRequest *m, const char *folder)
{
	struct service *s = r->worker->service;
	Dbwriter__FenceAnswer a = DBWRITER__FENCE_ANSWER__INIT;
	struct sqllog_options o = { .folder = folder, .workers = 1 };
	struct sqllog *l;
	char error[ENV_PATH_MAX + 160];

	if (sqllog_noted_epoch(s->env, folder) < m->epoch) {
		refuse(r, ERR_NOT_FOUND, "its log is not on this host");
		return;
	}
	int err = sqllog_open(s->env, s->log, NULL, &o, error, sizeof error, &l);

	if (err < 0) {
		refuse(r, err == ERR_BUSY ? ERR_BUSY : ERR_UNAVAILABLE, error);
		return;
	}
	a.epoch = sqllog_epoch(l);
	sqllog_position(l, &a.log_epoch, &a.lsn);
	sqllog_close(l);
	log_warn(s->log, "dbwriter.fenced", "instance=%s epoch=%llu log_epoch=%llu lsn=%llu", m->instance,
		 (unsigned long long)a.epoch, (unsigned long long)a.log_epoch, (unsigned long long)a.lsn);
	answer(r, &a);
}

static void on_fence(void *arg, struct rpc_request *r)
{
	Dbwriter__FenceRequest *m =
		r->json ? NULL : dbwriter__fence_request__unpack(NULL, r->body.n, (const uint8_t *)r->body.p);
	char folder[ENV_PATH_MAX + 48];

	if (!m || !route_is_name(m->instance)) {
		refuse(r, ERR_BAD_REQUEST, "expected dbwriter.FenceRequest as protobuf");
	} else {
		snprintf(folder, sizeof folder, "%s/%s", (const char *)arg, m->instance);
		fence(r, m, folder);
	}
	if (m)
		dbwriter__fence_request__free_unpacked(m, NULL);
}

void fence_handle(struct worker *w, const char *folder)
{
	const struct msg_method *m = schema_method(w->schema, "dbwriter.dbwriterRemote.fence", 29);

	assert(m);
	rpc_handle(w, m, on_fence, (void *)folder);
}
