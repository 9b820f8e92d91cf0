#include "common/config_tree.h"
#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/buf.h"
#include "common/err.h"
#include "common/text.h"

/*
 * The file is run in a Lua state of its own, its table is copied into a tree of nodes, the state is closed, and
 * the tree is checked against the rows. Beside its own path ("instances[3].id", for messages) a node is known by
 * the path of its row ("instances[].id").
 */
enum { FILE_BYTES_MAX = 1 << 20 };
#define EXACT_MAX 9007199254740992.0 /* 2^53: whole numbers up to here are themselves as double */

struct config {
	struct node *root;
	struct config_row *rows; /* a copy: path and type */
};

int config_fail(struct load *l, const char *path, const char *fmt, ...)
{
	va_list args;
	int n = snprintf(l->error, l->error_size, *path ? "%s: %s: " : "%s: %s", l->name, path);
	if (n >= 0 && (size_t)n < l->error_size) {
		va_start(args, fmt);
		vsnprintf(l->error + n, l->error_size - (size_t)n, fmt, args);
		va_end(args);
	}
	for (char *p = l->error; l->error_size && *p; p++) /* one line, whatever a string holds */
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = ' ';
	return ERR_CONFIG;
}

int config_path_join(struct load *l, char to[CONFIG_PATH_MAX], const char *path, const char *key, int64_t index)
{
	int n = key ? snprintf(to, CONFIG_PATH_MAX, "%s%s%s", path, *path ? "." : "", key)
		    : snprintf(to, CONFIG_PATH_MAX, "%s[%lld]", path, (long long)index);
	return n < CONFIG_PATH_MAX ? 0 : config_fail(l, path, "the path of a key in it is too long");
}

/* ---- the tree -------------------------------------------------------------------------------------------- */

void *config_must(void *p)
{
	if (!p)
		abort(); /* before start-up ends: there is nothing to go on with */
	return p;
}

struct node *config_node_new(enum kind kind, const char *key)
{
	struct node *n = config_must(calloc(1, sizeof *n));
	n->kind = kind;
	n->key = key ? config_must(strdup(key)) : NULL;
	return n;
}

void config_node_free(struct node *n)
{
	if (!n)
		return;
	for (size_t i = 0; i < n->item_n; i++)
		config_node_free(n->item[i]);
	free(n->item);
	free(n->key);
	free(n->text);
	free(n);
}

/* The named ones stay sorted, so that messages and iteration do not depend on Lua's table order. */
void config_node_insert_take(struct node *table, struct node *n)
{
	table->item = config_must(realloc(table->item, (table->item_n + 1) * sizeof *table->item));
	size_t at = table->item_n++;
	for (; n->key && at > table->list_n && strcmp(table->item[at - 1]->key, n->key) > 0; at--)
		table->item[at] = table->item[at - 1];
	table->item[at] = n;
	if (!n->key)
		table->list_n++;
}

static struct node *node_get(const struct node *table, const char *key, size_t key_n)
{
	for (size_t i = table->list_n; i < table->item_n; i++)
		if (!strncmp(table->item[i]->key, key, key_n) && !table->item[i]->key[key_n])
			return table->item[i];
	return NULL;
}

/* ---- against the rows ------------------------------------------------------------------------------------ */

static void expected_text(const struct config_row *row, char *text, size_t size)
{
	static const char *const words[] = { "integer", "number", "true or false", "string", "table", "anything" };
	const char *word = words[row->type];
	if (row->min == 0 && row->max == 0)
		snprintf(text, size, "%s", word);
	else if (row->type == CONFIG_STRING)
		snprintf(text, size, "%s of %.16g..%.16g bytes", word, row->min, row->max);
	else
		snprintf(text, size, "%s %.16g..%.16g", word, row->min, row->max);
}

static void found_text(const struct node *n, char *text, size_t size)
{
	switch (n ? n->kind : NODE_OTHER) {
	case NODE_INT: snprintf(text, size, "%lld", (long long)n->integer); break;
	case NODE_NUMBER: snprintf(text, size, "%.14g", n->number); break;
	case NODE_BOOL: snprintf(text, size, n->integer ? "true" : "false"); break;
	case NODE_STRING: snprintf(text, size, n->text_n > 40 ? "\"%.40s…\"" : "\"%s\"", n->text); break;
	case NODE_TABLE: snprintf(text, size, "a table"); break;
	default: snprintf(text, size, n ? "a %s" : "nothing", n ? n->text : "");
	}
}

static int fail_expected(struct load *l, const char *path, const struct config_row *row, const struct node *n)
{
	char expected[96], found[96];
	expected_text(row, expected, sizeof expected);
	found_text(n, found, sizeof found);
	return config_fail(l, path, "expected %s, found %s", expected, found);
}

