#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* CPU_SET; before the first system header */
#endif
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "tests/bench/cpu.h"

/*
 * rpc_load: what the programs of the group rpc share: a client and a server process on one core each, a closed loop with
 * so many calls under way, and its figures. C and C++.
 *
 * The client says load_sent at each call and load_answered at each answer. Latency is taken of every call when one is under
 * way, else of every 17th: a clock read per call would be a good part of what a call costs.
 *
 * Threads: one.
 */
#define LOAD_BODY    50u /* bytes of payload, each way */
#define LOAD_STRIDE  17u
#define LOAD_SAMPLES (1u << 20)

struct load {
	unsigned flight;
	double warm_s, seconds;
	bool poll, lua, once; /* once, lua: only where they mean something */
	pid_t server;

	uint64_t sent, answers;
	uint64_t begin_ns, end_ns; /* of the measured part; begin_ns 0: still warming up */
	uint64_t start_ns, begin_answers;
	struct {
		double own, server, machine;
	} cpu;
	uint32_t *sample;
	uint32_t samples;
};

static inline uint64_t load_now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void load_die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(2);
}

static inline void load_pin(int core)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(core % (int)sysconf(_SC_NPROCESSORS_ONLN), &set);
	if (sched_setaffinity(0, sizeof set, &set) < 0)
		load_die("sched_setaffinity");
}

static inline void load_options(struct load *l, int argc, char **argv)
{
	static const struct option known[] = {
		{ "flight", required_argument, NULL, 'f' }, { "seconds", required_argument, NULL, 's' },
		{ "poll", no_argument, NULL, 'p' },         { "lua", no_argument, NULL, 'l' },
		{ "once", no_argument, NULL, 'o' },         { NULL, 0, NULL, 0 },
	};
	int c;
	memset(l, 0, sizeof *l);
	l->flight = 1;
	l->warm_s = 0.5;
	l->seconds = 2;
	while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (c) {
		case 'f': l->flight = (unsigned)atoi(optarg); break;
		case 's': l->seconds = atof(optarg); break;
		case 'p': l->poll = true; break;
		case 'l': l->lua = true; break;
		case 'o': l->once = true; break;
		default:
			fprintf(stderr, "usage: %s --flight N --seconds S [--poll] [--lua] [--once]\n", argv[0]);
			exit(2);
		}
	}
	l->sample = (uint32_t *)malloc(sizeof *l->sample * LOAD_SAMPLES);
	if (!l->sample || l->flight < 1)
		load_die("--flight");
}

/* The server is a child on core 1, this process goes on as the client on core 0. Before any thread exists. */
static inline void load_fork(struct load *l, void (*server)(struct load *l, int told), int *told)
{
	int ends[2];
	if (pipe(ends) < 0 || (l->server = fork()) < 0)
		load_die("fork");
	if (l->server == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		load_pin(1);
		close(ends[0]);
		server(l, ends[1]); /* writes its port there when it listens, and never returns */
		_exit(2);
	}
	close(ends[1]);
	load_pin(0);
	*told = ends[0];
}

static inline int load_port(int told)
{
	int port;
	if (read(told, &port, sizeof port) != (ssize_t)sizeof port) {
		fprintf(stderr, "the server did not start\n");
		exit(2);
	}
	return port;
}

/* CPU time of a process so far, with all its threads, to the nanosecond. */
static inline double load_cpu_s(pid_t pid)
{
	clockid_t clock;
	struct timespec t;
	if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &t) < 0)
		load_die("the process' clock");
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static inline void load_mark(struct load *l, double sign)
{
	l->cpu.own += sign * load_cpu_s(0);
	l->cpu.server += sign * load_cpu_s(l->server);
	l->cpu.machine += sign * cpu_of_machine();
}

/* When a call is sent: when that was, or 0 where its latency is not taken. */
static inline uint64_t load_sent(struct load *l)
{
	if (l->flight > 1 && l->sent++ % LOAD_STRIDE)
		return 0;
	uint64_t now = load_now_ns();
	if (!l->start_ns)
		l->start_ns = now;
	return now;
}

/* When its answer is there. False: the time is over. */
static inline bool load_answered(struct load *l, uint64_t sent_ns)
{
	l->answers++;
	if (!sent_ns)
		return !l->end_ns;
	uint64_t now = load_now_ns();
	if (!l->begin_ns && (double)(now - l->start_ns) > l->warm_s * 1e9) {
		load_mark(l, -1);
		l->begin_answers = l->answers;
		l->begin_ns = load_now_ns();
	} else if (l->begin_ns && !l->end_ns && (double)(now - l->begin_ns) > l->seconds * 1e9) {
		l->end_ns = now;
		load_mark(l, 1);
	} else if (l->begin_ns && sent_ns > l->begin_ns && l->samples < LOAD_SAMPLES) {
		l->sample[l->samples++] = now - sent_ns > UINT32_MAX ? UINT32_MAX : (uint32_t)(now - sent_ns);
	}
	return !l->end_ns;
}

static inline int load_compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}

/* Prints the figures as one line of JSON, and ends the server. */
static inline void load_report(struct load *l)
{
	double calls = (double)(l->answers - l->begin_answers), seconds = (double)(l->end_ns - l->begin_ns) / 1e9;
	double own = l->cpu.own, server = l->cpu.server;
	qsort(l->sample, l->samples, sizeof *l->sample, load_compare);
	if (!l->samples || calls < 1)
		l->sample[0] = 0;
	printf("{\"calls_per_s\":%.0f,\"p50_us\":%.2f,\"p99_us\":%.2f,\"client_cpu_us\":%.4f,\"server_cpu_us\":%.4f,"
	       "\"other_cores\":%.2f}\n",
	       calls / seconds, l->sample[l->samples / 2] / 1e3, l->sample[(uint64_t)l->samples * 99 / 100] / 1e3,
	       own / calls * 1e6, server / calls * 1e6, (l->cpu.machine - own - server) / seconds);
	fflush(stdout);
	kill(l->server, SIGKILL);
	waitpid(l->server, NULL, 0);
}
