#pragma once
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include "common/env.h"
#include "common/err.h"
/*
 * env_real: what the files of the real environment share. Private to common/env_real*.c.
 *
 * A loop is a thread with its own event_base (no locks: nobody else touches it). Beside its sockets it watches
 * two descriptors, both edge-triggered, so neither is ever read: an eventfd for wake-ups from other threads and
 * a timerfd for the due time. libevent's own timers are not used on the hot path: they cost a heap operation or,
 * with precise timers, a timerfd_settime per turn.
 *
 * Threads: a loop's parts are its thread's; what others touch is _Atomic or says so.
 */
struct failpoint {
	struct failpoint *next;
	_Atomic unsigned long left; /* passes until the process dies */
	char name[];
};

struct env {
	bool ticks_in_cpu;            /* the kernel's own clock is the processor's counter, so it found it even */
	struct failpoint *failpoints; /* NULL: none is set, and a pass costs one branch */
};

/* RUNNING -> SLEEPING by the loop before it blocks; any -> WOKEN by a waker, who writes the eventfd only if it
 * finds SLEEPING; any -> RUNNING by the loop before its turn. */
enum loop_state { LOOP_RUNNING, LOOP_SLEEPING, LOOP_WOKEN };

enum interrupt_state { INTERRUPT_FREE, INTERRUPT_FILLING, INTERRUPT_SENT };

struct signal_slot {
	struct signal_slot *next;
	int signo;
	void (*fn)(void *arg, int signo);
	void *arg;
};

struct http_call;
struct env_loop {
	struct env *env;
	struct event_base *base;
	const struct env_loop_ops *ops;
	void *arg;
	_Atomic int state;
	_Atomic bool stopping;
	bool awake;        /* on_wake has run since the last sleep */
	uint64_t poll_ns;  /* env_loop_poll */
	uint64_t armed_ns; /* what the timerfd is set to; ENV_NEVER: not */
	int wake_fd, timer_fd;
	struct event wake_ev, timer_ev;
	struct signal_slot *signals;
	_Atomic uint64_t signals_pending; /* bit = signal number, set in the handler */
	struct env_http *https;           /* its servers */
	struct http_call *calls;          /* HTTP calls under way */
	struct env_http_stream *streams;  /* HTTP answers that come in pieces */
	_Atomic int interrupting;         /* enum interrupt_state */
	void (*interrupt)(void *arg);
	void *interrupt_arg;
	pthread_t thread;
	sem_t go; /* the thread waits for it: *out of env_loop_start is filled first */
	char name[16];
};

/* Every callback of an event starts with this. */
static inline void env_real_enter(struct env_loop *l)
{
	if (l->awake)
		return;
	l->awake = true;
	if (l->ops->on_wake)
		l->ops->on_wake(l->arg);
}

struct env_loop *env_real_current(void);            /* NULL on a thread that is no loop */
void env_real_http_stop(struct env_loop *l);        /* drops the calls under way, without an answer */
void env_real_http_stream_stop(struct env_loop *l); /* and the streams */
/* What calls and streams share: a connection that is not open yet, a request with its headers. NULL, negative: refused. */
struct evhttp_connection;
struct evhttp_request;
struct evhttp_connection *env_real_http_connect(struct env_loop *l, struct env_tls *tls, const char *host,
						uint16_t port);
int env_real_http_error(struct evhttp_connection *con); /* of one that has failed: ERR_UNAVAILABLE, ERR_DENIED (TLS) */
int env_real_http_send(struct evhttp_connection *con, struct evhttp_request *req, const char *host, uint16_t port,
		       const char *method, const char *path_and_query, const char *const *headers, const void *body,
		       size_t n);
bool env_real_http_can(const char *host, const char *method);

/* Keeps errno's words for env_last_error and returns the code: ERR_NOT_FOUND, _EXISTS, _FULL, _NOMEM, else ERR_IO. */
int env_real_errno(int number);

void env_real_words(const char *text); /* what env_last_error says on this thread */

/* env_real_tls.c: TLS of one connection; its socket is non-blocking and the caller's. */
struct conn_tls;
struct conn_tls *env_real_tls_open(struct env_tls *t, int fd, bool client); /* NULL: no memory */
void env_real_tls_close(struct conn_tls *c);                                /* NULL is fine */
int env_real_tls_step(struct conn_tls *c, bool *wants_write); /* the handshake: 0 done, ERR_AGAIN, ERR_DENIED */
ssize_t env_real_tls_read(struct conn_tls *c, void *buf, size_t n);
ssize_t env_real_tls_write(struct conn_tls *c, const struct iovec *iov, int n);
bool env_real_tls_pending(const struct conn_tls *c); /* bytes that are read already: the socket will not tell of them */
void env_real_tls_shutdown(struct conn_tls *c);
/* For HTTP over TLS: a client's side that takes only a certificate of host, an address; NULL: no memory, no address. */
struct ssl_st;
struct ssl_st *env_real_tls_client(struct env_tls *t, const char *host);
bool env_real_tls_failed(const struct ssl_st *ssl,
			 unsigned long error); /* error: OpenSSL's, 0: none. Notes the words */

/* A bound, listening, non-blocking TCP socket: its descriptor or an error. */
int env_real_listen(const char *host, uint16_t port);
uint16_t env_real_port(int fd);

/* env_real_net.c for env_real_pass.c: what handing over needs of sockets. */
int env_real_conn_fd(const struct env_conn *conn);
int env_real_listener_fd(const struct env_listener *l);
int env_real_conn_of(int fd, struct env_conn **out); /* fd stays the caller's on failure */
int env_real_listener_of(struct env_loop *loop, int fd, void (*on_accept)(void *arg, struct env_conn *conn), void *arg,
			 struct env_listener **out);
