#include "tests/support/clientserver.h"
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include "tests/support/on_loop.h"

static void on_end(struct clientconn *c)
{
	struct clientserver *s = c->face->user;

	if (s->last == c)
		s->last = NULL;
	flag_raise(&s->ended);
}

static void on_free(struct clientconn *c)
{
	struct clientserver *s = c->face->user;

	clientlisten_gone(s->listen, c->addr);
	free(c);
	flag_raise(&s->freed);
}

static void on_conn(void *user, struct env_conn *conn, const char *addr)
{
	struct clientserver *s = user;
	struct clientconn *c = calloc(1, sizeof(*c));

	ck_assert_ptr_nonnull(c);
	s->last = c;
	clientconn_accept(c, &s->face, conn, addr);
}

static void open_now(void *arg)
{
	struct clientserver *s = arg;

	clientconn_face_init(&s->face, s->metrics, 0);
	s->face.log = s->o.log = s->log; /* the test may have opened another */
	ck_assert_int_eq(clientlisten_new(&s->o, &s->listen), 0);
	clientlisten_add(s->listen, s->loop, s);
	s->port = clientlisten_port(s->listen);
}

void clientserver_open(struct clientserver *s)
{
	on_loop(s->loop, open_now, s);
}

static void shut_now(void *arg)
{
	struct clientserver *s = arg;

	clientlisten_close(s->listen);
	clientconn_face_close(&s->face);
}

static void release_now(void *arg)
{
	struct clientserver *s = arg;

	clientconn_face_release(&s->face);
}

void clientserver_shut(struct clientserver *s)
{
	if (!s->listen)
		return;
	on_loop(s->loop, shut_now, s);
	on_loop_turns(s->loop);
	on_loop(s->loop, release_now, s);
	clientlisten_free(s->listen);
	s->listen = NULL;
}

void clientserver_init(struct clientserver *s, void (*on_message)(struct clientconn *c, const struct pomelo_message *m))
{
	memset(s, 0, sizeof(*s));
	flag_init(&s->ended);
	flag_init(&s->freed);
	s->env = env_new();
	s->loop = on_loop_new(s->env, "clients");
	s->metrics = metrics_new("test");
	ck_assert_int_eq(log_open(s->env, "test", "/dev/null", LOG_ERROR, &s->log), 0);
	s->ops = (struct clientconn_ops){ .on_message = on_message, .on_end = on_end, .on_free = on_free };
	s->face = (struct clientconn_face){
		.loop = s->loop,
		.ops = &s->ops,
		.listen = &s->listen,
		.user = s,
		.limits = {
			.heartbeat_s = 10,
			.packets_per_s = 100000,
			.login_ms = CLIENTCONN_LOGIN_MS,
			.early_max = CLIENTCONN_EARLY_MAX,
			.body_max = CLIENTCONN_BODY_MAX,
			.out_max = CLIENTCONN_OUT_MAX,
		},
	};
	s->o = (struct clientlisten_options){
		.loop = s->loop, .metrics = s->metrics, .host = "127.0.0.1", .per_address_max = 100, .on_conn = on_conn
	};
}

void clientserver_release(struct clientserver *s)
{
	clientserver_shut(s);
	on_loop_free(s->loop);
	log_close(s->log);
	metrics_free(s->metrics);
	env_free(s->env);
}
