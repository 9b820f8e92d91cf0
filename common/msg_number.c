/* Numbers of methods, types and names: as the set before has them, so that tables by number stay right. */
#include <assert.h>
#include <string.h>

#include "common/msg_private.h"

void schema_number_names(struct schema *s, const struct schema *before)
{
	for (uint32_t i = 0; before && i < before->names; i++)
		schema_name_id(s, before->name[i]);
}

static void number_methods(struct schema *s, const struct schema *before)
{
	size_t old = before ? before->indexes : 0;
	s->indexed = schema_take(s, (old + s->methods) * sizeof *s->indexed + 1);
	s->now = schema_take(s, (old + s->methods) * sizeof *s->now + 1);
	for (; s->indexes < old; s->indexes++)
		s->indexed[s->indexes] =
			schema_take_text(s, before->indexed[s->indexes], strlen(before->indexed[s->indexes]));
	for (size_t i = 0; i < s->methods; i++) {
		size_t at = 0;
		while (at < old && strcmp(s->indexed[at], s->method[i].full))
			at++;
		if (at == old)
			at = s->indexes++;
		s->indexed[at] = s->method[i].full;
		s->now[at] = &s->method[i];
		assert(at <= UINT16_MAX);
		s->method[i].index = (uint16_t)at;
	}
}

static struct shape shape_of(struct schema *s, const char *name, size_t fields)
{
	return (struct shape){ schema_take_text(s, name, strlen(name)), fields,
			       schema_take(s, fields * sizeof(uint32_t) + 1) };
}

static bool has_shape(const struct msg_type *t, const struct shape *shape)
{
	bool same = t->fields == shape->fields && !strcmp(t->name, shape->name);
	for (size_t i = 0; same && i < t->fields; i++)
		same = t->field[i].id == shape->id[i];
	return same;
}

static void number_types(struct schema *s, const struct schema *before)
{
	size_t old = before ? before->shapes : 0;
	struct shape *shape = schema_take(s, (old + s->types) * sizeof *shape + 1);
	for (; s->shapes < old; s->shapes++) {
		const struct shape *from = &before->shape[s->shapes];
		shape[s->shapes] = shape_of(s, from->name, from->fields);
		memcpy((uint32_t *)shape[s->shapes].id, from->id, from->fields * sizeof *from->id);
	}
	for (size_t i = 0; i < s->types; i++) {
		struct msg_type *t = &s->type[i];
		size_t at = 0;
		while (at < old && !has_shape(t, &shape[at]))
			at++;
		if (at == old) {
			at = s->shapes++;
			shape[at] = shape_of(s, t->name, t->fields);
			for (size_t k = 0; k < t->fields; k++)
				((uint32_t *)shape[at].id)[k] = t->field[k].id;
		}
		t->index = (uint32_t)at;
	}
	s->shape = shape;
}

void schema_number(struct schema *s, const struct schema *before)
{
	number_methods(s, before);
	number_types(s, before);
}

size_t schema_indexes(const struct schema *s)
{
	return s->indexes;
}

const struct msg_method *schema_method_now(const struct schema *s, const struct msg_method *m)
{
	return m->index < s->indexes ? s->now[m->index] : NULL;
}

size_t schema_shapes(const struct schema *s)
{
	return s->shapes;
}
