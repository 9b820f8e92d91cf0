#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
/*
 * env: the one seam between Loquat and the world.
 *
 * Time, threads, sockets, files, HTTP, the database, signals and randomness are reached through this
 * header and nothing else. Two implementations are chosen at link time: env_real*.c on libevent, and
 * env_sim*.c, a seeded simulation with a virtual clock (tests only; env_sim.h has its controls).
 *
 * Threads: everything that runs is a loop (env_loop_start). A loop's objects (connections, database
 *          handles, HTTP servers, watches, signals) belong to it: their calls and callbacks are on the
 *          loop's thread. The exceptions say "any thread".
 * Memory:  handles are made by a call that returns 0 and fills *out, and freed by their close call; no
 *          callback comes after it.
 * Errors:  negative ERR_* codes (common/err.h); *out is untouched then. env_last_error() has the
 *          system's own words for the last ERR_IO of the calling thread.
 * Paths:   plain UTF-8, relative ones start at the process' working folder.
 */
struct env;
struct env_loop;

#ifndef ENV_PATH_MAX
#define ENV_PATH_MAX 512
#endif
#define ENV_ADDR_MAX 64 /* "255.255.255.255:65535" or "[v6]:port" with its NUL */
#define ENV_NEVER    UINT64_MAX

/* ---- the process --------------------------------------------------------------------------------- */

/* Real implementation only; a simulated process gets its env from the simulation. */
struct env *env_new(void);
void env_free(struct env *env); /* all loops must have been joined */

uint64_t env_mono_ns(struct env *env); /* any thread: never goes back */
uint64_t env_wall_us(struct env *env); /* any thread: microseconds UTC since 1970 */
/*
 * Any thread: a count that grows evenly in a unit of its own, for whoever notes very many moments and turns few of them
 * into time later, by what env_mono_ns says to two of them. A third of a clock's cost, where the machine offers it.
 */
uint64_t env_ticks(struct env *env);
unsigned env_files_max(struct env *env);               /* any thread: descriptors that this process may have open */
void env_random(struct env *env, void *buf, size_t n); /* any thread: cryptographic (seeded in simulation) */
int env_pid(struct env *env);
const char *env_getenv(struct env *env, const char *name); /* NULL if unset */
/* The folder that holds build/bin, by the place of this very program; false: it is not known, as in simulation. */
bool env_home(struct env *env, char out[ENV_PATH_MAX]);
const char *env_last_error(void);        /* text for the last ERR_IO on this thread */
uint64_t env_cpu_us(struct env *env);    /* CPU time of the process, 0 in simulation */
uint64_t env_rss_bytes(struct env *env); /* resident memory, 0 in simulation */
/*
 * Zeroed memory for long, in large pages where the system has them: a table of many megabytes that is looked into at
 * random spends much of its time on finding small ones. Pages are taken when they are first touched. NULL: none.
 */
void *env_memory(struct env *env, size_t bytes);
void env_memory_free(struct env *env, void *p, size_t bytes); /* bytes as at its making; NULL is fine */
/* Ends the process at once without clean-up (a broken promise is worse than a crash). */
_Noreturn void env_abort(struct env *env, const char *why);

/*
 * A numbered point at which tests let the process die as by kill -9: the real one dies at the N-th
 * pass when LOQUAT_FAILPOINT="name:N" is set, the simulated one when its seed says so (it does not
 * return then). Costs one branch when off.
 */
void env_failpoint(struct env *env, const char *name);

/* ---- loops: every thread is one ------------------------------------------------------------------- */

struct env_loop_ops {
	void (*on_start)(void *arg, struct env_loop *loop); /* first call, on the loop's thread; *out is set before */
	void (*on_wake)(void *arg); /* after a sleep, before the batch's first callback: read the clock; may be NULL */
	/*
	 * Once after on_start, after each batch of events, and when the due time it returned last has come: do
	 * what is due and flush. Returns the monotonic ns at which it wants to be called again (it may come
	 * earlier), 0: at once, after a look at what is ready, or ENV_NEVER.
	 */
	uint64_t (*on_turn)(void *arg);
	void (*on_stop)(void *arg); /* last call, on the loop's thread: close what it owns */
};
int env_loop_start(struct env *env, const char *name, const struct env_loop_ops *ops, void *arg, struct env_loop **out);
void env_loop_wake(struct env_loop *loop); /* any thread: on_turn soon; several wakes may become one */
void env_loop_stop(struct env_loop *loop); /* any thread: ends after the turn that is running */
void env_loop_join(struct env_loop *loop); /* any other thread: waits for its end and frees it */
bool env_loop_is_current(struct env_loop *loop);
/*
 * On the loop's thread: after something has come over a socket or from another thread, it looks for so long without
 * sleeping whether more comes, for sleeping and waking is most of a short call's time. 0, the beginning: it sleeps at once.
 * An idle loop sleeps all the same. Simulation: nothing.
 */
