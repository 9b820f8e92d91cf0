#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <netinet/in.h>
/*
 * stranger: somebody at a connector's or gate's port who may send anything: bytes, pomelo's packages, WebSocket frames.
 *
 * Threads: the owner's. Memory: the caller's; fd is the caller's to close. Times: milliseconds of clock_ms().
 */
struct stranger {
	in_addr_t host; /* where it goes */
	uint16_t port;
	unsigned address; /* it comes from 127.0.1.0 and so many further */
	unsigned round;   /* of its attempts, for a name of its own each time */
	int fd;
	bool over;                    /* the server has closed */
	size_t said;                  /* bytes from the server since the offence began */
	uint64_t dials, sends, bytes; /* so far */
	const char *awaits;           /* NULL: nothing */
	bool heard;                   /* it has come */
	bool counting;                /* the offence has begun */
	uint64_t until;               /* it sends no longer */
};
int stranger_dial(struct stranger *s);          /* a connection; -1: refused at the door */
void stranger_look(struct stranger *s, int ms); /* reads what is there for so long; a close ends it */
bool stranger_out(struct stranger *s, const void *bytes, size_t n); /* false: it is over, or late */
void stranger_repeat(struct stranger *s, const void *bytes, size_t n, unsigned times);
void stranger_package(struct stranger *s, int type, const void *body, size_t n); /* enum pomelo_type */
void stranger_request(struct stranger *s, uint32_t id, const char *route, const char *body, size_t n);
void stranger_ask(struct stranger *s, const char *route, const char *body); /* a request of id 1 */
/* After these it counts what is said. */
void stranger_shake(struct stranger *s);                                               /* a good handshake */
void stranger_upgrade(struct stranger *s);                                             /* to WebSocket */
void stranger_frames(struct stranger *s, const void *bytes, size_t n, unsigned times); /* the same, and sends them */
