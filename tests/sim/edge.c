/*
 * The edge's promises that take their time, under the virtual clock: how long a login, a place, an admission and a
 * silence last. Gate, connector, role and chat are the real ones; players follow a script.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "chat/chat.h"
#include "common/stream.h"
#include "connector/connector.h"
#include "dbwriter/dbwriter.h"
#include "gate/gate.h"
#include "role/role.h"
#include "tests/support/sim_main.h"
#include "tests/support/sim_schema.h"

#define GATE      3014
#define CONNECTOR 3050
#define QUERY     "gate.gateHandler.queryEntry"
#define ENTER     "connector.entryHandler.enter"
#define ECHO      "connector.entryHandler.echo"

/* ---- players by script -------------------------------------------------------------------------------------------- */

enum deed { CONNECT, SEND, CLOSE, BEAT };
struct step {
	uint32_t at_ms;
	enum deed deed;
	uint16_t port;            /* CONNECT */
	const char *route, *body; /* SEND; a $ in the body is the last ticket or token that was seen */
};
struct actor {
	const struct step *steps;
	size_t n;
	/* what it saw, as "SECONDS WHAT;": outside of the simulated process' memory */
	char seen[4096];
	size_t seen_n;
};
struct scene {
	struct actor *actor;
	struct loop *loop;
	struct stream stream;
	struct timer timer;
	uint64_t start_ms;
	size_t next;
	uint32_t id;
	char pass[800];
};

static void see(struct scene *s, const char *what, const char *body, size_t n)
{
	struct actor *a = s->actor;
	uint64_t ms = s->loop->now_ms - s->start_ms;
	char line[700];
	int len = snprintf(line, sizeof(line), "%llu.%llu %s %.*s;", (unsigned long long)(ms / 1000),
			   (unsigned long long)(ms / 100 % 10), what, (int)(n > 500 ? 500 : n), body);

	if (a->seen_n + (size_t)len < sizeof(a->seen)) {
		memcpy(a->seen + a->seen_n, line, (size_t)len + 1);
		a->seen_n += (size_t)len;
	}
}

static void package(struct scene *s, enum pomelo_type type, const char *body)
{
	char head[POMELO_HEAD];

	pomelo_package_head(head, type, strlen(body));
	stream_write(&s->stream, head, sizeof(head));
	stream_write(&s->stream, body, strlen(body));
}

static void remember(struct scene *s, const char *body, size_t n)
{
	json_t *o = json_loadb(body, n, 0, NULL);
	const char *pass = json_string_value(json_object_get(o, "ticket"));

	if (!pass)
		pass = json_string_value(json_object_get(o, "token"));
	if (pass)
		snprintf(s->pass, sizeof(s->pass), "%s", pass);
	json_decref(o);
}

static void on_package(struct scene *s, const char *p, size_t n, enum pomelo_type type)
{
	struct pomelo_message m;

	if (type == POMELO_HANDSHAKE) {
		package(s, POMELO_ACK, "");
	} else if (type == POMELO_KICK) {
		see(s, "kick", p, n);
	} else if (type == POMELO_DATA && pomelo_message_read(p, n, &m) == 0) {
		remember(s, m.body, m.n);
		char what[60] = "answer";
		if (m.kind == POMELO_PUSH)
			snprintf(what, sizeof(what), "%.*s", (int)m.route_n, m.route);
		see(s, what, m.body, m.n);
	}
}

static ssize_t on_data(struct stream *stream, const char *data, size_t n)
{
	struct scene *s = (struct scene *)((char *)stream - offsetof(struct scene, stream));
	size_t at = 0;

	while (n - at >= POMELO_HEAD) {
		const uint8_t *h = (const uint8_t *)data + at;
		size_t body_n = (size_t)h[1] << 16 | (size_t)h[2] << 8 | h[3];
		if (n - at < POMELO_HEAD + body_n)
			break;
		on_package(s, data + at + POMELO_HEAD, body_n, (enum pomelo_type)h[0]);
		at += POMELO_HEAD + body_n;
	}
	return (ssize_t)at;
}

static void on_open(struct stream *stream)
{
	package((struct scene *)((char *)stream - offsetof(struct scene, stream)), POMELO_HANDSHAKE, "{\"sys\":{}}");
}

static void on_close(struct stream *stream, int err)
{
	(void)err;
	see((struct scene *)((char *)stream - offsetof(struct scene, stream)), "closed", "", 0);
}

static const struct stream_ops stream_ops = { .on_data = on_data, .on_open = on_open, .on_close = on_close };

