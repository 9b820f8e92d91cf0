/* The life of a service: what ends its start with one clear line, and that nothing is left behind. */
#include <arpa/inet.h>
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tests/support/calls.h"
#include "tests/support/folder.h"
#include "tests/support/suite.h"

static struct calls c;
static struct reply reply;

static void setup(void)
{
	calls_setup(&c, &(struct calls_options){ .threads = 3 });
}

static void teardown(void)
{
	calls_teardown(&c);
}

static const char *try(const struct service_def *def)
{
	const char *why = calls_try(&c, CALLS, def);

	ck_assert_msg(why, "it started");
	ck_assert_msg(!strchr(why, '\n'), "more than one line: %s", why);
	return why;
}

#define ck_names(why, part) ck_assert_msg(strstr((why), (part)), "\"%s\" is not named: %s", (part), (why))

static int take_port(uint16_t port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)); /* the port is held for us */
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	ck_assert_int_eq(listen(fd, 1), 0);
	return fd;
}

START_TEST(a_taken_port_ends_the_start_and_is_named)
{
	char port[8];
	int fd = take_port(c.rpc[CALLS]);
	const char *why = try(&calls_box);

	snprintf(port, sizeof(port), "%u", c.rpc[CALLS]);
	ck_names(why, port);
	ck_names(why, "calls-1");
	close(fd);
	fd = take_port(c.http[CALLS]);
	why = try(&calls_box);
	snprintf(port, sizeof(port), "%u", c.http[CALLS]);
	ck_names(why, port);
	close(fd);
	calls_begin(&c, CALLS, &calls_box); /* nothing was left half-started */
}
END_TEST

START_TEST(a_missing_file_ends_the_start_and_is_named)
{
	struct service_options o = { .config_file = "/nowhere/cluster.lua", .instance = "calls-1" };
	char error[600];
	struct service *s;

	ck_assert_int_lt(service_start(c.env, &calls_box, &o, error, sizeof(error), &s), 0);
	ck_names(error, "/nowhere/cluster.lua");
}
END_TEST

START_TEST(an_instance_that_is_not_in_the_configuration_is_named)
{
	struct service_options o = { .config_file = c.config, .instance = "calls-7" };
	char error[600];
	struct service *s;

	ck_assert_int_lt(service_start(c.env, &calls_box, &o, error, sizeof(error), &s), 0);
	ck_names(error, "calls-7");
	o.instance = "caller-1"; /* another service's */
	ck_assert_int_lt(service_start(c.env, &calls_box, &o, error, sizeof(error), &s), 0);
	ck_names(error, "caller-1");
}
END_TEST

START_TEST(an_unknown_key_or_a_wrong_type_is_named_with_its_path)
{
	calls_teardown(&c);
	calls_setup(&c, &(struct calls_options){ .lua = "rpc = { tiemout_ms = 5 }," });
	ck_names(try(&calls_box), "rpc.tiemout_ms");
	calls_teardown(&c);
	calls_setup(&c, &(struct calls_options){ .lua = "rpc = { timeout_ms = 'soon' }," });
	ck_names(try(&calls_box), "rpc.timeout_ms");
	calls_teardown(&c);
	calls_setup(&c, &(struct calls_options){ .lua = "log = { level = 'loud' }," });
	ck_names(try(&calls_box), "log.level");
}
END_TEST

START_TEST(a_key_file_that_holds_no_key_is_named)
{
	calls_begin(&c, CALLS, &calls_box);
	calls_end(&c, CALLS);
	folder_write(c.dir, "var/keys/cluster.key", "not a key", 9);
	ck_names(try(&calls_box), "var/keys/cluster.key");
}
END_TEST

START_TEST(the_keys_written_at_the_first_start_stay)
{
	size_t n;

	calls_begin(&c, CALLS, &calls_box);
	char *key = folder_read(c.dir, "var/keys/cluster.key", &n);
	ck_assert_uint_eq(n, 64);
	ck_assert_uint_eq(strspn(key, "0123456789abcdef"), 64);
	calls_end(&c, CALLS);
	calls_begin(&c, CALLS, &calls_box);
	ck_assert_str_eq(c.s[CALLS]->cluster_key, key);
	free(key);
}
END_TEST

START_TEST(the_epoch_grows_with_each_start)
{
	calls_file(&c, "boxRemote.lua", "return {}\n");
	uint64_t first = calls_begin(&c, CALLS, &calls_lua)->epoch;

	calls_end(&c, CALLS);
	ck_assert_uint_gt(calls_begin(&c, CALLS, &calls_lua)->epoch, first);
	uint64_t caller = calls_begin(&c, CALLER, &calls_caller)->epoch;
	calls_end(&c, CALLER);
	ck_assert_uint_gt(calls_begin(&c, CALLER, &calls_caller)->epoch, caller);
}
END_TEST

/* ---- the hooks of a definition ----------------------------------------------------------------------------------- */

static _Atomic int inits, starts, drains, stops, service_stops, frees;
static _Atomic bool init_fails, start_fails;

static int count_init(struct service *s)
{
	(void)s;
	inits++;
	return init_fails ? ERR_FAILED : 0;
}

static int count_start(struct worker *w)
{
	starts++;
	return start_fails && w->index == 1 ? ERR_FAILED : 0;
}

static void count_drain(struct worker *w)
{
	ck_assert(env_loop_is_current(w->loop->ev));
	drains++;
}

