#include "common/lua_pattern.h"

#include <ctype.h>
#include <lauxlib.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "common/luahost_private.h"

#define SPECIALS "^$*+?.([%-"

enum {
	STEPS = 1000, /* between two accounts */
	OPEN = -1,    /* lengths of captures that are none yet, or a position */
	POSITION = -2,
};

struct capture {
	const char *at;
	ptrdiff_t len;
};

struct match {
	lua_State *L;
	const char *text, *text_end, *pattern_end;
	int depth; /* tries that may still be nested */
	int steps; /* until the next account */
	int captures;
	struct capture capture[LUA_PATTERN_CAPTURES];
};

/* Where the text that matches p from s on ends; NULL: it does not. */
static const char *match_here(struct match *m, const char *s, const char *p);

static void step(struct match *m)
{
	if (--m->steps > 0)
		return;
	m->steps = STEPS;
	luahost_spend(m->L, STEPS);
}

/* ---- one character ------------------------------------------------------------------------------------------ */

/* The end of the single item at p: a letter, %x, or [set]. */
static const char *item_end(struct match *m, const char *p)
{
	char c = *p++;
	if (c == '%') {
		if (p == m->pattern_end)
			luaL_error(m->L, "malformed pattern (ends with '%%')");
		return p + 1;
	}
	if (c != '[')
		return p;
	if (p < m->pattern_end && *p == '^')
		p++;
	do { /* the first one may be ']' itself */
		if (p == m->pattern_end)
			luaL_error(m->L, "malformed pattern (missing ']')");
		c = *p++;
		if (c == '%' && p < m->pattern_end)
			p++;
	} while (p >= m->pattern_end || *p != ']');
	return p + 1;
}

static bool is_of_class(int c, int class)
{
	bool yes;
	switch (tolower(class)) {
	case 'a': yes = isalpha(c); break;
	case 'c': yes = iscntrl(c); break;
	case 'd': yes = isdigit(c); break;
	case 'g': yes = isgraph(c); break;
	case 'l': yes = islower(c); break;
	case 'p': yes = ispunct(c); break;
	case 's': yes = isspace(c); break;
	case 'u': yes = isupper(c); break;
	case 'w': yes = isalnum(c); break;
	case 'x': yes = isxdigit(c); break;
	case 'z': yes = c == 0; break; /* of Lua 5.1, still taken */
	default: return class == c;
	}
	return isupper(class) ? !yes : yes;
}

/* p is at '[', last at its ']'. */
static bool is_in_set(int c, const char *p, const char *last)
{
	bool found = true;
	if (*++p == '^') {
		found = false;
		p++;
	}
	for (; p < last; p++) {
		if (*p == '%') {
			if (is_of_class(c, (unsigned char)*++p))
				return found;
		} else if (p[1] == '-' && p + 2 < last) {
			if ((unsigned char)p[0] <= c && c <= (unsigned char)p[2])
				return found;
			p += 2;
		} else if ((unsigned char)*p == c) {
			return found;
		}
	}
	return !found;
}

static bool is_one(struct match *m, const char *s, const char *p, const char *end)
{
	step(m);
	if (s >= m->text_end)
		return false;
	int c = (unsigned char)*s;
	switch (*p) {
	case '.': return true;
	case '%': return is_of_class(c, (unsigned char)p[1]);
	case '[': return is_in_set(c, p, end - 1);
	default: return (unsigned char)*p == c;
	}
}

/* ---- items that are more ------------------------------------------------------------------------------------ */

/* %bxy */
static const char *match_balance(struct match *m, const char *s, const char *p)
{
	if (m->pattern_end - p < 2)
		luaL_error(m->L, "malformed pattern (missing arguments to '%%b')");
	if (s >= m->text_end || *s != *p)
		return NULL;
	for (int open = 1; ++s < m->text_end;) {
		step(m);
		if (*s == p[1]) {
			if (--open == 0)
				return s + 1;
		} else if (*s == p[0]) {
			open++;
		}
	}
	return NULL;
}

/* %f[set], p at the '[' */
static bool is_frontier(struct match *m, const char *s, const char *p, const char *end)
{
	int before = s == m->text ? 0 : (unsigned char)s[-1], here = s < m->text_end ? (unsigned char)*s : 0;
	return !is_in_set(before, p, end - 1) && is_in_set(here, p, end - 1);
}

