/* The promises of rpc/messages.h: a process takes new messages while it runs, as a whole or not at all, and may go back. */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/http.h"
#include "rpc/messages.h"
#include "rpc/service_private.h"
#include "tests/support/changed.h"
#include "tests/support/folder.h"
#include "tests/support/on_loop.h"
#include "tests/support/scripted.h"
#include "tests/support/suite.h"

static struct http_reply http;

static void messages_are(changed_fn *change)
{
	size_t n;
	char *bytes = changed_bytes(change, &n), path[400];
	snprintf(path, sizeof path, "%s/messages.desc", c.dir);
	FILE *f = fopen(path, "wb");

	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(bytes, 1, n, f), n);
	ck_assert_int_eq(fclose(f), 0);
	free(bytes);
}

static void setup_threads(unsigned threads)
{
	calls_setup(&c, &(struct calls_options){ .threads = threads, .messages = "messages.desc" });
	messages_are(NULL);
}

static void setup_one(void)
{
	setup_threads(1);
}

static void setup_three(void)
{
	setup_threads(3);
}

/* What the step leaves: the version that is used. */
static const char *reload(unsigned which, const char *step)
{
	static char running[16];
	char path[120];

	snprintf(path, sizeof path, "/admin/reload%s", step);
	ck_assert_msg(calls_http(&c, which, "POST", path, true, "", &http) == 200, "%s", http.body);
	json_t *o = http_body_json(&http);
	snprintf(running, sizeof running, "%s", http_body_word(json_object_get(o, "messages"), "running"));
	json_decref(o);
	return running;
}

static void add_mood(pb_set *set)
{
	changed_add_field(set, "calls.Text", "mood", 7);
	changed_add_method(set, "calls.boxRemote", "cheer", ".calls.Text", ".calls.Text");
}

static void ask_with(unsigned worker, const char *method, const char *json)
{
	struct rpc_call call = { .to = { .instance = "calls-1", .worker = (int)worker },
				 .body = span_of(json, strlen(json)) };

	calls_call(c.s[CALLER], 0, method, call, &reply);
	reply_wait(&reply);
}

static void ck_all_workers(const char *method, const char *json, const char *body)
{
	for (unsigned i = 0; i < c.s[CALLS]->workers; i++) {
		ask_with(i, method, json);
		ck_says(&reply, body);
	}
}

#define OLD "function Remote.put(args) return {text = args.text} end"
#define NEW                                                                           \
	"function Remote.put(args) return {text = args.text, mood = args.mood} end\n" \
	"function Remote.cheer(args) return {mood = 'high'} end"

static void ck_new(void)
{
	ck_all_workers("calls.boxRemote.put", "{\"text\":\"a\",\"mood\":\"good\"}",
		       "{\"text\":\"a\",\"mood\":\"good\"}");
	ck_all_workers("calls.boxRemote.cheer", "{}", "{\"mood\":\"high\"}");
}

static void ck_old(void)
{
	ck_all_workers("calls.boxRemote.put", "{\"text\":\"a\"}", "{\"text\":\"a\"}");
	ask_with(0, "calls.boxRemote.put", "{\"mood\":\"good\"}");
	ck_reply(&reply, ERR_BAD_REQUEST, EFFECT_NONE);
}

START_TEST(new_fields_and_methods_are_taken_with_the_code_that_uses_them)
{
	begin(OLD);
	ck_old();
	char before[16];
	snprintf(before, sizeof before, "%s", reload(CALLER, "?step=prepare"));
	messages_are(add_mood);
	remotes(NEW);
	ck_assert_str_ne(reload(CALLS, ""), before);
	ck_assert_str_ne(reload(CALLER, ""), before);
	ck_new();
	ck_assert_int_eq(calls_figure(c.s[CALLS], "loquat_messages_taken_total"), 1);
}
END_TEST

START_TEST(what_is_prepared_is_used_after_its_step_and_not_before)
{
	begin(OLD);
	messages_are(add_mood);
	remotes(NEW);
	reload(CALLER, "");
	reload(CALLS, "?step=prepare");
	ck_old();
	ask_with(0, "calls.boxRemote.cheer", "{}");
	ck_reply(&reply, ERR_NOT_FOUND, EFFECT_NONE);
	reload(CALLS, "?step=messages");
	ck_all_workers("calls.boxRemote.put", "{\"text\":\"a\",\"mood\":\"good\"}", "{\"text\":\"a\"}");
	reload(CALLS, "?step=switch");
	ck_new();
}
END_TEST

