/*
 * hostile: one player whose requests hold up the scene: each deed by turns, as soon as the one before is answered.
 *
 * usage: hostile CONNECTOR_PORT SECONDS DEED...
 *
 * A deed is asked for by scene.sceneHandler.echo {"deed":DEED}, which the test's own Lua does. A line per answer: "deed NAME code
 * CODE ms TIME". While the player rests (busy) it logs in anew and asks again every 200 ms. Exit 1: a deed was not refused.
 */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "tests/support/clock.h"
#include "tests/support/suite.h"
#include "tests/support/wireclient.h"

static int ask(struct wireclient *c, const char *route, const char *body)
{
	const char *answer = wireclient_ask(c, route, body);
	json_t *o = answer ? json_loads(answer, 0, NULL) : NULL;
	int code = (int)json_integer_value(json_object_get(o, "code"));

	json_decref(o);
	return code;
}

static struct {
	int n, failed;
	char **word;
} args;

static void log_in(struct wireclient *c)
{
	*c = (struct wireclient){ 0 };
	wireclient_ready(c, (uint16_t)atoi(args.word[1]), false);
	ck_assert_int_eq(ask(c, "connector.entryHandler.enter", "{\"username\":\"villain\"}"), 200);
	ask(c, "scene.sceneHandler.enter", "{}"); /* who rests may not */
}

START_TEST(each_deed_is_refused)
{
	struct wireclient c;
	struct timespec pause = { .tv_nsec = 200 * 1000000 };
	uint64_t until = clock_ms() + strtoull(args.word[2], NULL, 10) * 1000;
	int deed = 3;

	log_in(&c);
	while (clock_ms() < until) {
		char body[100];
		uint64_t began = clock_ms();

		snprintf(body, sizeof(body), "{\"deed\":\"%s\"}", args.word[deed]);
		int code = ask(&c, "scene.sceneHandler.echo", body);
		printf("deed %s code %d ms %llu\n", args.word[deed], code, (unsigned long long)(clock_ms() - began));
		fflush(stdout);
		args.failed |= code < 400;
		if (code == 429) {
			wireclient_close(&c);
			nanosleep(&pause, NULL);
			log_in(&c);
		} else
			deed = deed + 1 < args.n ? deed + 1 : 3;
	}
	wireclient_close(&c);
}
END_TEST

int main(int argc, char **argv)
{
	if (argc < 4)
		return 2;
	args.n = argc;
	args.word = argv;
	return suite_run_tool("hostile", each_deed_is_refused) || args.failed;
}
