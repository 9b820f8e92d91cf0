#include "tests/support/changed.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/support/sample.h"

typedef Google__Protobuf__FileDescriptorProto pb_file;
typedef Google__Protobuf__ServiceDescriptorProto pb_service;

/* Also outside of Check's tests. */
static void __attribute__((noreturn)) none(const char *what)
{
	fprintf(stderr, "changed: none of this name: %s\n", what);
	abort();
}

char *changed_bytes(changed_fn *change, size_t *n)
{
	char *bytes = sample_read("build/tests.desc", n);
	pb_set *set = google__protobuf__file_descriptor_set__unpack(NULL, *n, (const uint8_t *)bytes);

	assert(set);
	free(bytes);
	if (change)
		change(set);
	*n = google__protobuf__file_descriptor_set__get_packed_size(set);
	bytes = malloc(*n);
	assert(bytes);
	google__protobuf__file_descriptor_set__pack(set, (uint8_t *)bytes);
	google__protobuf__file_descriptor_set__free_unpacked(set, NULL);
	return bytes;
}

struct schema *changed_schema(const struct schema *before, changed_fn *change)
{
	size_t n;
	char *bytes = changed_bytes(change, &n), error[256];
	struct schema *s;

	if (schema_load_after(before, bytes, n, error, sizeof error, &s) < 0)
		none(error);
	free(bytes);
	return s;
}

/* Of "package.name", and where the name begins. */
static pb_file *file_of(pb_set *set, const char **name)
{
	size_t n = strcspn(*name, ".");

	for (size_t i = 0; i < set->n_file; i++) {
		const char *package = set->file[i]->package;

		if (!package || strncmp(package, *name, n) || package[n])
			continue;
		*name += n + 1;
		return set->file[i];
	}
	none(*name);
}

#define FIND(list, count, wanted)                              \
	do {                                                   \
		for (size_t at = 0; at < (count); at++)        \
			if (!strcmp((list)[at]->name, wanted)) \
				return (list)[at];             \
		none(wanted);                                  \
	} while (0)

pb_message *changed_message(pb_set *set, const char *name)
{
	pb_file *f = file_of(set, &name);

	FIND(f->message_type, f->n_message_type, name);
}

pb_field *changed_field(pb_set *set, const char *message, const char *name)
{
	pb_message *m = changed_message(set, message);

	FIND(m->field, m->n_field, name);
}

static pb_service *group_of(pb_set *set, const char *name)
{
	pb_file *f = file_of(set, &name);

	FIND(f->service, f->n_service, name);
}

pb_method *changed_method(pb_set *set, const char *group, const char *name)
{
	pb_service *s = group_of(set, group);

	FIND(s->method, s->n_method, name);
}

pb_enum *changed_enum(pb_set *set, const char *name)
{
	pb_file *f = file_of(set, &name);

	FIND(f->enum_type, f->n_enum_type, name);
}

void changed_name(char **name, const char *to)
{
	free(*name);
	*name = strdup(to);
}

/* One more place at the end of a list, for a message of this size. */
static void *one_more(void ***list, size_t *n, size_t size)
{
	*list = realloc(*list, (*n + 1) * sizeof(void *));
	assert(*list);
	return (*list)[(*n)++] = calloc(1, size);
}

pb_field *changed_add_field(pb_set *set, const char *message, const char *name, int number)
{
	pb_message *m = changed_message(set, message);
	pb_field *f = one_more((void ***)&m->field, &m->n_field, sizeof *f);

	google__protobuf__field_descriptor_proto__init(f);
	f->name = strdup(name);
	f->has_number = f->has_type = f->has_label = true;
	f->number = number;
	f->type = GOOGLE__PROTOBUF__FIELD_DESCRIPTOR_PROTO__TYPE__TYPE_STRING;
	f->label = GOOGLE__PROTOBUF__FIELD_DESCRIPTOR_PROTO__LABEL__LABEL_OPTIONAL;
	return f;
}

void changed_add_method(pb_set *set, const char *group, const char *name, const char *in, const char *out)
{
	pb_service *s = group_of(set, group);
	pb_method *m = one_more((void ***)&s->method, &s->n_method, sizeof *m);

	google__protobuf__method_descriptor_proto__init(m);
	m->name = strdup(name);
	m->input_type = strdup(in);
	m->output_type = strdup(out);
}

void changed_add_value(pb_set *set, const char *name, const char *value, int number)
{
	pb_enum *e = changed_enum(set, name);
	Google__Protobuf__EnumValueDescriptorProto *v = one_more((void ***)&e->value, &e->n_value, sizeof *v);

	google__protobuf__enum_value_descriptor_proto__init(v);
	v->name = strdup(value);
	v->has_number = true;
	v->number = number;
}
