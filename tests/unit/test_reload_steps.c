/* deploy/loquat/reload.c and reload_passed.c alone: what its steps come to when an instance does not answer one of them, or is not ready. */
#include <check.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define env_https_call fake_https_call
#define env_http_query fake_http_query
#include "deploy/loquat/reload.c"
#include "deploy/loquat/reload_passed.c"
#include "tests/support/suite.h"

enum { CHAT_1, CHAT_2, CONNECTOR, INSTANCES };
static struct cluster cluster;
static struct loop loop;
static struct supervisor up;
static struct instance instance[INSTANCES];
static struct route_row row[INSTANCES];
static struct process { /* as it is, whatever the supervisor knows of it */
	const char *lua, *messages;
	const char *lua_prepared, *messages_prepared;
	const char *deaf; /* to this step: it does not come there */
	const char *late; /* it comes there, but not its answer */
	const char *busy; /* it does something else when this step comes */
	unsigned asked;
} process[INSTANCES];
static int refused, answered; /* the command's answer */

/* ---- the instances ------------------------------------------------------------------------------------------------ */

static void prepare(struct process *p, bool files)
{
	p->messages_prepared = "new";
	p->lua_prepared = files ? "new" : NULL;
}

static void take(struct process *p)
{
	p->messages = p->messages_prepared ? p->messages_prepared : p->messages;
	p->messages_prepared = NULL;
}

static void change(struct process *p)
{
	p->lua = p->lua_prepared ? p->lua_prepared : p->lua;
	p->lua_prepared = NULL;
}

static void act(struct process *p, const char *step, bool files)
{
	if (!strcmp(step, "prepare"))
		prepare(p, files);
	else if (!strcmp(step, "messages"))
		take(p);
	else if (!strcmp(step, "switch"))
		change(p);
	else if (!strcmp(step, "abort"))
		p->lua_prepared = p->messages_prepared = NULL;
	else if (!strcmp(step, "all")) {
		prepare(p, files);
		take(p);
		change(p);
	} else if (!strncmp(step, "rollback", 8)) {
		p->lua = strstr(step, "version=new") ? "old" : p->lua;
		p->messages = strstr(step, "messages=new") ? "old" : p->messages;
	}
}

int fake_https_call(struct env_loop *ev, struct env_tls *tls, const char *host, uint16_t port, const char *method,
		    const char *path, const char *const *headers, const void *body, size_t n, uint32_t timeout_ms,
		    void (*fn)(void *arg, const struct env_http_answer *a), void *arg)
{
	struct process *p = &process[port - 1];
	const char *at = strstr(path, "step=");
	char step[64], text[300];

	(void)ev, (void)tls, (void)host, (void)method, (void)headers, (void)body, (void)n, (void)timeout_ms;
	snprintf(step, sizeof step, "%.*s", at ? (int)(strstr(at, "&by=") - at - 5) : 3, at ? at + 5 : "all");
	bool files = !strstr(path, "what=messages") && port - 1 != CONNECTOR;
	if (strstr(step, "&what="))
		*strstr(step, "&what=") = '\0';
	p->asked++;
	if (p->deaf && !strcmp(step, p->deaf)) {
		fn(arg, &(struct env_http_answer){ .err = ERR_TIMEOUT });
		return 0;
	}
	if (p->busy && !strcmp(step, p->busy)) {
		fn(arg, &(struct env_http_answer){ .status = err_http(ERR_BUSY), .body = "{}", .n = 2 });
		return 0;
	}
	act(p, step, files);
	if (p->late && !strcmp(step, p->late)) {
		if (!instance[port - 1].here) /* a look at it was not answered either */
			instance[port - 1].child.state = CHILD_STOPPED;
		fn(arg, &(struct env_http_answer){ .err = ERR_TIMEOUT });
		return 0;
	}
	int bytes =
		snprintf(text, sizeof text,
			 "{\"version\":\"%s\",\"running\":\"%s\",\"previous\":\"\",\"messages\":{\"version\":\"%s\","
			 "\"running\":\"%s\",\"previous\":\"\"}}",
			 p->lua_prepared ? p->lua_prepared : p->lua, p->lua,
			 p->messages_prepared ? p->messages_prepared : p->messages, p->messages);
	fn(arg, &(struct env_http_answer){ .status = 200, .body = text, .n = (size_t)bytes });
	return 0;
}

const char *fake_http_query(const struct env_http_request *r, const char *name)
{
	(void)r, (void)name;
	return NULL;
}

