/* Any bytes as a handshake's body: what is read is answered by valid JSON, whatever the server offers. */
#include <assert.h>
#include <jansson.h>
#include <stdint.h>
#include <string.h>
#include "common/err.h"
#include "rpc/pomelo.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void answer(const struct pomelo_hello *h, const struct pomelo_dict *dict, enum pomelo_payload payload)
{
	static const char protos[] = "{\"client\":{},\"server\":{},\"version\":\"v\"}";
	struct pomelo_welcome w = { 10, dict, payload, protos, sizeof protos - 1, "v" };
	struct buf out = BUF_INIT;

	pomelo_hello_reply(&out, h, &w);
	json_t *o = json_loadb(out.data + POMELO_HEAD, out.len - POMELO_HEAD, JSON_REJECT_DUPLICATES, NULL);
	assert(o && json_integer_value(json_object_get(o, "code")) == 200 && out.data[out.len - 1] == '}');
	json_decref(o);
	buf_release(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const char *const routes[] = { "a.b.c", "onChat" };
	struct pomelo_dict *dict;
	struct pomelo_hello h;

	if (pomelo_hello_read((const char *)data, n, &h) < 0)
		return 0;
	assert(strlen(h.type) < sizeof h.type && strlen(h.version) < sizeof h.version);
	int order = pomelo_version_compare(h.version, h.dict_version);
	assert((order < 0) == (pomelo_version_compare(h.dict_version, h.version) > 0));
	assert(pomelo_dict_new(routes, 2, &dict) == 0);
	for (int payload = POMELO_JSON; payload <= POMELO_PROTOBUF; payload++) {
		answer(&h, NULL, (enum pomelo_payload)payload);
		answer(&h, dict, (enum pomelo_payload)payload);
	}
	pomelo_dict_free(dict);
	return 0;
}
