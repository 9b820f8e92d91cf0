#include "tests/support/mariadb.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char program[] = "/usr/sbin/mariadbd";
enum { START_MS = 120000, LOOK_MS = 10 };

bool mariadb_installed(void)
{
	return access(program, X_OK) == 0;
}

static void fail(const struct mariadb *m, const char *what)
{
	char command[160];
	fprintf(stderr, "mariadb: %s; its log:\n", what);
	snprintf(command, sizeof command, "tail -n 20 %s/log >&2", m->dir);
	if (system(command))
		fprintf(stderr, "(no log)\n");
	abort();
}

/*
 * Without accounts (--skip-grant-tables) it needs no system tables: an empty folder is enough. Its temporary files lie
 * in a folder of its own: a server that starts removes those of every other server in the same one, and that server
 * then ends with signal 11.
 */
static void run(const struct mariadb *m)
{
	char data[96], log[96], socket_option[128], temporary[96];
	snprintf(data, sizeof data, "--datadir=%s/data", m->dir);
	snprintf(log, sizeof log, "--log-error=%s/log", m->dir);
	snprintf(socket_option, sizeof socket_option, "--socket=%s", m->socket);
	snprintf(temporary, sizeof temporary, "--tmpdir=%s", m->dir);
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	execl(program, program, "--no-defaults", "--user=root", "--skip-networking", "--skip-grant-tables", data, log,
	      socket_option, temporary, "--pid-file=pid",
	      m->large ? "--innodb-buffer-pool-size=512M" : "--innodb-buffer-pool-size=16M",
	      m->large ? "--innodb-log-file-size=256M" : "--innodb-log-file-size=8M",
	      "--innodb-flush-log-at-trx-commit=2", (char *)NULL);
	_exit(127);
}

static bool answers(const struct mariadb *m)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	char greeting;
	snprintf(a.sun_path, sizeof a.sun_path, "%s", m->socket);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool ok = connect(fd, (struct sockaddr *)&a, sizeof a) == 0 && read(fd, &greeting, 1) == 1;
	close(fd);
	return ok;
}

void mariadb_again(struct mariadb *m)
{
	const struct timespec look = { .tv_nsec = LOOK_MS * 1000000 };
	m->pid = fork();
	if (m->pid == 0)
		run(m);
	for (int ms = 0; !answers(m); ms += LOOK_MS) {
		if (ms >= START_MS || waitpid(m->pid, NULL, WNOHANG) != 0)
			fail(m, "did not start");
		nanosleep(&look, NULL);
	}
}

void mariadb_start(struct mariadb *m)
{
	char data[96];
	snprintf(m->dir, sizeof m->dir, "/tmp/loquat-mariadb-XXXXXX");
	if (!mkdtemp(m->dir))
		fail(m, "no temporary folder");
	snprintf(m->socket, sizeof m->socket, "%s/sock", m->dir);
	snprintf(data, sizeof data, "%s/data", m->dir);
	mkdir(data, 0700);
	mariadb_again(m);
}

/* Each thread stops for itself: until all have, the server may still answer. */
static bool has_stopped(pid_t pid)
{
	char command[200];
	snprintf(command, sizeof command, "cat /proc/%d/task/*/stat | sed 's/.*) //' | grep -qv '^[Tt]'", (int)pid);
	return system(command) != 0;
}

static bool has_ended(pid_t pid)
{
	char path[40], text[400] = "";
	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	FILE *f = fopen(path, "r");
	if (!f)
		return true;
	size_t n = fread(text, 1, sizeof text - 1, f);
	fclose(f);
	const char *name_end = n ? strrchr(text, ')') : NULL;
	return !name_end || name_end[2] == 'Z' || name_end[2] == 'X';
}

void mariadb_signal(struct mariadb *m, int signo)
{
	kill(m->pid, signo);
	while (signo == SIGSTOP && !has_stopped(m->pid))
		usleep(1000);
	if (signo == SIGKILL || signo == SIGTERM) {
		while (waitpid(m->pid, NULL, 0) < 0 && !has_ended(m->pid))
			usleep(1000); /* not our child but our parent's, which started it before the tests forked */
		m->pid = 0;
	}
}

void mariadb_end(struct mariadb *m)
{
	char command[96];
	if (m->pid)
		mariadb_signal(m, SIGKILL);
	snprintf(command, sizeof command, "rm -rf %s", m->dir);
	if (system(command))
		fprintf(stderr, "mariadb: %s stays\n", m->dir);
}
