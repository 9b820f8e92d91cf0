#pragma once
/*
 * err: the one table of errors.
 *
 * A function that can fail returns int: 0 (or a count) if it worked, one of these negative codes if
 * not. The first eight are also the errors a call can end with; they carry the same word on the wire,
 * in HTTP and in Lua. The others are local troubles; err_public() tells which of the eight a caller
 * elsewhere sees.
 *
 * What the eight mean to a caller. Each comes with what is known of the effect (enum effect):
 *   timeout      the deadline has passed. effect none: a read, or it never began; unknown: it may have run
 *   unavailable  nobody can do it now: no instance, no link in time, it stops, its log cannot be written. none: it did not
 *                run; unknown: the link broke after it was sent
 *   busy         a bound is reached: calls, bytes or requests under way. It did not run (none): later, or less
 *   not_found    there is no such method, player, item. Nothing has changed
 *   bad_request  the request is ill-formed or ill-typed, or its once-key belongs to another request. Nothing has changed
 *   denied       the rules forbid it. Nothing has changed
 *   failed       the handler raised an error, or its answer is wrong. none, or done/unknown if it had an effect before
 *   unknown      only of once-calls: it was sent, and no answer came in time. Ask again with the same key
 *
 * Threads: any thread; everything here is constant.
 */
/* Columns: symbol, number, word, HTTP status, shown to callers as, sentence. */
#define ERR_TABLE(X)                                                                                        \
	X(TIMEOUT, 1, "timeout", 504, TIMEOUT, "the deadline passed before an answer came")                 \
	X(UNAVAILABLE, 2, "unavailable", 503, UNAVAILABLE, "nobody can do this at the moment")              \
	X(BUSY, 3, "busy", 429, BUSY, "a limit is reached; try again later")                                \
	X(NOT_FOUND, 4, "not_found", 404, NOT_FOUND, "there is no such thing")                              \
	X(BAD_REQUEST, 5, "bad_request", 400, BAD_REQUEST, "the request is wrong")                          \
	X(DENIED, 6, "denied", 403, DENIED, "not allowed")                                                  \
	X(FAILED, 7, "failed", 500, FAILED, "the handler raised an error")                                  \
	X(UNKNOWN, 8, "unknown", 504, UNKNOWN, "the outcome is not known yet; ask again with the same key") \
	X(AGAIN, 20, "again", 503, BUSY, "would block; wait for readiness")                                 \
	X(CLOSED, 21, "closed", 503, UNAVAILABLE, "the other side closed the connection")                   \
	X(IO, 22, "io", 503, UNAVAILABLE, "the operating system reported an error")                         \
	X(FULL, 23, "full", 429, BUSY, "a bounded buffer or table is full")                                 \
	X(NOMEM, 24, "nomem", 503, BUSY, "out of memory")                                                   \
	X(CORRUPT, 25, "corrupt", 500, FAILED, "a checksum or a format does not match")                     \
	X(EXISTS, 26, "exists", 409, DENIED, "it exists already")                                           \
	X(CONFIG, 27, "config", 500, FAILED, "the configuration is wrong")                                  \
	X(INCOMPLETE, 28, "incomplete", 400, BAD_REQUEST, "more bytes are needed")                          \
	X(NEWER, 29, "newer", 500, FAILED, "a newer version wrote it")

enum err {
#define X(sym, num, word, http, shown, text) ERR_##sym = -(num),
	ERR_TABLE(X)
#undef X
};

/* What is known of the effect of a call that ended with an error. */
enum effect { EFFECT_NONE = 0, EFFECT_DONE = 1, EFFECT_UNKNOWN = 2 };

const char *err_word(int err);          /* "timeout"; "ok" for 0 and above; "failed" for a number not in the table */
const char *err_text(int err);          /* the sentence */
int err_http(int err);                  /* HTTP status, 200 for 0 and above */
int err_public(int err);                /* one of the first eight, or 0 */
int err_from_word(const char *w);       /* 0 if there is no such word */
const char *effect_word(enum effect e); /* "none" "done" "unknown" */
