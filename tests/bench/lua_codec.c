/*
 * lua_codec: what a request costs in Lua: bytes to a table, the handler's coroutine, a table to bytes. The limits
 * stand beside: a bare lua_resume of the same function, in one coroutine and in one made anew each time; protobuf-c's unpacked struct, read
 * into a table; and a whole request written by hand for these five fields, around one coroutine.
 *
 * The request is sample.Five: 5 fields, 21 bytes of protobuf, 68 of JSON.
 *
 * usage: lua_codec [--rounds N] [--schema FILE] [--only NAME]     prints one JSON object of nanoseconds, medians of 15
 */
#include "common/env.h"
#include "common/err.h"
#include "common/log.h"
#include "common/lua_json.h"
#include "common/lua_msg.h"
#include "common/lua_pb.h"
#include "common/luahost.h"

#include "tests/proto/sample.pb-c.h"

#include <lauxlib.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define JSON_FIVE "{\"from\":\"ann\",\"target\":\"*\",\"content\":\"hello\",\"kind\":7,\"time\":123456}"

enum { SAMPLES = 15 };

struct bench {
	struct env *env;
	struct loop *loop;
	struct schema *schema;
	struct luahost *host;
	const struct msg_type *five;
	const struct msg_method *method;
	uint64_t rounds;
	const char *only;
	struct buf pb, out;
	bool as_json;
	lua_State *bare; /* coroutine of the limit */
	_Atomic bool over;
};
struct job { /* a request as a service has it */
	struct luajob job;
	struct bench *b;
};

static void need(int err, const char *what, const char *why)
{
	if (err >= 0)
		return;
	fprintf(stderr, "lua_codec: %s: %s\n", what, why);
	exit(2);
}

static void read_schema(struct bench *b, const char *path)
{
	char *bytes, error[256] = "";
	size_t n;
	need(env_file_load(b->env, path, 1 << 24, &bytes, &n), path, "cannot be read; run make");
	need(schema_load(bytes, n, error, sizeof error, &b->schema), path, error);
	free(bytes);
	b->five = schema_type(b->schema, "sample.Five");
	b->method = schema_method(b->schema, "sample.shopHandler.items", 24);
	need(b->five && b->method ? 0 : -1, path, "sample.Five is not in it");
}

/* ---- what is measured: each runs b->rounds times -------------------------------------------------------- */

static void json_to_table(struct bench *b, lua_State *L)
{
	char why[LUA_WHY_MAX] = "";
	for (uint64_t i = 0; i < b->rounds; i++, lua_settop(L, 0))
		need(lua_json_decode(L, b->five, JSON_FIVE, sizeof JSON_FIVE - 1, why, sizeof why), "decode", why);
}

static void json_untyped_to_table(struct bench *b, lua_State *L)
{
	char why[LUA_WHY_MAX] = "";
	for (uint64_t i = 0; i < b->rounds; i++, lua_settop(L, 0))
		need(lua_json_decode(L, NULL, JSON_FIVE, sizeof JSON_FIVE - 1, why, sizeof why), "decode", why);
}

static void protobuf_to_table(struct bench *b, lua_State *L)
{
	char why[LUA_WHY_MAX] = "";
	for (uint64_t i = 0; i < b->rounds; i++, lua_settop(L, 0))
		need(lua_pb_decode(L, b->five, b->pb.data, b->pb.len, NULL, why, sizeof why), "decode", why);
}

static void push_five(struct bench *b, lua_State *L)
{
	char why[LUA_WHY_MAX] = "";
	need(lua_json_decode(L, b->five, JSON_FIVE, sizeof JSON_FIVE - 1, why, sizeof why), "decode", why);
}

static void table_to_json(struct bench *b, lua_State *L)
{
	char why[LUA_WHY_MAX] = "";
	push_five(b, L);
	for (uint64_t i = 0; i < b->rounds; i++, buf_clear(&b->out))
		need(lua_json_encode(L, 1, b->five, &b->out, why, sizeof why), "encode", why);
	lua_settop(L, 0);
}

