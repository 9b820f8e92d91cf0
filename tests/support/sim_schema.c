#include "tests/support/sim_schema.h"
#include <glob.h>
#include <stdlib.h>
#include "tests/support/sample.h"

void sim_schema(struct sim *w)
{
	glob_t files;

	sim_check(w, glob("deploy/schema/*.sql", 0, NULL, &files) == 0, "no deploy/schema");
	for (size_t i = 0; i < files.gl_pathc && !sim_failure(w); i++) {
		size_t n;
		char *text = sample_read(files.gl_pathv[i], &n);

		sim_check(w, sim_db_run(w, text) == 0, "%s: %s", files.gl_pathv[i], sim_db_error(w));
		free(text);
	}
	globfree(&files);
}
