#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/env_sim_private.h"
/*
 * The world: the clock, the heap of events, chance, the trace.
 */

static struct sim *the_world; /* one at a time: malloc and the fibers must find it */

struct sim *sim_current(void)
{
	return the_world;
}

/* ---- chance: xoshiro256** (Blackman, Vigna 2018), seeded by splitmix64 ------------------------------------ */

static uint64_t splitmix(uint64_t *x)
{
	uint64_t z = (*x += 0x9E3779B97F4A7C15ull);
	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
	z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
	return z ^ (z >> 31);
}

static void rng_seed(struct rng *r, uint64_t seed)
{
	for (int i = 0; i < 4; i++)
		r->s[i] = splitmix(&seed);
}

static uint64_t rotl(uint64_t x, int k)
{
	return (x << k) | (x >> (64 - k));
}

uint64_t rng_next(struct rng *r)
{
	uint64_t *s = r->s, result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotl(s[3], 45);
	return result;
}

uint64_t rng_below(struct rng *r, uint64_t below)
{
	return below ? (uint64_t)(((unsigned __int128)rng_next(r) * below) >> 64) : 0;
}

uint64_t rng_between(struct rng *r, uint64_t min, uint64_t max)
{
	return max <= min ? min : min + rng_below(r, max - min + 1);
}

bool rng_chance(struct rng *r, uint32_t ppm)
{
	return ppm && rng_below(r, 1000000) < ppm;
}

static uint64_t mix(uint64_t h, uint64_t v)
{
	h = (h ^ v) * 0x9FB21C651E98DF25ull;
	return h ^ (h >> 32);
}

uint64_t hash_bytes(uint64_t h, const void *p, size_t n)
{
	const unsigned char *at = p;
	uint64_t v, lane[4] = { h, h + 1, h + 2, h + 3 };
	for (; n >= 32; n -= 32) /* four at a time: a multiplication waits for its own lane only */
		for (int i = 0; i < 4; i++, at += 8) {
			memcpy(&v, at, 8);
			lane[i] = mix(lane[i], v);
		}
	h = lane[0] ^ rotl(lane[1], 16) ^ rotl(lane[2], 32) ^ rotl(lane[3], 48);
	for (; n >= 8; n -= 8, at += 8) {
		memcpy(&v, at, 8);
		h = mix(h, v);
	}
	v = n;
	while (n--)
		v = v << 8 | *at++;
	return mix(h, v);
}

/* ---- objects ------------------------------------------------------------------------------------------------ */

void obj_init(struct obj *o, void (*release)(struct obj *o))
{
	o->refs = 1;
	o->dead = false;
	o->release = release;
}

void obj_ref(struct obj *o)
{
	o->refs++;
}

void obj_unref(struct obj *o)
{
	assert(o->refs > 0);
	if (--o->refs == 0)
		o->release(o);
}

void obj_kill(struct obj *o)
{
	assert(!o->dead);
	o->dead = true;
	obj_unref(o);
}

void obj_free(struct obj *o)
{
	w_free(o);
}

/* ---- the heap of events ---------------------------------------------------------------------------------------- */