void env_loop_poll(struct env_loop *loop, uint32_t us);
/*
 * Any thread: fn(arg) runs on the loop's thread in the middle of whatever it does, as a signal handler, so it may only do
 * what is safe there (env_mono_ns is). One at a time per loop: ERR_BUSY while an earlier one has not run. ERR_UNAVAILABLE:
 * this env cannot (simulation). fn NULL only asks whether it can.
 */
int env_loop_interrupt(struct env_loop *loop, void (*fn)(void *arg), void *arg);
/*
 * Any thread, until the loop is joined: how long the loop's thread has run on a processor so far, in ns. What the machine
 * gives to others meanwhile is not in it. Simulation: env_mono_ns.
 */
uint64_t env_loop_cpu_ns(struct env_loop *loop);

/*
 * fn(arg) runs on the loop when the signal has arrived (SIGTERM, SIGINT, SIGHUP …; several may become one).
 * One loop per signal. Loops run with all other signals blocked: who forks there clears the child's mask.
 */
int env_signal(struct env_loop *loop, int signo, void (*fn)(void *arg, int signo), void *arg);

/* ---- stream sockets: readiness, as in BSD sockets -------------------------------------------------- */

struct env_conn;
struct env_listener;
struct env_conn_ops {
	void (*on_readable)(void *arg);           /* level-triggered: comes again until env_conn_read says ERR_AGAIN */
	void (*on_writable)(void *arg);           /* only while env_conn_want_write is on */
	void (*on_connected)(void *arg, int err); /* once for env_connect: 0 or the error (then close it) */
};
/*
 * host is an address ("127.0.0.1", "::", "0.0.0.0"), no name: nothing here may wait for DNS; port 0 takes a
 * free one. on_accept hands over a detached connection: attach it to a loop (this one or, by an inbox message,
 * another), or close it (any thread, while detached). Out of descriptors: accepting rests for a moment.
 * ERR_EXISTS: the address is taken. ERR_BAD_REQUEST: host is no address. ERR_IO
 */
int env_listen(struct env_loop *loop, const char *host, uint16_t port,
	       void (*on_accept)(void *arg, struct env_conn *conn), void *arg, struct env_listener **out);
uint16_t env_listener_port(const struct env_listener *l);
void env_listener_close(struct env_listener *l);
/* on_connected says how it went, never from inside this call: 0, ERR_UNAVAILABLE (refused, no way), ERR_TIMEOUT, ERR_IO. */
int env_connect(struct env_loop *loop, const char *host, uint16_t port, const struct env_conn_ops *ops, void *arg,
		struct env_conn **out);
/* From now on the connection belongs to loop, which must be the calling thread's. */
int env_conn_attach(struct env_conn *conn, struct env_loop *loop, const struct env_conn_ops *ops, void *arg);
/* Takes it off its loop, on that loop's thread, so that another loop can attach it. Nothing may be pending to be written. */
void env_conn_detach(struct env_conn *conn);
/* > 0 bytes; 0: the peer closed its side; ERR_AGAIN; ERR_CLOSED (reset); ERR_IO */
ssize_t env_conn_read(struct env_conn *conn, void *buf, size_t n);
/* The same without taking them; not of TLS. They are told of again, for they are still there. */
ssize_t env_conn_peek(struct env_conn *conn, void *buf, size_t n);
/* > 0 bytes taken (maybe fewer than offered); ERR_AGAIN: none, want_write tells when; ERR_CLOSED; ERR_IO */
ssize_t env_conn_write(struct env_conn *conn, const struct iovec *iov, int n);
void env_conn_want_write(struct env_conn *conn, bool on);
void env_conn_want_read(struct env_conn *conn, bool on);                  /* on at first; off is back-pressure */
void env_conn_shutdown(struct env_conn *conn);                            /* half-close: no more writes, reads go on */
void env_conn_close(struct env_conn *conn);                               /* NULL is fine */
void env_conn_peer(const struct env_conn *conn, char addr[ENV_ADDR_MAX]); /* "127.0.0.1:40312" */

