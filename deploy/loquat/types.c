#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/buf.h"
#include "common/err.h"
#include "common/msg.h"
#include "deploy/loquat/loquat.h"

/*
 * Annotations for the Lua language server (LuaLS), so that editors complete and check messages, routes, calls and the
 * libraries: what the .proto files say, beside deploy/loquat/library.lua, which is written by hand.
 */
struct types {
	const struct schema *schema;
	const struct msg_type **seen; /* messages that are written, or will be */
	size_t seen_n, seen_cap;
	struct buf out;
};

static void note(struct types *t, const struct msg_type *type)
{
	for (size_t i = 0; i < t->seen_n; i++)
		if (t->seen[i] == type)
			return;
	if (t->seen_n == t->seen_cap) {
		t->seen_cap = t->seen_cap ? 2 * t->seen_cap : 64;
		t->seen = realloc(t->seen, t->seen_cap * sizeof(struct msg_type *));
		if (!t->seen)
			abort();
	}
	t->seen[t->seen_n++] = type;
}

static const char *scalar(enum msg_field_type type)
{
	switch (type) {
	case MSG_DOUBLE:
	case MSG_FLOAT: return "number";
	case MSG_BOOL: return "boolean";
	case MSG_STRING:
	case MSG_BYTES: return "string";
	default: return "integer";
	}
}

static const char *name_of(const struct msg_type *type)
{
	return type->any ? "table" : type->name;
}

/* role.Item, integer, "open"|"done" */
static void add_type(struct types *t, const struct msg_field *f)
{
	if (f->type == MSG_MESSAGE) {
		if (!f->message->any)
			note(t, f->message);
		buf_addstr(&t->out, name_of(f->message));
	} else if (f->type == MSG_ENUM) {
		for (size_t i = 0; i < f->enumeration->values; i++)
			buf_addf(&t->out, "%s\"%s\"", i ? "|" : "", f->enumeration->value[i].name);
	} else {
		buf_addstr(&t->out, scalar(f->type));
	}
}

static void add_field(struct types *t, const struct msg_field *f)
{
	bool may_lack = !f->required && !f->repeated;

	if (f->ignored)
		return;
	buf_addf(&t->out, "---@field %s%s ", f->name, may_lack ? "?" : "");
	if (f->map) {
		buf_addstr(&t->out, "table<");
		add_type(t, msg_field_number(f->message, 1));
		buf_addstr(&t->out, ", ");
		add_type(t, msg_field_number(f->message, 2));
		buf_addch(&t->out, '>');
	} else {
		bool several = f->repeated && f->type == MSG_ENUM;

		buf_addstr(&t->out, several ? "(" : "");
		add_type(t, f);
		buf_addstr(&t->out, several ? ")[]" : f->repeated ? "[]" : "");
	}
	buf_addch(&t->out, '\n');
}

/* Grows while it is walked: fields name more messages. */
static void add_messages(struct types *t)
{
	for (size_t i = 0; i < schema_methods(t->schema); i++) {
		const struct msg_method *m = schema_method_at(t->schema, i);

		if (!m->in->any)
			note(t, m->in);
		if (!m->out->any)
			note(t, m->out);
	}
	for (size_t i = 0; i < t->seen_n; i++) {
		const struct msg_type *type = t->seen[i];

		buf_addf(&t->out, "\n---@class %s\n", type->name);
		for (unsigned k = 0; k < type->fields; k++)
			add_field(t, &type->field[k]);
	}
}

/* What a file of the group returns: handlers take a session, remotes who calls. */
static void add_function(struct types *t, const struct msg_method *m)
{
	buf_addf(&t->out, "---@field %s fun(%s: %s, %s: %s): %s?, Error?, string?, Effect?\n", m->name,
		 m->is_handler ? "session" : "args", m->is_handler ? "Session" : name_of(m->in),
		 m->is_handler ? "msg" : "call", m->is_handler ? name_of(m->in) : "Call", name_of(m->out));
}

/* Adds what add says for each method of the group at i; returns where the next group begins. */
static size_t each_of_group(struct types *t, size_t i, void (*add)(struct types *t, const struct msg_method *m))
{
	const struct msg_method *first = schema_method_at(t->schema, i);

	for (; i < schema_methods(t->schema); i++) {
		const struct msg_method *m = schema_method_at(t->schema, i);

		if (strcmp(m->service, first->service) != 0 || strcmp(m->group, first->group) != 0)
			break;
		add(t, m);
	}
	return i;
}

static void add_call(struct types *t, const struct msg_method *m)
{
	buf_addf(&t->out,
		 "---@field %s fun(key: string, args: %s, options?: CallOptions): %s?, Error?, string?, Effect?\n",
		 m->name, name_of(m->in), name_of(m->out));
}

