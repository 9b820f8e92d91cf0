#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "chat/chat.h"
#include "common/sqllog.h"
#include "connector/connector.h"
#include "dbwriter/dbwriter.h"
#include "gate/gate.h"
#include "role/role.h"
#include "tests/support/sim_buyers.h"
#include "tests/support/sim_main.h"
#include "tests/support/sim_schema.h"
/*
 * Keys that move between role instances while players buy: instances come, are drained and go, die and come back, are stopped
 * (SIGSTOP) for so long that the others are told they are gone, and everybody hears of it at another time. Each role instance
 * has a host of its own, with its log and its dbwriter, and each host's clock is up to an hour off. At the end every
 * acknowledged purchase is in the database exactly once, the gold adds up, and every answer told the gold of its moment: nobody
 * was served from what a former owner left. And by their times the logs' records tell each role's life in its order.
 */
#define EDGE      "10.0.0.1"
#define GATE_PORT 3014
#define ROLES     3
#define HOSTS     (ROLES + 2)

static const char config[] =
	"return { instances = {\n"
	"{ id = 'gate-1', service = 'gate', host = '10.0.0.1', client = 3014, rpc = 4014 },\n"
	"{ id = 'connector-1', service = 'connector', host = '10.0.0.5', client = 3050, rpc = 4050 },\n"
	"{ id = 'chat-1', service = 'chat', host = '10.0.0.1', rpc = 4400 },\n"
	"{ id = 'role-1', service = 'role', host = '10.0.0.2', rpc = 4200, http = 8200 },\n"
	"{ id = 'dbwriter-1', service = 'dbwriter', host = '10.0.0.2', rpc = 4600 },\n"
	"{ id = 'role-2', service = 'role', host = '10.0.0.3', rpc = 4200, http = 8200 },\n"
	"{ id = 'dbwriter-2', service = 'dbwriter', host = '10.0.0.3', rpc = 4600 },\n"
	"{ id = 'role-3', service = 'role', host = '10.0.0.4', rpc = 4200, http = 8200 },\n"
	"{ id = 'dbwriter-3', service = 'dbwriter', host = '10.0.0.4', rpc = 4600 },\n"
	"}, session = { grace_s = 2 }, role = { threads = %u }, log = { level = '%s' } }\n";

static const struct instance {
	const char *id, *host;
	const struct service_def *def;
	unsigned rpc, client;
} instances[] = {
	{ "role-1", "10.0.0.2", &role_service, 4200, 0 },
	{ "role-2", "10.0.0.3", &role_service, 4200, 0 },
	{ "role-3", "10.0.0.4", &role_service, 4200, 0 },
	{ "dbwriter-1", "10.0.0.2", &dbwriter_service, 4600, 0 },
	{ "dbwriter-2", "10.0.0.3", &dbwriter_service, 4600, 0 },
	{ "dbwriter-3", "10.0.0.4", &dbwriter_service, 4600, 0 },
	{ "gate-1", EDGE, &gate_service, 4014, 3014 },
	{ "connector-1", "10.0.0.5", &connector_service, 4050, 3050 },
	{ "chat-1", EDGE, &chat_service, 4400, 0 },
};
#define INSTANCES (sizeof instances / sizeof *instances)

enum routed { OUT, READY, DRAINING };
struct world {
	struct sim *w;
	struct sim_process *process[INSTANCES];
	enum routed routed[INSTANCES];
	bool ended[INSTANCES]; /* in order: its process has nothing left to do */
	bool leaving[ROLES];   /* drained: it is told to end when everybody should know */
	unsigned workers;
	uint64_t version, told[HOSTS];
	uint32_t delay_ms; /* until a host has a new table, at most */
	struct sim_buyers buyers;
};

/* ---- the route table: a file on each host, that comes to each at its time ---------------------------------------------- */

struct news {
	struct world *x;
	unsigned host;
	uint64_t version;
	char text[2048];
};

static void on_news(void *arg)
{
	struct news *n = arg;
	char host[16];

	snprintf(host, sizeof host, "10.0.0.%u", n->host + 1);
	if (n->version > n->x->told[n->host]) {
		n->x->told[n->host] = n->version;
		sim_file_store(n->x->w, host, "var/routes.lua", n->text, strlen(n->text));
	}
	free(n);
}

