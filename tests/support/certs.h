#pragma once
/*
 * certs: certificates for tests of TLS: authorities and what they sign, with keys of a small elliptic curve, as PEM files.
 */
struct certs;                                                         /* an authority */
struct certs *certs_new(const char *dir, const char *name);           /* writes DIR/NAME.ca.pem */
void certs_sign(struct certs *ca, const char *dir, const char *name); /* writes DIR/NAME.pem and DIR/NAME.key */
void certs_sign_for(struct certs *ca, const char *dir, const char *name, long from_s,
		    long to_s); /* good so long from now */
void certs_free(struct certs *ca);
