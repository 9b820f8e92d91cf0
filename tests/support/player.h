#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "common/stream.h"
/*
 * player: a pomelo client that logs in through the gate and buys potions, one order after the other, until it has
 * bought enough. A lost connection, a kick, a refusal that may pass: it comes back and asks again with the same order.
 *
 * Several may be the same player: they throw each other out and ask for the same orders.
 *
 * Threads: its loop's. Memory: the caller's; what is remembered of answers (struct purchases) outlives the player's process.
 */
#define PLAYER_ORDERS_MAX 128
struct purchases {
	char uid[32];
	unsigned wanted, answered;       /* orders 0 … answered - 1 were answered with 200 */
	int64_t gold[PLAYER_ORDERS_MAX]; /* as the answer said */
	unsigned logins, refusals, closes, repeats;
	char wrong[256]; /* an answer that must never come; empty: none */
};

struct player {
	struct loop *loop;
	struct purchases *record;
	const char *gate_host;
	uint16_t gate_port;
	struct stream stream;
	bool streaming, in;
	enum { PLAYER_GATE, PLAYER_CONNECTOR } stage;
	struct timer timer, patience;
	char host[64], token[768];
	uint16_t port;
	uint32_t id, asked;
	unsigned order;    /* asked for */
	uint32_t think_ms; /* longest pause between purchases */
	uint64_t began_ms; /* when the order under way was first asked for; 0: none is */
	uint64_t asked_ms; /* when the last request was sent */
	/* After each answered purchase, before the next, and after each refusal, a login's too; NULL: nobody wants to know. */
	void (*bought)(struct player *p, unsigned order, uint64_t took_ms);
	void (*was_refused)(struct player *p, int code, const char *answer, uint64_t took_ms);
};
/* Zeroed by the caller but for what is given here. */
void player_start(struct player *p, struct loop *loop, const char *gate_host, uint16_t gate_port, uint32_t think_ms,
		  struct purchases *record);
