#pragma once
#include "rpc/clientconn.h"
#include "rpc/clientlisten.h"
#include "rpc/service.h"
/*
 * clientset: the keys client.* of the configuration, which gate and connector share: TLS and balancers of the port, pages that
 * may connect, what clients are told in the handshake.
 *
 * Threads: made in init_service, then read by any. Memory: clientset_free when no face uses it any more.
 */
struct clientset;
/*
 * dictionary: the key with the list of routes that stand first in the dictionary ("connector.dictionary"), or NULL: no
 * dictionary. An error has been reported by service_fail. ERR_CONFIG
 */
int clientset_new(struct service *s, const char *dictionary, struct clientset **out);
void clientset_free(struct clientset *c); /* NULL is fine */
/*
 * What clients are told of one set of messages (rpc/messages.h). A worker makes it beside what its face has told so far, and keeps all
 * of them, for its clients go on with what they were told. error is one line. ERR_CONFIG
 */
struct clienttold;
int clientset_prepare(const struct clientset *c, const struct schema *next, struct clienttold **all, char *error,
		      size_t size);
void clientset_take(const struct clientset *c, const struct schema *next, struct clienttold *all,
		    struct clientconn_face *f); /* prepared, or told at the beginning */
void clienttold_free(struct clienttold *all);   /* after the face; NULL is fine */
/* The versions of what clients are told by the schema, as text. */
void clientset_versions(const struct clientset *c, const struct schema *schema, char *out, size_t size);
/* Fills in what the face's clients are offered at the beginning; listen is where the port's listener will be. */
void clientset_face(const struct clientset *c, struct clientlisten *const *listen, struct clientconn_face *f);
/* Fills in what the port does before a connection is handed on: TLS, balancers. */
void clientset_listen(const struct clientset *c, struct clientlisten_options *o);