static void say(struct scene *s, const struct step *step)
{
	char head[POMELO_MESSAGE_HEAD_MAX], body[1000];
	const char *dollar = strchr(step->body, '$');

	if (dollar)
		snprintf(body, sizeof(body), "%.*s%s%s", (int)(dollar - step->body), step->body, s->pass, dollar + 1);
	else
		snprintf(body, sizeof(body), "%s", step->body);
	size_t n = pomelo_request_head(head, ++s->id, 0, step->route, strlen(step->route), strlen(body));
	stream_write(&s->stream, head, n);
	stream_write(&s->stream, body, strlen(body));
}

static void on_step(struct timer *t, uint64_t now_ms)
{
	struct scene *s = (struct scene *)((char *)t - offsetof(struct scene, timer));
	const struct step *step = &s->actor->steps[s->next++];

	switch (step->deed) {
	case CONNECT: stream_connect(&s->stream, s->loop, "127.0.0.1", step->port, &stream_ops, 100000, 100000); break;
	case SEND: say(s, step); break;
	case CLOSE: stream_close(&s->stream, 0); break;
	case BEAT: package(s, POMELO_HEARTBEAT, ""); break;
	}
	if (s->next < s->actor->n)
		loop_timer(s->loop, t, s->start_ms + step[1].at_ms - now_ms);
}

static void scene_start(struct loop *loop, void *arg)
{
	struct scene *s = arg;

	s->loop = loop;
	s->start_ms = loop->now_ms;
	s->timer.fire = on_step;
	loop_timer(loop, &s->timer, s->actor->steps[0].at_ms);
}

static void actor_main(struct env *env, void *arg)
{
	struct scene *s = calloc(1, sizeof(*s));
	struct loop *loop;

	s->actor = arg;
	loop_start(env, "actor", 0, scene_start, NULL, s, &loop);
}

/* ---- the cluster ----------------------------------------------------------------------------------------------------- */

static const char config[] = "return { instances = {\n"
			     "{ id = 'gate-1', service = 'gate', client = 3014, rpc = 4014, http = 8014 },\n"
			     "{ id = 'connector-1', service = 'connector', client = 3050, rpc = 4050, http = 8050 },\n"
			     "{ id = 'role-1', service = 'role', rpc = 4200, http = 8200 },\n"
			     "{ id = 'chat-1', service = 'chat', rpc = 4400, http = 8400 },\n"
			     "{ id = 'dbwriter-1', service = 'dbwriter', rpc = 4600, http = 8600 },\n"
			     "}, gate = { players_max = 1, heartbeat_s = 3600 } }\n";

struct seat {
	const struct service_def *def;
	const char *id;
	uint16_t http;
};
static struct seat seats[] = {
	{ &gate_service, "gate-1", 8014 },         { &connector_service, "connector-1", 8050 },
	{ &role_service, "role-1", 8200 },         { &chat_service, "chat-1", 8400 },
	{ &dbwriter_service, "dbwriter-1", 8600 },
};

static void seat_main(struct env *env, void *arg)
{
	const struct seat *seat = arg;
	struct service_options o = { .config_file = "deploy/edge.lua", .instance = seat->id };
	struct service *s;
	char error[512] = "";

	if (service_start(env, seat->def, &o, error, sizeof(error), &s) < 0)
		sim_fail(sim_current(), "%s: %s", seat->id, error);
}

static void start_all(struct sim *w)
{
	sim_calm(w);
	sim_schema(w);
	sim_root(w, ".");
	sim_file_store(w, "10.0.0.1", "deploy/edge.lua", config, sizeof(config) - 1);
	for (size_t i = 0; i < sizeof(seats) / sizeof(*seats); i++)
		sim_process(w, seats[i].id, "10.0.0.1", seat_main, &seats[i]);
	for (size_t i = 0; i < sizeof(seats) / sizeof(*seats); i++)
		sim_check(w, sim_until_ready(w, seats[i].id, seats[i].http), "%s does not get ready", seats[i].id);
	sim_run_ms(w, 1000);
}

/* Starts the player and lets so many seconds go by, on links that only take a little time: its times are looked at. */
static void play(struct sim *w, const char *name, struct actor *a, uint32_t seconds)
{
	sim_calm(w);
	sim_process(w, name, "10.0.0.1", actor_main, a);
	sim_run_ms(w, seconds * 1000ull);
}

static void expect(struct sim *w, const struct actor *a, const char *part)
{
	sim_check(w, strstr(a->seen, part), "not seen: %s in %s", part, a->seen);
}

static void expect_not(struct sim *w, const struct actor *a, const char *part)
{
	sim_check(w, !strstr(a->seen, part), "seen: %s in %s", part, a->seen);
}
#define ACTOR(script)                                                      \
	{                                                                  \
		.steps = (script), .n = sizeof(script) / sizeof(*(script)) \
	}

/* ---- the promises ------------------------------------------------------------------------------------------------------ */

