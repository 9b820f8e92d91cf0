#include "tests/support/scripted.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/support/folder.h"

struct calls c;
struct reply reply, second, third;

void setup_with(unsigned threads, const char *lua)
{
	calls_setup(&c, &(struct calls_options){ .threads = threads, .lua = lua });
}

void setup_calls(void)
{
	setup_with(1, "sqllog = { linger_us = 0 },");
}

void setup_short_budget(void)
{
	setup_with(1, "sqllog = { linger_us = 0 }, lua = { budget_ms = 40 },");
}

static void teardown_calls(void)
{
	calls_teardown(&c);
}

TCase *scripted_case(const char *name, void (*set_up)(void))
{
	TCase *t = tcase_create(name);

	tcase_add_checked_fixture(t, set_up, teardown_calls);
	tcase_set_timeout(t, 60);
	return t;
}

/* ---- remotes ------------------------------------------------------------------------------------------------------- */

void remotes(const char *text)
{
	char file[4000];

	snprintf(file, sizeof(file), "state.t = state.t or {}\nlocal Remote = {}\n%s\nreturn Remote\n", text);
	calls_file(&c, "boxRemote.lua", file);
}

void begin(const char *text)
{
	remotes(text);
	calls_begin(&c, CALLS, &calls_lua);
	calls_begin(&c, CALLER, &calls_caller);
}

void put(const char *json, struct reply *r)
{
	calls_ask(c.s[CALLER], "calls.boxRemote.put", "k", json, r);
}

void get(struct reply *r)
{
	calls_ask(c.s[CALLER], "calls.boxRemote.get", "k", "{}", r);
}

void start_on(unsigned from, const char *method, const char *json, uint32_t timeout_ms, struct reply *r)
{
	struct rpc_call call = { .to = { .worker = -1, .key = span_of("k", 1) },
				 .body = span_of(json, strlen(json)),
				 .timeout_ms = timeout_ms };

	calls_call(c.s[from], 0, method, call, r);
}

void start_put(const char *json, struct reply *r)
{
	start_on(CALLER, "calls.boxRemote.put", json, 0, r);
}

void ck_says(const struct reply *r, const char *body)
{
	ck_reply(r, 0, EFFECT_NONE);
	ck_assert_str_eq(r->body, body);
}

void ck_put(const char *json, const char *body)
{
	put(json, &reply);
	ck_says(&reply, body);
}

const char *log_text(void)
{
	static char *text;
	char path[400];
	struct buf b = BUF_INIT;

	free(text);
	for (int i = 1; i < 9; i++) {
		snprintf(path, sizeof(path), "var/sqllog/calls-1/%08d.sql", i);
		if (folder_size(c.dir, path) < 0)
			continue;
		size_t n;
		char *part = folder_read(c.dir, path, &n);
		buf_add(&b, part, n);
		free(part);
	}
	text = strdup(buf_cstr(&b));
	buf_release(&b);
	return text;
}

/* ---- sessions ------------------------------------------------------------------------------------------------------ */

void say_as(const char *uid, uint64_t sid, const char *json, uint32_t timeout_ms, struct reply *r)
{
	struct rpc_call call = { .to = { .worker = -1, .key = span_of("u", 1) },
				 .body = span_of(json, strlen(json)),
				 .timeout_ms = timeout_ms,
				 .sid = sid,
				 .uid = span_of(uid, strlen(uid)) };

	calls_call(c.s[CONNECTOR], 0, "calls.boxHandler.say", call, r);
}

void say(uint64_t sid, const char *json, uint32_t timeout_ms, struct reply *r)
{
	say_as("ann", sid, json, timeout_ms, r);
}

void ask_as(const char *uid, uint64_t sid, const char *json, struct reply *r)
{
	say_as(uid, sid, json, 0, r);
	reply_wait(r);
}

void ask(uint64_t sid, const char *json, struct reply *r)
{
	say(sid, json, 0, r);
	reply_wait(r);
}

void ck_ask(uint64_t sid, const char *json, const char *body)
{
	struct reply r;

	ask(sid, json, &r);
	ck_says(&r, body);
}

void begin_sessions(const char *text)
{
	char file[4000];

	snprintf(file, sizeof(file),
		 "state.t = state.t or { queue = {}, list = {} }\nlocal Handler = {}\n%s\nreturn Handler\n", text);
	calls_file(&c, "boxHandler.lua", file);
	calls_begin(&c, CALLS, &calls_lua);
	calls_begin(&c, CONNECTOR, &calls_connector);
}

bool told(const char *words)
{
	size_t n;
	bool found;

	if (folder_size(c.dir, "var/told") < 0)
		return false;
	char *text = folder_read(c.dir, "var/told", &n);
	found = memmem(text, n, words, strlen(words)) != NULL;
	free(text);
	return found;
}
