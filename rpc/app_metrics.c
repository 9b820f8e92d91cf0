#include <lauxlib.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "rpc/app_private.h"

/*
 * The library metrics: counters, gauges and histograms of the scripts, in /metrics under loquat_SERVICE_NAME. Making one
 * again, after a reload perhaps, gives the same series. Bounded, for series are kept for ever: labels must not come from
 * players.
 */
#define METRIC_META "loquat.metric"
#define SERIES_MAX  1000 /* of a worker's scripts */
#define LABELS_MAX  4
#define NAME_BYTES  64

static const char made; /* registry: {name = type, …}; and n, the number of series by name and labels */

struct handle {
	struct metric *metric;
	enum metric_type type;
};

static bool is_name(const char *text)
{
	size_t n = strlen(text);

	return n && n <= NAME_BYTES && *text >= 'a' && *text <= 'z' &&
	       strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_") == n;
}

static const char *check_name(lua_State *L, enum metric_type type)
{
	const char *name = luaL_checkstring(L, 1);
	size_t n = strlen(name);

	if (!is_name(name))
		return luaL_error(L, "metrics: \"%s\": a name is small letters, digits and _", name), NULL;
	bool total = n >= 6 && !strcmp(name + n - 6, "_total");

	if (total != (type == METRIC_COUNTER))
		return luaL_error(L, "metrics: \"%s\": a counter's name ends in _total, and no other's", name), NULL;
	if (type == METRIC_HISTOGRAM && (n < 8 || strcmp(name + n - 8, "_seconds") != 0))
		return luaL_error(L, "metrics.histogram: \"%s\": a histogram's name ends in _seconds", name), NULL;
	return name;
}

struct labels {
	unsigned n;
	const char *name[LABELS_MAX], *value[LABELS_MAX];
	char names[LABELS_MAX * (NAME_BYTES + 1)], key[LABELS_MAX * 2 * (NAME_BYTES + 2) + NAME_BYTES + 2];
};

static void add_label(lua_State *L, struct labels *l)
{
	unsigned at = l->n;

	if (lua_type(L, -2) != LUA_TSTRING || lua_type(L, -1) != LUA_TSTRING || !is_name(lua_tostring(L, -2)))
		app_raise(L, "metrics: labels are a table of texts, {kind = \"slime\"}");
	if (!strcmp(lua_tostring(L, -2), "instance") || !strcmp(lua_tostring(L, -2), "le"))
		app_raise(L, "metrics: labels instance and le are the server's own");
	if (at == LABELS_MAX || strlen(lua_tostring(L, -1)) > NAME_BYTES)
		app_raise(L, "metrics: at most %d labels with values of %d bytes", LABELS_MAX, NAME_BYTES);
	while (at && strcmp(l->name[at - 1], lua_tostring(L, -2)) > 0) { /* sorted: equal tables are one series */
		l->name[at] = l->name[at - 1];
		l->value[at] = l->value[at - 1];
		at--;
	}
	l->name[at] = lua_tostring(L, -2);
	l->value[at] = lua_tostring(L, -1);
	l->n++;
}

static void read_labels(lua_State *L, int index, const char *name, struct labels *l)
{
	l->n = 0;
	if (!lua_isnoneornil(L, index)) {
		luaL_checktype(L, index, LUA_TTABLE);
		for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1))
			add_label(L, l); /* the texts stay in the table */
	}
	size_t names = 0, key = (size_t)snprintf(l->key, sizeof l->key, "%s", name);

	l->names[0] = '\0';
	for (unsigned i = 0; i < l->n; i++) {
		names += (size_t)snprintf(l->names + names, sizeof l->names - names, "%s%s", i ? "," : "", l->name[i]);
		key += (size_t)snprintf(l->key + key, sizeof l->key - key, "\n%s\n%s", l->name[i], l->value[i]);
	}
}

