#pragma once
#include "rpc/service.h"
/*
 * messages: the sets of messages (paths.messages, what `make` makes of proto/) that a process has loaded, which of them it goes
 * by, and how another takes its place while it runs.
 *
 * Numbers of methods and types are the same in all of them (schema_load_after), so what holds a pointer into an older set
 * goes on working; what is looked up by name from then on is the new set's.
 *
 * Threads: each worker switches by itself, at one point between two of its tasks, and reads worker->schema from then on; the
 *          control thread (service->schema, and its own worker's) after all of them.
 * Memory:  a set is kept until the process ends, for there is no telling who holds a piece of it: calls, coroutines, clients
 *          that were told of it. At most MESSAGES_MAX different ones, of about 0.3 MB each.
 */
#define MESSAGES_MAX 200
struct messages;
/* Loads the set the process begins with. Before any thread. error is one line. */
int messages_open(struct service *s, char *error, size_t size);
void messages_close(struct service *s); /* when no thread is left; also where messages_open failed */

/*
 * Control thread. Reads the file. *out: service->schema if it says the same, else a set that may take its place; it is the
 * process's. ERR_BAD_REQUEST: it may not, or these would be too many; error says what, and what to do.
 */
int messages_read(struct service *s, char *error, size_t size, const struct schema **out);
/* Control thread, when all workers have taken it. */
void messages_taken(struct service *s, const struct schema *next);

/* On the worker: makes beside what is used what next needs; may come again, with another. error is one line. */
int worker_messages_prepare(struct worker *w, const struct schema *next, char *error, size_t size);
void worker_messages_take(struct worker *w,
			  const struct schema *next); /* prepared, or used before; between two tasks */
