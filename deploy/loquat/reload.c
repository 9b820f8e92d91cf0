#include "deploy/loquat/reload.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"

/*
 * New Lua for all instances of a service, all or none: first every instance tries and prepares it beside the code
 * that runs; only when all could, all switch. One that refuses makes all drop it, and one whose on_reload refuses the switch
 * makes those that had switched go back. An instance that dies meanwhile comes back with the files as they are then; one that
 * lives and was not ready meanwhile has read them before: it is reloaded by itself when it is ready. One that lives and does not
 * answer may have done a step or not: it is asked again, then all go back, and it too when it can be reached.
 *
 * New messages are everybody's: connectors tell their clients of them, callers write them. So the others prepare them too,
 * and all go by them before the first one switches its Lua: nobody is sent what it does not know.
 *
 * Each host has a supervisor, and somebody may reload at another one at the same time. What one has prepared an instance keeps for
 * it until an abort ends that reload, and refuses the others' steps (rpc/http_reload.c). One instance prepares first, the same
 * for all supervisors: who comes second is refused there, and does not stand in the way of the first at the rest.
 */
#define STEP_MS  15000
#define BRIEF_MS 2000
#define AGAIN_MS 200

struct reload {
	struct supervisor *up;
	struct env_http_request *request;
	char service[32], version[16], error[1200];
	int err;
	bool lua_only;     /* the messages stay as they are */
	char messages[16]; /* the version all have read */
	bool differ;       /* they have not */
	bool taking;       /* somebody goes by others than those */
	json_t *first;     /* {instance: true}, that prepares before the others */
	json_t *took;      /* {instance: true} */
	int other_err;     /* of an instance of another service; it counts if there are messages to take */
	char other_error[1200];
	json_t *list;    /* [{instance, version, previous}] */
	json_t *refused; /* {instance: true}, by whose on_reload: these have gone back by themselves */
};

/* ---- one step of all instances ------------------------------------------------------------------------------------- */

struct whole {
	struct reload_steps s;
	unsigned left;
};
struct part {
	struct whole *whole;
	struct instance *instance;
	pid_t pid;
	struct timer again;
	uint64_t until_ms;
	unsigned asked;
	char path[160];
};

bool reload_takes_part(const char *service, const struct instance *i)
{
	return !strcmp(i->row->service, service) && i->child.state == CHILD_READY && i->row->http_port;
}

static bool is_asked(const struct reload_steps *s, const struct instance *i)
{
	bool of_service = !strcmp(i->row->service, s->service);

	return reload_takes_part(i->row->service, i) && !json_object_get(s->but, i->row->id) &&
	       (!s->only || s->only == i) && (s->whom == RELOAD_ALL || of_service == (s->whom == RELOAD_OF_SERVICE));
}

static void whole_done(struct whole *w)
{
	if (--w->left)
		return;
	w->s.done(w->s.arg);
	free(w);
}

bool reload_lives(const struct instance *i)
{
	return i->child.state == CHILD_READY;
}

/* No connection, or it still does what it was asked for before the connection was lost: each step may be asked for again. */
static bool asks_again(const struct part *p, const struct env_http_answer *a)
{
	bool busy = p->asked > 1 && a->err == 0 && a->status == err_http(ERR_BUSY);

	return ((a->err < 0 && a->err != ERR_TIMEOUT) || busy) && !p->whole->s.brief && reload_lives(p->instance) &&
	       p->pid == p->instance->child.pid && p->whole->s.up->loop->now_ms < p->until_ms;
}

static void on_part(void *arg, const struct env_http_answer *a)
{
	struct part *p = arg;
	struct whole *w = p->whole;

	if (asks_again(p, a)) {
		loop_timer(w->s.up->loop, &p->again, AGAIN_MS);
		return;
	}
	if (w->s.on_part)
		w->s.on_part(w->s.arg, p->instance, a);
	free(p);
	whole_done(w);
}

