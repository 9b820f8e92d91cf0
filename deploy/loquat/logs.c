#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "deploy/loquat/supervisor.h"

/* The lines that the supervisor keeps in var/log, and those that come, as `tail -f` would show them. */
#define TAIL_BYTES 16384
#define LOOK_MS    200

struct tail {
	char path[ENV_PATH_MAX + 48];
	const char *id;
	FILE *f;
	ino_t inode;
};

static void open_tail(struct tail *t, bool at_end)
{
	struct stat st;

	t->f = fopen(t->path, "re");
	if (!t->f || fstat(fileno(t->f), &st) < 0)
		return;
	t->inode = st.st_ino;
	if (at_end && st.st_size > TAIL_BYTES) {
		fseek(t->f, -TAIL_BYTES, SEEK_END);
		for (int ch; (ch = fgetc(t->f)) != EOF && ch != '\n';) /* from a line's begin on */
			continue;
	}
}

static bool print_new(struct tail *t, int width)
{
	char line[8192];
	bool any = false;

	while (t->f && fgets(line, sizeof line, t->f)) {
		printf("%-*s %s", width, t->id, line);
		any = true;
	}
	if (t->f)
		clearerr(t->f);
	return any;
}

/* The supervisor renames a full file: then the new one is read from its begin. */
static void follow(struct tail *t)
{
	struct stat st;

	if (stat(t->path, &st) < 0 || (t->f && st.st_ino == t->inode))
		return;
	if (t->f)
		fclose(t->f);
	open_tail(t, false);
}

static void follow_all(struct tail *tails, size_t n, int width)
{
	const struct timespec look = { .tv_nsec = LOOK_MS * 1000000 };

	for (;;) {
		for (size_t i = 0; i < n; i++) {
			print_new(&tails[i], width);
			follow(&tails[i]);
		}
		if (fflush(stdout) != 0) /* the reader of our pipe went away */
			return;
		nanosleep(&look, NULL);
	}
}

/* MariaDB keeps its own. */
static void begin_tail(struct cluster *c, struct tail *t, const char *id)
{
	bool database = !strcmp(id, "mariadb");

	t->id = id;
	snprintf(t->path, sizeof t->path, "%s/%s/%s.log", c->var, database ? id : "log", database ? "error" : id);
	open_tail(t, true);
}

/* Of all that the file names, or of one. */
static int show(struct cluster *c, const char *only, bool forever)
{
	struct tail *tails = calloc(c->routes->rows + 1, sizeof *tails);
	bool any = false;
	size_t n = 0;

	for (size_t i = 0; tails && !only && i < c->routes->rows; i++)
		begin_tail(c, &tails[n++], c->routes->row[i].id);
	if (tails && only)
		begin_tail(c, &tails[n++], only);
	for (size_t i = 0; i < n; i++) {
		any |= tails[i].f != NULL;
		print_new(&tails[i], 12);
	}
	if (forever)
		follow_all(tails, n, 12);
	if (!any)
		complain("logs: nothing is there yet (%s/log): %s up%s", c->var, c->typed, c->option);
	for (size_t i = 0; i < n; i++)
		if (tails[i].f)
			fclose(tails[i].f);
	free(tails);
	return !any;
}

int command_logs(struct cluster *c, int argc, char **argv)
{
	const char *only = NULL;
	bool forever = false;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "-f") || !strcmp(argv[i], "--follow"))
			forever = true;
		else if (!only && *argv[i] != '-')
			only = argv[i];
		else
			return complain("logs: unexpected \"%s\" (loquat logs --help)", argv[i]);
	}
	const struct route_row *row = only ? route_find(c->routes, only) : NULL;

	if (only && !row && strcmp(only, "mariadb") != 0)
		return complain("logs: %s has no instance \"%s\"", c->config_file, only);
	if (row && !host_is_here(row->host))
		return complain("logs: %s belongs to another host (%s): its log is there", only, row->host), 1;
	return show(c, only, forever);
}
