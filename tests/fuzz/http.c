/*
 * Any bytes on the HTTP port: the real server parses them, and what is a call of /rpc/SERVICE/REMOTE/METHOD goes as far as the
 * instance that would handle it: it was allowed, its key is bounded, its body of the query is JSON, and the reader of requests
 * takes any body. Each request is answered once; the connection ends. Server and client take turns on one thread.
 */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <lauxlib.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <event2/event.h>
#include "common/buf.h"
#include "common/env_real.h"
#include "common/err.h"
#include "common/lua_json.h"
#include "common/lua_msg.h"
#include "rpc/http_private.h"
#include "rpc/rpc.h"
#include "rpc/service_private.h"
#include "tests/support/sample.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
uint64_t __wrap_rpc_call(struct worker *w, const struct rpc_call *c);
bool __wrap_env_loop_is_current(struct env_loop *loop);

/* Lives as long as the process. */
static struct {
	struct service service;
	struct service_private private;
	struct http_face face;
	struct env_http_request *request; /* being handled */
	struct rpc_call call;             /* what it asks for; no method: nothing */
	struct buf body;                  /* its body, which does not outlive rpc_call */
	unsigned calls;
	lua_State *L;
	struct lua_msg msg;
	struct env_loop loop; /* without a thread: the test turns it */
	uint16_t port;
	unsigned dialled;
} of;

/* ---- the server ----------------------------------------------------------------------------------------------- */

static int decode(lua_State *L)
{
	char why[LUA_WHY_MAX] = "";
	struct buf text = BUF_INIT;
	const struct msg_type *type = of.call.method->in;
	int err = lua_json_decode(L, type, of.call.body.p, of.call.body.n, why, sizeof why);

	assert(err == 0 || *why);
	if (err == 0)
		assert(lua_json_encode(L, -1, type, &text, why, sizeof why) == 0);
	buf_release(&text);
	return 0;
}

/* In place of the way to the instance that handles it. */
uint64_t __wrap_rpc_call(struct worker *w, const struct rpc_call *c)
{
	bool get = !strcmp(env_http_method(of.request), "GET");

	assert(w == &of.private.control_worker && c->json && c->on_answer && !of.call.method);
	assert(!c->method->is_handler && (!get || c->method->kind == MSG_READ));
	assert(!c->method->inner || http_has_key(&of.face, of.request));
	assert(c->to.key.n <= 255 && c->body.n);
	if (get) {
		json_t *o = json_loadb(c->body.p, c->body.n, 0, NULL);
		assert(json_is_object(o));
		json_decref(o);
	}
	of.call = *c;
	buf_clear(&of.body);
	buf_add(&of.body, c->body.p, c->body.n);
	lua_pushcfunction(of.L, decode);
	if (lua_pcall(of.L, 0, 0, 0) != LUA_OK)
		abort();
	return ++of.calls;
}

static void on_request(void *arg, struct env_http_request *r)
{
	(void)arg;
	of.request = r;
	of.call.method = NULL;
	if (!strncmp(env_http_path(r), "/rpc/", 5))
		http_rpc(&of.face, r);
	else
		http_refuse(r, ERR_NOT_FOUND, env_http_path(r));
	if (of.call.method) {
		struct span said = span_of(of.body.data, of.body.len);
		struct rpc_answer a = { .body = said };
		if (of.calls % 2)
			a = (struct rpc_answer){ .err = ERR_FAILED, .message = said };
		of.call.on_answer(of.call.arg, &a);
	}
	assert(!of.face.calls && !of.face.pending);
}

bool __wrap_env_loop_is_current(struct env_loop *loop)
{
	return loop == &of.loop;
}

static void start(void)
{
	struct env_http *http;

	of.service.schema = sample_schema();
	of.service.p = &of.private;
	snprintf(of.service.cluster_key, sizeof of.service.cluster_key, "key");
	of.face.service = &of.service;
	of.L = luaL_newstate();
	lua_msg_open(of.L, of.service.schema, &of.msg);
	of.loop = (struct env_loop){ .env = env_new(), .base = event_base_new(), .awake = true };
	if (env_http_listen(&of.loop, "127.0.0.1", 0, on_request, NULL, &http) < 0)
		abort();
	of.port = env_http_port(http);
}

/* ---- the client ----------------------------------------------------------------------------------------------- */

static int dial(void)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(of.port) }, from = { .sin_family = AF_INET };
	struct linger reset = { .l_onoff = 1 };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	/* where the server ends it first, its end keeps the pair of addresses for a minute: 28,000 of one address are soon used up */
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + of.dialled++ % 60000);
	if (fd < 0 || bind(fd, (struct sockaddr *)&from, sizeof from) < 0 ||
	    connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
		abort();
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset); /* no port waits for what might still come */
	return fd;
}

/* False: it cannot take more now. */
static bool send_some(int fd, const uint8_t **data, size_t *n)
{
	ssize_t sent = *n ? send(fd, *data, *n, MSG_NOSIGNAL | MSG_DONTWAIT) : -1;

	if (sent < 0)
		return false;
	*data += sent;
	*n -= (size_t)sent;
	return true;
}

/* True: the server has ended the connection. */
static bool read_some(int fd)
{
	char part[4096];
	ssize_t got;

	while ((got = recv(fd, part, sizeof part, MSG_DONTWAIT)) > 0)
		;
	return got == 0 || errno == ECONNRESET || errno == EPIPE;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	bool shut = false;

	if (!of.port)
		start();
	int fd = dial();
	do { /* a connection that nobody ends runs into libFuzzer's own time limit */
		while (send_some(fd, &data, &n))
			;
		if (n == 0 && !shut)
			shut = shutdown(fd, SHUT_WR) == 0;
		event_base_loop(of.loop.base, EVLOOP_NONBLOCK);
	} while (!read_some(fd));
	close(fd);
	return 0;
}