static bool in_bounds(const struct config_row *row, double v)
{
	return (row->min == 0 && row->max == 0) || (v >= row->min && v <= row->max);
}

static bool fits(const struct config_row *row, struct node *n)
{
	switch (row->type) {
	case CONFIG_INT:
		if (n->kind == NODE_NUMBER && fabs(n->number) <= EXACT_MAX &&
		    n->number == (double)(int64_t)n->number) { /* Lua's 1e4 is a float */
			n->kind = NODE_INT;
			n->integer = (int64_t)n->number;
		}
		return n->kind == NODE_INT && in_bounds(row, (double)n->integer);
	case CONFIG_NUMBER: return (n->kind == NODE_INT || n->kind == NODE_NUMBER) && in_bounds(row, n->number);
	case CONFIG_BOOL: return n->kind == NODE_BOOL;
	case CONFIG_STRING:
		return n->kind == NODE_STRING && !memchr(n->text, 0, n->text_n) && in_bounds(row, (double)n->text_n);
	case CONFIG_TABLE: return n->kind == NODE_TABLE;
	default: return true;
	}
}

static const struct config_row *row_find(const struct config_row *rows, const char *pattern)
{
	while (rows->path && strcmp(rows->path, pattern))
		rows++;
	return rows->path ? rows : NULL;
}

static bool has_rows_below(const struct config_row *rows, const char *pattern)
{
	size_t n = strlen(pattern);
	for (; rows->path; rows++)
		if (!strncmp(rows->path, pattern, n) && (rows->path[n] == '.' || rows->path[n] == '['))
			return true;
	return false;
}

/* A key beside it that is spelled almost so, or one of the same name at another place. */
static int fail_unknown(struct load *l, const char *path, const char *pattern, const char *key)
{
	const char *best = NULL;
	size_t pattern_n = strlen(pattern), best_n = 0, least = key ? strlen(key) / 3 + 1 : 0;
	for (const struct config_row *r = l->rows; key && r->path; r++) {
		const char *last = strrchr(r->path, '.');
		if (!best && !strcmp(last ? last + 1 : r->path, key)) {
			best = r->path;
			best_n = strlen(best);
		}
		if (strncmp(r->path, pattern, pattern_n) || (pattern_n && r->path[pattern_n] != '.'))
			continue;
		const char *name = r->path + pattern_n + (pattern_n > 0);
		size_t name_n = strcspn(name, ".["), edits = text_distance(key, name, name_n);
		if (edits <= least && *name != '*') {
			best = name;
			best_n = name_n;
			least = edits ? edits - 1 : 0; /* of equally near ones the first */
		}
	}
	if (best)
		return config_fail(l, path, "unknown key; did you mean %.*s?", (int)best_n, best);
	return config_fail(l, path, "unknown key");
}

/* The row's path of what stands in a table by this key, of an element of the list without one. False: no row knows it. */
static bool child_of(const struct config_row *rows, char child[CONFIG_PATH_MAX], const char *pattern, const char *key)
{
	const char *dot = *pattern ? "." : "";
	if (key)
		snprintf(child, CONFIG_PATH_MAX, "%s%s%s", pattern, dot, key);
	else
		snprintf(child, CONFIG_PATH_MAX, "%s[]", pattern);
	if (row_find(rows, child) || has_rows_below(rows, child))
		return true;
	if (key)
		snprintf(child, CONFIG_PATH_MAX, "%s%s*", pattern, dot);
	return key && (row_find(rows, child) || has_rows_below(rows, child));
}

static int check_table(struct load *l, struct node *table, const char *path, const char *pattern);

static int check_node(struct load *l, struct node *n, const char *path, const char *pattern)
{
	static const struct config_row some_table = { .type = CONFIG_TABLE };
	const struct config_row *row = row_find(l->rows, pattern);
	bool below = has_rows_below(l->rows, pattern);
	if (!row && below)
		row = &some_table;
	if (!fits(row, n))
		return fail_expected(l, path, row, n);
	return below && row->type == CONFIG_TABLE ? check_table(l, n, path, pattern) : 0;
}

static int check_table(struct load *l, struct node *table, const char *path, const char *pattern)
{
	int err = 0;
	char child_path[CONFIG_PATH_MAX], child_pattern[CONFIG_PATH_MAX];
	for (size_t i = 0; err == 0 && i < table->item_n; i++) {
		struct node *n = table->item[i];
		config_path_join(l, child_path, path, n->key, (int64_t)i + 1);
		err = child_of(l->rows, child_pattern, pattern, n->key) ? check_node(l, n, child_path, child_pattern)
									: fail_unknown(l, child_path, pattern, n->key);
	}
	return err;
}

/* ---- defaults and what must be given ----------------------------------------------------------------------- */

