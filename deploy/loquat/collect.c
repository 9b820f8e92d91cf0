#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "deploy/loquat/supervisor.h"

/*
 * What the instances say in /stats: asked for when somebody wants to know, and now and then for the plots, so that
 * they are already full when a page opens. Nobody watching, it is asked rarely: an idle cluster is idle.
 */
#define ANSWER_MS      1000
#define SILENT_MS      3000  /* without an answer: its figures are of before. One late answer is a busy machine */
#define WATCHED_MS     10000 /* how long after the last look somebody counts as watching */
#define SAMPLE_MS      1000
#define SAMPLE_IDLE_MS 10000

struct collection {
	struct supervisor *up;
	void (*done)(void *arg);
	void *arg;
	unsigned left;
};
struct part {
	struct collection *whole;
	struct instance *instance;
	pid_t pid;
};

static void part_done(struct collection *k)
{
	if (--k->left)
		return;
	k->done(k->arg);
	free(k);
}

static void note_process(struct instance *i)
{
	uint64_t cpu = (uint64_t)json_integer_value(json_object_get(i->stats, "cpu_us"));
	double uptime = json_number_value(json_object_get(i->stats, "uptime_s"));

	if (i->cpu_us && cpu >= i->cpu_us && uptime > i->sampled_s + 0.2)
		i->cpu = (double)(cpu - i->cpu_us) / 1e6 / (uptime - i->sampled_s);
	else if (uptime <= i->sampled_s)
		i->cpu = 0; /* a new life */
	i->cpu_us = cpu;
	i->sampled_s = uptime;
}

static void on_stats(void *arg, const struct env_http_answer *a)
{
	struct part *p = arg;
	struct instance *i = p->instance;
	json_t *stats =
		a->err == 0 && a->status == 200 && i->child.pid == p->pid ? json_loadb(a->body, a->n, 0, NULL) : NULL;

	if (i->child.pid == p->pid)
		i->unheard = !stats;
	if (stats) {
		json_decref(i->stats);
		i->stats = stats;
		i->heard_ms = i->up->loop->now_ms;
		note_process(i);
	}
	part_done(p->whole);
	free(p);
}

static void ask_instance(struct collection *k, struct instance *i)
{
	struct part *p = malloc(sizeof *p);

	assert(p);
	*p = (struct part){ k, i, i->child.pid };
	k->left++;
	if (env_http_call(k->up->loop->ev, i->row->host, i->row->http_port, "GET", "/stats", NULL, NULL, 0, ANSWER_MS,
			  on_stats, p) < 0) {
		k->left--;
		free(p);
	}
}

static bool can_be_asked(const struct instance *i)
{
	bool runs = i->here ? i->child.pid && i->child.ready_ms : i->child.state == CHILD_READY;

	return runs && i->row->http_port;
}

void collect(struct supervisor *up, void (*done)(void *arg), void *arg)
{
	struct collection *k = malloc(sizeof *k);

	assert(k);
	*k = (struct collection){ up, done, arg, 1 };
	for (size_t i = 0; i < up->instances; i++)
		if (can_be_asked(&up->instance[i]))
			ask_instance(k, &up->instance[i]);
	part_done(k);
}

double collect_silent_s(const struct instance *i)
{
	uint64_t ms = i->stats && i->unheard ? i->up->loop->now_ms - i->heard_ms : 0;

	return ms >= SILENT_MS ? (double)ms / 1000 : 0;
}

/* ---- the sum: counts and rates add up; the middle is weighted by the counts, the tail is the worst one's ------------ */

static double number(const json_t *o, const char *name)
{
	return json_number_value(json_object_get(o, name));
}

static void set_sum(json_t *to, const json_t *from, const char *name)
{
	const json_t *v = json_object_get(from, name);

	if (json_is_integer(v))
		json_object_set_new(to, name, json_integer((json_int_t)(number(to, name) + number(from, name))));
	else
		json_object_set_new(to, name, json_real(number(to, name) + number(from, name)));
}

/* What players ask; remotes are what services ask each other for it. */
static bool is_players(const char *method)
{
	return strstr(method, "Handler.") != NULL;
}

static bool is_passed_on(const struct instance *i, const char *method)
{
	size_t n = strlen(i->row->service);

	return is_players(method) && !strcmp(i->row->service, "connector") &&
	       (strncmp(method, i->row->service, n) != 0 || method[n] != '.');
}

