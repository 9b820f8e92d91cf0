#pragma once
#include "common/config.h"
/*
 * config_tree: the tree of a loaded configuration. Private to config*.c: config_lua.c makes it from the file,
 * config.c checks it against the rows and reads it.
 *
 * Threads: whoever loads; a loaded tree is never changed, and any may read it.
 * Memory:  nodes and texts are the tree's, freed with it by config_free.
 */
enum { CONFIG_PATH_MAX = 512 };

enum kind { NODE_INT, NODE_NUMBER, NODE_BOOL, NODE_STRING, NODE_TABLE, NODE_OTHER };

struct node {
	enum kind kind;
	char *key;       /* its name in the table, NULL: element of the list */
	int64_t integer; /* NODE_INT, NODE_BOOL */
	double number;   /* NODE_INT too */
	char *text;      /* NODE_STRING; NODE_OTHER: the word for its type */
	size_t text_n;
	struct node **item; /* NODE_TABLE: list_n elements, then the named ones by name */
	size_t list_n, item_n;
};

/* What is being loaded: for the one line of error. */
struct load {
	const char *name;
	const struct config_row *rows;
	char *error;
	size_t error_size;
	size_t nodes, lua_bytes;
	struct env *env; /* NULL: there are no environment variables */
};

/* Writes the line "file: path: …" and returns ERR_CONFIG. */
int config_fail(struct load *l, const char *path, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* path.key, or path[index] if key is NULL. */
int config_path_join(struct load *l, char to[CONFIG_PATH_MAX], const char *path, const char *key, int64_t index);
void *config_must(void *p); /* what malloc gave; ends the process when that is nothing: we are starting up */

struct node *config_node_new(enum kind kind, const char *key);
void config_node_free(struct node *n); /* NULL is fine */
void config_node_insert_take(struct node *table, struct node *n);

/* Runs the text and copies the table it returns. */
int config_lua(struct load *l, const char *text, size_t n, struct node **root);
