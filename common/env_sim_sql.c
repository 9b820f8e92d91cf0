#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "common/env_sim_sql.h"
/*
 * Words and expressions of SQL. A statement that is not understood is error 1064, as MariaDB would say; what
 * MariaDB understands and this does not is the same error with other words.
 */

/* ---- memory ------------------------------------------------------------------------------------------------------ */

#define CHUNK 4000

struct arena_chunk {
	struct arena_chunk *next;
};

void *arena_alloc(struct arena *a, size_t n)
{
	n = (n + 15) & ~(size_t)15;
	if ((size_t)(a->end - a->at) < n) {
		size_t size = n > CHUNK ? n : CHUNK;
		struct arena_chunk *c = w_alloc(16 + size);
		c->next = a->chunks;
		a->chunks = c;
		a->at = (char *)c + 16;
		a->end = a->at + size;
	}
	a->at += n;
	return a->at - n;
}

void arena_release(struct arena *a)
{
	for (struct arena_chunk *c; (c = a->chunks);) {
		a->chunks = c->next;
		w_free(c);
	}
	a->at = a->end = NULL;
}

static char *copy(struct parser *p, const char *text, size_t n)
{
	char *to = arena_alloc(p->arena, n + 1);
	memcpy(to, text, n);
	return to;
}

/* ---- words -------------------------------------------------------------------------------------------------------- */

void parser_fail(struct parser *p, const char *why)
{
	if (why)
		snprintf(p->error->message, sizeof(p->error->message), "the simulated database does not know %s", why);
	else
		snprintf(
			p->error->message, sizeof(p->error->message),
			"You have an error in your SQL syntax (or the simulated database does not know it) near '%.*s'",
			(int)(p->end - p->token_at < 60 ? p->end - p->token_at : 60), p->token_at);
	p->error->code = 1064;
	longjmp(p->bad, 1);
}

static void skip_space(struct parser *p)
{
	for (; p->at < p->end; p->at++) {
		if (*p->at == '#' || (*p->at == '-' && p->end - p->at > 2 && p->at[1] == '-' && p->at[2] <= ' ')) {
			const char *end = memchr(p->at, '\n', (size_t)(p->end - p->at));
			p->at = end ? end : p->end - 1;
		} else if (*p->at == '/' && p->end - p->at > 1 && p->at[1] == '*') {
			const char *end = memmem(p->at, (size_t)(p->end - p->at), "*/", 2);
			p->at = end ? end + 1 : p->end - 1;
		} else if (!isspace((unsigned char)*p->at)) {
			return;
		}
	}
}

static char escaped(char c)
{
	switch (c) {
	case '0': return '\0';
	case 'n': return '\n';
	case 'r': return '\r';
	case 't': return '\t';
	case 'b': return '\b';
	case 'Z': return '\x1a';
	default: return c;
	}
}

/* At most this many bytes are in a string: up to the first quote that is not escaped and not doubled. */
static size_t string_bytes(const struct parser *p, char quote)
{
	const char *at = p->at + 1;
	for (; at < p->end && (*at != quote || (at + 1 < p->end && at[1] == quote)); at++)
		at += (*at == '\\' && quote != '`') || *at == quote;
	return (size_t)(at - p->at);
}

static void read_string(struct parser *p, char quote)
{
	char *to = arena_alloc(p->arena, string_bytes(p, quote) + 1);
	p->word = to;
	for (p->at++;; p->at++) {
		if (p->at >= p->end)
			parser_fail(p, NULL);
		if (*p->at == '\\' && quote != '`' && p->at + 1 < p->end)
			*to++ = escaped(*++p->at);
		else if (*p->at != quote)
			*to++ = *p->at;
		else if (p->at + 1 < p->end && p->at[1] == quote)
			*to++ = *p->at++;
		else
			break;
	}
	p->at++;
	*to = '\0';
	p->word_n = (size_t)(to - p->word);
	p->token = quote == '`' ? T_QUOTED : T_STRING;
}

static int digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

