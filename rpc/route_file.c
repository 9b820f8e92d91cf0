#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "rpc/route_source.h"

/* The supervisor's live file. It speaks for its instances: nothing is registered. */
#define LIVE_FILE      "routes.lua"
#define LIVE_BYTES_MAX (1 << 20)

struct file_source {
	struct route_source base;
	struct route_source_options o;
	struct env_watch *watch;
	uint64_t version;
	struct metric *refused; /* NULL: not counted */
};

int route_file_load(struct env *env, const char *path, char *error, size_t error_size, struct route_table **out)
{
	char *text;
	size_t n;
	int err = env_file_load(env, path, LIVE_BYTES_MAX, &text, &n);

	if (err < 0) {
		snprintf(error, error_size, "%s: %s", path, err_text(err));
		return err;
	}
	err = route_from_text(text, n, error, error_size, out);
	free(text);
	return err;
}

static int live_load(struct env *env, const char *var, char *error, size_t size, struct route_table **out)
{
	char path[ENV_PATH_MAX + 16];

	snprintf(path, sizeof path, "%s/" LIVE_FILE, var);
	return route_file_load(env, path, error, size, out);
}

static int first(struct env *env, const char *var, const char *id, char *error, size_t error_size,
		 struct route_table **out)
{
	(void)id;
	return live_load(env, var, error, error_size, out);
}

static void on_change(void *arg)
{
	struct file_source *s = arg;
	struct route_table *t;
	char error[ENV_PATH_MAX + 128];
	int err = live_load(s->o.loop->env, s->o.var, error, sizeof error, &t);

	if (err == ERR_NOT_FOUND)
		return;
	if (err < 0) {
		log_warn(s->o.log, "routes.refused", "why=%s", error);
		if (s->refused)
			metric_add(s->refused, 1);
	} else if (t->version <= s->version) {
		route_unref(t);
	} else {
		s->version = t->version;
		s->o.on_table(s->o.arg, t);
	}
}

static void file_close(struct route_source *base)
{
	struct file_source *s = (struct file_source *)base;

	env_watch_close(s->watch);
	s->watch = NULL;
}

static void file_free(struct route_source *base)
{
	free(base);
}

static void to_json(const struct route_source *base, struct buf *out)
{
	(void)base;
	buf_addstr(out, "{\"kind\":\"file\"}");
}

static int file_open(const struct route_source_options *o, struct route_source **out)
{
	struct file_source *s = calloc(1, sizeof *s);

	assert(s);
	s->base.kind = &route_file;
	s->o = *o;
	s->version = o->version;
	s->refused = route_source_refused(o);
	int err = env_watch(o->loop->ev, o->var, on_change, s, &s->watch);

	if (err < 0) {
		free(s);
		return err;
	}
	*out = &s->base;
	on_change(s); /* it may have changed between the reading and the watching */
	return 0;
}

const struct route_source_kind route_file = {
	.name = "file",
	.first = first,
	.open = file_open,
	.to_json = to_json,
	.close = file_close,
	.free = file_free,
};
