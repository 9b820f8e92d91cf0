/*
 * attack: what strangers try at a connector's and a gate's port, each kind over and over from an address of its own.
 *
 *   attack ADDRESS CONNECTOR_PORT GATE_PORT SECONDS      a line per kind; exit 1: an offender was neither closed nor answered
 *
 * Threads: one per kind. An attempt ends when the server closes, or has answered and ATTEMPT_S have passed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>
#include "rpc/pomelo.h"
#include "tests/support/clock.h"
#include "tests/support/stranger.h"

#define ATTEMPT_S 60 /* by then an offender has been dealt with: deadlines are 10 s, heartbeats twice as much */
#define ENTER     "connector.entryHandler.enter"
#define ECHO      "connector.entryHandler.echo"

struct attempt {
	struct stranger s;
	const struct kind *kind;
	unsigned closed, answered, neither;
	pthread_t thread;
};
struct kind {
	const char *name;
	void (*run)(struct stranger *a);
	bool gate;
};
static uint64_t until_ms; /* the campaign ends */

#define FRAMES(a, bytes, times) stranger_frames(a, bytes, sizeof(bytes) - 1, times)

static void login(struct stranger *a)
{
	char body[80];

	stranger_shake(a);
	a->counting = false;
	snprintf(body, sizeof(body), "{\"username\":\"bad%u-%u\",\"rid\":\"bad%u\"}", a->address, a->round, a->address);
	stranger_ask(a, ENTER, body);
	stranger_look(a, 1500);
	a->counting = true;
}

/* ---- what they try --------------------------------------------------------------------------------------------- */

static void silence(struct stranger *a)
{
	(void)a;
}
static void garbage(struct stranger *a)
{
	stranger_out(a, "\xff\xfe\xfd\xfc garbage", 12);
}
static void tls_hello(struct stranger *a)
{
	stranger_out(a, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11);
}
static void http_get(struct stranger *a)
{
	stranger_out(a, "GET /admin HTTP/1.1\r\nHost: x\r\n\r\n", 32);
}
static void http_post(struct stranger *a)
{
	stranger_out(a, "POST / HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n", 48);
}
static void http_smuggle(struct stranger *a)
{
	stranger_out(a, "GET / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n0\n\n", 55);
}

static void http_drip(struct stranger *a)
{
	stranger_out(a, "GET / HTTP/1.1\r\n", 16);
	while (stranger_out(a, "X", 1))
		stranger_look(a, 500);
}

static void http_headers(struct stranger *a)
{
	stranger_out(a, "GET / HTTP/1.1\r\n", 16);
	stranger_repeat(a, "X-Header: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n", 48, 1000);
}

static void huge_announced(struct stranger *a)
{
	stranger_out(a, "\x01\xff\xff\xff", 4);
}
static void unknown_type(struct stranger *a)
{
	stranger_package(a, 1, "{\"sys\":{}}", 10);
	stranger_package(a, 9, "x", 1);
}
static void kick_from_client(struct stranger *a)
{
	stranger_shake(a);
	stranger_package(a, POMELO_KICK, "{}", 2);
}
static void hello_no_json(struct stranger *a)
{
	stranger_package(a, POMELO_HANDSHAKE, "hello", 5);
}
static void data_first(struct stranger *a)
{
	stranger_package(a, POMELO_DATA, "\0\1\1a{}", 6);
}
static void ack_first(struct stranger *a)
{
	stranger_package(a, POMELO_ACK, NULL, 0);
}

static void data_before_ack(struct stranger *a)
{
	stranger_package(a, POMELO_HANDSHAKE, "{\"sys\":{}}", 10);
	stranger_ask(a, ECHO, "{}");
}

static void hello_drip(struct stranger *a)
{
	stranger_out(a, "\x01\x00\x01\x00{", 5);
	while (stranger_out(a, " ", 1))
		stranger_look(a, 400);
}

static void hello_bomb(struct stranger *a)
{
	char deep[4000];

	memset(deep, '[', sizeof(deep));
	stranger_package(a, POMELO_HANDSHAKE, deep, sizeof(deep));
}

