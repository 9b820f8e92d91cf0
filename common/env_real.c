#include "common/env_real.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static _Thread_local int last_errno;
static _Thread_local char last_words[160]; /* empty: last_errno's */

int env_real_errno(int number)
{
	last_errno = number;
	last_words[0] = '\0';
	switch (number) {
	case ENOENT:
	case ENOTDIR: return ERR_NOT_FOUND;
	case EEXIST: return ERR_EXISTS;
	case EADDRINUSE: return ERR_EXISTS;
	case ENOSPC:
	case EDQUOT: return ERR_FULL;
	case ENOMEM: return ERR_NOMEM;
	default: return ERR_IO;
	}
}

void env_real_words(const char *text)
{
	snprintf(last_words, sizeof last_words, "%s", text);
}

const char *env_last_error(void)
{
	if (*last_words)
		return last_words;
	return last_errno ? strerror(last_errno) : "no error";
}

/* ---- failpoints ------------------------------------------------------------------------------------ */

static int failpoint_add(struct env *env, const char *text, size_t n)
{
	const char *colon = memchr(text, ':', n);
	if (!colon || colon == text)
		return ERR_BAD_REQUEST;
	char *end;
	unsigned long left = strtoul(colon + 1, &end, 10);
	if (!left || end != text + n)
		return ERR_BAD_REQUEST;
	size_t name_bytes = (size_t)(colon - text);
	struct failpoint *f = calloc(1, sizeof *f + name_bytes + 1);
	if (!f)
		return ERR_NOMEM;
	memcpy(f->name, text, name_bytes);
	atomic_init(&f->left, left);
	f->next = env->failpoints;
	env->failpoints = f;
	return 0;
}

/* "name:N,name:N" */
static void failpoints_read(struct env *env, const char *text)
{
	while (text && *text) {
		size_t n = strcspn(text, ",");
		if (failpoint_add(env, text, n) < 0) {
			fprintf(stderr, "LOQUAT_FAILPOINT: \"%.*s\" is not NAME:N\n", (int)n, text);
			exit(2);
		}
		text += n + (text[n] == ',');
	}
}

static void failpoint_pass(struct failpoint *f)
{
	if (atomic_fetch_sub_explicit(&f->left, 1, memory_order_relaxed) == 1) {
		kill(getpid(), SIGKILL);
		for (;;) /* another thread may get the signal first: this one must not go on */
			pause();
	}
}

void env_failpoint(struct env *env, const char *name)
{
	for (struct failpoint *f = env->failpoints; f; f = f->next)
		if (!strcmp(f->name, name))
			failpoint_pass(f);
}

/* ---- the process ----------------------------------------------------------------------------------- */

static bool ticks_in_cpu(void)
{
#ifdef __x86_64__
	char source[16] = "";
	int fd = open("/sys/devices/system/clocksource/clocksource0/current_clocksource", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ssize_t n = read(fd, source, sizeof source - 1);
	close(fd);
	return n == 4 && !memcmp(source, "tsc\n", 4);
#else
	return false;
#endif
}

/* A player is a descriptor: what the system allows at most is asked for. */
static void files_raise(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_NOFILE, &r);
	}
}

struct env *env_new(void)
{
	struct env *env = calloc(1, sizeof *env);
	if (env) {
		files_raise();
		env->ticks_in_cpu = ticks_in_cpu();
		failpoints_read(env, getenv("LOQUAT_FAILPOINT"));
	}
	return env;
}

void env_free(struct env *env)
{
	if (!env)
		return;
	for (struct failpoint *f = env->failpoints, *next; f; f = next) {
		next = f->next;
		free(f);
	}
	free(env);
}

static uint64_t clock_ns(clockid_t id)
{
	struct timespec ts;
	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t env_mono_ns(struct env *env)
{
	(void)env;
	return clock_ns(CLOCK_MONOTONIC);
}

uint64_t env_ticks(struct env *env)
{
#ifdef __x86_64__
	if (env->ticks_in_cpu)
		return __builtin_ia32_rdtsc();
#endif
	return env_mono_ns(env);
}

uint64_t env_wall_us(struct env *env)
{
	(void)env;
	return clock_ns(CLOCK_REALTIME) / 1000;
}

unsigned env_files_max(struct env *env)
{
	struct rlimit r;

	(void)env;
	return getrlimit(RLIMIT_NOFILE, &r) < 0 || r.rlim_cur > UINT_MAX ? UINT_MAX : (unsigned)r.rlim_cur;
}

void env_random(struct env *env, void *buf, size_t n)
{
	for (char *p = buf; n;) {
		ssize_t got = getrandom(p, n, 0);
		if (got < 0 && errno != EINTR)
			env_abort(env, "no random numbers from the kernel");
		if (got > 0) {
			p += got;
			n -= (size_t)got;
		}
	}
}

int env_pid(struct env *env)
{
	(void)env;
	return getpid();
}

const char *env_getenv(struct env *env, const char *name)
{
	(void)env;
	return getenv(name);
}

bool env_home(struct env *env, char out[ENV_PATH_MAX])
{
	ssize_t n = readlink("/proc/self/exe", out, ENV_PATH_MAX - 1);
	char *slash;

	(void)env;
	if (n <= 0)
		return false;
	out[n] = '\0';
	for (int up = 0; up < 3; up++) { /* NAME, bin, build */
		if (!(slash = strrchr(out, '/')))
			return false;
		*slash = '\0';
	}
	return true;
}

uint64_t env_cpu_us(struct env *env)
{
	(void)env;
	return clock_ns(CLOCK_PROCESS_CPUTIME_ID) / 1000;
}

uint64_t env_rss_bytes(struct env *env)
{
	(void)env;
	char text[128];
	int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	ssize_t n = read(fd, text, sizeof text - 1);
	close(fd);
	unsigned long total, resident;
	text[n > 0 ? n : 0] = '\0';
	if (sscanf(text, "%lu %lu", &total, &resident) != 2)
		return 0;
	return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

#define LARGE_PAGE ((size_t)2 << 20)

void *env_memory(struct env *env, size_t bytes)
{
	(void)env;
	size_t slack = bytes >= LARGE_PAGE ? LARGE_PAGE : 0; /* so that a large page's boundary can be its start */
	char *p = mmap(NULL, bytes + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	if (!slack)
		return p;
	char *start = p + (slack - (uintptr_t)p % slack) % slack, *end = start + (bytes + 4095) / 4096 * 4096;
	if (start > p)
		munmap(p, (size_t)(start - p));
	if (end < p + bytes + slack)
		munmap(end, (size_t)(p + bytes + slack - end));
	madvise(start, bytes, MADV_HUGEPAGE);
	return start;
}

void env_memory_free(struct env *env, void *p, size_t bytes)
{
	(void)env;
	if (p)
		munmap(p, bytes);
}

void env_abort(struct env *env, const char *why)
{
	(void)env;
	fprintf(stderr, "fatal: %s\n", why);
	abort();
}
