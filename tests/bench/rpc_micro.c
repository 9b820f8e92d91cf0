/*
 * rpc_micro: what single steps of a call cost, each beside what it replaces, taking turns:
 *
 *   envelope   rpc/frame.c beside nanopb on the same bytes: id, method, time left, trace, key, 50 bytes of body
 *   pending    a call's entry in the table and its deadline, made and ended, beside libevent's event_add and event_del;
 *              1024 stand, with deadlines 1 to 5 s away; any of them ends and another begins; time goes on at every
 *              64th, as it does in a loop
 *
 * usage: rpc_micro     prints one JSON object of nanoseconds, medians of 9
 */
#include <event2/event.h>
#include <event2/event_struct.h>
#include <pb_decode.h>
#include <pb_encode.h>
#include "proto/rpc.pb.h"
#include "rpc/frame.h"
#include "rpc/pending.h"
#include "tests/bench/rpc_load.h"

enum { ROUNDS = 9, CALLS = 200000, STANDING = 1024, TURN = 64, DUE_MS = 5000 };

static const char key[] = "player-7";
static char body[LOAD_BODY];

/* What is compared must not be left out by the compiler. */
static volatile uint64_t sink;

/* ---- the envelope ------------------------------------------------------------------------------------------- */

static struct frame_request request_of(uint64_t i)
{
	return (struct frame_request){
		.id = (i << 24) + 17,
		.method = 3,
		.time_left_ms = DUE_MS,
		.trace = 0x123456789abcdef0u + i,
		.key = span_of(key, sizeof key - 1),
		.body = span_of(body, sizeof body),
	};
}

static inline void encode_ours(uint64_t i)
{
	char out[256];
	struct frame_request r = request_of(i);
	sink += frame_put_request(out, &r, FRAME_REQUEST) + (uint8_t)out[12];
}

static bool put_bytes(pb_ostream_t *s, const pb_field_t *field, void *const *arg)
{
	const struct span *bytes = *arg;
	return pb_encode_tag_for_field(s, field) && pb_encode_string(s, (const pb_byte_t *)bytes->p, bytes->n);
}

static size_t nanopb_put(uint64_t i, uint8_t *out, size_t size)
{
	struct span k = span_of(key, sizeof key - 1), b = span_of(body, sizeof body);
	loquat_rpc_Request m = loquat_rpc_Request_init_zero;
	m.has_id = m.has_method = m.has_time_left_ms = m.has_trace = true;
	m.id = (i << 24) + 17;
	m.method = 3;
	m.time_left_ms = DUE_MS;
	m.trace = 0x123456789abcdef0u + i;
	m.key = (pb_callback_t){ .funcs.encode = put_bytes, .arg = &k };
	m.body = (pb_callback_t){ .funcs.encode = put_bytes, .arg = &b };
	pb_ostream_t s = pb_ostream_from_buffer(out, size);
	return pb_encode(&s, loquat_rpc_Request_fields, &m) ? s.bytes_written : 0;
}

static inline void encode_nanopb(uint64_t i)
{
	uint8_t out[256];
	sink += nanopb_put(i, out, sizeof out) + out[4];
}

static char encoded[256];
static size_t encoded_n;

static inline void decode_ours(uint64_t i)
{
	struct frame_request r;
	encoded[FRAME_HEADER + 3] = (char)(i & 0x7f); /* a byte of the id */
	sink += (uint64_t)frame_get_request(span_of(encoded + FRAME_HEADER, encoded_n - FRAME_HEADER), &r) + r.body.n;
}

/* In place, as ours does it. */
static bool get_bytes(pb_istream_t *s, const pb_field_t *field, void **arg)
{
	struct span *bytes = *arg;
	(void)field;
	*bytes = span_of(s->state, s->bytes_left);
	return pb_read(s, NULL, s->bytes_left);
}

static inline void decode_nanopb(uint64_t i)
{
	struct span k = { 0 }, b = { 0 };
	loquat_rpc_Request m = loquat_rpc_Request_init_zero;
	m.key = (pb_callback_t){ .funcs.decode = get_bytes, .arg = &k };
	m.body = (pb_callback_t){ .funcs.decode = get_bytes, .arg = &b };
	encoded[FRAME_HEADER + 3] = (char)(i & 0x7f);
	pb_istream_t s = pb_istream_from_buffer((const pb_byte_t *)encoded + FRAME_HEADER, encoded_n - FRAME_HEADER);
	sink += pb_decode(&s, loquat_rpc_Request_fields, &m) + b.n;
}