/*
 * TLS, 1.2 or newer, beneath a stream socket: afterwards it reads and writes as before. A context may serve any number of
 * listeners and connections, on any thread. With ca both sides must show a certificate that one of ca has signed; names are
 * not compared, for nodes are addresses. on_connected comes after the handshake (ERR_DENIED: it failed, env_last_error says
 * why); an accepted connection shakes hands when it is attached, and env_conn_read gives ERR_DENIED if that failed.
 */
struct env_tls;
struct env_tls_options {
	const char *cert, *key; /* PEM files: the own chain and its key; NULL: none is shown */
	const char *ca;         /* PEM file; NULL: the other side's certificate is not asked for */
};
/* Reads the files; error gets one line that names the file. ERR_CONFIG; ERR_UNAVAILABLE: this env has none (simulation). */
int env_tls_new(struct env *env, const struct env_tls_options *o, char *error, size_t error_size, struct env_tls **out);
/* The files anew, for handshakes to come; connections stay, sessions may still be resumed. On an error all stays. One thread. */
int env_tls_reload(struct env_tls *t, char *error, size_t error_size);
/* From when to when the own certificate is good, in seconds since 1970: the shortest of its chain. Both 0: none is shown. */
struct env_tls_life {
	int64_t begins_s, ends_s;
};
struct env_tls_life env_tls_life(struct env_tls *t);
void env_tls_free(struct env_tls *t); /* NULL is fine; connections may outlive it, listeners not */
void env_listener_tls(struct env_listener *l, struct env_tls *t); /* for what it accepts from now on */
int env_conn_tls(struct env_conn *conn, struct env_tls *t);       /* right after env_connect. ERR_NOMEM */
/*
 * An accepted connection that is detached speaks TLS from now on, as if its listener did: for ports that serve both, by the
 * first byte (env_conn_peek). What came before was read as it stood. ERR_NOMEM; ERR_UNAVAILABLE: simulation
 */
int env_conn_tls_accept(struct env_conn *conn, struct env_tls *t);

/*
 * Open sockets handed to another process of the same user on this machine, with bytes that go with them: whole messages
 * over a Unix socket that only this user may enter. One side listens at a path (its loop hears who knocks), the other
 * connects. The calls on a struct env_pass block, one thread at a time, any. Simulation: ERR_UNAVAILABLE.
 */
#define ENV_PASS_MAX     32768 /* bytes of a message */
#define ENV_PASS_WAIT_MS 5000  /* so long a send waits for the other side to take what was sent before */
struct env_pass;
struct env_pass_door;
struct env_passed; /* a socket that has come: made into a connection or a listener, or closed */
int env_pass_listen(struct env_loop *loop, const char *path, void (*on_peer)(void *arg, struct env_pass *pass),
		    void *arg, struct env_pass_door **out);     /* takes the path over from one that listens there */
void env_pass_door_close(struct env_pass_door *d, bool remove); /* remove: the path too. NULL is fine */
int env_pass_connect(struct env *env, const char *path, struct env_pass **out); /* ERR_UNAVAILABLE: nobody there */
void env_pass_close(struct env_pass *p);                                        /* NULL is fine */
/* With a connection, a listener or neither; it stays open here too. ERR_CLOSED, ERR_TIMEOUT */
int env_pass_send(struct env_pass *p, const void *bytes, size_t n, const struct env_conn *conn,
		  const struct env_listener *listener);
/* > 0: bytes of the next message, *passed what came with it or NULL. ERR_TIMEOUT, ERR_CLOSED, ERR_FULL */
ssize_t env_pass_receive(struct env_pass *p, void *bytes, size_t n, uint32_t wait_ms, struct env_passed **passed);
void env_passed_close(struct env_passed *t); /* NULL is fine */
/* Both swallow t on success. The connection is detached; the listener accepts on this loop at once. */
int env_passed_conn(struct env_passed *t, struct env_conn **out);
int env_passed_listen(struct env_passed *t, struct env_loop *loop, void (*on_accept)(void *arg, struct env_conn *conn),
		      void *arg, struct env_listener **out);
bool env_conn_passable(const struct env_conn *conn);       /* false: with TLS its state is not in the kernel */
void env_listener_rest(struct env_listener *l, bool rest); /* it stays open, who connects waits in the kernel's queue */

/* ---- files: blocking, so only for threads that may block ------------------------------------------- */

