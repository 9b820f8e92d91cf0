#include "rpc/clientconn.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/clientconn_private.h"
#include "rpc/clientlisten.h"
#include "rpc/clientprotos.h"

#define PART_MS  10000 /* from a package's first byte to its last; looked at once a heartbeat */
#define SLACK_MS 500   /* over two intervals of silence: a busy client's timer is late too */

static struct clientconn *of_beat(struct timer *t)
{
	return (struct clientconn *)((char *)t - offsetof(struct clientconn, beat));
}

static struct clientconn *of_deadline(struct timer *t)
{
	return (struct clientconn *)((char *)t - offsetof(struct clientconn, deadline));
}

/* ---- the end --------------------------------------------------------------------------------------------- */

static bool is_elder(const struct clientconn *c)
{
	const struct clientconn_face *f = c->face;
	bool greeted = c->state == CLIENTCONN_ACK || c->state == CLIENTCONN_WORKING;

	return greeted && ((!pomelo_dict_same(c->dict, f->dict) && pomelo_takes_codes(&c->hello, c->dict)) ||
			   (!clientprotos_same(c->protos, f->protos) && c->body.payload > POMELO_JSON));
}

void clientconn_face_tell(struct clientconn_face *f, const struct pomelo_dict *dict, const struct clientprotos *protos)
{
	uint32_t elders = 0;

	f->dict = dict;
	f->protos = protos;
	for (const struct clientconn *c = f->conns; c; c = c->next)
		elders += is_elder(c);
	atomic_store_explicit(&f->elders, elders, memory_order_relaxed);
}

void clientconn_ended(struct clientconn *c, enum log_level level, const char *why)
{
	struct clientconn_face *f = c->face;

	if (c->state == CLIENTCONN_ENDED)
		return;
	if (is_elder(c)) /* only this thread writes it */
		atomic_store_explicit(&f->elders, atomic_load_explicit(&f->elders, memory_order_relaxed) - 1,
				      memory_order_relaxed);
	c->state = CLIENTCONN_ENDED;
	loop_timer_stop(f->loop, &c->beat);
	loop_timer_stop(f->loop, &c->deadline);
	c->lost |= c->late || !c->left;
	clientconn_late_free(c);
	websocket_release(&c->ws, f->frames);
	clientbody_release(&c->body);
	buf_release(&c->carry);
	if (level > LOG_DEBUG)
		metric_add(f->refused, 1);
	if (log_level_get(f->log) <= level && log_bound_fits(&f->said, f->log, f->loop->now_ms))
		log_write(f->log, level, "client.end", "sid=%llx addr=%s why=%s", (unsigned long long)c->sid, c->addr,
			  why);
	f->ops->on_end(c);
}

void clientconn_drop(struct clientconn *c, const char *why)
{
	if (c->state == CLIENTCONN_ENDED)
		return;
	clientconn_ended(c, LOG_INFO, why);
	stream_close(&c->stream, 0);
}

/* The last words have been written: flush them and close. */
void clientconn_close_flushed(struct clientconn *c, const char *why)
{
	clientconn_ended(c, LOG_INFO, why);
	stream_close_flushed(&c->stream);
}

static void on_close(struct stream *s, int err)
{
	struct clientconn *c = clientconn_of(s);
	struct clientconn_face *f = c->face;

	c->left |= err == 0; /* not by a reset, with which what it had not read is gone */
	clientconn_ended(c, LOG_DEBUG, err == 0 || err == ERR_CLOSED ? "the client closed" : err_text(err));
	f->open--;
	if (c->next)
		c->next->prev = c->prev;
	*c->prev = c->next;
	metric_set(f->connections, (int64_t)f->open);
	f->ops->on_free(c);
}

void clientconn_web_end(struct clientconn *c, unsigned code)
{
	char frame[WEBSOCKET_CLOSE_BYTES];

	if (!c->web || c->state == CLIENTCONN_ENDED)
		return;
	websocket_close_frame(frame, code);
	stream_write(&c->stream, frame, sizeof(frame));
}

