#include <assert.h>
#include <stdio.h>
#include "common/env_sim_private.h"

/* A simulated network has no TLS, and says so when it is asked for. */
int env_tls_new(struct env *env, const struct env_tls_options *o, char *error, size_t error_size, struct env_tls **out)
{
	(void)env, (void)o, (void)out;
	snprintf(error, error_size, "a simulated network has no TLS");
	return ERR_UNAVAILABLE;
}

int env_tls_reload(struct env_tls *t, char *error, size_t error_size)
{
	(void)t;
	snprintf(error, error_size, "a simulated network has no TLS");
	return ERR_UNAVAILABLE;
}

struct env_tls_life env_tls_life(struct env_tls *t)
{
	assert(!t);
	return (struct env_tls_life){ 0 };
}

void env_tls_free(struct env_tls *t)
{
	assert(!t);
}

void env_listener_tls(struct env_listener *l, struct env_tls *t)
{
	(void)l;
	assert(!t);
}

int env_conn_tls(struct env_conn *conn, struct env_tls *t)
{
	(void)conn;
	assert(!t);
	return ERR_UNAVAILABLE;
}

int env_conn_tls_accept(struct env_conn *conn, struct env_tls *t)
{
	(void)conn, (void)t;
	return ERR_UNAVAILABLE;
}
