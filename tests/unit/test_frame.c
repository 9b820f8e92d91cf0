#include <check.h>
#include <pb_decode.h>
#include <pb_encode.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "proto/rpc.pb.h"
#include "rpc/frame.h"
#include "tests/support/suite.h"
/*
 * The envelope: hand-written code must write and read the very bytes that nanopb does, over random messages.
 */
static uint64_t rng;

static uint64_t draw(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	return rng ^= rng << 17;
}

/* Small numbers, large ones and zero are all likely: the lengths of varints are where mistakes hide. */
static uint64_t number(void)
{
	return draw() % 4 ? draw() >> draw() % 64 : 0;
}

static struct span bytes(size_t max)
{
	static char store[64][512];
	static unsigned next;
	char *p = store[next++ % 64];
	size_t n = draw() % 3 ? draw() % (max + 1) : 0;

	for (size_t i = 0; i < n; i++)
		p[i] = (char)('a' + draw() % 26);
	return span_of(p, n);
}

static struct frame_request random_request(void)
{
	struct frame_request r = {
		.id = number(),
		.method = (uint32_t)number(),
		.service = bytes(31),
		.method_name = bytes(63),
		.time_left_ms = (uint32_t)number(),
		.trace = number(),
		.key = bytes(200),
		.sid = number(),
		.uid = bytes(200),
		.kind = (uint32_t)draw() % 3,
		.json = draw() & 1,
		.body = bytes(500),
	};

	if (draw() & 1) {
		r.has_once = true;
		r.once.seq = number();
		r.once.first_incomplete = number();
		if (r.once.seq && (draw() & 1)) /* the two alone are what nearly all have */
			return r;
		r.once.client = (uint32_t)number();
		r.once.epoch = (uint32_t)number();
		r.once.attempt = (uint32_t)number();
		r.once.key = bytes(256);
	}
	return r;
}

static struct frame_response random_response(void)
{
	struct frame_response r = {
		.id = number(),
		.error = (uint32_t)draw() % 9,
		.effect = (uint32_t)draw() % 3,
		.message = bytes(200),
		.json = draw() & 1,
		.attrs = (unsigned)(draw() % (FRAME_ATTRS_MAX + 1)),
		.body = bytes(500),
	};

	for (unsigned i = 0; i < r.attrs; i++) {
		r.attr[i].name = bytes(31);
		r.attr[i].value = bytes(63);
	}
	return r;
}

/* ---- the reference ------------------------------------------------------------------------------------------- */

static bool put_span(pb_ostream_t *out, const pb_field_t *field, void *const *arg)
{
	const struct span *s = *arg;

	return !s->n || (pb_encode_tag_for_field(out, field) && pb_encode_string(out, (const pb_byte_t *)s->p, s->n));
}

static pb_callback_t span_field(const struct span *s)
{
	return (pb_callback_t){ .funcs.encode = put_span, .arg = (void *)(uintptr_t)s };
}

static size_t nanopb_request(const struct frame_request *r, pb_byte_t *out, size_t size)
{
	loquat_rpc_Request m = loquat_rpc_Request_init_zero;
	pb_ostream_t stream = pb_ostream_from_buffer(out, size);

	m.has_id = (m.id = r->id) != 0;
	m.has_method = (m.method = r->method) != 0;
	m.service = span_field(&r->service);
	m.method_name = span_field(&r->method_name);
	m.has_time_left_ms = (m.time_left_ms = r->time_left_ms) != 0;
	m.has_trace = (m.trace = r->trace) != 0;
	m.key = span_field(&r->key);
	m.has_session = r->sid || r->uid.n;
	m.session.has_sid = (m.session.sid = r->sid) != 0;
	m.session.uid = span_field(&r->uid);
	m.has_once = r->has_once;
	m.once.has_client = (m.once.client = r->once.client) != 0;
	m.once.has_epoch = (m.once.epoch = r->once.epoch) != 0;
	m.once.has_seq = (m.once.seq = r->once.seq) != 0;
	m.once.has_first_incomplete = (m.once.first_incomplete = r->once.first_incomplete) != 0;
	m.once.has_attempt = (m.once.attempt = r->once.attempt) != 0;
	m.once.key = span_field(&r->once.key);
	m.has_kind = (m.kind = r->kind) != 0;
	m.has_json = (m.json = r->json);
	m.body = span_field(&r->body);
	ck_assert(pb_encode(&stream, loquat_rpc_Request_fields, &m));
	return stream.bytes_written;
}

