#include "common/env_real.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

/*
 * TLS beneath the stream sockets: env_real_net.c drives the handshake and asks here for bytes. A context may be reloaded
 * while connections are made from several threads, so it is taken under a lock that is held for a count only.
 */
#define CHUNK       16384 /* of one record: a write that has to be repeated must be at least as long as it was */
#define TICKET_KEYS 80

struct env_tls {
	pthread_mutex_t lock; /* guards ctx */
	SSL_CTX *ctx;
	char *cert, *key, *ca;
};

struct conn_tls {
	SSL *ssl;
};

/* ---- words ---------------------------------------------------------------------------------------------------- */

static void note_error(const SSL *ssl, unsigned long code)
{
	long verified = SSL_get_verify_result(ssl);
	const char *reason = code ? ERR_reason_error_string(code) : NULL;
	char text[160];

	if (verified != X509_V_OK)
		snprintf(text, sizeof text, "TLS: its certificate: %s", X509_verify_cert_error_string(verified));
	else
		snprintf(text, sizeof text, "TLS: %s", reason ? reason : "the other side ended the handshake");
	env_real_words(text);
	ERR_clear_error();
}

static int file_error(const char *path, const char *what, char *error, size_t size)
{
	unsigned long code = ERR_peek_error();
	const char *reason = code ? ERR_reason_error_string(code) : NULL;

	snprintf(error, size, "%s: %s: %s", path, what, reason ? reason : "it cannot be used");
	ERR_clear_error();
	return ERR_CONFIG;
}

/* ---- contexts -------------------------------------------------------------------------------------------------- */

static int load_files(SSL_CTX *ctx, const struct env_tls *t, char *error, size_t size)
{
	if (t->cert && SSL_CTX_use_certificate_chain_file(ctx, t->cert) != 1)
		return file_error(t->cert, "no certificate", error, size);
	if (t->cert && SSL_CTX_use_PrivateKey_file(ctx, t->key, SSL_FILETYPE_PEM) != 1)
		return file_error(t->key, "no key for this certificate", error, size);
	if (t->ca && SSL_CTX_load_verify_locations(ctx, t->ca, NULL) != 1)
		return file_error(t->ca, "no certificates to trust", error, size);
	return 0;
}

static void configure(SSL_CTX *ctx, const struct env_tls *t)
{
	static const unsigned char name[] = "loquat";

	SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
				      SSL_MODE_RELEASE_BUFFERS); /* idle players hold no record buffers */
	SSL_CTX_set_session_id_context(ctx, name, sizeof name - 1);
	if (t->ca) /* both ways: who shows none is refused */
		SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
}

static int context_new(const struct env_tls *t, char *error, size_t size, SSL_CTX **out)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_method());

	if (!ctx)
		return file_error("TLS", "no context", error, size);
	configure(ctx, t);
	int err = load_files(ctx, t, error, size);

	if (err < 0)
		SSL_CTX_free(ctx);
	else
		*out = ctx;
	return err;
}

static char *copy(const char *text)
{
	return text && *text ? strdup(text) : NULL;
}

int env_tls_new(struct env *env, const struct env_tls_options *o, char *error, size_t error_size, struct env_tls **out)
{
	struct env_tls *t = calloc(1, sizeof *t);

	(void)env;
	if (!t)
		return ERR_NOMEM;
	pthread_mutex_init(&t->lock, NULL);
	t->cert = copy(o->cert);
	t->key = copy(o->key);
	t->ca = copy(o->ca);
	int err = context_new(t, error, error_size, &t->ctx);

	if (err < 0)
		env_tls_free(t);
	else
		*out = t;
	return err;
}

int env_tls_reload(struct env_tls *t, char *error, size_t error_size)
{
	unsigned char keys[TICKET_KEYS];
	SSL_CTX *fresh, *old = t->ctx;
	int err = context_new(t, error, error_size, &fresh);

	if (err < 0)
		return err;
	/* who comes back with a ticket of before resumes all the same */
	if (SSL_CTX_get_tlsext_ticket_keys(old, keys, sizeof keys) == 1)
		SSL_CTX_set_tlsext_ticket_keys(fresh, keys, sizeof keys);
	OPENSSL_cleanse(keys, sizeof keys);
	pthread_mutex_lock(&t->lock);
	t->ctx = fresh;
	pthread_mutex_unlock(&t->lock);
	SSL_CTX_free(old); /* connections hold it as long as they live */
	return 0;
}

static int64_t seconds_of(const ASN1_TIME *time)
{
	struct tm tm;

	return ASN1_TIME_to_tm(time, &tm) == 1 ? timegm(&tm) : 0;
}

static void shorten(struct env_tls_life *life, const X509 *x)
{
	int64_t ends_s = seconds_of(X509_get0_notAfter(x));

	if (!life->ends_s || ends_s < life->ends_s)
		*life = (struct env_tls_life){ seconds_of(X509_get0_notBefore(x)), ends_s };
}