static void table_to_json_untyped(struct bench *b, lua_State *L)
{
	char why[LUA_WHY_MAX] = "";
	push_five(b, L);
	for (uint64_t i = 0; i < b->rounds; i++, buf_clear(&b->out))
		need(lua_json_encode(L, 1, NULL, &b->out, why, sizeof why), "encode", why);
	lua_settop(L, 0);
}

static void table_to_protobuf(struct bench *b, lua_State *L)
{
	char why[LUA_WHY_MAX] = "";
	push_five(b, L);
	for (uint64_t i = 0; i < b->rounds; i++, buf_clear(&b->out))
		need(lua_pb_encode(L, 1, b->five, &b->out, why, sizeof why), "encode", why);
	lua_settop(L, 0);
}

/* The handler of the requests, as a value of the registry. */
static int refer_to_handler(struct bench *b, lua_State *L)
{
	need(luahost_push_method(L, b->method) ? 0 : -1, "handler", "is not there");
	return luaL_ref(L, LUA_REGISTRYINDEX);
}

static int push_request(lua_State *L, struct luajob *job)
{
	struct bench *b = ((struct job *)job)->b;
	char why[LUA_WHY_MAX];
	if (!luahost_push_method(L, b->method))
		return ERR_NOT_FOUND;
	int err = b->as_json ? lua_json_decode(L, b->five, JSON_FIVE, sizeof JSON_FIVE - 1, why, sizeof why)
			     : lua_pb_decode(L, b->five, b->pb.data, b->pb.len, NULL, why, sizeof why);
	return err < 0 ? err : 1;
}

static void done_nothing(struct luajob *job, const struct luaresult *r)
{
	(void)job;
	need(r->err, "task", r->message);
}

static void done_reply(struct luajob *job, const struct luaresult *r)
{
	struct bench *b = ((struct job *)job)->b;
	char why[LUA_WHY_MAX] = "";
	need(r->err, "task", r->message);
	buf_clear(&b->out);
	need(b->as_json ? lua_json_encode(r->L, r->first, b->five, &b->out, why, sizeof why)
			: lua_pb_encode(r->L, r->first, b->five, &b->out, why, sizeof why),
	     "encode", why);
}

static void task_empty(struct bench *b, lua_State *L)
{
	int handler = refer_to_handler(b, L);

	for (uint64_t i = 0; i < b->rounds; i++) {
		struct luajob j = { .name = "bench", .fn = handler, .done = done_nothing };
		luatask_start(b->host, &j);
	}
	luaL_unref(L, LUA_REGISTRYINDEX, handler);
}

static void task_request(struct bench *b, lua_State *L)
{
	(void)L;
	for (uint64_t i = 0; i < b->rounds; i++) {
		struct job j = { .job = { .name = "bench", .push = push_request, .done = done_reply }, .b = b };
		luatask_start(b->host, &j.job);
	}
}

static void request_protobuf(struct bench *b, lua_State *L)
{
	b->as_json = false;
	task_request(b, L);
}

static void request_json(struct bench *b, lua_State *L)
{
	b->as_json = true;
	task_request(b, L);
}

/* The limit: a coroutine that is there already, resumed with the same function and left finished. */
static void resume_pooled(struct bench *b, lua_State *L)
{
	lua_State *co = lua_newthread(L);
	int results, handler = refer_to_handler(b, L);
	for (uint64_t i = 0; i < b->rounds; i++, lua_settop(co, 0)) {
		lua_rawgeti(co, LUA_REGISTRYINDEX, handler);
		need(lua_resume(co, L, 0, &results) == LUA_OK ? 0 : -1, "resume", "failed");
	}
	luaL_unref(L, LUA_REGISTRYINDEX, handler);
	lua_settop(L, 0);
}

