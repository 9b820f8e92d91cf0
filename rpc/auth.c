#include "rpc/auth.h"
#include <assert.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>
#include "common/buf.h"

void auth_prove(const char *key, const char *role, const struct auth_names *n, unsigned char proof[AUTH_PROOF])
{
	struct buf text = BUF_INIT;
	unsigned size = 0;

	buf_addf(&text, "loquat-rpc-1\n%s\n%s\n%s\n", role, n->client, n->server);
	buf_add(&text, n->client_nonce, AUTH_NONCE);
	buf_add(&text, n->server_nonce, AUTH_NONCE);
	unsigned char *done =
		HMAC(EVP_sha256(), key, (int)strlen(key), (const unsigned char *)text.data, text.len, proof, &size);

	assert(done && size == AUTH_PROOF);
	buf_release(&text);
}

bool auth_check(const char *key, const char *role, const struct auth_names *n, const void *proof, size_t size)
{
	unsigned char expected[AUTH_PROOF];

	auth_prove(key, role, n, expected);
	return size == AUTH_PROOF && CRYPTO_memcmp(expected, proof, AUTH_PROOF) == 0;
}