static bool put_attrs(pb_ostream_t *out, const pb_field_t *field, void *const *arg)
{
	const struct frame_response *r = *arg;

	for (unsigned i = 0; i < r->attrs; i++) {
		loquat_rpc_Attr m = loquat_rpc_Attr_init_zero;

		m.name = span_field(&r->attr[i].name);
		m.value = span_field(&r->attr[i].value);
		if (!pb_encode_tag_for_field(out, field) || !pb_encode_submessage(out, loquat_rpc_Attr_fields, &m))
			return false;
	}
	return true;
}

static size_t nanopb_response(const struct frame_response *r, pb_byte_t *out, size_t size)
{
	loquat_rpc_Response m = loquat_rpc_Response_init_zero;
	pb_ostream_t stream = pb_ostream_from_buffer(out, size);

	m.has_id = (m.id = r->id) != 0;
	m.has_error = (m.error = r->error) != 0;
	m.has_effect = (m.effect = r->effect) != 0;
	m.message = span_field(&r->message);
	m.has_json = (m.json = r->json);
	m.attr = (pb_callback_t){ .funcs.encode = put_attrs, .arg = (void *)(uintptr_t)r };
	m.body = span_field(&r->body);
	ck_assert(pb_encode(&stream, loquat_rpc_Response_fields, &m));
	return stream.bytes_written;
}

/* ---- the promises --------------------------------------------------------------------------------------------- */

static struct span payload_of(const char *frame, size_t n, enum frame_type wanted)
{
	enum frame_type type;
	struct span payload;

	ck_assert_int_eq(frame_split(frame, n, &type, &payload), (ssize_t)n);
	ck_assert_int_eq(type, wanted);
	return payload;
}

static bool same(struct span a, struct span b)
{
	return a.n == b.n && (!a.n || !memcmp(a.p, b.p, a.n));
}

START_TEST(requests_are_the_bytes_that_nanopb_writes)
{
	static char out[8192];
	static pb_byte_t reference[8192];

	for (rng = 1; rng < 3000; rng++) {
		uint64_t seed = rng;
		struct frame_request r = random_request();
		size_t n = frame_put_request(out, &r, FRAME_REQUEST);
		struct span payload = payload_of(out, n, FRAME_REQUEST);
		size_t wanted = nanopb_request(&r, reference, sizeof reference);

		if (n > frame_request_bytes(&r) || !same(payload, span_of((char *)reference, wanted)))
			ck_abort_msg("seed %llu", (unsigned long long)seed);
		rng = seed;
	}
}
END_TEST

START_TEST(responses_are_the_bytes_that_nanopb_writes)
{
	static char out[8192];
	static pb_byte_t reference[8192];

	for (rng = 1; rng < 3000; rng++) {
		uint64_t seed = rng;
		struct frame_response r = random_response();
		size_t n = frame_put_response(out, &r);
		struct span payload = payload_of(out, n, FRAME_RESPONSE);
		size_t wanted = nanopb_response(&r, reference, sizeof reference);

		if (n > frame_response_bytes(&r) || !same(payload, span_of((char *)reference, wanted)))
			ck_abort_msg("seed %llu", (unsigned long long)seed);
		rng = seed;
	}
}
END_TEST

