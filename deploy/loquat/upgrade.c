#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include "common/err.h"
#include "deploy/loquat/supervisor.h"

/*
 * An upgrade: the instance's program, as it is on the disk now, is started beside the running process and takes its place
 * with its connections (rpc/handover.h). While both run, the old one is the instance; when it has ended well, the new one.
 */
static void on_state(struct child *c, enum child_state before)
{
	(void)c, (void)before; /* it is no instance yet */
}

static void on_line(struct child *c, const char *line)
{
	struct instance *i = c->owner;

	screen_line(i->up, c->id, (size_t)(i - i->up->instance), line);
}

static const struct child_ops next_ops = { on_state, on_line };

static void describe(struct instance *i)
{
	struct child *c = &i->next;
	size_t n = 0;

	child_release(c);
	memset(c, 0, sizeof *c);
	while (i->argv[n]) {
		i->next_argv[n] = i->argv[n];
		n++;
	}
	i->next_argv[n] = "--take-over";
	memcpy(c->id, i->child.id, sizeof c->id);
	memcpy(c->program, i->child.program, sizeof c->program);
	memcpy(c->log_path, i->child.log_path, sizeof c->log_path);
	c->argv = i->next_argv;
	c->loop = i->child.loop;
	c->base = i->child.base;
	c->ops = &next_ops;
	c->owner = i;
	c->stop_ms = i->child.stop_ms;
	c->state = CHILD_STOPPED;
}

int instance_upgrade(struct instance *i, char *why, size_t size)
{
	if (!i->here)
		return instance_elsewhere(i, why, size);
	if (i->child.state != CHILD_READY || !i->child.wanted) {
		snprintf(why, size, "%s is not ready (%s): there is nothing to take over", i->row->id,
			 child_state_word(i->child.state));
		return ERR_DENIED;
	}
	if (strcmp(i->row->service, "connector") != 0) {
		snprintf(why, size, "%s holds no players' connections: drain it and start it", i->row->id);
		return ERR_DENIED;
	}
	if (i->next.pid) {
		snprintf(why, size, "%s is being upgraded already", i->row->id);
		return ERR_BUSY;
	}
	describe(i);
	i->next_why[0] = '\0';
	if (child_start(&i->next) == 0)
		return 0;
	child_leaves(&i->next);
	snprintf(why, size, "%s: the new process could not be started", i->row->id);
	return ERR_IO;
}

void upgrade_exited(struct instance *i, int status)
{
	i->next.wanted = false;
	child_exited(&i->next, status);
	snprintf(i->next_why, sizeof i->next_why, "%s",
		 *i->next.last_line ? i->next.last_line : "the new process ended at once");
	screen_say(i->up, "%s was not upgraded: %s", i->row->id, i->next_why);
}

bool upgrade_succeeds(struct instance *i, pid_t pid, int status)
{
	if (!i->next.pid || pid != i->child.pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0 || !i->child.wanted)
		return false;
	child_succeed(&i->child, &i->next);
	screen_say(i->up, "%s is upgraded: pid %d, its players stayed", i->row->id, (int)i->child.pid);
	return true;
}
