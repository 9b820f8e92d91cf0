#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "common/buf.h"
/*
 * pomelo: the pomelo client protocol as bytes: packages, messages, handshake.
 *
 * Pure: bytes in, values out; no I/O, no clock. What is decoded points into the caller's bytes, and a head is
 * written right before a body into the caller's room, so a packet costs no allocation and no second copy.
 *
 * Threads: any thread.
 * Units:   bytes. A package is 4 bytes of head and at most 2^24-1 of body.
 * Text:    bodies are opaque here. Old browser clients send characters above U+FFFF as two 3-byte surrogates
 *          (CESU-8) and cannot read 4-byte UTF-8: whoever decodes a body joins the one and whoever encodes one
 *          escapes the other (common/jsontext.h for text, the Lua host's JSON for tables).
 */

/* ---- package: the outer frame ----------------------------------------------------------------------- */

enum pomelo_type {
	POMELO_HANDSHAKE = 1,
	POMELO_ACK = 2,
	POMELO_HEARTBEAT = 3,
	POMELO_DATA = 4,
	POMELO_KICK = 5,
};
#define POMELO_HEAD     4
#define POMELO_BODY_MAX 0xffffffu

struct pomelo_package {
	enum pomelo_type type;
	const char *body;
	size_t n;
};
/*
 * Splits the first package off a byte stream. Returns the bytes it takes (4 or more); ERR_INCOMPLETE: not all
 * there yet; ERR_FULL: its head announces more than body_max, known from 4 bytes, before anything is kept for
 * it; ERR_BAD_REQUEST: a type that is none, or kick, which only a server sends.
 */
ssize_t pomelo_package_read(const char *data, size_t n, size_t body_max, struct pomelo_package *out);
/* Writes the 4 bytes of a head. body_n is at most POMELO_BODY_MAX. */
void pomelo_package_head(char out[POMELO_HEAD], enum pomelo_type type, size_t body_n);

/* ---- message: what a data package holds ---------------------------------------------------------------- */

enum pomelo_kind { POMELO_REQUEST = 0, POMELO_NOTIFY = 1, POMELO_RESPONSE = 2, POMELO_PUSH = 3 };
#define POMELO_ROUTE_MAX 255
/* The longest head of a message: package head, flag, id of 5 bytes, length byte and route. */
#define POMELO_MESSAGE_HEAD_MAX (POMELO_HEAD + 1 + 5 + 1 + POMELO_ROUTE_MAX)

struct pomelo_message {
	enum pomelo_kind kind;
	bool compressed;   /* flag bit 4: the body is a zlib or gzip stream */
	uint32_t id;       /* requests and responses; a request with id 0 is a notify and is given as one */
	uint16_t code;     /* route code, or 0: route has the text */
	const char *route; /* not NUL-ended, and none is in it: it may be compared with texts up to route_n */
	size_t route_n;
	const char *body;
	size_t n;
};
/* ERR_BAD_REQUEST: truncated, an id over 32 bits, an unknown kind or flag bit, a NUL in the route; all of data is the message. */
int pomelo_message_read(const char *data, size_t n, struct pomelo_message *out);

/*
 * Writes package head and message head for a body of body_n bytes that the caller puts behind it; returns the
 * length. out has room for POMELO_MESSAGE_HEAD_MAX. head + body must stay within POMELO_BODY_MAX.
 */
size_t pomelo_response_head(char *out, uint32_t id, size_t body_n);
/* Makes the head just written that of an error, by flag bit 5: pitaya's clients alone know it. */
void pomelo_response_is_error(char *head);
/* code 0: the route as text, at most POMELO_ROUTE_MAX bytes. */
size_t pomelo_push_head(char *out, uint16_t code, const char *route, size_t route_n, size_t body_n);
/* For clients: bots, benchmarks, tests. id 0 writes a notify. */
size_t pomelo_request_head(char *out, uint32_t id, uint16_t code, const char *route, size_t route_n, size_t body_n);

