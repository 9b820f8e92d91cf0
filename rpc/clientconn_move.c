#include <string.h>
#include "rpc/clientconn.h"
#include "rpc/handover.h"

/* Keys of what is packed; they keep their meaning from version to version, so a new one is put at the end. */
enum key {
	KEY_SID = 1,
	KEY_ADDR,
	KEY_STATE,
	KEY_FLAGS,
	KEY_STRIKES,
	KEY_IGNORED,
	KEY_SILENT_MS,
	KEY_UNSAID_MS,
	KEY_LOGIN_LEFT_MS,
	KEY_HELLO_CLIENT,
	KEY_HELLO_DICT,
	KEY_HELLO_TYPE,
	KEY_HELLO_VERSION,
	KEY_CARRY,
	KEY_IN,
	KEY_OUT,
	KEY_PAYLOAD,
	KEY_HELLO_ASKED,
	KEY_HELLO_PROTO,
};
enum flag {
	FLAG_WEB = 1,
	FLAG_CODES = 2,
	FLAG_IN = 4,
	FLAG_IN_MESSAGE = 8,
	FLAG_PITAYA = 16,
	FLAG_SURROGATES = 32,
	FLAG_BROWSER = 64
};

bool clientconn_can_move(const struct clientconn *c)
{
	return c->state != CLIENTCONN_ENDED && c->stream.open && !c->stream.close_when_flushed && !c->ws.frame &&
	       env_conn_passable(c->stream.conn);
}

void clientconn_hold(struct clientconn *c, bool hold)
{
	if (c->held == hold || c->state == CLIENTCONN_ENDED || (hold && c->ws.frame))
		return;
	c->held = hold;
	stream_hold(&c->stream, hold);
}

static void text_put(struct buf *out, enum key key, const char *text)
{
	handover_put(out, key, text, strlen(text));
}

static void hello_pack(const struct pomelo_hello *h, struct buf *out)
{
	handover_put_u(out, KEY_HELLO_CLIENT, h->client);
	text_put(out, KEY_HELLO_DICT, h->dict_version);
	text_put(out, KEY_HELLO_TYPE, h->type);
	text_put(out, KEY_HELLO_VERSION, h->version);
	handover_put_u(out, KEY_HELLO_ASKED, h->asked);
	text_put(out, KEY_HELLO_PROTO, h->proto_version);
}

static uint64_t flags_of(const struct clientconn *c)
{
	return (c->web ? FLAG_WEB : 0u) | (c->codes ? FLAG_CODES : 0u) | (c->in ? FLAG_IN : 0u) |
	       (c->ws.in_message ? FLAG_IN_MESSAGE : 0u) | (c->body.pitaya ? FLAG_PITAYA : 0u) |
	       (c->body.surrogates ? FLAG_SURROGATES : 0u) | (c->hello.browser ? FLAG_BROWSER : 0u);
}

/* Nothing is under way, so that no answer's type has to be known. */
void clientconn_pack(struct clientconn *c, struct buf *out)
{
	uint64_t now = c->face->loop->now_ms;
	struct buf unsent = BUF_INIT;

	if (timer_running(&c->deadline))
		c->login_left_ms = c->deadline.due_ms > now ? c->deadline.due_ms - now : 0;
	loop_timer_stop(c->face->loop, &c->deadline);
	handover_put_u(out, KEY_SID, c->sid);
	text_put(out, KEY_ADDR, c->addr);
	handover_put_u(out, KEY_STATE, c->state);
	handover_put_u(out, KEY_FLAGS, flags_of(c));
	handover_put_u(out, KEY_PAYLOAD, c->body.payload);
	handover_put_u(out, KEY_STRIKES, c->strikes);
	handover_put_u(out, KEY_IGNORED, c->ignored);
	handover_put_u(out, KEY_SILENT_MS, now - c->last_in_ms);
	handover_put_u(out, KEY_UNSAID_MS, now - c->last_out_ms);
	handover_put_u(out, KEY_LOGIN_LEFT_MS, c->login_left_ms);
	hello_pack(&c->hello, out);
	handover_put(out, KEY_CARRY, c->carry.data, c->carry.len);
	handover_put(out, KEY_IN, c->stream.in.data, c->stream.in.len);
	loop_timer_stop(c->face->loop, &c->beat);
	stream_freeze(&c->stream);
	clientconn_pour(c);
	stream_out_bytes(&c->stream, &unsent);
	handover_put(out, KEY_OUT, unsent.data, unsent.len);
	buf_release(&unsent);
}