static struct node *node_default(const struct config_row *row, const char *key)
{
	const char *text = row->fallback;
	char *end = NULL;
	struct node *n = config_node_new(NODE_TABLE, key);
	switch (row->type) {
	case CONFIG_INT:
		n->kind = NODE_INT;
		n->integer = strtoll(text, &end, 10);
		n->number = (double)n->integer;
		break;
	case CONFIG_NUMBER:
		n->kind = NODE_NUMBER;
		n->number = strtod(text, &end);
		break;
	case CONFIG_BOOL:
		n->kind = NODE_BOOL;
		n->integer = !strcmp(text, "true");
		break;
	case CONFIG_STRING:
		n->kind = NODE_STRING;
		n->text = config_must(strdup(text));
		n->text_n = strlen(text);
		break;
	default: break; /* an empty table */
	}
	assert(!end || (end != text && !*end)); /* a row's default is of the row's type */
	return n;
}

static bool is_absent(const struct config_row *row)
{
	return row->optional && (!row->fallback || !*row->fallback);
}

static int default_below(struct load *l, struct node *table, const char *path, const char *rest,
			 const struct config_row *row);

static int default_named(struct load *l, struct node *table, const char *path, const char *rest, size_t key_n,
			 const struct config_row *row)
{
	char key[CONFIG_PATH_MAX], child_path[CONFIG_PATH_MAX];
	const char *after = rest + key_n;
	snprintf(key, sizeof key, "%.*s", (int)key_n, rest);
	if (config_path_join(l, child_path, path, key, 0) < 0)
		return ERR_CONFIG;
	struct node *child = node_get(table, key, key_n);
	if (!*after) {
		if (child || is_absent(row))
			return 0;
		if (!row->fallback)
			return fail_expected(l, child_path, row, NULL);
		config_node_insert_take(table, node_default(row, key));
		return 0;
	}
	if (!child) {
		char pattern[CONFIG_PATH_MAX];
		snprintf(pattern, sizeof pattern, "%.*s", (int)(after - row->path), row->path);
		const struct config_row *whole = row_find(l->rows, pattern);
		/* a section that may be left out and is: nothing in it must be given. A list of none has no elements. */
		if ((whole && is_absent(whole)) || is_absent(row) || *after == '[' || after[1] == '*')
			return 0;
		config_node_insert_take(table, child = config_node_new(NODE_TABLE, key));
	}
	return default_below(l, child, child_path, after + (*after == '.'), row);
}

/* rest is what of the row's path lies below table. */
static int default_below(struct load *l, struct node *table, const char *path, const char *rest,
			 const struct config_row *row)
{
	bool list = *rest == '[', all = *rest == '*';
	if (!list && !all)
		return default_named(l, table, path, rest, strcspn(rest, ".["), row);
	const char *after = rest + (list ? 2 : 1);
	size_t from = list ? 0 : table->list_n, to = list ? table->list_n : table->item_n;
	for (size_t i = from; *after && i < to; i++) {
		char child_path[CONFIG_PATH_MAX];
		struct node *n = table->item[i];
		if (config_path_join(l, child_path, path, n->key, (int64_t)i + 1) < 0)
			return ERR_CONFIG;
		int err = n->kind == NODE_TABLE ? default_below(l, n, child_path, after + (*after == '.'), row) : 0;
		if (err < 0)
			return err;
	}
	return 0;
}

static int check(struct load *l, struct node *root)
{
	int err = check_table(l, root, "", "");
	for (const struct config_row *r = l->rows; err == 0 && r->path; r++)
		err = default_below(l, root, "", r->path, r);
	return err;
}

/* ---- loading ---------------------------------------------------------------------------------------------------- */

static struct config_row *copy_rows(const struct config_row *rows)
{
	size_t n = 0;
	while (rows[n].path)
		n++;
	struct config_row *copy = config_must(calloc(n + 1, sizeof *copy));
	for (size_t i = 0; i < n; i++)
		copy[i] = (struct config_row){ .path = config_must(strdup(rows[i].path)), .type = rows[i].type };
	return copy;
}

static int parse(struct load *l, const char *text, size_t n, struct config **out)
{
	struct node *root = NULL;
	int err = config_lua(l, text, n, &root);
	if (err == 0)
		err = check(l, root);
	if (err < 0) {
		config_node_free(root);
		return err;
	}
	*out = config_must(calloc(1, sizeof **out));
	(*out)->root = root;
	(*out)->rows = copy_rows(l->rows);
	return 0;
}

int config_parse(const char *name, const char *text, size_t n, const struct config_row *rows, char *error,
		 size_t error_size, struct config **out)
{
	struct load l = { .name = name, .rows = rows, .error = error, .error_size = error_size };
	return parse(&l, text, n, out);
}

