#include "rpc/route_source.h"
#include <stdio.h>
#include <string.h>
#include "common/err.h"

static const struct route_source_kind *kind_of(const struct config *config)
{
	static const struct route_source_kind *const kinds[] = { &route_file, &route_etcd };
	const char *name = config_string(config, "discovery.kind", "file");

	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if (!strcmp(kinds[i]->name, name))
			return kinds[i];
	return NULL;
}

struct metric *route_source_refused(const struct route_source_options *o)
{
	if (!o->metrics)
		return NULL;
	return metric(o->metrics, o->worker, METRIC_COUNTER, "loquat_routes_refused_total",
		      "Tables and rows from outside that did not check.", NULL, NULL);
}

int route_source_check(const struct config *c, char *error, size_t error_size)
{
	const struct route_source_kind *kind = kind_of(c);

	if (!kind) {
		snprintf(error, error_size, "discovery.kind: expected file or etcd, found \"%s\"",
			 config_string(c, "discovery.kind", ""));
		return ERR_CONFIG;
	}
	return kind->check ? kind->check(c, error, error_size) : 0;
}

int route_source_first(struct env *env, const struct config *config, const char *var, const char *id, char *error,
		       size_t error_size, struct route_table **out)
{
	int err = kind_of(config)->first(env, var, id, error, error_size, out);

	return err == ERR_NOT_FOUND ? route_from_config(config, false, error, error_size, out) : err;
}

int route_source_open(const struct route_source_options *o, struct route_source **out)
{
	return kind_of(o->config)->open(o, out);
}

void route_source_enter(struct route_source *s)
{
	if (s->kind->enter)
		s->kind->enter(s);
}

void route_source_drain(struct route_source *s)
{
	if (s->kind->drain)
		s->kind->drain(s);
}

void route_source_leave(struct route_source *s)
{
	if (s->kind->leave)
		s->kind->leave(s);
}

bool route_source_left(const struct route_source *s)
{
	return !s->kind->left || s->kind->left(s);
}

const char *route_source_not_ready(const struct route_source *s)
{
	return s->kind->not_ready ? s->kind->not_ready(s) : NULL;
}

void route_source_to_json(const struct route_source *s, struct buf *out)
{
	s->kind->to_json(s, out);
}

void route_source_close(struct route_source *s)
{
	if (s)
		s->kind->close(s);
}

void route_source_free(struct route_source *s)
{
	if (s)
		s->kind->free(s);
}
