/*
 * answers: how long one caller waits for an answer over HTTP, one request after the other on one connection.
 *
 * usage: answers PORT PATH KEY BODY COUNT        POSTs, with the cluster's key; prints one JSON object
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void need(bool fine, const char *what)
{
	if (fine)
		return;
	fprintf(stderr, "answers: %s\n", what);
	exit(2);
}

static double now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* Reads one answer whole; its status. */
static int answer(int fd)
{
	char head[8192];
	size_t n = 0, bytes = 0;
	const char *end = NULL;
	while (!end || n < (size_t)(end - head) + bytes) {
		ssize_t got = recv(fd, head + n, sizeof head - 1 - n, 0);
		need(got > 0, "the connection was closed");
		n += (size_t)got;
		head[n] = '\0';
		const char *gap = strstr(head, "\r\n\r\n"), *length = strcasestr(head, "\r\nContent-Length:");
		if (gap && length && length < gap)
			bytes = strtoul(length + 17, NULL, 10);
		end = gap ? gap + 4 : NULL;
	}
	return atoi(head + 9);
}

int main(int argc, char **argv)
{
	char request[2048];
	need(argc == 6, "usage: answers PORT PATH KEY BODY COUNT");
	unsigned count = (unsigned)atoi(argv[5]), failed = 0;
	double *took = calloc(count + 1, sizeof *took);
	struct sockaddr_in to = { .sin_family = AF_INET,
				  .sin_port = htons((uint16_t)atoi(argv[1])),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	need(took && fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0, "nobody listens there");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	int n = snprintf(
		request, sizeof request,
		"POST %s HTTP/1.1\r\nHost: loquat\r\nAuthorization: Bearer %s\r\nContent-Length: %zu\r\n\r\n%s",
		argv[2], argv[3], strlen(argv[4]), argv[4]);
	need(n > 0 && (size_t)n < sizeof request, "the request is too long");
	for (unsigned i = 0; i < count; i++) {
		double from = now_us();
		need(send(fd, request, (size_t)n, MSG_NOSIGNAL) == n, "nothing can be sent");
		failed += answer(fd) != 200;
		took[i] = now_us() - from;
	}
	close(fd);
	qsort(took, count, sizeof *took, by_value);
	printf("{\"count\":%u,\"failed\":%u,\"p50_us\":%.0f,\"p99_us\":%.0f}\n", count, failed, took[count / 2],
	       took[count * 99 / 100]);
	free(took);
	return failed != 0;
}
