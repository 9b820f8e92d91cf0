/* The promises of common/env.h about TLS: between two of ours, and to a client of OpenSSL's own, as players have one. */
#include <arpa/inet.h>
#include <check.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <openssl/ssl.h>
#include "common/env.h"
#include "common/err.h"
#include "common/stream.h"
#include "tests/support/certs.h"
#include "tests/support/flag.h"
#include "tests/support/folder.h"
#include "tests/support/on_loop.h"
#include "tests/support/suite.h"

#define BIG (1u << 20)

static struct env *env;
static struct loop *here, *there;
static char *dir;
static struct certs *ours, *theirs;
static struct env_tls *server_tls, *client_tls;
static struct env_listener *listener;
static char error[300];

struct end { /* of a connection: the server echoes, the client counts */
	struct stream stream;
	struct flag opened, closed, got;
	bool echoes, started;
	int err;
	char words[200];
	_Atomic uint64_t bytes; /* the test's thread looks while they come */
	uint32_t sum;
};
static struct end client, server;

static struct end *end_of(struct stream *s)
{
	return (struct end *)((char *)s - offsetof(struct end, stream));
}

static ssize_t on_data(struct stream *s, const char *data, size_t n)
{
	struct end *e = end_of(s);

	if (e->echoes)
		ck_assert_int_eq(stream_write(s, data, n), 0);
	for (size_t i = 0; i < n; i++)
		e->sum = e->sum * 31 + (unsigned char)data[i];
	e->bytes += n;
	flag_raise(&e->got);
	return (ssize_t)n;
}

static void on_open(struct stream *s)
{
	flag_raise(&end_of(s)->opened);
}

static void on_close(struct stream *s, int err)
{
	struct end *e = end_of(s);

	e->err = err;
	e->started = false;
	snprintf(e->words, sizeof e->words, "%s", env_last_error());
	flag_raise(&e->closed);
}

static const struct stream_ops ops = { .on_data = on_data, .on_open = on_open, .on_close = on_close };

static void end_init(struct end *e, bool echoes)
{
	*e = (struct end){ .echoes = echoes, .err = 1 };
	flag_init(&e->opened);
	flag_init(&e->closed);
	flag_init(&e->got);
}

static void on_accept(void *arg, struct env_conn *conn)
{
	(void)arg;
	server.started = true;
	stream_accept(&server.stream, there, conn, &ops, 1 << 16, 4 * BIG);
}

static void listen_there(void *arg)
{
	(void)arg;
	ck_assert_int_eq(env_listen(there->ev, "127.0.0.1", 0, on_accept, NULL, &listener), 0);
	env_listener_tls(listener, server_tls);
}

static void close_there(void *arg)
{
	(void)arg;
	env_listener_close(listener);
	if (server.started)
		stream_close(&server.stream, 0);
}

static void close_here(void *arg)
{
	(void)arg;
	if (client.started)
		stream_close(&client.stream, 0);
}

static void connect_here(void *arg)
{
	(void)arg;
	ck_assert_int_eq(stream_connect(&client.stream, here, "127.0.0.1", env_listener_port(listener), &ops, 1 << 16,
					4 * BIG),
			 0);
	client.started = true;
	if (client_tls)
		ck_assert_int_eq(env_conn_tls(client.stream.conn, client_tls), 0);
}

static struct env_tls *context(const char *name, const char *ca)
{
	char cert[400], key[400], trust[400];
	struct env_tls *t;
	struct env_tls_options o = { cert, key, ca ? trust : NULL };

	snprintf(cert, sizeof cert, "%s/%s.pem", dir, name);
	snprintf(key, sizeof key, "%s/%s.key", dir, name);
	snprintf(trust, sizeof trust, "%s/%s.ca.pem", dir, ca ? ca : "");
	ck_assert_msg(env_tls_new(env, &o, error, sizeof error, &t) == 0, "%s", error);
	return t;
}

static void setup(void)
{
	env = env_new();
	here = on_loop_new(env, "here");
	there = on_loop_new(env, "there");
	dir = folder_new();
	ours = certs_new(dir, "ours");
	theirs = certs_new(dir, "theirs");
	certs_sign(ours, dir, "server");
	certs_sign(ours, dir, "client");
	certs_sign(theirs, dir, "stranger");
	server_tls = context("server", "ours");
	client_tls = NULL;
	end_init(&client, false);
	end_init(&server, true);
	on_loop(there, listen_there, NULL);
}

static void teardown(void)
{
	on_loop(here, close_here, NULL);
	on_loop(there, close_there, NULL);
	on_loop_turns(here);
	on_loop_turns(there);
	on_loop_free(here);
	on_loop_free(there);
	env_tls_free(server_tls);
	env_tls_free(client_tls);
	certs_free(ours);
	certs_free(theirs);
	folder_free(dir);
	env_free(env);
}

