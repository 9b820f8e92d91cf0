#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/buf.h"
#include "common/err.h"
#include "common/token.h"
#include "deploy/loquat/loquat.h"

#define CONNECT_MS 2000
#define PROBE_MS   500 /* somebody who may hang */
#define ANSWER_MS  45000
#define ANSWER_MAX (64 << 20)

static int wait_for(int fd, short what, int ms)
{
	struct pollfd p = { .fd = fd, .events = what };

	return poll(&p, 1, ms) == 1 ? 0 : ERR_TIMEOUT;
}

static int dial(const char *host, uint16_t port, int ms)
{
	if (!strcmp(host, "0.0.0.0") || !strcmp(host, "::")) /* who binds everywhere is reached here */
		host = strchr(host, ':') ? "::1" : "127.0.0.1";

	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	bool is4 = inet_pton(AF_INET, host, &v4.sin_addr) == 1;
	int err = 0;
	socklen_t n = sizeof err;

	if (!is4 && inet_pton(AF_INET6, host, &v6.sin6_addr) != 1)
		return ERR_BAD_REQUEST;
	int fd = socket(is4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return ERR_IO;
	if (connect(fd, is4 ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6, is4 ? sizeof v4 : sizeof v6) < 0 &&
	    errno != EINPROGRESS)
		err = errno;
	if (!err && (wait_for(fd, POLLOUT, ms) < 0 || getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &n) < 0))
		err = ETIMEDOUT;
	if (!err)
		return fd;
	close(fd);
	return ERR_UNAVAILABLE;
}

static int send_all(int fd, const struct buf *b)
{
	for (size_t at = 0; at < b->len;) {
		ssize_t n = send(fd, b->data + at, b->len - at, MSG_NOSIGNAL);

		if (n > 0)
			at += (size_t)n;
		else if (n < 0 && errno == EAGAIN && wait_for(fd, POLLOUT, ANSWER_MS) == 0)
			continue;
		else
			return ERR_CLOSED;
	}
	return 0;
}

static int read_all(int fd, struct buf *b, int ms)
{
	while (b->len < ANSWER_MAX) {
		ssize_t n = recv(fd, buf_reserve(b, 65536), 65536, 0);

		if (n == 0)
			return 0;
		if (n > 0)
			b->len += (size_t)n;
		else if (errno != EAGAIN)
			return ERR_CLOSED;
		else if (wait_for(fd, POLLIN, ms) < 0)
			return ERR_TIMEOUT;
	}
	return ERR_FULL;
}

/* Chunks: a length in hexadecimal, CRLF, so many bytes, CRLF; the last has length 0. */
static char *join_chunks(const char *p, const char *end)
{
	struct buf b = BUF_INIT;
	char *after;

	while (p < end) {
		size_t n = strtoul(p, &after, 16);
		const char *data = strstr(after, "\r\n");

		if (!n || !data || n > (size_t)(end - data - 2))
			break;
		buf_add(&b, data + 2, n);
		p = data + 2 + n + 2;
	}
	buf_cstr(&b);
	return b.data;
}

static int parse(struct buf *b, char **answer)
{
	const char *text = buf_cstr(b), *body = strstr(text, "\r\n\r\n");
	int status = 0;

	if (!body || sscanf(text, "HTTP/1.%*d %d", &status) != 1)
		return ERR_CORRUPT;
	body += 4;
	const char *chunked = strcasestr(text, "\r\nTransfer-Encoding: chunked");

	*answer = chunked && chunked < body ? join_chunks(body, text + b->len) : strdup(body);
	return status;
}

bool reaches(const char *host, uint16_t port)
{
	int fd = dial(host, port, CONNECT_MS);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static int ask_on(struct cluster *c, int fd, const char *host, uint16_t port, const char *method, const char *path,
		  const char *body, int ms, char **answer)
{
	struct buf b = BUF_INIT;
	int err;

	buf_addf(&b, "%s %s HTTP/1.1\r\nHost: %s:%u\r\nConnection: close\r\n", method, path, host, port);
	if (*c->key)
		buf_addf(&b, "Authorization: Bearer %s\r\n", c->key);
	if (body)
		buf_addf(&b, "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
	else
		buf_addstr(&b, !strcmp(method, "POST") ? "Content-Length: 0\r\n\r\n" : "\r\n");
	err = send_all(fd, &b);
	buf_clear(&b);
	if (err == 0)
		err = read_all(fd, &b, ms);
	if (err == 0)
		err = parse(&b, answer);
	buf_release(&b);
	close(fd);
	return err;
}

int ask(struct cluster *c, const char *host, uint16_t port, const char *method, const char *path, const char *body,
	char **answer)
{
	int fd = dial(host, port, CONNECT_MS);

	return fd < 0 ? fd : ask_on(c, fd, host, port, method, path, body, ANSWER_MS, answer);
}

/* A level of the log that there is not: who takes our key says so, and changes nothing. */
static int ask_about_key(struct cluster *c, const struct route_row *r)
{
	int fd = dial(r->host, r->http_port, PROBE_MS);
	char *answer = NULL;

	if (fd < 0)
		return fd;
	int status = ask_on(c, fd, r->host, r->http_port, "POST", "/admin/loglevel?level=-", NULL, PROBE_MS, &answer);

	free(answer);
	return status;
}

/* Whether its token.key is ours; one that does not say so is taken at its word of the other key. */
static bool has_our_token_key(struct cluster *c, const struct route_row *r)
{
	char key[KEY_HEX + 1], ours[TOKEN_PRINT_MAX] = "", *answer = NULL;
	int fd = dial(r->host, r->http_port, PROBE_MS);

	if (fd < 0 || ask_on(c, fd, r->host, r->http_port, "GET", "/stats", NULL, PROBE_MS, &answer) != 200) {
		free(answer);
		return true;
	}
	if (key_read(c, "token.key", key))
		token_print(key, ours);
	json_t *stats = json_loads(answer, 0, NULL);
	const char *theirs = json_string_value(json_object_get(stats, "token_key"));
	bool same = !theirs || !strcmp(theirs, ours);

	json_decref(stats);
	free(answer);
	return same;
}

int keys_are_known(struct cluster *c, bool (*leaves_out)(void *arg, size_t row), void *arg,
		   const struct route_row **asked, const char **which)
{
	const char *silent = "";

	for (size_t i = 0; i < c->routes->rows; i++) {
		const struct route_row *r = *asked = &c->routes->row[i];

		if (!r->http_port || leaves_out(arg, i) || !strcmp(r->host, silent))
			continue;
		switch (ask_about_key(c, r)) {
		case 400: *which = "token.key"; return has_our_token_key(c, r) ? 0 : ERR_DENIED;
		case 403: *which = "cluster.key"; return ERR_DENIED;
		case ERR_UNAVAILABLE: break; /* another process of that host may run */
		default: silent = r->host;
		}
	}
	return ERR_UNAVAILABLE;
}
