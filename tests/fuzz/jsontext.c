/* Any bytes as JSON text: what is accepted, jansson accepts too once characters above U+FFFF are escaped. */
#include <assert.h>
#include <jansson.h>
#include <stdint.h>
#include <string.h>
#include "common/err.h"
#include "common/jsontext.h"
#include "common/token.h"
#include "rpc/player.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void quoted(const char *p, size_t n)
{
	struct buf b = BUF_INIT;
	struct jsontext t;
	const char *why;

	buf_addstr(&b, "{\"x\":");
	jsontext_quote(&b, p, n);
	buf_addch(&b, '}');
	assert(jsontext_object(b.data, b.len, &t, &why) == 0 && !t.wide);
	buf_release(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	const char *p = (const char *)data, *why = NULL, *v;
	struct buf b = BUF_INIT;
	struct jsontext t;
	struct token token;
	size_t v_n;

	quoted(p, n);
	assert(token_read("key", "login", 1, p, n, 6, &token) == ERR_DENIED);
	if (jsontext_object(p, n, &t, &why) < 0) {
		assert(why);
		return 0;
	}
	jsontext_narrow(&b, p, n);
	json_error_t e;
	json_t *o = json_loadb(b.data, b.len, JSON_ALLOW_NUL, &e);
	/* jansson has bounds of its own for numbers, and takes no NUL in names */
	assert(o || json_error_code(&e) == json_error_numeric_overflow ||
	       json_error_code(&e) == json_error_null_byte_in_key || json_error_code(&e) == json_error_null_character);
	json_decref(o);
	if (jsontext_member(p, n, "a", &v, &v_n))
		assert(v >= p && v + v_n <= p + n && v_n);
	buf_release(&b);
	return 0;
}
