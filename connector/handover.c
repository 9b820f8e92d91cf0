#include "connector/handover.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "connector/announce.h"
#include "connector/forward.h"
#include "connector/missed.h"
#include "connector/session.h"
#include "rpc/clientset.h"

#define LOOK_MS 2
#define JOIN_MS 3000 /* for the links; a service that is away has none */

/* Keys of what goes over; an item is either a worker's or a session's. They keep their meaning from version to version. */
enum key {
	KEY_WORKER = 1, /* its counter of sessions */
	KEY_START,
	KEY_NONCE,
	KEY_KNOWN, /* an instance's epoch and its name */
	KEY_LISTENER,
	KEY_SESSION = 32, /* its number */
	KEY_CONN,
	KEY_STAGE,
	KEY_UID,
	KEY_RID,
	KEY_NAME,
	KEY_RESUME,
	KEY_ATTR,        /* the name, NUL, the value */
	KEY_MISSED = 64, /* the number of one whose connection is lost */
	KEY_MISSED_LEFT_MS,
	KEY_MISSED_RELOAD,
	KEY_MISSED_PUSH, /* what it supersedes, 8 bytes, and an item of missed.c */
	KEY_GUEST = 96,  /* one that stands in the door */
};

static struct edge *of_timer(struct timer *t)
{
	return (struct edge *)((char *)t - offsetof(struct edge, hand));
}

/* ---- the process that goes ------------------------------------------------------------------------------------- */

/* Reads no more from anybody; whether nobody's request is under way. */
static bool all_quiet(struct edge *e)
{
	bool quiet = !e->entries;

	for (uint32_t i = 0; i < e->slots; i++) {
		struct session *s = e->slot[i];
		if (!s)
			continue;
		clientconn_hold(&s->conn, true);
		quiet = quiet && s->conn.held && !s->forwards && !s->held;
	}
	return quiet;
}

static void on_stop_look(struct timer *t, uint64_t now_ms)
{
	struct edge *e = of_timer(t);

	(void)now_ms;
	if (!e->quiet && all_quiet(e)) {
		e->quiet = true;
		handover_quiet(e->worker);
	}
	if (!e->quiet)
		loop_timer(e->face.loop, t, LOOK_MS);
}

static void stop(struct worker *w)
{
	struct edge *e = w->user;

	e->handing = true;
	e->quiet = false;
	e->hand.fire = on_stop_look;
	if (w->index == 0)
		clientlisten_rest(e->connector->listen, true);
	on_stop_look(&e->hand, e->face.loop->now_ms);
}

static void nonce_put(void *arg, const char *nonce)
{
	handover_put(arg, KEY_NONCE, nonce, strlen(nonce));
}

static void worker_pack(struct edge *e, struct handover_list *out)
{
	struct handover_item *item = handover_add(out);
	char known[8 + sizeof(e->known->instance)];

	handover_put_u(&item->bytes, KEY_WORKER, e->generation);
	for (size_t i = 0; i < e->knowns; i++) {
		memcpy(known, &e->known[i].epoch, 8);
		memcpy(known + 8, e->known[i].instance, sizeof(e->known->instance));
		handover_put(&item->bytes, KEY_KNOWN, known, sizeof(known));
	}
	if (e->worker->index != 0)
		return;
	handover_put(&item->bytes, KEY_START, e->connector->start, strlen(e->connector->start));
	token_once_each(e->once, nonce_put, &item->bytes);
	item = handover_add(out);
	handover_put_u(&item->bytes, KEY_LISTENER, 1);
	item->listener = clientlisten_listener(e->connector->listen);
}

static void text_put(struct buf *b, enum key key, const char *text)
{
	handover_put(b, key, text, strlen(text));
}

static void session_pack(struct session *s, struct handover_item *item)
{
	struct buf conn = BUF_INIT;

	clientconn_pack(&s->conn, &conn);
	handover_put_u(&item->bytes, KEY_SESSION, s->conn.sid);
	handover_put(&item->bytes, KEY_CONN, conn.data, conn.len);
	handover_put_u(&item->bytes, KEY_STAGE, s->stage);
	text_put(&item->bytes, KEY_UID, s->uid);
	text_put(&item->bytes, KEY_RID, s->rid);
	text_put(&item->bytes, KEY_NAME, s->name);
	text_put(&item->bytes, KEY_RESUME, s->resume);
	for (int i = 0; i < SESSION_ATTRS_MAX; i++)
		if (s->attr[i])
			handover_put(&item->bytes, KEY_ATTR, s->attr[i]->text,
				     s->attr[i]->name_n + 1u + strlen(s->attr[i]->text + s->attr[i]->name_n + 1));
	item->conn = s->conn.stream.conn;
	buf_release(&conn);
}

