#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/jsontext.h"
#include "gate/gate.h"
#include "rpc/clientlate.h"

struct visitor *visitor_of(struct clientconn *c)
{
	return (struct visitor *)((char *)c - offsetof(struct visitor, conn));
}

/* ---- answers and pushes ------------------------------------------------------------------------------------------ */

void visitor_note(struct gate *g, int err, uint64_t start_ns)
{
	uint64_t now = env_mono_ns(g->service->env);

	method_stats_note(&g->query, err, now > start_ns ? now - start_ns : 0);
}

static void text_add(struct buf *b, const char *name, const char *value)
{
	buf_addf(b, ",\"%s\":", name);
	jsontext_quote(b, value, strlen(value));
}

/* "host":…,"port":…,"token":…,"uid":…} */
static void way_add(struct buf *b, const struct place *p)
{
	char token[TOKEN_MAX] = "";

	place_token(p, token);
	buf_addstr(b, "\"host\":");
	jsontext_quote(b, p->load->host, strlen(p->load->host));
	buf_addf(b, ",\"port\":%u", p->load->port);
	text_add(b, "token", token);
	text_add(b, "uid", p->uid);
	buf_addch(b, '}');
}

/* {"code":202,"ticket":…,"position":…,"eta":…} */
static void place_add(struct buf *b, struct place *p)
{
	char ticket[TOKEN_MAX] = "";

	tell_note(p, place_position(p));
	place_ticket(p, ticket);
	buf_addstr(b, "{\"code\":202");
	text_add(b, "ticket", ticket);
	buf_addf(b, ",\"position\":%u,\"eta\":%u}", p->position, p->eta_s);
}

static void push(struct visitor *v, const char *route, const struct buf *body)
{
	struct clientconn_push made;

	if (clientconn_push_make(&made, NULL, route, strlen(route), body->data, body->len) < 0)
		return;
	made.supersedes = clientlate_key(route, strlen(route), "", 0); /* the latest says all */
	clientconn_push(&v->conn, &made);
	clientconn_push_done(&made);
}

void visitor_told(struct place *p, unsigned position)
{
	struct buf b = BUF_INIT;

	tell_note(p, position);
	metric_add(p->gate->told_metric, 1);
	buf_addf(&b, "{\"position\":%u,\"eta\":%u}", position, p->eta_s);
	push(p->visitor, "onQueue", &b);
	buf_release(&b);
}

void visitor_admitted(struct place *p)
{
	struct buf b = BUF_INIT;

	if (!p->visitor || !p->position)
		return; /* it has gone, or its queryEntry is being answered */
	buf_addch(&b, '{');
	way_add(&b, p);
	push(p->visitor, "onAdmit", &b);
	buf_release(&b);
}

void visitor_answer(struct visitor *v, uint32_t id, struct place *p, uint64_t start_ns)
{
	struct buf b = BUF_INIT;

	if (p->state == PLACE_ADMITTED) {
		buf_addstr(&b, "{\"code\":200,");
		way_add(&b, p);
	} else {
		place_add(&b, p);
	}
	visitor_note(v->gate, 0, start_ns);
	clientconn_login(&v->conn);
	clientconn_respond(&v->conn, id, b.data, b.len);
	buf_release(&b);
}

void visitor_refuse(struct visitor *v, uint32_t id, uint64_t start_ns, int err, const char *fmt, ...)
{
	char message[200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	visitor_note(v->gate, err, start_ns);
	clientconn_error(&v->conn, id, err, EFFECT_NONE, *message ? message : NULL);
}

/* ---- who waits to know whether there is room ---------------------------------------------------------------------- */

void visitor_wait(struct visitor *v, uint32_t id, uint64_t start_ns)
{
	struct gate *g = v->gate;

	v->waits_id = id;
	v->waits_ns = start_ns;
	v->waits_next = g->waits;
	v->waits_prev = &g->waits;
	if (v->waits_next)
		v->waits_next->waits_prev = &v->waits_next;
	g->waits = v;
	g->waiting++;
	clientconn_login_wait(&v->conn, true);
}

static void wait_cut(struct visitor *v)
{
	if (!v->waits_prev)
		return;
	if (v->waits_next)
		v->waits_next->waits_prev = v->waits_prev;
	*v->waits_prev = v->waits_next;
	v->waits_next = NULL;
	v->waits_prev = NULL;
	v->gate->waiting--;
}

void visitor_wait_end(struct visitor *v)
{
	struct gate *g = v->gate;

	wait_cut(v);
	clientconn_login_wait(&v->conn, false);
	if (!v->place) {
		visitor_refuse(v, v->waits_id, v->waits_ns, ERR_BUSY, "its place has been taken elsewhere");
	} else if (v->place->state == PLACE_QUEUED && !g->usable && load_room(g)) {
		place_free(v->place);
		visitor_refuse(v, v->waits_id, v->waits_ns, ERR_UNAVAILABLE,
			       "no connector takes players at the moment");
	} else {
		visitor_answer(v, v->waits_id, v->place, v->waits_ns);
	}
}

/* ---- connections ------------------------------------------------------------------------------------------------------ */

static void on_end(struct clientconn *c)
{
	struct visitor *v = visitor_of(c);

	query_cut(v);
	search_cut(v);
	wait_cut(v);
	if (v->place)
		place_attach(v->place, NULL);
	v->place = NULL;
}

static void on_free(struct clientconn *c)
{
	struct visitor *v = visitor_of(c);
	struct gate *g = v->gate;

	clientlisten_gone(g->listen, c->addr);
	free(v);
	if (g->stopping && !g->face.open)
		gate_free(g);
}

const struct clientconn_ops visitor_ops = { .on_message = query_message, .on_end = on_end, .on_free = on_free };

void visitor_accept(struct gate *g, struct env_conn *conn, const char *addr)
{
	struct visitor *v = g->stopping ? NULL : calloc(1, sizeof(*v));

	if (!v) {
		env_conn_close(conn);
		clientlisten_gone(g->listen, addr);
		return;
	}
	v->gate = g;
	v->conn.sid = ++g->visitors;
	clientconn_accept(&v->conn, &g->face, conn, addr);
}
