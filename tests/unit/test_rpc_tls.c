/* Inner links under mutual TLS: what rpc.tls promises, beneath the proof of the cluster key. */
#include <arpa/inet.h>
#include <check.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tests/support/calls.h"
#include "tests/support/certs.h"
#include "tests/support/folder.h"
#include "tests/support/suite.h"

static struct calls c;
static struct reply reply;
static char *dir, lua[1200];
static struct certs *ours;

static void setup_with(const char *cert, const char *key, const char *ca)
{
	snprintf(lua, sizeof lua, "rpc = { tls = { cert = '%s/%s', key = '%s/%s', ca = '%s/%s' } },", dir, cert, dir,
		 key, dir, ca);
	calls_setup(&c, &(struct calls_options){ .threads = 2, .lua = lua });
}

static void setup(void)
{
	dir = folder_new();
	ours = certs_new(dir, "ours");
	certs_sign(ours, dir, "node");
	setup_with("node.pem", "node.key", "ours.ca.pem");
}

static void teardown(void)
{
	calls_teardown(&c);
	certs_free(ours);
	folder_free(dir);
}

static void ck_answered(const char *key)
{
	calls_ask(c.s[CALLER], "calls.boxRemote.put", key, "{}", &reply);
	ck_assert_msg(reply.err == 0, "%s", reply.message);
}

START_TEST(calls_are_answered_over_tls)
{
	char key[16];

	calls_both(&c);
	for (int i = 0; i < 100; i++) {
		snprintf(key, sizeof key, "k%d", i);
		ck_answered(key);
	}
	ck_assert_uint_eq(calls_run(CALLS), 100);
}
END_TEST

START_TEST(who_speaks_no_tls_gets_no_word_out_of_it)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	struct timeval patience = { .tv_sec = 10 };
	char text[64] = "\x0c\0\0\0\1\0\0\0hello, world", got[256];

	calls_both(&c);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	a.sin_port = htons(c.rpc[CALLS]);
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
	ck_assert_int_eq(send(fd, text, sizeof text, MSG_NOSIGNAL), sizeof text);
	ssize_t n = recv(fd, got, sizeof got, 0), more = n > 0 ? recv(fd, got, sizeof got, 0) : n;

	ck_assert_msg(n <= 0 || got[0] == 21 /* an alert of TLS */, "it answered %zd bytes", n);
	ck_assert_int_le(more, 0);
	close(fd);
	ck_answered("k");
}
END_TEST

START_TEST(a_service_of_another_authority_is_not_called)
{
	struct certs *theirs = certs_new(dir, "theirs");

	calls_both(&c);
	ck_answered("k");
	calls_end(&c, CALLER);
	certs_sign(theirs, dir, "node"); /* over the old files: who starts now shows these */
	calls_begin(&c, CALLER, &calls_caller);
	struct rpc_call wish = { .to = { .worker = -1, .key = span_of("k", 1) },
				 .body = span_of("{}", 2),
				 .timeout_ms = 500 };

	calls_call(c.s[CALLER], 0, "calls.boxRemote.put", wish, &reply);
	reply_wait(&reply);
	ck_assert_int_lt(reply.err, 0);
	ck_assert_int_eq(reply.effect, EFFECT_NONE);
	ck_assert_uint_eq(calls_run(CALLS), 1);
	certs_free(theirs);
}
END_TEST

START_TEST(certificates_are_renewed_under_running_links)
{
	calls_both(&c);
	ck_answered("before");
	for (int i = 0; i < 3; i++) {
		certs_sign(ours, dir, "node"); /* seen half written too: then it is refused, and read again */
		ck_answered("meanwhile");
		calls_cut(c.s[CALLS]);
		until((calls_ask(c.s[CALLER], "calls.boxRemote.get", "after", "{}", &reply), reply.err == 0));
	}
}
END_TEST

/* How often the log of this process, caught in that file, says it. */
static bool says(const char *path, const char *text)
{
	char line[600];
	bool found = false;
	FILE *f = fopen(path, "r");

	ck_assert_ptr_nonnull(f);
	while (!found && fgets(line, sizeof line, f))
		found = strstr(line, text) != NULL;
	fclose(f);
	return found;
}

START_TEST(a_certificate_that_ends_soon_is_told_of_while_there_is_time)
{
	enum { DAY = 86400 };
	char path[400];
	int before = dup(STDERR_FILENO);

	calls_teardown(&c);
	certs_sign_for(ours, dir, "node", -90 * DAY, 20 * DAY);
	snprintf(
		lua, sizeof lua,
		"log = { level = 'warn' }, rpc = { tls = { cert = '%s/node.pem', key = '%s/node.key', ca = '%s/ours.ca.pem' } },",
		dir, dir, dir);
	calls_setup(&c, &(struct calls_options){ .lua = lua });
	snprintf(path, sizeof path, "%s/log", c.dir);
	ck_assert_ptr_nonnull(freopen(path, "w", stderr));
	calls_begin(&c, CALLS, &calls_box);
	int64_t left_s = calls_figure(c.s[CALLS], "loquat_tls_expires_timestamp_seconds") / 1000 -
			 (int64_t)(env_wall_us(c.env) / 1000000);

	ck_assert(left_s > 19 * DAY && left_s <= 20 * DAY);
	certs_sign_for(ours, dir, "node", -90 * DAY, 13 * DAY + 1800);
	until(says(path, "tls.expires of=rpc.tls"));
	ck_assert(!says(path, "tls.expired"));
	certs_sign_for(ours, dir, "node", -90 * DAY, -2 * DAY);
	until(says(path, "tls.expired of=rpc.tls"));
	ck_assert(says(path, " in_hours=312"));
	certs_sign_for(ours, dir, "node", -DAY, 2 * DAY); /* it lives three days: renewed each other day */
	until(calls_figure(c.s[CALLS], "loquat_tls_expires_timestamp_seconds") / 1000 >
	      (int64_t)(env_wall_us(c.env) / 1000000));
	calls_end(&c, CALLS);
	dup2(before, STDERR_FILENO);
	close(before);
	ck_assert(!says(path, " in_hours=47"));
}
END_TEST

START_TEST(a_file_that_is_missing_ends_the_start_and_is_named)
{
	calls_teardown(&c);
	setup_with("nowhere.pem", "node.key", "ours.ca.pem");
	const char *why = calls_try(&c, CALLS, &calls_box);

	ck_assert_msg(why && strstr(why, "nowhere.pem"), "%s", why ? why : "it started");
	calls_teardown(&c);
	calls_setup(&c, &(struct calls_options){ .lua = "rpc = { tls = { cert = 'a.pem' } }," });
	why = calls_try(&c, CALLS, &calls_box);
	ck_assert_msg(why && strstr(why, "rpc.tls.key"), "%s", why ? why : "it started");
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("rpc_tls");
	tcase_set_timeout(t, 30);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, calls_are_answered_over_tls);
	tcase_add_test(t, who_speaks_no_tls_gets_no_word_out_of_it);
	tcase_add_test(t, a_service_of_another_authority_is_not_called);
	tcase_add_test(t, certificates_are_renewed_under_running_links);
	tcase_add_test(t, a_certificate_that_ends_soon_is_told_of_while_there_is_time);
	tcase_add_test(t, a_file_that_is_missing_ends_the_start_and_is_named);
	return suite_run("rpc_tls", t);
}
