/* Bytes of a client as packages, messages and handshakes; what is read is written again and read the same. */
#include <assert.h>
#include <stdint.h>
#include <string.h>
#include "common/err.h"
#include "rpc/inflate.h"
#include "rpc/pomelo.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void rewrite(const struct pomelo_message *m)
{
	char head[POMELO_MESSAGE_HEAD_MAX];
	struct pomelo_package p;
	struct pomelo_message again;
	struct buf b = BUF_INIT;

	if (m->kind == POMELO_RESPONSE || m->kind == POMELO_PUSH || m->n > 60000)
		return;
	size_t head_n =
		pomelo_request_head(head, m->kind == POMELO_NOTIFY ? 0 : m->id, m->code, m->route, m->route_n, m->n);
	buf_add(&b, head, head_n);
	buf_add(&b, m->body, m->n);
	assert(pomelo_package_read(b.data, b.len, POMELO_BODY_MAX, &p) == (ssize_t)b.len);
	assert(pomelo_message_read(p.body, p.n, &again) == 0);
	assert(again.kind == m->kind && again.code == m->code && again.route_n == m->route_n && again.n == m->n);
	assert(m->kind == POMELO_NOTIFY || again.id == m->id);
	buf_release(&b);
}

static void body(const struct pomelo_package *p)
{
	struct pomelo_message m;
	struct pomelo_hello h;
	struct buf out = BUF_INIT;

	if (p->type == POMELO_HANDSHAKE && pomelo_hello_read(p->body, p->n, &h) == 0) {
		pomelo_hello_reply(&out, &h, &(struct pomelo_welcome){ .heartbeat_s = 10, .payload = POMELO_JSON });
		assert(out.data[out.len - 1] == '}');
	} else if (p->type == POMELO_DATA && pomelo_message_read(p->body, p->n, &m) == 0) {
		rewrite(&m);
		if (m.compressed) {
			int err = inflate_body(&out, m.body, m.n, 5000);
			assert(err < 0 || out.len <= 5000);
		}
	}
	buf_release(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct pomelo_package p;
	size_t at = 0;

	while (at < n) {
		ssize_t took = pomelo_package_read((const char *)data + at, n - at, 65536, &p);
		if (took < 0)
			break;
		assert((size_t)took <= n - at && (size_t)took == POMELO_HEAD + p.n);
		body(&p);
		at += (size_t)took;
	}
	return 0;
}