static bool before(const struct event *a, const struct event *b)
{
	return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

void w_push(struct sim *w, uint64_t at, void (*fn)(struct sim *w, void *obj, uint64_t n), struct obj *obj, uint64_t n)
{
	struct event e = { at < w->now ? w->now : at, w->seq++, fn, obj, n };
	if (w->heap_n == w->heap_cap) {
		w->heap_cap = w->heap_cap ? w->heap_cap * 2 : 256;
		w->heap = w_realloc(w->heap, w->heap_cap * sizeof(*w->heap));
	}
	if (obj)
		obj_ref(obj);
	size_t i = w->heap_n++;
	for (; i && before(&e, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
		w->heap[i] = w->heap[(i - 1) / 2];
	w->heap[i] = e;
}

static struct event pop(struct sim *w)
{
	struct event first = w->heap[0], last = w->heap[--w->heap_n];
	size_t i = 0, c;
	while ((c = 2 * i + 1) < w->heap_n) {
		if (c + 1 < w->heap_n && before(&w->heap[c + 1], &w->heap[c]))
			c++;
		if (!before(&w->heap[c], &last))
			break;
		w->heap[i] = w->heap[c];
		i = c;
	}
	w->heap[i] = last;
	return first;
}

uint64_t w_now(struct sim *w)
{
	return w->now + (w->fiber ? w->fiber->burst_ns : 0);
}

void w_spend(struct sim *w, uint64_t ns)
{
	if (w->fiber)
		w->fiber->burst_ns += ns;
}

struct env *w_env(struct sim *w)
{
	return w->fiber ? w->fiber->env : NULL;
}

bool sim_step(struct sim *w)
{
	assert(!w->fiber && "the world is run from outside only");
	if (!w->heap_n)
		return false;
	struct event e = pop(w);
	w->now = e.at;
	w->handled++;
	if (!e.obj || !e.obj->dead)
		e.fn(w, e.obj, e.n);
	if (e.obj)
		obj_unref(e.obj);
	return true;
}

bool sim_until(struct sim *w, uint64_t ms, bool (*done)(void *arg), void *arg)
{
	uint64_t end = w->now + ms * 1000000;
	for (;;) {
		if (w->failure)
			return false;
		if (done && done(arg))
			return true;
		if (!w->heap_n || w->heap[0].at > end)
			break;
		sim_step(w);
	}
	w->now = end;
	return false;
}

bool sim_run_ms(struct sim *w, uint64_t ms)
{
	sim_until(w, ms, NULL, NULL);
	return !w->failure;
}

struct at {
	struct obj obj;
	void (*fn)(void *arg);
	void *arg;
};

static void on_at(struct sim *w, void *obj, uint64_t n)
{
	struct at *at = obj;
	(void)w, (void)n;
	at->fn(at->arg);
	obj_kill(&at->obj);
}

void sim_at(struct sim *w, uint64_t in_us, void (*fn)(void *arg), void *arg)
{
	struct at *at = w_alloc(sizeof(*at));
	obj_init(&at->obj, obj_free);
	at->fn = fn;
	at->arg = arg;
	w_push(w, w_now(w) + in_us * 1000, on_at, &at->obj, 0);
}

/* ---- trace ------------------------------------------------------------------------------------------------------ */

void w_note(struct sim *w, const char *kind, uint64_t a, uint64_t b)
{
	uint64_t h = mix(w->hash, w_now(w));
	w->hash = mix(mix(hash_bytes(h, kind, strlen(kind)), a), b);
}

static void line(struct sim *w, const char *fmt, va_list ap)
{
	uint64_t ns = w_now(w);
	char *out = w->lines[w->lines_n++ % SIM_TRACE_LINES];
	struct fiber *f = w->fiber;
	int n = snprintf(out, sizeof(*w->lines), "%5llu.%09llu %s%s%s ", (unsigned long long)(ns / 1000000000),
			 (unsigned long long)(ns % 1000000000), f ? f->env->p->name : "-", f ? "/" : "",
			 f ? (f->loop ? f->loop->name : "main") : "");
	if (n > 0 && (size_t)n < sizeof(*w->lines))
		vsnprintf(out + n, sizeof(*w->lines) - (size_t)n, fmt, ap);
}

void w_line(struct sim *w, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	line(w, fmt, ap);
	va_end(ap);
}

void sim_trace(struct sim *w, const char *fmt, ...)
{
	va_list ap;
	if (!w->verbose)
		return;
	va_start(ap, fmt);
	line(w, fmt, ap);
	va_end(ap);
}

void sim_verbose(struct sim *w, bool on)
{
	if (on && !w->lines)
		w->lines = w_alloc(SIM_TRACE_LINES * sizeof(*w->lines));
	w->verbose = on;
}

void sim_trace_print(struct sim *w)
{
	uint64_t from = w->lines_n > SIM_TRACE_LINES ? w->lines_n - SIM_TRACE_LINES : 0;
	for (uint64_t i = from; w->lines && i < w->lines_n; i++)
		printf("# %s\n", w->lines[i % SIM_TRACE_LINES]);
}

void sim_fail(struct sim *w, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	w_say(w, "FAILED %s", text);
	if (!w->failure)
		w->failure = w_strdup(text);
}

const char *sim_failure(const struct sim *w)
{
	return w->failure;
}

struct sim_scope sim_outside(void)
{
	return (struct sim_scope){ region_enter(NULL) };
}

void sim_inside(struct sim_scope scope)
{
	region_enter(scope.was);
}

/* ---- a world from a seed -------------------------------------------------------------------------------------------- */

/* One of a few magnitudes: seeds differ in character, not only in order (swarm testing). */
static uint32_t pick(struct rng *r, unsigned n, const uint32_t *of)
{
	return of[rng_below(r, n)];
}
#define PICK(r, ...) pick(r, sizeof((uint32_t[]){ __VA_ARGS__ }) / sizeof(uint32_t), (uint32_t[]){ __VA_ARGS__ })

static void draw_chances(struct sim_chances *c, struct rng *r)
{
	*c = (struct sim_chances){
		.wake_us_max = PICK(r, 5, 20, 200),
		.hiccup_ppm = PICK(r, 0, 0, 100, 1000),
		.hiccup_us_max = PICK(r, 5000, 50000),
		.delay_us_min = PICK(r, 5, 20, 100),
		.delay_us_max = PICK(r, 100, 500, 5000),
		.spike_ppm = PICK(r, 0, 100, 2000),
		.spike_us_max = PICK(r, 20000, 200000),
		.split_ppm = PICK(r, 0, 10000, 300000),
		.short_ppm = PICK(r, 0, 10000, 200000),
		.reset_ppm = PICK(r, 0, 0, 20, 500),
		.buffer_min = PICK(r, 4096, 65536),
		.buffer_max = PICK(r, 65536, 262144),
		.write_us_max = PICK(r, 20, 200, 2000),
		.sync_us_min = PICK(r, 50, 500),
		.sync_us_max = PICK(r, 500, 5000, 30000),
		.query_us_min = PICK(r, 50, 300),
		.query_us_max = PICK(r, 500, 5000, 50000),
		.db_cut_ppm = PICK(r, 0, 0, 1000, 10000),
		.commit_lost_ppm = PICK(r, 0, 0, 5000, 50000),
		.deadlock_ppm = PICK(r, 0, 0, 1000, 10000),
		.db_no_arrays = PICK(r, 0, 0, 1),
	};
}

static const struct sim_chances calm = {
	.wake_us_max = 5,
	.delay_us_min = 20,
	.delay_us_max = 100,
	.buffer_min = 65536,
	.buffer_max = 65536,
	.write_us_max = 20,
	.sync_us_min = 50,
	.sync_us_max = 500,
	.query_us_min = 50,
	.query_us_max = 500,
};

struct sim_chances *sim_chances(struct sim *w)
{
	return &w->chances;
}

void sim_calm(struct sim *w)
{
	w->chances = calm;
	w->failplans = NULL;
}

void sim_reseed(struct sim *w, uint64_t seed)
{
	uint64_t x = seed;
	struct rng *streams[] = { &w->rng_sched, &w->rng_net,  &w->rng_disk, &w->rng_db,
				  &w->rng_app,   &w->rng_test, &w->rng_fail };
	for (size_t i = 0; i < sizeof(streams) / sizeof(*streams); i++)
		rng_seed(streams[i], splitmix(&x));
	w->seed = seed;
	w_note(w, "seed", seed, 0);
	draw_chances(&w->chances, &w->rng_sched);
}

struct sim *sim_new(uint64_t seed)
{
	assert(!the_world && "one world at a time");
	region_reset(region_get(SIM_WORLD_SLOT));
	struct sim *w = w_alloc(sizeof(*w));
	w->pid_next = 1000;
	w->process_count = 2;
	w->processes_last = &w->processes;
	w->slots[0] = 1ull << SIM_WORLD_SLOT;
	the_world = w;
	w->db = db_new(w);
	sim_reseed(w, seed);
	return w;
}

void sim_free(struct sim *w)
{
	if (!w)
		return;
	assert(w == the_world && !w->fiber);
	the_world = NULL;
	region_reset(region_get(SIM_WORLD_SLOT)); /* all of it, whatever points where */
}

void sim_user_set(struct sim *w, void *user)
{
	w->user = user;
}

void *sim_user(const struct sim *w)
{
	return w->user;
}

uint64_t sim_seed(const struct sim *w)
{
	return w->seed;
}
uint64_t sim_now_ns(const struct sim *w)
{
	return w->now;
}
uint64_t sim_events(const struct sim *w)
{
	return w->handled;
}
uint64_t sim_hash(const struct sim *w)
{
	return w->hash;
}
uint64_t sim_random(struct sim *w, uint64_t below)
{
	return rng_below(&w->rng_test, below);
}
uint64_t sim_between(struct sim *w, uint64_t min, uint64_t max)
{
	return rng_between(&w->rng_test, min, max);
}
bool sim_chance(struct sim *w, uint32_t ppm)
{
	return rng_chance(&w->rng_test, ppm);
}

void sim_root(struct sim *w, const char *dir)
{
	struct text_pair *root = w_alloc(sizeof(*root));
	root->value = w_strdup(dir);
	root->next = w->roots;
	w->roots = root;
}
