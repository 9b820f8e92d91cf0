#include "deploy/loquat/bots.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define LEAD_NS      200000000u /* between the first look at the servers' figures and the first request */
#define HEARTBEAT_NS 100000000u /* between looks for heartbeats that are due */
#define DUE_MAX      100000     /* requests started in one turn: what comes in must be read too */

const char bots_help[] =
	"\nEvery bot asks the gate, logs in at its connector, enters the scene and then sends R packets a second from a\n"
	"schedule, whatever the answers do: of 18 packets 12 are moves, 3 echoes of the scene, 2 attacks and 1 a purchase\n"
	"or a chat message. Latency counts from the time a packet was meant to leave.\n\n"
	"  --players N      players, each with a connection (100)\n"
	"  --rate R         packets per second and player (18)\n"
	"  --seconds S      how long they play (10); logging in comes before\n"
	"  --login-rate N   logins started per second (500, or less where the cluster lets one address do less)\n"
	"  --room N         players in one chat room (20)\n"
	"  --json           one JSON object on stdout\n\n"
	"A player failed if it was disconnected, had a request unanswered for 5 s or answered otherwise than 200 or a\n"
	"refusal of the game (dead, out of range, a monster gone, too little gold), or kept under 95 % of its rate.\n"
	"Exit status: 0 all well; 1 a player failed, or the connectors' /stats counted other requests than the bots; 2 it\n"
	"could not start.\n";

/* ---- options ---------------------------------------------------------------------------------------------------- */

struct option {
	const char *name;
	double min, max;
	unsigned *whole; /* or: */
	double *number;
};

static int take_number(const struct option *o, const char *text)
{
	char *end;
	double v = strtod(text, &end);

	if (end == text || *end || !(v >= o->min && v <= o->max) || (o->whole && v != floor(v)))
		return complain("bots: %s: expected %s from %g to %g, found \"%s\"", o->name,
				o->whole ? "a whole number" : "a number", o->min, o->max, text);
	if (o->whole)
		*o->whole = (unsigned)v;
	else
		*o->number = v;
	return 0;
}

static int take_options(struct bots_options *o, int argc, char **argv)
{
	const struct option options[] = {
		{ "--players", 1, 60000, &o->players, NULL },        { "--rate", 0.1, 1000, NULL, &o->rate },
		{ "--seconds", 1, 86400, &o->seconds, NULL },        { "--room", 1, 1000, &o->room, NULL },
		{ "--login-rate", 1, 100000, &o->login_rate, NULL },
	};
	const size_t count = sizeof options / sizeof *options;

	for (int i = 1; i < argc; i++) {
		size_t k = 0;

		if (!strcmp(argv[i], "--json")) {
			o->json = true;
			continue;
		}
		while (k < count && strcmp(options[k].name, argv[i]))
			k++;
		if (k == count)
			return complain("bots: there is no option %s (loquat bots --help lists all)", argv[i]);
		if (i + 1 == argc)
			return complain("bots: %s needs a value", argv[i]);
		if (take_number(&options[k], argv[++i]))
			return 2;
	}
	return 0;
}

/* ---- time and chance ---------------------------------------------------------------------------------------------- */

uint64_t bots_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

double bots_random(struct bots *b)
{
	b->seed ^= b->seed << 13;
	b->seed ^= b->seed >> 7;
	b->seed ^= b->seed << 17;
	return (double)(b->seed >> 11) / 9007199254740992.0;
}