static const char *match_most(struct match *m, const char *s, const char *p, const char *end)
{
	ptrdiff_t n = 0;
	while (is_one(m, s + n, p, end))
		n++;
	for (; n >= 0; n--) {
		const char *rest = match_here(m, s + n, end + 1);
		if (rest)
			return rest;
	}
	return NULL;
}

static const char *match_least(struct match *m, const char *s, const char *p, const char *end)
{
	for (;; s++) {
		const char *rest = match_here(m, s, end + 1);
		if (rest)
			return rest;
		if (!is_one(m, s, p, end))
			return NULL;
	}
}

/* ---- captures ----------------------------------------------------------------------------------------------- */

static const char *open_capture(struct match *m, const char *s, const char *p, ptrdiff_t len)
{
	if (m->captures >= LUA_PATTERN_CAPTURES)
		luaL_error(m->L, "too many captures");
	m->capture[m->captures++] = (struct capture){ s, len };
	const char *rest = match_here(m, s, p);
	if (!rest)
		m->captures--;
	return rest;
}

static const char *close_capture(struct match *m, const char *s, const char *p)
{
	int i = m->captures - 1;
	while (i >= 0 && m->capture[i].len != OPEN)
		i--;
	if (i < 0)
		luaL_error(m->L, "invalid pattern capture");
	m->capture[i].len = s - m->capture[i].at;
	const char *rest = match_here(m, s, p);
	if (!rest)
		m->capture[i].len = OPEN;
	return rest;
}

/* %1 … %9: the same text again. */
static const char *match_again(struct match *m, const char *s, int digit)
{
	int i = digit - '1';
	if (i < 0 || i >= m->captures || m->capture[i].len == OPEN)
		luaL_error(m->L, "invalid capture index %%%d", i + 1);
	size_t len = (size_t)m->capture[i].len; /* a position's is larger than any text */
	if ((size_t)(m->text_end - s) < len || memcmp(m->capture[i].at, s, len) != 0)
		return NULL;
	m->steps -= len < STEPS ? (int)len : STEPS;
	return s + len;
}

/* ---- the whole ---------------------------------------------------------------------------------------------- */

/* A single item and what repeats it. True: go on with *s and *p; false: *s is the answer. */
static bool match_item(struct match *m, const char **s, const char **p)
{
	const char *end = item_end(m, *p), *rest;
	switch (end < m->pattern_end ? *end : '\0') {
	case '*': *s = match_most(m, *s, *p, end); return false;
	case '-': *s = match_least(m, *s, *p, end); return false;
	case '+': *s = is_one(m, *s, *p, end) ? match_most(m, *s + 1, *p, end) : NULL; return false;
	case '?':
		if (is_one(m, *s, *p, end) && (rest = match_here(m, *s + 1, end + 1))) {
			*s = rest;
			return false;
		}
		*p = end + 1;
		return true;
	default:
		if (!is_one(m, *s, *p, end)) {
			*s = NULL;
			return false;
		}
		++*s;
		*p = end;
		return true;
	}
}

/* What begins with '%'. As match_item. */
static bool match_escape(struct match *m, const char **s, const char **p)
{
	int c = *p + 1 < m->pattern_end ? (unsigned char)(*p)[1] : 0;
	if (c == 'b') {
		*s = match_balance(m, *s, *p + 2);
		*p += 4;
		return *s;
	}
	if (c == 'f') {
		const char *set = *p + 2;
		if (set >= m->pattern_end || *set != '[')
			luaL_error(m->L, "missing '[' after '%%f' in pattern");
		*p = item_end(m, set);
		if (!is_frontier(m, *s, set, *p))
			*s = NULL;
		return *s;
	}
	if (!isdigit(c))
		return match_item(m, s, p);
	*s = match_again(m, *s, c);
	*p += 2;
	return *s;
}

static const char *match_here(struct match *m, const char *s, const char *p)
{
	if (m->depth-- == 0)
		luaL_error(m->L, "pattern too complex");
	bool on = true;
	while (on && p < m->pattern_end) {
		step(m);
		if (*p == '(') {
			bool position = p + 1 < m->pattern_end && p[1] == ')';
			s = open_capture(m, s, p + (position ? 2 : 1), position ? POSITION : OPEN);
			on = false;
		} else if (*p == ')') {
			s = close_capture(m, s, p + 1);
			on = false;
		} else if (*p == '$' && p + 1 == m->pattern_end) {
			s = s == m->text_end ? s : NULL;
			on = false;
		} else {
			on = *p == '%' ? match_escape(m, &s, &p) : match_item(m, &s, &p);
		}
	}
	m->depth++;
	return s;
}