static void read_hex(struct parser *p)
{
	char *to = arena_alloc(p->arena, strspn(p->at + 2, "0123456789abcdefABCDEF") + 1);
	p->word = to;
	for (p->at += 2; p->end - p->at >= 2 && digit(p->at[0]) >= 0 && digit(p->at[1]) >= 0; p->at += 2)
		*to++ = (char)(digit(p->at[0]) << 4 | digit(p->at[1]));
	if (p->at >= p->end || *p->at++ != '\'')
		parser_fail(p, NULL);
	p->word_n = (size_t)(to - p->word);
	p->token = T_STRING;
}

static void read_number(struct parser *p)
{
	char text[64], *end;
	size_t n = 0;
	bool real = false;
	while (p->at < p->end && n < sizeof(text) - 1 &&
	       (isdigit((unsigned char)*p->at) || *p->at == '.' || (*p->at | 32) == 'e' ||
		((*p->at == '+' || *p->at == '-') && n && (text[n - 1] | 32) == 'e'))) {
		real |= !isdigit((unsigned char)*p->at);
		text[n++] = *p->at++;
	}
	text[n] = '\0';
	p->token = T_NUMBER;
	p->number = (struct cell){ .type = real ? CELL_DOUBLE : CELL_INT };
	errno = 0;
	if (real)
		p->number.d = strtod(text, &end);
	else
		p->number.i = (int64_t)strtoull(text, &end, 10); /* 2^63 is negative: - in front of it makes it right */
	if (*end || errno)
		parser_fail(p, NULL);
}

void parser_next(struct parser *p)
{
	static const char *const two[] = { "<=>", "<=", ">=", "<>", "!=", "||", "&&" };
	skip_space(p);
	p->token_at = p->at;
	if (p->at >= p->end) {
		p->token = T_END;
	} else if (*p->at == '\'' || *p->at == '"' || *p->at == '`') {
		read_string(p, *p->at);
	} else if ((*p->at | 32) == 'x' && p->at + 1 < p->end && p->at[1] == '\'') {
		read_hex(p);
	} else if (isdigit((unsigned char)*p->at)) {
		read_number(p);
	} else if (isalpha((unsigned char)*p->at) || *p->at == '_' || *p->at == '@' || *p->at & 0x80) {
		p->word = p->at;
		while (p->at < p->end &&
		       (isalnum((unsigned char)*p->at) || *p->at == '_' || *p->at == '@' || *p->at & 0x80))
			p->at++;
		p->word_n = (size_t)(p->at - p->word);
		p->token = T_WORD;
	} else {
		p->token = T_OP;
		p->word = p->at++;
		p->word_n = 1;
		for (size_t i = 0; i < sizeof(two) / sizeof(*two); i++) {
			size_t n = strlen(two[i]);
			if ((size_t)(p->end - p->word) >= n && memcmp(p->word, two[i], n) == 0 && n > p->word_n) {
				p->word_n = n;
				p->at = p->word + n;
			}
		}
	}
}

bool parser_is(const struct parser *p, const char *word)
{
	return (p->token == T_WORD || p->token == T_OP) && (*word | 32) == (*p->word | 32) &&
	       strlen(word) == p->word_n && strncasecmp(p->word, word, p->word_n) == 0;
}

bool parser_take(struct parser *p, const char *word)
{
	if (!parser_is(p, word))
		return false;
	parser_next(p);
	return true;
}

void parser_need(struct parser *p, const char *word)
{
	if (!parser_take(p, word))
		parser_fail(p, NULL);
}

const char *parser_name(struct parser *p)
{
	if (p->token != T_WORD && p->token != T_QUOTED)
		parser_fail(p, NULL);
	const char *name = copy(p, p->word, p->word_n);
	parser_next(p);
	return name;
}

void parser_init(struct parser *p, struct arena *a, const char *sql, size_t n, struct sql_error *error)
{
	*p = (struct parser){ .arena = a, .at = sql, .end = sql + n, .token_at = sql, .error = error };
}

/* ---- expressions ------------------------------------------------------------------------------------------------------ */

static struct expr *node(struct parser *p, enum expr_kind kind, const char *op, unsigned n)
{
	struct expr *e = arena_alloc(p->arena, sizeof(*e));
	e->kind = kind;
	snprintf(e->op, sizeof(e->op), "%s", op);
	e->args = arena_alloc(p->arena, (n ? n : 1) * sizeof(*e->args));
	e->n = n;
	return e;
}