START_TEST(what_was_dropped_may_be_prepared_again)
{
	begin(OLD);
	messages_are(add_mood);
	remotes(NEW);
	reload(CALLER, "");
	for (int i = 0; i < 3; i++) {
		reload(CALLS, "?step=prepare");
		reload(CALLS, "?step=abort");
		reload(CALLS, "?step=messages");
		reload(CALLS, "?step=switch");
		ck_old();
	}
	reload(CALLS, "");
	ck_new();
}
END_TEST

static void add_many(pb_set *set)
{
	char name[40];

	add_mood(set);
	for (int i = 0; i < 200; i++) {
		snprintf(name, sizeof name, "a_name_that_is_new_%d", i);
		changed_add_field(set, "calls.Text", name, 100 + i);
	}
}

/* As who adds a field, is refused for its Lua, adds more, is refused again, takes that back. See it with ASan. */
START_TEST(an_older_set_that_was_dropped_may_be_prepared_again_after_a_larger_one)
{
	begin(OLD);
	for (int i = 0; i < 3; i++) {
		messages_are(add_mood);
		reload(CALLS, "?step=prepare");
		reload(CALLS, "?step=abort");
		messages_are(add_many);
		reload(CALLS, "?step=prepare");
		reload(CALLS, "?step=abort");
	}
	messages_are(add_mood);
	remotes(NEW);
	reload(CALLER, "");
	reload(CALLS, "");
	ck_new();
}
END_TEST

START_TEST(an_instance_that_went_on_with_the_old_is_asked_as_before)
{
	begin(OLD);
	messages_are(add_mood);
	reload(CALLER, "");
	ck_all_workers("calls.boxRemote.put", "{\"text\":\"a\"}", "{\"text\":\"a\"}");
	ask_with(0, "calls.boxRemote.cheer", "{}");
	ck_reply(&reply, ERR_NOT_FOUND, EFFECT_NONE);
}
END_TEST

START_TEST(code_that_refuses_the_switch_takes_the_messages_back)
{
	begin(OLD);
	char before[16], path[80];
	snprintf(before, sizeof before, "%s", reload(CALLS, "?step=prepare"));
	messages_are(add_mood);
	remotes(NEW);
	calls_file(&c, "init.lua",
		   "return { on_reload = function() assert(app.worker ~= app.workers - 1, 'not here') end }\n");
	reload(CALLER, "");
	calls_http(&c, CALLS, "POST", "/admin/reload", true, "", &http);
	ck_http_error(&http, 500, "failed", "none");
	ck_assert_str_eq(reload(CALLS, "?step=abort"), before);
	ck_old();
	ask_with(0, "calls.boxRemote.cheer", "{}");
	ck_reply(&reply, ERR_NOT_FOUND, EFFECT_NONE);
	calls_file(&c, "init.lua", "return {}\n");
	char taken[16];
	snprintf(taken, sizeof taken, "%s", reload(CALLS, ""));
	ck_new();
	reload(CALLS, "?step=rollback&messages=000000000000"); /* nobody uses these */
	ck_new();
	snprintf(path, sizeof path, "?step=rollback&messages=%s", taken);
	ck_assert_str_eq(reload(CALLS, path), before);
	ask_with(0, "calls.boxRemote.cheer", "{}");
	ck_reply(&reply, ERR_NOT_FOUND, EFFECT_NONE);
	reload(CALLS, "");
	ck_new();
}
END_TEST

static void number_text(pb_set *set)
{
	changed_field(set, "calls.Text", "words")->number = 9;
}

START_TEST(messages_that_others_would_not_understand_are_refused_by_name)
{
	begin(OLD);
	messages_are(number_text);
	remotes(NEW);
	calls_http(&c, CALLS, "POST", "/admin/reload", true, "", &http);
	ck_http_error(&http, 500, "failed", "none");
	ck_assert_ptr_nonnull(strstr(http.body, "calls.Text.words: its number was 3 and is 9"));
	ck_assert_ptr_nonnull(strstr(http.body, "put it back and run `make`, or start all instances anew"));
	ck_old();
	remotes("function Remote.put(args) return {text = args.text .. '!'} end");
	reload(CALLS, "?what=lua");
	ck_all_workers("calls.boxRemote.put", "{\"text\":\"a\"}", "{\"text\":\"a!\"}");
}
END_TEST

