#include "common/msg.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/msg_private.h"

#define DENSE_MAX 511 /* numbers above are found by binary search */

void *schema_take(struct schema *s, size_t n)
{
	struct chunk *c = calloc(1, sizeof *c + n);
	if (!c)
		abort();
	c->next = s->chunks;
	s->chunks = c;
	return c->bytes;
}

const char *schema_take_text(struct schema *s, const char *p, size_t n)
{
	char *copy = schema_take(s, n + 1);
	memcpy(copy, p, n);
	return copy;
}

void schema_free(struct schema *s)
{
	struct chunk *c = s ? s->chunks : NULL;
	while (c) {
		struct chunk *next = c->next;
		free(c);
		c = next;
	}
	free(s);
}

/* ---- names -------------------------------------------------------------------------------------------- */

static uint32_t hash_of(const char *p, size_t n)
{
	uint32_t h = 2166136261u; /* FNV-1a: names are short */
	for (size_t i = 0; i < n; i++)
		h = (h ^ (unsigned char)p[i]) * 16777619u;
	return h ^ h >> 15;
}

static void names_rehash(struct schema *s)
{
	uint32_t size = s->name_mask ? (s->name_mask + 1) * 2 : 256;
	s->name_mask = size - 1;
	s->name_hash = schema_take(s, size * sizeof *s->name_hash);
	const char **name = schema_take(s, size / 2 * sizeof *name);
	if (s->names)
		memcpy(name, s->name, s->names * sizeof *name);
	s->name = name;
	s->names_cap = size / 2;
	for (uint32_t id = 1; id <= s->names; id++) {
		uint32_t h = hash_of(name[id - 1], strlen(name[id - 1])) & s->name_mask;
		while (s->name_hash[h])
			h = (h + 1) & s->name_mask;
		s->name_hash[h] = id;
	}
}

uint32_t schema_name_id(struct schema *s, const char *name)
{
	if (s->names == s->names_cap)
		names_rehash(s);
	uint32_t h = hash_of(name, strlen(name)) & s->name_mask;
	for (; s->name_hash[h]; h = (h + 1) & s->name_mask)
		if (!strcmp(s->name[s->name_hash[h] - 1], name))
			return s->name_hash[h];
	s->name[s->names++] = schema_take_text(s, name, strlen(name));
	return s->name_hash[h] = s->names;
}

uint32_t schema_names(const struct schema *s)
{
	return s->names;
}

const char *schema_name(const struct schema *s, uint32_t id, size_t *n)
{
	assert(id >= 1 && id <= s->names);
	if (n)
		*n = strlen(s->name[id - 1]);
	return s->name[id - 1];
}

/* ---- fields of a type ------------------------------------------------------------------------------------ */

/* The name's first bytes and its last ones as a number; those of up to 8 bytes that are as long differ in it. */
static inline uint64_t name_word(const char *p, size_t n)
{
	uint32_t first, last;
	if (n < 4)
		return n ? (uint32_t)(unsigned char)p[0] | (uint32_t)(unsigned char)p[n / 2] << 8 |
				       (uint32_t)(unsigned char)p[n - 1] << 16
			 : 0;
	memcpy(&first, p, 4);
	memcpy(&last, p + n - 4, 4);
	return (uint64_t)last << 32 | first;
}

static inline uint32_t word_hash(uint64_t word)
{
	return (uint32_t)(word * UINT64_C(0x9e3779b97f4a7c15) >> 40);
}

static int by_number(const void *a, const void *b)
{
	uint32_t x = ((const struct msg_field *)a)->number, y = ((const struct msg_field *)b)->number;
	return (x > y) - (x < y);
}

