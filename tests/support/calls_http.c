#include "tests/support/calls.h"
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* HTTP from the test's own thread. */

int calls_http_take(int fd, struct http_reply *out)
{
	static char all[80000];
	size_t n = 0;
	ssize_t got;

	while (n < sizeof(all) - 1 && (got = TEMP_FAILURE_RETRY(read(fd, all + n, sizeof(all) - 1 - n))) > 0)
		n += (size_t)got;
	close(fd);
	all[n] = '\0';
	char *end = strstr(all, "\r\n\r\n");
	ck_assert_msg(end && sscanf(all, "HTTP/1.%*d %d", &out->status) == 1, "no answer: %s", all);
	*end = '\0';
	snprintf(out->head, sizeof(out->head), "%.*s", (int)sizeof(out->head) - 1, all);
	out->n = n - (size_t)(end + 4 - all);
	ck_assert_uint_lt(out->n, sizeof(out->body));
	memcpy(out->body, end + 4, out->n);
	out->body[out->n] = '\0';
	return out->status;
}

int calls_http_send(struct calls *c, unsigned which, const char *method, const char *path, bool key, const char *body)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(c->http[which]) };
	struct timeval limit = { .tv_sec = 60 };
	struct buf b = BUF_INIT;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	buf_addf(&b, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n", method, path,
		 body ? strlen(body) : 0);
	if (key)
		buf_addf(&b, "Authorization: Bearer %s\r\n", c->s[which]->cluster_key);
	buf_addf(&b, "\r\n%s", body ? body : "");
	ck_assert_int_eq(write(fd, b.data, b.len), (ssize_t)b.len);
	buf_release(&b);
	return fd;
}

int calls_http(struct calls *c, unsigned which, const char *method, const char *path, bool key, const char *body,
	       struct http_reply *out)
{
	return calls_http_take(calls_http_send(c, which, method, path, key, body), out);
}

json_t *http_body_json(const struct http_reply *r)
{
	json_error_t e;
	json_t *o = json_loads(r->body, 0, &e);

	ck_assert_msg(o, "%s: %s", e.text, r->body);
	return o;
}

const char *http_body_word(json_t *o, const char *name)
{
	const char *text = json_string_value(json_object_get(o, name));

	return text ? text : "";
}

void ck_http_error(const struct http_reply *r, int status, const char *error, const char *effect)
{
	json_t *o = http_body_json(r);

	ck_assert_int_eq(r->status, status);
	ck_assert_int_eq(json_integer_value(json_object_get(o, "code")), status);
	ck_assert_str_eq(http_body_word(o, "error"), error);
	ck_assert_str_eq(http_body_word(o, "effect"), effect);
	ck_assert_str_ne(http_body_word(o, "message"), "");
	json_decref(o);
}