struct env_file; /* its calls: one thread at a time, any */
enum { ENV_READ = 1, ENV_WRITE = 2, ENV_CREATE = 4, ENV_EXCLUSIVE = 8, ENV_TRUNCATE = 16, ENV_PRIVATE = 32 /* 0600 */ };
/* ERR_NOT_FOUND, ERR_EXISTS, ERR_IO. "/dev/stderr" is the process' own error output. */
int env_file_open(struct env *env, const char *path, int flags, struct env_file **out);
ssize_t env_file_read(struct env_file *f, uint64_t offset, void *buf, size_t n); /* 0 at the end */
/* Appends all or fails: ERR_FULL (no space left), ERR_IO; what part was written is then not known. */
int env_file_append(struct env_file *f, const void *buf, size_t n);
int env_file_sync(struct env_file *f); /* the data are on stable storage, or ERR_IO */
/*
 * So many bytes will follow. A hint: their blocks are found at once, as far as a 64th of the free ones goes, and not in each
 * sync; the file is no longer for it, and those that are left are free again when it is closed.
 */
void env_file_reserve(struct env_file *f, uint64_t bytes);
int env_file_truncate(struct env_file *f, uint64_t size);
int64_t env_file_size(struct env_file *f);
int env_file_lock(struct env_file *f);   /* for the file's life; ERR_BUSY: another has it */
void env_file_close(struct env_file *f); /* NULL is fine */
/* Whole, NUL-ended; free() it. ERR_FULL: more than max bytes. */
int env_file_load(struct env *env, const char *path, size_t max, char **text, size_t *n);
/* Whole or not at all, and synced, its name too. flags: ENV_PRIVATE, ENV_EXCLUSIVE (ERR_EXISTS: another was first). */
int env_file_store(struct env *env, const char *path, const void *text, size_t n, int flags);
int env_file_remove(struct env *env, const char *path);
int env_file_rename(struct env *env, const char *from, const char *to); /* replaces; both names are env_dir_sync's */
int64_t env_file_mtime_us(struct env *env, const char *path);           /* negative ERR_NOT_FOUND */
int env_dir_make(struct env *env, const char *path);      /* with parents, names synced; there already is fine */
int env_dir_sync(struct env *env, const char *path);      /* new names in it survive the machine */
int64_t env_disk_free(struct env *env, const char *path); /* bytes that still fit below a folder, or an error */
/* Names in byte order without "." and "..": names[0..n); free() each and the array. ERR_NOT_FOUND */
int env_dir_list(struct env *env, const char *path, char ***names, size_t *n);
/* fn(arg) when something was written, made or removed in the folder; calls may be merged. */
struct env_watch;
int env_watch(struct env_loop *loop, const char *dir, void (*fn)(void *arg), void *arg, struct env_watch **out);
void env_watch_close(struct env_watch *w);

/* ---- the database: one connection, one request at a time ------------------------------------------- */

struct env_db;
struct env_db_options {
	const char *socket; /* unix socket, or NULL for host and port */
	const char *host;
	uint16_t port;
	const char *user, *password, *database;
};
enum env_db_type { ENV_DB_INT, ENV_DB_DOUBLE, ENV_DB_TEXT };
struct env_db_column {
	const char *name; /* as selected: "gold", "MAX(id)" */
	enum env_db_type type;
};
struct env_db_result {
	int err;       /* 0; ERR_UNAVAILABLE: connection lost, outcome unknown; ERR_FAILED: the database refused */
	unsigned code; /* the database's error number when ERR_FAILED (1213 deadlock …) */
	const char *message;      /* its words, valid in the callback */
	unsigned failed_at;       /* of several statements: index of the first that failed */
	uint64_t affected;        /* of the last statement; 0 if it gave rows */
	unsigned rows, columns;   /* of the last statement that gave rows */
	const char *const *cells; /* rows * columns NUL-ended texts, NULL for SQL NULL; valid in the callback */
	const size_t *cell_bytes;
	const struct env_db_column *column; /* of the same statement; also when it gave no row */
};
/* Connects in the background; on_open(arg, 0) or (arg, ERR_UNAVAILABLE) with env_db_message() comes once. */
int env_db_open(struct env_loop *loop, const struct env_db_options *o, void (*on_open)(void *arg, int err), void *arg,
		struct env_db **out);
/*
 * sql may hold several statements separated by ';'; the first that fails ends it. sql is copied. on_result never comes
 * from inside this call; in it the next query may be asked, or the handle closed. ERR_BUSY: another runs, or it is still
 * opening. ERR_UNAVAILABLE: not connected, or no more: close it and open another.
 */
int env_db_query(struct env_db *db, const char *sql, size_t n,
		 void (*on_result)(void *arg, const struct env_db_result *r), void *arg);