/* As clientconn_drop, but a WebSocket client is told by which code. */
void clientconn_drop_with(struct clientconn *c, unsigned code, const char *why)
{
	if (c->state == CLIENTCONN_ENDED)
		return;
	if (!c->web) {
		clientconn_drop(c, why);
		return;
	}
	clientconn_web_end(c, code);
	clientconn_close_flushed(c, why);
}

void clientconn_kick(struct clientconn *c, const char *reason)
{
	struct buf b = BUF_INIT;
	char why[160];

	if (c->state == CLIENTCONN_ENDED)
		return;
	if (c->state == CLIENTCONN_NEW || c->state == CLIENTCONN_UPGRADE) {
		clientconn_drop(c, reason); /* no protocol is agreed that could carry the reason */
		return;
	}
	c->kicked = true;
	clientconn_late_free(c); /* its last word is the reason */
	pomelo_kick(&b, reason);
	clientconn_write(c, b.data, b.len, NULL, 0);
	buf_release(&b);
	clientconn_web_end(c, WEBSOCKET_POLICY);
	snprintf(why, sizeof(why), "kicked: %s", reason);
	clientconn_close_flushed(c, why);
}

/* ---- timers -------------------------------------------------------------------------------------------------- */

uint64_t clientconn_interval_ms(const struct clientconn *c)
{
	return c->face->limits.heartbeat_s * 1000ull;
}

/*
 * Who speaks but does not read would keep what waits for it here for ever: what waited once has to be taken within the time
 * a silent client has.
 */
static bool reads(struct clientconn *c, uint64_t now_ms)
{
	if (c->stream.bytes_out < c->owed)
		return now_ms - c->owed_ms <= 2 * clientconn_interval_ms(c) + SLACK_MS;
	c->owed = c->stream.bytes_out + stream_pending(&c->stream);
	c->owed_ms = now_ms;
	return true;
}

/* Once per interval: is the client alive, and has it heard from us lately? */
static void on_beat(struct timer *t, uint64_t now_ms)
{
	struct clientconn *c = of_beat(t);
	uint64_t interval = clientconn_interval_ms(c), silent = now_ms - c->last_in_ms;

	if (silent > 2 * interval + SLACK_MS) {
		clientconn_drop(c, "silent for two heartbeats");
		return;
	}
	if (c->part_ms && now_ms - c->part_ms > PART_MS) {
		clientconn_drop(c, "a package that does not end");
		return;
	}
	if (!reads(c, now_ms)) {
		clientconn_drop(c, "it has not read for two heartbeats");
		return;
	}
	if (now_ms - c->last_out_ms >= interval)
		clientconn_heartbeat(c);
	if (c->state == CLIENTCONN_ENDED)
		return;
	uint64_t left = 2 * interval + SLACK_MS - silent + 1;
	loop_timer(c->face->loop, t, left < interval ? left : interval);
}

static void on_deadline(struct timer *t, uint64_t now_ms)
{
	struct clientconn *c = of_deadline(t);

	(void)now_ms;
	clientconn_kick(c, c->state == CLIENTCONN_WORKING ? "no login in time" : "no handshake in time");
}

void clientconn_login(struct clientconn *c)
{
	c->in = true;
	loop_timer_stop(c->face->loop, &c->deadline);
}

void clientconn_login_wait(struct clientconn *c, bool wait)
{
	uint64_t now = c->face->loop->now_ms;

	if (c->in || c->state == CLIENTCONN_ENDED || wait != timer_running(&c->deadline))
		return;
	if (wait) {
		c->login_left_ms = c->deadline.due_ms > now ? c->deadline.due_ms - now : 0;
		loop_timer_stop(c->face->loop, &c->deadline);
	} else {
		loop_timer(c->face->loop, &c->deadline, c->login_left_ms);
	}
}

void clientconn_strike(struct clientconn *c, uint32_t id, const char *message)
{
	clientconn_error(c, id, ERR_DENIED, EFFECT_NONE, message);
	if (++c->strikes >= CLIENTCONN_STRIKES)
		clientconn_kick(c, "too many requests before login");
}

