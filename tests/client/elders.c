/*
 * elders: players who shook hands before the messages changed, and go on asking while they do.
 *
 * usage: elders FILE CONNECTOR_PORT...
 *
 * Three kinds, as many of each as there are connectors: one asks by the codes of its dictionary, one speaks the protobuf it was told of, one
 * neither. They ask chat.chatHandler.history again and again; every answer must be a good one, in protobuf the same bytes as the first. When FILE holds a line, each asks the route that is its first word with the rest as body, prints kind and answer, and says a
 * word to its room, whose push has to come. When FILE is gone this ends, and prints "asked N". Exit 1: an answer or a push was wrong.
 */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "tests/support/suite.h"
#include "tests/support/wireclient.h"

enum { CODED, TYPED, PLAIN, KINDS, ELDERS_MAX = 12 };
static const char *const kind_names[] = { "coded", "typed", "plain" };
static const char history[] = "chat.chatHandler.history";

struct elder {
	struct wireclient c;
	int kind;
	json_t *dict; /* route: code */
	char first[400];
	size_t first_n;
	uint32_t id;
};

static struct {
	int n, wrong;
	char **word;
} args;

static void wrong(const struct elder *e, const char *what)
{
	printf("wrong: %s: %s\n", kind_names[e->kind], what);
	args.wrong++;
}

/* By its code, if it asks so. */
static void send_to(struct elder *e, const char *route, const char *body)
{
	int code = e->kind == CODED ? (int)json_integer_value(json_object_get(e->dict, route)) : 0;
	char text[400];
	size_t n = strlen(body), route_n = strlen(route), at = 2;

	e->id = e->id % 120 + 1;
	text[0] = code ? 1 : 0;
	text[1] = (char)e->id;
	if (code) {
		text[at++] = (char)(code >> 8);
		text[at++] = (char)code;
	} else {
		text[at++] = (char)route_n;
		memcpy(text + at, route, route_n);
		at += route_n;
	}
	ck_assert_uint_lt(at + n, sizeof text);
	memcpy(text + at, body, n);
	wireclient_package(&e->c, POMELO_DATA, text, at + n);
}

/* NULL: the connection is gone. */
static const char *answer(struct elder *e, size_t *n)
{
	for (;;) {
		struct wiregot got = wireclient_next(&e->c, false);

		if (got.type != POMELO_DATA)
			return NULL;
		*n = got.m.n;
		if (got.m.kind == POMELO_RESPONSE && got.m.id == e->id)
			return got.m.body;
	}
}

/* Who speaks protobuf goes on getting the same bytes; in JSON there may be more. */
static void ask(struct elder *e)
{
	size_t n = 0;

	send_to(e, history, e->kind == TYPED ? "" : "{}");
	const char *body = answer(e, &n);

	if (!body)
		wrong(e, "no answer");
	else if (e->kind != TYPED && !strstr(body, "\"code\":200"))
		wrong(e, body);
	else if (e->kind == TYPED && e->first_n && (n != e->first_n || memcmp(body, e->first, n)))
		wrong(e, "another answer");
	else if (e->kind == TYPED && !e->first_n && n <= sizeof e->first)
		memcpy(e->first, body, e->first_n = n);
}

static void log_in(struct elder *e, int i)
{
	char hello[200], body[80], name[16];
	size_t n;

	e->kind = i % KINDS;
	wireclient_open(&e->c, (uint16_t)atoi(args.word[2 + i / KINDS % (args.n - 2)]));
	snprintf(hello, sizeof hello, "{\"sys\":{\"type\":\"js-websocket\",\"version\":\"0.0.1\"%s}}",
		 e->kind == TYPED ? ",\"protoVersion\":\"old\"" : "");
	wireclient_package(&e->c, POMELO_HANDSHAKE, hello, strlen(hello));
	struct wiregot got = wireclient_next(&e->c, false);
	json_t *o = json_loadb(got.body, got.n, 0, NULL);

	e->dict = json_incref(json_object_get(json_object_get(o, "sys"), "dict"));
	ck_assert_ptr_nonnull(e->dict);
	ck_assert((e->kind == TYPED) == json_is_true(json_object_get(json_object_get(o, "sys"), "useProto")));
	json_decref(o);
	wireclient_package(&e->c, POMELO_ACK, NULL, 0);
	int own = (int)getpid() % 1000; /* others run at once */
	snprintf(name, sizeof name, "elder-%03d%03d", own, i);
	snprintf(body, sizeof body,
		 e->kind == TYPED ? "\x12\x0c%s\x1a\x06room%02d" : "{\"username\":\"%s\",\"rid\":\"room%02d\"}", name,
		 own % 100);
	send_to(e, "connector.entryHandler.enter", body);
	ck_assert_ptr_nonnull(answer(e, &n));
	ask(e);
}

/* The push is told by its text or by the code that this client knows. */
static bool hears(struct elder *e)
{
	int code = (int)json_integer_value(json_object_get(e->dict, "onChat"));

	for (;;) {
		struct wiregot got = wireclient_next(&e->c, false);

		if (got.type != POMELO_DATA)
			return false;
		if (got.m.kind == POMELO_PUSH &&
		    (got.m.code ? got.m.code == code : got.m.route_n == 6 && !memcmp(got.m.route, "onChat", 6)))
			return true;
	}
}

static void ask_new(struct elder *e, char *line)
{
	size_t n = 0;
	char *body = strchr(line, ' ');

	ck_assert_ptr_nonnull(body);
	*body = '\0';
	send_to(e, line, body + 1);
	const char *text = answer(e, &n);

	printf("%s %.*s\n", kind_names[e->kind], text ? (int)n : 4, text ? text : "none");
	*body = ' ';
	send_to(e, "chat.chatHandler.send",
		e->kind == TYPED ? "\x0a\x02hi\x12\x01*" : "{\"content\":\"hi\",\"target\":\"*\"}");
	if (!hears(e))
		wrong(e, "its push does not come");
}

/* false: the file is gone, or enough is wrong. line: what it holds. */
static bool told(char *line, size_t size)
{
	FILE *f = fopen(args.word[1], "r");

	line[0] = '\0';
	if (!f || args.wrong > 5) {
		if (f)
			fclose(f);
		return false;
	}
	if (!fgets(line, (int)size, f))
		line[0] = '\0';
	line[strcspn(line, "\n")] = '\0';
	fclose(f);
	return true;
}

START_TEST(they_go_on)
{
	static struct elder e[ELDERS_MAX];
	struct timespec pause = { .tv_nsec = 1000000 };
	int n = KINDS * (args.n - 2);
	unsigned asked = 0;
	char line[200];
	bool done = false;

	ck_assert_int_le(n, ELDERS_MAX);
	for (int i = 0; i < n; i++)
		log_in(&e[i], i);
	printf("ready\n");
	for (int i = 0; told(line, sizeof line); i = (i + 1) % n, asked++) {
		if (*line && !done) {
			for (int k = 0; k < n; k++)
				ask_new(&e[k], line);
			for (int k = 0; k < n; k++)
				e[k].first_n = 0; /* the history has what they said */
			done = true;
		}
		ask(&e[i]);
		fflush(stdout);
		nanosleep(&pause, NULL);
	}
	for (int i = 0; i < n; i++) {
		json_decref(e[i].dict);
		wireclient_close(&e[i].c);
	}
	printf("asked %u\n", asked);
}
END_TEST

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	args.n = argc;
	args.word = argv;
	return suite_run_tool("elders", they_go_on) || args.wrong;
}
