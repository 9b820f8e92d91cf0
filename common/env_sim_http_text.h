#pragma once
#include <stdbool.h>
#include <stddef.h>
/*
 * env_sim_http_text: queries and headers of the simulation's HTTP as lists of names and values. Nobody but
 * env_sim_http.c includes it.
 *
 * Threads: the simulation's one.
 * Memory:  the world's; what is returned is the caller's, http_pairs_free takes back a list with its texts.
 */
struct text_pair;
char *http_copy(const void *p, size_t n);                                   /* NUL-ended */
char *http_decoded(const char *p, size_t n, bool plus);                     /* %XX; plus: '+' is a space */
void http_query_parse(struct text_pair **to, const char *query);            /* appended, decoded: a=1&b=2 */
void http_headers_parse(struct text_pair **to, const char *const *headers); /* lines "Name: value", NULL: none */
const char *http_pairs_find(const struct text_pair *p, const char *name, bool any_case); /* NULL: not there */
void http_pairs_free(struct text_pair *p);