static void open_client(void)
{
	client_tls = context("client", "ours");
	on_loop(here, connect_here, NULL);
	ck_assert(flag_wait(&client.opened, 1));
}

static void send_big(void *arg)
{
	char block[1000];

	(void)arg;
	for (unsigned i = 0; i < BIG; i += sizeof block) {
		memset(block, (int)(i / sizeof block % 251), sizeof block);
		ck_assert_int_eq(stream_write(&client.stream, block, BIG - i < sizeof block ? BIG - i : sizeof block),
				 0);
	}
}

static void wait_for_bytes(struct end *e, uint64_t n)
{
	for (unsigned long i = 1; e->bytes < n; i++)
		ck_assert(flag_wait(&e->got, i));
}

START_TEST(bytes_pass_both_ways_whole_and_in_order)
{
	open_client();
	on_loop(here, send_big, NULL);
	wait_for_bytes(&client, BIG);
	on_loop_turns(there);
	ck_assert_uint_eq(server.bytes, BIG);
	ck_assert_uint_eq(client.bytes, BIG);
	ck_assert_uint_eq(client.sum, server.sum);
}
END_TEST

START_TEST(a_close_is_heard_by_the_other_side)
{
	open_client();
	on_loop(here, send_big, NULL);
	wait_for_bytes(&client, BIG);
	on_loop(here, close_here, NULL);
	ck_assert(flag_wait(&server.closed, 1));
	ck_assert_int_eq(server.err, 0);
}
END_TEST

START_TEST(a_client_of_another_authority_is_refused)
{
	client_tls = context("stranger", "ours");
	on_loop(here, connect_here, NULL);
	ck_assert(flag_wait(&server.closed, 1));
	ck_assert_int_eq(server.err, ERR_DENIED);
	ck_assert_msg(strstr(server.words, "certificate"), "%s", server.words);
	ck_assert(flag_wait(&client.closed, 1));
	ck_assert_int_lt(client.err, 0);
	ck_assert_uint_eq(server.bytes, 0);
}
END_TEST

START_TEST(a_server_of_another_authority_is_refused)
{
	client_tls = context("client", "theirs");
	on_loop(here, connect_here, NULL);
	ck_assert(flag_wait(&client.closed, 1));
	ck_assert_int_eq(client.err, ERR_DENIED);
	ck_assert_uint_eq(flag_count(&client.opened), 0);
	ck_assert_msg(strstr(client.words, "certificate"), "%s", client.words);
}
END_TEST

static void say_plainly(void *arg)
{
	(void)arg;
	stream_write(&client.stream, "hello, is there anybody?", 24);
}

START_TEST(who_speaks_no_tls_is_refused)
{
	on_loop(here, connect_here, NULL);
	ck_assert(flag_wait(&client.opened, 1));
	on_loop(here, say_plainly, NULL);
	ck_assert(flag_wait(&server.closed, 1));
	ck_assert_int_eq(server.err, ERR_DENIED);
	ck_assert_uint_eq(server.bytes, 0);
}
END_TEST

START_TEST(files_that_are_none_are_named)
{
	struct env_tls *t;
	char cert[400], key[400];
	struct env_tls_options o = { cert, key, NULL };

	snprintf(cert, sizeof cert, "%s/nowhere.pem", dir);
	snprintf(key, sizeof key, "%s/server.key", dir);
	ck_assert_int_eq(env_tls_new(env, &o, error, sizeof error, &t), ERR_CONFIG);
	ck_assert_msg(strstr(error, "nowhere.pem"), "%s", error);
	snprintf(cert, sizeof cert, "%s/client.pem", dir); /* another's key */
	ck_assert_int_eq(env_tls_new(env, &o, error, sizeof error, &t), ERR_CONFIG);
	ck_assert_msg(strstr(error, "server.key"), "%s", error);
}
END_TEST

/* ---- a client of OpenSSL's own -------------------------------------------------------------------------------------- */

static SSL *dial(SSL_CTX *ctx, SSL_SESSION *session)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(env_listener_port(listener)) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct timeval patience = { .tv_sec = 60 };
	SSL *ssl = SSL_new(ctx);

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
	SSL_set_fd(ssl, fd);
	if (session)
		SSL_set_session(ssl, session);
	if (SSL_connect(ssl) == 1)
		return ssl;
	close(fd);
	SSL_free(ssl);
	return NULL;
}

static void hang_up(SSL *ssl)
{
	int fd = SSL_get_fd(ssl);

	SSL_shutdown(ssl);
	SSL_free(ssl);
	close(fd);
}

static void ck_echo(SSL *ssl, const char *text)
{
	char got[64] = "";

	ck_assert_int_eq(SSL_write(ssl, text, (int)strlen(text)), (int)strlen(text));
	ck_assert_int_eq(SSL_read(ssl, got, sizeof got - 1), (int)strlen(text));
	ck_assert_str_eq(got, text);
}