/* The same bytes, or the comparison means nothing. */
static void envelope_check(void)
{
	struct frame_request r = request_of(1);
	uint8_t other[256];
	encoded_n = frame_put_request(encoded, &r, FRAME_REQUEST);
	size_t n = nanopb_put(1, other, sizeof other);
	if (n != encoded_n - FRAME_HEADER || memcmp(other, encoded + FRAME_HEADER, n) != 0)
		load_die("nanopb writes other bytes");
}

/* ---- the table and the deadline ------------------------------------------------------------------------------- */

static struct {
	struct pending_table table;
	uint64_t now_ms;
	uint64_t id[STANDING];
	struct event_base *base;
	struct event event[STANDING];
} of;

static void on_overdue(struct pending *p)
{
	pending_free(&of.table, p);
}

/* What is left of their callers' time differs, and calls end in any order: the same for both. */
static uint16_t left[4096], end[4096];

static void chance_fill(void)
{
	for (uint64_t i = 0; i < 4096; i++) {
		left[i] = (uint16_t)(1000 + (i * 0x9e3779b97f4a7c15u >> 52));
		end[i] = (uint16_t)((i * 0xd1342543de82ef95u >> 40) % STANDING);
	}
}

static uint32_t left_ms(uint64_t i)
{
	return left[i % 4096];
}

static uint32_t ends(uint64_t i)
{
	return end[i % 4096];
}

/* Inline on both sides: in a program it stands in its caller. */
static inline __attribute__((always_inline)) void pending_begin(uint32_t place, uint64_t i)
{
	struct pending *p = pending_new(&of.table);
	pending_due(&of.table, p, of.now_ms + left_ms(i));
	pending_mark_sent(&of.table, p);
	of.id[place] = p->id;
}

/* Once per turn, and out of the way of what is done per call. */
static __attribute__((noinline)) void pending_turn(void)
{
	if ((of.now_ms = load_now_ns() / 1000000) >= of.table.look_ms)
		pending_look(&of.table, of.now_ms, on_overdue);
}

static inline void pending_ours(uint64_t i)
{
	uint32_t place = ends(i);
	if (i % TURN == 0)
		pending_turn();
	struct pending *p = pending_find(&of.table, of.id[place]);
	if (p) /* else its time was over */
		pending_free(&of.table, p);
	pending_begin(place, i);
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
}

static inline __attribute__((always_inline)) void event_begin(uint32_t place, uint64_t i)
{
	uint32_t ms = left_ms(i);
	event_add(&of.event[place], &(struct timeval){ .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 });
}

static inline void pending_libevent(uint64_t i)
{
	uint32_t place = ends(i);
	if (i % TURN == 0)
		event_base_update_cache_time(of.base);
	event_del(&of.event[place]);
	event_begin(place, i);
}

static void pending_setup(void)
{
	chance_fill();
	of.now_ms = load_now_ns() / 1000000;
	pending_init(&of.table);
	for (uint32_t i = 0; i < STANDING; i++) {
		pending_begin(i, i);
		evtimer_assign(&of.event[i], of.base, on_event, NULL);
		event_begin(i, i);
	}
}

/* ---- taking turns ----------------------------------------------------------------------------------------------- */

/* CPU time: what others do on this machine is not the step's. Inline, as is the step: calling it would be a fourth of it. */
static inline __attribute__((always_inline)) double time_of(void (*step)(uint64_t i))
{
	double start = load_cpu_s(0);
	for (uint64_t i = 0; i < CALLS; i++)
		step(i);
	return (load_cpu_s(0) - start) * 1e9 / CALLS;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

static inline __attribute__((always_inline)) void measure(const char *name, void (*ours)(uint64_t i),
							  void (*other)(uint64_t i), const char *close)
{
	double a[ROUNDS], b[ROUNDS];
	for (int i = -1; i < ROUNDS; i++) { /* the first is thrown away */
		double mine = time_of(ours), its = time_of(other);
		if (i < 0)
			continue;
		a[i] = mine;
		b[i] = its;
	}
	qsort(a, ROUNDS, sizeof *a, compare);
	qsort(b, ROUNDS, sizeof *b, compare);
	printf("\"%s_ns\":%.2f,\"%s_other_ns\":%.2f%s", name, a[ROUNDS / 2], name, b[ROUNDS / 2], close);
}

/* Inside a callback libevent knows the time, as the loop's worker does. */
static void measure_pending(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
	pending_setup();
	measure("pending", pending_ours, pending_libevent, "}\n");
}

int main(void)
{
	of.base = event_base_new();
	load_pin(0);
	envelope_check();
	printf("{");
	measure("encode", encode_ours, encode_nanopb, ",");
	measure("decode", decode_ours, decode_nanopb, ",");
	event_base_once(of.base, -1, EV_TIMEOUT, measure_pending, NULL, &(struct timeval){ 0 });
	event_base_dispatch(of.base);
	return 0;
}
