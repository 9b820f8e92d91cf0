#include "tests/support/edgeplay.h"
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct edgecluster cluster;
const unsigned threads[] = { 1, 3 };

void edge_begin(int i, const char *lua)
{
	edgecluster_start(&cluster, &(struct edgecluster_options){ .threads = threads[i], .lua = lua });
}

void edge_end(void)
{
	edgecluster_stop(&cluster);
}

void expect(const char *answer, const char *part)
{
	ck_assert_msg(answer && strstr(answer, part), "%s is not in %s", part, answer ? answer : "(closed)");
}

const char *member(const char *answer, const char *name)
{
	static char text[2][800];
	static int turn;
	json_t *o = json_loads(answer ? answer : "", 0, NULL), *v = json_object_get(o, name);
	char *out = text[turn ^= 1];

	if (json_is_integer(v))
		snprintf(out, 800, "%lld", (long long)json_integer_value(v));
	else
		snprintf(out, 800, "%s", json_string_value(v) ? json_string_value(v) : "");
	json_decref(o);
	return out;
}

const char *enter_guest(struct wireclient *c, int connector, const char *name)
{
	char body[200];

	wireclient_ready(c, cluster.connector_port[connector], false);
	snprintf(body, sizeof(body), "{\"username\":\"%s\",\"rid\":\"lobby\"}", name);
	return wireclient_ask(c, ENTER, body);
}

const char *query(struct wireclient *gate, int i, const char *body)
{
	const char *answer;

	wireclient_ready(gate, cluster.gate_port[i], false);
	for (;;) {
		answer = wireclient_ask(gate, QUERY, body);
		if (!answer || !strstr(answer, "\"code\":503"))
			return answer;
		nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
	}
}

void give_back(char body[GIVE_BACK_MAX], const char *answer, const char *name)
{
	ck_assert_str_ne(member(answer, name), "");
	snprintf(body, GIVE_BACK_MAX, "{\"%s\":\"%s\"}", name, member(answer, name));
}

void enter_to_resume(struct wireclient *c, const char *name, uint64_t *sid, char resume[GIVE_BACK_MAX])
{
	give_back(resume, enter_guest(c, 0, name), "resume");
	wireclient_ask(c, "scene.sceneHandler.enter", "{\"scene\":1}");
	*sid = cluster.sid;
}

static const char *enter_by(struct wireclient *c, const char *way, bool web)
{
	char body[GIVE_BACK_MAX];

	give_back(body, way, "token");
	wireclient_ready(c, (uint16_t)atoi(member(way, "port")), web);
	return wireclient_ask(c, ENTER, body);
}

void enter_by_gate(struct wireclient *c, const char *query_body)
{
	struct wireclient gate;
	const char *way = query(&gate, 0, query_body);

	if (strstr(way, "\"code\":202")) /* the gate does not know yet what is free, as a connector was slow to tell */
		way = wireclient_push(&gate, "onAdmit");
	expect(enter_by(c, way, true), "\"code\":200");
	wireclient_close(&gate);
}

const char *enter_admitted(struct wireclient *c, const char *way, const char *uid)
{
	ck_assert_str_eq(member(way, "uid"), uid);
	const char *answer = enter_by(c, way, false);
	expect(answer, "\"code\":200");
	return answer;
}
