#include <stdio.h>
#include <string.h>
#include "common/err.h"
#include "rpc/route_etcd.h"

/*
 * An etcd that asks who one is: name and password are given for a token, which goes with each request. A token ends when etcd
 * likes (unused for some minutes, after a restart, when its users change): who is refused asks for another. One that has no
 * users yet is spoken to without a token, until it refuses that.
 */
#define ETCD_LOGIN_MS 5000 /* etcd makes it slow on purpose, against guessing */
#define TOKEN_AT      (sizeof ETCD_AUTHORIZATION - 1)

bool login_done(struct etcd_source *s)
{
	if (!*s->config.user || *s->authorization || s->open)
		return true;
	if (!s->logging_in) /* a token that is refused again and again is not asked for without a pause */
		loop_timer(s->o.loop, &s->login, s->login_backoff_ms);
	s->logging_in = true;
	return false;
}

void login_forget(struct etcd_source *s)
{
	if (*s->authorization || s->open)
		etcd_backoff(s, &s->login_backoff_ms);
	*s->authorization = '\0';
	s->open = false;
}

static void login_failed(struct etcd_source *s, const struct env_http_answer *a)
{
	etcd_failed(s, a);
	loop_timer(s->o.loop, &s->login, etcd_backoff(s, &s->login_backoff_ms));
}

static void logged_in(struct etcd_source *s)
{
	s->logging_in = false;
	look_go(s);
	own_soon(s);
}

static void no_token_needed(struct etcd_source *s)
{
	const struct etcd_host *h = etcd_host_now(s);

	s->open = true;
	if (!s->open_told)
		log_warn(s->o.log, "etcd.open", "endpoint=%s:%u why=%s", h->host, h->port,
			 "discovery.user is given, and etcd asks nobody who it is (etcdctl auth enable)");
	s->open_told = true;
	logged_in(s);
}

static void on_token(void *arg, const struct env_http_answer *a)
{
	struct etcd_source *s = arg;

	if (s->closed)
		return;
	if (a->err == 0 && a->status != 200 && etcd_is_open(a->body, a->n)) {
		no_token_needed(s);
		return;
	}
	if (a->err < 0 || a->status != 200 ||
	    etcd_get_token(a->body, a->n, s->authorization + TOKEN_AT, ETCD_TOKEN_MAX) < 0) {
		login_failed(s, a);
		return;
	}
	memcpy(s->authorization, ETCD_AUTHORIZATION, TOKEN_AT);
	s->open_told = false;
	logged_in(s);
}

static void on_login(struct timer *t, uint64_t now_ms)
{
	struct etcd_source *s = (struct etcd_source *)((char *)t - offsetof(struct etcd_source, login));
	struct buf body = BUF_INIT;

	(void)now_ms;
	etcd_put_login(&body, s->config.user, s->config.password);
	if (etcd_ask(s, ETCD_LOGIN, &body, ETCD_LOGIN_MS, on_token) < 0)
		login_failed(s, NULL);
	buf_release(&body);
}

void login_init(struct etcd_source *s)
{
	s->login.fire = on_login;
}

void login_close(struct etcd_source *s)
{
	loop_timer_stop(s->o.loop, &s->login);
}
