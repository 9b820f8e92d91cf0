/* Loading: a generation of code is made beside the one that runs. luahost_reload.c puts it in its place. */
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/luahost_private.h"
#include "common/luatable.h"

static const char code_type[] = "loquat.code";

/* ---- files and modules ------------------------------------------------------------------------------------ */

/* The environment of one file: its own table, which sees the base through its metatable. */
void luahost_push_env(lua_State *L, struct luahost *h)
{
	lua_createtable(L, 0, 1);
	lua_rawgeti(L, LUA_REGISTRYINDEX, h->environment);
	lua_setmetatable(L, -2);
}

/* What our own luahost_check has compiled is trusted; scripts' load never takes such. */
static void compile(lua_State *L, const struct luasrc_file *f)
{
	int err;
	lua_pushfstring(L, "@%s", f->path);
	if (f->code)
		err = luaL_loadbufferx(L, f->code, f->code_bytes, lua_tostring(L, -1), "b");
	else
		err = luaL_loadbufferx(L, f->text, f->bytes, lua_tostring(L, -1), "t");
	if (err == LUA_ERRSYNTAX && f->bytes && f->text[0] == LUA_SIGNATURE[0]) /* that alone names no place */
		luaL_error(L, "%s: %s", f->path, lua_tostring(L, -1));
	if (err != LUA_OK)
		lua_error(L);
	lua_remove(L, -2);
}

void luahost_name_file(const struct luasrc_file *f, char *error, size_t size)
{
	char why[LUAHOST_MESSAGE_MAX];
	if (!f || strstr(error, ".lua"))
		return;
	snprintf(why, sizeof why, "%s", error);
	snprintf(error, size, "%s: %s", f->path, why);
}

static int l_require(lua_State *L);

/* As a step before has left it, else anew: a file that raised may be tried again. */
static void push_compiled(lua_State *L, int code_index, const struct luasrc_file *f)
{
	lua_getiuservalue(L, code_index, 2);
	if (lua_getfield(L, -1, f->name) == LUA_TFUNCTION) {
		lua_pushnil(L);
		lua_setfield(L, -3, f->name);
	} else {
		lua_pop(L, 1);
		compile(L, f);
	}
	lua_remove(L, -2);
}

/* Compiles and runs a file in an environment of its own; its value (true for nil) is left on the stack. */
static void run_file(lua_State *L, int code_index, const struct luasrc_file *f)
{
	struct luahost *h = luahost_of(L);
	struct luacode *code = lua_touserdata(L, code_index);
	push_compiled(L, code_index, f);
	luahost_push_env(L, h);
	lua_pushliteral(L, "require");
	lua_pushvalue(L, code_index);
	lua_pushcclosure(L, l_require, 1);
	lua_rawset(L, -3);
	if (!lua_setupvalue(L, -2, 1))
		lua_pop(L, 1); /* a file without a single global name */
	lua_pushstring(L, f->name);
	code->failed = NULL;
	if (lua_pcall(L, 1, 1, 0) == LUA_OK)
		return;
	if (!code->failed)
		code->failed = f;
	lua_getiuservalue(L, code_index, 1);
	lua_pushnil(L);
	lua_setfield(L, -2, f->name); /* may be tried again */
	lua_pop(L, 1);
	lua_error(L);
}

/* The files that are being run, from the outermost on: "init requires a requires b requires ". */
static void add_chain(lua_State *L, luaL_Buffer *b)
{
	lua_Debug ar;
	int level = 0;
	while (lua_getstack(L, level, &ar))
		level++;
	while (level-- > 0) {
		lua_getstack(L, level, &ar);
		lua_getinfo(L, "S", &ar);
		if (strcmp(ar.what, "main") != 0)
			continue;
		const char *slash = strrchr(ar.short_src, '/');
		luaL_addstring(b, slash ? slash + 1 : ar.short_src);
		luaL_addstring(b, " requires ");
	}
}

static int requires_itself(lua_State *L, const char *name)
{
	luaL_Buffer b;
	luaL_buffinit(L, &b);
	add_chain(L, &b);
	luaL_addstring(&b, name);
	luaL_pushresult(&b);
	return luaL_error(L, "require '%s': it requires itself: %s", name, lua_tostring(L, -1));
}