void schema_index(struct schema *s, struct msg_type *t, struct msg_field *field)
{
	qsort(field, t->fields, sizeof *field, by_number);
	for (size_t i = 0; i < t->fields; i++)
		if (field[i].number <= DENSE_MAX && field[i].number > t->dense_max)
			t->dense_max = field[i].number;
	uint32_t size = 8;
	while (size < 2u * t->fields)
		size *= 2;
	uint16_t *dense = schema_take(s, (t->dense_max + 1) * sizeof *dense),
		 *hash = schema_take(s, size * sizeof *hash);
	t->hash_mask = size - 1;
	for (uint16_t i = 0; i < t->fields; i++) {
		field[i].index = i;
		field[i].word = name_word(field[i].name, field[i].name_bytes);
		t->required = (uint16_t)(t->required + field[i].required);
		t->defaults = (uint16_t)(t->defaults + field[i].has_default);
		if (field[i].number <= t->dense_max)
			dense[field[i].number] = (uint16_t)(i + 1);
		uint32_t h = word_hash(field[i].word) & t->hash_mask;
		while (hash[h])
			h = (h + 1) & t->hash_mask;
		hash[h] = (uint16_t)(i + 1);
	}
	t->field = field;
	t->dense = dense;
	t->hash = hash;
}

const struct msg_field *msg_field_number(const struct msg_type *t, uint32_t number)
{
	if (number <= t->dense_max)
		return t->dense[number] ? &t->field[t->dense[number] - 1] : NULL;
	struct msg_field key = { .number = number };
	return number > DENSE_MAX ? bsearch(&key, t->field, t->fields, sizeof key, by_number) : NULL;
}

const struct msg_field *msg_field_name(const struct msg_type *t, const char *name, size_t n)
{
	uint64_t word = name_word(name, n);
	for (uint32_t h = word_hash(word) & t->hash_mask; t->hash[h]; h = (h + 1) & t->hash_mask) {
		const struct msg_field *f = &t->field[t->hash[h] - 1];
		if (f->word == word && f->name_bytes == n && (n <= 8 || !memcmp(f->name, name, n)))
			return f;
	}
	return NULL;
}

const struct msg_enum_value *msg_enum_number(const struct msg_enum *e, int32_t number)
{
	for (size_t i = 0; i < e->values; i++)
		if (e->value[i].number == number)
			return &e->value[i];
	return NULL;
}

const struct msg_enum_value *msg_enum_name(const struct msg_enum *e, const char *p, size_t n)
{
	for (size_t i = 0; i < e->values; i++)
		if (e->value[i].name_bytes == n && !memcmp(e->value[i].name, p, n))
			return &e->value[i];
	return NULL;
}

/* ---- methods and types ----------------------------------------------------------------------------------- */

size_t schema_methods(const struct schema *s)
{
	return s->methods;
}

const struct msg_method *schema_method_at(const struct schema *s, size_t index)
{
	assert(index < s->methods);
	return &s->method[index];
}

static int order_of(const char *full, const char *p, size_t n)
{
	size_t m = strlen(full);
	int order = memcmp(full, p, m < n ? m : n);
	return order ? order : (m > n) - (m < n);
}

const struct msg_method *schema_method(const struct schema *s, const char *full, size_t n)
{
	size_t low = 0, high = s->methods;
	while (low < high) {
		size_t mid = (low + high) / 2;
		int order = order_of(s->method[mid].full, full, n);
		if (order == 0)
			return &s->method[mid];
		if (order < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return NULL;
}

const struct msg_type *schema_type(const struct schema *s, const char *name)
{
	name += *name == '.';
	for (size_t i = 0; i < s->types; i++)
		if (!strcmp(s->type[i].name, name))
			return &s->type[i];
	return NULL;
}

size_t schema_types(const struct schema *s)
{
	return s->types;
}

const struct msg_type *schema_type_at(const struct schema *s, size_t index)
{
	assert(index < s->types);
	return &s->type[index];
}

bool msg_method_admits(const struct msg_method *m, const char *caller)
{
	if (m->is_handler)
		return !strcmp(caller, "connector") || !strcmp(caller, "gate");
	if (!m->callers)
		return true;
	size_t n = strlen(caller);
	for (const char *p = m->callers; p;) {
		p += strspn(p, ", ");
		size_t word = strcspn(p, ", ");
		if (!word)
			return false;
		if (word == n && !memcmp(p, caller, n))
			return true;
		p += word;
	}
	return false;
}
