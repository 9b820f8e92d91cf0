#include <assert.h>
#include "common/env_sim_private.h"

/* Simulated processes share no descriptors: whoever asks is told so. */
int env_pass_listen(struct env_loop *loop, const char *path, void (*on_peer)(void *arg, struct env_pass *pass),
		    void *arg, struct env_pass_door **out)
{
	(void)loop, (void)path, (void)on_peer, (void)arg, (void)out;
	return ERR_UNAVAILABLE;
}

void env_pass_door_close(struct env_pass_door *d, bool remove)
{
	(void)remove;
	assert(!d);
}

int env_pass_connect(struct env *env, const char *path, struct env_pass **out)
{
	(void)env, (void)path, (void)out;
	return ERR_UNAVAILABLE;
}

void env_pass_close(struct env_pass *p)
{
	assert(!p);
}

int env_pass_send(struct env_pass *p, const void *bytes, size_t n, const struct env_conn *conn,
		  const struct env_listener *listener)
{
	(void)p, (void)bytes, (void)n, (void)conn, (void)listener;
	return ERR_UNAVAILABLE;
}

ssize_t env_pass_receive(struct env_pass *p, void *bytes, size_t n, uint32_t wait_ms, struct env_passed **passed)
{
	(void)p, (void)bytes, (void)n, (void)wait_ms, (void)passed;
	return ERR_UNAVAILABLE;
}

void env_passed_close(struct env_passed *t)
{
	assert(!t);
}

int env_passed_conn(struct env_passed *t, struct env_conn **out)
{
	(void)t, (void)out;
	return ERR_UNAVAILABLE;
}

int env_passed_listen(struct env_passed *t, struct env_loop *loop, void (*on_accept)(void *arg, struct env_conn *conn),
		      void *arg, struct env_listener **out)
{
	(void)t, (void)loop, (void)on_accept, (void)arg, (void)out;
	return ERR_UNAVAILABLE;
}

bool env_conn_passable(const struct env_conn *conn)
{
	(void)conn;
	return false;
}

void env_listener_rest(struct env_listener *l, bool rest)
{
	(void)l, (void)rest; /* only who hands over rests, and nobody does here */
}
