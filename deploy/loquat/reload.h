#pragma once
#include <jansson.h>
#include "deploy/loquat/supervisor.h"
/*
 * reload: new Lua for all instances of a service, and new messages for all instances of the cluster, all or none (reload.c), also
 * those that could not be asked meanwhile (reload_passed.c); and a look at their errors afterwards, which takes the Lua back when
 * they jump (reload_watch.c).
 *
 * Threads: the supervisor's loop.
 */
/*
 * Asks each ready instance of the service, or the others: POST /admin/reload?step=STEP, again while there is no connection to one
 * that lives; on_part with each answer, then done.
 */
enum reload_whom { RELOAD_OF_SERVICE, RELOAD_OTHERS, RELOAD_ALL };
struct reload_steps {
	struct supervisor *up;
	const char *service;
	enum reload_whom whom;
	void (*on_part)(void *arg, struct instance *i, const struct env_http_answer *a); /* may be NULL */
	void (*done)(void *arg);
	void *arg;
	const json_t *but;           /* {instance: …} of which none takes part; may be NULL */
	const struct instance *only; /* may be NULL */
	bool brief;                  /* nothing hangs on it: who does not answer soon is not waited for */
};
void reload_step_all(const struct reload_steps *s, const char *step);
bool reload_takes_part(const char *service, const struct instance *i);
bool reload_lives(const struct instance *i); /* whether what it has done with a step is of any account */
/* The path of a step, {name}={value}&…, as one of ours. */
void reload_path(struct supervisor *up, const char *query, char *out, size_t size);
/* For on_part of a rollback: one that lives and has not answered, or was busy, goes back when it can be reached. */
void reload_note_back(struct instance *i, const struct env_http_answer *a, const char *version, const char *messages);
/* So do those of other hosts that cannot be reached now, wherever they run that version or go by those messages. */
void reload_back_elsewhere(struct supervisor *up, const char *version, const char *messages);

/* After a look at it: if a reload has passed it by and it is ready now, it is reloaded by itself. */
void reload_catch_up(struct instance *i);
bool reload_catching_up(const struct supervisor *up, const char *service); /* one is being reloaded so */
/* The others have gone back to the Lua before: who was passed by takes the messages alone, which stay. */
void reload_forget_passed(struct supervisor *up, const char *service);

/*
 * The service's errors as they are now, before the switch; then watch_begin when it has switched to version. The watch ends
 * after supervisor.reload_watch_s, or when the service is reloaded anew.
 */
void watch_baseline(struct supervisor *up, const char *service, void (*done)(void *arg), void *arg);
void watch_begin(struct supervisor *up, const char *service, const char *version);
bool watch_leaves(struct supervisor *up, const char *service);  /* all are on their way back from it */
json_t *watch_json(struct supervisor *up, const char *service); /* {state, text}, or null */
