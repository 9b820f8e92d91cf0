/*
 * Any bytes as a client's protobuf in both dialects, and as JSON on its way to one: what is read is valid JSON, and read
 * the same again after it was written.
 */
#include <assert.h>
#include <stdint.h>
#include <string.h>
#include "common/err.h"
#include "common/jsontext.h"
#include "rpc/clientpb.h"
#include "tests/support/sample.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void again(const struct msg_type *t, const struct buf *text)
{
	struct clientpb_write w = { .dialect = CLIENTPB_STANDARD };
	struct buf bytes = BUF_INIT, second = BUF_INIT;

	/* numbers above 2^63 have no way back */
	if (clientpb_write(&bytes, t, &w, text->data, text->len) == 0) {
		assert(clientpb_read(&second, t, CLIENTPB_STANDARD, bytes.data, bytes.len) == 0);
		assert(second.len <= text->len); /* an empty list is not written */
	}
	buf_release(&bytes);
	buf_release(&second);
}

static void one(const struct msg_type *t, const char *p, size_t n)
{
	struct buf out = BUF_INIT;
	struct jsontext checked;
	const char *why;

	for (int d = CLIENTPB_STANDARD; d <= CLIENTPB_POMELO; d++) {
		buf_clear(&out);
		if (clientpb_read(&out, t, (enum clientpb_dialect)d, p, n) == 0) {
			assert(jsontext_object(out.data, out.len, &checked, &why) == 0);
			again(t, &out);
		}
		for (int surrogates = 0; surrogates < 2; surrogates++) {
			struct clientpb_write w = { (enum clientpb_dialect)d, surrogates };
			buf_clear(&out);
			(void)clientpb_write(&out, t, &w, p, n);
		}
	}
	buf_release(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const char *const names[] = { "sample.All", "sample.Maps", "sample.Buy" };
	static struct schema *schema; /* read once: libFuzzer calls this a million times */

	if (!schema)
		schema = sample_schema();
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		one(schema_type(schema, names[i]), n ? (const char *)data : "", n);
	return 0;
}