static void publish(struct world *x)
{
	char text[2048];
	int n = snprintf(text, sizeof text, "return { version = %llu, instances = {\n",
			 (unsigned long long)++x->version);

	for (size_t i = 0; i < INSTANCES; i++)
		if (x->routed[i] != OUT)
			n += snprintf(text + n, sizeof text - (size_t)n,
				      "{id = '%s', service = '%s', host = '%s', client = %u, rpc = %u, http = 0, "
				      "workers = %u, epoch = 1, draining = %s},\n",
				      instances[i].id, instances[i].def->name, instances[i].host, instances[i].client,
				      instances[i].rpc, i < ROLES ? x->workers : 1,
				      x->routed[i] == DRAINING ? "true" : "false");
	snprintf(text + n, sizeof text - (size_t)n, "}}\n");
	for (unsigned i = 0; i < HOSTS; i++) {
		struct news *news = calloc(1, sizeof *news);

		*news = (struct news){ .x = x, .host = i, .version = x->version };
		memcpy(news->text, text, sizeof text);
		sim_at(x->w, x->delay_ms ? sim_random(x->w, x->delay_ms) * 1000 : 0, on_news, news);
	}
}

/* ---- the processes ------------------------------------------------------------------------------------------------ */

static void on_stopped(void *arg, struct service *s)
{
	struct world *x = sim_user(sim_current());

	(void)s;
	x->ended[(const struct instance *)arg - instances] = true;
}

static void instance_main(struct env *env, void *arg)
{
	const struct instance *it = arg;
	struct service_options o = {
		.config_file = "deploy/cluster.lua", .instance = it->id, .on_stopped = on_stopped, .arg = arg
	};
	struct service *s;
	char error[512];

	if (service_start(env, it->def, &o, error, sizeof error, &s) < 0 && getenv("SIM_SAY"))
		fprintf(stderr, "start %s: %s\n", it->id, error);
}

static void store_everywhere(struct world *x, const char *path, const char *text, size_t n)
{
	for (unsigned i = 0; i < HOSTS; i++) {
		char host[16];

		snprintf(host, sizeof host, "10.0.0.%u", i + 1);
		sim_file_store(x->w, host, path, text, n);
	}
}

static void run(struct world *x, size_t i)
{
	x->ended[i] = false;
	if (x->process[i])
		sim_restart(x->process[i]);
	else
		x->process[i] = sim_process(x->w, instances[i].id, instances[i].host, instance_main,
					    (void *)(uintptr_t)&instances[i]);
	sim_supervise(x->process[i], 50, 500);
}

static void start(struct sim *w, unsigned workers)
{
	struct world *x = calloc(1, sizeof *x);
	char text[4096], key[65];

	x->w = w;
	x->workers = workers;
	x->buyers =
		(struct sim_buyers){ .w = w, .gate_host = EDGE, .gate_port = GATE_PORT, .think_ms = 150, .rivals = 1 };
	sim_user_set(w, x);
	sim_root(w, ".");
	sim_schema(w);
	int n = snprintf(text, sizeof text, config, workers, getenv("SIM_SAY") ? "info" : "error");

	store_everywhere(x, "deploy/cluster.lua", text, (size_t)n);
	snprintf(key, sizeof key, "%064d", 7);
	store_everywhere(x, "var/keys/cluster.key", key, 64);
	store_everywhere(x, "var/keys/token.key", key, 64);
	for (unsigned i = 0; i < HOSTS; i++) {
		snprintf(text, sizeof text, "10.0.0.%u", i + 1);
		sim_clock_step(w, text, (int64_t)sim_random(w, 7200000000u) - 3600000000);
	}
	for (size_t i = 0; i < INSTANCES; i++)
		x->routed[i] = i == 1 || i == 2 ? OUT : READY; /* role-1 alone, to begin with */
	publish(x);
	sim_run_ms(w, 10);
	for (size_t i = 0; i < INSTANCES; i++)
		if (x->routed[i] == READY)
			run(x, i);
	sim_run_ms(w, 1000);
}

static void with_one_worker(struct sim *w)
{
	start(w, 1);
}

static void with_three_workers(struct sim *w)
{
	start(w, 3);
}

/* ---- instances come and go -------------------------------------------------------------------------------------------- */

static unsigned count(const struct world *x, enum routed how)
{
	unsigned n = 0;

	for (unsigned i = 0; i < ROLES; i++)
		n += x->routed[i] == how;
	return n;
}