static int nth;

static void add_nth(pb_set *set)
{
	char name[24];

	snprintf(name, sizeof name, "field_%d", nth);
	changed_add_field(set, "calls.Text", name, 100);
}

START_TEST(sets_that_were_only_prepared_are_kept_too_and_the_refusal_says_so)
{
	begin(OLD);
	for (nth = 1; nth < MESSAGES_MAX; nth++) {
		messages_are(add_nth);
		reload(CALLS, "?step=prepare&what=messages");
	}
	messages_are(add_nth);
	calls_http(&c, CALLS, "POST", "/admin/reload?step=prepare&what=messages", true, "", &http);
	ck_http_error(&http, 500, "failed", "none");
	ck_assert_ptr_nonnull(strstr(http.body, "this process has read 200 different sets of messages, used or not"));
	nth = 7;
	messages_are(add_nth);
	reload(CALLS, "?step=prepare&what=messages");
	ck_old();
}
END_TEST

static void add_other(pb_set *set)
{
	changed_add_field(set, "calls.Text", "other", 9);
}

/* Who catches up is given what the others go by, not what was made since. */
START_TEST(messages_of_another_version_than_is_wanted_are_not_taken)
{
	char before[16], path[80];

	begin(OLD);
	snprintf(before, sizeof before, "%s", reload(CALLER, "?step=prepare&what=messages"));
	messages_are(add_mood);
	snprintf(path, sizeof path, "?what=changed&messages=%s", reload(CALLER, ""));
	messages_are(add_other);
	char whole[120];
	snprintf(whole, sizeof whole, "/admin/reload%s", path);
	calls_http(&c, CALLS, "POST", whole, true, "", &http);
	ck_http_error(&http, 503, "unavailable", "none");
	ck_assert_ptr_nonnull(strstr(http.body, "it has changed since"));
	snprintf(whole, sizeof whole, "?what=changed&messages=%s", before);
	ck_assert_str_eq(reload(CALLS, whole), before); /* it goes by them, whatever lies there */
	ck_old();
	messages_are(add_mood);
	ck_assert_str_eq(reload(CALLS, path), strstr(path, "&messages=") + strlen("&messages="));
}
END_TEST

/* The request was read by the old message; by the time it is answered the code is new. */
static bool waits(void)
{
	put("{}", &reply);
	ck_reply(&reply, 0, EFFECT_NONE);
	return !strcmp(reply.body, "{\"text\":\"waits\"}");
}

START_TEST(who_waits_meanwhile_is_answered_by_the_new_message)
{
	begin("function Remote.put() return {text = state.waits} end\n"
	      "function Remote.late(args)\n"
	      "  state.waits = 'waits'\n"
	      "  while not state.go do clock.sleep(2) end\n"
	      "  return state.answer()\n"
	      "end");
	start_on(CALLER, "calls.boxRemote.late", "{}", 30000, &second);
	until(waits());
	messages_are(add_mood);
	remotes(NEW "\nfunction Remote.get() state.go = true return {} end");
	calls_file(&c, "init.lua",
		   "return { on_reload = function() state.answer = function() return { mood = 'later' } end end }\n");
	reload(CALLS, "");
	reload(CALLER, "");
	ck_all_workers("calls.boxRemote.get", "{}", "{}");
	reply_wait(&second);
	ck_says(&second, "{\"mood\":\"later\"}");
}
END_TEST

START_TEST(files_name_new_methods_at_their_top_and_kept_functions_learn_new_fields)
{
	begin(OLD "\nstate.put = state.put or app.rpc.calls.boxRemote.put\n"
		  "function Remote.get() return state.put('k', {text = 'x'}) end");
	ck_all_workers("calls.boxRemote.get", "{}", "{\"text\":\"x\"}");
	messages_are(add_mood);
	remotes(NEW "\nlocal cheer = app.rpc.calls.boxRemote.cheer\n"
		    "function Remote.get()\n"
		    "  return {text = cheer('k', {}).mood, mood = state.put('k', {mood = 'fine'}).mood}\n"
		    "end");
	reload(CALLS, "");
	reload(CALLER, "");
	ck_all_workers("calls.boxRemote.get", "{}", "{\"text\":\"high\",\"mood\":\"fine\"}");
}
END_TEST

