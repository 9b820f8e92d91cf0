#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
/*
 * msg: what the .proto files say: messages, their fields, methods and their options (proto/options.proto).
 *
 * Made once from the descriptor set that `make` writes (build/loquat.desc). All codecs, the RPC library and the HTTP
 * face read types and methods here, so a message is written down in one place only.
 *
 * A process may load a set that follows the one it has (schema_load_after): what has the same name has the same number in
 * both, so tables by number only grow, and a pointer into the old set leads to the new one (schema_method_now).
 *
 * Threads: after loading nothing changes and any thread may read.
 * Memory:  everything belongs to the schema and lives until schema_free; pointers are stable.
 * Names:   a service's proto package is the service's name ("role"), a proto service in it is a group of methods
 *          ("shopHandler" for clients, "roleRemote" for services).
 * Limits:  MSG_FIELDS_MAX fields in a message; field numbers up to 2^29 - 1.
 */
#define MSG_FIELDS_MAX 256
struct schema;

enum msg_kind { MSG_PLAIN, MSG_READ, MSG_ONCE }; /* the numbers of loquat.Kind */

/* The numbers of google.protobuf.FieldDescriptorProto.Type. */
enum msg_field_type {
	MSG_DOUBLE = 1,
	MSG_FLOAT,
	MSG_INT64,
	MSG_UINT64,
	MSG_INT32,
	MSG_FIXED64,
	MSG_FIXED32,
	MSG_BOOL,
	MSG_STRING,
	MSG_GROUP, /* never: refused at loading */
	MSG_MESSAGE,
	MSG_BYTES,
	MSG_UINT32,
	MSG_ENUM,
	MSG_SFIXED32,
	MSG_SFIXED64,
	MSG_SINT32,
	MSG_SINT64,
};

/* How a value stands on the wire: the low three bits of its tag. */
enum msg_wire { MSG_WIRE_VARINT = 0, MSG_WIRE_8 = 1, MSG_WIRE_BYTES = 2, MSG_WIRE_4 = 5 };

struct msg_enum_value {
	const char *name;
	size_t name_bytes;
	int32_t number;
	uint32_t id; /* as msg_field.id */
};
struct msg_enum {
	const char *name; /* "role.QuestKind" */
	size_t values;
	const struct msg_enum_value *value; /* as written; aliases keep their order */
};
const struct msg_enum_value *msg_enum_number(const struct msg_enum *e, int32_t number); /* NULL: none */
const struct msg_enum_value *msg_enum_name(const struct msg_enum *e, const char *p, size_t n);

struct msg_type;
struct msg_field {
	uint32_t number;
	enum msg_field_type type;
	enum msg_wire wire; /* of one value */
	uint32_t tag;       /* as it is written: number << 3 | wire, or | MSG_WIRE_BYTES for a packed list */
	bool repeated, required, packed;
	bool map;         /* map<key, value>: message is the entry type, fields 1 (key) and 2 (value) */
	bool has_default; /* written down as [default = …] */
	bool ignored;     /* option (loquat.ignored): any JSON value is taken and dropped */
	uint16_t index;   /* place in its type->field */
	uint16_t oneof;   /* number of the oneof in its type that it is one of, from 1; 0: none */
	uint32_t id;      /* unique number of this name among the schema's, 1..schema_names() */
	const char *name;
	size_t name_bytes;
	uint64_t word;                      /* private: lookup by name */
	const struct msg_type *message;     /* MSG_MESSAGE */
	const struct msg_enum *enumeration; /* MSG_ENUM */
	union {
		int64_t i; /* integers, bool, enum's number */
		double d;
		struct {
			const char *p;
			size_t n;
		} s;
	} fallback; /* when has_default */
};
struct msg_type {
	const char *name; /* "role.BuyRequest" */
	bool any;         /* option (loquat.any): any JSON object */
	bool map_entry;
	const char *push; /* option push, or NULL: the pushes that carry it, comma-separated */
	uint32_t
		index; /* below schema_shapes; types of one name with the same fields' names in the same order share it */
	uint16_t fields;
	uint16_t required, defaults;   /* how many of the fields are so; one of a oneof has no default */
	uint16_t oneofs;               /* how many there are */
	const struct msg_field *field; /* sorted by number */
	/* private: lookup */
	const uint16_t *dense; /* by number up to dense_max: index + 1, or 0 */
	uint32_t dense_max;
	const uint16_t *hash; /* by name: index + 1, open addressing */
	uint32_t hash_mask;
};
const struct msg_field *msg_field_number(const struct msg_type *t, uint32_t number);          /* NULL: none */
const struct msg_field *msg_field_name(const struct msg_type *t, const char *name, size_t n); /* NULL: none */