/* ---- the rest of the supervisor ------------------------------------------------------------------------------------ */

void screen_say(struct supervisor *s, const char *fmt, ...)
{
	(void)s, (void)fmt;
}

void face_json(struct env_http_request *r, int status, json_t *json)
{
	(void)r;
	answered = status;
	json_decref(json);
}

void face_refuse(struct env_http_request *r, int err, const char *message)
{
	(void)r, (void)message;
	refused = err;
}

void watch_baseline(struct supervisor *s, const char *service, void (*done)(void *arg), void *arg)
{
	(void)s, (void)service;
	done(arg);
}

void watch_begin(struct supervisor *s, const char *service, const char *version)
{
	(void)s, (void)service, (void)version;
}

bool watch_leaves(struct supervisor *s, const char *service)
{
	(void)s, (void)service;
	return false;
}

json_t *watch_json(struct supervisor *s, const char *service)
{
	(void)s, (void)service;
	return json_null();
}

static void setup(void)
{
	static const char *const ids[] = { "chat-1", "chat-2", "connector-1" };

	up = (struct supervisor){
		.c = &cluster, .loop = &loop, .instance = instance, .instances = INSTANCES, .name = "up"
	};
	up.http = (struct env_http *)&up;
	refused = answered = 0;
	for (unsigned i = 0; i < INSTANCES; i++) {
		row[i] = (struct route_row){ .http_port = (uint16_t)(i + 1) };
		snprintf(row[i].id, sizeof row[i].id, "%s", ids[i]);
		snprintf(row[i].service, sizeof row[i].service, "%.*s", (int)strcspn(ids[i], "-"), ids[i]);
		instance[i] = (struct instance){ .up = &up, .row = &row[i], .here = true };
		instance[i].child.state = CHILD_READY;
		process[i] = (struct process){ .lua = "old", .messages = "old" };
	}
}

static void nothing(void *arg)
{
	(void)arg;
}

static void looks(void)
{
	for (unsigned i = 0; i < INSTANCES; i++)
		reload_catch_up(&instance[i]);
}

static void ck_all(const char *lua, const char *messages)
{
	for (unsigned i = 0; i < INSTANCES; i++) {
		if (i != CONNECTOR)
			ck_assert_msg(!strcmp(process[i].lua, lua), "%s runs %s", row[i].id, process[i].lua);
		ck_assert_msg(!strcmp(process[i].messages, messages), "%s goes by %s messages", row[i].id,
			      process[i].messages);
	}
}

START_TEST(all_take_what_all_have_prepared)
{
	reload_begin(&up, "chat", NULL);
	ck_assert_int_eq(answered, 200);
	ck_all("new", "new");
}
END_TEST

START_TEST(who_did_not_get_the_messages_gets_them_before_its_code_or_soon_after)
{
	process[CHAT_2].deaf = "messages";
	reload_begin(&up, "chat", NULL);
	looks();
	if (answered == 200)
		ck_all("new", "new");
	else
		ck_all("old", "old");
}
END_TEST

/* One look of a second that is not answered makes it so. */
START_TEST(who_could_not_be_reached_on_its_host_meanwhile_catches_up)
{
	instance[CONNECTOR].here = instance[CHAT_2].here = false;
	instance[CONNECTOR].child.state = instance[CHAT_2].child.state = CHILD_STOPPED;
	reload_begin(&up, "chat", NULL);
	ck_assert_int_eq(answered, 200);
	instance[CONNECTOR].child.state = instance[CHAT_2].child.state =
		CHILD_READY; /* the same process answers again */
	looks();
	ck_all("new", "new");
}
END_TEST

static void on_went_back(void *arg, struct instance *i, const struct env_http_answer *a)
{
	(void)arg;
	reload_note_back(i, a, "new", "");
}

/* As reload_watch.c does. */
static void code_goes_back(void)
{
	reload_step_all(
		&(struct reload_steps){ .up = &up, .service = "chat", .on_part = on_went_back, .done = nothing },
		"rollback&version=new");
	reload_back_elsewhere(&up, "new", "");
	reload_forget_passed(&up, "chat");
}

START_TEST(who_was_passed_by_takes_the_messages_that_stay_when_the_code_goes_back)
{
	instance[CHAT_2].child.state = CHILD_STARTING; /* it has read the files as they were before */
	reload_begin(&up, "chat", NULL);
	ck_assert_int_eq(answered, 200);
	code_goes_back();
	instance[CHAT_2].child.state = CHILD_READY;
	looks();
	ck_all("old", "new");
}
END_TEST

