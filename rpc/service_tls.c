#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include "rpc/service_private.h"

/*
 * TLS of the inner links, where rpc.tls names certificates, and of the players' port, where client.tls does. Of the inner
 * links it is mutual and comes beneath the proof of the cluster key, not in its place. The files are read anew when their
 * folder changes: connections that stand stay, new ones are shown the new certificate.
 */
#define TLS_SOON_S  (14 * 86400)
#define TLS_LOOK_MS (12 * 3600 * 1000)

struct tls_keys {
	const char *section; /* "rpc.tls" */
	const char *name[3]; /* cert, key, ca */
	size_t needed;       /* of the three, when one is given */
};
static const struct tls_keys keys[SERVICE_TLS] = {
	{ "rpc.tls", { "rpc.tls.cert", "rpc.tls.key", "rpc.tls.ca" }, 3 },
	{ "client.tls", { "client.tls.cert", "client.tls.key", NULL }, 2 },
};

static const char *file_of(const struct service *s, const char *key, char path[ENV_PATH_MAX])
{
	const char *name = key ? config_string(s->config, key, "") : "";

	return *name ? service_path(s, name, path) : NULL;
}

static struct env_tls **tls_of(struct service *s, unsigned which)
{
	return which ? &s->client_tls : &s->tls;
}

static int open_one(struct service *s, unsigned which, char *error, size_t error_size)
{
	const struct tls_keys *k = &keys[which];
	char path[3][ENV_PATH_MAX];
	const char *file[3];
	size_t given = 0;

	for (size_t i = 0; i < 3; i++)
		given += (file[i] = file_of(s, k->name[i], path[i])) != NULL;
	if (!given)
		return 0;
	for (size_t i = 0; i < k->needed; i++)
		if (!file[i]) {
			snprintf(error, error_size, "%s: %s: expected a file, for the others of %s are given",
				 s->p->config_file, k->name[i], k->section);
			return ERR_CONFIG;
		}
	return env_tls_new(s->env, &(struct env_tls_options){ file[0], file[1], file[2] }, error, error_size,
			   tls_of(s, which));
}

int tls_open(struct service *s, char *error, size_t error_size)
{
	int err = 0;

	for (unsigned i = 0; i < SERVICE_TLS && err == 0; i++)
		if (i == 0 || s->row->client_port) /* who has no players needs no certificate for them */
			err = open_one(s, i, error, error_size);
	return err;
}

/* Told of in time to do something about it, and not all the time of those that live for days only. */
static bool ends_soon(const struct env_tls_life *life, int64_t left_s)
{
	return left_s < TLS_SOON_S && left_s < (life->ends_s - life->begins_s) / 4;
}

static void note_end(struct service *s, unsigned which)
{
	const char *of[] = { keys[which].section };
	struct env_tls_life life = env_tls_life(*tls_of(s, which));
	int64_t left_s = life.ends_s - (int64_t)(env_wall_us(s->env) / 1000000);

	metric_set(metric(s->metrics, SERVICE_CONTROL_WORKER, METRIC_GAUGE, "loquat_tls_expires_timestamp_seconds",
			  "When the own certificate ends, in Unix time.", "of", of),
		   life.ends_s * 1000);
	if (left_s <= 0)
		log_error(s->log, "tls.expired", "of=%s cert=%s hours=%lld", *of,
			  config_string(s->config, keys[which].name[0], ""), (long long)(-left_s / 3600));
	else if (ends_soon(&life, left_s))
		log_warn(s->log, "tls.expires", "of=%s cert=%s in_hours=%lld", *of,
			 config_string(s->config, keys[which].name[0], ""), (long long)(left_s / 3600));
}

static void look(struct service *s)
{
	bool any = false;

	for (unsigned i = 0; i < SERVICE_TLS; i++) {
		if (!*tls_of(s, i))
			continue;
		note_end(s, i);
		any = true;
	}
	if (any)
		loop_timer(s->control, &s->p->tls_look, TLS_LOOK_MS);
}

static void on_look(struct timer *t, uint64_t now_ms)
{
	struct service_private *p = (struct service_private *)((char *)t - offsetof(struct service_private, tls_look));

	(void)now_ms;
	look(p->control_worker.service);
}

static void on_change(struct service *s, unsigned which)
{
	char error[300];

	if (env_tls_reload(*tls_of(s, which), error, sizeof error) < 0) {
		log_warn(s->log, "tls.refused", "of=%s why=%s", keys[which].section, error);
		return;
	}
	log_info(s->log, "tls.reloaded", "of=%s cert=%s", keys[which].section,
		 config_string(s->config, keys[which].name[0], ""));
	note_end(s, which);
}

static void on_rpc_change(void *arg)
{
	on_change(arg, 0);
}

static void on_client_change(void *arg)
{
	on_change(arg, 1);
}

void tls_watch(struct service *s)
{
	static void (*const changed[SERVICE_TLS])(void *arg) = { on_rpc_change, on_client_change };
	char folder[ENV_PATH_MAX];

	s->p->tls_look.fire = on_look;
	look(s);
	for (unsigned i = 0; i < SERVICE_TLS; i++) {
		if (!*tls_of(s, i) || !file_of(s, keys[i].name[0], folder))
			continue;
		char *slash = strrchr(folder, '/');
		if (slash)
			slash[slash == folder] = '\0';
		else
			memcpy(folder, ".", 2);
		if (env_watch(s->control->ev, folder, changed[i], s, &s->p->tls_watch[i]) < 0)
			log_warn(s->log, "tls.watch", "folder=%s why=%s", folder, env_last_error());
	}
}

void tls_unwatch(struct service *s)
{
	loop_timer_stop(s->control, &s->p->tls_look);
	for (unsigned i = 0; i < SERVICE_TLS; i++)
		env_watch_close(s->p->tls_watch[i]);
}
