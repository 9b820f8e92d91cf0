/*
 * versions: players who ask the scene which version of its Lua answers, again and again while it is reloaded.
 *
 * usage: versions FILE PLAYERS CONNECTOR_PORT...
 *
 * FILE holds the version that every request sent from now on must be answered by, or by a newer one; when it is gone, this ends.
 * It is read before each request of scene.sceneHandler.echo {"version":true}; the test's own Lua answers {"version":N}. Prints each
 * version as it is seen first, a line each, then "asked N". Exit 1: an answer was older than it had to be, older than the one before it to
 * the same player, or none.
 */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "tests/support/suite.h"
#include "tests/support/wireclient.h"

enum { PLAYERS_MAX = 100, VERSIONS = 10000 };

static struct {
	int n, wrong;
	char **word;
	bool seen[VERSIONS];
} args;

/* -1: the file is gone. */
static int at_least(void)
{
	FILE *f = fopen(args.word[1], "r");
	int version = -1;

	if (f && fscanf(f, "%d", &version) != 1)
		version = 0; /* it is being written */
	if (f)
		fclose(f);
	return version;
}

static int ask(struct wireclient *c)
{
	const char *answer = wireclient_ask(c, "scene.sceneHandler.echo", "{\"version\":true}");
	json_t *o = answer ? json_loads(answer, 0, NULL) : NULL;
	json_t *version = json_object_get(o, "version");
	int n = json_is_integer(version) ? (int)json_integer_value(version) : -1;

	if (n < 0)
		printf("wrong: %s\n", answer ? answer : "no answer");
	json_decref(o);
	return n;
}

static void log_in(struct wireclient *c, int i)
{
	char body[60];

	wireclient_ready(c, (uint16_t)atoi(args.word[3 + i % (args.n - 3)]), false);
	snprintf(body, sizeof body, "{\"username\":\"version-%d\",\"rid\":\"versions\"}", i);
	ck_assert_ptr_nonnull(wireclient_ask(c, "connector.entryHandler.enter", body));
	snprintf(body, sizeof body, "{\"scene\":%d}", 1 + i % 8);
	ck_assert_ptr_nonnull(wireclient_ask(c, "scene.sceneHandler.enter", body));
}

START_TEST(answers_come_from_the_version_of_now)
{
	static struct wireclient c[PLAYERS_MAX];
	static int last[PLAYERS_MAX];
	struct timespec pause = { .tv_nsec = 2000000 };
	int players = atoi(args.word[2]), least = 0;
	unsigned asked = 0;

	ck_assert_int_le(players, PLAYERS_MAX);
	for (int i = 0; i < players; i++)
		log_in(&c[i], i);
	for (int i = 0; (least = at_least()) >= 0; i = (i + 1) % players, asked++) {
		int version = ask(&c[i]);

		if (version < least || version < last[i] || version >= VERSIONS) {
			printf("wrong: player %d got %d after %d, expected %d\n", i, version, last[i], least);
			args.wrong++;
			continue;
		}
		if (!args.seen[version])
			printf("%d\n", version);
		fflush(stdout);
		args.seen[version] = true;
		last[i] = version;
		nanosleep(&pause, NULL);
	}
	for (int i = 0; i < players; i++)
		wireclient_close(&c[i]);
	printf("asked %u\n", asked);
}
END_TEST

int main(int argc, char **argv)
{
	if (argc < 4)
		return 2;
	args.n = argc;
	args.word = argv;
	return suite_run_tool("versions", answers_come_from_the_version_of_now) || args.wrong;
}
