#pragma once
#include <stddef.h>
#include "common/luahost.h"
#include "common/metrics.h"
#include "rpc/service.h"
/*
 * app: a service's Lua on one worker: its handlers and remotes answer requests, and scripts get the libraries app, db
 * and cache, and those the service adds (service_def.libraries).
 *
 *   handlers   XHandler.lua: fn(session, msg) -> answer | nil, error, message   client requests, one at a time per session
 *   remotes    XRemote.lua:  fn(args, call)   -> value  | nil, error, message   calls of services, each in its own task
 *   init.lua   init_service(), stop_service(), on_peer(instance, up), on_leave(room, member), on_lost(key), on_moved(),
 *              http(request), check(), on_reload(old), on_rollback(old): all optional. The instance is ready when
 *              init_service has ended on all workers, and if it raises the start fails; stop_service runs when nothing
 *              else is under way
 *
 * What scripts see is documented in docs/lua.md.
 *
 * All or nothing: what a task collects with db.exec and db.set is one SQL-log record and is applied with it when the task
 * ends; the answer waits until the record is durable. A task that raises, or whose record is refused, changes nothing.
 *
 * Threads: owner worker only.
 */
struct app;

/*
 * Loads service->lua_src and sets w->app. opened comes when init_service has ended, perhaps before this returns: err is
 * negative if it failed. What is wrong with the code goes to service_fail, and opened does not come.
 */
void app_open(struct worker *w, void (*opened)(struct worker *w, int err));
void app_close(struct app *a); /* NULL is fine */
struct luahost *app_host(struct app *a);

/*
 * Reload in steps, so that all instances can prepare before any switches. app_check is the first: on the control thread, beside
 * the workers, in a state of its own (luahost_check). The others are on the worker, as luahost_prepare_begin and so on.
 * schema: the messages that the code is for. Other messages than the worker's are prepared before it.
 */
int app_check(struct worker *w, struct luasrc *src, const struct schema *schema, char *error, size_t error_size);
int app_prepare(struct app *a, struct luasrc *src, char *error, size_t error_size);
int app_prepare_step(struct app *a, const struct schema *schema, char *error, size_t error_size);
int app_switch(struct app *a, char *error, size_t error_size);
void app_rollback(struct app *a, const char *version);
void app_abort(struct app *a);
int app_messages_prepare(struct app *a, const struct schema *next, char *error, size_t error_size);
void app_messages_taken(struct app *a); /* worker->schema is another: prepared, or used before */

/* Keys that move (rpc/moves.h). The worker's route table has changed; NULL is fine, as below. */
void app_moves_see(struct app *a);
/* What the turn gives this worker is its own now; ignored if there has been another since. */
void app_moves_take(struct app *a, uint64_t turn);

/* A task of the service's http hook: answered by on_answer(arg, status, content, bytes) on this worker. */
struct app_http {
	const char *method, *path, *signature; /* signature: header X-Signature, or NULL */
	const char *body;
	size_t body_n;
	void (*on_answer)(void *arg, int status, const char *content, size_t n);
	void *arg;
};
/* An operator's line of Lua, q->body, in a task of its own: its results are answered as a JSON list. */
void app_console(struct app *a, const struct app_http *q);
bool app_has_http(struct app *a);
void app_http(struct app *a, const struct app_http *q);
/*
 * app.push for a service's own C: body is JSON text. a is luahost_user of the script's host. Forgets; a session that has
 * gone gets nothing.
 */
void app_push_text(struct app *a, const char *connector, uint64_t sid, struct span route, struct span body);
/* A hook of init.lua with one text and one boolean; nothing happens if it is not there. */
void app_hook(struct app *a, const char *name, const char *text, bool flag);
/* then comes when it has ended, or is not there; not if the app is closed before. */
void app_hook_then(struct app *a, const char *name, const char *text, bool flag,
		   void (*then)(struct worker *w, int err));
