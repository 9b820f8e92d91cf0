#pragma once
#include <stdbool.h>
#include "common/buf.h"
#include "common/config.h"
#include "common/env.h"
#include "common/loop.h"
#include "rpc/etcd_config.h"
#include "rpc/keys.h"
#include "rpc/route.h"
/*
 * loquat: the command that starts, watches and changes a cluster.
 *
 * Each command is one row of the table in main.c and one function. All of them find the cluster through its
 * configuration (--config FILE).
 */
struct cluster {
	struct env *env;
	struct config *config;
	struct route_table *routes; /* all rows of the file, started or not */
	char config_file[ENV_PATH_MAX];
	/* For the next command that an error names: this program and its --config as they were typed. A hint is
	 * "%s status%s" of them. */
	const char *typed;
	char option[ENV_PATH_MAX + 16]; /* " --config FILE", or empty where FILE is what everybody takes */
	char root[ENV_PATH_MAX], var[ENV_PATH_MAX];
	char socket[ENV_PATH_MAX + 32]; /* the database's unix socket */
	char key[KEY_HEX + 1];          /* empty if there is none yet */
	char programs[ENV_PATH_MAX];    /* the folder of build/bin/loquat and the services beside it */
	char home[ENV_PATH_MAX];        /* the installation: above build/bin */
	const char *http_host;          /* the supervisor's */
	uint16_t http_port;
	bool private_database;
};
const char *cluster_path(const struct cluster *c, const char *relative, char out[ENV_PATH_MAX]);

struct command {
	const char *name, *arguments, *help;
	int (*run)(struct cluster *c, int argc, char **argv); /* argv[0] is the command; returns the exit status */
	const char *more;                                     /* for its --help, may be NULL */
};
/* Prints "loquat: …" on stderr, returns 2. */
int complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

int command_up(struct cluster *c, int argc, char **argv);
int command_status(struct cluster *c, int argc, char **argv);
int command_stats(struct cluster *c, int argc, char **argv);
int command_start(struct cluster *c, int argc, char **argv); /* also drain and stop */
int command_reload(struct cluster *c, int argc, char **argv);
extern const char reload_help[];
int command_loglevel(struct cluster *c, int argc, char **argv);
extern const char loglevel_help[];
int command_console(struct cluster *c, int argc, char **argv);
int command_profile(struct cluster *c, int argc, char **argv);
extern const char console_help[], profile_help[];
int command_upgrade(struct cluster *c, int argc, char **argv);
int command_lost(struct cluster *c, int argc, char **argv);
extern const char lost_help[];
int command_call(struct cluster *c, int argc, char **argv);
int command_migrate(struct cluster *c, int argc, char **argv);
int command_history(struct cluster *c, int argc, char **argv);
int command_sql(struct cluster *c, int argc, char **argv);
int command_logs(struct cluster *c, int argc, char **argv);
int command_doctor(struct cluster *c, int argc, char **argv);
int command_new(struct cluster *c, int argc, char **argv);
int command_bots(struct cluster *c, int argc, char **argv);
int command_test(struct cluster *c, int argc, char **argv);
int command_types(struct cluster *c, int argc, char **argv);
extern const char bots_help[], test_help[], new_help[];

/* The program of a service: build/bin/SERVICE, or luaservice where there is SERVICE/lua only. It may not be there. */
void service_program(const struct cluster *c, const char *service, char out[ENV_PATH_MAX + 40]);

/* The path of one of Debian's programs; NULL: it is not installed. */
const char *find_program(const char *name, char out[ENV_PATH_MAX]);

/* Appends text as a part of a path or query. */
void url_add(struct buf *b, const char *s);

/* A blocking HTTP request for the commands: the status, or a negative error; *body is the caller's to free. */
int ask(struct cluster *c, const char *host, uint16_t port, const char *method, const char *path, const char *body,
	char **answer);
/*
 * Whether a process of the cluster that runs already takes our cluster.key and has our token.key: 0, ERR_DENIED by *asked
 * with the name of the wrong one in *which, ERR_UNAVAILABLE: nobody answers. Asks one after the other, but those left
 * out, until one says so; a host that is silent half a second is not asked again.
 */
int keys_are_known(struct cluster *c, bool (*leaves_out)(void *arg, size_t row), void *arg,
		   const struct route_row **asked, const char **which);
/* The key's text in paths.var/keys; false: it is missing, or no key. */
bool key_read(struct cluster *c, const char *name, char key[KEY_HEX + 1]);
/*
 * The certificate that processes of this host show by "rpc.tls" or "client.tls", and its file. *out NULL: none is named,
 * or, with ERR_CONFIG and its line in error, it cannot be used.
 */
int certificate_open(struct cluster *c, const char *section, char file[ENV_PATH_MAX], char *error, size_t error_size,
		     struct env_tls **out);
/* Whether something there takes connections. */
bool reaches(const char *host, uint16_t port);
/* The same to an etcd, with tls where it wants that; why: of a negative status. */
int ask_etcd(struct cluster *c, struct env_tls *tls, const struct etcd_host *to, const char *path, const char *body,
	     char **answer, char why[160]);