static void part_ask(struct part *p)
{
	const struct supervisor *up = p->whole->s.up;
	const struct route_row *row = p->instance->row;
	char bearer[KEY_HEX + 32];
	const char *const headers[] = { bearer, NULL };

	p->asked++;
	snprintf(bearer, sizeof bearer, "Authorization: Bearer %s", up->c->key);
	if (env_http_call(up->loop->ev, row->host, row->http_port, "POST", p->path, headers, "", 0,
			  p->whole->s.brief ? BRIEF_MS : STEP_MS, on_part, p) < 0)
		on_part(p, &(struct env_http_answer){ .err = ERR_UNAVAILABLE });
}

static void on_again(struct timer *t, uint64_t now_ms)
{
	(void)now_ms;
	part_ask((struct part *)((char *)t - offsetof(struct part, again)));
}

void reload_path(struct supervisor *up, const char *step, char *out, size_t size)
{
	uint64_t name;

	if (!*up->name) {
		env_random(up->loop->env, &name, sizeof name);
		snprintf(up->name, sizeof up->name, "%016llx", (unsigned long long)name);
	}
	snprintf(out, size, "/admin/reload?%s&by=%s&turn=%llu", step, up->name, (unsigned long long)up->turn);
}

void reload_step_all(const struct reload_steps *s, const char *step)
{
	char query[96];

	struct whole *w = malloc(sizeof *w);

	assert(w);
	*w = (struct whole){ *s, 1 };
	snprintf(query, sizeof query, "step=%s", step);
	for (size_t i = 0; i < s->up->instances; i++) {
		struct instance *k = &s->up->instance[i];
		struct part *p;

		if (!is_asked(s, k))
			continue;
		p = malloc(sizeof *p);
		assert(p);
		*p = (struct part){ .whole = w, .instance = k, .pid = k->child.pid, .again.fire = on_again };
		p->until_ms = s->up->loop->now_ms + STEP_MS;
		reload_path(s->up, query, p->path, sizeof p->path);
		w->left++;
		part_ask(p);
	}
	whole_done(w);
}

/* ---- who was not ready ------------------------------------------------------------------------------------------------ */

static bool has_switched(const struct reload *l, const char *id)
{
	const json_t *one;
	size_t at;

	json_array_foreach(l->list, at, one)
	{
		if (!strcmp(json_string_value(json_object_get(one, "instance")), id))
			return !strcmp(json_string_value(json_object_get(one, "version")), l->version);
	}
	return false;
}

static void note_one_passed(const struct reload *l, struct instance *i)
{
	bool may_live = !i->here || i->child.state == CHILD_STARTING || i->child.state == CHILD_READY;
	bool of_service = !strcmp(i->row->service, l->service), took = json_object_get(l->took, i->row->id);

	may_live = may_live && i->row->http_port;
	if (of_service || json_object_size(l->took))
		snprintf(i->messages, sizeof i->messages, "%s", l->messages);
	if (of_service) {
		snprintf(i->version, sizeof i->version, "%s", l->version);
		i->passed_by = may_live && !has_switched(l, i->row->id) ? RELOAD_PASSED_FILES : RELOAD_PASSED_NOT;
	} else if (took && i->passed_by == RELOAD_PASSED_MESSAGES) {
		i->passed_by = RELOAD_PASSED_NOT;
	} else if (may_live && !took && json_object_size(l->took)) {
		if (!i->passed_by)
			i->passed_by = RELOAD_PASSED_MESSAGES;
		if (i->passed_by == RELOAD_PASSED_BACK && !i->then)
			i->then = RELOAD_PASSED_MESSAGES;
	}
}

/*
 * All that live and have not switched are given what the others have now, and nothing that was put in its place since. Who is not
 * alive will read the files as they are; of another host nobody here knows.
 */
static void note_passed_by(const struct reload *l)
{
	for (size_t k = 0; k < l->up->instances; k++)
		note_one_passed(l, &l->up->instance[k]);
}

/* ---- prepare, look at the figures, switch ---------------------------------------------------------------------------- */