static bool same_request(const struct frame_request *a, const struct frame_request *b)
{
	return a->id == b->id && a->method == b->method && same(a->service, b->service) &&
	       same(a->method_name, b->method_name) && a->time_left_ms == b->time_left_ms && a->trace == b->trace &&
	       same(a->key, b->key) && a->sid == b->sid && same(a->uid, b->uid) && a->has_once == b->has_once &&
	       a->once.client == b->once.client && a->once.epoch == b->once.epoch && a->once.seq == b->once.seq &&
	       a->once.first_incomplete == b->once.first_incomplete && a->once.attempt == b->once.attempt &&
	       same(a->once.key, b->once.key) && a->kind == b->kind && a->json == b->json && same(a->body, b->body);
}

START_TEST(what_was_written_is_read_again)
{
	static char out[8192];

	for (rng = 1; rng < 3000; rng++) {
		uint64_t seed = rng;
		struct frame_request r = random_request(), back;
		size_t n = frame_put_request(out, &r, FRAME_REQUEST);

		if (frame_get_request(payload_of(out, n, FRAME_REQUEST), &back) < 0 || !same_request(&r, &back))
			ck_abort_msg("seed %llu", (unsigned long long)seed);
		rng = seed;
	}
}
END_TEST

START_TEST(a_truncated_message_is_refused_or_shorter_but_never_read_beyond_its_end)
{
	static char out[8192];
	struct frame_request back;
	struct frame_response answer;

	for (rng = 1; rng < 300; rng++) {
		uint64_t seed = rng;
		struct frame_request r = random_request();
		size_t n = frame_put_request(out, &r, FRAME_REQUEST);

		for (size_t cut = 0; cut < n - FRAME_HEADER; cut++) {
			char *copy = malloc(cut ? cut : 1); /* exactly as long: a sanitizer sees a read beyond it */

			memcpy(copy, out + FRAME_HEADER, cut);
			frame_get_request(span_of(copy, cut), &back);
			frame_get_response(span_of(copy, cut), &answer);
			free(copy);
		}
		rng = seed;
	}
}
END_TEST