static void add(struct world *x, unsigned i)
{
	if (!x->process[i] || !sim_alive(x->process[i]))
		run(x, i);
	x->leaving[i] = false;
	x->routed[i] = READY;
	publish(x);
}

static void on_told(void *arg)
{
	struct world *x = arg;

	for (unsigned i = 0; i < ROLES; i++)
		if (x->leaving[i] && x->process[i] && sim_alive(x->process[i]))
			sim_signal(x->process[i], SIGTERM);
}

static void drain(struct world *x, unsigned i)
{
	x->routed[i] = DRAINING;
	x->leaving[i] = true;
	sim_supervise(x->process[i], 0, 0);
	publish(x);
	sim_at(x->w, 300000, on_told, x);
}

/* Who has ended leaves the table. */
static void bury(struct world *x)
{
	bool gone = false;

	for (unsigned i = 0; i < ROLES; i++)
		if (x->leaving[i] && (x->ended[i] || !sim_alive(x->process[i]))) {
			if (sim_alive(x->process[i]))
				sim_kill(x->process[i]);
			x->leaving[i] = false;
			x->routed[i] = OUT;
			gone = true;
		}
	if (gone)
		publish(x);
}

static unsigned any(struct world *x, enum routed how)
{
	unsigned i = (unsigned)sim_random(x->w, ROLES);

	while (x->routed[i] != how)
		i = (i + 1) % ROLES;
	return i;
}

/* It dies and is not started again: the table forgets it. */
static void lose(struct world *x, unsigned i)
{
	sim_supervise(x->process[i], 0, 0);
	sim_kill(x->process[i]);
	x->routed[i] = OUT;
	publish(x);
}

/* It is stopped for longer than its lease: the table forgets it, and has it again when it wakes up. */
static void on_awake(void *arg)
{
	struct world *x = arg;

	for (unsigned i = 0; i < ROLES; i++)
		if (x->routed[i] == OUT && x->process[i] && sim_alive(x->process[i]) && !x->leaving[i])
			x->routed[i] = READY;
	publish(x);
}

static void freeze(struct world *x, unsigned i)
{
	uint32_t ms = (uint32_t)sim_between(x->w, 500, 4000);

	sim_pause(x->process[i], ms);
	if (sim_chance(x->w, 700000))
		x->routed[i] = OUT;
	publish(x);
	sim_at(x->w, (ms + sim_random(x->w, 500)) * 1000, on_awake, x);
}

static void change(struct world *x)
{
	bury(x);
	switch (sim_random(x->w, 6)) {
	case 0:
	case 1:
	case 2:
		if (count(x, OUT))
			add(x, any(x, OUT));
		return;
	default:
		if (count(x, READY) > 1)
			drain(x, any(x, READY));
	}
}

static void trouble(struct world *x)
{
	static const char *const points[] = {
		"sqllog.before_write", "sqllog.after_write",     "sqllog.after_sync",
		"app.before_answer",   "dbwriter.before_commit", "dbwriter.after_commit",
	};
	struct sim *w = x->w;
	const char *a = instances[sim_random(w, INSTANCES)].id, *b = instances[sim_random(w, INSTANCES)].id;
	struct sim_process *p;

	bury(x);
	switch (sim_random(w, 10)) {
	case 0:
		if (count(x, READY) > 1)
			lose(x, any(x, READY));
		return;
	case 1:
	case 2:
		if (count(x, READY))
			freeze(x, any(x, READY));
		return;
	case 3:
	case 4:
		if ((p = sim_find(w, a)) && sim_alive(p))
			sim_kill(p);
		return;
	case 5:
		sim_failpoint(w, NULL, points[sim_random(w, sizeof points / sizeof *points)],
			      1 + (unsigned)sim_random(w, 5));
		return;
	case 6:
		if (sim_find(w, a) && sim_find(w, b))
			sim_link_reset(w, a, b);
		return;
	case 7: sim_db_down(w, sim_chance(w, 400000)); return;
	default: change(x); return;
	}
}

static void say_row(void *arg, unsigned columns, const char *const *cells)
{
	struct world *x = arg;

	sim_trace(x->w, "%s: turn %s ring %s log_epoch %s lsn %s", cells[0], cells[1], cells[2], cells[3], cells[4]);
	(void)columns;
}