/*
 * One statement with a '?' for each column, executed once per row in their order, as the literals in its place would be;
 * the first row that fails ends it, and what those before it did stays in the transaction. INSERT, REPLACE, UPDATE and
 * DELETE. The values are copied or sent before the call returns or while it runs: they must stay until on_result.
 * ERR_UNAVAILABLE as env_db_query, and where env_db_takes_arrays is false (some servers of the protocol, for ever).
 */
enum env_db_bind_type { ENV_BIND_NULL, ENV_BIND_INT, ENV_BIND_DOUBLE, ENV_BIND_TEXT /* UTF-8 */, ENV_BIND_BLOB };
struct env_db_bind { /* a column: an array of its rows' values */
	enum env_db_bind_type type;
	union {
		const int64_t *i;
		const double *d;
		const char *const *text;
	};
	const size_t *bytes; /* of the texts, and of blobs */
};
int env_db_bulk(struct env_db *db, const char *sql, size_t n, const struct env_db_bind *column, unsigned columns,
		unsigned rows, void (*on_result)(void *arg, const struct env_db_result *r), void *arg);
bool env_db_takes_arrays(const struct env_db *db);
const char *env_db_message(const struct env_db *db);
void env_db_close(struct env_db *db); /* NULL is fine; no callback comes after it */

/* ---- HTTP ------------------------------------------------------------------------------------------ */

struct env_http;
struct env_http_request;
/* on_request must end in env_http_reply, now or later (on this loop). ERR_EXISTS: the address is taken. */
int env_http_listen(struct env_loop *loop, const char *host, uint16_t port,
		    void (*on_request)(void *arg, struct env_http_request *r), void *arg, struct env_http **out);
uint16_t env_http_port(const struct env_http *h);
void env_http_close(struct env_http *h);                       /* requests not yet answered are dropped */
const char *env_http_method(const struct env_http_request *r); /* "GET" */
const char *env_http_path(const struct env_http_request *r);   /* decoded, without the query */
const char *env_http_query(const struct env_http_request *r, const char *name); /* decoded value or NULL */
/* Calls fn for each query parameter, decoded. */
void env_http_query_each(const struct env_http_request *r, void (*fn)(void *arg, const char *name, const char *value),
			 void *arg);
const char *env_http_header(const struct env_http_request *r, const char *name); /* or NULL */
const void *env_http_body(const struct env_http_request *r, size_t *n);
/* Ends the request. headers: "Name: value" lines, NULL-terminated array, or NULL. */
void env_http_reply(struct env_http_request *r, int status, const char *content_type, const char *const *headers,
		    const void *body, size_t n);

struct env_http_answer {
	int err; /* 0 with status and body; ERR_TIMEOUT, ERR_UNAVAILABLE, ERR_DENIED: the TLS handshake failed (env_last_error) */
	int status;
	const char *body; /* NUL-ended; valid in the callback */
	size_t n;
};
/* tls NULL: plain. Else host's certificate must be of this address, and signed by one of tls' ca. */
int env_https_call(struct env_loop *loop, struct env_tls *tls, const char *host, uint16_t port, const char *method,
		   const char *path_and_query, const char *const *headers, const void *body, size_t n,
		   uint32_t timeout_ms, void (*on_answer)(void *arg, const struct env_http_answer *a), void *arg);
static inline int env_http_call(struct env_loop *loop, const char *host, uint16_t port, const char *method,
				const char *path_and_query, const char *const *headers, const void *body, size_t n,
				uint32_t timeout_ms, void (*on_answer)(void *arg, const struct env_http_answer *a),
				void *arg)
{
	return env_https_call(loop, NULL, host, port, method, path_and_query, headers, body, n, timeout_ms, on_answer,
			      arg);
}
/*
 * As env_https_call, for an answer that comes in pieces and may never end (a watch). on_piece: what has come, cut anywhere;
 * on_end once, when no more will come: err 0 with the status, ERR_TIMEOUT (nothing came for idle_ms), ERR_UNAVAILABLE (no
 * connection, or it was lost). Neither comes from inside this call; in both the stream may be closed, and it must be in the end.
 */
struct env_http_stream;
struct env_http_stream_ops {
	void (*on_piece)(void *arg, const char *bytes, size_t n);
	void (*on_end)(void *arg, int err, int status);
};
int env_http_stream(struct env_loop *loop, struct env_tls *tls, const char *host, uint16_t port, const char *method,
		    const char *path_and_query, const char *const *headers, const void *body, size_t n,
		    uint32_t idle_ms, const struct env_http_stream_ops *ops, void *arg, struct env_http_stream **out);
void env_http_stream_close(struct env_http_stream *s); /* NULL is fine; no callback comes after it */