/* require(name): the value of the module, run at its first use in this generation of code. */
static int load_module(lua_State *L, int code_index, const char *name)
{
	struct luacode *code = lua_touserdata(L, code_index);
	lua_getiuservalue(L, code_index, 1);
	int modules = lua_gettop(L);
	if (lua_getfield(L, modules, name) != LUA_TNIL) {
		if (lua_islightuserdata(L, -1))
			return requires_itself(L, name);
		return 1;
	}
	const struct luasrc_file *f = luasrc_find(code->src, name);
	if (!f)
		return luaL_error(L, "require '%s': there is no such file in the service's lua folder", name);
	lua_pushlightuserdata(L, code); /* being loaded */
	lua_setfield(L, modules, name);
	if (f->table)
		luatable_push(L, f->table, code->src);
	else
		run_file(L, code_index, f);
	if (lua_isnil(L, -1)) {
		lua_pop(L, 1);
		lua_pushboolean(L, 1);
	}
	lua_pushvalue(L, -1);
	lua_setfield(L, modules, name);
	return 1;
}

static int l_require(lua_State *L)
{
	return load_module(L, lua_upvalueindex(1), luaL_checkstring(L, 1));
}

/* ---- a generation ----------------------------------------------------------------------------------------- */

static int release_code(lua_State *L)
{
	struct luacode *code = lua_touserdata(L, 1);
	luasrc_unref(code->src);
	code->src = NULL;
	return 0;
}

static struct luacode *new_code(lua_State *L, struct luasrc *src)
{
	struct luacode *code = lua_newuserdatauv(L, sizeof *code, 3);
	*code = (struct luacode){ .modules = LUA_NOREF, .hooks = LUA_NOREF, .staged = LUA_NOREF, .self = LUA_NOREF };
	if (luaL_newmetatable(L, code_type)) {
		lua_pushcfunction(L, release_code);
		lua_setfield(L, -2, "__gc");
	}
	lua_setmetatable(L, -2);
	code->src = luasrc_ref(src);
	lua_newtable(L);
	lua_setiuservalue(L, -2, 2);
	lua_newtable(L);
	lua_pushvalue(L, -1);
	lua_setiuservalue(L, -3, 1);
	code->modules = luaL_ref(L, LUA_REGISTRYINDEX);
	lua_pushvalue(L, -1);
	code->self = luaL_ref(L, LUA_REGISTRYINDEX);
	return code;
}

static bool ends_in(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);
	return n > m && !strcmp(text + n - m, end);
}

static bool is_root(const char *name)
{
	return !strchr(name, '.') && (ends_in(name, "Handler") || ends_in(name, "Remote") || !strcmp(name, "init"));
}

/* Each of them, so that a slip in a module that is used later is found now. */
static int compile_one(lua_State *L, void *arg)
{
	const struct luasrc_file *f = arg;
	lua_rawgeti(L, LUA_REGISTRYINDEX, luahost_of(L)->next->self);
	lua_getiuservalue(L, 1, 2);
	compile(L, f);
	lua_setfield(L, 2, f->name);
	return 0;
}

static int run_root(lua_State *L, void *arg)
{
	struct luacode *code = luahost_of(L)->next;
	const struct luasrc_file *f = arg;
	lua_rawgeti(L, LUA_REGISTRYINDEX, code->self);
	load_module(L, 1, f->name);
	if (!lua_istable(L, -1))
		luaL_error(L, "%s: the file must return its table of functions", f->path);
	return 0;
}

/* Of the function on top of the stack. */
static unsigned char count_params(lua_State *L)
{
	lua_Debug d;
	lua_pushvalue(L, -1);
	lua_getinfo(L, ">u", &d);
	return d.isvararg ? LUAHOST_PARAMS_ANY : d.nparams;
}

static void grow_methods(lua_State *L, struct luacode *code, size_t n)
{
	struct luamethod *method = lua_newuserdatauv(L, n * sizeof *method + 1, 0);
	if (code->methods)
		memcpy(method, code->method, code->methods * sizeof *method);
	lua_setiuservalue(L, 2, 3);
	for (code->method = method; code->methods < n; code->methods++)
		method[code->methods] = (struct luamethod){ .fn = LUA_NOREF };
}

/* The functions of the modules at 1, for the code at 2; those it has listed before it keeps. */
static void list_methods(lua_State *L, struct luacode *code, const struct schema *schema)
{
	if (!schema)
		return;
	if (schema_indexes(schema) > code->methods)
		grow_methods(L, code, schema_indexes(schema));
	for (size_t i = 0; i < schema_methods(schema); i++) {
		const struct msg_method *m = schema_method_at(schema, i);
		struct luamethod *found = &code->method[m->index];
		if (found->fn == LUA_NOREF && lua_getfield(L, 1, m->group) == LUA_TTABLE) {
			lua_pushstring(L, m->name);
			if (lua_rawget(L, -2) == LUA_TFUNCTION) {
				found->params = count_params(L);
				found->fn = luaL_ref(L, LUA_REGISTRYINDEX);
			}
		}
		lua_settop(L, 2);
	}
}