static struct expr *binary(struct parser *p, const char *op, struct expr *a, struct expr *b)
{
	struct expr *e = node(p, EXPR_BINARY, op, 2);
	e->args[0] = a;
	e->args[1] = b;
	return e;
}

static struct expr *list(struct parser *p, struct expr *head, enum expr_kind kind, const char *op)
{
	struct expr *of[1024], *e;
	unsigned n = 0;
	if (head)
		of[n++] = head;
	if (!parser_is(p, ")"))
		do {
			if (n == sizeof(of) / sizeof(*of))
				parser_fail(p, "a list of so many expressions");
			of[n++] = parse_expr(p);
		} while (parser_take(p, ","));
	parser_need(p, ")");
	e = node(p, kind, op, n);
	memcpy(e->args, of, n * sizeof(*of));
	return e;
}

static struct expr *call(struct parser *p, const char *name)
{
	struct expr *e;
	char op[32];
	size_t i = 0;
	for (const char *c = name; *c && i < sizeof(op) - 1; c++)
		op[i++] = (char)toupper((unsigned char)*c);
	op[i] = '\0';
	if (strcmp(op, "VALUES") == 0 || strcmp(op, "VALUE") == 0) {
		e = node(p, EXPR_VALUES, "", 0);
		e->column = parser_name(p);
		parser_need(p, ")");
		return e;
	}
	if (strcmp(op, "COUNT") == 0 && parser_take(p, "*")) {
		parser_need(p, ")");
		return node(p, EXPR_CALL, "COUNT", 0);
	}
	if (strcmp(op, "CAST") == 0) { /* values are what they are; only the way it is written is known */
		e = parse_expr(p);
		parser_need(p, "AS");
		while (p->token != T_END && !parser_is(p, ")"))
			parser_next(p);
		parser_need(p, ")");
		return e;
	}
	static const struct {
		const char *word, *op;
	} names[] = {
		{ "LAST_INSERT_ID", "LAST_ID" }, { "UNIX_TIMESTAMP", "UNIX" }, { "CURRENT_TIMESTAMP", "NOW" },
		{ "CHAR_LENGTH", "CHARS" },      { "OCTET_LENGTH", "LENGTH" },
	};
	for (size_t k = 0; k < sizeof(names) / sizeof(*names); k++)
		if (strcmp(op, names[k].word) == 0)
			return list(p, NULL, EXPR_CALL, names[k].op);
	if (strlen(op) >= sizeof(e->op))
		parser_fail(p, name);
	return list(p, NULL, EXPR_CALL, op);
}

static struct expr *case_when(struct parser *p)
{
	struct expr *of[64];
	unsigned n = 0;
	while (parser_take(p, "WHEN") && n < 60) {
		of[n++] = parse_expr(p);
		parser_need(p, "THEN");
		of[n++] = parse_expr(p);
	}
	if (parser_take(p, "ELSE"))
		of[n++] = parse_expr(p);
	parser_need(p, "END");
	struct expr *e = node(p, EXPR_CASE, "CASE", n);
	memcpy(e->args, of, n * sizeof(*of));
	return e;
}

static struct expr *literal(struct parser *p, struct cell value)
{
	struct expr *e = node(p, EXPR_LITERAL, "", 0);
	e->literal = value;
	parser_next(p);
	return e;
}

static struct expr *word(struct parser *p)
{
	struct expr *e;
	if (p->token == T_WORD) {
		if (parser_is(p, "NULL"))
			return literal(p, (struct cell){ .type = CELL_NULL });
		if (parser_is(p, "TRUE") || parser_is(p, "FALSE"))
			return literal(p, (struct cell){ .type = CELL_INT, .i = parser_is(p, "TRUE") });
		if (parser_take(p, "CASE"))
			return case_when(p);
		if (parser_is(p, "SELECT") || parser_is(p, "EXISTS"))
			parser_fail(p, "subqueries");
		if (*p->word == '@')
			parser_fail(p, "variables");
		if (parser_is(p, "CURRENT_TIMESTAMP")) {
			parser_next(p);
			return parser_take(p, "(") ? call(p, "NOW") : node(p, EXPR_CALL, "NOW", 0);
		}
	}
	const char *name = parser_name(p);
	if (parser_take(p, "("))
		return call(p, name);
	if (parser_take(p, "."))
		name = parser_name(p);
	e = node(p, EXPR_COLUMN, "", 0);
	e->column = name;
	return e;
}

