#include "deploy/loquat/child.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "common/env_real.h"

#define BACKOFF_FIRST_MS 200 /* and what the fork and the start take: within 0.5 s */
#define BACKOFF_MAX_MS   5000
#define SETTLED_MS       10000
#define LOG_BYTES_MAX    (16 << 20)

const char *child_state_word(enum child_state s)
{
	static const char *const words[] = { "starting", "ready", "draining", "stopped", "backoff", "failed" };

	return words[s];
}

static void child_set(struct child *c, enum child_state s)
{
	enum child_state before = c->state;

	if (before == s)
		return;
	c->state = s;
	c->ops->on_state(c, before);
}

/* ---- its lines ---------------------------------------------------------------------------------------- */

static void keep_line(struct child *c, const char *line)
{
	char old[sizeof c->log_path + 2];

	if (!c->log && *c->log_path)
		c->log = fopen(c->log_path, "ae");
	if (!c->log)
		return;
	fprintf(c->log, "%s\n", line);
	fflush(c->log);
	if (ftell(c->log) < LOG_BYTES_MAX)
		return;
	snprintf(old, sizeof old, "%s.1", c->log_path);
	fclose(c->log);
	c->log = NULL;
	rename(c->log_path, old);
}

static void pass_line(struct child *c)
{
	c->line[c->line_n] = '\0';
	c->line_n = 0;
	snprintf(c->last_line, sizeof c->last_line, "%.255s", c->line);
	keep_line(c, c->line);
	c->ops->on_line(c, c->line);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct child *c = arg;
	char buf[8192];
	ssize_t n = read(fd, buf, sizeof buf);

	(void)what;
	env_real_enter(c->loop->ev);
	if (n <= 0) {
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		event_free(c->readable);
		c->readable = NULL;
		close(c->pipe);
		c->pipe = -1;
		if (c->line_n)
			pass_line(c);
		return;
	}
	for (ssize_t i = 0; i < n; i++) {
		if (buf[i] == '\n' || c->line_n == sizeof c->line - 1)
			pass_line(c);
		if (buf[i] != '\n')
			c->line[c->line_n++] = buf[i];
	}
}

/* ---- starting and ending ----------------------------------------------------------------------------------------- */

/* For tests: LOQUAT_LIVES="role-1=POINT:N,POINT:N dbwriter-1=…" gives each life of a child, in turn, one LOQUAT_FAILPOINT;
 * "-" is a life without. In the child between fork and exec: the text is on this stack until then. */
static const char *failpoint_of(const struct child *c, char *out, size_t size)
{
	const char *at = getenv("LOQUAT_LIVES");
	size_t id = strlen(c->id);

	while (at && (strncmp(at, c->id, id) != 0 || at[id] != '='))
		at = strchr(at, ' ') ? strchr(at, ' ') + 1 : NULL;
	if (!at)
		return NULL;
	at += id + 1;
	for (unsigned life = 0; life < c->restarts; life++) {
		at += strcspn(at, ", ");
		if (*at != ',')
			return NULL;
		at++;
	}
	snprintf(out, size, "LOQUAT_FAILPOINT=%.*s", (int)strcspn(at, ", "), at);
	return strchr(out, ':') ? out : NULL;
}

static _Noreturn void become(struct child *c, int out, pid_t supervisor)
{
	setpgid(0, 0); /* a Ctrl-C is the supervisor's to pass on, in order */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != supervisor)
		_exit(2); /* it died before the line above */
	dup2(out, 1);
	dup2(out, 2);
	signal(SIGPIPE, SIG_DFL); /* what the supervisor ignores would stay ignored */
	sigset_t none;
	char failpoint[160];

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (failpoint_of(c, failpoint, sizeof failpoint))
		putenv(failpoint);
	execv(c->program, (char *const *)(uintptr_t)c->argv);
	dprintf(2, "%s: %s: %s\n", c->id, c->program, strerror(errno));
	_exit(2);
}

static int spawn(struct child *c)
{
	int ends[2];
	pid_t supervisor = getpid();

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -1;
	pid_t pid = fork();

	if (pid == 0)
		become(c, ends[1], supervisor);
	close(ends[1]);
	if (pid < 0) {
		close(ends[0]);
		return -1;
	}
	if (c->readable) { /* a former life's pipe that somebody else still holds open */
		event_free(c->readable);
		close(c->pipe);
	}
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	c->pipe = ends[0];
	c->readable = event_new(c->base, c->pipe, EV_READ | EV_PERSIST, on_readable, c);
	event_add(c->readable, NULL);
	c->pid = pid;
	return 0;
}

