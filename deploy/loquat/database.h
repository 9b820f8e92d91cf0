#pragma once
#include "deploy/loquat/child.h"
#include "deploy/loquat/loquat.h"
/*
 * database: the cluster's own MariaDB, in paths.var/mariadb, reached by a unix socket only; and its schema (schema.h).
 *
 * Threads: the supervisor's loop; database_prepare blocks and comes before it runs.
 */
struct database;
/* Makes the data folder at the first start. Prints one line and returns 2 if that cannot be. */
int database_prepare(struct cluster *c);
/* The child's command line for a prepared folder: argv is one block, the caller's to free. */
void database_describe(struct cluster *c, struct child *child);

/* Waits until it answers, makes the schema's database, applies what is missing; then on_ready(arg, NULL) or (arg, why). */
struct database *database_open(struct cluster *c, struct loop *loop, void (*on_ready)(void *arg, const char *why),
			       void *arg);
/* What mends this word of the database's about a login or a right, for a person who may do that there. */
const char *database_cure(const struct cluster *c, const char *said, char out[320]);
const char *database_trouble(const struct database *d); /* why it is not ready yet; valid until the loop's next turn */
void database_close(struct database *d);
unsigned database_applied(const struct database *d); /* files of the schema, when ready */
