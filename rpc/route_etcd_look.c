#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "rpc/route_etcd.h"

/*
 * The rows of all: read once, then watched from the next revision on, so that nothing is missed. A watch that ends goes on
 * from where it was; one whose revision is gone (compacted, or an etcd that forgot) begins with a reading again.
 */
static struct etcd_source *of_look(struct timer *t)
{
	return (struct etcd_source *)((char *)t - offsetof(struct etcd_source, look));
}

static struct etcd_source *of_missing(struct timer *t)
{
	return (struct etcd_source *)((char *)t - offsetof(struct etcd_source, missing));
}

static struct etcd_source *of_save(struct timer *t)
{
	return (struct etcd_source *)((char *)t - offsetof(struct etcd_source, save));
}

/* ---- the table that comes of it ----------------------------------------------------------------------------------------- */

static void look_save(struct etcd_source *s)
{
	char path[ENV_PATH_MAX + 64];
	struct buf text = BUF_INIT;

	if (!s->last)
		return;
	snprintf(path, sizeof path, "%s/routes", s->o.var);
	int err = env_dir_make(s->o.loop->env, path);

	snprintf(path, sizeof path, "%s/routes/%s.lua", s->o.var, s->o.id);
	route_to_text(s->last, &text);
	if (err == 0)
		err = env_file_store(s->o.loop->env, path, text.data, text.len, 0);
	if (err < 0)
		log_warn(s->o.log, "routes.save", "file=%s why=%s", path, env_last_error());
	route_unref(s->last);
	s->last = NULL;
	buf_release(&text);
}

static void on_save(struct timer *t, uint64_t now_ms)
{
	(void)now_ms;
	look_save(of_save(t));
}

static void publish(struct etcd_source *s)
{
	/* the newest change's revision, so that all who have the same rows show the same version */
	s->version = s->newest > s->version ? s->newest : s->version + 1;
	s->changed = false;
	s->published = true;
	route_unref(s->last);
	s->last = route_rows_table(s->rows, s->version);
	if (s->o.own)
		loop_timer(s->o.loop, &s->save, ETCD_SAVE_MS);
	s->o.on_table(s->o.arg, route_ref(s->last));
}

/* ---- who is missing -------------------------------------------------------------------------------------------------------- */

/* Its lease is gone. Whether it lives is what counts: etcd may have been away for longer than a lease. */
static void on_asked(void *arg, const struct env_http_answer *a)
{
	struct etcd_source *s = arg;

	s->asking = false;
	if (s->closed)
		return;
	if (a->err == 0 && a->status == 200) {
		route_rows_keep(s->rows, s->asked, s->o.loop->now_ms);
	} else if (route_rows_drop_missing(s->rows, s->asked)) {
		log_warn(s->o.log, "routes.dropped", "row=%s why=its lease has ended and it does not answer", s->asked);
		publish(s);
	}
}

static void ask_missing(struct etcd_source *s, const struct route_row *row)
{
	snprintf(s->asked, sizeof s->asked, "%s", row->id);
	s->asking = true;
	if (!row->http_port || env_http_call(s->o.loop->ev, row->host, row->http_port, "GET", "/healthz", NULL, NULL, 0,
					     ETCD_CALL_MS, on_asked, s) < 0)
		on_asked(s, &(struct env_http_answer){ .err = ERR_UNAVAILABLE, .body = "" });
}

static void on_missing(struct timer *t, uint64_t now_ms)
{
	struct etcd_source *s = of_missing(t);
	const struct route_row *row = route_rows_overdue(s->rows, now_ms, s->missing_s * 1000);

	if (row && s->linked && !s->asking)
		ask_missing(s, row);
	if (route_rows_missing(s->rows))
		loop_timer(s->o.loop, t, ETCD_MISSING_MS);
}

/* ---- keys ------------------------------------------------------------------------------------------------------------------- */

static void on_key(void *arg, const struct etcd_key *k)
{
	struct etcd_source *s = arg;
	size_t n = strlen(s->prefix);
	const char *id = k->key + n;
	char error[256];

	if (k->key_n <= n || memcmp(k->key, s->prefix, n) != 0 || strlen(k->key) != k->key_n)
		return;
	if (k->mod > s->newest)
		s->newest = k->mod;
	if (k->gone) {
		s->changed |= route_rows_unset(s->rows, id, s->o.loop->now_ms);
		if (!strcmp(id, s->o.id))
			own_spoilt(s, 0); /* now, not when the lease is looked at next */
		return;
	}
	s->own_read = s->own_read || !strcmp(id, s->o.id);
	int err = route_rows_set(s->rows, id, k->value, k->value_n, error, sizeof error);

	s->changed |= err > 0;
	if (err < 0) {
		log_warn(s->o.log, "routes.refused", "why=%s", error);
		if (s->refused)
			metric_add(s->refused, 1);
		if (!strcmp(id, s->o.id))
			own_spoilt(s, k->mod);
	}
}

static void look_took(struct etcd_source *s)
{
	if (s->changed || !s->published)
		publish(s);
	if (route_rows_missing(s->rows))
		loop_timer(s->o.loop, &s->missing, ETCD_MISSING_MS);
}

/* ---- reading ------------------------------------------------------------------------------------------------------------------ */