static void push_put(void *arg, uint64_t key, const char *bytes, size_t n)
{
	struct buf whole = BUF_INIT;

	buf_add(&whole, &key, sizeof(key));
	buf_add(&whole, bytes, n);
	handover_put(arg, KEY_MISSED_PUSH, whole.data, whole.len);
	buf_release(&whole);
}

static void missed_pack(void *arg, uint64_t sid, uint64_t left_ms, const struct clientlate *list)
{
	struct handover_item *item = handover_add(arg);

	handover_put_u(&item->bytes, KEY_MISSED, sid);
	handover_put_u(&item->bytes, KEY_MISSED_LEFT_MS, left_ms);
	if (list)
		clientlate_each(list, push_put, &item->bytes);
	else
		handover_put_u(&item->bytes, KEY_MISSED_RELOAD, 1);
}

static void guest_pack(void *arg, const struct env_conn *conn, struct span packed)
{
	struct handover_item *item = handover_add(arg);

	handover_put(&item->bytes, KEY_GUEST, packed.p, packed.n);
	item->conn = conn;
}

static void pack(struct worker *w, struct handover_list *out)
{
	struct edge *e = w->user;

	loop_timer_stop(w->loop, &e->hand);
	worker_pack(e, out);
	for (uint32_t i = 0; i < e->slots; i++) {
		struct session *s = e->slot[i];
		if (!s)
			continue;
		forward_give_up(s);
		if (s->stage != SESSION_ENTERING && clientconn_can_move(&s->conn))
			session_pack(s, handover_add(out));
		else
			session_send_on(s, "this connector starts anew: resume");
	}
	missed_each(e, missed_pack, out);
	if (w->index == 0)
		clientlisten_guests(e->connector->listen, guest_pack, out);
}

static void back(struct worker *w)
{
	struct edge *e = w->user;

	loop_timer_stop(w->loop, &e->hand);
	e->handing = false;
	if (w->index == 0)
		clientlisten_rest(e->connector->listen, false);
	for (uint32_t i = 0; i < e->slots; i++)
		if (e->slot[i])
			clientconn_back(&e->slot[i]->conn);
}

static void gone(struct worker *w)
{
	struct edge *e = w->user;

	for (uint32_t i = 0; i < e->slots; i++)
		if (e->slot[i])
			session_forget(e->slot[i]);
	if (w->index == 0)
		clientlisten_close(e->connector->listen);
}

/* ---- the process that comes -------------------------------------------------------------------------------------- */

static bool links_stand(const struct edge *e)
{
	const struct route_table *t = e->worker->routes;

	for (size_t i = 0; i < t->rows; i++) {
		const struct route_row *row = &t->row[i];
		bool kept = !strcmp(row->service, "role") || !strcmp(row->service, "chat") ||
			    !strcmp(row->service, "scene") || !strcmp(row->service, "team");
		if (kept && row->state == ROUTE_READY && !rpc_connected(e->worker, row->id))
			return false;
	}
	return true;
}

static void on_join_look(struct timer *t, uint64_t now_ms)
{
	struct edge *e = of_timer(t);

	if (links_stand(e) || now_ms >= e->join_until_ms)
		handover_joined(e->worker);
	else
		loop_timer(e->face.loop, t, LOOK_MS);
}

static void join(struct worker *w)
{
	struct edge *e = w->user;

	e->hand.fire = on_join_look;
	e->join_until_ms = w->loop->now_ms + JOIN_MS;
	on_join_look(&e->hand, w->loop->now_ms);
}

static void known_take(struct edge *e, const struct handover_field *f)
{
	struct known *k;

	if (f->bytes.n < 8 + sizeof(k->instance))
		return;
	e->former = realloc(e->former, (e->formers + 1) * sizeof(*e->former));
	assert(e->former);
	k = &e->former[e->formers++];
	memcpy(&k->epoch, f->bytes.p, 8);
	snprintf(k->instance, sizeof(k->instance), "%.*s", (int)sizeof(k->instance) - 1, f->bytes.p + 8);
}