static int begin(lua_State *L, void *arg)
{
	struct luahost *h = luahost_of(L);
	luahost_guard_tables(L);
	h->next = new_code(L, arg);
	h->next->at = h->o.known ? luasrc_files(h->next->src) : 0;
	return 0;
}

static void list_anew(lua_State *L, struct luacode *code, const struct schema *schema)
{
	lua_settop(L, 0);
	lua_rawgeti(L, LUA_REGISTRYINDEX, code->modules);
	lua_rawgeti(L, LUA_REGISTRYINDEX, code->self);
	list_methods(L, code, schema);
}

static int complete(lua_State *L, void *arg)
{
	struct luacode *code = arg;
	list_anew(L, code, luahost_of(L)->o.schema);
	if (lua_getfield(L, 1, "init") != LUA_TTABLE)
		lua_newtable(L);
	code->hooks = luaL_ref(L, LUA_REGISTRYINDEX);
	return 0;
}

void luahost_drop_code(struct luahost *h, struct luacode **code)
{
	struct luacode *c = *code;
	*code = NULL;
	if (!c)
		return;
	while (c->methods)
		luaL_unref(h->L, LUA_REGISTRYINDEX, c->method[--c->methods].fn);
	luaL_unref(h->L, LUA_REGISTRYINDEX, c->modules);
	luaL_unref(h->L, LUA_REGISTRYINDEX, c->hooks);
	luaL_unref(h->L, LUA_REGISTRYINDEX, c->staged);
	luaL_unref(h->L, LUA_REGISTRYINDEX, c->self); /* last: c goes with it */
}

/* ---- public ------------------------------------------------------------------------------------------------ */

static int refuse(struct luahost *h, int err)
{
	luahost_drop_code(h, &h->next);
	h->stats.reloads_refused += h->code != NULL;
	return err;
}

int luahost_prepare_begin(struct luahost *h, struct luasrc *src, char *error, size_t error_size)
{
	luahost_abort(h);
	int err = luahost_try(h, begin, src, error, error_size);
	return err < 0 ? refuse(h, err) : 0;
}

/* The first code has nobody beside it whose `state` could be disturbed. */
static int run_beside(struct luahost *h, const struct luasrc_file *f, char *error, size_t error_size)
{
	struct luacode *code = h->next;
	if (!h->code)
		return luahost_try(h, run_root, (void *)f, error, error_size);
	int err = luahost_try(h, luahost_state_enter, code, error, error_size);
	if (err == 0)
		err = luahost_try(h, run_root, (void *)f, error, error_size);
	if (err == 0)
		err = luahost_try(h, luahost_state_stage, code, error, error_size);
	luahost_reserved(h, luahost_state_restore, NULL);
	return err;
}

/* First all files are compiled, then those that nobody requires are run. */
int luahost_prepare_step(struct luahost *h, char *error, size_t error_size)
{
	struct luacode *code = h->next;
	size_t files = luasrc_files(code->src);
	int err;
	while (code->at >= files && code->at < 2 * files && !is_root(luasrc_at(code->src, code->at - files)->name))
		code->at++;
	if (code->at < files)
		err = luahost_try(h, compile_one, (void *)luasrc_at(code->src, code->at), error, error_size);
	else if (code->at < 2 * files)
		err = run_beside(h, luasrc_at(code->src, code->at - files), error, error_size);
	else
		err = luahost_try(h, complete, code, error, error_size);
	if (err < 0) {
		luahost_name_file(code->failed, error, error_size);
		return refuse(h, err);
	}
	return code->at++ < 2 * files;
}

int luahost_prepare(struct luahost *h, struct luasrc *src, char *error, size_t error_size)
{
	int err = luahost_prepare_begin(h, src, error, error_size);
	for (err = err < 0 ? err : 1; err == 1;)
		err = luahost_prepare_step(h, error, error_size);
	return err;
}

struct compiling {
	struct luasrc *src;
	struct buf out;
};

static int keep_code(lua_State *L, const void *p, size_t n, void *out)
{
	(void)L;
	buf_add(out, p, n);
	return 0;
}

