#include <stdio.h>
#include <unistd.h>
#include "deploy/loquat/usage.h"

/* name: a file of /proc/PID. */
static FILE *open_of(pid_t pid, const char *name)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
	return pid ? fopen(path, "re") : NULL;
}

uint64_t usage_rss(pid_t pid)
{
	long pages = 0;
	FILE *f = open_of(pid, "statm");

	if (f && fscanf(f, "%*d %ld", &pages) != 1)
		pages = 0;
	if (f)
		fclose(f);
	return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static double cpu_s(pid_t pid)
{
	unsigned long user = 0, kernel = 0;
	FILE *f = open_of(pid, "stat");

	if (f && fscanf(f, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel) != 2)
		user = kernel = 0;
	if (f)
		fclose(f);
	return (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

void usage_sample(struct usage *u, pid_t pid, uint64_t now_ms)
{
	double used = cpu_s(pid), seconds = (double)(now_ms - u->at_ms) / 1000;

	u->cpu = u->pid == pid && seconds > 0 && used >= u->used_s ? (used - u->used_s) / seconds : 0;
	u->pid = pid;
	u->at_ms = now_ms;
	u->used_s = used;
}