static void hello_flood(struct stranger *a)
{
	stranger_shake(a);
	stranger_repeat(a, "\x01\0\0\x0a{\"sys\":{}}", 14, 200000);
}

static void before_login(struct stranger *a)
{
	stranger_shake(a);
	for (int i = 0; i < 20; i++)
		stranger_ask(a, "role.bagHandler.list", "{}");
}

static void remotes(struct stranger *a)
{
	stranger_shake(a);
	for (int i = 0; i < 20; i++)
		stranger_ask(a, "role.roleRemote.grant", "{\"uid\":\"me\",\"gold\":1000000}");
}

static void no_login(struct stranger *a)
{
	stranger_shake(a);
	a->counting = false;
	while (stranger_out(a, "\x03\0\0\0", 4))
		stranger_look(a, 1000);
}

static void forged_token(struct stranger *a)
{
	stranger_shake(a);
	for (int i = 0; i < 30; i++) {
		stranger_ask(a, ENTER, "{\"token\":\"bG9naW4.QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE\"}");
		stranger_look(a, 20);
	}
}

static void forged_resume(struct stranger *a)
{
	stranger_shake(a);
	stranger_ask(a, "connector.entryHandler.resume", "{\"resume\":\"AAAA.BBBB\"}");
}
static void control_name(struct stranger *a)
{
	stranger_shake(a);
	stranger_ask(a, ENTER, "{\"username\":\"a\\nerror\\u001b[2J\",\"rid\":\"r\"}");
}
static void control_route(struct stranger *a)
{
	login(a);
	stranger_ask(a, "a\n2026 error faked\x1b[31m", "{}");
}
static void injection(struct stranger *a)
{
	stranger_shake(a);
	stranger_ask(a, ENTER, "{\"username\":\"x'; DROP TABLE role; --\",\"rid\":\"*\"}");
}
static void bad_id(struct stranger *a)
{
	stranger_shake(a);
	stranger_package(a, POMELO_DATA, "\0\xff\xff\xff\xff\xff\xff\1a{}", 11);
}
static void cut_message(struct stranger *a)
{
	stranger_shake(a);
	stranger_package(a, POMELO_DATA, "\0\1\xff", 3);
}

static void long_name(struct stranger *a)
{
	static const char head[] = "{\"username\":\"";
	char body[60000];

	memset(body, 'n', sizeof(body));
	memcpy(body, head, sizeof(head) - 1);
	memcpy(body + sizeof(body) - 2, "\"}", 2);
	stranger_shake(a);
	stranger_request(a, 1, ENTER, body, sizeof(body));
}

static void deep_json(struct stranger *a)
{
	char body[60000];

	login(a);
	memset(body, '[', sizeof(body));
	memcpy(body, "{\"a\":", 5);
	stranger_request(a, 1, ECHO, body, sizeof(body));
}

static void large_package(struct stranger *a)
{
	login(a);
	stranger_out(a, "\x04\x7f\xff\xff", 4);
}

static void responses(struct stranger *a)
{
	stranger_shake(a);
	stranger_repeat(a, "\x04\0\0\x05\x04\x01{}x", 9, 100);
}

/* The same request or, with id 0, notify over and over. */
static void flood(struct stranger *a, uint32_t id, const char *route, const char *body)
{
	char whole[200];
	size_t n = strlen(body), head = pomelo_request_head(whole, id, 0, route, strlen(route), n);

	memcpy(whole + head, body, n);
	stranger_repeat(a, whole, head + n, 200000);
}

static void packet_flood(struct stranger *a)
{
	login(a);
	flood(a, 1, ECHO, "{}");
}
static void notify_flood(struct stranger *a)
{
	login(a);
	flood(a, 0, "scene.sceneHandler.move", "{}");
}

static void heartbeat_flood(struct stranger *a)
{
	stranger_shake(a);
	stranger_repeat(a, "\x03\0\0\0\x03\0\0\0\x03\0\0\0\x03\0\0\0", 16, 200000);
}