START_TEST(who_is_busy_when_all_go_back_does_so_afterwards)
{
	reload_begin(&up, "chat", NULL);
	process[CHAT_2].busy = "rollback&version=new";
	code_goes_back();
	process[CHAT_2].busy = NULL;
	looks();
	ck_all("old", "new");
}
END_TEST

START_TEST(who_cannot_be_reached_on_its_host_when_all_go_back_does_so_when_it_can)
{
	instance[CHAT_2].here = false;
	reload_begin(&up, "chat", NULL);
	instance[CHAT_2].child.state = CHILD_STOPPED;
	code_goes_back();
	instance[CHAT_2].child.state = CHILD_READY;
	looks();
	ck_all("old", "new");
}
END_TEST

START_TEST(who_was_lost_on_its_host_in_the_middle_leaves_lua_and_messages_with_all)
{
	instance[CHAT_2].here = false;
	process[CHAT_2].late = "switch";
	process[CHAT_1].busy = "switch";
	reload_begin(&up, "chat", NULL);
	ck_assert_int_lt(refused, 0);
	instance[CHAT_2].child.state = CHILD_READY;
	looks();
	ck_all("old", "old");
}
END_TEST

START_TEST(who_could_not_be_reached_on_its_host_at_all_takes_the_messages_that_stay)
{
	instance[CHAT_2].here = instance[CONNECTOR].here = false;
	instance[CHAT_2].child.state = instance[CONNECTOR].child.state = CHILD_STOPPED;
	reload_begin(&up, "chat", NULL);
	code_goes_back();
	instance[CHAT_2].child.state = instance[CONNECTOR].child.state = CHILD_READY;
	looks();
	ck_all("old", "new");
}
END_TEST

START_TEST(who_is_busy_when_it_may_catch_up_does_so_at_a_later_look)
{
	instance[CHAT_2].child.state = CHILD_STARTING;
	reload_begin(&up, "chat", NULL);
	instance[CHAT_2].child.state = CHILD_READY;
	process[CHAT_2].busy = "all";
	looks();
	process[CHAT_2].busy = NULL;
	looks();
	ck_all("new", "new");
}
END_TEST

START_TEST(a_step_that_only_its_answer_got_lost_of_is_taken_back_too)
{
	process[CHAT_1].late = process[CHAT_2].late = process[CONNECTOR].late = "messages";
	reload_begin(&up, "chat", NULL);
	ck_assert_int_lt(refused, 0);
	ck_all("old", "old");
}
END_TEST

/* It comes back with messages that all had left, and all have taken again meanwhile. */
START_TEST(who_goes_back_late_takes_what_was_taken_since)
{
	instance[CONNECTOR].here = false;
	process[CONNECTOR].late = "messages";
	process[CHAT_1].busy = "switch";
	reload_begin(&up, "chat", NULL);
	ck_assert_int_lt(refused, 0);
	process[CONNECTOR].late = process[CHAT_1].busy = NULL;
	reload_begin(&up, "chat", NULL);
	ck_assert_int_eq(answered, 200);
	instance[CONNECTOR].child.state = CHILD_READY;
	looks();
	looks();
	ck_all("new", "new");
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("reload steps");

	tcase_add_checked_fixture(t, setup, NULL);
	tcase_add_test(t, all_take_what_all_have_prepared);
	tcase_add_test(t, who_did_not_get_the_messages_gets_them_before_its_code_or_soon_after);
	tcase_add_test(t, who_could_not_be_reached_on_its_host_meanwhile_catches_up);
	tcase_add_test(t, who_was_passed_by_takes_the_messages_that_stay_when_the_code_goes_back);
	tcase_add_test(t, who_is_busy_when_all_go_back_does_so_afterwards);
	tcase_add_test(t, who_cannot_be_reached_on_its_host_when_all_go_back_does_so_when_it_can);
	tcase_add_test(t, who_was_lost_on_its_host_in_the_middle_leaves_lua_and_messages_with_all);
	tcase_add_test(t, who_could_not_be_reached_on_its_host_at_all_takes_the_messages_that_stay);
	tcase_add_test(t, who_is_busy_when_it_may_catch_up_does_so_at_a_later_look);
	tcase_add_test(t, a_step_that_only_its_answer_got_lost_of_is_taken_back_too);
	tcase_add_test(t, who_goes_back_late_takes_what_was_taken_since);
	return suite_run("reload_steps", t);
}
