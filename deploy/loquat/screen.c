#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "deploy/loquat/supervisor.h"
#include "rpc/version.h"

/*
 * What a person sees of `loquat up`: the first screen, then every line of every process with its name. Until the
 * first screen is out the lines are held back, so that the table stays in one piece.
 */
#define HELD_BYTES_MAX (1 << 20)

static const char *paint(const struct supervisor *up, const char *code)
{
	return up->colour ? code : "";
}

static const char *colour_of(const struct supervisor *up, size_t n)
{
	static const char *const colours[] = { "\033[36m", "\033[32m", "\033[33m", "\033[35m", "\033[34m",
					       "\033[96m", "\033[92m", "\033[93m", "\033[95m", "\033[94m" };

	return paint(up, colours[n % (sizeof colours / sizeof *colours)]);
}

static void put(struct supervisor *up, const struct buf *b)
{
	if (!up->shown && (up->phase == PHASE_STARTING || up->status)) {
		if (up->held.len < HELD_BYTES_MAX) /* var/log has them all */
			buf_add(&up->held, b->data, b->len);
		return;
	}
	fwrite(b->data, 1, b->len, stdout);
	fflush(stdout);
}

static void release_held(struct supervisor *up)
{
	fwrite(up->held.data, 1, up->held.len, stdout);
	buf_release(&up->held);
	fflush(stdout);
}

/* "2026-05-01T12:01:07.123456Z info chat-1 room.made" is told as "12:01:07.123 info room.made": the rest is known. */
static void add_told(struct supervisor *up, struct buf *b, const char *id, const char *line)
{
	const char *level = line + 28, *name = NULL;
	size_t n = strlen(line), id_n = strlen(id);

	if (n > 30 && line[10] == 'T' && line[19] == '.' && line[26] == 'Z')
		name = strchr(level, ' ');
	if (!name || strncmp(name + 1, id, id_n) != 0 || name[1 + id_n] != ' ') {
		buf_addstr(b, line);
		return;
	}
	bool grave = *level == 'w' || *level == 'e';

	buf_addf(b, "%.12s %s%.*s%s%s", line + 11, grave ? paint(up, "\033[1;31m") : "", (int)(name - level), level,
		 grave ? paint(up, "\033[0m") : "", name + 1 + id_n);
}

void screen_line(struct supervisor *up, const char *id, size_t colour, const char *line)
{
	struct buf b = BUF_INIT;

	buf_addf(&b, "%s%-*s%s ", colour_of(up, colour), up->width, id, paint(up, "\033[0m"));
	add_told(up, &b, id, line);
	buf_addch(&b, '\n');
	put(up, &b);
	buf_release(&b);
}

void screen_say(struct supervisor *up, const char *fmt, ...)
{
	va_list args;
	char text[512];

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	if (up->held.len && !up->status)
		release_held(up);
	printf("loquat: %s\n", text);
	fflush(stdout);
}

/* ---- the first screen ------------------------------------------------------------------------------------ */

static const char *what_of(const char *service)
{
	static const struct {
		const char *service, *what;
	} rows[] = {
		{ "gate", "players knock here" },
		{ "connector", "players' connections" },
		{ "scene", "maps and monsters" },
		{ "role", "players, bags, quests, shop" },
		{ "team", "teams" },
		{ "chat", "rooms and whispers" },
		{ "platform", "logins and payments" },
		{ "dbwriter", "replays the SQL logs" },
	};

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		if (!strcmp(rows[i].service, service))
			return rows[i].what;
	return service;
}

static void show_instance(struct supervisor *up, const struct instance *i)
{
	char address[80];

	if (!i->here || i->child.state == CHILD_STOPPED)
		return;
	uint16_t port = i->row->client_port ? i->row->client_port : i->row->rpc_port;

	snprintf(address, sizeof address, "%s:%u", i->row->client_port ? route_client_host(i->row) : i->row->host,
		 port);
	printf(" %s✓%s %-*s pid %-7d %-21s %s\n", paint(up, "\033[32m"), paint(up, "\033[0m"), up->width, i->row->id,
	       (int)i->child.pid, address, what_of(i->row->service));
}

static void show_database(struct supervisor *up)
{
	const char *host = config_string(up->c->config, "database.host", "");

	if (up->c->private_database)
		printf(" %s✓%s %-*s pid %-7d %-21s the database, in %s/mariadb\n", paint(up, "\033[32m"),
		       paint(up, "\033[0m"), up->width, "mariadb", (int)up->db_child.pid, "unix socket only",
		       up->c->var);
	else
		printf(" %s✓%s %-*s %-11s %-21s the database\n", paint(up, "\033[32m"), paint(up, "\033[0m"), up->width,
		       "mariadb", "", *host ? host : up->c->socket);
}

static void show_waiting_rows(struct supervisor *up)
{
	for (size_t i = 0; i < up->instances; i++)
		if (up->instance[i].here && up->instance[i].child.state == CHILD_STOPPED)
			printf(" · %-*s %-11s start it with: %s start %s%s\n", up->width, up->instance[i].row->id,
			       "not started", up->c->typed, up->instance[i].row->id, up->c->option);
}

/* What to try, ready to be copied: with this cluster's own --config. */
static void show_next(const struct supervisor *up, const char *bold, const char *plain)
{
	const char *typed = up->c->typed, *option = up->c->option;

	printf(" %sNext%s       %s status%s · %s stats%s · %s bots --players 100 --rate 2 --seconds 10%s\n", bold,
	       plain, typed, option, typed, option, typed, option);
	printf("            edit scene/lua/*.lua, then %s reload scene%s · Ctrl-C stops everything\n\n", typed, option);
}

void screen_first(struct supervisor *up)
{
	/* who listens everywhere is open to this machine's browser too */
	const char *host = strcmp(up->c->http_host, "0.0.0.0") ? up->c->http_host : "127.0.0.1";
	const char *bold = paint(up, "\033[1m"), *plain = paint(up, "\033[0m");

	printf("\n %sLoquat %s%s · cluster \"%s\" · data in %s\n\n", bold, LOQUAT_VERSION, plain,
	       config_string(up->c->config, "cluster", "loquat"), up->c->var);
	show_database(up);
	for (size_t i = 0; i < up->instances; i++)
		show_instance(up, &up->instance[i]);
	show_waiting_rows(up);
	printf("\n %sPlay%s       http://%s:%u/demo/   (open it twice)\n", bold, plain, host, up->http_port);
	printf(" %sDashboard%s  http://%s:%u/\n", bold, plain, host, up->http_port);
	show_next(up, bold, plain);
	printf("loquat: ready\n");
	up->shown = true;
	release_held(up);
}