/* For who looks at a failure. */
static void say(struct world *x)
{
	for (unsigned i = 0; i < ROLES; i++)
		sim_trace(x->w, "%s: routed %d leaving %d alive %d", instances[i].id, x->routed[i], x->leaving[i],
			  x->process[i] && sim_alive(x->process[i]));
	sim_db_select(x->w, "SELECT instance, turn, ring, log_epoch, lsn FROM loquat_owner", say_row, x);
	sim_db_select(x->w, "SELECT instance, epoch, lsn, file, time_us FROM loquat_replay", say_row, x);
}

/* ---- the times in the logs ---------------------------------------------------------------------------------------------- */

struct life { /* of a key: a role, or its uid */
	char key[SQLLOG_KEY_MAX];
	uint64_t first_us, made_us;
};
struct lives {
	struct sim *w;
	struct life *life;
	size_t n;
};

static struct life *life_of(struct lives *l, const char *key, size_t bytes)
{
	for (size_t i = 0; i < l->n; i++)
		if (strlen(l->life[i].key) == bytes && !memcmp(l->life[i].key, key, bytes))
			return &l->life[i];
	l->life = realloc(l->life, (l->n + 1) * sizeof *l->life);
	struct life *new = &l->life[l->n++];

	*new = (struct life){ .first_us = UINT64_MAX };
	memcpy(new->key, key, bytes);
	return new;
}

static void life_note(struct lives *l, const struct sqllog_record *r)
{
	bool made = memmem(r->body, r->body_bytes, "INSERT INTO role (", 18);
	const char *key;
	size_t at = 0, bytes;

	while (sqllog_key_next(r, &at, &key, &bytes)) {
		struct life *k = life_of(l, key, bytes);

		if (r->time_us < k->first_us)
			k->first_us = r->time_us;
		if (made)
			k->made_us = r->time_us;
	}
}

static void lives_read(struct lives *l, const char *host, const char *id, unsigned number)
{
	char path[80], *text, why[80];
	struct sqllog_record r;
	ssize_t n, took;

	snprintf(path, sizeof path, "var/sqllog/%s/%08u.sql", id, number);
	if ((n = sim_file_load(l->w, host, path, &text)) < 0)
		return;
	for (ssize_t at = 0; at < n && (took = sqllog_read(text + at, (size_t)(n - at), &r, why, sizeof why)) > 0;
	     at += took)
		if (r.lsn)
			life_note(l, &r);
	free(text);
	lives_read(l, host, id, number + 1);
}

/* Restoring takes them in this order: a purchase before its role would be lost. */
static void check_times(struct sim *w)
{
	struct lives l = { .w = w };

	for (unsigned i = 0; i < ROLES; i++)
		lives_read(&l, instances[i].host, instances[i].id, 1);
	sim_check(w, l.n > 0, "no records were read");
	for (size_t i = 0; i < l.n; i++)
		sim_check(w, l.life[i].first_us >= l.life[i].made_us, "%s has records of %llu us before it was made",
			  l.life[i].key, (unsigned long long)(l.life[i].made_us - l.life[i].first_us));
	free(l.life);
}

/* ---- what is tried ------------------------------------------------------------------------------------------------------ */

static void everybody_back(struct world *x)
{
	on_told(x); /* one that was paused or starting may have missed it */
	sim_run_ms(x->w, 8000);
	bury(x);
	for (unsigned i = 0; i < ROLES; i++) {
		if (x->leaving[i] || x->routed[i] == OUT)
			continue;
		sim_supervise(x->process[i], 50, 500);
		if (!sim_alive(x->process[i]))
			run(x, i);
	}
	if (!count(x, READY))
		add(x, 0);
}

static void keys_move_whatever_happens(struct sim *w)
{
	struct world *x = sim_user(w);

	x->delay_ms = (uint32_t)sim_random(w, 1000);
	sim_buyers_come(&x->buyers, "10.0.0.9", 10, 40);
	for (unsigned i = 0; i < 14 && sim_run_ms(w, sim_between(w, 20, 900)); i++)
		if (sim_chance(w, 400000))
			trouble(x);
		else
			change(x);
	sim_calm(w);
	sim_heal(w);
	sim_db_down(w, false);
	sim_run_ms(w, 6000);
	everybody_back(x);
	sim_buyers_check(&x->buyers);
	check_times(w);
	if (sim_failure(w))
		say(x);
}