static struct expr *primary(struct parser *p)
{
	struct expr *e;
	switch (p->token) {
	case T_NUMBER: return literal(p, p->number);
	case T_STRING: return literal(p, (struct cell){ .type = CELL_TEXT, .p = p->word, .n = p->word_n });
	case T_WORD:
	case T_QUOTED: return word(p);
	default: break;
	}
	if (parser_take(p, "(")) {
		e = parse_expr(p);
		parser_need(p, ")");
		return e;
	}
	if (parser_take(p, "+"))
		return primary(p);
	if (!parser_take(p, "-"))
		parser_fail(p, NULL);
	e = node(p, EXPR_UNARY, "-", 1);
	e->args[0] = primary(p);
	return e;
}

/* The operator of a product that stands here, taken; NULL: none does. */
static const char *product_op(struct parser *p)
{
	static const char *const ops[] = { "*", "/", "%", "DIV", "MOD" };
	for (size_t i = 0; i < sizeof(ops) / sizeof(*ops); i++)
		if (parser_take(p, ops[i]))
			return i == 4 ? "%" : ops[i];
	return NULL;
}

static struct expr *product(struct parser *p)
{
	struct expr *e = primary(p);
	for (const char *op; (op = product_op(p));)
		e = binary(p, op, e, primary(p));
	return e;
}

static struct expr *sum(struct parser *p)
{
	struct expr *e = product(p);
	for (;;) {
		if (parser_take(p, "+"))
			e = binary(p, "+", e, product(p));
		else if (parser_take(p, "-"))
			e = binary(p, "-", e, product(p));
		else
			return e;
	}
}

static struct expr *negatable(struct parser *p, struct expr *e, bool negated)
{
	struct expr *to;
	if (parser_take(p, "IN")) {
		parser_need(p, "(");
		to = list(p, e, EXPR_IN, "IN");
	} else if (parser_take(p, "BETWEEN")) {
		to = node(p, EXPR_BETWEEN, "BETWEEN", 3);
		to->args[0] = e;
		to->args[1] = sum(p);
		parser_need(p, "AND");
		to->args[2] = sum(p);
	} else {
		parser_need(p, "LIKE");
		to = node(p, EXPR_LIKE, "LIKE", 2);
		to->args[0] = e;
		to->args[1] = sum(p);
	}
	to->negated = negated;
	return to;
}

static struct expr *comparison(struct parser *p)
{
	static const char *const ops[] = { "=", "<>", "!=", "<=", ">=", "<=>", "<", ">" };
	struct expr *e = sum(p), *to;
	for (size_t i = 0; i < sizeof(ops) / sizeof(*ops); i++)
		if (parser_take(p, ops[i]))
			return binary(p, strcmp(ops[i], "!=") == 0 ? "<>" : ops[i], e, sum(p));
	if (parser_take(p, "IS")) {
		to = node(p, EXPR_IS_NULL, "IS", 1);
		to->negated = parser_take(p, "NOT");
		parser_need(p, "NULL");
		to->args[0] = e;
		return to;
	}
	if (parser_is(p, "IN") || parser_is(p, "BETWEEN") || parser_is(p, "LIKE"))
		return negatable(p, e, false);
	if (parser_take(p, "NOT"))
		return negatable(p, e, true);
	return e;
}

static struct expr *negation(struct parser *p)
{
	struct expr *e;
	if (!parser_take(p, "NOT") && !parser_take(p, "!"))
		return comparison(p);
	e = node(p, EXPR_UNARY, "NOT", 1);
	e->args[0] = negation(p);
	return e;
}

static struct expr *conjunction(struct parser *p)
{
	struct expr *e = negation(p);
	while (parser_take(p, "AND") || parser_take(p, "&&"))
		e = binary(p, "AND", e, negation(p));
	return e;
}

struct expr *parse_expr(struct parser *p)
{
	struct expr *e = conjunction(p);
	while (parser_take(p, "OR") || parser_take(p, "||"))
		e = binary(p, "OR", e, conjunction(p));
	return e;
}
