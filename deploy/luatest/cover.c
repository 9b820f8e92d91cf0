/* Which lines of the service's files ran. Which lines there are is read from Lua's own compiled form (5.4). */
#include <assert.h>
#include <ctype.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "deploy/luatest/luatest.h"

struct covered {
	char source[ENV_PATH_MAX]; /* "@role/lua/items.lua" */
	const struct luasrc_file *file;
	unsigned lines;
	uint8_t *code, *ran; /* by line number; ran: all processes of the run mark it */
};
struct cover {
	struct covered *file;
	size_t files;
	const char *last_source; /* what the hook looked up last */
	struct covered *last;
	uint64_t generation;
	lua_Hook before;
};

/* ---- the compiled form ------------------------------------------------------------------------------------ */

struct reader {
	const uint8_t *at, *end;
};

static unsigned byte(struct reader *r)
{
	assert(r->at < r->end);
	return *r->at++;
}

static void skip(struct reader *r, size_t n)
{
	assert(n <= (size_t)(r->end - r->at));
	r->at += n;
}

static size_t number(struct reader *r)
{
	size_t v = 0;
	unsigned b;

	do {
		b = byte(r);
		v = v << 7 | (b & 0x7f);
	} while (!(b & 0x80));
	return v;
}

static void text(struct reader *r)
{
	size_t n = number(r);

	skip(r, n ? n - 1 : 0);
}

static void constants(struct reader *r)
{
	for (size_t n = number(r); n; n--) {
		unsigned tag = byte(r);

		if ((tag & 0x0f) == 3)
			skip(r, 8);
		else if ((tag & 0x0f) == 4)
			text(r);
	}
}

static void mark(struct covered *f, size_t line)
{
	if (line >= 1 && line <= f->lines)
		f->code[line] = 1;
}

#define ABSOLUTE 0x80 /* in the line deltas: it stands in the list behind them */

static void lines(struct reader *r, struct covered *f, size_t first, bool vararg)
{
	size_t n = number(r);
	const int8_t *delta = (const int8_t *)r->at;

	skip(r, n);
	size_t absolutes = number(r), line = first;

	for (size_t pc = 0; pc < n; pc++) {
		if ((uint8_t)delta[pc] != ABSOLUTE) {
			line += (size_t)(int64_t)delta[pc];
		} else {
			number(r);
			line = number(r);
			absolutes--;
		}
		if (pc || !vararg)
			mark(f, line);
	}
	while (absolutes--) {
		number(r);
		number(r);
	}
}

static void function(struct reader *r, struct covered *f)
{
	text(r);
	size_t first = number(r);

	number(r);
	byte(r);
	bool vararg = byte(r);

	byte(r);
	skip(r, number(r) * 4);
	constants(r);
	skip(r, number(r) * 3);
	for (size_t n = number(r); n; n--)
		function(r, f);
	lines(r, f, first, vararg);
	for (size_t n = number(r); n; n--) {
		text(r);
		number(r);
		number(r);
	}
	for (size_t n = number(r); n; n--)
		text(r);
}

static int add_bytes(lua_State *L, const void *p, size_t n, void *arg)
{
	(void)L;
	buf_add(arg, p, n);
	return 0;
}

/* A line of nothing but ends is never run where the block before it returns. */
static bool is_only_ends(const char *p, const char *end)
{
	while (p < end) {
		size_t n = strspn(p, " \t)}];,");

		if (n >= (size_t)(end - p))
			return true;
		p += n;
		if (strncmp(p, "end", 3) && strncmp(p, "else", 4))
			return false;
		p += *p == 'e' && p[1] == 'n' ? 3 : 4;
		if (p < end && (isalnum((unsigned char)*p) || *p == '_'))
			return false;
	}
	return true;
}

static void drop_ends(struct covered *f)
{
	const char *p = f->file->text, *end = p + f->file->bytes;

	for (unsigned line = 1; p < end && line <= f->lines; line++) {
		const char *stop = memchr(p, '\n', (size_t)(end - p));

		stop = stop ? stop : end;
		if (is_only_ends(p, stop))
			f->code[line] = 0;
		p = stop + 1;
	}
}