static void prepare(struct match *m, lua_State *L, const char *text, size_t len, const char *pattern_end)
{
	m->L = L;
	m->text = text;
	m->text_end = text + len;
	m->pattern_end = pattern_end;
	m->steps = STEPS;
}

static const char *match_at(struct match *m, const char *s, const char *p)
{
	m->depth = LUA_PATTERN_DEPTH;
	m->captures = 0;
	return match_here(m, s, p);
}

/* ---- results ------------------------------------------------------------------------------------------------ */

/* Capture i: its length, or POSITION; the first of a pattern that has none is the whole match, s to e. */
static ptrdiff_t capture_of(struct match *m, int i, const char *s, const char *e, const char **at)
{
	if (i >= m->captures) {
		if (i > 0)
			luaL_error(m->L, "invalid capture index %%%d", i + 1);
		*at = s;
		return e - s;
	}
	*at = m->capture[i].at;
	if (m->capture[i].len == OPEN)
		luaL_error(m->L, "unfinished capture");
	return m->capture[i].len;
}

static void push_capture(struct match *m, int i, const char *s, const char *e)
{
	const char *at;
	ptrdiff_t len = capture_of(m, i, s, e, &at);
	if (len == POSITION)
		lua_pushinteger(m->L, at - m->text + 1);
	else
		lua_pushlstring(m->L, at, (size_t)len);
}

static int push_captures(struct match *m, const char *s, const char *e)
{
	int n = m->captures || !s ? m->captures : 1;
	luaL_checkstack(m->L, n, "too many captures");
	for (int i = 0; i < n; i++)
		push_capture(m, i, s, e);
	return n;
}

/* An index from 1, or from the end; at least 1. Past the end stays so. */
static size_t start_index(lua_State *L, int arg, size_t len)
{
	lua_Integer i = luaL_optinteger(L, arg, 1);
	if (i > 0)
		return (size_t)i - 1;
	if (i == 0 || i < -(lua_Integer)len)
		return 0;
	return len - (size_t)(-i);
}

static bool is_plain(const char *pattern, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (pattern[i] && strchr(SPECIALS, pattern[i]))
			return false;
	return true;
}

static int find_plain(lua_State *L, const char *text, size_t len, size_t from, const char *what, size_t what_len)
{
	const char *at = what_len ? memmem(text + from, len - from, what, what_len) : text + from;
	if (!at) {
		luaL_pushfail(L);
		return 1;
	}
	lua_pushinteger(L, at - text + 1);
	lua_pushinteger(L, at - text + (lua_Integer)what_len);
	return 2;
}

static int find_or_match(lua_State *L, bool find)
{
	size_t len, pattern_len;
	const char *text = luaL_checklstring(L, 1, &len), *p = luaL_checklstring(L, 2, &pattern_len);
	size_t from = start_index(L, 3, len);
	if (from > len) {
		luaL_pushfail(L);
		return 1;
	}
	if (find && (lua_toboolean(L, 4) || is_plain(p, pattern_len)))
		return find_plain(L, text, len, from, p, pattern_len);
	struct match m;
	prepare(&m, L, text, len, p + pattern_len);
	bool anchored = *p == '^';
	for (const char *s = text + from, *e; s <= m.text_end; s++) {
		if ((e = match_at(&m, s, p + anchored))) {
			if (!find)
				return push_captures(&m, s, e);
			lua_pushinteger(L, s - text + 1);
			lua_pushinteger(L, e - text);
			return push_captures(&m, NULL, NULL) + 2;
		}
		if (anchored)
			break;
	}
	luaL_pushfail(L);
	return 1;
}

static int l_find(lua_State *L)
{
	return find_or_match(L, true);
}

static int l_match(lua_State *L)
{
	return find_or_match(L, false);
}

/* The iterator of gmatch. Upvalues: text, pattern, where to go on, where the last match ended (0: none yet, else + 1). */
static int next_match(lua_State *L)
{
	size_t len, pattern_len;
	const char *text = lua_tolstring(L, lua_upvalueindex(1), &len);
	const char *p = lua_tolstring(L, lua_upvalueindex(2), &pattern_len);
	lua_Integer from = lua_tointeger(L, lua_upvalueindex(3)), last = lua_tointeger(L, lua_upvalueindex(4));
	struct match m;
	prepare(&m, L, text, len, p + pattern_len);
	for (; from <= (lua_Integer)len; from++) {
		const char *s = text + from, *e = match_at(&m, s, p);
		if (!e || e - text + 1 == last)
			continue;
		lua_pushinteger(L, e - text);
		lua_replace(L, lua_upvalueindex(3));
		lua_pushinteger(L, e - text + 1);
		lua_replace(L, lua_upvalueindex(4));
		return push_captures(&m, s, e);
	}
	return 0;
}

