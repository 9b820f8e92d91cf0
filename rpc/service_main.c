#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "rpc/service_config.h"
#include "rpc/service_private.h"
#include "rpc/version.h"

static void usage(const struct service_def *def)
{
	char text[32768];

	printf("usage: %s --config FILE --instance ID\n\n"
	       "One process of Loquat's %s service.\n\n"
	       "  --config FILE    the cluster's configuration (deploy/cluster.lua)\n"
	       "  --instance ID    which row of it this process is, such as %s-1\n"
	       "  --take-over      take the place of the process that is this instance, with its connections\n"
	       "  --check          read the configuration, say what is wrong with it, and end\n"
	       "  --help           this text\n"
	       "  --version        the version\n\nKeys of the configuration:\n",
	       def->name, def->name, def->name);
	config_help(service_config_rows, text, sizeof text);
	fputs(text, stdout);
	config_help(service_config_each, text, sizeof text);
	printf("\nKeys of each service:\n%s", text);
	if (def->config) {
		config_help(def->config, text, sizeof text);
		printf("\nKeys of this service:\n%s", text);
	}
}

static int complain(const struct service_def *def, const char *text)
{
	fprintf(stderr, "%s: %s\n", def->name, text);
	return 2;
}

static int run(const struct service_def *def, const struct service_options *o)
{
	struct env *env = env_new();
	struct service *s;
	char error[512] = "start-up failed";
	int status = 0;

	if (service_start(env, def, o, error, sizeof error, &s) < 0) {
		env_free(env);
		return complain(def, error);
	}
	loop_join(s->control);
	const char *failure = service_failure(s);
	if (failure) {
		snprintf(error, sizeof error, "%s", failure);
		status = 2;
	}
	service_free(s); /* the log's last lines come before the reason, which is the last word */
	env_free(env);
	return status ? complain(def, error) : 0;
}

static int check(const struct service_def *def, const struct service_options *o)
{
	struct env *env = env_new();
	struct config *config = NULL;
	char error[512];
	struct route_table *all;
	int err = service_config_load(env, o->config_file, def->name, def->config, error, sizeof error, &config);

	if (err == 0 && (err = route_from_config(config, true, error, sizeof error, &all)) == 0) {
		err = service_row(def, all, o->config_file, o->instance, error, sizeof error) ? 0 : ERR_CONFIG;
		route_unref(all);
	}
	if (config)
		config_free(config);
	env_free(env);
	return err < 0 ? complain(def, error) : 0;
}

int service_main(int argc, char **argv, const struct service_def *def)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "instance", required_argument, NULL, 'i' },
		{ "check", no_argument, NULL, 'k' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'v' },
		{ "take-over", no_argument, NULL, 't' },
		{ NULL, 0, NULL, 0 },
	};
	struct service_options o = { .config_file = "deploy/cluster.lua" };
	bool only_check = false;
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		char text[256];

		switch (c) {
		case 'c': o.config_file = optarg; break;
		case 'i': o.instance = optarg; break;
		case 'k': only_check = true; break;
		case 't': o.take_over = true; break;
		case 'h': usage(def); return 0;
		case 'v': printf("%s " LOQUAT_VERSION "\n", def->name); return 0;
		default:
			snprintf(text, sizeof text, "unknown option or missing value: %s (see --help)",
				 argv[optind - 1]);
			return complain(def, text);
		}
	}
	if (optind < argc || !o.instance)
		return complain(def, optind < argc ? "takes options only (see --help)"
						   : "--instance ID is missing (see --help)");
	return only_check ? check(def, &o) : run(def, &o);
}