static void flags_take(struct clientconn *c, uint64_t flags)
{
	c->web = flags & FLAG_WEB;
	c->codes = flags & FLAG_CODES;
	c->in = flags & FLAG_IN;
	c->ws.in_message = flags & FLAG_IN_MESSAGE;
	c->body.pitaya = flags & FLAG_PITAYA;
	c->body.surrogates = flags & FLAG_SURROGATES;
	c->hello.browser = flags & FLAG_BROWSER;
}

static void field_take(struct clientconn *c, const struct handover_field *f)
{
	uint64_t now = c->face->loop->now_ms;

	switch ((enum key)f->key) {
	case KEY_SID: c->sid = handover_u(f); break;
	case KEY_STATE: c->state = (enum clientconn_state)handover_u(f); break;
	case KEY_FLAGS: flags_take(c, handover_u(f)); break;
	case KEY_STRIKES: c->strikes = (unsigned)handover_u(f); break;
	case KEY_IGNORED: c->ignored = (unsigned)handover_u(f); break;
	case KEY_SILENT_MS: c->last_in_ms = now - handover_u(f); break;
	case KEY_UNSAID_MS: c->last_out_ms = now - handover_u(f); break;
	case KEY_LOGIN_LEFT_MS: c->login_left_ms = handover_u(f); break;
	case KEY_HELLO_CLIENT: c->hello.client = (enum pomelo_client)handover_u(f); break;
	case KEY_HELLO_DICT: handover_text(f, c->hello.dict_version, sizeof(c->hello.dict_version)); break;
	case KEY_HELLO_TYPE: handover_text(f, c->hello.type, sizeof(c->hello.type)); break;
	case KEY_HELLO_VERSION: handover_text(f, c->hello.version, sizeof(c->hello.version)); break;
	case KEY_PAYLOAD: c->body.payload = (enum pomelo_payload)handover_u(f); break;
	case KEY_HELLO_ASKED: c->hello.asked = (enum pomelo_payload)handover_u(f); break;
	case KEY_HELLO_PROTO: handover_text(f, c->hello.proto_version, sizeof(c->hello.proto_version)); break;
	case KEY_CARRY: buf_add(&c->carry, f->bytes.p, f->bytes.n); break;
	case KEY_IN: stream_put(&c->stream, f->bytes.p, f->bytes.n, NULL, 0); break;
	case KEY_OUT: stream_put(&c->stream, NULL, 0, f->bytes.p, f->bytes.n); break;
	case KEY_ADDR: break; /* read before */
	}
}

void clientconn_unpack(struct clientconn *c, struct clientconn_face *face, struct env_conn *conn, struct span packed)
{
	char addr[ENV_ADDR_MAX] = "";
	struct handover_field f;

	for (struct span in = packed; handover_next(&in, &f);)
		if (f.key == KEY_ADDR)
			handover_text(&f, addr, sizeof(addr));
	clientconn_accept(c, face, conn, addr);
	c->dict = face->dict;
	c->protos = face->protos;
	while (handover_next(&packed, &f))
		field_take(c, &f);
	clientconn_timers(c);
}

void clientconn_back(struct clientconn *c)
{
	if (c->state != CLIENTCONN_ENDED && !c->stream.open && !c->stream.closing)
		stream_thaw(&c->stream);
	clientconn_timers(c);
	c->held = false;
	stream_hold(&c->stream, false);
}

void clientconn_forget(struct clientconn *c)
{
	loop_timer_stop(c->face->loop, &c->beat);
	loop_timer_stop(c->face->loop, &c->deadline);
	c->state = CLIENTCONN_ENDED;
	websocket_release(&c->ws, c->face->frames);
	buf_release(&c->carry);
	stream_close(&c->stream, 0);
}