static void count_stop(struct worker *w)
{
	ck_assert(env_loop_is_current(w->loop->ev));
	stops++;
}

static void count_service_stop(struct service *s)
{
	ck_assert(env_loop_is_current(s->control->ev));
	ck_assert_int_eq(stops, 0);
	service_stops++;
}

static void count_free(struct service *s)
{
	ck_assert(env_loop_is_current(s->control->ev));
	ck_assert_int_eq(stops, starts);
	frees++;
}

static const struct service_def counting = {
	.name = "calls",
	.init_service = count_init,
	.free_service = count_free,
	.worker_start = count_start,
	.worker_drain = count_drain,
	.worker_stop = count_stop,
	.stop_service = count_service_stop,
};

START_TEST(each_hook_comes_once_and_in_its_place)
{
	calls_begin(&c, CALLS, &counting);
	ck_assert_int_eq(inits, 1);
	ck_assert_int_eq(starts, 3);
	ck_assert_int_eq(drains + stops + service_stops, 0);
	calls_end(&c, CALLS);
	ck_assert_int_eq(drains, 3);
	ck_assert_int_eq(service_stops, 1);
	ck_assert_int_eq(stops, 3);
	ck_assert_int_eq(frees, 1);
}
END_TEST

START_TEST(an_init_that_fails_ends_the_start)
{
	init_fails = true;
	ck_names(try(&counting), "init_service");
	ck_assert_int_eq(starts, 0);
	ck_assert_int_eq(frees, 1); /* it may have been half done */
}
END_TEST

START_TEST(a_worker_that_does_not_start_ends_the_start)
{
	start_fails = true;
	ck_names(try(&counting), "worker 1");
	ck_assert_int_eq(service_stops, 0); /* it was never in the routing */
	ck_assert_int_eq(frees, 1);
}
END_TEST

static _Atomic int stopped;

static void on_stopped(void *arg, struct service *s)
{
	(void)arg, (void)s;
	stopped++;
}

START_TEST(one_that_may_not_take_over_ends_and_frees_what_it_made)
{
	struct service_options o = {
		.config_file = c.config, .instance = "calls-1", .take_over = true, .on_stopped = on_stopped
	};
	char error[600];
	struct service *s;

	ck_assert_int_eq(service_start(c.env, &counting, &o, error, sizeof(error), &s), 0);
	loop_join(s->control);
	ck_names(service_failure(s), "cannot take over");
	ck_assert_int_eq(inits, 1);
	ck_assert_int_eq(frees, 1);
	ck_assert_int_eq(starts, 0);
	service_free(s);
}
END_TEST

START_TEST(an_instance_may_be_stopped_at_any_moment_of_its_start)
{
	for (int i = 0; i < 30; i++) {
		struct service_options o = { .config_file = c.config, .instance = "calls-1", .on_stopped = on_stopped };
		char error[600];
		struct service *s;

		ck_assert_int_eq(service_start(c.env, &calls_box, &o, error, sizeof(error), &s), 0);
		for (volatile int k = 0; k < i * i * 1000; k++) {
		}
		service_stop(s);
		service_stop(s); /* twice is once */
		loop_join(s->control);
		ck_assert_ptr_null(service_failure(s));
		ck_assert_int_eq(stopped, i + 1);
		service_free(s);
	}
}
END_TEST

START_TEST(a_busy_worker_is_waited_for)
{
	calls_begin(&c, CALLS, &calls_box);
	atomic_store(&c.s[CALLS]->worker[2]->busy, 1);
	service_stop(c.s[CALLS]);
	until(atomic_load(&c.s[CALLS]->state) == SERVICE_DRAINING);
	calls_begin(&c, CALLER, &calls_caller);
	struct rpc_call call = { .to = { .instance = "calls-1", .worker = 1 } };
	calls_call(c.s[CALLER], 0, "calls.boxRemote.put", call, &reply); /* its sessions are served meanwhile */
	reply_wait(&reply);
	ck_assert_int_eq(reply.err, 0);
	ck_assert_int_eq(atomic_load(&c.s[CALLS]->state), SERVICE_DRAINING);
	atomic_store(&c.s[CALLS]->worker[2]->busy, 0);
	loop_join(c.s[CALLS]->control);
	service_free(c.s[CALLS]);
	c.s[CALLS] = NULL;
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("service");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, a_taken_port_ends_the_start_and_is_named);
	tcase_add_test(t, a_missing_file_ends_the_start_and_is_named);
	tcase_add_test(t, an_instance_that_is_not_in_the_configuration_is_named);
	tcase_add_test(t, an_unknown_key_or_a_wrong_type_is_named_with_its_path);
	tcase_add_test(t, a_key_file_that_holds_no_key_is_named);
	tcase_add_test(t, the_keys_written_at_the_first_start_stay);
	tcase_add_test(t, the_epoch_grows_with_each_start);
	tcase_add_test(t, each_hook_comes_once_and_in_its_place);
	tcase_add_test(t, an_init_that_fails_ends_the_start);
	tcase_add_test(t, a_worker_that_does_not_start_ends_the_start);
	tcase_add_test(t, one_that_may_not_take_over_ends_and_frees_what_it_made);
	tcase_add_test(t, an_instance_may_be_stopped_at_any_moment_of_its_start);
	tcase_add_test(t, a_busy_worker_is_waited_for);
	return suite_run("service", t);
}
