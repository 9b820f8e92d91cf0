/*
 * A sampling profiler: another thread ticks; a tick interrupts the worker, which sets a hook that fires at the next
 * instruction and counts the stack it finds. What runs in C is counted for the Lua line that called it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/luahost_private.h"

enum {
	STACKS = 4096, /* a power of two; more different ones become "(others)" */
	FRAMES = 60,
	STACK_BYTES = 2048,
};

struct luaprofile {
	struct stack {
		char *text;
		uint64_t count;
	} stack[STACKS];
	unsigned stacks;
	uint64_t samples, missed, others;
	_Atomic uint64_t ticks, idle; /* the ticking thread's */
};

int luahost_profile_begin(struct luahost *h)
{
	if (h->counting)
		return ERR_UNAVAILABLE;
	if (h->profile)
		return ERR_BUSY;
	struct luaprofile *p = calloc(1, sizeof *p);
	if (!p)
		return ERR_NOMEM;
	atomic_store_explicit(&h->profile, p, memory_order_release); /* pairs with the tick's load */
	return 0;
}

/* ---- a sample ---------------------------------------------------------------------------------------------- */

static struct stack *slot_of(struct luaprofile *p, const char *text)
{
	uint32_t at = 2166136261u;
	for (const char *c = text; *c; c++)
		at = (at ^ (unsigned char)*c) * 16777619u;
	for (at &= STACKS - 1; p->stack[at].text && strcmp(p->stack[at].text, text) != 0;)
		at = (at + 1) & (STACKS - 1);
	return &p->stack[at];
}

static void count_stack(struct luaprofile *p, const char *text)
{
	struct stack *s = slot_of(p, text);
	p->samples++;
	if (!s->text && p->stacks == STACKS / 2) {
		p->others++;
		return;
	}
	if (!s->text) {
		s->text = strdup(text);
		p->stacks += s->text != NULL;
	}
	s->count++;
}

static size_t add_frame(lua_State *L, int level, char *out, size_t left)
{
	lua_Debug ar;
	int n;
	if (!lua_getstack(L, level, &ar) || !lua_getinfo(L, "Sn", &ar))
		return 0;
	if (*ar.what == 'C')
		n = snprintf(out, left, ";[C]_%s", ar.name ? ar.name : "?");
	else
		n = snprintf(out, left, ";%s@%s:%d",
			     ar.name           ? ar.name
			     : *ar.what == 'm' ? "file"
					       : "function",
			     ar.short_src, ar.linedefined);
	return n < 0 ? 0 : (size_t)n < left ? (size_t)n : left - 1;
}

/* Outermost first, as flame graphs want it; frames hold no spaces or semicolons. */
static void take(lua_State *L, struct luaprofile *p, const char *task)
{
	char text[STACK_BYTES];
	int levels = 0;
	lua_Debug ar;
	while (levels < FRAMES && lua_getstack(L, levels, &ar))
		levels++;
	if (levels > 1 && lua_getstack(L, levels - 1, &ar) && lua_getinfo(L, "Sn", &ar) && *ar.what == 'C' && !ar.name)
		levels--; /* the host's own, in which each task begins */
	size_t n = (size_t)snprintf(text, sizeof text, "%s", task);
	for (int i = levels - 1; i >= 0 && n + 1 < sizeof text; i--)
		n += add_frame(L, i, text + n, sizeof text - n);
	for (char *c = text; *c; c++)
		if (*c == ' ')
			*c = '_';
	count_stack(p, text);
}

static void on_sample(lua_State *L, lua_Debug *ar)
{
	struct luahost *h = luahost_of(L);
	(void)ar;
	lua_sethook(L, NULL, 0, 0);
	if (!h->sampling || !h->profile)
		return; /* it was given up when its turn ended */
	h->sampling = 0;
	const struct luatask *t = luahost_current(h);
	take(L, h->profile, t && t->job->name ? t->job->name : "(no_task)");
}

/* In a signal handler on the worker's own thread. */
static void on_interrupt(void *arg)
{
	struct luahost *h = arg;
	const struct luarun *r = luahost_run(h);
	if (!r || h->over || h->sampling || !h->profile)
		return;
	h->sampling = h->attention = 1;
	lua_sethook(r->L, on_sample, LUA_MASKCOUNT, 1);
}

void luahost_profile_give_up(struct luahost *h, lua_State *L)
{
	h->sampling = 0;
	if (h->profile)
		h->profile->missed++;
	if (!h->over)
		lua_sethook(L, NULL, 0, 0);
}

void luahost_profile_tick(struct luahost *h)
{
	struct luaprofile *p = atomic_load_explicit(&h->profile, memory_order_acquire);
	if (!p)
		return;
	atomic_fetch_add_explicit(&p->ticks, 1, memory_order_relaxed);
	if (luahost_run(h))
		env_loop_interrupt(h->o.loop->ev, on_interrupt, h);
	else
		atomic_fetch_add_explicit(&p->idle, 1, memory_order_relaxed);
}

void luahost_profile_end(struct luahost *h, struct buf *out)
{
	struct luaprofile *p = h->profile;
	if (!p)
		return;
	h->profile = NULL;
	h->sampling = 0;
	for (size_t i = 0; i < STACKS; i++) {
		if (!p->stack[i].text)
			continue;
		buf_addf(out, "%s %llu\n", p->stack[i].text, (unsigned long long)p->stack[i].count);
		free(p->stack[i].text);
	}
	uint64_t ticks = atomic_load(&p->ticks), lua = p->samples + p->missed;
	if (p->others)
		buf_addf(out, "(others) %llu\n", (unsigned long long)p->others);
	if (ticks > lua)
		buf_addf(out, "(not_in_Lua) %llu\n", (unsigned long long)(ticks - p->samples));
	free(p);
}
