#include "tests/support/clientecho.h"
#include <stdio.h>
#include <string.h>
#include "rpc/clientlate.h"

struct clientserver server;
struct flag echo_moved;
static struct pomelo_dict *dict;

static bool route_is(const struct pomelo_message *m, const char *name)
{
	return m->route_n == strlen(name) && memcmp(m->route, name, m->route_n) == 0;
}

static void flood(struct clientconn *c)
{
	char body[1000] = "{\"x\":\"";
	struct clientconn_push p;

	memset(body + 6, 'x', sizeof(body) - 8);
	memcpy(body + sizeof(body) - 2, "\"}", 2);
	clientconn_push_make(&p, NULL, "onFlood", 7, body, sizeof(body));
	for (int i = 0; i < 20000 && clientconn_push(c, &p) == 0; i++)
		;
}

/* More than sockets take at once, if the client does not read. */
static void some(struct clientconn *c)
{
	static char body[60000] = "{\"x\":\"";
	struct clientconn_push p;

	memset(body + 6, 'x', sizeof(body) - 8);
	memcpy(body + sizeof(body) - 2, "\"}", 2);
	clientconn_push_make(&p, NULL, "onSome", 6, body, sizeof(body));
	for (int i = 0; i < 300; i++)
		clientconn_push(c, &p);
}

/* To all who are there, from one encoding. */
static void push_all(void)
{
	struct clientconn_push p;

	clientconn_push_make(&p, dict, "onPush", 6, "{\"a\":1}", 7);
	clientconn_push_many(&p);
	for (struct clientconn *c = server.face.conns; c; c = c->next) {
		clientconn_push(c, &p);
		clientconn_push(c, &p);
	}
	clientconn_push_done(&p);
}

/* Where something is, very often: only the latest matters. */
static void moves(struct clientconn *c)
{
	static unsigned n;
	char body[1000];
	struct clientconn_push p;

	for (int i = 0; i < 500; i++) {
		int len = snprintf(body, sizeof(body), "{\"n\":%u,\"x\":\"%0*d\"}", ++n, 900, 0);
		clientconn_push_make(&p, NULL, "onMove", 6, body, (size_t)len);
		p.supersedes = clientlate_key("onMove", 6, "role 7", 6);
		clientconn_push(c, &p);
	}
	flag_raise(&echo_moved);
}

static void on_message(struct clientconn *c, const struct pomelo_message *m)
{
	struct clientconn_push p;

	if (route_is(m, "kick"))
		clientconn_kick(c, "because \"so\"");
	else if (route_is(m, "early"))
		clientconn_strike(c, m->id, "not yet");
	else if (route_is(m, "login"))
		clientconn_login(c);
	else if (route_is(m, "flood"))
		flood(c);
	else if (route_is(m, "some"))
		some(c);
	else if (route_is(m, "moves"))
		moves(c);
	else if (route_is(m, "push.me") && clientconn_push_make(&p, dict, "onPush", 6, "{\"a\":1}", 7) == 0)
		clientconn_push(c, &p);
	else if (route_is(m, "push.all"))
		push_all();
	else if (route_is(m, "fail"))
		clientconn_error(c, m->id, ERR_NOT_FOUND, EFFECT_NONE, "there is \"none\"");
	else
		clientconn_respond(c, m->id, m->body, m->n);
}

void echo_open(void)
{
	clientserver_open(&server);
}

void echo_setup(void)
{
	static const char *const routes[] = { "fail", "onPush" };

	clientserver_init(&server, on_message);
	flag_init(&echo_moved);
	pomelo_dict_new(routes, 2, &dict);
	server.face.dict = dict;
}

void echo_teardown(void)
{
	clientserver_release(&server);
	pomelo_dict_free(dict);
}
