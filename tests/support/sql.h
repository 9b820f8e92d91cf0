#pragma once
#include <stdint.h>
/*
 * sql: a plain blocking client of the test's own on a database, beside the code that is tested.
 *
 * Threads: one. Trouble fails the test with the database's words.
 */
struct sql;
struct sql *sql_open(const char *socket, const char *database); /* NULL: none chosen */
void sql_close(struct sql *q);
void sql_run(struct sql *q, const char *statements);
int64_t sql_int(struct sql *q, const char *select); /* the first cell; -1: no row or NULL */
char *sql_text(struct sql *q, const char *select);  /* "a,b|c,NULL": free it */
void sql_file(struct sql *q, const char *path);     /* runs a file's statements */