/* ---- a hand-over that comes to nothing: the face is closed meanwhile --------------------------------------------------- */

static void close_face(void *arg)
{
	struct service *s = arg;

	http_face_shut(s->p->http);
	http_face_stop(s->p->http);
	s->p->http = NULL;
}

static void open_face(void *arg)
{
	struct service *s = arg;

	if (!s->p->http)
		http_face_start(s, &s->p->http);
}

static void face_anew(struct service *s)
{
	on_loop(s->control, close_face, s);
	while (!s->p->http)
		on_loop(s->control, open_face, s);
}

START_TEST(a_reload_goes_on_when_the_face_is_opened_anew)
{
	begin(OLD);
	char before[16], back[80];
	snprintf(before, sizeof before, "%s", reload(CALLS, "?step=abort"));
	messages_are(add_mood);
	remotes(NEW);
	reload(CALLER, "");
	reload(CALLS, "?step=prepare");
	face_anew(c.s[CALLS]);
	ck_assert_str_ne(reload(CALLS, "?step=messages"), before);
	reload(CALLS, "?step=switch");
	ck_new();
	face_anew(c.s[CALLS]);
	snprintf(back, sizeof back, "?step=rollback&messages=%s", schema_version(c.s[CALLS]->schema));
	ck_assert_str_eq(reload(CALLS, back), before);
}
END_TEST

static void shut_when_asked(void *arg)
{
	struct service *s = c.s[CALLS];
	bool *shut = arg;

	*shut = !http_face_quiet(s->p->http);
	if (*shut)
		http_face_shut(s->p->http);
}

START_TEST(a_step_that_the_workers_are_at_is_noted_when_the_face_is_shut)
{
	begin(OLD);
	static struct loop_hold busy;
	char before[16];
	bool shut = false;
	snprintf(before, sizeof before, "%s", reload(CALLS, "?step=abort"));
	messages_are(add_mood);
	reload(CALLS, "?step=prepare&what=messages");
	loop_hold(c.s[CALLS]->worker[0]->loop, &busy);
	int fd = calls_http_send(&c, CALLS, "POST", "/admin/reload?step=messages", true, "");
	while (!shut)
		on_loop(c.s[CALLS]->control, shut_when_asked, &shut);
	loop_let_go(&busy);
	ck_assert_int_eq(calls_http_take(fd, &http), 200);
	face_anew(c.s[CALLS]);
	ck_assert_str_ne(reload(CALLS, "?step=abort"), before);
}
END_TEST

static TCase *cases(const char *name, void (*set_up)(void))
{
	TCase *t = scripted_case(name, set_up);

	tcase_add_test(t, new_fields_and_methods_are_taken_with_the_code_that_uses_them);
	tcase_add_test(t, what_is_prepared_is_used_after_its_step_and_not_before);
	tcase_add_test(t, what_was_dropped_may_be_prepared_again);
	tcase_add_test(t, an_older_set_that_was_dropped_may_be_prepared_again_after_a_larger_one);
	tcase_add_test(t, an_instance_that_went_on_with_the_old_is_asked_as_before);
	tcase_add_test(t, code_that_refuses_the_switch_takes_the_messages_back);
	tcase_add_test(t, messages_that_others_would_not_understand_are_refused_by_name);
	tcase_add_test(t, sets_that_were_only_prepared_are_kept_too_and_the_refusal_says_so);
	tcase_add_test(t, messages_of_another_version_than_is_wanted_are_not_taken);
	tcase_add_test(t, who_waits_meanwhile_is_answered_by_the_new_message);
	tcase_add_test(t, files_name_new_methods_at_their_top_and_kept_functions_learn_new_fields);
	tcase_add_test(t, a_reload_goes_on_when_the_face_is_opened_anew);
	tcase_add_test(t, a_step_that_the_workers_are_at_is_noted_when_the_face_is_shut);
	return t;
}

int main(void)
{
	return suite_run("messages", cases("one worker", setup_one), cases("three workers", setup_three));
}