static void find_lines(lua_State *L, struct covered *f)
{
	struct buf out = BUF_INIT;

	if (luaL_loadbufferx(L, f->file->text, f->file->bytes, "=x", "t") == LUA_OK) {
		lua_dump(L, add_bytes, &out, 0);
		struct reader r = { (uint8_t *)out.data, (uint8_t *)out.data + out.len };

		skip(&r, 4 + 1 + 1 + 6 + 3 + 8 + 8 + 1); /* header, and how many upvalues */
		function(&r, f);
		drop_ends(f);
	}
	lua_pop(L, 1);
	buf_release(&out);
}

/* ---- counting ------------------------------------------------------------------------------------------------- */

static struct covered *find(struct cover *c, const char *source)
{
	for (size_t i = 0; i < c->files; i++)
		if (!strcmp(c->file[i].source, source))
			return &c->file[i];
	return NULL;
}

static void on_hook(lua_State *L, lua_Debug *ar)
{
	struct cover *c = luatest_world->t->cover;

	if (ar->event != LUA_HOOKLINE) {
		c->before(L, ar);
		return;
	}
	lua_getinfo(L, "S", ar);
	if (ar->source != c->last_source) {
		c->last_source = ar->source;
		c->last = find(c, ar->source);
	}
	if (c->last && ar->currentline >= 0 && (unsigned)ar->currentline <= c->last->lines)
		c->last->ran[ar->currentline] = 1;
}

/* Coroutines inherit it; the host's own hook, which counts instructions, is called by it. */
void cover_hook(struct cover *c, lua_State *L)
{
	c->last_source = NULL; /* another state: the same address may be another text */
	c->before = lua_gethook(L);
	lua_sethook(L, on_hook, LUA_MASKLINE | LUA_MASKCOUNT, lua_gethookcount(L));
}

struct cover *cover_new(struct luasrc *src)
{
	struct cover *c = calloc(1, sizeof *c);
	lua_State *L = luaL_newstate();

	assert(c && L);
	c->file = calloc(luasrc_files(src) + 1, sizeof *c->file);
	assert(c->file);
	for (size_t i = 0; i < luasrc_files(src); i++) {
		const struct luasrc_file *file = luasrc_at(src, i);
		struct covered *f = &c->file[c->files];

		/* tables are read once for all tests, before any */
		if (!strncmp(file->name, "tests.", 6) || !strncmp(file->name, "tables.", 7))
			continue;
		f->file = file;
		snprintf(f->source, sizeof f->source, "@%s", file->path);
		for (size_t k = 0; k < file->bytes; k++)
			f->lines += file->text[k] == '\n';
		f->lines++;
		f->code = calloc(f->lines + 1, 1);
		f->ran = mmap(NULL, f->lines + 1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		assert(f->code && f->ran != MAP_FAILED);
		find_lines(L, f);
		c->files++;
	}
	lua_close(L);
	return c;
}

void cover_free(struct cover *c)
{
	for (size_t i = 0; c && i < c->files; i++) {
		free(c->file[i].code);
		munmap(c->file[i].ran, c->file[i].lines + 1);
	}
	if (c)
		free(c->file);
	free(c);
}

static void add_range(char *out, size_t size, unsigned from, unsigned to)
{
	size_t n = strlen(out);

	if (n + 24 > size)
		snprintf(out + n, size - n, "%s", n >= 3 && !strcmp(out + n - 3, "…") ? "" : " …");
	else if (from == to)
		snprintf(out + n, size - n, "%s%u", n ? " " : "", from);
	else
		snprintf(out + n, size - n, "%s%u-%u", n ? " " : "", from, to);
}

bool cover_file(struct cover *c, size_t index, struct cover_line *out)
{
	const struct covered *f = c && index < c->files ? &c->file[index] : NULL;
	unsigned from = 0, to = 0;

	if (!f)
		return false;
	*out = (struct cover_line){ .path = f->file->path };
	for (unsigned line = 1; line <= f->lines; line++) {
		if (!f->code[line])
			continue;
		out->lines++;
		out->ran += f->ran[line];
		if (!f->ran[line]) {
			from = from ? from : line;
			to = line;
		} else if (from) {
			add_range(out->missing, sizeof out->missing, from, to);
			from = 0;
		}
	}
	if (from)
		add_range(out->missing, sizeof out->missing, from, to);
	return true;
}