/* Whom a reload, or the way back from one, has passed by, and who is not there yet. */
static json_t *who_follows(const struct supervisor *up)
{
	json_t *list = json_array();

	for (size_t k = 0; k < up->instances; k++) {
		const struct instance *i = &up->instance[k];

		if ((i->passed_by || i->catching_up) && (i->here || i->starts))
			json_array_append_new(list, json_string(i->row->id));
	}
	return list;
}

static void finish(void *arg)
{
	struct reload *l = arg;

	if (!l->up->http) { /* the request is gone with it */
	} else if (l->err < 0) {
		face_refuse(l->request, l->err, l->error);
	} else {
		note_passed_by(l);
		if (*l->version)
			watch_begin(l->up, l->service, l->version);
		face_json(l->request, 200,
			  json_pack("{s:s, s:O, s:o, s:{s:s, s:i}}", "service", l->service, "instances", l->list,
				    "follow", who_follows(l->up), "messages", "version", l->messages, "taken",
				    (int)json_object_size(l->took)));
	}
	l->up->reload = NULL;
	json_decref(l->list);
	json_decref(l->refused);
	json_decref(l->took);
	json_decref(l->first);
	free(l);
}

static void step(struct reload *l, enum reload_whom whom, const char *word,
		 void (*part)(void *arg, struct instance *i, const struct env_http_answer *a), void (*done)(void *arg))
{
	reload_step_all(
		&(struct reload_steps){
			.up = l->up, .service = l->service, .whom = whom, .on_part = part, .done = done, .arg = l },
		word);
}

/* What is prepared nowhere needs no end: of the others only if they were given messages. */
static void let_go(void *arg)
{
	struct reload *l = arg;

	l->up->turn++;
	reload_step_all(&(struct reload_steps){ .up = l->up,
						.service = l->service,
						.whom = l->taking || l->differ ? RELOAD_ALL : RELOAD_OF_SERVICE,
						.done = finish,
						.arg = l,
						.brief = true },
			"abort");
}

static int failure_of(const struct instance *i, const struct env_http_answer *a, char *error, size_t size)
{
	json_t *answer = a->err == 0 ? json_loadb(a->body, a->n, 0, NULL) : NULL;
	const char *message = json_string_value(json_object_get(answer, "message"));
	const char *word = json_string_value(json_object_get(answer, "error"));
	int err = word ? err_from_word(word) : ERR_UNAVAILABLE;

	snprintf(error, size, "%s: %s", i->row->id, message ? message : "it does not answer");
	json_decref(answer);
	return err ? err : ERR_FAILED;
}

static void note_failure(struct reload *l, const struct instance *i, const struct env_http_answer *a)
{
	if (l->err == 0)
		l->err = failure_of(i, a, l->error, sizeof l->error);
}

static void note_error(struct reload *l, const char *id, const char *why)
{
	if (l->err == 0) {
		l->err = ERR_FAILED;
		snprintf(l->error, sizeof l->error, "%s: %s", id, why);
	}
}

static void note_messages(struct reload *l, const json_t *answer)
{
	const json_t *messages = json_object_get(answer, "messages");
	const char *version = json_string_value(json_object_get(messages, "version"));
	const char *running = json_string_value(json_object_get(messages, "running"));

	if (!version || !running)
		return;
	if (!*l->messages)
		snprintf(l->messages, sizeof l->messages, "%s", version);
	l->differ |= strcmp(version, l->messages) != 0;
	l->taking |= strcmp(version, running) != 0;
}

/* All instances must have read the same files. */
static void on_prepared(void *arg, struct instance *i, const struct env_http_answer *a)
{
	struct reload *l = arg;

	if (a->err < 0 || a->status != 200) {
		note_failure(l, i, a);
		return;
	}
	json_t *answer = json_loadb(a->body, a->n, 0, NULL);
	const char *version = json_string_value(json_object_get(answer, "version"));

	if (version && !*l->version)
		snprintf(l->version, sizeof l->version, "%s", version);
	if (!version || strcmp(version, l->version))
		note_error(l, i->row->id, "the files changed during the reload: try again");
	note_messages(l, answer);
	json_decref(answer);
}

