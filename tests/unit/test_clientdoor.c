/* The promises of rpc/clientdoor.h, and of what clientlisten.h and clientconn.h make of it, over real sockets. */
#include <check.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include "tests/support/certs.h"
#include "tests/support/clientserver.h"
#include "tests/support/folder.h"
#include "tests/support/on_loop.h"
#include "tests/support/suite.h"
#include "tests/support/wireclient.h"

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define FROM_1234 SIGNATURE "\x21\x11\0\x0c\1\2\3\4\5\6\7\x08\x10\xe1\0\x50" /* 1.2.3.4:4321 */
#define HELLO     "\x01\0\0\x0a{\"sys\":{}}"
#define BYTES(s)  (s), sizeof(s) - 1

/* A server that tells each client its address. */
static struct clientserver s;
static char *folder;
static struct certs *authority;
static struct balancers *balancers;

static void on_message(struct clientconn *c, const struct pomelo_message *m)
{
	char text[100];

	clientconn_respond(c, m->id, text, (size_t)snprintf(text, sizeof text, "{\"addr\":\"%s\"}", c->addr));
}

static void serve(bool tls, const char *balancer)
{
	char cert[300], key[300], error[200];
	size_t wrong;

	if (balancer)
		ck_assert_int_eq(balancers_new(&balancer, 1, &balancers, &wrong), 0);
	if (tls) {
		authority = certs_new(folder, "authority");
		certs_sign(authority, folder, "players");
		snprintf(cert, sizeof cert, "%s/players.pem", folder);
		snprintf(key, sizeof key, "%s/players.key", folder);
		struct env_tls_options o = { cert, key, NULL };
		ck_assert_msg(env_tls_new(s.env, &o, error, sizeof error, &s.o.tls) == 0, "%s", error);
	}
	s.face.balancers = s.o.balancers = balancers;
	clientserver_open(&s);
}

static void setup(void)
{
	clientserver_init(&s, on_message);
	folder = folder_new();
	authority = NULL;
	balancers = NULL;
}

static void teardown(void)
{
	clientserver_release(&s);
	balancers_free(balancers);
	env_tls_free(s.o.tls);
	if (authority)
		certs_free(authority);
	folder_free(folder);
}

/* What the server takes this client for; "" when it closes. */
static const char *known_as(struct wireclient *c)
{
	static char addr[ENV_ADDR_MAX];
	struct wiregot got = wireclient_next(c, false);

	if (got.type != POMELO_HANDSHAKE)
		return "";
	wireclient_package(c, POMELO_ACK, NULL, 0);
	const char *answer = wireclient_ask(c, "who", "{}");
	ck_assert_int_eq(sscanf(answer, "{\"addr\":\"%63[^\"]", addr), 1);
	return addr;
}

/* Sends these bytes and a handshake as a fresh connection. */
static const char *come_with(const void *bytes, size_t n)
{
	static char addr[ENV_ADDR_MAX];
	struct wireclient c;

	wireclient_open(&c, s.port);
	wireclient_raw(&c, bytes, n);
	wireclient_raw(&c, BYTES(HELLO));
	snprintf(addr, sizeof addr, "%s", known_as(&c));
	wireclient_close(&c);
	return addr;
}

/* ---- TLS */

struct secure {
	int fd;
	SSL *ssl;
};

static struct secure dial(SSL_CTX *ctx, SSL_SESSION *session, const void *first, size_t n)
{
	struct wireclient c;
	struct timeval wait = { .tv_sec = 60 };

	wireclient_open(&c, s.port);
	struct secure out = { c.fd, SSL_new(ctx) };
	setsockopt(out.fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
	wireclient_raw(&c, first, n);
	SSL_set_fd(out.ssl, out.fd);
	if (session)
		SSL_set_session(out.ssl, session);
	ck_assert_int_eq(SSL_connect(out.ssl), 1);
	return out;
}

static void hang_up(struct secure *c)
{
	SSL_shutdown(c->ssl);
	SSL_free(c->ssl);
	close(c->fd);
}

/* A handshake over it, to its reply's first bytes: tickets come with them. */
static void greets(struct secure *c)
{
	char reply[200];

	ck_assert_int_eq(SSL_write(c->ssl, HELLO, sizeof(HELLO) - 1), (int)sizeof(HELLO) - 1);
	ck_assert_int_gt(SSL_read(c->ssl, reply, sizeof reply), 4);
	ck_assert_int_eq(reply[0], POMELO_HANDSHAKE);
}

START_TEST(tls_and_plain_clients_are_served_on_one_port)
{
	static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	struct wireclient c;

	serve(true, NULL);
	for (int i = 0; i < 2; i++) {
		SSL_CTX_set_min_proto_version(ctx, versions[i]);
		SSL_CTX_set_max_proto_version(ctx, versions[i]);
		struct secure t = dial(ctx, NULL, NULL, 0);
		greets(&t);
		hang_up(&t);
		wireclient_ready(&c, s.port, i);
		ck_assert_ptr_nonnull(strstr(wireclient_ask(&c, "who", "{}"), "127.0.0.1"));
		wireclient_close(&c);
	}
	SSL_CTX_free(ctx);
}
END_TEST

START_TEST(older_tls_is_refused)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	struct wireclient c;

