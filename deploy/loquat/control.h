#pragma once
#include <jansson.h>
#include "deploy/loquat/loquat.h"
/*
 * control: how the commands reach the running cluster.
 *
 * A blocking request to the supervisor. On failure one line is printed: ERR_UNAVAILABLE: nothing runs there;
 * ERR_FAILED: it refused, in its words. *out is the caller's to json_decref.
 */
int supervisor_ask(struct cluster *c, const char *method, const char *path, json_t **out);
/* Where it listens: by the configuration, or what a free port turned out to be; 0: nothing runs. */
uint16_t supervisor_port(struct cluster *c);
