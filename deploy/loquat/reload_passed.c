#include <stdio.h>
#include <string.h>
#include "common/err.h"
#include "deploy/loquat/reload.h"

/*
 * Whom a reload, or the way back from one, has passed by: it is given by itself what the others have, when it can be asked; that,
 * and not what lies in the files by then, which may have been refused, or not even tried.
 */
#define ANSWER_MS 15000
#define LATER_MS  30000 /* the files that it is to be given are not there: they may be put back */

/* ---- who is noted ------------------------------------------------------------------------------------------------------- */

void reload_forget_passed(struct supervisor *up, const char *service)
{
	for (size_t k = 0; k < up->instances; k++) {
		struct instance *i = &up->instance[k];

		if (strcmp(i->row->service, service) != 0)
			continue;
		if (i->passed_by == RELOAD_PASSED_FILES)
			i->passed_by = RELOAD_PASSED_MESSAGES;
		if (i->then == RELOAD_PASSED_FILES)
			i->then = RELOAD_PASSED_MESSAGES;
	}
}

void reload_note_back(struct instance *i, const struct env_http_answer *a, const char *version, const char *messages)
{
	if ((a->err == 0 && a->status == 200) || (i->here && !reload_lives(i)))
		return;
	if (i->passed_by != RELOAD_PASSED_BACK)
		i->then = i->passed_by;
	i->passed_by = RELOAD_PASSED_BACK;
	snprintf(i->back_version, sizeof i->back_version, "%s", version);
	snprintf(i->back_messages, sizeof i->back_messages, "%s", messages);
}

void reload_back_elsewhere(struct supervisor *up, const char *version, const char *messages)
{
	const struct env_http_answer none = { .err = ERR_UNAVAILABLE };

	for (size_t k = 0; k < up->instances; k++) {
		struct instance *i = &up->instance[k];
		bool passed = i->passed_by && i->passed_by != RELOAD_PASSED_BACK; /* it has nothing to leave */

		if (!i->here && !reload_lives(i) && i->row->http_port && !passed)
			reload_note_back(i, &none, version, messages);
	}
}

/* ---- when it can be asked ------------------------------------------------------------------------------------------------ */

static void on_caught_up(void *arg, const struct env_http_answer *a)
{
	struct instance *i = arg;
	bool later = a->err == 0 && a->status == err_http(ERR_UNAVAILABLE);
	bool again = a->err < 0 || a->status == err_http(ERR_BUSY) || later;
	json_t *answer = a->err == 0 ? json_loadb(a->body, a->n, 0, NULL) : NULL;
	const char *running = json_string_value(json_object_get(answer, "running"));
	const char *message = json_string_value(json_object_get(answer, "message"));
	bool files = i->catching_up == RELOAD_PASSED_FILES, back = i->catching_up == RELOAD_PASSED_BACK;

	if (again && !i->passed_by)
		i->passed_by = i->catching_up; /* at a later look */
	else if (back && running && !i->passed_by)
		i->passed_by = i->then;
	i->catching_up = RELOAD_PASSED_NOT;
	i->later_ms = later ? i->up->loop->now_ms + LATER_MS : 0;
	if (later && !i->told)
		screen_say(i->up,
			   "%s: was not ready when its service was reloaded, and does not run what the others do: %s",
			   i->row->id, message ? message : "nobody knows why");
	i->told = later;
	if (!again && running && files)
		screen_say(i->up, "%s: was not ready when its service was reloaded: it runs version %s now", i->row->id,
			   running);
	else if (!again && running && back)
		screen_say(i->up, "%s: did not answer when all went back: it has now", i->row->id);
	else if (!again && !running)
		screen_say(i->up, "%s: was not ready when its service was reloaded, and cannot be now: %s", i->row->id,
			   message ? message : "nobody knows why");
	json_decref(answer);
}

bool reload_catching_up(const struct supervisor *up, const char *service)
{
	for (size_t k = 0; k < up->instances; k++)
		if (up->instance[k].catching_up && !strcmp(up->instance[k].row->service, service))
			return true;
	return false;
}

void reload_catch_up(struct instance *i)
{
	char bearer[KEY_HEX + 32];
	const char *const headers[] = { bearer, NULL };
	char path[160], query[96];

	if (!i->passed_by || i->catching_up || i->child.state != CHILD_READY || i->up->reload ||
	    i->up->loop->now_ms < i->later_ms || watch_leaves(i->up, i->row->service))
		return;
	i->catching_up = i->passed_by;
	i->passed_by = RELOAD_PASSED_NOT;
	snprintf(bearer, sizeof bearer, "Authorization: Bearer %s", i->up->c->key);
	if (i->catching_up == RELOAD_PASSED_BACK)
		snprintf(query, sizeof query, "step=rollback&version=%s&messages=%s", i->back_version,
			 i->back_messages);
	else
		snprintf(query, sizeof query, "what=%s&version=%s&messages=%s",
			 i->catching_up == RELOAD_PASSED_FILES ? "changed" : "messages", i->version, i->messages);
	reload_path(i->up, query, path, sizeof path);
	if (env_http_call(i->up->loop->ev, i->row->host, i->row->http_port, "POST", path, headers, "", 0, ANSWER_MS,
			  on_caught_up, i) < 0) {
		i->passed_by = i->catching_up;
		i->catching_up = RELOAD_PASSED_NOT;
	}
}