static void worker_take(struct edge *e, struct span in)
{
	uint64_t wall_ms = env_wall_us(e->face.loop->env) / 1000;
	char nonce[TOKEN_NONCE_MAX];
	struct handover_field f;

	while (handover_next(&in, &f)) {
		if (f.key == KEY_WORKER) {
			e->generation = (uint32_t)handover_u(&f);
		} else if (f.key == KEY_KNOWN) {
			known_take(e, &f);
		} else if (f.key == KEY_START) {
			handover_text(&f, e->connector->start, sizeof(e->connector->start));
		} else if (f.key == KEY_NONCE && e->once) {
			handover_text(&f, nonce, sizeof(nonce));
			token_once_use(e->once, nonce, wall_ms, e->face.loop->now_ms);
		}
	}
}

static void attr_take(struct session *s, struct span text)
{
	size_t n = strnlen(text.p, text.n);

	if (n < text.n)
		session_attr_set(s, span_of(text.p, n), span_of(text.p + n + 1, text.n - n - 1));
}

static void session_field(struct session *s, const struct handover_field *f)
{
	switch ((enum key)f->key) {
	case KEY_UID: handover_text(f, s->uid, sizeof(s->uid)); break;
	case KEY_RID: handover_text(f, s->rid, sizeof(s->rid)); break;
	case KEY_NAME: handover_text(f, s->name, sizeof(s->name)); break;
	case KEY_RESUME: handover_text(f, s->resume, sizeof(s->resume)); break;
	case KEY_ATTR: attr_take(s, f->bytes); break;
	case KEY_STAGE:
		if (handover_u(f) == SESSION_IN)
			session_counted(s);
		break;
	default: break;
	}
}

static void push_take(struct clientlate *list, struct span bytes)
{
	struct iovec part;
	uint64_t key;

	if (bytes.n < sizeof(key))
		return;
	memcpy(&key, bytes.p, sizeof(key));
	part.iov_base = (char *)(uintptr_t)bytes.p + sizeof(key);
	part.iov_len = bytes.n - sizeof(key);
	clientlate_add(list, key, &part, 1);
}

static void missed_unpack(struct edge *e, uint64_t sid, struct span in)
{
	struct clientlate *list = clientlate_new();
	struct handover_field f;
	uint64_t left_ms = 0;
	bool reload = false;

	while (handover_next(&in, &f)) {
		if (f.key == KEY_MISSED_LEFT_MS)
			left_ms = handover_u(&f);
		else if (f.key == KEY_MISSED_RELOAD)
			reload = true;
		else if (f.key == KEY_MISSED_PUSH)
			push_take(list, f.bytes);
	}
	if (reload) {
		clientlate_free(list);
		list = NULL;
	}
	missed_came(e, sid, left_ms, list);
}

static void one_take(struct edge *e, struct handover_item *item)
{
	struct span in = span_of(item->bytes.data, item->bytes.len), rest = in;
	struct handover_field first, f;
	struct env_conn *conn;

	if (!handover_next(&rest, &first))
		return;
	if (first.key == KEY_WORKER)
		worker_take(e, in);
	if (first.key == KEY_LISTENER && item->passed && clientlisten_take(e->connector->listen, item->passed) == 0)
		item->passed = NULL;
	if (first.key == KEY_MISSED)
		missed_unpack(e, handover_u(&first), rest);
	if (first.key == KEY_GUEST && item->passed && env_passed_conn(item->passed, &conn) == 0) {
		item->passed = NULL;
		clientlisten_guest(e->connector->listen, conn, first.bytes);
	}
	if (first.key != KEY_SESSION || !item->passed || env_passed_conn(item->passed, &conn) < 0)
		return;
	item->passed = NULL;
	struct session *s = session_take(e, handover_u(&first));
	while (handover_next(&rest, &f)) {
		if (f.key == KEY_CONN)
			clientconn_unpack(&s->conn, &e->face, conn, f.bytes);
		else
			session_field(s, &f);
	}
	clientlisten_came(e->connector->listen, s->conn.addr);
}

static void take(struct worker *w, struct handover_list *in)
{
	struct edge *e = w->user;

	for (struct handover_item *item = in->first; item; item = item->next)
		one_take(e, item);
	session_numbers_taken(e);
	announce_taken(e);
}

/* Clients keep the routes' codes and the message types that they were told, be it before the messages that are used now. */
static const char *shared(struct service *s, char *out, size_t size)
{
	const struct connector *c = s->user;

	clientset_versions(c->set, s->schema, out, size);
	size_t n = strlen(out);

	if (connector_elders(s) && n < size)
		snprintf(out + n, size - n, HANDOVER_BEFORE);
	return out;
}

const struct handover_def connector_handover = {
	.shared = shared, .stop = stop, .pack = pack, .back = back, .gone = gone, .join = join, .take = take
};