int config_load(struct env *env, const char *file, const struct config_row *rows, char *error, size_t error_size,
		struct config **out)
{
	struct load l = { .name = file, .rows = rows, .error = error, .error_size = error_size, .env = env };
	char *text;
	size_t n;
	int err = env_file_load(env, file, FILE_BYTES_MAX, &text, &n);
	if (err == ERR_NOT_FOUND)
		config_fail(&l, "", "there is no such file");
	else if (err < 0)
		config_fail(&l, "", "cannot be read: %s", err == ERR_IO ? env_last_error() : err_text(err));
	if (err < 0)
		return err;
	err = parse(&l, text, n, out);
	free(text);
	return err;
}

void config_free(struct config *c)
{
	if (!c)
		return;
	config_node_free(c->root);
	for (struct config_row *r = c->rows; r->path; r++)
		free((char *)r->path);
	free(c->rows);
	free(c);
}

/* ---- reading ------------------------------------------------------------------------------------------------ */

static const struct node *find(const struct config *c, const char *path)
{
	const struct node *n = c->root;
	while (n && *path) {
		if (n->kind != NODE_TABLE)
			return NULL;
		if (*path == '[') {
			size_t i = strtoul(path + 1, (char **)&path, 10);
			n = i >= 1 && i <= n->list_n && *path == ']' ? n->item[i - 1] : NULL;
			path += *path == ']';
		} else {
			size_t key_n = strcspn(path, ".[");
			n = node_get(n, path, key_n);
			path += key_n;
		}
		path += *path == '.';
	}
	return n;
}

/* A row that leaves open what is below it. */
static bool is_open(const struct config_row *rows, const char *pattern)
{
	const struct config_row *row = row_find(rows, pattern);
	return row && (row->type == CONFIG_ANY || (row->type == CONFIG_TABLE && !has_rows_below(rows, pattern)));
}

int config_check_path(const struct config *c, const char *who, const char *path, char *error, size_t error_size)
{
	struct load l = { .name = who, .rows = c->rows, .error = error, .error_size = error_size };
	char pattern[CONFIG_PATH_MAX] = "", child[CONFIG_PATH_MAX], key[CONFIG_PATH_MAX];
	if (strlen(path) >= CONFIG_PATH_MAX / 2) /* "*" and "[]" are no longer than what they stand for */
		return config_fail(&l, "", "a path of more than %d bytes", CONFIG_PATH_MAX / 2 - 1), ERR_NOT_FOUND;
	for (const char *at = path; *at && !is_open(c->rows, pattern);) {
		bool element = *at == '[';
		size_t n = element ? strcspn(at, "]") + 1 : strcspn(at, ".[");
		snprintf(key, sizeof key, "%.*s", (int)n, at);
		if (!child_of(c->rows, child, pattern, element ? NULL : key))
			return fail_unknown(&l, path, pattern, element ? NULL : key), ERR_NOT_FOUND;
		memcpy(pattern, child, sizeof pattern);
		at += strnlen(at, n);
		at += *at == '.';
	}
	if (is_open(c->rows, pattern) || row_find(c->rows, pattern))
		return 0;
	return config_fail(&l, path, "a table, no value"), ERR_NOT_FOUND;
}

int64_t config_int(const struct config *c, const char *path, int64_t otherwise)
{
	const struct node *n = find(c, path);
	return n && n->kind == NODE_INT ? n->integer : otherwise;
}

double config_number(const struct config *c, const char *path, double otherwise)
{
	const struct node *n = find(c, path);
	return n && (n->kind == NODE_INT || n->kind == NODE_NUMBER) ? n->number : otherwise;
}

bool config_bool(const struct config *c, const char *path, bool otherwise)
{
	const struct node *n = find(c, path);
	return n && n->kind == NODE_BOOL ? n->integer != 0 : otherwise;
}

const char *config_string(const struct config *c, const char *path, const char *otherwise)
{
	const struct node *n = find(c, path);
	return n && n->kind == NODE_STRING ? n->text : otherwise;
}

size_t config_count(const struct config *c, const char *path)
{
	const struct node *n = find(c, path);
	return n ? n->list_n : 0;
}

void config_help(const struct config_row *rows, char *out, size_t size)
{
	struct buf b = BUF_INIT;
	for (const struct config_row *r = rows; r->path; r++) {
		char what[96];
		expected_text(r, what, sizeof what);
		buf_addf(&b, "  %-28s %s", r->path, what);
		if (!r->fallback && !r->optional)
			buf_addstr(&b, ", must be given");
		else if (!is_absent(r) && r->type < CONFIG_TABLE)
			buf_addf(&b, ", default %s", r->type == CONFIG_STRING && !*r->fallback ? "\"\"" : r->fallback);
		buf_addf(&b, "\n      %s\n", r->help ? r->help : "");
	}
	snprintf(out, size, "%s", buf_cstr(&b));
	buf_release(&b);
}