static void on_other_prepared(void *arg, struct instance *i, const struct env_http_answer *a)
{
	struct reload *l = arg;

	if ((a->err < 0 || a->status != 200) && l->other_err == 0) {
		l->other_err = failure_of(i, a, l->other_error, sizeof l->other_error);
	} else if (a->err == 0 && a->status == 200) {
		json_t *answer = json_loadb(a->body, a->n, 0, NULL);

		note_messages(l, answer);
		json_decref(answer);
	}
}

static bool goes_by(const struct env_http_answer *a, const char *messages)
{
	json_t *answer = json_loadb(a->body, a->n, 0, NULL);
	const char *running = json_string_value(json_object_get(json_object_get(answer, "messages"), "running"));
	bool same = running && !strcmp(running, messages);

	json_decref(answer);
	return same;
}

static void on_taken(void *arg, struct instance *i, const struct env_http_answer *a)
{
	struct reload *l = arg;

	if (a->err < 0 && !reload_lives(i))
		return;
	if (a->err < 0 || a->status != 200)
		note_failure(l, i, a);
	if (a->err < 0 || a->status == 200) /* perhaps */
		json_object_set_new(l->took, i->row->id, json_true());
	if (a->err == 0 && a->status == 200 && !goes_by(a, l->messages))
		note_error(l, i->row->id, "it does not go by the messages that were prepared: see its log");
}

/* One that died since has nothing prepared: it comes back with the files as they are. */
static void on_switched(void *arg, struct instance *i, const struct env_http_answer *a)
{
	struct reload *l = arg;
	json_t *answer;

	if (a->err < 0 && reload_lives(i))
		note_failure(l, i, a);
	if (a->err == 0 && a->status != 200) {
		note_failure(l, i, a);
		json_object_set_new(l->refused, i->row->id, json_true());
		return;
	}
	if (a->err < 0)
		return;
	answer = json_loadb(a->body, a->n, 0, NULL);
	const char *running = json_string_value(json_object_get(answer, "running"));

	if (*l->version && (!running || strcmp(running, l->version) != 0)) { /* it refused, and that was not heard */
		note_error(l, i->row->id, "it does not run what was prepared: see its log");
		json_decref(answer);
		return;
	}
	json_array_append_new(l->list, json_pack("{s:s, s:O, s:O}", "instance", i->row->id, "version",
						 json_object_get(answer, "running"), "previous",
						 json_object_get(answer, "previous")));
	json_decref(answer);
}

static void on_back(void *arg, struct instance *i, const struct env_http_answer *a)
{
	const struct reload *l = arg;

	reload_note_back(i, a, l->version, json_object_size(l->took) ? l->messages : "");
}

static void messages_back(void *arg)
{
	struct reload *l = arg;
	char back[64];

	snprintf(back, sizeof back, "rollback&messages=%s", l->messages);
	if (json_object_size(l->took)) {
		l->up->turn++; /* what was asked for before and comes late is too late */
		reload_back_elsewhere(l->up, l->version, l->messages);
		step(l, RELOAD_ALL, back, on_back, let_go);
	} else {
		let_go(l);
	}
}

static void all_switched(void *arg)
{
	struct reload *l = arg;
	char back[64];

	if (l->err == 0) {
		let_go(l);
		return;
	}
	l->up->turn++;
	snprintf(back, sizeof back, "rollback&version=%s", l->version);
	reload_back_elsewhere(l->up, l->version, "");
	reload_step_all(&(struct reload_steps){ .up = l->up,
						.service = l->service,
						.on_part = on_back,
						.done = messages_back,
						.arg = l,
						.but = l->refused },
			back);
}

static void all_taken(void *arg)
{
	struct reload *l = arg;

	if (l->err < 0)
		messages_back(l);
	else
		step(l, RELOAD_OF_SERVICE, "switch", on_switched, all_switched);
}

static void take_all(void *arg)
{
	struct reload *l = arg;

	if (l->taking)
		step(l, RELOAD_ALL, "messages", on_taken, all_taken);
	else
		all_taken(l);
}

