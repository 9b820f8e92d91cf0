#pragma once
#include "deploy/loquat/reload.h"
#include "rpc/app.h"
#include "tests/support/sim_main.h"
/*
 * sim_reload: a simulated cluster of a scripted service and one that calls it, their files, and supervisors that reload them by
 * the program's own code (deploy/loquat/reload.c).
 *
 * Threads: the simulation's. Memory: the world is of the test, and outlives the processes.
 */
#define RELOAD_HOST "10.0.0.1"
#define RELOAD_FACE 8000 /* of a supervisor */
#define RELOAD_PORT 8001 /* of the first instance; the others' follow */
#define SEATS       4    /* the first CALLS run the Lua */
#define CALLS       3
struct seat {
	char id[48];
	struct route_row row;
	struct sim_process *process;
	struct service *service; /* of its life `of`, in its memory */
	unsigned of, seen,
		life;    /* seen: ready, by the supervisor; life: so when the reload under way began; 0: it was not */
	char lua[2][16]; /* what its workers ran then */
};
enum kind { GOOD, RAISES, REFUSES, UNFIT, KINDS };
struct world {
	struct sim *w;
	struct seat seat[SEATS];
	unsigned version;     /* of the files that everybody runs */
	enum kind kind;       /* of the reload under way */
	char messages[2][16]; /* before, and by the new files */
	bool reloading, settling;
	bool cut; /* who refuses is to be cut off when the first one switches */
	unsigned troubles, asked, fine;
};
extern const char sim_reload_key[];
/* The instances, ready, with the files of version 1. */
void sim_reload_start(struct world *x, struct sim *w);
/* A supervisor, as a process of that name. */
void sim_reload_supervisor(struct world *x, const char *name, const char *host);
/* Version n answers by its number, and asks others with the field of its own messages. */
void sim_reload_files(struct world *x, unsigned n, enum kind kind);
bool sim_reload_ready(const struct seat *seat);
bool sim_reload_all_ready(void *arg); /* of the world */
const char *sim_reload_lua(const struct seat *seat, unsigned worker);
bool sim_reload_goes_by(const struct seat *seat, const char *messages);
