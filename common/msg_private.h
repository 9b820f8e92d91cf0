#pragma once
#include "common/msg.h"
/*
 * What the parts of msg share: msg.c (the store, looking up), msg_load.c, msg_number.c (numbers that stay over the sets of a
 * process), msg_version.c. Private to them.
 *
 * Threads: who loads. Memory: what schema_take gives goes with the schema.
 */
struct chunk {
	struct chunk *next;
	char bytes[];
};
/* What types of one index have in common. */
struct shape {
	const char *name;
	size_t fields;
	const uint32_t *id; /* of the fields' names */
};
struct schema {
	struct chunk *chunks;
	struct msg_type *type;
	struct msg_enum *enumeration;
	struct msg_method *method;
	size_t types, enums, methods;
	const char **name; /* by id - 1 */
	uint32_t names, names_cap;
	uint32_t *name_hash; /* ids, open addressing */
	uint32_t name_mask;
	/* by index, with those of the sets before: names of methods, our own methods; types' names and fields */
	const char **indexed;
	const struct msg_method **now;
	size_t indexes;
	const struct shape *shape;
	size_t shapes;
	char version[13];
};

void *schema_take(struct schema *s, size_t n); /* zeroed */
const char *schema_take_text(struct schema *s, const char *p, size_t n);
uint32_t schema_name_id(struct schema *s, const char *name);
/* These are the type's fields now: sorted by number, found by it and by name. */
void schema_index(struct schema *s, struct msg_type *t, struct msg_field *field);

/* msg_number.c; before may be NULL. Names come first: what is loaded refers to them. */
void schema_number_names(struct schema *s, const struct schema *before);
void schema_number(struct schema *s, const struct schema *before);
/* msg_version.c */
void schema_sign(struct schema *s);
