#pragma once
#include "common/log.h"
#include "rpc/clientconn.h"
/*
 * What the parts of clientconn share: clientconn.c (its life, its end, its timers), clientconn_transport.c (bytes to packages),
 * clientconn_package.c (what comes), clientconn_out.c (what goes), clientconn_move.c (to another process).
 *
 * Threads: owner worker only.
 */
static inline struct clientconn *clientconn_of(struct stream *s)
{
	return (struct clientconn *)((char *)s - offsetof(struct clientconn, stream));
}

/* ---- clientconn.c */
void clientconn_ended(struct clientconn *c, enum log_level level,
		      const char *why);                               /* on_end; the socket is the caller's */
void clientconn_close_flushed(struct clientconn *c, const char *why); /* the last words have been written */
/* As clientconn_drop, but a WebSocket client is told by which code. */
void clientconn_drop_with(struct clientconn *c, unsigned code, const char *why);
void clientconn_web_end(struct clientconn *c, unsigned code); /* the close frame, if it is a WebSocket */
uint64_t clientconn_interval_ms(const struct clientconn *c);  /* between heartbeats */
#define CLIENTCONN_BEAT_GAP_MS 100 /* heartbeats of a client are answered at most this often */

/* ---- clientconn_out.c */
int clientconn_write(struct clientconn *c, const char *head, size_t head_n, const char *body,
		     size_t n); /* a whole package */
void clientconn_heartbeat(struct clientconn *c);
void clientconn_drained(struct stream *s); /* the socket takes more */
void clientconn_late_free(struct clientconn *c);

/* ---- clientconn_package.c */
/* Reads packages off the stream of bytes; how many bytes it took. Stops when the connection ends. */
size_t clientconn_packages(struct clientconn *c, const char *data, size_t n);
/* Counts so many packages or frames; false: too many, and it has been kicked. */
bool clientconn_pieces_ok(struct clientconn *c, unsigned n);

/* ---- clientconn_transport.c */
ssize_t clientconn_on_data(struct stream *s, const char *data, size_t n); /* how many of the bytes are done with */