static void resume_new(struct bench *b, lua_State *L)
{
	int results, handler = refer_to_handler(b, L);
	for (uint64_t i = 0; i < b->rounds; i++, lua_settop(L, 0)) {
		lua_State *co = lua_newthread(L);
		lua_rawgeti(co, LUA_REGISTRYINDEX, handler);
		need(lua_resume(co, L, 0, &results) == LUA_OK ? 0 : -1, "resume", "failed");
	}
	luaL_unref(L, LUA_REGISTRYINDEX, handler);
}

/* ---- the limits: what one would write by hand for these five fields ---------------------------------------- */

static void set_text(lua_State *L, const char *name, const char *text)
{
	lua_pushstring(L, text);
	lua_setfield(L, -2, name);
}

static void set_integer(lua_State *L, const char *name, lua_Integer i)
{
	lua_pushinteger(L, i);
	lua_setfield(L, -2, name);
}

static void push_unpacked(struct bench *b, lua_State *L)
{
	Sample__Five *five = sample__five__unpack(NULL, b->pb.len, (const uint8_t *)b->pb.data);

	need(five ? 0 : -1, "unpack", "failed");
	lua_createtable(L, 0, 5);
	if (five->from)
		set_text(L, "from", five->from);
	if (five->target)
		set_text(L, "target", five->target);
	if (five->content)
		set_text(L, "content", five->content);
	if (five->has_kind)
		set_integer(L, "kind", five->kind);
	if (five->has_time)
		set_integer(L, "time", five->time);
	sample__five__free_unpacked(five, NULL);
}

static void protobuf_unpacked_to_table(struct bench *b, lua_State *L)
{
	for (uint64_t i = 0; i < b->rounds; i++, lua_settop(L, 0))
		push_unpacked(b, L);
}

static uint64_t varint(const uint8_t **at)
{
	uint64_t v = 0;

	for (int shift = 0;; shift += 7) {
		v |= (uint64_t)(**at & 0x7f) << shift;
		if (!(*(*at)++ & 0x80))
			return v;
	}
}

static const char *const fields[] = { "", "from", "target", "content", "kind", "time" };

static void push_by_hand(struct bench *b, lua_State *L)
{
	const uint8_t *at = (const uint8_t *)b->pb.data, *end = at + b->pb.len;

	lua_createtable(L, 0, 5);
	while (at < end) {
		unsigned field = *at++ >> 3;
		uint64_t v = varint(&at);

		if (field <= 3) {
			lua_pushlstring(L, (const char *)at, v);
			at += v;
		} else {
			lua_pushinteger(L, (lua_Integer)v);
		}
		lua_setfield(L, -2, fields[field]);
	}
}

static void put_varint(struct buf *out, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		buf_addch(out, (char)(v | 0x80));
	buf_addch(out, (char)v);
}

static void answer_by_hand(struct bench *b, lua_State *L)
{
	buf_clear(&b->out);
	for (unsigned field = 1; field <= 5; field++) {
		size_t n;
		const char *text;

		lua_getfield(L, -1, fields[field]);
		buf_addch(&b->out, (char)(field << 3 | (field <= 3 ? 2 : 0)));
		if (field <= 3) {
			text = lua_tolstring(L, -1, &n);
			put_varint(&b->out, n);
			buf_add(&b->out, text, n);
		} else {
			put_varint(&b->out, (uint64_t)lua_tointeger(L, -1));
		}
		lua_pop(L, 1);
	}
}

static void request_by_hand(struct bench *b, lua_State *L)
{
	lua_State *co = lua_newthread(L);
	int results;

	luaL_loadstring(L, "return function(msg) return msg end");
	lua_call(L, 0, 1);
	for (uint64_t i = 0; i < b->rounds; i++, lua_settop(co, 0)) {
		lua_pushvalue(L, -1);
		lua_xmove(L, co, 1);
		push_by_hand(b, co);
		need(lua_resume(co, L, 1, &results) == LUA_OK ? 0 : -1, "resume", "failed");
		answer_by_hand(b, co);
	}
	need(b->out.len == b->pb.len && !memcmp(b->out.data, b->pb.data, b->pb.len) ? 0 : -1, "by hand", "differs");
	lua_settop(L, 0);
}

