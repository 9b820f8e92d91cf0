#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"
#include "common/config.h"
/*
 * route: the route table: which instances there are, and which of them owns a key.
 *
 * A table never changes once made; updates are new tables with a higher version. It begins as the rows of the cluster
 * file that are to run; where the next ones come from is rpc/route_source.h.
 *
 * Threads: reading from any thread. Each worker holds one reference (route_ref, route_unref).
 * Keys:    rendezvous hashing over the instances of the service that are not draining, so a change of the instances
 *          moves only 1/N of the keys; the worker inside an instance is hash(key) mod its workers.
 * Source:  Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998.
 */
enum route_state { ROUTE_READY, ROUTE_DRAINING };
struct route_row {
	char id[32], service[32], host[64];
	char client_host[64]; /* where the players' port is; empty: at host (route_client_host) */
	uint16_t rpc_port, http_port, client_port;
	uint32_t workers;
	uint64_t epoch; /* fences a former owner; from the live table */
	enum route_state state;
	uint64_t hash; /* route_hash of id, of all that is in a table */
};
struct route_table {
	uint64_t version;
	size_t rows;
	struct route_row *row; /* in the order of the cluster file */
	_Atomic unsigned refs; /* private */
};

/* From instances[] of a checked configuration; rows with start = false are left out unless all is set. */
int route_from_config(const struct config *c, bool all, char *error, size_t error_size, struct route_table **out);
/* From the text of the live file (a Lua table {version=…, instances={…}}); what it does not name is not there. */
int route_from_text(const char *text, size_t n, char *error, size_t error_size, struct route_table **out);
void route_to_text(const struct route_table *t, struct buf *out); /* the same format */
/* What /routes shows; source: JSON that says where the table comes from (NULL: the live file). */
void route_to_json(const struct route_table *t, const char *source, struct buf *out);
void route_row_to_json(const struct route_row *row, struct buf *out); /* one element of it */
struct route_table *route_table_new(size_t rows);                     /* empty, with room for so many rows */
struct route_table *route_ref(struct route_table *t);
void route_unref(struct route_table *t);

void route_row_named(struct route_row *row); /* its id is there: for who fills a row, before it goes into a table */

const char *route_client_host(const struct route_row *row);

bool route_is_name(const char *text); /* may be an instance's, and so a folder's: 1 to 31 letters, digits, _ and - */
const struct route_row *route_find(const struct route_table *t, const char *id);
/* The owner of key among the ready instances of service; NULL: there is none. */
const struct route_row *route_owner(const struct route_table *t, const char *service, const char *key, size_t n);
uint32_t route_worker(const struct route_row *row, const char *key, size_t n);
uint64_t route_hash(const char *key, size_t n);
/* What rendezvous hashing compares: the ready instance with the highest score of a key owns it. Hashes of key and id. */
uint64_t route_score(uint64_t key_hash, uint64_t id_hash);
bool route_is_ready(const struct route_row *row, const char *service);
/* Names the set of the service's ready instances, whatever their order: two tables with the same one agree on all owners. */
uint64_t route_ring(const struct route_table *t, const char *service); /* 1 to 2^63 - 1 */