static void who_does_not_log_in_is_kicked_after_ten_seconds(struct sim *w)
{
	static const struct step gate[] = { { 0, CONNECT, GATE, NULL, NULL } };
	static const struct step connector[] = {
		{ 0, CONNECT, CONNECTOR, NULL, NULL },
		{ 1000, SEND, 0, ENTER, "{\"username\":\"a*b\"}" },
		{ 9500, SEND, 0, ECHO, "{}" },
	};
	static struct actor a, b;

	a = (struct actor)ACTOR(gate);
	b = (struct actor)ACTOR(connector);
	play(w, "at-gate", &a, 0);
	play(w, "at-connector", &b, 15);
	expect(w, &a, "10.0 kick {\"reason\":\"no login in time\"};");
	expect(w, &b, "9.5 answer {\"code\":403");
	expect(w, &b, "10.0 kick {\"reason\":\"no login in time\"};");
}

static void an_admission_counts_for_thirty_seconds(struct sim *w)
{
	static const struct step first[] = {
		{ 0, CONNECT, GATE, NULL, NULL },
		{ 100, SEND, 0, QUERY, "{\"uid\":\"first\"}" },
		{ 31000, CLOSE, 0, NULL, NULL },
		{ 31100, CONNECT, CONNECTOR, NULL, NULL },
		{ 31200, SEND, 0, ENTER, "{\"token\":\"$\"}" },
	};
	static const struct step second[] = {
		{ 0, CONNECT, GATE, NULL, NULL },
		{ 1000, SEND, 0, QUERY, "{\"uid\":\"second\"}" },
	};
	static struct actor a, b;

	a = (struct actor)ACTOR(first);
	b = (struct actor)ACTOR(second);
	play(w, "first", &a, 0);
	play(w, "second", &b, 40);
	expect(w, &a, "0.1 answer {\"code\":200");
	expect(w, &b, "1.0 answer {\"code\":202");
	expect(w, &b, "\"position\":1");
	expect(w, &b, "30.1 onAdmit {");
	/* and its token is too old by then */
	expect(w, &a, "answer {\"code\":403,\"error\":\"denied\"");
}

/* What the gate believed of a connector's clock, which was ten minutes ahead, and has been set right since. */
static void a_token_is_not_good_twice_though_the_clock_was_set_back(struct sim *w)
{
	static const struct step plays[] = {
		{ 0, CONNECT, GATE, NULL, NULL },
		{ 100, SEND, 0, QUERY, "{\"uid\":\"ann\"}" },
		{ 200, CLOSE, 0, NULL, NULL },
		{ 1000, CONNECT, CONNECTOR, NULL, NULL },
		{ 1100, SEND, 0, ENTER, "{\"token\":\"$\"}" },
		{ 2000, CLOSE, 0, NULL, NULL },
		{ 200000, CONNECT, CONNECTOR, NULL, NULL },
		{ 200100, SEND, 0, ENTER, "{\"token\":\"$\"}" },
	};
	static struct actor a;

	a = (struct actor)ACTOR(plays);
	play(w, "ann", &a, 0);
	sim_run_ms(w, 500);
	sim_clock_step(w, "10.0.0.1", -600000000);
	sim_run_ms(w, 205000);
	expect(w, &a, "0.1 answer {\"code\":200");
	expect(w, &a, "200.1 answer {\"code\":403,\"error\":\"denied\"");
}

static void a_place_is_kept_for_sixty_seconds(struct sim *w)
{
	static const struct step plays[] = {
		{ 0, CONNECT, CONNECTOR, NULL, NULL }, { 100, SEND, 0, ENTER, "{\"username\":\"plays\"}" },
		{ 15000, BEAT, 0, NULL, NULL },        { 30000, BEAT, 0, NULL, NULL },
		{ 45000, BEAT, 0, NULL, NULL },        { 60000, BEAT, 0, NULL, NULL },
		{ 75000, BEAT, 0, NULL, NULL },        { 90000, BEAT, 0, NULL, NULL },
		{ 105000, BEAT, 0, NULL, NULL },       { 120000, BEAT, 0, NULL, NULL },
		{ 135000, BEAT, 0, NULL, NULL },       { 150000, BEAT, 0, NULL, NULL },
	};
	static const struct step waits[] = {
		{ 1000, CONNECT, GATE, NULL, NULL },
		{ 1100, SEND, 0, QUERY, "{\"uid\":\"waits\"}" },
		{ 2000, CLOSE, 0, NULL, NULL },
		{ 61000, CONNECT, GATE, NULL, NULL }, /* 59 s later */
		{ 61500, SEND, 0, QUERY, "{\"ticket\":\"$\"}" },
		{ 62000, CLOSE, 0, NULL, NULL },
		{ 123000, CONNECT, GATE, NULL, NULL }, /* 61 s later */
		{ 123500, SEND, 0, QUERY, "{\"ticket\":\"$\"}" },
	};
	static struct actor a, b;

	a = (struct actor)ACTOR(plays);
	b = (struct actor)ACTOR(waits);
	play(w, "plays", &a, 0);
	play(w, "waits", &b, 130);
	expect(w, &a, "answer {\"code\":200,\"uid\":\"plays\"");
	expect_not(w, &a, "closed");
	expect(w, &b, "1.1 answer {\"code\":202");
	expect(w, &b, "61.5 answer {\"code\":202");
	expect(w, &b, "123.5 answer {\"code\":404,\"error\":\"not_found\"");
}