static int compile_kept(lua_State *L, void *arg)
{
	struct compiling *c = arg;
	for (size_t i = 0; i < luasrc_files(c->src); i++) {
		compile(L, luasrc_at(c->src, i));
		buf_clear(&c->out);
		lua_dump(L, keep_code, &c->out, 0);
		lua_pop(L, 1);
		char *code = malloc(c->out.len);
		if (!code)
			abort();
		memcpy(code, c->out.data, c->out.len);
		luasrc_compiled_take(c->src, i, code, c->out.len);
	}
	return 0;
}

static int run_check(lua_State *L, void *arg)
{
	struct luacode *code = arg;
	lua_rawgeti(L, LUA_REGISTRYINDEX, code->hooks);
	lua_pushliteral(L, "check");
	if (lua_rawget(L, -2) != LUA_TFUNCTION)
		return 0;
	lua_call(L, 0, 2);
	if (lua_isnil(L, -2) && !lua_isnil(L, -1))
		luaL_error(L, "init.lua: check(): %s", luaL_tolstring(L, -1, NULL));
	return 0;
}

int luahost_check(struct luahost *h, struct luasrc *src, char *error, size_t error_size)
{
	struct compiling c = { src, BUF_INIT };
	int err = luahost_try(h, compile_kept, &c, error, error_size);
	buf_release(&c.out);
	if (err == 0)
		err = luahost_prepare(h, src, error, error_size);
	if (err < 0)
		return err;
	err = luahost_try(h, run_check, h->next, error, error_size);
	if (err < 0)
		luahost_name_file(luasrc_find(src, "init"), error, error_size);
	return err;
}

static int learn_messages(lua_State *L, void *arg)
{
	struct luahost *h = luahost_of(L);
	lua_msg_extend(L, arg, &h->root.msg);
	if (h->code)
		list_anew(L, h->code, arg);
	if (h->previous)
		list_anew(L, h->previous, arg);
	return 0;
}

int luahost_messages(struct luahost *h, const struct schema *schema, char *error, size_t error_size)
{
	luahost_abort(h);
	if (h->o.schema == schema)
		return 0;
	int err = luahost_try(h, learn_messages, (void *)schema, error, error_size);
	if (err < 0)
		return err;
	for (uint32_t i = 0; i < h->tasks; i++)
		h->task[i]->ctx.msg = h->root.msg;
	h->o.schema = schema;
	return 0;
}

void luahost_abort(struct luahost *h)
{
	luahost_drop_code(h, &h->next);
}

int luahost_load(struct luahost *h, struct luasrc *src, char *error, size_t error_size)
{
	int err = luahost_prepare(h, src, error, error_size);
	return err < 0 ? err : luahost_switch(h, error, error_size);
}

const char *luahost_version(struct luahost *h)
{
	return h->code ? luasrc_version(h->code->src) : "";
}

struct each {
	void (*fn)(void *arg, const char *module, const char *name);
	void *arg;
};

static int each_function(lua_State *L, void *arg)
{
	struct each *e = arg;
	const struct luacode *code = luahost_of(L)->code;
	int top = lua_gettop(L);
	for (size_t i = 0; code && i < luasrc_files(code->src); i++) {
		const char *module = luasrc_at(code->src, i)->name;
		lua_settop(L, top);
		if (!is_root(module))
			continue;
		lua_rawgeti(L, LUA_REGISTRYINDEX, code->modules);
		if (lua_getfield(L, -1, module) != LUA_TTABLE)
			continue;
		for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1))
			if (lua_isfunction(L, -1) && lua_type(L, -2) == LUA_TSTRING)
				e->fn(e->arg, module, lua_tostring(L, -2));
	}
	return 0;
}

void luahost_each_function(struct luahost *h, void (*fn)(void *arg, const char *module, const char *name), void *arg)
{
	struct each e = { fn, arg };
	luahost_protected(h, each_function, &e);
}

void luahost_push_module(lua_State *L, const char *name)
{
	struct luacode *code = luahost_of(L)->code;
	if (!code)
		luaL_error(L, "no code is loaded");
	int top = lua_gettop(L);
	lua_rawgeti(L, LUA_REGISTRYINDEX, code->self);
	load_module(L, top + 1, name);
	lua_replace(L, top + 1);
	lua_settop(L, top + 1);
}

bool luahost_push_require(lua_State *L)
{
	struct luacode *code = luahost_of(L)->code;
	if (!code)
		return false;
	lua_rawgeti(L, LUA_REGISTRYINDEX, code->self);
	lua_pushcclosure(L, l_require, 1);
	return true;
}