/* ---- life --------------------------------------------------------------------------------------------------------- */

static const struct stream_ops stream_ops = { .on_data = clientconn_on_data,
					      .on_close = on_close,
					      .on_drained = clientconn_drained };

void clientconn_accept(struct clientconn *c, struct clientconn_face *f, struct env_conn *conn, const char *addr)
{
	uint64_t now = f->loop->now_ms;

	c->face = f;
	c->state = CLIENTCONN_NEW;
	c->last_in_ms = c->last_out_ms = now;
	c->beat.fire = on_beat;
	c->deadline.fire = on_deadline;
	snprintf(c->addr, sizeof(c->addr), "%s", addr);
	c->host = clientlisten_host(*f->listen, addr);
	metric_set(f->connections, (int64_t)++f->open);
	c->next = f->conns;
	c->prev = &f->conns;
	if (c->next)
		c->next->prev = &c->next;
	f->conns = c;
	stream_accept(&c->stream, f->loop, conn, &stream_ops, POMELO_HEAD + f->limits.body_max + WEBSOCKET_REQUEST_MAX,
		      f->limits.out_max);
	loop_timer(f->loop, &c->deadline, f->limits.login_ms);
}

/* What runs by its state: the heartbeat, and the deadline of who is not logged in. */
void clientconn_timers(struct clientconn *c)
{
	struct loop *l = c->face->loop;

	if (c->in || c->state == CLIENTCONN_ENDED)
		loop_timer_stop(l, &c->deadline);
	else
		loop_timer(l, &c->deadline, c->login_left_ms);
	if (c->state == CLIENTCONN_WORKING)
		loop_timer(l, &c->beat, CLIENTCONN_BEAT_GAP_MS);
}

bool clientconn_alive(struct clientconn *c)
{
	if (c->state != CLIENTCONN_ENDED)
		stream_poll(&c->stream);
	return c->state != CLIENTCONN_ENDED && !c->stream.closing;
}

void clientconn_face_init(struct clientconn_face *f, struct metrics *m, unsigned worker)
{
	static const char *const in[] = { "in" }, *const out[] = { "out" };

	f->frames = websocket_pool_new();
	buf_init(&f->scratch);
	buf_init(&f->typed);
	buf_init(&f->answer);
	f->open = 0;
	f->connections =
		metric(m, worker, METRIC_GAUGE, "loquat_client_connections", "Client connections open.", NULL, NULL);
	f->packets_in = metric(m, worker, METRIC_COUNTER, "loquat_client_packets_total",
			       "Data packages from and to clients.", "direction", in);
	f->packets_out = metric(m, worker, METRIC_COUNTER, "loquat_client_packets_total",
				"Data packages from and to clients.", "direction", out);
	f->bytes_in = metric(m, worker, METRIC_COUNTER, "loquat_client_bytes_total", "Bytes from and to clients.",
			     "direction", in);
	f->bytes_out = metric(m, worker, METRIC_COUNTER, "loquat_client_bytes_total", "Bytes from and to clients.",
			      "direction", out);
	f->slow = metric(m, worker, METRIC_COUNTER, "loquat_client_slow_total",
			 "Times more came for a client than it took at once.", NULL, NULL);
	f->superseded = metric(m, worker, METRIC_COUNTER, "loquat_client_superseded_total",
			       "Pushes a slow client did not get because a newer one replaced them.", NULL, NULL);
	f->refused = metric(m, worker, METRIC_COUNTER, "loquat_client_refused_total",
			    "Connections ended and packets refused by us.", NULL, NULL);
}

void clientconn_face_close(struct clientconn_face *f)
{
	for (struct clientconn *c = f->conns; c; c = c->next) {
		clientconn_drop_with(c, WEBSOCKET_GOING_AWAY, "this process ends");
		stream_close(&c->stream, 0); /* who was kicked before may linger */
	}
}

void clientconn_face_release(struct clientconn_face *f)
{
	assert(f->open == 0);
	websocket_pool_free(f->frames);
	buf_release(&f->scratch);
	buf_release(&f->typed);
	buf_release(&f->answer);
}
