#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "deploy/loquat/loquat.h"

const char test_help[] = "\n"
			 "  SERVICE        whose tests: SERVICE/lua/tests/*.lua (docs/testing.md)\n"
			 "  WORD           only tests with this text in their name or file's name\n"
			 "  --tap          TAP instead of words and marks\n"
			 "  --no-coverage  does not count lines: faster\n";

/* The runner is a program of its own (deploy/luatest), beside this one. */
int command_test(struct cluster *c, int argc, char **argv)
{
	char program[2 * ENV_PATH_MAX];
	char **args = calloc((size_t)argc + 3, sizeof *args);

	if (argc < 2 || !args)
		return complain("test: expected SERVICE [WORD] [--tap] [--no-coverage]");
	snprintf(program, sizeof program, "%s/luatest", c->programs);
	args[0] = program;
	args[1] = "--config";
	args[2] = c->config_file;
	for (int i = 1; i < argc; i++)
		args[i + 2] = argv[i];
	fflush(stdout);
	execv(program, args);
	free(args);
	return complain("test: %s: %s (make builds it)", program, strerror(errno));
}
