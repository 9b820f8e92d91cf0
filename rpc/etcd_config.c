#include "rpc/etcd_config.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"

#define TLS_CA   "discovery.tls.ca"
#define TLS_CERT "discovery.tls.cert"
#define TLS_KEY  "discovery.tls.key"

static const char *after(const char *text, const char *prefix)
{
	size_t n = strlen(prefix);

	return !strncmp(text, prefix, n) ? text + n : NULL;
}

/* "http://127.0.0.1:2379" or "127.0.0.1:2379" or "https://[::1]:2379" */
static int host_parse(const char *text, struct etcd_host *out)
{
	const char *secure = after(text, "https://"), *plain = after(text, "http://");
	const char *from = secure ? secure : plain ? plain : text, *colon = strrchr(from, ':');
	size_t n = colon ? (size_t)(colon - from) : 0;
	char *end;
	long port = colon ? strtol(colon + 1, &end, 10) : 0;

	if (n > 2 && *from == '[' && from[n - 1] == ']') {
		from++;
		n -= 2;
	}
	if (!n || n >= sizeof out->host || port < 1 || port > 65535 || strcmp(end, *end == '/' ? "/" : "") != 0 ||
	    strspn(from, "0123456789abcdefABCDEF.:") < n)
		return ERR_CONFIG;
	snprintf(out->host, sizeof out->host, "%.*s", (int)n, from);
	out->port = (uint16_t)port;
	out->tls = secure != NULL;
	return 0;
}

static int hosts_read(const struct config *c, struct etcd_config *out, char *error, size_t size)
{
	size_t count = config_count(c, "discovery.endpoints");

	if (!count || count > ETCD_HOSTS_MAX) {
		snprintf(error, size, "discovery.endpoints: expected 1 to %u addresses, found %zu", ETCD_HOSTS_MAX,
			 count);
		return ERR_CONFIG;
	}
	for (out->hosts = 0; out->hosts < count; out->hosts++) {
		char path[48];

		snprintf(path, sizeof path, "discovery.endpoints[%u]", out->hosts + 1);
		const char *text = config_string(c, path, "");

		if (host_parse(text, &out->host[out->hosts]) < 0) {
			snprintf(error, size,
				 "%s: expected an address such as \"http://127.0.0.1:2379\" (no name), found \"%s\"",
				 path, text);
			return ERR_CONFIG;
		}
	}
	return 0;
}

static bool says(const struct config *c, const char *key)
{
	return *config_string(c, key, "") != '\0';
}

/* Each of these would leave it unsafe, or without what it needs, in silence. */
static int pairs_check(const struct config *c, const struct etcd_config *e, char *error, size_t size)
{
	const char *why = NULL;
	bool tls = e->host[0].tls, mixed = false;

	for (unsigned i = 1; i < e->hosts; i++)
		mixed |= e->host[i].tls != tls;
	if (mixed) /* with one away, names and tables would go in the clear to the other */
		why = "discovery.endpoints: expected https in all of them, or in none";
	else if (tls && !says(c, TLS_CA))
		why = TLS_CA ": expected a file, for an endpoint says https";
	else if (!tls && says(c, TLS_CA))
		why = "discovery.endpoints: expected https, for " TLS_CA " is given";
	else if (says(c, TLS_CERT) != says(c, TLS_KEY))
		why = says(c, TLS_CERT) ? TLS_KEY ": expected a file, for " TLS_CERT " is given"
					: TLS_CERT ": expected a file, for " TLS_KEY " is given";
	else if (*e->user && !*e->password)
		why = "discovery.password: expected one, for discovery.user is given";
	else if (!*e->user && *e->password)
		why = "discovery.user: expected one, for discovery.password is given";
	if (!why)
		return 0;
	snprintf(error, size, "%s", why);
	return ERR_CONFIG;
}

int etcd_config_read(const struct config *c, struct etcd_config *out, char *error, size_t error_size)
{
	struct etcd_config e = {
		.user = config_string(c, "discovery.user", ""),
		.password = config_string(c, "discovery.password", ""),
	};
	int err = hosts_read(c, &e, error, error_size);

	if (err == 0)
		err = pairs_check(c, &e, error, error_size);
	if (err == 0)
		*out = e;
	return err;
}

const struct etcd_host *etcd_config_exposed(const struct etcd_config *e)
{
	for (unsigned i = 0; *e->password && i < e->hosts; i++) {
		const struct etcd_host *h = &e->host[i];

		if (!h->tls && !after(h->host, "127.") && strcmp(h->host, "::1") != 0)
			return h;
	}
	return NULL;
}

static const char *file_of(const struct config *c, const char *key, const char *root, char path[ENV_PATH_MAX])
{
	const char *file = config_string(c, key, "");

	if (!*file || *file == '/')
		return *file ? file : NULL;
	return snprintf(path, ENV_PATH_MAX, "%s/%s", root, file) < ENV_PATH_MAX ? path : file;
}

int etcd_tls_open(struct env *env, const struct config *c, const char *root, char *error, size_t error_size,
		  struct env_tls **out)
{
	char ca[ENV_PATH_MAX], cert[ENV_PATH_MAX], key[ENV_PATH_MAX];
	struct env_tls_options o = {
		.ca = file_of(c, TLS_CA, root, ca),
		.cert = file_of(c, TLS_CERT, root, cert),
		.key = file_of(c, TLS_KEY, root, key),
	};

	if (o.ca && !strcmp(config_string(c, "discovery.kind", "file"), "etcd"))
		return env_tls_new(env, &o, error, error_size, out);
	*out = NULL;
	return 0;
}
