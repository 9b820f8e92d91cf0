#pragma once
#include "common/msg.h"
#include "google/protobuf/descriptor.pb-c.h"
/*
 * changed: the messages of tests/proto as somebody has changed them, for the tests of what takes new ones while it runs.
 *
 * Threads: the test's own. Memory: what a change puts in comes from malloc and goes with the set. What is not there
 * ends the program.
 */
typedef Google__Protobuf__FileDescriptorSet pb_set;
typedef Google__Protobuf__DescriptorProto pb_message;
typedef Google__Protobuf__FieldDescriptorProto pb_field;
typedef Google__Protobuf__MethodDescriptorProto pb_method;
typedef Google__Protobuf__EnumDescriptorProto pb_enum;

typedef void changed_fn(pb_set *set);
/* build/tests.desc after change, NULL: as it is; free it. */
char *changed_bytes(changed_fn *change, size_t *n);
/* The same, loaded after `before`. schema_free it. */
struct schema *changed_schema(const struct schema *before, changed_fn *change);

/* Parts, by their names: "sample.Five", "from"; "sample.shopHandler", "buy". */
pb_message *changed_message(pb_set *set, const char *name);
pb_field *changed_field(pb_set *set, const char *message, const char *name);
pb_method *changed_method(pb_set *set, const char *group, const char *name);
pb_enum *changed_enum(pb_set *set, const char *name);
void changed_name(char **name, const char *to);
pb_field *changed_add_field(pb_set *set, const char *message, const char *name, int number); /* an optional string */
void changed_add_method(pb_set *set, const char *group, const char *name, const char *in, const char *out);
void changed_add_value(pb_set *set, const char *name, const char *value, int number); /* of an enum */