static void on_again(struct timer *t, uint64_t now_ms)
{
	struct child *c = (struct child *)((char *)t - offsetof(struct child, timer));

	(void)now_ms;
	c->restarts++;
	child_start(c);
}

static void again_later(struct child *c)
{
	uint64_t lived = c->ready_ms ? c->loop->now_ms - c->ready_ms : 0;

	if (lived >= SETTLED_MS || !c->backoff_ms)
		c->backoff_ms = BACKOFF_FIRST_MS;
	else
		c->backoff_ms = c->backoff_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : c->backoff_ms * 2;
	c->timer.fire = on_again;
	loop_timer(c->loop, &c->timer, c->backoff_ms);
	child_set(c, CHILD_BACKOFF);
}

int child_start(struct child *c)
{
	loop_timer_stop(c->loop, &c->timer);
	if (c->pid)
		return 0;
	c->wanted = true;
	c->ready_ms = 0;
	if (spawn(c) < 0) {
		again_later(c);
		return -1;
	}
	child_set(c, CHILD_STARTING);
	return 0;
}

static void on_stuck(struct timer *t, uint64_t now_ms)
{
	struct child *c = (struct child *)((char *)t - offsetof(struct child, timer));

	(void)now_ms;
	c->ops->on_line(c, "did not end in time: it is killed");
	child_kill(c);
}

void child_stop(struct child *c)
{
	child_leaves(c);
	if (!c->pid)
		return;
	kill(c->pid, SIGTERM);
	c->timer.fire = on_stuck;
	loop_timer(c->loop, &c->timer, c->stop_ms);
}

void child_leaves(struct child *c)
{
	c->wanted = false;
	loop_timer_stop(c->loop, &c->timer);
	child_set(c, c->pid ? CHILD_DRAINING : CHILD_STOPPED);
}

void child_drains(struct child *c)
{
	if (c->pid)
		child_set(c, CHILD_DRAINING);
}

void child_kill(struct child *c)
{
	if (c->pid)
		kill(c->pid, SIGKILL);
}

void child_is_ready(struct child *c, bool ready)
{
	if (!c->pid || c->state == CHILD_DRAINING)
		return;
	if (ready && !c->ready_ms)
		c->ready_ms = c->loop->now_ms;
	c->ever_ready |= ready;
	child_set(c, ready ? CHILD_READY : CHILD_STARTING);
}

static void tell_end(struct child *c, int status)
{
	char text[128];

	if (WIFSIGNALED(status))
		snprintf(text, sizeof text, "ended by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		snprintf(text, sizeof text, "ended with status %d", WEXITSTATUS(status));
	keep_line(c, text);
	c->ops->on_line(c, text);
}

/* What it still said: its end of the pipe is closed, unless it left somebody behind. */
static void drain_pipe(struct child *c)
{
	for (int i = 0; c->readable && i < 64; i++)
		on_readable(c->pipe, EV_READ, c);
}

void child_exited(struct child *c, int status)
{
	c->pid = 0;
	loop_timer_stop(c->loop, &c->timer);
	drain_pipe(c);
	if (!c->wanted) {
		child_set(c, CHILD_STOPPED);
		return;
	}
	tell_end(c, status);
	if (!c->ever_ready && WIFEXITED(status) && WEXITSTATUS(status) == 2)
		child_set(c, CHILD_FAILED);
	else
		again_later(c);
}

static void pipe_close(struct child *c)
{
	if (!c->readable)
		return;
	event_free(c->readable);
	close(c->pipe);
	c->readable = NULL;
}

void child_succeed(struct child *c, struct child *next)
{
	int fd = dup(next->pipe);

	loop_timer_stop(c->loop, &c->timer);
	drain_pipe(c);
	pipe_close(c);
	drain_pipe(next);
	pipe_close(next);
	c->pid = next->pid;
	next->pid = 0;
	next->wanted = false;
	next->state = CHILD_STOPPED;
	c->backoff_ms = 0;
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	c->pipe = fd;
	c->readable = event_new(c->base, c->pipe, EV_READ | EV_PERSIST, on_readable, c);
	event_add(c->readable, NULL);
}

void child_release(struct child *c)
{
	if (!c->loop)
		return; /* never one */
	loop_timer_stop(c->loop, &c->timer);
	pipe_close(c);
	if (c->log)
		fclose(c->log);
	c->log = NULL;
}
