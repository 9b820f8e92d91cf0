#pragma once
#include "common/token.h"
#include "connector/guests.h"
#include "rpc/clientlisten.h"
#include "rpc/clientset.h"
#include "rpc/service.h"
/*
 * connector: owns the players' sockets and sessions, and forwards.
 *
 *   connector.c  the service: keys, listener, workers, /stats
 *   session.c    one player's connection, its number, its attributes
 *   forward.c    requests of clients to the services that own them; answers back
 *   entry.c      enter, resume and echo, which the connector answers itself; entry_read.c reads their requests
 *   guests.c     how many may enter without a token
 *   remote.c     what services ask of it: push, kick, alive, attr, load
 *   missed.c     pushes to players whose connection is lost, until they resume
 *   watch.c      tells rooms which of their sessions have ended
 *   announce.c   tells a new owner which sessions are here
 *   handover.c   a new process takes this one's place, the players stay
 *
 * It never decodes a body on its way through: bytes in, bytes out.
 */
extern const struct service_def connector_service;

#define CONNECTOR_ONCE_MAX        1000000 /* tokens used within their life */
#define CONNECTOR_TOKEN_MS        60000 /* so long they are remembered, and none that ends later is taken: theirs is half */
#define CONNECTOR_SPARE_MS        100   /* of request_s: the answer's own way to the client */
#define CONNECTOR_FOREIGN_MS      10000 /* a gate that has not asked for so long is none */
#define CONNECTOR_FOREIGN_TOLD_MS 60000 /* between two lines of the log */
#define CONNECTOR_RESUME_MS       86400000ull
#define CONNECTOR_START_MAX       21

struct edge;
/* One per instance; what the workers share. Constant after start unless marked. */
struct connector {
	struct service *service;
	struct clientlisten *listen; /* worker 0's to open and close */
	struct clientset *set;
	bool guests, tell_failures;
	unsigned request_ms, drain_ms, grace_ms;
	char start[CONNECTOR_START_MAX]; /* names this start: tokens are for it only */
	unsigned players_max;
	struct guests places;
	char token_key[TOKEN_PRINT_MAX]; /* which one it is */
	_Atomic uint64_t known_ms,
		foreign_ms;               /* when a gate with the same one, with another one, asked last; 0: never */
	_Atomic uint64_t foreign_told_ms; /* and when that was logged */
};

/* Players logged in on all workers; any thread. */
unsigned connector_sessions(const struct service *s);
/* Clients that go by what they were told before the messages that are used now. Any thread. */
unsigned connector_elders(const struct service *s);