static int l_gmatch(lua_State *L)
{
	size_t len;
	luaL_checklstring(L, 1, &len);
	luaL_checkstring(L, 2);
	size_t from = start_index(L, 3, len);
	lua_settop(L, 2);
	lua_pushinteger(L, (lua_Integer)(from > len ? len + 1 : from));
	lua_pushinteger(L, 0);
	lua_pushcclosure(L, next_match, 4);
	return 1;
}

/* ---- gsub --------------------------------------------------------------------------------------------------- */

static void add_capture(struct match *m, luaL_Buffer *b, int i, const char *s, const char *e)
{
	const char *at;
	ptrdiff_t len = capture_of(m, i, s, e, &at);
	if (len == POSITION) {
		lua_pushinteger(m->L, at - m->text + 1);
		luaL_addvalue(b);
	} else {
		luaL_addlstring(b, at, (size_t)len);
	}
}

static void add_text(struct match *m, luaL_Buffer *b, const char *s, const char *e)
{
	size_t len;
	const char *r = lua_tolstring(m->L, 3, &len), *end = r + len;
	for (const char *escape; (escape = memchr(r, '%', (size_t)(end - r))); r = escape + 1) {
		luaL_addlstring(b, r, (size_t)(escape - r));
		escape++;
		if (*escape == '%')
			luaL_addchar(b, '%');
		else if (*escape == '0')
			luaL_addlstring(b, s, (size_t)(e - s));
		else if (isdigit((unsigned char)*escape))
			add_capture(m, b, *escape - '1', s, e);
		else
			luaL_error(m->L, "invalid use of '%%' in replacement string");
	}
	luaL_addlstring(b, r, (size_t)(end - r));
}

/* What stands for the match s to e. True: something else than itself. */
static bool add_replacement(struct match *m, luaL_Buffer *b, const char *s, const char *e, int type)
{
	lua_State *L = m->L;
	if (type == LUA_TFUNCTION) {
		lua_pushvalue(L, 3);
		lua_call(L, push_captures(m, s, e), 1);
	} else if (type == LUA_TTABLE) {
		push_capture(m, 0, s, e);
		lua_gettable(L, 3);
	} else {
		add_text(m, b, s, e);
		return true;
	}
	if (!lua_toboolean(L, -1)) {
		lua_pop(L, 1);
		luaL_addlstring(b, s, (size_t)(e - s));
		return false;
	}
	if (!lua_isstring(L, -1))
		luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
	luaL_addvalue(b);
	return true;
}

static int l_gsub(lua_State *L)
{
	size_t len, pattern_len;
	const char *text = luaL_checklstring(L, 1, &len), *p = luaL_checklstring(L, 2, &pattern_len), *end;
	int type = lua_type(L, 3);
	luaL_argexpected(L, type == LUA_TNUMBER || type == LUA_TSTRING || type == LUA_TFUNCTION || type == LUA_TTABLE,
			 3, "string/function/table");
	lua_Integer most = luaL_optinteger(L, 4, (lua_Integer)len + 1), n = 0;
	bool anchored = *p == '^', changed = false;
	struct match m;
	luaL_Buffer b;
	end = p + pattern_len;
	prepare(&m, L, text, len, end);
	luaL_buffinit(L, &b);
	const char *s = text, *last = NULL;
	while (n < most) {
		const char *e = match_at(&m, s, p + anchored);
		if (e && e != last) {
			n++;
			changed |= add_replacement(&m, &b, s, e, type);
			s = last = e;
		} else if (s < m.text_end) {
			luaL_addchar(&b, *s++);
		} else {
			break;
		}
		if (anchored)
			break;
	}
	if (changed) {
		luaL_addlstring(&b, s, (size_t)(m.text_end - s));
		luaL_pushresult(&b);
	} else {
		lua_pushvalue(L, 1);
	}
	lua_pushinteger(L, n);
	return 2;
}

void lua_pattern_open(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "find", l_find }, { "match", l_match }, { "gmatch", l_gmatch }, { "gsub", l_gsub }, { NULL, NULL }
	};
	luaL_setfuncs(L, functions, 0);
}