/* ---- handshake ------------------------------------------------------------------------------------------ */

/* Clients differ in what they survive; see client-protocol notes in the README of connector/. */
enum pomelo_client {
	POMELO_CLIENT_C,  /* libpomelo, libpomelo2 and whatever does not say: needs all dictionary fields or none */
	POMELO_CLIENT_JS, /* wants the dictionary at every handshake */
	POMELO_CLIENT_LP, /* libpitaya and pitaya's: no dictionary; may send compressed bodies */
};
/* How bodies travel on a connection. */
enum pomelo_payload {
	POMELO_ANY,      /* asked: the client did not say */
	POMELO_JSON,     /* "json" */
	POMELO_PROTOS,   /* "pomelo-protobuf": the dialect of classic clients, for the routes of sys.protos */
	POMELO_PROTOBUF, /* "protobuf": standard, for all routes, as pitaya has it */
};
struct pomelo_hello {
	enum pomelo_client client;
	enum pomelo_payload asked; /* serializer, in sys or in user, which games can set with every client */
	bool browser;              /* sys.rsa is there: text is encoded by UTF-16 units */
	char dict_version[40];     /* of the dictionary the client keeps, "" if none */
	char proto_version[40];    /* of the protos it keeps and uses already, "" if none */
	char type[32];             /* sys.type, cut; for the log */
	char version[32];          /* sys.version, or clientVersion as pitaya's say */
};
/* Reads the client's handshake. ERR_BAD_REQUEST: no JSON object, or sys is missing or no object. */
int pomelo_hello_read(const char *body, size_t n, struct pomelo_hello *out);
/* a < b, a = b or a > b of versions such as "1.10.2": numbers between dots are compared; < 0, 0, > 0 */
int pomelo_version_compare(const char *a, const char *b);

/*
 * The route dictionary: code = position + 1. Codes must stay what they are for connected clients over a
 * deployment, so a list of routes is only ever appended to. It never changes once made: share it freely.
 */
struct pomelo_dict;
/* Copies the routes. ERR_BAD_REQUEST: too long, empty, twice the same, or more than 65,535. */
int pomelo_dict_new(const char *const *routes, size_t n, struct pomelo_dict **out);
void pomelo_dict_free(struct pomelo_dict *d); /* NULL is fine, here and below: a dictionary without entries */
const char *pomelo_dict_route(const struct pomelo_dict *d, uint16_t code, size_t *n);      /* NULL: no such code */
uint16_t pomelo_dict_code(const struct pomelo_dict *d, const char *route, size_t route_n); /* 0: none */
const char *pomelo_dict_version(const struct pomelo_dict *d);                              /* "" without entries */
bool pomelo_dict_same(const struct pomelo_dict *a, const struct pomelo_dict *b);           /* the same codes */

/* What a server answers. */
struct pomelo_welcome {
	unsigned heartbeat_s;
	const struct pomelo_dict *dict; /* NULL: none */
	enum pomelo_payload payload;    /* chosen; never POMELO_ANY */
	const char *protos;             /* POMELO_PROTOS: {"client":…,"server":…,"version":…} */
	size_t protos_n;
	const char *proto_version;
};
/*
 * Appends the whole package that answers a handshake: code 200; sys with the heartbeat, the dictionary, protos and
 * serializer where they are due; user with the serializer chosen, where the client asked for one.
 */
void pomelo_hello_reply(struct buf *out, const struct pomelo_hello *hello, const struct pomelo_welcome *w);
/* Appends the package that refuses it: 500, or 501 for a client that is too old. */
void pomelo_hello_refuse(struct buf *out, int code);
/* Whether this client may get a dictionary, and pushes with codes once it has used it. */
bool pomelo_takes_codes(const struct pomelo_hello *hello, const struct pomelo_dict *d);

/* Appends a kick package {"reason": reason}; reason is UTF-8 and is escaped. */
void pomelo_kick(struct buf *out, const char *reason);