static void add_groups(struct types *t)
{
	const char *service = "";

	for (size_t i = 0; i < schema_methods(t->schema);) {
		const struct msg_method *m = schema_method_at(t->schema, i);

		buf_addf(&t->out, "\n---@class %s.%s\n", m->service, m->group);
		size_t next = each_of_group(t, i, add_function);

		buf_addf(&t->out, "\n---@class app.rpc.%s.%s\n", m->service, m->group);
		each_of_group(t, i, add_call);
		i = next;
	}
	for (size_t i = 0; i < schema_methods(t->schema); i++) {
		const struct msg_method *m = schema_method_at(t->schema, i),
					*before = i ? schema_method_at(t->schema, i - 1) : NULL;

		if (strcmp(m->service, service) != 0)
			buf_addf(&t->out, "\n---@class app.rpc.%s\n", m->service);
		if (!before || strcmp(m->service, before->service) != 0 || strcmp(m->group, before->group) != 0)
			buf_addf(&t->out, "---@field %s app.rpc.%s.%s\n", m->group, m->service, m->group);
		service = m->service;
	}
	buf_addstr(&t->out, "\n---@class app.rpc\n");
	service = "";
	for (size_t i = 0; i < schema_methods(t->schema); i++) {
		const struct msg_method *m = schema_method_at(t->schema, i);

		if (strcmp(m->service, service) != 0)
			buf_addf(&t->out, "---@field %s app.rpc.%s\n", m->service, m->service);
		service = m->service;
	}
}

static void add_names(struct types *t, const char *alias, bool handlers)
{
	buf_addf(&t->out, "\n---@alias %s\n", alias);
	for (size_t i = 0; i < schema_methods(t->schema); i++) {
		const struct msg_method *m = schema_method_at(t->schema, i);

		if (m->is_handler == handlers)
			buf_addf(&t->out, "---| \"%s\"\n", m->full);
	}
}

static int store(struct cluster *c, const char *name, const void *text, size_t n)
{
	char path[2 * ENV_PATH_MAX];

	snprintf(path, sizeof path, "%s/build/types/%s", c->home, name);
	if (env_file_store(c->env, path, text, n, 0) < 0)
		return complain("types: %s: %s", path, env_last_error());
	printf(" + build/types/%s\n", name);
	return 0;
}

static int write_messages(struct cluster *c, struct types *t)
{
	buf_addstr(&t->out, "---@meta\n-- Messages and methods of proto/, written by `loquat types`.\n");
	add_messages(t);
	add_groups(t);
	add_names(t, "Route", true);
	add_names(t, "RemoteName", false);
	return store(c, "messages.lua", t->out.data, t->out.len);
}

static int load(struct cluster *c, const char *relative, char **text, size_t *n)
{
	char path[2 * ENV_PATH_MAX];

	snprintf(path, sizeof path, "%s%s%s", *relative == '/' ? "" : c->home, *relative == '/' ? "" : "/", relative);
	int err = env_file_load(c->env, path, 16 << 20, text, n);

	return err < 0 ? complain("types: %s: %s", path, err_text(err)) : 0;
}

static int write_library(struct cluster *c)
{
	char *text;
	size_t n;
	int status = load(c, "deploy/loquat/library.lua", &text, &n);

	if (status)
		return status;
	status = store(c, "library.lua", text, n);
	free(text);
	return status;
}

int command_types(struct cluster *c, int argc, char **argv)
{
	struct types t = { .out = BUF_INIT };
	struct schema *schema;
	char folder[2 * ENV_PATH_MAX], error[512], *desc;
	size_t n;

	(void)argv;
	if (argc != 1)
		return complain("types: takes no arguments");
	const char *messages = config_string(c->config, "paths.messages", "build/loquat.desc");

	if (load(c, messages, &desc, &n))
		return 2;
	int err = schema_load(desc, n, error, sizeof error, &schema);

	free(desc);
	if (err < 0)
		return complain("types: %s: %s", messages, error);
	snprintf(folder, sizeof folder, "%s/build/types", c->home);
	t.schema = schema;
	int status = env_dir_make(c->env, folder) < 0 ? complain("types: %s: %s", folder, env_last_error())
						      : write_messages(c, &t);

	if (status == 0)
		status = write_library(c);
	if (status == 0)
		puts("\n .luarc.json names the folder: an editor with the Lua language server completes and checks from here on.\n"
		     " In a handler's file:   local Handler = {} ---@type role.shopHandler");
	buf_release(&t.out);
	free(t.seen);
	schema_free(schema);
	return status;
}
