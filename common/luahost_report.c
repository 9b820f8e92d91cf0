/* What went wrong: the words of an error, and its line in the log. */
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/luahost_private.h"

enum {
	LOOKED_AT = 64, /* of an error's fields */
	SHOWN = 8,
};

/* ---- an error that is a table: its fields that are plain, sorted ------------------------------------------ */

struct field {
	const char *name; /* NULL: an element */
	size_t n;
	lua_Integer index;
	bool is_whole;
	int type;
	const char *text;
	size_t text_n;
	lua_Integer whole;
	lua_Number number; /* a truth's too */
};

/* Key and value are on top. They stay in the table, so what is kept of them stays as well. */
static bool read_field(lua_State *L, struct field *f)
{
	*f = (struct field){ .type = lua_type(L, -1) };
	if (lua_type(L, -2) == LUA_TSTRING)
		f->name = lua_tolstring(L, -2, &f->n);
	else if (lua_isinteger(L, -2))
		f->index = lua_tointeger(L, -2);
	else
		return false;
	if (f->type == LUA_TSTRING)
		f->text = lua_tolstring(L, -1, &f->text_n);
	else if (f->type == LUA_TBOOLEAN)
		f->whole = lua_toboolean(L, -1);
	else if (f->type != LUA_TNUMBER)
		return false;
	else if ((f->is_whole = lua_isinteger(L, -1)))
		f->whole = lua_tointeger(L, -1);
	else
		f->number = lua_tonumber(L, -1);
	return true;
}

static int by_key(const void *a, const void *b)
{
	const struct field *x = a, *y = b;
	if (!x->name || !y->name)
		return x->name ? 1 : y->name ? -1 : (x->index > y->index) - (x->index < y->index);
	int order = memcmp(x->name, y->name, x->n < y->n ? x->n : y->n);
	return order ? order : (x->n > y->n) - (x->n < y->n);
}

static void show_number(struct buf *out, bool is_whole, lua_Integer whole, lua_Number number)
{
	if (is_whole)
		buf_addi(out, whole);
	else
		buf_addf(out, "%.14g", number);
}

static void show_field(struct buf *out, const struct field *f)
{
	if (f->name)
		lua_path_show(out, f->name, f->n);
	else
		buf_addf(out, "[%lld]", (long long)f->index);
	buf_addstr(out, " = ");
	if (f->type == LUA_TBOOLEAN)
		buf_addstr(out, f->whole ? "true" : "false");
	if (f->type == LUA_TNUMBER)
		show_number(out, f->is_whole, f->whole, f->number);
	if (f->type != LUA_TSTRING)
		return;
	buf_addch(out, '"');
	lua_path_show(out, f->text, f->text_n);
	buf_addch(out, '"');
}

static void show_table(lua_State *L, struct buf *out)
{
	struct field field[LOOKED_AT];
	size_t n = 0, looked_at = 0;
	for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
		if (looked_at++ == LOOKED_AT) {
			lua_pop(L, 2);
			break;
		}
		n += read_field(L, &field[n]);
	}
	qsort(field, n, sizeof *field, by_key);
	buf_addch(out, '{');
	for (size_t i = 0; i < n && i < SHOWN; i++) {
		buf_addstr(out, i ? ", " : "");
		show_field(out, &field[i]);
	}
	if (looked_at > n || n > SHOWN)
		buf_addstr(out, n ? ", ..." : "...");
	buf_addch(out, '}');
}

/* ---- the words of an error ---------------------------------------------------------------------------------- */

/* Of the error on top, without allocating in Lua; nothing of the script's runs. */
static void show(lua_State *L, char *out, size_t size)
{
	struct buf b = BUF_INIT;
	switch (lua_type(L, -1)) {
	case LUA_TSTRING: buf_addstr(&b, lua_tostring(L, -1)); break;
	case LUA_TNUMBER: show_number(&b, lua_isinteger(L, -1), lua_tointeger(L, -1), lua_tonumber(L, -1)); break;
	case LUA_TTABLE:
		if (lua_checkstack(L, 4)) {
			buf_addstr(&b, "an error that is a table: ");
			show_table(L, &b);
			break;
		} /* fall through */
	default: buf_addf(&b, "an error that is a %s", luaL_typename(L, -1)); break;
	}
	snprintf(out, size, "%s", buf_cstr(&b));
	buf_release(&b);
}

struct said {
	lua_State *co; /* on whose top the error is */
	char *out;
	size_t size;
};

static int say(lua_State *L, void *arg)
{
	struct said *s = arg;
	if (!lua_checkstack(s->co, 1))
		return 0;
	lua_pushvalue(s->co, -1);
	lua_xmove(s->co, L, 1);
	if (luaL_getmetafield(L, -1, "__tostring") == LUA_TNIL)
		return 0;
	lua_pushvalue(L, -2);
	lua_call(L, 1, 1);
	if (lua_type(L, -1) == LUA_TSTRING)
		snprintf(s->out, s->size, "%s", lua_tostring(L, -1));
	return 0;
}

void luahost_error_text(struct luahost *h, lua_State *co, char *out, size_t size)
{
	char unused[2];
	struct said s = { co, out, size };
	show(co, out, size);
	if (lua_type(co, -1) == LUA_TTABLE && co != h->L) /* in its own words, if it has some */
		luahost_try(h, say, &s, unused, sizeof unused);
	out[strcspn(out, "\n")] = 0;
}

/* ---- its line in the log ----------------------------------------------------------------------------------- */

struct place {
	lua_State *co;
	char *out;
};

static int find_place(lua_State *L, void *arg)
{
	struct place *p = arg;
	luaL_traceback(L, p->co, NULL, 0);
	snprintf(p->out, LUAHOST_TRACEBACK_MAX, "%s", lua_tostring(L, -1));
	return 0;
}

void luahost_traceback(struct luahost *h, lua_State *co, char out[LUAHOST_TRACEBACK_MAX])
{
	struct place p = { co, out };
	*out = '\0';
	luahost_reserved(h, find_place, &p);
}

void luahost_report(struct luahost *h, struct luatask *t, int status, char message[LUAHOST_MESSAGE_MAX])
{
	char traceback[LUAHOST_TRACEBACK_MAX];
	const char *name = t->job->name ? t->job->name : "task";
	h->stats.failed++;
	h->stats.out_of_memory += status == LUA_ERRMEM;
	luahost_raise_limit(h, true);
	if (t->unusual & LUATASK_STOPPED)
		snprintf(message, LUAHOST_MESSAGE_MAX, "%s", h->stop_text);
	else
		luahost_error_text(h, t->run.L, message, LUAHOST_MESSAGE_MAX);
	luahost_raise_limit(h, false);
	luahost_traceback(h, t->run.L, traceback);
	if (h->o.log)
		log_error(h->o.log, "lua.error", "task=%s error=%s trace=%llx traceback=%s", name, message,
			  (unsigned long long)t->job->trace, traceback);
}
