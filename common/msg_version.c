/* What a set of messages says, as one number: comments and numbers of our own do not count. */
#include <stdio.h>
#include <string.h>

#include "common/msg_private.h"

static uint64_t add(uint64_t h, const void *p, size_t n)
{
	const unsigned char *at = p;
	for (size_t i = 0; i < n; i++)
		h = (h ^ at[i]) * UINT64_C(1099511628211); /* FNV-1a */
	return h ^ h >> 29;
}

static uint64_t add_text(uint64_t h, const char *text)
{
	return text ? add(h, text, strlen(text) + 1) : add(h, "\1", 2);
}

static uint64_t add_number(uint64_t h, int64_t v)
{
	return add(h, &v, sizeof v);
}

static uint64_t add_enum(uint64_t h, const struct msg_enum *e)
{
	h = add_text(h, e->name);
	for (size_t i = 0; i < e->values; i++)
		h = add_number(add_text(h, e->value[i].name), e->value[i].number);
	return h;
}

static uint64_t add_field(uint64_t h, const struct msg_field *f)
{
	h = add_text(add_number(add_number(h, f->tag), f->type), f->name);
	h = add_number(h, f->repeated | f->required << 1 | f->map << 2 | f->has_default << 3 | f->ignored << 4 |
				  f->oneof << 5);
	if (f->has_default && (f->type == MSG_STRING || f->type == MSG_BYTES))
		h = add(h, f->fallback.s.p, f->fallback.s.n);
	else if (f->has_default)
		h = add_number(h, f->fallback.i);
	h = add_text(h, f->message ? f->message->name : NULL);
	return add_text(h, f->enumeration ? f->enumeration->name : NULL);
}

static uint64_t add_type(uint64_t h, const struct msg_type *t)
{
	h = add_text(add_number(add_text(h, t->name), t->any | t->map_entry << 1), t->push);
	for (size_t i = 0; i < t->fields; i++)
		h = add_field(h, &t->field[i]);
	return h;
}

static uint64_t add_method(uint64_t h, const struct msg_method *m)
{
	h = add_text(add_text(add_text(h, m->full), m->in->name), m->out->name);
	h = add_number(h, m->kind | m->inner << 2 | m->anywhere << 3 | m->is_public << 4);
	return add_text(add_text(add_text(h, m->callers), m->attr), m->once ? m->once->name : NULL);
}

void schema_sign(struct schema *s)
{
	uint64_t h = UINT64_C(1469598103934665603);
	for (size_t i = 0; i < s->enums; i++)
		h = add_enum(h, &s->enumeration[i]);
	for (size_t i = 0; i < s->types; i++)
		h = add_type(h, &s->type[i]);
	for (size_t i = 0; i < s->methods; i++)
		h = add_method(h, &s->method[i]);
	snprintf(s->version, sizeof s->version, "%012llx", (unsigned long long)(h & UINT64_C(0xffffffffffff)));
}

const char *schema_version(const struct schema *s)
{
	return s->version;
}
