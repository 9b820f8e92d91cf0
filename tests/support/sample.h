#pragma once
#include <stddef.h>
#include "common/msg.h"
/*
 * sample: the schema of tests/proto/sample.proto, for the tests of what works by type.
 *
 * Programs run from the source tree's root (tests/run.sh does so). A missing file ends the program with a line.
 */
struct schema *sample_schema(void);             /* schema_free it */
char *sample_read(const char *path, size_t *n); /* a whole file, NUL-ended; free it */
