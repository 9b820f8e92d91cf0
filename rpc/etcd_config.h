#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/config.h"
#include "common/env.h"
/*
 * etcd_config: discovery.* of the configuration: where etcd is, and how one speaks to it.
 *
 * Threads: any.
 */
#define ETCD_HOSTS_MAX 8

struct etcd_host {
	char host[64];
	uint16_t port;
	bool tls; /* "https://…" */
};
struct etcd_config {
	struct etcd_host host[ETCD_HOSTS_MAX];
	unsigned hosts;
	const char *user, *password; /* the configuration's; "": etcd asks for none */
};
/* ERR_CONFIG: error gets one line that names the key. */
int etcd_config_read(const struct config *c, struct etcd_config *out, char *error, size_t error_size);
/* The first endpoint that the password goes to without TLS over a network (not to loopback); NULL: none. */
const struct etcd_host *etcd_config_exposed(const struct etcd_config *e);
/*
 * What is needed to speak TLS with it; *out is NULL where no endpoint says https. Relative files begin at root.
 * ERR_CONFIG with one line that names the file; ERR_UNAVAILABLE: this env has no TLS (simulation).
 */
int etcd_tls_open(struct env *env, const struct config *c, const char *root, char *error, size_t error_size,
		  struct env_tls **out);
