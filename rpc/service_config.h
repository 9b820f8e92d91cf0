#pragma once
#include "common/config.h"
/*
 * service_config: reading deploy/cluster.lua in a service or in the loquat command.
 *
 * Threads: before start-up ends. The rows of other services' own keys are known to those services only, so each
 * process checks the common keys and its own; other services' tables pass.
 */
extern const struct config_row service_config_rows[]; /* the keys every process knows; ends with path NULL */
extern const struct config_row service_config_each[]; /* those that each service has, "NAME.threads"; ends so, too */

/* own, own_rows: the service's name and keys, or NULL. error gets one line. */
int service_config_load(struct env *env, const char *file, const char *own, const struct config_row *own_rows,
			char *error, size_t error_size, struct config **out);
