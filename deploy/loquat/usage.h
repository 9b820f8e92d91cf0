#pragma once
#include <stdint.h>
#include <sys/types.h>
/*
 * usage: memory and CPU of a process that has no /stats, from /proc.
 *
 * Threads: the caller's. Memory: the caller's; zero it. A pid of 0 uses nothing.
 */
struct usage {
	double cpu; /* cores, between the last two samples of one process */
	pid_t pid;
	uint64_t at_ms;
	double used_s;
};
void usage_sample(struct usage *u, pid_t pid, uint64_t now_ms);
uint64_t usage_rss(pid_t pid); /* bytes */