static void merge_method(json_t *to, const json_t *from)
{
	static const char *const middle[] = { "p50_us", "p90_us" }, *const worst[] = { "p99_us", "max_us" },
				 *const sums[] = { "count", "rate_1s", "rate_10s", "rate_60s" };
	double have = number(to, "count"), more = number(from, "count"), all = have + more;
	json_t *errors = json_object_get(to, "errors"), *v;
	const char *name;

	for (size_t i = 0; i < 2; i++) {
		double mean = all > 0 ? (number(to, middle[i]) * have + number(from, middle[i]) * more) / all : 0;
		double most =
			number(from, worst[i]) > number(to, worst[i]) ? number(from, worst[i]) : number(to, worst[i]);

		json_object_set_new(to, middle[i], json_integer((json_int_t)mean));
		json_object_set_new(to, worst[i], json_integer((json_int_t)most));
	}
	for (size_t i = 0; i < 4; i++)
		set_sum(to, from, sums[i]);
	json_object_foreach(json_object_get(from, "errors"), name, v)
		set_sum(errors, json_object_get(from, "errors"), name);
}

/*
 * What players were answered is known at the connectors: a service that hangs, or is cut off, counts nothing of what they did
 * not get from it.
 */
static void merge_told(json_t *methods, const struct instance *i)
{
	static const char *const zeroes[] = { "count",  "rate_1s", "rate_10s", "rate_60s",
					      "p50_us", "p90_us",  "p99_us",   "max_us" };
	const char *name, *word;
	json_t *m, *n;

	json_object_foreach(json_object_get(i->stats, "methods"), name, m)
	{
		json_t *mine = json_object_get(methods, name), *told = json_object_get(m, "errors");

		if (!is_passed_on(i, name) || !json_object_size(told))
			continue;
		if (!mine) {
			json_object_set_new(methods, name, mine = json_pack("{s:{}}", "errors"));
			for (size_t k = 0; k < sizeof zeroes / sizeof *zeroes; k++)
				json_object_set_new(mine, zeroes[k], json_integer(0));
		}
		json_object_foreach(told, word, n) set_sum(json_object_get(mine, "errors"), told, word);
	}
}

/* How fast it was says nothing of now; what it has counted so far stays counted. */
static void forget_rates(json_t *method)
{
	static const char *const rates[] = { "rate_1s", "rate_10s", "rate_60s" };

	for (size_t i = 0; i < sizeof rates / sizeof *rates; i++)
		json_object_set_new(method, rates[i], json_real(0));
}

/* own: of what an instance says only the methods of its own service, for connectors count what they pass on too. */
static void merge_methods(json_t *to, const struct instance *i, bool own)
{
	size_t n = strlen(i->row->service);
	const char *name;
	json_t *m;

	json_object_foreach(json_object_get(i->stats, "methods"), name, m)
	{
		json_t *mine = json_object_get(to, name), *its;

		if (own && (strncmp(name, i->row->service, n) != 0 || name[n] != '.'))
			continue;
		its = json_deep_copy(m);
		if (collect_silent_s(i) > 0)
			forget_rates(its);
		if (mine)
			merge_method(mine, its);
		else
			json_object_set(to, name, mine = its);
		json_decref(its);
		if (own && is_players(name) && strcmp(i->row->service, "connector") && strcmp(i->row->service, "gate"))
			json_object_clear(json_object_get(mine, "errors")); /* merge_told knows */
	}
}

/* Objects of plain numbers (sqllog, replay) and plain numbers themselves. */
static void merge_value(json_t *to, const char *name, json_t *v)
{
	const char *inner;
	json_t *w, *mine = json_object_get(to, name);

	if (json_is_object(v)) {
		if (!mine)
			json_object_set_new(to, name, mine = json_object());
		json_object_foreach(v, inner, w) merge_value(mine, inner, w);
	} else if (json_is_number(v)) {
		json_t *wrap = json_pack("{s:O}", name, v);

		if (!strcmp(name, "lag_ms")) {
			if (number(wrap, name) > number(to, name) || !mine)
				json_object_set(to, name, v);
		} else {
			set_sum(to, wrap, name);
		}
		json_decref(wrap);
	} else if (json_is_boolean(v)) {
		json_object_set_new(to, name, json_boolean(json_is_true(v) || json_is_true(mine)));
	}
}

/* How far a silent dbwriter is behind nobody knows. */
static void forget_lag(const struct supervisor *up, json_t *sum)
{
	json_t *replay = json_object_get(sum, "replay");

	for (size_t i = 0; i < up->instances; i++) {
		if (!collect_silent_s(&up->instance[i]) || !json_object_get(up->instance[i].stats, "replay"))
			continue;
		json_object_del(replay, "lag_records");
		json_object_del(replay, "lag_ms");
	}
}

