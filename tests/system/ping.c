#include <check.h>
#include <time.h>
#include "tests/support/ping.h"
#include "tests/support/suite.h"
/*
 * The ping service of tests/sim/ping.c, the same objects, on the real environment: threads, sockets, epoll.
 */
static bool reaches(const _Atomic uint64_t *n, uint64_t goal)
{
	for (int i = 0; i < 60000 && *n < goal; i++)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	return *n >= goal;
}

static uint16_t port_of(struct ping_server *s)
{
	for (int i = 0; i < 60000 && !ping_server_port(s); i++)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	return ping_server_port(s);
}

START_TEST(the_simulated_ping_service_also_runs_on_the_real_environment)
{
	struct env *env = env_new();
	struct ping_counts counts = { 0 };
	struct ping_server *s;
	struct ping_client *c;
	ck_assert_int_eq(ping_server_start(env, "127.0.0.1", 0, &s), 0);
	uint16_t port = port_of(s);
	ck_assert_int_eq(ping_client_start(env, "127.0.0.1", port, 0, 20000, &counts, &c), 0);
	ck_assert(reaches(&counts.answered, 200));
	ping_server_stop(s); /* the client finds nobody, and then the next one */
	ck_assert(reaches(&counts.connects, 3));
	ck_assert_int_eq(ping_server_start(env, "127.0.0.1", port, &s), 0);
	ck_assert(reaches(&counts.answered, 400));
	ping_client_stop(c);
	ping_server_stop(s);
	ck_assert_uint_eq(counts.wrong, 0);
	env_free(env);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("real");
	tcase_set_timeout(t, 60);
	tcase_add_test(t, the_simulated_ping_service_also_runs_on_the_real_environment);
	return suite_run("ping", t);
}