static void half_package(struct stranger *a)
{
	login(a);
	stranger_out(a, "\x04\x00\x20\x00", 4);
	while (stranger_out(a, "a", 1))
		stranger_look(a, 700);
}

static void slow_reader(struct stranger *a)
{
	char body[30000];
	uint64_t until = clock_ms() + 8000;

	login(a);
	setsockopt(a->fd, SOL_SOCKET, SO_RCVBUF, &(int){ 2048 }, sizeof(int));
	memset(body, 'x', sizeof(body));
	memcpy(body, "{\"a\":\"", 6);
	memcpy(body + sizeof(body) - 2, "\"}", 2);
	while (clock_ms() < until && !a->over) {
		stranger_request(a, 1, ECHO, body, sizeof(body));
		nanosleep(&(struct timespec){ .tv_nsec = 30000000 }, NULL);
	}
}

static void bomb(struct stranger *a)
{
	static const size_t bytes = 20 << 20;
	char head[64], *zeros = calloc(1, bytes), *small = malloc(compressBound(bytes));
	uLongf n = compressBound(bytes);

	compress2((Bytef *)small, &n, (Bytef *)zeros, bytes, 9);
	login(a);
	if (n > 65000)
		n = 65000;
	size_t head_n = pomelo_request_head(head, 1, 0, ECHO, strlen(ECHO), n);
	head[POMELO_HEAD] |= 0x10; /* compressed */
	stranger_out(a, head, head_n);
	stranger_out(a, small, n);
	free(zeros);
	free(small);
}

static void many_connections(struct stranger *a)
{
	int fd[300];

	for (int i = 0; i < 300; i++)
		fd[i] = stranger_dial(a);
	nanosleep(&(struct timespec){ .tv_nsec = 500000000 }, NULL);
	for (int i = 0; i < 300; i++) {
		char byte;
		if (fd[i] >= 0 && recv(fd[i], &byte, 1, MSG_DONTWAIT) == 0)
			a->over = true; /* the last ones are too many */
		if (fd[i] >= 0)
			close(fd[i]);
	}
}

static void churn(struct stranger *a)
{
	for (int i = 0; i < 400 && clock_ms() < a->until; i++) {
		struct linger reset = { 1, 0 };
		char byte;
		int fd = stranger_dial(a);
		if (fd < 0)
			continue;
		struct pollfd p = { .fd = fd, .events = POLLIN };
		if (poll(&p, 1, 1) == 1 && recv(fd, &byte, 1, MSG_DONTWAIT) <= 0)
			a->over = true; /* refused at the door */
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		close(fd);
	}
}

#define CONCERT 30 /* times 55 in a second: each keeps to packets_per_s, all are over address_packets_per_s */

static void concert_login(struct stranger *one, unsigned n)
{
	char body[80];

	for (unsigned i = 0; i < n; i++)
		stranger_package(&one[i], POMELO_HANDSHAKE, "{\"sys\":{}}", 10);
	stranger_look(&one[0], 300);
	for (unsigned i = 0; i < n; i++) {
		snprintf(body, sizeof(body), "{\"username\":\"bad%u-%u\",\"rid\":\"bad\"}", one[i].address, i);
		stranger_package(&one[i], POMELO_ACK, NULL, 0);
		stranger_ask(&one[i], ENTER, body);
	}
	stranger_look(&one[0], 1500);
}

/* Over when one was told that it is too much of the address, or all are closed. */
static void concert(struct stranger *a)
{
	struct stranger one[CONCERT];
	unsigned n = 0;

	for (unsigned i = 0; i < CONCERT; i++) {
		one[n] =
			(struct stranger){ .host = a->host, .port = a->port, .address = a->address, .until = a->until };
		one[n].awaits = "too many packets of this address";
		one[n].fd = i ? stranger_dial(a) : a->fd;
		n += one[n].fd >= 0;
	}
	concert_login(one, n);
	a->counting = true;
	while (!a->over && clock_ms() < a->until) {
		for (unsigned i = 0; i < n; i++)
			for (int each = 0; each < 55; each++)
				stranger_ask(&one[i], ECHO, "{}");
		stranger_look(&one[0], 1000);
		unsigned left = 0;
		for (unsigned i = 0; i < n; i++) {
			stranger_look(&one[i], 0);
			a->over |= one[i].heard;
			left += !one[i].over;
		}
		a->over |= !left;
	}
	for (unsigned i = 0; i < n; i++) {
		a->sends += one[i].sends;
		a->bytes += one[i].bytes;
		if (i)
			close(one[i].fd);
	}
}

