#include "rpc/messages.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/app.h"
#include "rpc/service_private.h"

#define FILE_BYTES_MAX (16u << 20)

struct messages {
	struct schema *set[MESSAGES_MAX]; /* in the order they were loaded: each after the one before it */
	unsigned sets;
};

/* ---- the sets ----------------------------------------------------------------------------------------------------------- */

static int load(struct service *s, const struct schema *after, char *error, size_t size, struct schema **out)
{
	char path[ENV_PATH_MAX], *bytes;
	size_t n;

	service_part(s, config_string(s->config, "paths.messages", "build/loquat.desc"), path);
	int err = env_file_load(s->env, path, FILE_BYTES_MAX, &bytes, &n);

	if (err < 0) {
		snprintf(error, size, "%s: %s (paths.messages): run `make`", path, err_text(err));
		return err;
	}
	err = schema_load_after(after, bytes, n, error, size, out);
	free(bytes);
	return err;
}

int messages_open(struct service *s, char *error, size_t size)
{
	struct messages *m = s->p->messages = calloc(1, sizeof *m);
	int err;

	assert(m);
	err = load(s, NULL, error, size, &m->set[0]);
	if (err < 0)
		return err;
	m->sets = 1;
	s->schema = m->set[0];
	return 0;
}

void messages_close(struct service *s)
{
	struct messages *m = s->p->messages;

	for (unsigned i = 0; m && i < m->sets; i++)
		schema_free(m->set[i]);
	free(m);
	s->p->messages = NULL;
	s->schema = NULL;
}

static struct schema *known(const struct messages *m, const struct schema *like)
{
	for (unsigned i = 0; i < m->sets; i++)
		if (!strcmp(schema_version(m->set[i]), schema_version(like)))
			return m->set[i];
	return NULL;
}

/* May it take the place of the one that is used? */
static int follows(struct service *s, const struct schema *next, char *error, size_t size)
{
	char why[400];

	if (schema_follows(s->schema, next, why, sizeof why) == 0)
		return 0;
	snprintf(error, size,
		 "proto/: %s: who goes by the old messages would not understand: put it back and run `make`, or start "
		 "all instances anew; `loquat reload SERVICE --lua` leaves the messages as they are",
		 why);
	return ERR_BAD_REQUEST;
}

int messages_read(struct service *s, char *error, size_t size, const struct schema **out)
{
	struct messages *m = s->p->messages;
	struct schema *next, *same;
	int err = load(s, m->set[m->sets - 1], error, size, &next);

	if (err < 0)
		return err;
	if ((same = known(m, next))) {
		schema_free(next);
		*out = same;
		return same == s->schema ? 0 : follows(s, same, error, size);
	}
	err = follows(s, next, error, size);
	if (err == 0 && m->sets == MESSAGES_MAX) {
		snprintf(
			error, size,
			"this process has read %u different sets of messages, used or not, which it keeps: start it anew "
			"(loquat drain, loquat start)",
			m->sets);
		err = ERR_BAD_REQUEST;
	}
	if (err < 0) {
		schema_free(next);
		return err;
	}
	*out = m->set[m->sets++] = next;
	return 0;
}

/* ---- the switch ---------------------------------------------------------------------------------------------------------- */

int worker_messages_prepare(struct worker *w, const struct schema *next, char *error, size_t size)
{
	const struct service_def *def = w->service->def;
	int err = w->app ? app_messages_prepare(w->app, next, error, size) : 0;

	return err == 0 && def->messages_prepare ? def->messages_prepare(w, next, error, size) : err;
}

void worker_messages_take(struct worker *w, const struct schema *next)
{
	w->schema = next;
	rpc_client_messages(w->client);
	rpc_server_messages(w->server);
	if (w->app)
		app_messages_taken(w->app);
	if (w->service->def->messages_taken)
		w->service->def->messages_taken(w);
}

void messages_taken(struct service *s, const struct schema *next)
{
	s->schema = s->p->control_worker.schema = next;
	rpc_client_messages(s->p->control_worker.client);
}