json_t *collect_sum(struct supervisor *up, bool own_methods)
{
	static const char *const own[] = { "uptime_s", "epoch", "instance", "service", "methods" };
	json_t *sum = json_object(), *methods = json_object(), *silent = json_object(), *v;
	const char *name;

	json_object_set_new(sum, "instance", json_string("supervisor"));
	json_object_set_new(sum, "uptime_s", json_real((double)(up->loop->now_ms - up->started_ms) / 1000));
	json_object_set_new(sum, "methods", methods);
	json_object_set_new(sum, "silent_s", silent);
	for (size_t i = 0; i < up->instances; i++) {
		if (collect_silent_s(&up->instance[i]) > 0)
			json_object_set_new(silent, up->instance[i].row->id,
					    json_real(collect_silent_s(&up->instance[i])));
		json_object_foreach(up->instance[i].stats, name, v)
		{
			bool special = false;

			for (size_t k = 0; k < sizeof own / sizeof *own; k++)
				special |= !strcmp(name, own[k]);
			if (!special)
				merge_value(sum, name, v);
		}
		merge_methods(methods, &up->instance[i], own_methods);
	}
	for (size_t i = 0; i < up->instances && own_methods; i++)
		merge_told(methods, &up->instance[i]);
	forget_lag(up, sum);
	return sum;
}

/* ---- samples for the plots --------------------------------------------------------------------------------------------- */

/* Failures of ours; what a player asked wrongly (denied, not_found, bad_request) is none. */
static double sum_failures(const json_t *methods)
{
	static const char *const words[] = { "timeout", "unavailable", "busy", "failed", "unknown" };
	double n = 0;
	const char *name;
	json_t *m;

	json_object_foreach((json_t *)(uintptr_t)methods, name, m)
	{
		for (size_t i = 0; i < sizeof words / sizeof *words; i++)
			n += number(json_object_get(m, "errors"), words[i]);
	}
	return n;
}

static void sample_take(struct supervisor *up)
{
	json_t *sum = collect_sum(up, true), *methods = json_object_get(sum, "methods"), *m;
	double errors = sum_failures(methods), seconds = (double)(up->loop->now_ms - up->sampled_ms) / 1000;
	struct sample s = { .errors = errors > up->errors && seconds > 0 ? (errors - up->errors) / seconds : 0 };
	const char *name;

	up->errors = errors; /* it falls when an instance begins anew */
	up->sampled_ms = up->loop->now_ms;
	usage_sample(&up->db_usage, up->db_child.pid, up->loop->now_ms);

	json_object_foreach(methods, name, m)
	{
		if (is_players(name))
			s.requests += number(m, "rate_1s");
		if (number(m, "rate_10s") > 0 && number(m, "p99_us") > s.p99_us)
			s.p99_us = number(m, "p99_us");
	}
	m = json_object_get(json_object_get(sum, "replay"), "lag_records");
	s.lag = m || !up->samples ? json_number_value(m) : up->history[(up->samples - 1) % HISTORY].lag;
	s.sessions = number(sum, "sessions");
	up->history[up->samples++ % HISTORY] = s;
	json_decref(sum);
}

static void on_sampled(void *arg)
{
	struct supervisor *up = arg;
	bool watched = up->watched_ms && up->loop->now_ms - up->watched_ms < WATCHED_MS;

	if (up->phase == PHASE_STOPPING)
		return;
	sample_take(up);
	loop_timer(up->loop, &up->sampling, watched ? SAMPLE_MS : SAMPLE_IDLE_MS);
}

static void on_sampling(struct timer *t, uint64_t now_ms)
{
	struct supervisor *up = (struct supervisor *)((char *)t - offsetof(struct supervisor, sampling));

	(void)now_ms;
	collect(up, on_sampled, up);
}

void collect_start(struct supervisor *up)
{
	up->sampling.fire = on_sampling;
	loop_timer(up->loop, &up->sampling, SAMPLE_MS);
}

void collect_watch(struct supervisor *up)
{
	bool watched = up->watched_ms && up->loop->now_ms - up->watched_ms < WATCHED_MS;

	up->watched_ms = up->loop->now_ms;
	if (!watched && up->sampling.fire && up->phase != PHASE_STOPPING)
		loop_timer(up->loop, &up->sampling, 0);
}

void collect_stop(struct supervisor *up)
{
	loop_timer_stop(up->loop, &up->sampling);
	for (size_t i = 0; i < up->instances; i++) {
		json_decref(up->instance[i].stats);
		up->instance[i].stats = NULL;
	}
}