static void silence_ends_after_two_heartbeats_and_a_beat_keeps_alive(struct sim *w)
{
	static const struct step silent[] = {
		{ 0, CONNECT, CONNECTOR, NULL, NULL },
		{ 100, SEND, 0, ENTER, "{\"username\":\"silent\"}" },
	};
	static struct actor a;

	a = (struct actor)ACTOR(silent);
	play(w, "silent", &a, 40);
	expect(w, &a, "answer {\"code\":200");
	expect(w, &a, "20.6 closed"); /* 2 × 10 s and some slack after the request */
}

/* Members of the chat's rooms, a player twice: in its own and in the world's. */
static void expect_members(struct sim *w, int n)
{
	struct sim_http_answer a;
	char line[100];
	int status = sim_http(w, "chat-1", 8400, "GET", "/metrics", NULL, NULL, 0, 2000, &a);
	const char *at = status == 200 ? strstr(a.body, "\nloquat_room_members{") : NULL;

	snprintf(line, sizeof(line), "} %d\n", n);
	sim_check(w, at && (at = strchr(at, '}')) && !strncmp(at, line, strlen(line)), "not %d members: %.80s", n,
		  at ? at : "none");
	sim_http_release(&a);
}

static void who_goes_has_left_its_rooms_at_once(struct sim *w)
{
	static const struct step comes[] = {
		{ 0, CONNECT, CONNECTOR, NULL, NULL },
		{ 50, SEND, 0, ENTER, "{\"username\":\"comes\"}" },
		{ 2000, CLOSE, 0, NULL, NULL },
	};
	static struct actor a;

	a = (struct actor)ACTOR(comes);
	play(w, "comes", &a, 1);
	expect_members(w, 2);
	sim_run_ms(w, 1100);
	expect_members(w, 0);
}

/* Whatever the links do, each player comes in in the end, and nobody stays who is not there. */
static void sessions_are_counted_right_whatever_links_do(struct sim *w)
{
	static const struct step comes[] = {
		{ 0, CONNECT, CONNECTOR, NULL, NULL },
		{ 50, SEND, 0, ENTER, "{\"username\":\"comes\"}" },
		{ 900, CLOSE, 0, NULL, NULL },
		{ 1000, CONNECT, CONNECTOR, NULL, NULL },
		{ 1050, SEND, 0, ENTER, "{\"username\":\"comes\"}" },
		{ 1900, CLOSE, 0, NULL, NULL },
	};
	static struct actor a;
	struct sim_http_answer stats;

	a = (struct actor)ACTOR(comes);
	sim_process(w, "comes", "10.0.0.1", actor_main, &a);
	for (int i = 0; i < 6 && !sim_failure(w); i++) {
		sim_run_ms(w, sim_random(w, 600));
		sim_link_reset(w, "connector-1", sim_chance(w, 500000) ? "role-1" : "chat-1");
	}
	sim_run_ms(w, 60000);
	int status = sim_http(w, "connector-1", 8050, "GET", "/stats", NULL, NULL, 0, 2000, &stats);
	sim_check(w, status == 200, "/stats says %d", status);
	sim_check(w, strstr(stats.body, "\"sessions\":0"), "somebody is left: %s", stats.body);
	sim_http_release(&stats);
	expect_members(w, 0);
}

int main(int argc, char **argv)
{
#define TEST(f, n)                                                     \
	{                                                              \
		.name = #f, .prepare = start_all, .run = f, .seeds = n \
	}
	static const struct sim_scenario list[] = {
		TEST(who_does_not_log_in_is_kicked_after_ten_seconds, 3),
		TEST(an_admission_counts_for_thirty_seconds, 3),
		TEST(a_token_is_not_good_twice_though_the_clock_was_set_back, 3),
		TEST(a_place_is_kept_for_sixty_seconds, 3),
		TEST(silence_ends_after_two_heartbeats_and_a_beat_keeps_alive, 3),
		TEST(who_goes_has_left_its_rooms_at_once, 3),
		TEST(sessions_are_counted_right_whatever_links_do, 100),
		{ .name = NULL },
	};

	return sim_main(argc, argv, list);
}