	serve(true, NULL);
	SSL_CTX_set_security_level(ctx, 0);
	SSL_CTX_set_min_proto_version(ctx, TLS1_1_VERSION);
	SSL_CTX_set_max_proto_version(ctx, TLS1_1_VERSION);
	wireclient_open(&c, s.port);
	SSL *ssl = SSL_new(ctx);
	SSL_set_fd(ssl, c.fd);
	ck_assert_int_ne(SSL_connect(ssl), 1);
	SSL_free(ssl);
	wireclient_close(&c);
	SSL_CTX_free(ctx);
}
END_TEST

static X509 *shown(struct secure *c)
{
	return SSL_get1_peer_certificate(c->ssl);
}

START_TEST(a_new_certificate_drops_nobody_and_sessions_resume)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	char error[200];

	serve(true, NULL);
	struct secure stays = dial(ctx, NULL, NULL, 0);
	greets(&stays);
	SSL_SESSION *session = SSL_get1_session(stays.ssl);
	certs_sign(authority, folder, "players");
	ck_assert_int_eq(env_tls_reload(s.o.tls, error, sizeof error), 0);
	struct secure fresh = dial(ctx, NULL, NULL, 0), back = dial(ctx, session, NULL, 0);
	greets(&fresh);
	greets(&back);
	ck_assert_int_eq(SSL_session_reused(back.ssl), 1);
	X509 *before = shown(&stays), *after = shown(&fresh);
	ck_assert_int_ne(X509_cmp(before, after), 0);
	X509_free(before);
	X509_free(after);
	/* it still speaks */
	ck_assert_int_eq(SSL_write(stays.ssl, "\x02\0\0\0", 4), 4);
	char beat[4];
	ck_assert_int_eq(SSL_read(stays.ssl, beat, 4), 4);
	ck_assert_int_eq(beat[0], POMELO_HEARTBEAT);
	hang_up(&stays);
	hang_up(&fresh);
	hang_up(&back);
	SSL_SESSION_free(session);
	SSL_CTX_free(ctx);
}
END_TEST

START_TEST(where_tls_is_required_plain_is_closed_but_for_balancers)
{
	struct wireclient c;

	s.o.tls_required = true;
	serve(true, "127.0.0.2");
	wireclient_open(&c, s.port);
	wireclient_raw(&c, BYTES(HELLO));
	ck_assert(wireclient_closed(&c));
	wireclient_close(&c);
}
END_TEST

START_TEST(a_balancer_may_have_taken_tls_off)
{
	s.o.tls_required = true;
	serve(true, "127.0.0.1");
	ck_assert_str_eq(come_with(BYTES(FROM_1234)), "1.2.3.4:4321");
}
END_TEST

/* ---- balancers */

START_TEST(the_header_of_a_trusted_balancer_names_the_player)
{
	struct wireclient c;

	serve(false, "127.0.0.0/8");
	ck_assert_str_eq(come_with(BYTES(FROM_1234)), "1.2.3.4:4321");
	ck_assert_int_eq(strncmp(come_with(BYTES(SIGNATURE "\x20\0\0\0")), "127.0.0.1:", 10), 0);
	ck_assert_int_eq(strncmp(come_with("", 0), "127.0.0.1:", 10), 0); /* none: its own */
	/* byte by byte */
	wireclient_open(&c, s.port);
	for (size_t i = 0; i < sizeof(FROM_1234 HELLO) - 1; i++)
		wireclient_raw(&c, (FROM_1234 HELLO) + i, 1);
	ck_assert_str_eq(known_as(&c), "1.2.3.4:4321");
	wireclient_close(&c);
}
END_TEST

START_TEST(tls_may_come_behind_the_header)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

	serve(true, "127.0.0.1");
	struct secure t = dial(ctx, NULL, BYTES(FROM_1234));
	greets(&t);
	hang_up(&t);
	SSL_CTX_free(ctx);
}
END_TEST

START_TEST(a_strangers_header_ends_the_connection)
{
	serve(false, "10.0.0.0/8");
	ck_assert_str_eq(come_with(BYTES(FROM_1234)), "");
}
END_TEST

START_TEST(a_broken_header_and_a_second_one_end_the_connection)
{
	serve(false, "127.0.0.1");
	ck_assert_str_eq(come_with(BYTES("\r\n\r\n\1")), "");
	ck_assert_str_eq(come_with(BYTES(SIGNATURE "\x21\x11\xff\xff")), "");
	ck_assert_str_eq(come_with(BYTES(FROM_1234 FROM_1234)), "");
}
END_TEST