static void players_notice_nothing_of_an_instance_that_comes_or_goes(struct sim *w)
{
	struct world *x = sim_user(w);

	sim_calm(w);
	x->delay_ms = (uint32_t)sim_random(w, 100);
	sim_buyers_come(&x->buyers, "10.0.0.9", 30, 60);
	sim_run_ms(w, 1500);
	x->buyers.longest_ms = 0;
	run(x, 1);
	run(x, 2);
	sim_run_ms(w, 500);
	for (unsigned i = 0; i < 6 && sim_run_ms(w, sim_between(w, 50, 1000)); i++)
		change(x);
	sim_buyers_check(&x->buyers);
	check_times(w);
	for (unsigned i = 0; i < x->buyers.players; i++) {
		const struct purchases *r = &x->buyers.record[i];

		sim_check(w, !r->refusals && r->logins == 1, "%s: %u refusals, %u logins", r->uid, r->refusals,
			  r->logins);
	}
	sim_check(w, x->buyers.longest_ms < 1500, "somebody waited %llu ms for an answer",
		  (unsigned long long)x->buyers.longest_ms);
	if (getenv("SIM_SAY"))
		fprintf(stderr, "longest answer: %llu ms\n", (unsigned long long)x->buyers.longest_ms);
}

/* What /readyz of a role instance says; why NULL: that it is ready. */
static void check_ready(struct sim *w, const char *id, const char *why)
{
	struct sim_http_answer a;
	int status = sim_http(w, id, 8200, "GET", "/readyz", NULL, NULL, 0, 2000, &a);

	sim_check(w, status == (why ? 503 : 200) && strstr(a.body ? a.body : "", why ? why : "ok"), "%s: %d %s", id,
		  status, a.body ? a.body : "");
	sim_http_release(&a);
}

static int64_t ring_of_role_2(struct sim *w)
{
	return sim_db_int(w, "SELECT ring FROM loquat_owner WHERE instance = 'role-2'", -1);
}

static void one_that_dies_at_each_start_keeps_no_keys(struct sim *w)
{
	struct world *x = sim_user(w);

	sim_calm(w);
	add(x, 1);
	sim_run_ms(w, 2000);
	check_ready(w, "role-2", NULL);
	sim_check(w, ring_of_role_2(w) > 0, "role-2 has not said what it keeps to");
	sim_supervise(x->process[1], 0, 0);
	sim_kill(x->process[1]); /* and the table goes on saying that it is ready */
	add(x, 2);
	sim_run_ms(w, 1500);
	check_ready(w, "role-3", "role-2 keeps to another ring");
	sim_run_ms(w, 4000);
	sim_check(w, ring_of_role_2(w) == 0, "role-2 was not fenced");
	check_ready(w, "role-3", NULL);
}

static void without_its_table_an_instance_says_what_it_waits_for(struct sim *w)
{
	struct world *x = sim_user(w);

	sim_calm(w);
	check_ready(w, "role-1", NULL);
	sim_check(w, sim_db_run(w, "DROP TABLE loquat_owner") == 0, "%s", sim_db_error(w));
	sim_kill(x->process[0]);
	sim_run_ms(w, 2000);
	check_ready(w, "role-1", "the database: ");
	sim_schema(w);
	sim_run_ms(w, 2000);
	check_ready(w, "role-1", NULL);
}

int main(int argc, char **argv)
{
	static const struct sim_scenario list[] = {
		{ "players_notice_nothing_of_an_instance_that_comes_or_goes",
		  players_notice_nothing_of_an_instance_that_comes_or_goes, with_one_worker, 8, NULL },
		{ "keys_move_whatever_happens", keys_move_whatever_happens, with_one_worker, 16, NULL },
		{ "and_over_several_workers", keys_move_whatever_happens, with_three_workers, 12, NULL },
		{ "one_that_dies_at_each_start_keeps_no_keys", one_that_dies_at_each_start_keeps_no_keys,
		  with_one_worker, 4, NULL },
		{ "without_its_table_an_instance_says_what_it_waits_for",
		  without_its_table_an_instance_says_what_it_waits_for, with_one_worker, 4, NULL },
		{ NULL, NULL, NULL, 0, NULL },
	};

	return sim_main(argc, argv, list);
}