struct env_tls_life env_tls_life(struct env_tls *t)
{
	struct env_tls_life life = { 0 };
	STACK_OF(X509) *chain = NULL;

	pthread_mutex_lock(&t->lock);
	X509 *own = SSL_CTX_get0_certificate(t->ctx);

	if (own)
		shorten(&life, own);
	SSL_CTX_get0_chain_certs(t->ctx, &chain);
	for (int i = 0; i < sk_X509_num(chain); i++)
		shorten(&life, sk_X509_value(chain, i));
	pthread_mutex_unlock(&t->lock);
	return life;
}

void env_tls_free(struct env_tls *t)
{
	if (!t)
		return;
	SSL_CTX_free(t->ctx);
	pthread_mutex_destroy(&t->lock);
	free(t->cert);
	free(t->key);
	free(t->ca);
	free(t);
}

/* ---- connections ------------------------------------------------------------------------------------------------- */

static SSL *ssl_new(struct env_tls *t)
{
	pthread_mutex_lock(&t->lock);
	SSL *ssl = SSL_new(t->ctx); /* counts the context */
	pthread_mutex_unlock(&t->lock);
	return ssl;
}

SSL *env_real_tls_client(struct env_tls *t, const char *host)
{
	SSL *ssl = ssl_new(t);

	if (ssl && X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1)
		return ssl;
	SSL_free(ssl);
	return NULL;
}

bool env_real_tls_failed(const SSL *ssl, unsigned long error)
{
	if (SSL_get_verify_result(ssl) == X509_V_OK && !ERR_reason_error_string(error)) /* none, or a socket's own */
		return false;
	note_error(ssl, error);
	return true;
}

struct conn_tls *env_real_tls_open(struct env_tls *t, int fd, bool client)
{
	struct conn_tls *c = calloc(1, sizeof *c);

	if (!c)
		return NULL;
	c->ssl = ssl_new(t);
	if (!c->ssl || SSL_set_fd(c->ssl, fd) != 1) {
		SSL_free(c->ssl);
		free(c);
		return NULL;
	}
	if (client)
		SSL_set_connect_state(c->ssl);
	else
		SSL_set_accept_state(c->ssl);
	return c;
}

void env_real_tls_close(struct conn_tls *c)
{
	if (!c)
		return;
	if (SSL_is_init_finished(c->ssl))
		SSL_shutdown(
			c->ssl); /* a goodbye if it fits into the socket; without it the session could not be resumed */
	ERR_clear_error();
	SSL_free(c->ssl);
	free(c);
}

void env_real_tls_shutdown(struct conn_tls *c)
{
	SSL_shutdown(c->ssl);
	ERR_clear_error();
}

bool env_real_tls_pending(const struct conn_tls *c)
{
	return SSL_pending(c->ssl) > 0;
}

int env_real_tls_step(struct conn_tls *c, bool *wants_write)
{
	ERR_clear_error();
	int n = SSL_do_handshake(c->ssl);
	int why = n == 1 ? SSL_ERROR_NONE : SSL_get_error(c->ssl, n);

	*wants_write = why == SSL_ERROR_WANT_WRITE;
	if (why == SSL_ERROR_NONE)
		return 0;
	if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE)
		return ERR_AGAIN;
	note_error(c->ssl, ERR_peek_error());
	return ERR_DENIED;
}

static ssize_t transfer_error(struct conn_tls *c, int n)
{
	int why = SSL_get_error(c->ssl, n);

	if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE)
		return ERR_AGAIN;
	if (why == SSL_ERROR_ZERO_RETURN)
		return 0;
	/* TLS 1.3's client is done before the server has looked at its certificate: the refusal comes as an alert */
	note_error(c->ssl, ERR_peek_error());
	return ERR_CLOSED;
}

ssize_t env_real_tls_read(struct conn_tls *c, void *buf, size_t n)
{
	size_t got = 0;
	int once = 1;

	ERR_clear_error();
	while (got < n && (once = SSL_read(c->ssl, (char *)buf + got, (int)(n - got > CHUNK ? CHUNK : n - got))) > 0)
		got += (size_t)once;
	return got ? (ssize_t)got : transfer_error(c, once); /* what ended it comes again */
}

/* *full: the socket took no more. */
static size_t write_some(struct conn_tls *c, const char *p, size_t n, int *last)
{
	size_t put = 0;

	while (put < n && (*last = SSL_write(c->ssl, p + put, (int)(n - put > CHUNK ? CHUNK : n - put))) > 0)
		put += (size_t)*last;
	return put;
}

ssize_t env_real_tls_write(struct conn_tls *c, const struct iovec *iov, int n)
{
	size_t put = 0;
	int last = 1;

	ERR_clear_error();
	for (int i = 0; i < n && last > 0; i++)
		put += write_some(c, iov[i].iov_base, iov[i].iov_len, &last);
	if (put || last > 0)
		return (ssize_t)put;
	ssize_t err = transfer_error(c, last);

	return err ? err : ERR_CLOSED;
}
