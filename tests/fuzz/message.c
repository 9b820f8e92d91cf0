/*
 * Any bytes as a request of the sample messages, as JSON (the HTTP face, clients) or as protobuf (between services): what is
 * taken as one is written as the other, and reads again as the same.
 */
#include <assert.h>
#include <lauxlib.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/buf.h"
#include "common/err.h"
#include "common/lua_json.h"
#include "common/lua_msg.h"
#include "common/lua_pb.h"
#include "tests/support/sample.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct input {
	const struct schema *schema;
	const char *p;
	size_t n;
};

static int decode(lua_State *L, const struct msg_type *t, bool json, const char *p, size_t n)
{
	char why[LUA_WHY_MAX];
	unsigned unknown = 0;

	return json ? lua_json_decode(L, t, p, n, why, sizeof why)
		    : lua_pb_decode(L, t, p, n, &unknown, why, sizeof why);
}

static int encode(lua_State *L, const struct msg_type *t, bool json, struct buf *out)
{
	char why[LUA_WHY_MAX];

	return json ? lua_json_encode(L, -1, t, out, why, sizeof why) : lua_pb_encode(L, -1, t, out, why, sizeof why);
}

/*
 * The value on top of the stack is written as protobuf with the same bytes after a way through JSON. (The other way round a list
 * or map without elements would be missing: protobuf has no bytes for it.)
 */
static void way_and_back(lua_State *L, const struct msg_type *t)
{
	struct buf first = BUF_INIT, other = BUF_INIT, second = BUF_INIT;

	if (encode(L, t, false, &first) == 0) {
		lua_settop(L, 0);
		assert(decode(L, t, false, first.data, first.len) == 0);
		if (encode(L, t, true, &other) == 0) {
			lua_settop(L, 0);
			assert(decode(L, t, true, other.data, other.len) == 0);
			assert(encode(L, t, false, &second) == 0);
			assert(first.len == second.len && (!first.len || !memcmp(first.data, second.data, first.len)));
		}
	}
	buf_release(&first);
	buf_release(&other);
	buf_release(&second);
}

/* JSON that was read is written as itself from then on, lists without elements too. */
static void json_again(lua_State *L, const struct msg_type *t)
{
	struct buf first = BUF_INIT, second = BUF_INIT;

	if (encode(L, t, true, &first) == 0) {
		assert(decode(L, t, true, first.data, first.len) == 0);
		assert(encode(L, t, true, &second) == 0);
		assert(first.len == second.len && !memcmp(first.data, second.data, first.len));
		lua_settop(L, 1);
	}
	buf_release(&first);
	buf_release(&second);
}

/* JSON drops such fields: there is no way back. */
static bool has_ignored(const struct msg_type *t)
{
	bool any = false;

	for (unsigned i = 0; i < t->fields; i++)
		any = any || t->field[i].ignored;
	return any;
}

static int run(lua_State *L)
{
	const struct input *in = lua_touserdata(L, 1);
	bool json = in->p[0] & 1;
	const struct msg_method *m = schema_method_at(in->schema, (uint8_t)in->p[1] % schema_methods(in->schema));

	lua_settop(L, 0);
	if (decode(L, m->in, json, in->p + 2, in->n - 2) < 0 || has_ignored(m->in))
		return 0;
	if (json)
		json_again(L, m->in);
	way_and_back(L, m->in);
	return 0;
}

/* All of them live as long as the process. */
static lua_State *state(const struct schema *schema)
{
	static lua_State *L;
	static struct lua_msg msg;

	if (!L) {
		L = luaL_newstate();
		assert(L);
		lua_msg_open(L, schema, &msg);
	}
	return L;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static struct schema *schema;

	if (n < 2)
		return 0;
	if (!schema)
		schema = sample_schema();
	lua_State *L = state(schema);
	char *copy = malloc(n);
	struct input in = { schema, copy, n };

	assert(copy);
	memcpy(copy, data, n);
	lua_pushcfunction(L, run);
	lua_pushlightuserdata(L, &in);
	if (lua_pcall(L, 1, 0, 0) != LUA_OK)
		fprintf(stderr, "%s\n", lua_tostring(L, -1));
	lua_settop(L, 0);
	free(copy);
	return 0;
}
