#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>
/*
 * frame: the bytes between Loquat's processes. Pure: no I/O, no allocation, no clock.
 *
 * A frame is 8 bytes, all little-endian: length of the payload (32 bits), type (8), flags (8, zero), version (16);
 * then the payload, a message of proto/rpc.proto. PING, PONG and GOAWAY have none (a GOAWAY of one
 * byte: another process takes this one's place, all calls wait for it); CANCEL's is a Request with only
 * its id. The body is the last field of its message, so it is handed out in place.
 *
 * Threads: any. Sizes: a payload is at most FRAME_PAYLOAD_MAX bytes.
 */
#define FRAME_HEADER      8
#define FRAME_VERSION     1
#define FRAME_PAYLOAD_MAX (4u << 20)

enum frame_type {
	FRAME_HELLO = 1,
	FRAME_WELCOME,
	FRAME_PROVE,
	FRAME_REQUEST,
	FRAME_RESPONSE,
	FRAME_CANCEL,
	FRAME_PING,
	FRAME_PONG,
	FRAME_GOAWAY,
};

struct span {
	const char *p;
	size_t n;
}; /* bytes somewhere else; not NUL-ended */
static inline struct span span_of(const char *p, size_t n)
{
	return (struct span){ p, n };
}

/*
 * Returns the end of the copy. Keys and bodies are mostly of 8 to 64 bytes: finding out how to copy them would take memcpy
 * longer than copying them.
 */
static inline char *span_copy(char *to, struct span s)
{
	if (s.n >= 16 && s.n <= 64) {
		for (size_t at = 0; at < s.n - 16; at += 16)
			memcpy(to + at, s.p + at, 16);
		memcpy(to + s.n - 16, s.p + s.n - 16, 16);
	} else if (s.n >= 8 && s.n < 16) {
		memcpy(to, s.p, 8);
		memcpy(to + s.n - 8, s.p + s.n - 8, 8);
	} else if (s.n) {
		memcpy(to, s.p, s.n);
	}
	return to + s.n;
}

struct frame_request {
	uint64_t id;     /* 0: notification */
	uint32_t method; /* 0: by names */
	struct span service, method_name;
	uint32_t time_left_ms;
	uint64_t trace;
	struct span key;
	uint64_t sid; /* 0 and uid empty: no session */
	struct span uid;
	bool has_once;
	struct {
		uint32_t client, epoch, attempt;
		uint64_t seq, first_incomplete;
		struct span key;
	} once;
	uint32_t kind;
	bool json;
	struct span body;
};
/*
 * In place of an error: the instance does not answer for the key any more, or not yet again. Nothing was done: the caller asks
 * its key's owner anew. For a call that may otherwise not be repeated the body is the request as a frame, for who kept none.
 */
#define FRAME_MOVED     64
#define FRAME_ATTRS_MAX 4
struct frame_response {
	uint64_t id;
	uint32_t error, effect; /* error: 0 or -ERR_*'s number */
	struct span message;
	bool json;
	unsigned attrs;
	struct span body;
	struct {
		struct span name, value;
	} attr[FRAME_ATTRS_MAX]; /* the first attrs of them are set */
};

/*
 * Splits: looks at the front of data. > 0: the whole frame's length, *type and *payload set; 0: more bytes are
 * needed; ERR_CORRUPT: wrong version, unknown type, or a payload over the maximum.
 */
ssize_t frame_split(const char *data, size_t n, enum frame_type *type, struct span *payload);

/* What a connection does with each frame; < 0 ends it. */
typedef int frame_fn(void *arg, enum frame_type type, struct span payload);
/*
 * Gives every whole frame of data to fn, in order. Returns how many bytes they were, or the first error, be it
 * frame_split's or fn's: what stream's on_data returns. Inline: fn is known at both ends of a link, once per frame.
 */
static inline ssize_t frame_each(const char *data, size_t n, frame_fn *fn, void *arg)
{
	size_t used = 0;
	enum frame_type type;
	struct span payload;
	ssize_t got;

	while ((got = frame_split(data + used, n - used, &type, &payload)) > 0) {
		int err = fn(arg, type, payload);

		if (err < 0)
			return err;
		used += (size_t)got;
	}
	return got < 0 ? got : (ssize_t)used;
}

/* Upper bounds of what the encoders write, header included. */
size_t frame_request_bytes(const struct frame_request *r);
size_t frame_response_bytes(const struct frame_response *r);
/* Write a whole frame to out, which has room for the bound above; return its length. */
size_t frame_put_request(char *out, const struct frame_request *r, enum frame_type type); /* REQUEST or CANCEL */
size_t frame_put_response(char *out, const struct frame_response *r);
size_t frame_put_empty(char *out, enum frame_type type); /* PING, PONG, GOAWAY */
size_t frame_put_header(char *out, enum frame_type type, size_t payload);

/* Unknown fields are skipped. ERR_CORRUPT: truncated or ill-formed; *out is then unspecified. */
int frame_get_request(struct span payload, struct frame_request *out);
int frame_get_response(struct span payload, struct frame_response *out);
