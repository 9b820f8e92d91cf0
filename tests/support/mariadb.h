#pragma once
#include <stdbool.h>
#include <sys/types.h>
/*
 * mariadb: a private, empty MariaDB for one test program: a unix socket in a folder of its own, no port, no
 * accounts (any user name may do anything), no system service touched. Starts in well under a second.
 *
 * Threads: the test's main thread (the server dies with it). Memory: the caller embeds it.
 */
struct mariadb {
	pid_t pid;
	bool large; /* set it before the start: memory and redo log for a benchmark */
	char dir[64], socket[96];
};
bool mariadb_installed(void);
void mariadb_start(struct mariadb *m); /* a new folder; returns when it answers; aborts with its log when it does not */
void mariadb_again(
	struct mariadb *m); /* starts it anew on the same data, after mariadb_signal(m, SIGKILL) for instance */
void mariadb_signal(struct mariadb *m, int signo); /* SIGKILL and SIGTERM wait for its end; SIGSTOP, SIGCONT */
void mariadb_end(struct mariadb *m);               /* kills it and removes the folder */
