#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "deploy/loquat/control.h"
#include "deploy/loquat/supervisor.h"

/*
 * How much the processes of the cluster log: POST /admin/loglevel?level=LEVEL[&id=ID|SERVICE] on the supervisor asks
 * each that it means for the same, on whichever host it runs, and `loquat loglevel` asks the supervisor.
 */
#define LEVEL_MS 2000

const char loglevel_help[] = "\n  LEVEL  debug, info, warn or error\n"
			     "  ID     an instance or a service; without it all of the cluster\n"
			     "\n  Until its next start: log.level in the configuration is what a process begins with.\n"
			     "  Exit status: 1: one of them does not run, or does not answer.\n";

struct leveling {
	struct supervisor *up;
	struct env_http_request *request;
	json_t *changed, *silent;
	unsigned left;
};
struct leveled {
	struct leveling *whole;
	const struct instance *instance;
};

static void settle(struct leveling *l)
{
	if (--l->left)
		return;
	if (!l->up->http) { /* the request is gone with it */
		json_decref(l->changed);
		json_decref(l->silent);
	} else {
		face_json(l->request, 200, json_pack("{s:o, s:o}", "changed", l->changed, "silent", l->silent));
	}
	free(l);
}

static void on_answer(void *arg, const struct env_http_answer *a)
{
	struct leveled *one = arg;
	struct leveling *l = one->whole;
	bool done = a->err == 0 && a->status == 200;

	json_array_append_new(done ? l->changed : l->silent, json_string(one->instance->row->id));
	free(one);
	settle(l);
}

static void tell(struct leveling *l, const struct instance *i, const char *path)
{
	char bearer[KEY_HEX + 32];
	const char *const headers[] = { bearer, NULL };
	struct leveled *one = malloc(sizeof *one);

	assert(one);
	*one = (struct leveled){ l, i };
	l->left++;
	snprintf(bearer, sizeof bearer, "Authorization: Bearer %s", l->up->c->key);
	if (env_http_call(l->up->loop->ev, i->row->host, i->row->http_port, "POST", path, headers, "", 0, LEVEL_MS,
			  on_answer, one) < 0)
		on_answer(one, &(struct env_http_answer){ .err = ERR_UNAVAILABLE });
}

/* One that was not started, on purpose, need not answer. */
static bool is_meant(const struct instance *i, const char *id)
{
	bool named = !*id || !strcmp(id, i->row->id) || !strcmp(id, i->row->service);

	return named && i->row->http_port && (i->child.state != CHILD_STOPPED || !strcmp(id, i->row->id));
}

void loglevel_post(struct supervisor *up, struct env_http_request *r)
{
	const char *word = env_http_query(r, "level"), *id = env_http_query(r, "id");
	int level = word ? log_level_parse(word) : ERR_BAD_REQUEST;
	struct leveling *l;
	char path[64], text[160];
	unsigned meant = 0;

	id = id ? id : "";
	for (size_t i = 0; i < up->instances; i++)
		meant += is_meant(&up->instance[i], id);
	if (level < 0) {
		face_refuse(r, ERR_BAD_REQUEST, "level: expected debug, info, warn or error");
		return;
	}
	if (!meant) {
		snprintf(text, sizeof text, "no instance or service \"%.60s\" of the cluster's file runs", id);
		face_refuse(r, ERR_NOT_FOUND, text);
		return;
	}
	if (!*id && up->log)
		log_level_set(up->log, (enum log_level)level);
	l = malloc(sizeof *l);
	assert(l);
	*l = (struct leveling){ up, r, json_array(), json_array(), 1 };
	snprintf(path, sizeof path, "/admin/loglevel?level=%s", word);
	for (size_t i = 0; i < up->instances; i++)
		if (is_meant(&up->instance[i], id))
			tell(l, &up->instance[i], path);
	settle(l);
}

/* ---- the command ----------------------------------------------------------------------------------------------------- */

static void say(const json_t *ids, const char *what)
{
	const json_t *id;
	size_t i;

	json_array_foreach(ids, i, id) printf("%s: %s\n", json_string_value(id), what);
}

int command_loglevel(struct cluster *c, int argc, char **argv)
{
	struct buf path = BUF_INIT;
	json_t *answer;

	if (argc < 2 || argc > 3 || log_level_parse(argv[1]) < 0)
		return complain(
			"loglevel: expected debug, info, warn or error, then an instance or a service or nothing "
			"(loquat loglevel --help)");
	buf_addf(&path, "/admin/loglevel?level=%s&id=", argv[1]);
	url_add(&path, argc > 2 ? argv[2] : "");
	int err = supervisor_ask(c, "POST", buf_cstr(&path), &answer);

	buf_release(&path);
	if (err < 0)
		return 1;
	const json_t *silent = json_object_get(answer, "silent");

	say(json_object_get(answer, "changed"), argv[1]);
	say(silent, "does not answer: its log goes on as before");
	err = json_array_size(silent) > 0;
	json_decref(answer);
	return err;
}
