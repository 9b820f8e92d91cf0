#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/buf.h"
#include "common/err.h"
#include "deploy/loquat/control.h"

/* Any process of the cluster makes the call for us; the row's own service comes first, for it is one hop less. */
static int ask_anyone(struct cluster *c, const char *service, const char *path, const char *body, char **answer,
		      const struct route_row **asked)
{
	int status = ERR_UNAVAILABLE;

	for (int round = 0; round < 2; round++)
		for (size_t i = 0; i < c->routes->rows; i++) {
			const struct route_row *r = &c->routes->row[i];

			if (!r->http_port || (strcmp(r->service, service) == 0) != (round == 0))
				continue;
			*asked = r;
			status = ask(c, r->host, r->http_port, "POST", path, body, answer);
			if (status != ERR_UNAVAILABLE)
				return status;
		}
	return status;
}

void url_add(struct buf *b, const char *s)
{
	for (; *s; s++) {
		if (isalnum((unsigned char)*s) || strchr("-_.~", *s))
			buf_addch(b, *s);
		else
			buf_addf(b, "%%%02X", (unsigned char)*s);
	}
}

static int path_of(const char *method, const char *key, char service[32], struct buf *path)
{
	const char *first = strchr(method, '.'), *second = first ? strchr(first + 1, '.') : NULL;

	if (!second || strchr(second + 1, '.') || first == method || first - method > 31 || second == first + 1 ||
	    !second[1])
		return complain("call: expected SERVICE.REMOTE.METHOD, found \"%s\"", method);
	snprintf(service, 32, "%.*s", (int)(first - method), method);
	buf_addstr(path, "/rpc/");
	for (const char *p = method; *p; p++) {
		char one[2] = { *p, '\0' };

		if (*p == '.')
			buf_addch(path, '/');
		else
			url_add(path, one);
	}
	if (key) {
		buf_addstr(path, "?key=");
		url_add(path, key);
	}
	return 0;
}

static int show_error(const char *method, int status, const char *text)
{
	json_t *o = json_loads(text, 0, NULL);
	const char *word = json_string_value(json_object_get(o, "error")),
		   *message = json_string_value(json_object_get(o, "message"));
	const char *effect = json_string_value(json_object_get(o, "effect"));

	if (word)
		complain("%s: %s: %s (effect: %s)", method, word, message ? message : "", effect ? effect : "unknown");
	else
		complain("%s: HTTP status %d: %.200s", method, status, text);
	json_decref(o);
	return 1;
}

/* No answer has come. */
static int show_silence(const struct cluster *c, const char *method, int err, const struct route_row *asked)
{
	if (err == ERR_UNAVAILABLE || !asked)
		complain("%s: no process of this cluster answers: %s status%s", method, c->typed, c->option);
	else
		complain("%s: unknown: %s took the call and %s: %s logs %s%s (effect: unknown)", method, asked->id,
			 err == ERR_TIMEOUT ? "has not answered" : "ended before its answer", c->typed, asked->id,
			 c->option);
	return 1;
}

static int call(struct cluster *c, const char *method, const char *json, const char *key)
{
	struct buf path = BUF_INIT;
	const struct route_row *asked = NULL;
	char service[32], *answer = NULL;
	int status = path_of(method, key, service, &path);

	if (status) {
		buf_release(&path);
		return status;
	}
	status = ask_anyone(c, service, buf_cstr(&path), json, &answer, &asked);
	buf_release(&path);
	if (status < 0)
		return show_silence(c, method, status, asked);
	if (status == 200)
		printf("%s%s", answer, *answer && answer[strlen(answer) - 1] == '\n' ? "" : "\n");
	else
		status = show_error(method, status, answer);
	free(answer);
	return status == 200 ? 0 : status;
}

int command_call(struct cluster *c, int argc, char **argv)
{
	const char *words[2] = { NULL, "{}" }, *key = NULL;
	json_error_t error;
	int n = 0;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--key") && i + 1 < argc)
			key = argv[++i];
		else if (!strncmp(argv[i], "--key=", 6))
			key = argv[i] + 6;
		else if (n < 2 && strncmp(argv[i], "--", 2))
			words[n++] = argv[i];
		else
			return complain("call: unexpected \"%s\" (loquat call --help)", argv[i]);
	}
	if (!words[0])
		return complain("call: expected SERVICE.REMOTE.METHOD JSON (loquat call --help)");
	json_t *o = json_loads(words[1], 0, &error);

	bool proper = json_is_object(o);
	int status = proper ? 0 : complain("call: the request is no JSON object: %s", o ? words[1] : error.text);

	json_decref(o);
	return proper ? call(c, words[0], words[1], key) : status;
}
