#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "deploy/loquat/bots.h"

/*
 * Reads only what a bot needs of the scene's JSON, in place: a run reads some ten thousand updates a second beside the
 * servers it measures. Quotes inside names are escaped, so `"name":[` can only be the member itself.
 */
struct cursor {
	const char *p, *end;
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static double number(struct cursor *c)
{
	bool minus = c->p < c->end && *c->p == '-';
	double v = 0, unit = 0.1;

	if (minus)
		c->p++;
	for (; c->p < c->end && is_digit(*c->p); c->p++)
		v = v * 10 + (*c->p - '0');
	if (c->p < c->end && *c->p == '.')
		for (c->p++; c->p < c->end && is_digit(*c->p); c->p++, unit /= 10)
			v += (*c->p - '0') * unit;
	if (c->p < c->end && (*c->p == 'e' || *c->p == 'E')) {
		char *end;
		int exponent = (int)strtol(c->p + 1, &end, 10);

		for (c->p = end; exponent > 0; exponent--)
			v *= 10;
		for (; exponent < 0; exponent++)
			v /= 10;
	}
	return minus ? -v : v;
}

/* Identifiers reach 2^53: a double would do, but only just. */
static int64_t integer(struct cursor *c)
{
	int64_t v = 0;

	for (; c->p < c->end && is_digit(*c->p); c->p++)
		v = v * 10 + (*c->p - '0');
	return v;
}

static void string_skip(struct cursor *c)
{
	for (c->p++; c->p < c->end && *c->p != '"'; c->p++)
		if (*c->p == '\\')
			c->p++;
	c->p++;
}

struct seen {
	int64_t id;
	double x, y;
	bool monster;
};

static void member(struct cursor *c, struct seen *out)
{
	const char *name = c->p + 1;

	string_skip(c);
	size_t n = (size_t)(c->p - 1 - name);
	c->p++; /* the colon */
	if (c->p >= c->end)
		return;
	if (n == 2 && !memcmp(name, "id", 2)) {
		out->id = integer(c);
	} else if (n == 1 && (*name == 'x' || *name == 'y')) {
		*(*name == 'x' ? &out->x : &out->y) = number(c);
	} else if (*c->p == '"') {
		out->monster |=
			n == 4 && c->end - c->p > 9 && !memcmp(name, "kind", 4) && !memcmp(c->p, "\"monster\"", 9);
		string_skip(c);
	} else {
		number(c);
	}
}

/* The next flat object of an array; false: the array has ended. */
static bool next_object(struct cursor *c, struct seen *out)
{
	while (c->p < c->end && *c->p != '{' && *c->p != ']')
		c->p++;
	if (c->p >= c->end || *c->p == ']')
		return false;
	*out = (struct seen){ 0 };
	for (c->p++; c->p < c->end && *c->p != '}';) {
		if (*c->p == '"')
			member(c, out);
		else
			c->p++;
	}
	return c->p < c->end;
}

static bool behind(const char *body, size_t n, const char *name, struct cursor *out)
{
	const char *p = memmem(body, n, name, strlen(name));

	if (!p)
		return false;
	*out = (struct cursor){ p + strlen(name), body + n };
	return true;
}

static struct monster *find(struct sight *s, int64_t id)
{
	for (unsigned i = 0; i < s->n; i++)
		if (s->monster[i].id == id)
			return &s->monster[i];
	return NULL;
}

static void meet(struct sight *s, const struct seen *e)
{
	struct monster *m = find(s, e->id);

	if (!m)
		m = s->n < SIGHT_MAX ? &s->monster[s->n++] : &s->monster[e->id % SIGHT_MAX];
	*m = (struct monster){ e->id, e->x, e->y };
}

static void forget(struct sight *s, int64_t id)
{
	struct monster *m = find(s, id);

	if (m)
		*m = s->monster[--s->n];
}

static void entered(struct sight *s, struct cursor c)
{
	struct seen e;

	while (next_object(&c, &e))
		if (e.monster)
			meet(s, &e);
}

static void moved(struct sight *s, struct cursor c)
{
	struct seen e;
	struct monster *m;

	while (next_object(&c, &e))
		if ((m = find(s, e.id)))
			*m = (struct monster){ e.id, e.x, e.y };
}

static void left(struct sight *s, struct cursor c)
{
	while (c.p < c.end && *c.p != ']') {
		if (is_digit(*c.p))
			forget(s, integer(&c));
		else
			c.p++;
	}
}

void sight_update(struct sight *s, const char *body, size_t n)
{
	struct cursor c;

	if (s->n && behind(body, n, "\"leave\":[", &c))
		left(s, c);
	if (s->n && behind(body, n, "\"move\":[", &c))
		moved(s, c);
	if (behind(body, n, "\"enter\":[", &c) || behind(body, n, "\"entities\":[", &c))
		entered(s, c);
}

const struct monster *sight_nearest(const struct sight *s, double x, double y, double *distance)
{
	const struct monster *nearest = NULL;

	for (unsigned i = 0; i < s->n; i++) {
		const struct monster *m = &s->monster[i];
		double d = hypot(m->x - x, m->y - y);

		if (!nearest || d < *distance) {
			*distance = d;
			nearest = m;
		}
	}
	return nearest;
}

bool sight_number(const char *body, size_t n, const char *name, double *out)
{
	struct cursor c;
	char quoted[24] = "\"";

	strcat(strncat(quoted, name, sizeof quoted - 4), "\":");
	if (!behind(body, n, quoted, &c))
		return false;
	*out = number(&c);
	return true;
}

bool sight_text(const char *body, size_t n, const char *name, char *out, size_t size)
{
	struct cursor c;
	char quoted[24] = "\"";
	size_t i = 0;

	strcat(strncat(quoted, name, sizeof quoted - 5), "\":\"");
	if (!behind(body, n, quoted, &c))
		return false;
	while (c.p < c.end && *c.p != '"' && i + 1 < size)
		out[i++] = *c.p++;
	out[i] = '\0';
	return true;
}
