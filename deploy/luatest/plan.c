/* The tests of a plan run side by side: each process takes every n-th, and writes what came out into a pipe. */
#include "deploy/luatest/plan.h"
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "deploy/luatest/luatest.h"

enum { RUNNERS_MAX = 16 };

uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void run_item(struct tester *t, const struct item *item, struct outcome *out)
{
	struct world x;
	uint64_t begun = now_us();

	if (world_open(&x, t) == 0 && test_count(&x, item->module) > 0 && item->index) {
		test_start(&x, item->index);
		while (!x.ended && world_turn(&x))
			continue;
		if (!x.ended)
			buf_addstr(&x.why, "the test waits for what never comes");
	}
	out->ok = x.ok && !*x.fail;
	buf_clear(&out->why);
	buf_clear(&out->log);
	buf_addstr(&out->why, *x.fail ? x.fail : buf_cstr(&x.why));
	buf_addstr(&out->log, buf_cstr(&x.log));
	out->took_us = now_us() - begun;
	world_close(&x);
}

/* ---- from process to process ------------------------------------------------------------------------------------ */

struct head {
	uint64_t took_us;
	uint32_t ok, why_bytes, log_bytes;
};

static void send_all(int fd, const void *p, size_t n)
{
	while (n) {
		ssize_t sent = write(fd, p, n);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			_exit(1);
		p = (const char *)p + sent;
		n -= (size_t)sent;
	}
}

static bool take_all(int fd, void *p, size_t n)
{
	while (n) {
		ssize_t got = read(fd, p, n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		p = (char *)p + got;
		n -= (size_t)got;
	}
	return true;
}

static bool take_text(int fd, struct buf *out, size_t n)
{
	buf_clear(out);
	buf_reserve(out, n + 1);
	out->len = n;
	return take_all(fd, out->data, n);
}

static void send_outcome(int fd, const struct outcome *out)
{
	struct head h = { out->took_us, out->ok, (uint32_t)out->why.len, (uint32_t)out->log.len };

	send_all(fd, &h, sizeof h);
	send_all(fd, out->why.data, out->why.len);
	send_all(fd, out->log.data, out->log.len);
}

static bool take_outcome(int fd, struct outcome *out)
{
	struct head h;

	if (!take_all(fd, &h, sizeof h) || !take_text(fd, &out->why, h.why_bytes) ||
	    !take_text(fd, &out->log, h.log_bytes))
		return false;
	out->took_us = h.took_us;
	out->ok = h.ok;
	return true;
}

/* ---- the processes ------------------------------------------------------------------------------------------------ */

struct runner {
	pid_t pid;
	int fd;
};

/* Takes each step-th from `from` on. */
static void start_runner(struct plan *p, struct runner *r, size_t from, size_t step)
{
	struct outcome out = { .why = BUF_INIT, .log = BUF_INIT };
	int pipes[2];

	fflush(NULL);
	if (pipe(pipes) < 0 || (r->pid = fork()) < 0) {
		perror("loquat: test");
		exit(2);
	}
	r->fd = pipes[0];
	if (r->pid) {
		close(pipes[1]);
		return;
	}
	close(pipes[0]);
	for (size_t i = from; i < p->items; i += step) {
		run_item(p->tester, &p->item[i], &out);
		send_outcome(pipes[1], &out);
	}
	_exit(0);
}

static void died(struct runner *r, struct outcome *out)
{
	int status = 0;

	close(r->fd);
	waitpid(r->pid, &status, 0);
	out->ok = false;
	out->took_us = 0;
	buf_clear(&out->log);
	buf_clear(&out->why);
	buf_addf(&out->why, "the process in which it ran died: %s %d", WIFSIGNALED(status) ? "signal" : "status",
		 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

static size_t runners_for(size_t items)
{
	cpu_set_t cores;
	size_t n = sched_getaffinity(0, sizeof cores, &cores) == 0 ? (size_t)CPU_COUNT(&cores) : 1;

	n = n < RUNNERS_MAX ? n : RUNNERS_MAX;
	return n < items ? n : items;
}

void plan_run(struct plan *p, void (*on_result)(void *arg, const struct item *item, struct outcome *out), void *arg)
{
	struct runner runner[RUNNERS_MAX];
	struct outcome out = { .why = BUF_INIT, .log = BUF_INIT };
	size_t n = runners_for(p->items);

	for (size_t i = 0; i < n; i++)
		start_runner(p, &runner[i], i, n);
	for (size_t i = 0; i < p->items; i++) {
		if (!take_outcome(runner[i % n].fd, &out)) {
			died(&runner[i % n], &out);
			start_runner(p, &runner[i % n], i + n, n);
		}
		on_result(arg, &p->item[i], &out);
	}
	for (size_t i = 0; i < n; i++) {
		close(runner[i].fd);
		waitpid(runner[i].pid, NULL, 0);
	}
	buf_release(&out.why);
	buf_release(&out.log);
}

void plan_release(struct plan *p)
{
	for (size_t i = 0; i < p->items; i++)
		free(p->item[i].name);
	free(p->item);
}