START_TEST(a_length_beyond_the_end_is_corrupt)
{
	struct frame_request back;

	ck_assert_int_eq(frame_get_request(span_of("\x7a\x05"
						   "ab",
						   4),
					   &back),
			 ERR_CORRUPT);
	ck_assert_int_eq(frame_get_request(span_of("\x7a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11), &back),
			 ERR_CORRUPT);
	ck_assert_int_eq(frame_get_request(span_of("\x08", 1), &back), ERR_CORRUPT);
	ck_assert_int_eq(frame_get_request(span_of("\x03", 1), &back), ERR_CORRUPT);
}
END_TEST

START_TEST(unknown_fields_are_skipped)
{
	struct frame_request back;

	/* field 99 as a varint, as bytes, as 32 and 64 bits; then id 7 */
	ck_assert_int_eq(
		frame_get_request(
			span_of("\x98\x06\x05\x9a\x06\x02hi\x9d\x06\x01\x02\x03\x04\x99\x06\x01\x02\x03\x04\x05\x06\x07\x08\x08\x07",
				26),
			&back),
		0);
	ck_assert_uint_eq(back.id, 7);
}
END_TEST

/* A process of before wrote the two numbers of a once-call as varints; while one is renewed after the other both are here. */
START_TEST(numbers_of_a_once_call_are_read_as_varints_too)
{
	struct frame_request back;

	/* once: seq 300, first_incomplete 299, attempt 2; then id 7 */
	ck_assert_int_eq(frame_get_request(span_of("\x4a\x08\x18\xac\x02\x20\xab\x02\x28\x02\x08\x07", 12), &back), 0);
	ck_assert(back.has_once);
	ck_assert_uint_eq(back.once.seq, 300);
	ck_assert_uint_eq(back.once.first_incomplete, 299);
	ck_assert_uint_eq(back.once.attempt, 2);
	ck_assert_uint_eq(back.id, 7);
}
END_TEST

START_TEST(a_frame_is_split_off_only_when_it_is_whole)
{
	char out[64];
	enum frame_type type;
	struct span payload;
	size_t n = frame_put_empty(out, FRAME_PING);

	for (size_t cut = 0; cut < n; cut++)
		ck_assert_int_eq(frame_split(out, cut, &type, &payload), 0);
	ck_assert_int_eq(frame_split(out, n, &type, &payload), FRAME_HEADER);
	ck_assert_int_eq(type, FRAME_PING);
}
END_TEST

struct seen {
	enum frame_type type[8];
	unsigned n;
	int answer; /* to the second of them */
};

static int on_frame(void *arg, enum frame_type type, struct span payload)
{
	struct seen *s = arg;

	ck_assert_uint_eq(payload.n, 0);
	s->type[s->n++] = type;
	return s->n == 2 ? s->answer : 0;
}

START_TEST(each_whole_frame_is_given_in_order_and_the_first_error_ends_it)
{
	char out[64];
	struct seen s = { .n = 0 }, broken = { .answer = ERR_DENIED };
	size_t n = 0;

	n += frame_put_empty(out + n, FRAME_PING);
	n += frame_put_empty(out + n, FRAME_PONG);
	n += frame_put_empty(out + n, FRAME_GOAWAY);
	ck_assert_int_eq(frame_each(out, n - 1, on_frame, &s), 2 * FRAME_HEADER);
	ck_assert_uint_eq(s.n, 2);
	ck_assert_int_eq(s.type[0], FRAME_PING);
	ck_assert_int_eq(s.type[1], FRAME_PONG);
	ck_assert_int_eq(frame_each(out, n, on_frame, &broken), ERR_DENIED);
	ck_assert_uint_eq(broken.n, 2);
	out[FRAME_HEADER + 6]++;
	s.n = 0;
	ck_assert_int_eq(frame_each(out, n, on_frame, &s), ERR_CORRUPT);
	ck_assert_uint_eq(s.n, 1);
}
END_TEST

START_TEST(a_frame_of_another_version_type_or_size_is_refused_by_its_header)
{
	char out[64];
	enum frame_type type;
	struct span payload;

	frame_put_header(out, FRAME_REQUEST, FRAME_PAYLOAD_MAX + 1);
	ck_assert_int_eq(frame_split(out, FRAME_HEADER, &type, &payload), ERR_CORRUPT);
	frame_put_header(out, 0, 1);
	ck_assert_int_eq(frame_split(out, FRAME_HEADER, &type, &payload), ERR_CORRUPT);
	frame_put_header(out, FRAME_GOAWAY + 1, 1);
	ck_assert_int_eq(frame_split(out, FRAME_HEADER, &type, &payload), ERR_CORRUPT);
	frame_put_header(out, FRAME_PING, 0);
	out[6]++;
	ck_assert_int_eq(frame_split(out, FRAME_HEADER, &type, &payload), ERR_CORRUPT);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("frame");

	tcase_add_test(t, requests_are_the_bytes_that_nanopb_writes);
	tcase_add_test(t, responses_are_the_bytes_that_nanopb_writes);
	tcase_add_test(t, what_was_written_is_read_again);
	tcase_add_test(t, a_truncated_message_is_refused_or_shorter_but_never_read_beyond_its_end);
	tcase_add_test(t, a_length_beyond_the_end_is_corrupt);
	tcase_add_test(t, unknown_fields_are_skipped);
	tcase_add_test(t, numbers_of_a_once_call_are_read_as_varints_too);
	tcase_add_test(t, a_frame_is_split_off_only_when_it_is_whole);
	tcase_add_test(t, each_whole_frame_is_given_in_order_and_the_first_error_ends_it);
	tcase_add_test(t, a_frame_of_another_version_type_or_size_is_refused_by_its_header);
	return suite_run("frame", t);
}