/* ---- measuring -------------------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	void (*fn)(struct bench *b, lua_State *L);
} parts[] = {
	/* a limit stands beside what is measured with it */
	{ "json_to_table_ns", json_to_table },         { "json_untyped_to_table_ns", json_untyped_to_table },
	{ "protobuf_to_table_ns", protobuf_to_table }, { "unpacked_to_table_ns", protobuf_unpacked_to_table },
	{ "table_to_json_ns", table_to_json },         { "table_to_json_untyped_ns", table_to_json_untyped },
	{ "table_to_protobuf_ns", table_to_protobuf }, { "task_empty_ns", task_empty },
	{ "resume_pooled_ns", resume_pooled },         { "resume_new_ns", resume_new },
	{ "request_protobuf_ns", request_protobuf },   { "request_by_hand_ns", request_by_hand },
	{ "request_json_ns", request_json },
};

enum { PARTS = sizeof parts / sizeof *parts };

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* CPU time of this thread: what else the machine does does not count. */
static double cpu_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* They take turns, sample by sample, so that an hour in which the machine is slower is one for all of them. */
static void measure(struct bench *b)
{
	static double ns[PARTS][SAMPLES];
	lua_State *L = luahost_state(b->host);
	for (int n = 0; n < SAMPLES; n++)
		for (size_t i = 0; i < PARTS; i++) {
			if (b->only && strcmp(b->only, parts[i].name))
				continue;
			double from = cpu_ns();
			parts[i].fn(b, L);
			ns[i][n] = (cpu_ns() - from) / (double)b->rounds;
		}
	for (size_t i = 0; i < PARTS; i++) {
		qsort(ns[i], SAMPLES, sizeof *ns[i], by_value);
		if (!b->only || !strcmp(b->only, parts[i].name))
			printf(",\"%s\":%.1f", parts[i].name, ns[i][SAMPLES / 2]);
	}
}

static void run(void *arg)
{
	struct bench *b = arg;
	struct luahost_options o = { .loop = b->loop, .schema = b->schema };
	struct luasrc *src = luasrc_of(
		(const char *const[]){ "shopHandler", "return {items = function(msg) return msg end}", NULL });
	char why[300] = "";
	need(luahost_new(&o, &b->host), "host", "cannot be made");
	need(luahost_load(b->host, src, why, sizeof why), "load", why);
	lua_State *L = luahost_state(b->host);
	push_five(b, L);
	need(lua_pb_encode(L, 1, b->five, &b->pb, why, sizeof why), "encode", why);
	lua_settop(L, 0);
	printf("{\"json_bytes\":%zu,\"protobuf_bytes\":%zu", sizeof JSON_FIVE - 1, b->pb.len);
	measure(b);
	printf("}\n");
	luahost_free(b->host);
	luasrc_unref(src);
	atomic_store(&b->over, true);
}

static void started(struct loop *loop, void *arg)
{
	(void)loop, (void)arg;
}

int main(int argc, char **argv)
{
	struct bench b = { .rounds = 500000 };
	const char *path = "build/tests.desc";
	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--rounds"))
			b.rounds = strtoull(argv[i + 1], NULL, 10);
		else if (!strcmp(argv[i], "--schema"))
			path = argv[i + 1];
		else if (!strcmp(argv[i], "--only"))
			b.only = argv[i + 1];
		else
			need(-1, argv[i], "no such option");
	}
	need(argc % 2 && b.rounds ? 0 : -1, "usage", "lua_codec [--rounds N] [--schema FILE] [--only NAME]");
	b.env = env_new();
	read_schema(&b, path);
	need(loop_start(b.env, "bench", 0, started, NULL, NULL, &b.loop), "loop", "cannot be started");
	loop_call(b.loop, run, &b);
	while (!atomic_load(&b.over))
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	loop_stop(b.loop);
	loop_join(b.loop);
	buf_release(&b.pb);
	buf_release(&b.out);
	schema_free(b.schema);
	env_free(b.env);
	return 0;
}