static void rest_until(uint64_t ns)
{
	struct timespec t = { (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

/* ---- a turn: read what has come, then send what is due ---------------------------------------------------------------- */

static void serve(struct bots *b)
{
	struct epoll_event events[512];
	int n;

	do {
		n = epoll_wait(b->epoll, events, 512, 0);
		for (int i = 0; i < n; i++)
			bot_ready(b, events[i].data.ptr, events[i].events & ~(uint32_t)EPOLLOUT);
	} while (n == 512);
}

static void touch(struct bots *b, struct bot *p)
{
	if (!p->touched)
		b->touched[b->touches++] = p->index;
	p->touched = true;
}

static void flush_touched(struct bots *b)
{
	for (uint32_t i = 0; i < b->touches; i++) {
		struct bot *p = &b->bot[b->touched[i]];

		p->touched = false;
		if (p->fd >= 0 && !p->waits_out)
			bot_flush(b, p);
	}
	b->touches = 0;
}

/* Request n of all is meant for start + n / (rate of all), so players take turns and their phases are spread. */
static uint64_t intended_ns(const struct bots *b, uint64_t n)
{
	return b->start_ns + (uint64_t)((double)n * 1e9 / (b->o.rate * b->o.players));
}

static void send_due(struct bots *b, uint64_t now)
{
	for (int i = 0; i < DUE_MAX && b->next < b->scheduled; i++) {
		uint64_t due = intended_ns(b, b->next);
		struct bot *p = &b->bot[b->next % b->o.players];

		if (due > now || b->next - b->oldest >= b->ring_size)
			break;
		if (p->stage == BOT_PLAYS) {
			bots_act(b, p, b->next, due);
			hist_add(&b->late, now - due);
			touch(b, p);
		}
		b->next++;
	}
	flush_touched(b);
}

static void heartbeats(struct bots *b, uint64_t now)
{
	if (now < b->heartbeat_look_ns)
		return;
	b->heartbeat_look_ns = now + HEARTBEAT_NS;
	for (unsigned i = 0; i < b->o.players; i++)
		bot_heartbeat(b, &b->bot[i], now);
}

static void turn(struct bots *b)
{
	uint64_t now = bots_now_ns();

	rest_until((now / BOTS_TICK_NS + 1) * BOTS_TICK_NS);
	serve(b);
	heartbeats(b, now);
}

/* ---- the run ------------------------------------------------------------------------------------------------------------ */

static void login_turn(struct bots *b, uint64_t begin)
{
	uint64_t now = bots_now_ns(), due = (now - begin) * b->o.login_rate / 1000000000u + 1;

	for (; b->started < b->o.players && b->started < due; b->started++) {
		struct bot *p = &b->bot[b->started];

		p->login_ns = now;
		p->login_due_ns = now + BOTS_LOGIN_NS;
		bot_connect(b, p);
	}
	for (unsigned i = 0; i < b->started; i++) {
		struct bot *p = &b->bot[i];

		if (p->stage < BOT_PLAYS && now > p->login_due_ns)
			bot_fail(b, p, "login took over 30 s");
	}
	turn(b);
}

static void log_in(struct bots *b)
{
	uint64_t begin = bots_now_ns();

	while (b->logged_in + b->login_failed < b->o.players)
		login_turn(b, begin);
	b->login_took_ns = bots_now_ns() - begin;
}

static void play(struct bots *b)
{
	b->start_ns = bots_now_ns() + LEAD_NS;
	b->scheduled = (uint64_t)(b->o.rate * b->o.players * b->o.seconds);
	while (b->next < b->scheduled || bots_overdue(b, bots_now_ns())) {
		turn(b);
		send_due(b, bots_now_ns());
		bots_overdue(b, bots_now_ns());
		if (b->failed == b->o.players)
			break;
	}
}

/* Who kept under its rate: the share of its answers, or the time until the last one came. */
static void judge_rates(struct bots *b)
{
	for (unsigned i = 0; i < b->o.players; i++) {
		struct bot *p = &b->bot[i];
		double seconds = p->last_ns > b->start_ns ? (double)(p->last_ns - b->start_ns) / 1e9 : 0;
		uint64_t meant = b->scheduled / b->o.players + (i < b->scheduled % b->o.players);

		if (seconds < b->o.seconds)
			seconds = b->o.seconds;
		if (p->stage == BOT_PLAYS && p->answered / seconds < BOTS_RATE_KEPT * (double)meant / b->o.seconds)
			bot_fail(b, p, "kept under 95 %% of its rate");
	}
}

/* ---- begin and end ------------------------------------------------------------------------------------------------------- */

static void raise_limit(unsigned players)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return;
	if (limit.rlim_max < players + 64) /* root may raise it */
		limit.rlim_max = players + 64;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) == 0 || getrlimit(RLIMIT_NOFILE, &limit))
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static bool files_suffice(unsigned players)
{
	struct rlimit limit;

	raise_limit(players);
	return getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur >= players + 32;
}

static struct bots *bots_new(struct cluster *c, const struct bots_options *o)
{
	struct bots *b = calloc(1, sizeof *b);
	uint64_t ring = 1;

	while (ring < (uint64_t)(o->rate * o->players * 7) + 64) /* the deadline and two seconds */
		ring *= 2;
	if (!b || !(b->bot = calloc(o->players, sizeof *b->bot)) || !(b->ring = calloc(ring, sizeof *b->ring)) ||
	    !(b->touched = calloc(o->players, sizeof *b->touched)))
		return NULL;
	b->cluster = c;
	b->o = *o;
	b->ring_size = ring;
	b->scenes = (unsigned)config_int(c->config, "scene.count", 4);
	b->epoll = epoll_create1(EPOLL_CLOEXEC);
	env_random(c->env, &b->seed, sizeof b->seed);
	b->seed |= 1;
	snprintf(b->run, sizeof b->run, "%08x", (unsigned)(b->seed >> 32));
	for (unsigned i = 0; i < o->players; i++)
		b->bot[i] = (struct bot){ .fd = -1, .index = i, .turn = i % BOTS_MIX };
	return b;
}

static void bots_free(struct bots *b)
{
	for (unsigned i = 0; i < b->o.players; i++) {
		bot_close(&b->bot[i]);
		free(b->bot[i].token);
	}
	close(b->epoll);
	free(b->touched);
	free(b->ring);
	free(b->bot);
	free(b);
}

static int run(struct bots *b)
{
	bots_find_gates(b);
	if (!b->gates)
		return complain("bots: no gate of %s is ready; is the cluster running? %s status%s",
				b->cluster->config_file, b->cluster->typed, b->cluster->option);
	prctl(PR_SET_TIMERSLACK, 1000);
	log_in(b);
	served_read(b->cluster, &b->before);
	if (b->failed < b->o.players)
		play(b);
	served_read(b->cluster, &b->after);
	judge_rates(b);
	return bots_report(b);
}

/* All bots come from one address: as many logins as gate and connectors take of one, with room for those that are late. */
static unsigned login_rate(const struct cluster *c)
{
	static const char *const keys[] = { "gate.connects_per_s", "connector.connects_per_s" };
	int64_t rate = 500;

	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
		int64_t most = config_int(c->config, keys[i], 0) / 2;

		if (most > 0 && most < rate)
			rate = most;
	}
	return (unsigned)rate;
}

int command_bots(struct cluster *c, int argc, char **argv)
{
	struct bots_options o = { .players = 100, .rate = 18, .seconds = 10, .login_rate = login_rate(c), .room = 20 };
	struct bots *b;
	int status;

	if (take_options(&o, argc, argv))
		return 2;
	if (!files_suffice(o.players))
		return complain("bots: %u players need as many open files; raise the limit: ulimit -n %u", o.players,
				o.players + 64);
	if (!(b = bots_new(c, &o)))
		return complain("bots: no memory for %u players", o.players);
	status = run(b);
	bots_free(b);
	return status;
}