START_TEST(connections_are_counted_for_the_player_behind_the_balancer)
{
	struct wireclient c[2], other;

	s.o.per_address_max = 2;
	serve(false, "127.0.0.1");
	for (int i = 0; i < 2; i++) {
		wireclient_open(&c[i], s.port);
		wireclient_raw(&c[i], BYTES(FROM_1234 HELLO));
		ck_assert_str_eq(known_as(&c[i]), "1.2.3.4:4321");
	}
	ck_assert_str_eq(come_with(BYTES(FROM_1234)), "");
	wireclient_open(&other, s.port); /* another player's, and the balancer itself has no bound */
	wireclient_raw(&other, BYTES(SIGNATURE "\x21\x11\0\x0c\1\2\3\5\5\6\7\x08\x10\xe1\0\x50" HELLO));
	ck_assert_str_eq(known_as(&other), "1.2.3.5:4321");
	wireclient_close(&other);
	wireclient_close(&c[0]);
	wireclient_close(&c[1]);
	ck_assert(flag_wait(&s.freed, 3)); /* these and the other player's; of the one too many nothing was made */
	ck_assert_str_eq(come_with(BYTES(FROM_1234)), "1.2.3.4:4321");
}
END_TEST

/* How many of so many connections of one player's are closed. They come in few seconds, however slow the machine is. */
static int closed_of(int many)
{
	struct wireclient c[30];
	int closed = 0;

	ck_assert_int_le(many, 30);
	for (int i = 0; i < many; i++) {
		wireclient_open(&c[i], s.port);
		wireclient_raw(&c[i], BYTES(FROM_1234 HELLO));
	}
	for (int i = 0; i < many; i++) {
		closed += !*known_as(&c[i]);
		wireclient_close(&c[i]);
	}
	return closed;
}

START_TEST(new_connections_in_a_second_are_counted_for_the_player_behind_the_balancer)
{
	struct wireclient other;

	s.o.connects_per_s = 3;
	serve(false, "127.0.0.1");
	ck_assert_int_gt(closed_of(30), 0);
	wireclient_open(&other, s.port);
	wireclient_raw(&other, BYTES(SIGNATURE "\x21\x11\0\x0c\1\2\3\5\5\6\7\x08\x10\xe1\0\x50" HELLO));
	ck_assert_str_eq(known_as(&other), "1.2.3.5:4321");
	wireclient_close(&other);
}
END_TEST

static void upgrade_with(struct wireclient *c, const char *headers)
{
	char request[600];

	wireclient_open(c, s.port);
	wireclient_raw(
		c, request,
		(size_t)snprintf(request, sizeof request,
				 "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
				 "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n",
				 headers));
	char byte, last[4] = "";
	while (memcmp(last, "\r\n\r\n", 4) != 0) {
		ck_assert_int_eq(read(c->fd, &byte, 1), 1);
		memmove(last, last + 1, 3);
		last[3] = byte;
	}
	c->web = true;
	wireclient_package(c, POMELO_HANDSHAKE, "{\"sys\":{}}", 10);
}

START_TEST(forwarded_for_is_believed_of_balancers_alone)
{
	struct wireclient c;

	serve(false, "127.0.0.1");
	upgrade_with(&c, "X-Forwarded-For: 6.6.6.6, 1.2.3.4\r\n");
	ck_assert_str_eq(known_as(&c), "1.2.3.4:0");
	wireclient_close(&c);
	/* some add a line of their own behind what the client wrote; one may stand behind another */
	upgrade_with(&c, "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 1.2.3.4\r\n");
	ck_assert_str_eq(known_as(&c), "1.2.3.4:0");
	wireclient_close(&c);
	upgrade_with(&c, "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 127.0.0.1\r\n");
	ck_assert_str_eq(known_as(&c), "1.2.3.4:0");
	wireclient_close(&c);
	clientserver_shut(&s);
	balancers_free(balancers);
	serve(false, "10.0.0.1");
	upgrade_with(&c, "X-Forwarded-For: 1.2.3.4\r\n");
	ck_assert_int_eq(strncmp(known_as(&c), "127.0.0.1:", 10), 0);
	wireclient_close(&c);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("clientdoor");

	tcase_set_timeout(t, 30);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, tls_and_plain_clients_are_served_on_one_port);
	tcase_add_test(t, older_tls_is_refused);
	tcase_add_test(t, a_new_certificate_drops_nobody_and_sessions_resume);
	tcase_add_test(t, where_tls_is_required_plain_is_closed_but_for_balancers);
	tcase_add_test(t, a_balancer_may_have_taken_tls_off);
	tcase_add_test(t, the_header_of_a_trusted_balancer_names_the_player);
	tcase_add_test(t, tls_may_come_behind_the_header);
	tcase_add_test(t, a_strangers_header_ends_the_connection);
	tcase_add_test(t, a_broken_header_and_a_second_one_end_the_connection);
	tcase_add_test(t, connections_are_counted_for_the_player_behind_the_balancer);
	tcase_add_test(t, new_connections_in_a_second_are_counted_for_the_player_behind_the_balancer);
	tcase_add_test(t, forwarded_for_is_believed_of_balancers_alone);
	return suite_run("clientdoor", t);
}