static void web_unmasked(struct stranger *a)
{
	FRAMES(a, "\x82\x05hello", 1);
}
static void web_reserved(struct stranger *a)
{
	FRAMES(a, "\xf2\x80\0\0\0\0", 1);
}
static void web_opcode(struct stranger *a)
{
	FRAMES(a, "\x83\x80\0\0\0\0", 1);
}
static void web_continuation(struct stranger *a)
{
	FRAMES(a, "\x80\x80\0\0\0\0", 1);
}
static void web_long_ping(struct stranger *a)
{
	FRAMES(a, "\x89\xfe\x10\x00\0\0\0\0", 1);
}
static void web_long_form(struct stranger *a)
{
	FRAMES(a, "\x82\xfe\0\x01\0\0\0\0x", 1);
}
static void web_huge(struct stranger *a)
{
	FRAMES(a, "\x82\xff\x3f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0\x01\xff\xff\xff", 1);
}
static void web_pings(struct stranger *a)
{
	FRAMES(a, "\x89\x80\0\0\0\0\x89\x80\0\0\0\0", 200000);
}

static void web_fragments(struct stranger *a)
{
	stranger_upgrade(a);
	stranger_out(a, "\x02\x80\0\0\0\0", 6);
	stranger_repeat(a, "\0\x80\0\0\0\0\0\x80\0\0\0\0", 12, 200000);
}

static void web_half_frame(struct stranger *a)
{
	stranger_upgrade(a);
	stranger_out(a, "\x82\xfe\x0f\xff\0\0\0\0", 8);
	while (stranger_out(a, "\x01", 1))
		stranger_look(a, 500);
}

static void gate_flood(struct stranger *a)
{
	stranger_shake(a);
	flood(a, 1, "gate.gateHandler.queryEntry", "{\"uid\":\"abc\"}");
}

static void gate_credential(struct stranger *a)
{
	stranger_shake(a);
	stranger_ask(a, "gate.gateHandler.queryEntry",
		     "{\"platform\":\"demo\",\"account\":\"x\",\"credential\":\"99999999999.00000000\"}");
}

