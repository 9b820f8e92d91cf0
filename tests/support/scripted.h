#pragma once
#include <check.h>
#include "tests/support/calls.h"
/*
 * scripted: instances (calls.h) that run a test's own Lua, made and ended around each test.
 *
 * Service "calls" has the remote boxRemote, of which a test writes put, get …, or the handler boxHandler, of which it writes
 * say. caller-1 asks the one, by key "k"; connector-1 asks the other, for the player ann or who is named.
 *
 * Threads: the test's own. Trouble fails the test.
 */
extern struct calls c;
extern struct reply reply, second, third;

void setup_with(unsigned threads, const char *lua); /* of calls_options */
void setup_calls(void);                             /* one worker */
/* Its scripts have 40 ms: for tests of that alone. A slow processor may need more for others; and much more would break links. */
void setup_short_budget(void);
TCase *scripted_case(const char *name, void (*set_up)(void)); /* with teardown_calls, and a minute for each test */

void remotes(const char *text); /* writes boxRemote.lua: text defines Remote.put and others; state.t is a table */
void begin(const char *text);   /* and starts calls-1 and caller-1 */
void put(const char *json, struct reply *r);
void get(struct reply *r);
/* Does not wait for the answer. timeout_ms 0: a minute. */
void start_on(unsigned from, const char *method, const char *json, uint32_t timeout_ms, struct reply *r);
void start_put(const char *json, struct reply *r);
void ck_says(const struct reply *r, const char *body);
void ck_put(const char *json, const char *body); /* put answers this text */
const char *log_text(void);                      /* all that the SQL log of calls-1 holds; good until the next call */

void begin_sessions(const char *text); /* boxHandler.lua: text defines Handler.say; starts calls-1 and connector-1 */
/* The session's request; does not wait for the answer. */
void say(uint64_t sid, const char *json, uint32_t timeout_ms, struct reply *r);
void say_as(const char *uid, uint64_t sid, const char *json, uint32_t timeout_ms, struct reply *r);
void ask_as(const char *uid, uint64_t sid, const char *json, struct reply *r);
void ask(uint64_t sid, const char *json, struct reply *r);     /* and its answer; in the method's own time */
void ck_ask(uint64_t sid, const char *json, const char *body); /* the answer is this text */
bool told(const char *words);                                  /* the connector was told that */