/* One name is one type and one set of labels; a new series counts. */
static void check_made(lua_State *L, const char *name, enum metric_type type, const struct labels *l)
{
	char kind[sizeof l->names + 8];

	snprintf(kind, sizeof kind, "%d %s", (int)type, l->names);
	if (lua_rawgetp(L, LUA_REGISTRYINDEX, &made) == LUA_TNIL) {
		lua_newtable(L);
		lua_pushvalue(L, -1);
		lua_rawsetp(L, LUA_REGISTRYINDEX, &made);
		lua_replace(L, -2);
	}
	int list = lua_gettop(L);

	if (lua_getfield(L, list, name) == LUA_TNIL) {
		lua_pushstring(L, kind);
		lua_setfield(L, list, name);
	} else if (strcmp(lua_tostring(L, -1), kind) != 0) {
		app_raise(L, "metrics: \"%s\" was made with another type or other labels", name);
	}
	lua_pushfstring(L, "%s\n", l->key); /* no name ends so */
	if (lua_rawget(L, list) == LUA_TNIL) {
		lua_Integer n = (lua_Integer)lua_rawlen(L, list);

		if (n >= SERIES_MAX)
			app_raise(L, "metrics: more than %d series: labels must not come from players", SERIES_MAX);
		lua_pushboolean(L, 1);
		lua_rawseti(L, list, n + 1);
		lua_pushfstring(L, "%s\n", l->key);
		lua_pushboolean(L, 1);
		lua_rawset(L, list);
	}
	lua_settop(L, list - 1);
}

/* metrics.counter(name, help, labels), and so on. */
static int make(lua_State *L, enum metric_type type)
{
	struct worker *w = app_of(L)->worker;
	const char *name = check_name(L, type), *help = luaL_checkstring(L, 2);
	struct labels l;
	char full[NAME_BYTES + 64];

	read_labels(L, 3, name, &l);
	check_made(L, name, type, &l);
	snprintf(full, sizeof full, "loquat_%s_%s", w->service->def->name, name);
	struct handle *h = lua_newuserdatauv(L, sizeof *h, 0);

	h->type = type;
	h->metric = metric(w->service->metrics, w->loop->index, type, full, help, l.n ? l.names : NULL,
			   l.n ? l.value : NULL);
	luaL_setmetatable(L, METRIC_META);
	return 1;
}

static int counter(lua_State *L)
{
	return make(L, METRIC_COUNTER);
}

static int gauge(lua_State *L)
{
	return make(L, METRIC_GAUGE);
}

static int histogram(lua_State *L)
{
	return make(L, METRIC_HISTOGRAM);
}

static struct metric *check(lua_State *L, enum metric_type type, const char *what)
{
	struct handle *h = luaL_checkudata(L, 1, METRIC_META);

	if (h->type != type)
		luaL_error(L, "this metric is no %s", what);
	return h->metric;
}

/* counter:add(n): without n one. */
static int add(lua_State *L)
{
	lua_Integer n = luaL_optinteger(L, 2, 1);

	luaL_argcheck(L, n >= 0, 2, "a counter only grows");
	metric_add(check(L, METRIC_COUNTER, "counter"), (uint64_t)n);
	return 0;
}

static int set(lua_State *L)
{
	metric_set(check(L, METRIC_GAUGE, "gauge"), luaL_checkinteger(L, 2));
	return 0;
}

/* histogram:observe(seconds) */
static int observe(lua_State *L)
{
	lua_Number seconds = luaL_checknumber(L, 2);

	luaL_argcheck(L, seconds >= 0 && seconds < 1e9, 2, "seconds from 0");
	metric_observe_ns(check(L, METRIC_HISTOGRAM, "histogram"), (uint64_t)(seconds * 1e9));
	return 0;
}

int app_metrics_lib(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "counter", counter }, { "gauge", gauge }, { "histogram", histogram }, { NULL, NULL }
	};
	static const luaL_Reg methods[] = { { "add", add }, { "set", set }, { "observe", observe }, { NULL, NULL } };

	luaL_newmetatable(L, METRIC_META);
	luaL_newlib(L, methods);
	lua_setfield(L, -2, "__index");
	lua_pop(L, 1);
	luaL_newlib(L, functions);
	return 1;
}