static void look_later(struct etcd_source *s, const struct env_http_answer *a)
{
	etcd_failed(s, a);
	loop_timer(s->o.loop, &s->look, etcd_backoff(s, &s->look_backoff_ms));
}

static void on_read(void *arg, const struct env_http_answer *a)
{
	struct etcd_source *s = arg;
	struct etcd_header h;

	s->reading = false;
	if (s->closed)
		return;
	if (a->err < 0 || a->status != 200) {
		look_later(s, a);
		return;
	}
	route_rows_begin(s->rows);
	s->newest = 0;
	s->own_read = false;
	if (etcd_get_range(a->body, a->n, &(struct etcd_reader){ on_key, s }, &h) < 0) {
		look_later(s, a);
		return;
	}
	s->changed |= route_rows_end(s->rows, s->o.loop->now_ms);
	s->revision = h.revision;
	s->cluster = h.cluster;
	if (!s->own_read)
		own_spoilt(s, 0);
	look_took(s);
	look_go(s);
}

static void read_all(struct etcd_source *s)
{
	struct buf body = BUF_INIT;

	s->reading = true;
	etcd_put_range(&body, s->prefix);
	if (etcd_ask(s, ETCD_RANGE, &body, ETCD_CALL_MS, on_read) < 0) {
		s->reading = false;
		look_later(s, NULL);
	}
	buf_release(&body);
}

/* ---- watching -------------------------------------------------------------------------------------------------------------------- */

static void watch_close(struct etcd_source *s)
{
	env_http_stream_close(s->watch);
	s->watch = NULL;
	s->linked = false;
	buf_clear(&s->line);
}

/* Everything is to be read again: what it knows no longer follows from what we know. */
static void look_anew(struct etcd_source *s, const char *why)
{
	log_info(s->o.log, "etcd.anew", "revision=%llu why=%s", (unsigned long long)s->revision, why);
	watch_close(s);
	s->revision = 0;
	loop_timer(s->o.loop, &s->look, 0);
}

static void on_news_line(struct etcd_source *s, const char *text, size_t n)
{
	struct etcd_news news;
	bool fresh = !s->linked;

	if (etcd_get_news(text, n, &(struct etcd_reader){ on_key, s }, &news) < 0 || news.canceled) {
		look_anew(s, "the watch was canceled");
		return;
	}
	/* an etcd that lost its data counts from 1 again, and would say nothing until it has caught up */
	if (news.created && (news.header.revision < s->revision || news.header.cluster != s->cluster)) {
		look_anew(s, "another history");
		return;
	}
	if (fresh && news.created) {
		s->linked = true;
		s->look_backoff_ms = 0;
		etcd_well(s);
	}
	if (!news.created && news.header.revision > s->revision)
		s->revision = news.header.revision;
	look_took(s);
}

static void on_piece(void *arg, const char *bytes, size_t n)
{
	struct etcd_source *s = arg;
	char *end;

	buf_add(&s->line, bytes, n);
	while (s->watch && s->line.len && (end = memchr(s->line.data, '\n', s->line.len))) {
		size_t line = (size_t)(end - s->line.data) + 1;

		on_news_line(s, s->line.data, line);
		if (s->watch)
			buf_consume(&s->line, line);
	}
	if (s->line.len > ETCD_LINE_MAX)
		look_anew(s, "a line too long");
}

static void on_end(void *arg, int err, int status)
{
	struct etcd_source *s = arg;
	bool silent = err == ERR_TIMEOUT && s->linked;

	watch_close(s);
	if (err == 0 && status != 200)
		s->revision = 0;
	if (silent) /* nothing happened, or it is frozen: a new connection will show */
		look_go(s);
	else
		look_later(s, &(struct env_http_answer){ .err = err < 0 ? err : ERR_CLOSED, .body = "" });
}

static void watch_start(struct etcd_source *s)
{
	static const struct env_http_stream_ops ops = { on_piece, on_end };
	const struct etcd_host *h = etcd_host_now(s);
	struct etcd_headers headers = etcd_headers(s);
	struct buf body = BUF_INIT;

	etcd_put_watch(&body, s->prefix, s->revision + 1);
	/* one that is silent for so long is asked for anew: a cable may have been pulled */
	if (env_http_stream(s->o.loop->ev, etcd_tls_now(s), h->host, h->port, "POST", ETCD_WATCH, headers.line,
			    body.data, body.len, (s->lease_s * 2 + 2) * 1000, &ops, s, &s->watch) < 0)
		look_later(s, NULL);
	buf_release(&body);
}

/* ---- the next step ------------------------------------------------------------------------------------------------------------------ */

void look_go(struct etcd_source *s)
{
	if (s->closed || s->reading || s->watch || !login_done(s))
		return;
	if (s->revision)
		watch_start(s);
	else
		read_all(s);
}

static void on_look(struct timer *t, uint64_t now_ms)
{
	(void)now_ms;
	look_go(of_look(t));
}

void look_start(struct etcd_source *s)
{
	s->look.fire = on_look;
	s->missing.fire = on_missing;
	s->save.fire = on_save;
	look_go(s);
}

void look_close(struct etcd_source *s)
{
	loop_timer_stop(s->o.loop, &s->look);
	loop_timer_stop(s->o.loop, &s->missing);
	loop_timer_stop(s->o.loop, &s->save);
	if (s->o.own)
		look_save(s);
	watch_close(s);
}
