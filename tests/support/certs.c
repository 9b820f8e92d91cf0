#include "tests/support/certs.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

struct certs {
	EVP_PKEY *key;
	X509 *cert;
	long serial;
};

static X509 *cert_new(EVP_PKEY *key, const char *name, long serial)
{
	X509 *x = X509_new();

	X509_set_version(x, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(x), serial);
	X509_gmtime_adj(X509_getm_notBefore(x), -3600);
	X509_gmtime_adj(X509_getm_notAfter(x), 3600);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1,
				   0);
	X509_set_pubkey(x, key);
	return x;
}

static void may_sign(X509 *x)
{
	X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, "critical,CA:TRUE");

	X509_add_ext(x, e, -1);
	X509_EXTENSION_free(e);
}

static FILE *file(const char *dir, const char *name, const char *end)
{
	char path[512];

	snprintf(path, sizeof path, "%s/%s%s", dir, name, end);
	FILE *f = fopen(path, "we");

	assert(f);
	return f;
}

static void write_cert(X509 *x, const char *dir, const char *name, const char *end)
{
	FILE *f = file(dir, name, end);

	PEM_write_X509(f, x);
	fclose(f);
}

struct certs *certs_new(const char *dir, const char *name)
{
	struct certs *ca = calloc(1, sizeof *ca);

	assert(ca);
	ca->key = EVP_EC_gen("P-256");
	ca->cert = cert_new(ca->key, name, 1);
	X509_set_issuer_name(ca->cert, X509_get_subject_name(ca->cert));
	may_sign(ca->cert);
	X509_sign(ca->cert, ca->key, EVP_sha256());
	write_cert(ca->cert, dir, name, ".ca.pem");
	return ca;
}

void certs_sign(struct certs *ca, const char *dir, const char *name)
{
	certs_sign_for(ca, dir, name, -3600, 3600);
}

void certs_sign_for(struct certs *ca, const char *dir, const char *name, long from_s, long to_s)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *x = cert_new(key, name, 2 + ca->serial++);
	FILE *f = file(dir, name, ".key");

	X509_gmtime_adj(X509_getm_notBefore(x), from_s);
	X509_gmtime_adj(X509_getm_notAfter(x), to_s);
	X509_set_issuer_name(x, X509_get_subject_name(ca->cert));
	X509_sign(x, ca->key, EVP_sha256());
	PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL);
	fclose(f);
	write_cert(x, dir, name, ".pem");
	X509_free(x);
	EVP_PKEY_free(key);
}

void certs_free(struct certs *ca)
{
	X509_free(ca->cert);
	EVP_PKEY_free(ca->key);
	free(ca);
}
