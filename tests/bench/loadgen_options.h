#pragma once
#include <stddef.h>
#include "tests/bench/player.h"
/*
 * loadgen_options: what loadgen is asked for. One row per option; what is wrong ends the program with one line and 2.
 */
enum { PIDS_MAX = 64 };

struct options {
	struct player_options player;
	int connections, outstanding, ramp, rest_us;
	double rate, seconds, warmup, setup_s;
	bool json, busy;
	int pids[PIDS_MAX], pid_count;
};

static const char usage[] = "usage: loadgen --port PORT [options]\n"
			    "  --host ADDRESS      127.0.0.1\n"
			    "  --gate PORT         ask the gate there first, and go where it says (then no --port)\n"
			    "  --connections N     500\n"
			    "  --outstanding K     closed loop, K requests under way per connection (1)\n"
			    "  --rate R            open loop instead, R requests per second and connection\n"
			    "  --seconds S         10, after --warmup S (2)\n"
			    "  --route ROUTE       connector.entryHandler.echo\n"
			    "  --body JSON         {\"x\":1234,\"y\":5678}\n"
			    "  --login             connector.entryHandler.enter as a guest NAME<i>; --gate implies it\n"
			    "  --spread N          N connections from each loopback address from 127.1.0.1 on\n"
			    "  --web               over WebSocket\n"
			    "  --enter-scene       then scene.sceneHandler.enter {}\n"
			    "  --name NAME         bench; --rid ROOM  bench; --alone: each in a room ROOM<i>\n"
			    "  --ramp N            connections being set up at once (64), all within --setup S (60)\n"
			    "  --rest US           open loop: rest between polls (50)\n"
			    "  --pid PID[,PID]     count the CPU time of these processes\n"
			    "  --busy              an answer busy is a refusal, not an error\n"
			    "  --json              one JSON object on stdout; the line for people goes to stderr\n";

static void take_pids(struct options *o, const char *list)
{
	for (const char *p = list; *p; p += strcspn(p, ","), p += *p == ',') {
		if (o->pid_count == PIDS_MAX || atoi(p) <= 0)
			die("loadgen: --pid %s: not a list of at most %d process ids", list, PIDS_MAX);
		o->pids[o->pid_count++] = atoi(p);
	}
}

enum kind { INT, DOUBLE, TEXT, FLAG, PIDS };

static const struct row {
	const char *name;
	enum kind kind;
	size_t at;
} rows[] = {
	{ "--gate", INT, offsetof(struct options, player.gate) },
	{ "--host", TEXT, offsetof(struct options, player.host) },
	{ "--port", INT, offsetof(struct options, player.port) },
	{ "--connections", INT, offsetof(struct options, connections) },
	{ "--outstanding", INT, offsetof(struct options, outstanding) },
	{ "--rate", DOUBLE, offsetof(struct options, rate) },
	{ "--seconds", DOUBLE, offsetof(struct options, seconds) },
	{ "--warmup", DOUBLE, offsetof(struct options, warmup) },
	{ "--route", TEXT, offsetof(struct options, player.route) },
	{ "--body", TEXT, offsetof(struct options, player.body) },
	{ "--login", FLAG, offsetof(struct options, player.login) },
	{ "--spread", INT, offsetof(struct options, player.spread) },
	{ "--web", FLAG, offsetof(struct options, player.web) },
	{ "--enter-scene", FLAG, offsetof(struct options, player.enter_scene) },
	{ "--name", TEXT, offsetof(struct options, player.name) },
	{ "--rid", TEXT, offsetof(struct options, player.rid) },
	{ "--alone", FLAG, offsetof(struct options, player.alone) },
	{ "--ramp", INT, offsetof(struct options, ramp) },
	{ "--setup", DOUBLE, offsetof(struct options, setup_s) },
	{ "--rest", INT, offsetof(struct options, rest_us) },
	{ "--pid", PIDS, 0 },
	{ "--busy", FLAG, offsetof(struct options, busy) },
	{ "--json", FLAG, offsetof(struct options, json) },
};

static void take_value(struct options *o, const struct row *r, const char *value)
{
	char *end = NULL;
	void *at = (char *)o + r->at;
	switch (r->kind) {
	case INT: *(int *)at = (int)strtol(value, &end, 10); break;
	case DOUBLE: *(double *)at = strtod(value, &end); break;
	case TEXT: *(const char **)at = value; break;
	case FLAG: *(bool *)at = true; break;
	case PIDS: take_pids(o, value); break;
	}
	if (end && (*end || end == value))
		die("loadgen: %s %s: not a number", r->name, value);
}

static void take_options(struct options *o, int argc, char **argv)
{
	const size_t count = sizeof rows / sizeof *rows;
	for (int i = 1; i < argc; i++) {
		size_t r = 0;
		while (r < count && strcmp(rows[r].name, argv[i]))
			r++;
		if (!strcmp(argv[i], "--help")) {
			fputs(usage, stdout);
			exit(0);
		}
		if (r == count || (rows[r].kind != FLAG && i + 1 == argc)) {
			fputs(usage, stderr);
			die("loadgen: %s: %s", argv[i], r == count ? "no such option" : "needs a value");
		}
		take_value(o, &rows[r], rows[r].kind == FLAG ? "" : argv[++i]);
	}
}

static void check_options(const struct options *o)
{
	const struct player_options *p = &o->player;
	if (!p->port == !p->gate)
		die("loadgen: name either --port or --gate (--help shows all)");
	if (o->connections < 1 || o->outstanding < 1 || o->outstanding > UINT16_MAX || o->ramp < 1)
		die("loadgen: --connections, --outstanding and --ramp are numbers from 1");
	if (o->rate < 0 || o->seconds <= 0 || o->warmup < 0 || o->rest_us < 0)
		die("loadgen: --rate, --seconds, --warmup and --rest are numbers from 0");
	if (strlen(p->route) > 255 || strlen(p->body) > 60000 || strlen(p->name) > 50 || strlen(p->rid) > 50)
		die("loadgen: --route up to 255 bytes, --body 60,000, --name and --rid 50");
	if (p->enter_scene && !p->login && !p->gate)
		die("loadgen: --enter-scene needs --login or --gate");
}