static void all_prepared(void *arg)
{
	struct reload *l = arg;

	if (l->taking && l->other_err < 0 && l->err == 0) {
		l->err = l->other_err;
		snprintf(l->error, sizeof l->error, "%s", l->other_error);
	}
	if (l->taking && l->differ)
		note_error(l, "build/loquat.desc", "it is not the same on all hosts, or changed during the reload");
	if (l->err < 0)
		messages_back(l);
	else
		watch_baseline(l->up, l->service, take_all, l);
}

static void service_prepared(void *arg)
{
	struct reload *l = arg;

	if (l->err < 0)
		messages_back(l);
	else if (l->lua_only)
		all_prepared(l);
	else
		step(l, RELOAD_OTHERS, "prepare&what=messages", on_other_prepared, all_prepared);
}

static const char *prepare_of(const struct reload *l)
{
	return l->lua_only ? "prepare&what=lua" : "prepare";
}

static void first_prepared(void *arg)
{
	struct reload *l = arg;

	if (l->err < 0)
		messages_back(l);
	else
		reload_step_all(&(struct reload_steps){ .up = l->up,
							.service = l->service,
							.on_part = on_prepared,
							.done = service_prepared,
							.arg = l,
							.but = l->first },
				prepare_of(l));
}

void reload_begin(struct supervisor *up, const char *service, struct env_http_request *r)
{
	struct reload *l;
	char text[160];
	const char *what = env_http_query(r, "what");
	const struct instance *first = NULL;

	if (what && strcmp(what, "lua") != 0) {
		face_refuse(r, ERR_BAD_REQUEST, "what: expected lua, or nothing");
		return;
	}
	for (size_t i = up->instances; i-- > 0;)
		first = reload_takes_part(service, &up->instance[i]) ? &up->instance[i] : first;
	if (!first) {
		snprintf(text, sizeof text, "no instance of service \"%.40s\" is ready", service);
		face_refuse(r, ERR_NOT_FOUND, text);
		return;
	}
	if (up->reload || watch_leaves(up, service)) {
		face_refuse(r, ERR_BUSY,
			    up->reload ? "another reload is under way" : "all go back to the version before");
		return;
	}
	l = calloc(1, sizeof *l);
	assert(l);
	l->up = up;
	snprintf(l->service, sizeof l->service, "%s", service);
	l->request = r;
	l->lua_only = what != NULL;
	l->list = json_array();
	l->refused = json_object();
	l->took = json_object();
	l->first = json_object();
	json_object_set_new(l->first, first->row->id, json_true());
	up->reload = l;
	up->turn++;
	reload_step_all(&(struct reload_steps){ .up = up,
						.service = l->service,
						.on_part = on_prepared,
						.done = first_prepared,
						.arg = l,
						.only = first },
			prepare_of(l));
}

/* ---- who runs what ------------------------------------------------------------------------------------------------------ */

/* What it says of itself, and of the part of it that is reloaded; NULL: it has none. */
static json_t *row_of(const struct instance *i, const char *part)
{
	json_t *said = json_object_get(i->stats, part);

	if (i->child.state != CHILD_READY || !said)
		return NULL;
	return json_pack("{s:s, s:s, s:O, s:O, s:O}", "instance", i->row->id, "service", i->row->service, "version",
			 json_object_get(said, "version"), "previous", json_object_get(said, "previous"), "since_ms",
			 json_object_get(said, "since_ms"));
}

void reload_versions(struct supervisor *up, struct env_http_request *r)
{
	json_t *lua = json_array(), *messages = json_array(), *row;

	for (size_t k = 0; k < up->instances; k++) {
		const struct instance *i = &up->instance[k];

		if ((row = row_of(i, "lua"))) {
			json_object_set_new(row, "watch", watch_json(up, i->row->service));
			json_array_append_new(lua, row);
		}
		if ((row = row_of(i, "messages")))
			json_array_append_new(messages, row);
	}
	face_json(r, 200,
		  json_pack("{s:o, s:o, s:o}", "instances", lua, "follow", who_follows(up), "messages", messages));
}
