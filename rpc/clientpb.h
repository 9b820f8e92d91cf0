#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "common/buf.h"
#include "common/msg.h"
/*
 * clientpb: protobuf bodies of clients to JSON text and back, by msg_type. Behind the edge everything is JSON, so a
 * handler never knows which of them a client speaks.
 *
 * Two dialects:
 *   CLIENTPB_STANDARD  protobuf as everybody else has it (pitaya's clients).
 *   CLIENTPB_POMELO    pomelo-protobuf as classic clients have it: int32 is zig-zag, a repeated number is one key, a
 *                      count and the elements, an unknown key cannot be skipped. Its types are few, so ours are
 *                      mapped, as clientpb_pomelo_type says; the schema sent to the client says the same.
 *
 * Threads: any; pure. Memory: only what out needs, and for reading a list of what was found.
 * Bounds:  CLIENTPB_DEPTH nested messages; input as large as the caller lets it be.
 * Numbers: JSON's integers are 64 bits wide; what does not fit a field is refused. NaN and infinity are refused.
 */
#define CLIENTPB_DEPTH 32

enum clientpb_dialect { CLIENTPB_STANDARD, CLIENTPB_POMELO };

/*
 * Appends the JSON text of a client's message. Unknown fields are skipped (STANDARD) or refused (POMELO); of a field
 * given twice, and of a oneof, the last counts. On failure, ERR_BAD_REQUEST, out is as before.
 */
int clientpb_read(struct buf *out, const struct msg_type *type, enum clientpb_dialect dialect, const char *p, size_t n);

struct clientpb_write {
	enum clientpb_dialect dialect;
	bool surrogates; /* POMELO: characters above U+FFFF as two of 3 bytes (CESU-8), which browsers' codec needs */
};
/*
 * Appends the bytes of a JSON object for a client. Fields the type does not have, and null, are left out. With POMELO the
 * members code, error, message and effect, which no type has, are written too, by CLIENTPB_ANSWER_TAG and up.
 * On failure, ERR_BAD_REQUEST (no JSON, a value of another type, a required field missing), out is as before.
 */
int clientpb_write(struct buf *out, const struct msg_type *type, const struct clientpb_write *w, const char *json,
		   size_t n);
#define CLIENTPB_ANSWER_TAG 1001
extern const char *const clientpb_answer_fields[4]; /* code (uInt32), error, message, effect (string) */

/*
 * What a field is called in pomelo's schema, NULL for a message. to_client: integers of 64 bits travel as double, which all
 * clients have exact up to 2^53, where from them they are varints.
 */
const char *clientpb_pomelo_type(const struct msg_field *f, bool to_client);
/*
 * Whether the dialect has a form for all that a message may hold: no maps, no untyped messages; and from a client
 * neither bool nor double (its encoder throws at the one and reserves too little for the other).
 */
bool clientpb_pomelo_takes(const struct msg_type *type, bool to_client);

/* Appends pitaya's protos.Error: code "PIT-404", message, and error and effect as metadata. */
void clientpb_pitaya_error(struct buf *out, const char *code, const char *message, const char *error,
			   const char *effect);
