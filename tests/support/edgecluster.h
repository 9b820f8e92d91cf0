#pragma once
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "common/buf.h"
#include "rpc/service.h"
#include "tests/support/flag.h"
#include "tests/support/ports.h"
/*
 * edgecluster: gate and connectors as they are, in the test's process, on free ports, before services that are
 * made up here: role, chat, scene, platform answer what a test wants, and write down what they were asked.
 *
 * Threads: the test's own. Memory: one at a time; edgecluster_stop frees. Trouble at the start fails the test.
 *
 * What the made-up role answers goes by the uid's begin: "living…" an older connection lives; "slow…" after
 * edgecluster_release; "denied…" an error; "none…" no role; else a role of that name. A login with a resume nonce
 * that the last login of this uid was given has resumed = true and names the session before; with another one it is denied.
 * The made-up platform: the credential "good" proves any account; "rankN" has the priority class N.
 * With options.calls there is a service `calls` of tests/proto/calls.proto: boxHandler.news, which is public, answers the key it was
 * routed by and the uid, and sets the attribute "scene"; for {text = "wait"} after edgecluster_release. boxHandler.say is not public.
 * The made-up scene: enter {scene} sets the attribute "scene", after edgecluster_release when the scene is 99; move
 * answers the key it was routed by; echo the same; attack fails as a handler that raised.
 */
struct edgecluster {
	struct env *env;
	char dir[320], config[340];
	struct service *gate[2], *connector[2], *role, *chat, *scene, *platform, *calls;
	uint16_t gate_port[2], connector_port[2];
	struct ports ports;
	/* what the made-up services were asked: "login alice;logout alice;…", newest last */
	pthread_mutex_t lock;
	struct buf asked;
	struct flag asks;
	pid_t gate_pid;
	/* the last session that spoke to the scene */
	uint64_t sid;
	char connector_id[32];
	/* a request that waits for edgecluster_release */
	struct worker *held_worker;
	uint64_t held;
	char held_answer[512];
	uint64_t logins;
	struct {
		char uid[65], nonce[32], connector[32];
		uint64_t sid;
	} login[64];
	uint64_t login_sid; /* of the last login */
};

struct edgecluster_options {
	unsigned threads; /* of gate and connectors; 0: 1 */
	const char *lua;  /* more tables of the configuration: "gate = {players_max = 2}," */
	bool two_gates;
	bool calls;        /* the service of tests/proto/calls.proto too */
	bool gate_process; /* the first gate is build/bin/gate, a process of its own: gate_pid, and gate[0] stays NULL */
};
void edgecluster_start(struct edgecluster *c, const struct edgecluster_options *o);
void edgecluster_stop(struct edgecluster *c);
/* Waits until the words stand in what was asked. */
bool edgecluster_asked(struct edgecluster *c, const char *words);
unsigned edgecluster_count(struct edgecluster *c, const char *words); /* how often they stand there now */
void edgecluster_release(struct edgecluster *c); /* answers the request that waits; waits for it to come first */
/* Ends a made-up service or starts it anew. */
void edgecluster_end(struct edgecluster *c, struct service **s);
void edgecluster_begin(struct edgecluster *c, struct service **s, const char *instance);
void edgecluster_ready(struct service *s);          /* waits until it is */
void edgecluster_gate_kill(struct edgecluster *c);  /* the process, by kill -9 */
void edgecluster_gate_spawn(struct edgecluster *c); /* and again; waits until it takes connections */
/*
 * A new process of connector i takes the old one's place: "" and it has, or why it did not. threads 0: as before.
 */
const char *edgecluster_upgrade(struct edgecluster *c, int i, unsigned threads);
/* A call by the made-up scene to the connector's worker that holds the session; JSON. Returns its answer's body. */
const char *edgecluster_call(struct edgecluster *c, const char *method, const char *connector, uint64_t sid,
			     const char *json);
/* A push by the made-up scene, as Lua's app.push writes it. */
void edgecluster_push(struct edgecluster *c, const char *connector, const uint64_t *sids, size_t n, const char *route,
		      const char *body);
/* To one session; supersedes may be NULL. */
void edgecluster_push_named(struct edgecluster *c, const char *connector, uint64_t sid, const char *route,
			    const char *body, const char *supersedes);
