#include "tests/support/suite.h"
#include <stdlib.h>

static int run(const char *name, TCase *const *cases, enum fork_status fork, enum print_output print)
{
	Suite *s = suite_create(name);

	for (; *cases; cases++)
		suite_add_tcase(s, *cases);
	SRunner *r = srunner_create(s);
	srunner_set_fork_status(r, fork);
	srunner_run_all(r, print);
	int failed = srunner_ntests_failed(r);
	if (failed && print == CK_SILENT)
		srunner_print(r, CK_NORMAL);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

int suite_run_cases(const char *name, TCase *const *cases)
{
	return run(name, cases, CK_FORK_GETENV, CK_ENV);
}

int suite_run_tool(const char *name, const TTest *function)
{
	TCase *t = tcase_create(name);

	tcase_set_timeout(t, 0);
	tcase_add_test(t, function);
	return run(name, (TCase *const[]){ t, NULL }, CK_NOFORK, CK_SILENT);
}