static void serve_players(void *arg)
{
	(void)arg;
	env_tls_free(server_tls);
	server_tls = context("server", NULL);
	env_listener_tls(listener, server_tls);
}

static const char *name_of(SSL *ssl, char out[64])
{
	X509 *x = SSL_get1_peer_certificate(ssl);

	X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_commonName, out, 64);
	X509_free(x);
	return out;
}

START_TEST(a_player_comes_back_with_its_session_also_after_a_reload)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

	on_loop(there, serve_players, NULL);
	SSL *ssl = dial(ctx, NULL);
	ck_assert_ptr_nonnull(ssl);
	ck_echo(ssl, "first");
	SSL_SESSION *session = SSL_get1_session(ssl);
	hang_up(ssl);
	ck_assert(flag_wait(&server.closed, 1));
	ck_assert_ptr_nonnull(ssl = dial(ctx, session));
	ck_echo(ssl, "again");
	ck_assert_int_eq(SSL_session_reused(ssl), 1);
	SSL_SESSION_free(session);
	session = SSL_get1_session(ssl);
	hang_up(ssl);
	ck_assert(flag_wait(&server.closed, 2));
	ck_assert_msg(env_tls_reload(server_tls, error, sizeof error) == 0, "%s", error);
	ck_assert_ptr_nonnull(ssl = dial(ctx, session));
	ck_echo(ssl, "reload");
	ck_assert_int_eq(SSL_session_reused(ssl), 1);
	hang_up(ssl);
	SSL_SESSION_free(session);
	SSL_CTX_free(ctx);
}
END_TEST

START_TEST(a_new_certificate_is_shown_to_new_connections_and_nobody_is_dropped)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	char path[400], was[400], name[64];

	on_loop(there, serve_players, NULL);
	SSL *old = dial(ctx, NULL), *fresh;
	ck_assert_ptr_nonnull(old);
	ck_echo(old, "before");
	snprintf(path, sizeof path, "%s/server.pem", dir);
	folder_write(dir, "server.pem", "no certificate", 14);
	ck_assert_int_eq(env_tls_reload(server_tls, error, sizeof error), ERR_CONFIG);
	ck_assert_msg(strstr(error, "server.pem"), "%s", error);
	certs_sign(ours, dir, "renewed");
	snprintf(was, sizeof was, "%s/renewed.pem", dir);
	ck_assert_int_eq(rename(was, path), 0);
	snprintf(path, sizeof path, "%s/server.key", dir);
	snprintf(was, sizeof was, "%s/renewed.key", dir);
	ck_assert_int_eq(rename(was, path), 0);
	ck_assert_msg(env_tls_reload(server_tls, error, sizeof error) == 0, "%s", error);
	ck_echo(old, "after");
	ck_assert_str_eq(name_of(old, name), "server");
	hang_up(old);
	ck_assert(flag_wait(&server.closed, 1));
	ck_assert_ptr_nonnull(fresh = dial(ctx, NULL));
	ck_assert_str_eq(name_of(fresh, name), "renewed");
	hang_up(fresh);
	SSL_CTX_free(ctx);
}
END_TEST

START_TEST(tls_1_2_is_spoken_and_nothing_older)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	SSL *ssl;

	on_loop(there, serve_players, NULL);
	SSL_CTX_set_max_proto_version(ctx, TLS1_2_VERSION);
	ck_assert_ptr_nonnull(ssl = dial(ctx, NULL));
	ck_echo(ssl, "1.2");
	hang_up(ssl);
	ck_assert(flag_wait(&server.closed, 1));
	SSL_CTX_set_min_proto_version(ctx, 0);
	SSL_CTX_set_security_level(ctx, 0);
	SSL_CTX_set_max_proto_version(ctx, TLS1_1_VERSION);
	ck_assert_ptr_null(dial(ctx, NULL));
	SSL_CTX_free(ctx);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("tls");
	tcase_set_timeout(t, 30);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, bytes_pass_both_ways_whole_and_in_order);
	tcase_add_test(t, a_close_is_heard_by_the_other_side);
	tcase_add_test(t, a_client_of_another_authority_is_refused);
	tcase_add_test(t, a_server_of_another_authority_is_refused);
	tcase_add_test(t, who_speaks_no_tls_is_refused);
	tcase_add_test(t, files_that_are_none_are_named);
	tcase_add_test(t, a_player_comes_back_with_its_session_also_after_a_reload);
	tcase_add_test(t, a_new_certificate_is_shown_to_new_connections_and_nobody_is_dropped);
	tcase_add_test(t, tls_1_2_is_spoken_and_nothing_older);
	return suite_run("env_real_tls", t);
}