static const struct kind kinds[] = {
	{ "silence", silence, false },
	{ "garbage", garbage, false },
	{ "a TLS hello without TLS", tls_hello, false },
	{ "an HTTP GET", http_get, false },
	{ "an HTTP POST", http_post, false },
	{ "an HTTP request with bare newlines", http_smuggle, false },
	{ "an HTTP request byte by byte", http_drip, false },
	{ "HTTP headers without end", http_headers, false },
	{ "16 MiB announced at once", huge_announced, false },
	{ "a package of an unknown type", unknown_type, false },
	{ "a kick from a client", kick_from_client, false },
	{ "a handshake that is no JSON", hello_no_json, false },
	{ "data as the first package", data_first, false },
	{ "an ack as the first package", ack_first, false },
	{ "data before the ack", data_before_ack, false },
	{ "a handshake byte by byte", hello_drip, false },
	{ "a nested bomb as handshake", hello_bomb, false },
	{ "handshakes without end", hello_flood, false },
	{ "requests before login", before_login, false },
	{ "calls of inner methods", remotes, false },
	{ "heartbeats but no login", no_login, false },
	{ "forged tokens", forged_token, false },
	{ "a forged resume", forged_resume, false },
	{ "a name with control characters", control_name, false },
	{ "a route with control characters", control_route, false },
	{ "SQL as a name", injection, false },
	{ "an id over 32 bits", bad_id, false },
	{ "a message cut short", cut_message, false },
	{ "a name of 60,000 bytes", long_name, false },
	{ "a nested bomb as body", deep_json, false },
	{ "8 MiB announced after login", large_package, false },
	{ "responses from a client", responses, false },
	{ "a flood of requests", packet_flood, false },
	{ "a flood of notifies", notify_flood, false },
	{ "a flood of heartbeats", heartbeat_flood, false },
	{ "half a package, byte by byte", half_package, false },
	{ "a reader that does not read", slow_reader, false },
	{ "a compressed bomb", bomb, false },
	{ "300 connections of one address", many_connections, false },
	{ "connections by the hundred", churn, false },
	{ "thirty of one address, none too fast", concert, false },
	{ "an unmasked frame", web_unmasked, false },
	{ "a frame with reserved bits", web_reserved, false },
	{ "a frame of an unknown opcode", web_opcode, false },
	{ "a continuation of nothing", web_continuation, false },
	{ "a ping of 4 KiB", web_long_ping, false },
	{ "a length in its long form", web_long_form, false },
	{ "a frame of 2^62 bytes", web_huge, false },
	{ "a flood of pings", web_pings, false },
	{ "a flood of empty fragments", web_fragments, false },
	{ "half a frame, byte by byte", web_half_frame, false },
	{ "a flood at the gate", gate_flood, true },
	{ "a forged credential at the gate", gate_credential, true },
	{ "silence at the gate", silence, true },
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* ---- the campaign ------------------------------------------------------------------------------------------------ */

static void attempt(struct attempt *a)
{
	struct stranger *s = &a->s;

	s->over = s->counting = false;
	s->said = 0;
	s->until = clock_ms() + ATTEMPT_S * 1000;
	s->fd = stranger_dial(s);
	s->round++;
	if (s->fd < 0) { /* refused at the door */
		a->closed++;
		return;
	}
	a->kind->run(s);
	s->counting = true;
	/* one that was answered and stays is left after a moment: it harms nobody */
	while (!s->over && clock_ms() < s->until && !(s->said && clock_ms() >= until_ms))
		stranger_look(s, 200);
	close(s->fd);
	a->closed += s->over;
	a->answered += !s->over && s->said;
	a->neither += !s->over && !s->said;
}

static void *attack(void *arg)
{
	struct attempt *a = arg;

	do {
		attempt(a);
		nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
	} while (clock_ms() < until_ms);
	return NULL;
}

/* How much all of it was. */
static void sum(const struct attempt all[KINDS], double seconds)
{
	double dials = 0, sends = 0, bytes = 0;

	for (unsigned i = 0; i < KINDS; i++) {
		dials += (double)all[i].s.dials;
		sends += (double)all[i].s.sends;
		bytes += (double)all[i].s.bytes;
	}
	printf("# %zu kinds: %.0f connections, %.0f packages or frames, %.0f KiB a second\n", KINDS, dials / seconds,
	       sends / seconds, bytes / 1024 / seconds);
}

int main(int argc, char **argv)
{
	static struct attempt all[KINDS];
	unsigned failed = 0;

	if (argc != 5)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	uint64_t from = clock_ms();
	in_addr_t host = inet_addr(argv[1]);
	until_ms = clock_ms() + (uint64_t)atoi(argv[4]) * 1000;
	for (unsigned i = 0; i < KINDS; i++) {
		all[i] = (struct attempt){
			.kind = &kinds[i],
			.s = { .host = host, .port = (uint16_t)atoi(argv[kinds[i].gate ? 3 : 2]), .address = i + 1 }
		};
		pthread_create(&all[i].thread, NULL, attack, &all[i]);
	}
	for (unsigned i = 0; i < KINDS; i++) {
		struct attempt *a = &all[i];
		pthread_join(a->thread, NULL);
		printf("%s %s: %u attempts, %u closed, %u answered\n", a->neither ? "not ok" : "ok", a->kind->name,
		       a->s.round, a->closed, a->answered);
		failed += a->neither > 0;
	}
	sum(all, (double)(clock_ms() - from) / 1000);
	return failed > 0;
}
