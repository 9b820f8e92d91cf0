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

#define ATTEMPT_S 25 /* by then an offender has been dealt with: deadlines are 10 s, heartbeats twice as much */
#define ENTER     "connector.entryHandler.enter"
#define ECHO      "connector.entryHandler.echo"

struct attempt {
	const struct kind *kind;
	unsigned address, rounds, closed, answered, neither;
	int fd;
	bool over;                    /* the server has closed */
	size_t said;                  /* bytes from the server since the offence began */
	uint64_t dials, sends, bytes; /* of all its attempts */
	const char *awaits;           /* NULL: nothing */
	bool heard;                   /* it has come */
	bool counting;                /* it has begun */
	uint64_t until;               /* of this attempt */
	pthread_t thread;
};
struct kind {
	const char *name;
	void (*run)(struct attempt *a);
	bool gate;
};
static struct {
	in_addr_t host;
	int connector, gate;
	uint64_t until;
} at;

/* ---- a stranger's hands ------------------------------------------------------------------------------------ */

static int dial(struct attempt *a)
{
	struct sockaddr_in from = { .sin_family = AF_INET }, to = { .sin_family = AF_INET };
	struct timeval wait = { .tv_sec = 2 };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	from.sin_addr.s_addr = htonl(0x7f000100u + a->address);
	to.sin_addr.s_addr = at.host;
	to.sin_port = htons((uint16_t)(a->kind->gate ? at.gate : at.connector));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
	a->dials++;
	if (bind(fd, (struct sockaddr *)&from, sizeof(from)) < 0 ||
	    connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Reads what is there for so long; a close ends it. */
static void look(struct attempt *a, int ms)
{
	char bytes[65536];
	uint64_t until = clock_ms() + (uint64_t)ms;

	while (!a->over) {
		uint64_t now = clock_ms();
		struct pollfd p = { .fd = a->fd, .events = POLLIN };
		if (poll(&p, 1, now < until ? (int)(until - now) : 0) <= 0)
			return;
		ssize_t n = recv(a->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
		if (n > 0 && a->counting)
			a->said += (size_t)n;
		if (n > 0 && a->awaits)
			a->heard |= memmem(bytes, (size_t)n, a->awaits, strlen(a->awaits)) != NULL;
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			a->over = true;
	}
}

static bool out(struct attempt *a, const void *bytes, size_t n)
{
	if (!a->over && send(a->fd, bytes, n, MSG_NOSIGNAL) < 0 && errno != EAGAIN)
		a->over = true;
	a->sends += !a->over;
	a->bytes += a->over ? 0 : n;
	return !a->over && clock_ms() < a->until;
}

static void package(struct attempt *a, int type, const void *body, size_t n)
{
	char head[POMELO_HEAD];

	pomelo_package_head(head, (enum pomelo_type)type, n);
	out(a, head, sizeof(head));
	if (n)
		out(a, body, n);
}

static void request(struct attempt *a, uint32_t id, const char *route, const char *body, size_t n)
{
	char whole[POMELO_MESSAGE_HEAD_MAX + 65536];
	size_t head = pomelo_request_head(whole, id, 0, route, strlen(route), n);

	memcpy(whole + head, body, n);
	out(a, whole, head + n);
}

static void ask(struct attempt *a, const char *route, const char *body)
{
	request(a, 1, route, body, strlen(body));
}

static void shake(struct attempt *a)
{
	static const char hello[] = "{\"sys\":{\"type\":\"attack\",\"version\":\"1\",\"libVersion\":\"1\"}}";

	package(a, POMELO_HANDSHAKE, hello, sizeof(hello) - 1);
	look(a, 300);
	package(a, POMELO_ACK, NULL, 0);
	look(a, 50);
	a->counting = true;
}

static void upgrade(struct attempt *a)
{
	static const char text[] = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
				   "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

	out(a, text, sizeof(text) - 1);
	look(a, 300);
	a->counting = true;
}

static void login(struct attempt *a)
{
	char body[80];

	shake(a);
	a->counting = false;
	snprintf(body, sizeof(body), "{\"username\":\"bad%u-%u\",\"rid\":\"bad%u\"}", a->address, a->rounds,
		 a->address);
	ask(a, ENTER, body);
	look(a, 1500);
	a->counting = true;
}

static void repeat(struct attempt *a, const void *bytes, size_t n, unsigned times)
{
	for (unsigned i = 0; i < times && out(a, bytes, n); i++)
		if (i % 64 == 63)
			look(a, 0);
}

static void frames(struct attempt *a, const void *bytes, size_t n, unsigned times)
{
	upgrade(a);
	repeat(a, bytes, n, times);
}
#define FRAMES(a, bytes, times) frames(a, bytes, sizeof(bytes) - 1, times)

/* ---- what they try --------------------------------------------------------------------------------------------- */

static void silence(struct attempt *a)
{
	(void)a;
}
static void garbage(struct attempt *a)
{
	out(a, "\xff\xfe\xfd\xfc garbage", 12);
}
static void tls_hello(struct attempt *a)
{
	out(a, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11);
}
static void http_get(struct attempt *a)
{
	out(a, "GET /admin HTTP/1.1\r\nHost: x\r\n\r\n", 32);
}
static void http_post(struct attempt *a)
{
	out(a, "POST / HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n", 48);
}
static void http_smuggle(struct attempt *a)
{
	out(a, "GET / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n0\n\n", 55);
}

static void http_drip(struct attempt *a)
{
	out(a, "GET / HTTP/1.1\r\n", 16);
	while (out(a, "X", 1))
		look(a, 500);
}

static void http_headers(struct attempt *a)
{
	out(a, "GET / HTTP/1.1\r\n", 16);
	repeat(a, "X-Header: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n", 48, 1000);
}

static void huge_announced(struct attempt *a)
{
	out(a, "\x01\xff\xff\xff", 4);
}
static void unknown_type(struct attempt *a)
{
	package(a, 1, "{\"sys\":{}}", 10);
	package(a, 9, "x", 1);
}
static void kick_from_client(struct attempt *a)
{
	shake(a);
	package(a, POMELO_KICK, "{}", 2);
}
static void hello_no_json(struct attempt *a)
{
	package(a, POMELO_HANDSHAKE, "hello", 5);
}
static void data_first(struct attempt *a)
{
	package(a, POMELO_DATA, "\0\1\1a{}", 6);
}
static void ack_first(struct attempt *a)
{
	package(a, POMELO_ACK, NULL, 0);
}

static void data_before_ack(struct attempt *a)
{
	package(a, POMELO_HANDSHAKE, "{\"sys\":{}}", 10);
	ask(a, ECHO, "{}");
}

static void hello_drip(struct attempt *a)
{
	out(a, "\x01\x00\x01\x00{", 5);
	while (out(a, " ", 1))
		look(a, 400);
}

static void hello_bomb(struct attempt *a)
{
	char deep[4000];

	memset(deep, '[', sizeof(deep));
	package(a, POMELO_HANDSHAKE, deep, sizeof(deep));
}

static void hello_flood(struct attempt *a)
{
	shake(a);
	repeat(a, "\x01\0\0\x0a{\"sys\":{}}", 14, 200000);
}

static void before_login(struct attempt *a)
{
	shake(a);
	for (int i = 0; i < 20; i++)
		ask(a, "role.bagHandler.list", "{}");
}

static void remotes(struct attempt *a)
{
	shake(a);
	for (int i = 0; i < 20; i++)
		ask(a, "role.roleRemote.grant", "{\"uid\":\"me\",\"gold\":1000000}");
}

static void no_login(struct attempt *a)
{
	shake(a);
	a->counting = false;
	while (out(a, "\x03\0\0\0", 4))
		look(a, 1000);
}

static void forged_token(struct attempt *a)
{
	shake(a);
	for (int i = 0; i < 30; i++) {
		ask(a, ENTER, "{\"token\":\"bG9naW4.QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE\"}");
		look(a, 20);
	}
}

static void forged_resume(struct attempt *a)
{
	shake(a);
	ask(a, "connector.entryHandler.resume", "{\"resume\":\"AAAA.BBBB\"}");
}
static void control_name(struct attempt *a)
{
	shake(a);
	ask(a, ENTER, "{\"username\":\"a\\nerror\\u001b[2J\",\"rid\":\"r\"}");
}
static void control_route(struct attempt *a)
{
	login(a);
	ask(a, "a\n2026 error faked\x1b[31m", "{}");
}
static void injection(struct attempt *a)
{
	shake(a);
	ask(a, ENTER, "{\"username\":\"x'; DROP TABLE role; --\",\"rid\":\"*\"}");
}
static void bad_id(struct attempt *a)
{
	shake(a);
	package(a, POMELO_DATA, "\0\xff\xff\xff\xff\xff\xff\1a{}", 11);
}
static void cut_message(struct attempt *a)
{
	shake(a);
	package(a, POMELO_DATA, "\0\1\xff", 3);
}

static void long_name(struct attempt *a)
{
	static const char head[] = "{\"username\":\"";
	char body[60000];

	memset(body, 'n', sizeof(body));
	memcpy(body, head, sizeof(head) - 1);
	memcpy(body + sizeof(body) - 2, "\"}", 2);
	shake(a);
	request(a, 1, ENTER, body, sizeof(body));
}

static void deep_json(struct attempt *a)
{
	char body[60000];

	login(a);
	memset(body, '[', sizeof(body));
	memcpy(body, "{\"a\":", 5);
	request(a, 1, ECHO, body, sizeof(body));
}

static void large_package(struct attempt *a)
{
	login(a);
	out(a, "\x04\x7f\xff\xff", 4);
}

static void responses(struct attempt *a)
{
	shake(a);
	repeat(a, "\x04\0\0\x05\x04\x01{}x", 9, 100);
}

/* The same request or, with id 0, notify over and over. */
static void flood(struct attempt *a, uint32_t id, const char *route, const char *body)
{
	char whole[200];
	size_t n = strlen(body), head = pomelo_request_head(whole, id, 0, route, strlen(route), n);

	memcpy(whole + head, body, n);
	repeat(a, whole, head + n, 200000);
}

static void packet_flood(struct attempt *a)
{
	login(a);
	flood(a, 1, ECHO, "{}");
}
static void notify_flood(struct attempt *a)
{
	login(a);
	flood(a, 0, "scene.sceneHandler.move", "{}");
}

static void heartbeat_flood(struct attempt *a)
{
	shake(a);
	repeat(a, "\x03\0\0\0\x03\0\0\0\x03\0\0\0\x03\0\0\0", 16, 200000);
}

static void half_package(struct attempt *a)
{
	login(a);
	out(a, "\x04\x00\x20\x00", 4);
	while (out(a, "a", 1))
		look(a, 700);
}

static void slow_reader(struct attempt *a)
{
	char body[30000];
	uint64_t until = clock_ms() + 8000;

	login(a);
	setsockopt(a->fd, SOL_SOCKET, SO_RCVBUF, &(int){ 2048 }, sizeof(int));
	memset(body, 'x', sizeof(body));
	memcpy(body, "{\"a\":\"", 6);
	memcpy(body + sizeof(body) - 2, "\"}", 2);
	while (clock_ms() < until && !a->over) {
		request(a, 1, ECHO, body, sizeof(body));
		nanosleep(&(struct timespec){ .tv_nsec = 30000000 }, NULL);
	}
}

static void bomb(struct attempt *a)
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
	out(a, head, head_n);
	out(a, small, n);
	free(zeros);
	free(small);
}

static void many_connections(struct attempt *a)
{
	int fd[300];

	for (int i = 0; i < 300; i++)
		fd[i] = dial(a);
	nanosleep(&(struct timespec){ .tv_nsec = 500000000 }, NULL);
	for (int i = 0; i < 300; i++) {
		char byte;
		if (fd[i] >= 0 && recv(fd[i], &byte, 1, MSG_DONTWAIT) == 0)
			a->over = true; /* the last ones are too many */
		if (fd[i] >= 0)
			close(fd[i]);
	}
}

static void churn(struct attempt *a)
{
	for (int i = 0; i < 400 && clock_ms() < a->until; i++) {
		struct linger reset = { 1, 0 };
		char byte;
		int fd = dial(a);
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

static void concert_login(struct attempt *one, unsigned n)
{
	char body[80];

	for (unsigned i = 0; i < n; i++)
		package(&one[i], POMELO_HANDSHAKE, "{\"sys\":{}}", 10);
	look(&one[0], 300);
	for (unsigned i = 0; i < n; i++) {
		snprintf(body, sizeof(body), "{\"username\":\"bad%u-%u\",\"rid\":\"bad\"}", one[i].address, i);
		package(&one[i], POMELO_ACK, NULL, 0);
		ask(&one[i], ENTER, body);
	}
	look(&one[0], 1500);
}

/* Over when one was told that it is too much of the address, or all are closed. */
static void concert(struct attempt *a)
{
	struct attempt one[CONCERT];
	unsigned n = 0;

	for (unsigned i = 0; i < CONCERT; i++) {
		one[n] = (struct attempt){ .kind = a->kind, .address = a->address, .until = a->until };
		one[n].awaits = "too many packets of this address";
		one[n].fd = i ? dial(a) : a->fd;
		n += one[n].fd >= 0;
	}
	concert_login(one, n);
	a->counting = true;
	while (!a->over && clock_ms() < a->until) {
		for (unsigned i = 0; i < n; i++)
			for (int each = 0; each < 55; each++)
				ask(&one[i], ECHO, "{}");
		look(&one[0], 1000);
		unsigned left = 0;
		for (unsigned i = 0; i < n; i++) {
			look(&one[i], 0);
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

static void web_unmasked(struct attempt *a)
{
	FRAMES(a, "\x82\x05hello", 1);
}
static void web_reserved(struct attempt *a)
{
	FRAMES(a, "\xf2\x80\0\0\0\0", 1);
}
static void web_opcode(struct attempt *a)
{
	FRAMES(a, "\x83\x80\0\0\0\0", 1);
}
static void web_continuation(struct attempt *a)
{
	FRAMES(a, "\x80\x80\0\0\0\0", 1);
}
static void web_long_ping(struct attempt *a)
{
	FRAMES(a, "\x89\xfe\x10\x00\0\0\0\0", 1);
}
static void web_long_form(struct attempt *a)
{
	FRAMES(a, "\x82\xfe\0\x01\0\0\0\0x", 1);
}
static void web_huge(struct attempt *a)
{
	FRAMES(a, "\x82\xff\x3f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0\x01\xff\xff\xff", 1);
}
static void web_pings(struct attempt *a)
{
	FRAMES(a, "\x89\x80\0\0\0\0\x89\x80\0\0\0\0", 200000);
}

static void web_fragments(struct attempt *a)
{
	upgrade(a);
	out(a, "\x02\x80\0\0\0\0", 6);
	repeat(a, "\0\x80\0\0\0\0\0\x80\0\0\0\0", 12, 200000);
}

static void web_half_frame(struct attempt *a)
{
	upgrade(a);
	out(a, "\x82\xfe\x0f\xff\0\0\0\0", 8);
	while (out(a, "\x01", 1))
		look(a, 500);
}

static void gate_flood(struct attempt *a)
{
	shake(a);
	flood(a, 1, "gate.gateHandler.queryEntry", "{\"uid\":\"abc\"}");
}

static void gate_credential(struct attempt *a)
{
	shake(a);
	ask(a, "gate.gateHandler.queryEntry",
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
	a->over = false;
	a->said = 0;
	a->until = clock_ms() + ATTEMPT_S * 1000;
	a->fd = dial(a);
	a->rounds++;
	if (a->fd < 0) { /* refused at the door */
		a->closed++;
		return;
	}
	a->counting = false;
	a->kind->run(a);
	a->counting = true;
	/* one that was answered and stays is left after a moment: it harms nobody */
	while (!a->over && clock_ms() < a->until && !(a->said && clock_ms() >= at.until))
		look(a, 200);
	close(a->fd);
	a->closed += a->over;
	a->answered += !a->over && a->said;
	a->neither += !a->over && !a->said;
}

static void *attack(void *arg)
{
	struct attempt *a = arg;

	do {
		attempt(a);
		nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
	} while (clock_ms() < at.until);
	return NULL;
}

/* How much all of it was. */
static void sum(const struct attempt all[KINDS], double seconds)
{
	double dials = 0, sends = 0, bytes = 0;

	for (unsigned i = 0; i < KINDS; i++) {
		dials += (double)all[i].dials;
		sends += (double)all[i].sends;
		bytes += (double)all[i].bytes;
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
	at.host = inet_addr(argv[1]);
	at.connector = atoi(argv[2]);
	at.gate = atoi(argv[3]);
	at.until = clock_ms() + (uint64_t)atoi(argv[4]) * 1000;
	for (unsigned i = 0; i < KINDS; i++) {
		all[i] = (struct attempt){ .kind = &kinds[i], .address = i + 1 };
		pthread_create(&all[i].thread, NULL, attack, &all[i]);
	}
	for (unsigned i = 0; i < KINDS; i++) {
		struct attempt *a = &all[i];
		pthread_join(a->thread, NULL);
		printf("%s %s: %u attempts, %u closed, %u answered\n", a->neither ? "not ok" : "ok", a->kind->name,
		       a->rounds, a->closed, a->answered);
		failed += a->neither > 0;
	}
	sum(all, (double)(clock_ms() - from) / 1000);
	return failed > 0;
}
