#pragma once
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/*
 * cpu: CPU time so far, in seconds: of some processes with all their threads, of this one, and of
 * the whole machine, so that a run can tell what others took from it.
 *
 * Units: seconds; other processes' time comes in steps of a clock tick (10 ms).
 */
struct cpu {
	double clock_s, server_s, own_s, machine_s;
};

/* User and system time of one process; 0 once it is gone. */
static inline double cpu_of(int pid)
{
	char path[64], text[1024];
	unsigned long user = 0, system = 0;
	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	FILE *file = fopen(path, "r");
	if (!file)
		return 0;
	size_t n = fread(text, 1, sizeof text - 1, file);
	fclose(file);
	text[n] = 0;
	/* The name before the last ')' may hold anything. */
	const char *rest = strrchr(text, ')');
	if (rest)
		sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
	return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static inline double cpu_of_machine(void)
{
	unsigned long user = 0, nice = 0, system = 0, idle = 0, wait = 0, irq = 0, soft = 0;
	FILE *file = fopen("/proc/stat", "r");
	if (!file)
		return 0;
	int n = fscanf(file, "cpu %lu %lu %lu %lu %lu %lu %lu", &user, &nice, &system, &idle, &wait, &irq, &soft);
	fclose(file);
	return n == 7 ? (double)(user + nice + system + irq + soft) / (double)sysconf(_SC_CLK_TCK) : 0;
}

static inline struct cpu cpu_now(const int *pids, int pid_count)
{
	struct cpu c = { .machine_s = cpu_of_machine() };
	struct rusage own;
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	getrusage(RUSAGE_SELF, &own);
	c.clock_s = (double)t.tv_sec + (double)t.tv_nsec / 1e9;
	c.own_s = (double)own.ru_utime.tv_sec + (double)own.ru_utime.tv_usec / 1e6;
	c.own_s += (double)own.ru_stime.tv_sec + (double)own.ru_stime.tv_usec / 1e6;
	for (int i = 0; i < pid_count; i++)
		c.server_s += cpu_of(pids[i]);
	return c;
}