struct msg_method {
	const char *service; /* "role" */
	const char *group;   /* "shopHandler" */
	const char *name;    /* "buy" */
	const char *full;    /* "role.shopHandler.buy" */
	const char *local;   /* "shopHandler.buy", inside of full */
	uint16_t full_n, local_n;
	const struct msg_type *in, *out;
	enum msg_kind kind;
	bool is_handler;              /* the group's name ends in "Handler": clients may ask for it */
	bool inner;                   /* option inner: over HTTP only with the cluster key; only a READ may say no */
	bool anywhere;                /* option anywhere: without a key, any instance may answer */
	bool is_public;               /* option public: clients may ask for it before they have logged in */
	const char *callers;          /* option callers, or NULL: any inner service */
	const char *attr;             /* the group's option attr, or NULL: routed by uid */
	const struct msg_field *once; /* option once: the request's field that is the business key, or NULL */
	uint16_t index;               /* of this name, below schema_indexes */
};

/* Reads a descriptor set (protoc --include_imports -o). error gets one line. ERR_CORRUPT */
int schema_load(const void *bytes, size_t n, char *error, size_t error_size, struct schema **out);
/*
 * The same for a process that knows `before`: methods, types and names that were in it, or in those it was loaded after,
 * have their numbers here too, and what is new has new ones.
 */
int schema_load_after(const struct schema *before, const void *bytes, size_t n, char *error, size_t error_size,
		      struct schema **out);
void schema_free(struct schema *s); /* NULL is fine */
/* msg_version.c: 12 hex digits of all that is said here, so of no comment: sets that say the same have the same. */
const char *schema_version(const struct schema *s);
/*
 * msg_follow.c: may `next` take the place of `now` while others still go by `now`? Messages, fields that nobody has to send,
 * methods, enum values and pushes may be added, and a method's option callers, inner and public may change. ERR_BAD_REQUEST:
 * error names the first thing that is neither.
 */
int schema_follows(const struct schema *now, const struct schema *next, char *error, size_t error_size);

size_t schema_methods(const struct schema *s);
const struct msg_method *schema_method_at(const struct schema *s, size_t index);            /* sorted by full name */
const struct msg_method *schema_method(const struct schema *s, const char *full, size_t n); /* NULL: none */
size_t schema_indexes(
	const struct schema *s); /* more than any method's index, in it and in those it was loaded after */
/* The method as s has it, given as another set of the same process has it; NULL: s does not have it. */
const struct msg_method *schema_method_now(const struct schema *s, const struct msg_method *m);
const struct msg_type *schema_type(const struct schema *s, const char *name); /* "role.BuyRequest"; NULL: none */
size_t schema_shapes(const struct schema *s);                                 /* the same of types' indexes */
size_t schema_types(const struct schema *s);
const struct msg_type *schema_type_at(const struct schema *s, size_t index); /* in no order */
/* May a service of this name call it? Handlers: connector and gate only; else by the option callers. */
bool msg_method_admits(const struct msg_method *m, const char *caller);

/* Every field's and enum value's name by its id, 1..schema_names(): for tables of interned strings. With those of before. */
uint32_t schema_names(const struct schema *s);
const char *schema_name(const struct schema *s, uint32_t id, size_t *n);
