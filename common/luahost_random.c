/* The library random: generators with a seed of their own, the same on every machine, apart from math.random. */
#include <lauxlib.h>

#include "common/luahost_private.h"

static const char random_type[] = "loquat.random";

/* xoshiro256** (Blackman and Vigna, 2018). */
struct random {
	uint64_t s[4];
};

static uint64_t rotl(uint64_t x, int k)
{
	return x << k | x >> (64 - k);
}

static uint64_t next(struct random *r)
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

static void seed(struct random *r, uint64_t z)
{
	for (int i = 0; i < 4; i++) { /* splitmix64, as its authors advise */
		uint64_t v = z += UINT64_C(0x9e3779b97f4a7c15);
		v = (v ^ (v >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
		v = (v ^ (v >> 27)) * UINT64_C(0x94d049bb133111eb);
		r->s[i] = v ^ (v >> 31);
	}
}

/* Below n, each as likely: Lemire's method, without the remainder's bias. */
static uint64_t below(struct random *r, uint64_t n)
{
	if (n == 0) /* 2^64 */
		return next(r);
	uint64_t least = -n % n;
	for (;;) {
		__extension__ unsigned __int128 m = (unsigned __int128)next(r) * n;
		if ((uint64_t)m >= least)
			return (uint64_t)(m >> 64);
	}
}

/* random.new(seed): a generator; seed an integer, without it one by lot. */
static int l_new(lua_State *L)
{
	uint64_t by_lot;
	env_random(luahost_of(L)->o.loop->env, &by_lot, sizeof by_lot);
	uint64_t z = lua_isnoneornil(L, 1) ? by_lot : (uint64_t)luaL_checkinteger(L, 1);
	struct random *r = lua_newuserdatauv(L, sizeof *r, 0);
	seed(r, z);
	luaL_setmetatable(L, random_type);
	return 1;
}

/* generator:int(from, to): an integer, both included. */
static int l_int(lua_State *L)
{
	struct random *r = luaL_checkudata(L, 1, random_type);
	lua_Integer from = luaL_checkinteger(L, 2), to = luaL_checkinteger(L, 3);
	luaL_argcheck(L, from <= to, 3, "at least the number before it");
	uint64_t n = (uint64_t)to - (uint64_t)from + 1;
	lua_pushinteger(L, (lua_Integer)((uint64_t)from + below(r, n)));
	return 1;
}

/* generator:float(): from 0 up to but not including 1. */
static int l_float(lua_State *L)
{
	struct random *r = luaL_checkudata(L, 1, random_type);
	lua_pushnumber(L, (double)(next(r) >> 11) * 0x1p-53);
	return 1;
}

/* generator:pick(list): one of its elements; nil of an empty one. */
static int l_pick(lua_State *L)
{
	struct random *r = luaL_checkudata(L, 1, random_type);
	lua_Integer n = luaL_len(L, 2);
	if (n < 1)
		lua_pushnil(L);
	else
		lua_geti(L, 2, 1 + (lua_Integer)below(r, (uint64_t)n));
	return 1;
}

/* generator:shuffle(list): the same list in another order. */
static int l_shuffle(lua_State *L)
{
	struct random *r = luaL_checkudata(L, 1, random_type);
	luaL_checktype(L, 2, LUA_TTABLE);
	lua_settop(L, 2);
	for (lua_Integer i = (lua_Integer)lua_rawlen(L, 2); i > 1; i--) {
		lua_Integer k = 1 + (lua_Integer)below(r, (uint64_t)i);
		lua_rawgeti(L, 2, i);
		lua_rawgeti(L, 2, k);
		lua_rawseti(L, 2, i);
		lua_rawseti(L, 2, k);
	}
	return 1;
}

int luahost_random_lib(lua_State *L)
{
	static const luaL_Reg methods[] = {
		{ "int", l_int }, { "float", l_float }, { "pick", l_pick }, { "shuffle", l_shuffle }, { NULL, NULL }
	};
	static const luaL_Reg functions[] = { { "new", l_new }, { NULL, NULL } };
	luaL_newmetatable(L, random_type);
	luaL_newlib(L, methods);
	lua_setfield(L, -2, "__index");
	lua_pop(L, 1);
	luaL_newlib(L, functions);
	return 1;
}
