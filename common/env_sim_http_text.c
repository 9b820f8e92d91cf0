#include "common/env_sim_http_text.h"
#include <string.h>
#include <strings.h>
#include "common/env_sim_private.h"

char *http_copy(const void *p, size_t n)
{
	char *to = w_alloc(n + 1);
	if (n)
		memcpy(to, p, n);
	return to;
}

static int digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

char *http_decoded(const char *p, size_t n, bool plus)
{
	char *text = w_alloc(n + 1), *to = text;
	for (size_t i = 0; i < n; i++) {
		if (p[i] == '%' && i + 2 < n && digit(p[i + 1]) >= 0 && digit(p[i + 2]) >= 0) {
			*to++ = (char)(digit(p[i + 1]) << 4 | digit(p[i + 2]));
			i += 2;
		} else {
			*to++ = plus && p[i] == '+' ? ' ' : p[i];
		}
	}
	return text;
}

static void add_pair(struct text_pair **list, char *name, char *value)
{
	struct text_pair *pair = w_alloc(sizeof(*pair));
	while (*list)
		list = &(*list)->next;
	*pair = (struct text_pair){ .name = name, .value = value };
	*list = pair;
}

void http_pairs_free(struct text_pair *p)
{
	for (struct text_pair *next; p; p = next) {
		next = p->next;
		w_free(p->name);
		w_free(p->value);
		w_free(p);
	}
}

void http_query_parse(struct text_pair **to, const char *query)
{
	while (*query) {
		size_t part = strcspn(query, "&"), name = strcspn(query, "=&");
		size_t value = name < part ? name + 1 : part;
		if (part)
			add_pair(to, http_decoded(query, name, true), http_decoded(query + value, part - value, true));
		query += part + (query[part] == '&');
	}
}

void http_headers_parse(struct text_pair **to, const char *const *headers)
{
	for (; headers && *headers; headers++) {
		size_t name = strcspn(*headers, ":"), value = name + ((*headers)[name] == ':');
		value += strspn(*headers + value, " ");
		add_pair(to, http_copy(*headers, name), http_copy(*headers + value, strlen(*headers + value)));
	}
}

const char *http_pairs_find(const struct text_pair *p, const char *name, bool any_case)
{
	for (; p; p = p->next)
		if (any_case ? strcasecmp(p->name, name) == 0 : strcmp(p->name, name) == 0)
			return p->value;
	return NULL;
}
