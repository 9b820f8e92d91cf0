#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "deploy/loquat/supervisor.h"

/* ---- addresses ------------------------------------------------------------------------------------------ */

static socklen_t address_of(const char *host, uint16_t port, struct sockaddr_storage *out)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)out;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;

	memset(out, 0, sizeof *out);
	if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		return sizeof *v4;
	}
	if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		return sizeof *v6;
	}
	return 0;
}

/* 0, or the errno of binding (and listening, which is what shows a second listener) there. */
static int try_port(const char *host, uint16_t port)
{
	struct sockaddr_storage a;
	socklen_t n = address_of(host, port, &a);
	int fd = n ? socket(a.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1, yes = 1, err = 0;

	if (fd < 0)
		return n ? errno : EADDRNOTAVAIL;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
	if (bind(fd, (struct sockaddr *)&a, n) < 0 || listen(fd, 1) < 0)
		err = errno;
	close(fd);
	return err;
}

bool host_is_here(const char *host)
{
	return try_port(host, 0) != EADDRNOTAVAIL;
}

/* ---- who holds a port: the socket's inode in /proc/net, then the process that has it open ----------------- */

static unsigned long inode_in(const char *table, uint16_t port)
{
	FILE *f = fopen(table, "re");
	char line[512];
	unsigned long found = 0;

	while (f && !found && fgets(line, sizeof line, f)) {
		unsigned local, state;
		unsigned long inode;

		if (sscanf(line, " %*d: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x %*s %*s %*s %*s %*s %lu", &local, &state,
			   &inode) == 3 &&
		    local == port && state == 0x0a) /* LISTEN */
			found = inode;
	}
	if (f)
		fclose(f);
	return found;
}

static bool has_open(const char *pid, const char *link)
{
	char folder[300], path[600], to[64];
	bool found = false;

	snprintf(folder, sizeof folder, "/proc/%s/fd", pid);
	DIR *d = opendir(folder);

	for (struct dirent *e; d && !found && (e = readdir(d));) {
		snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
		ssize_t n = readlink(path, to, sizeof to - 1);

		if (n > 0) {
			to[n] = '\0';
			found = !strcmp(to, link);
		}
	}
	if (d)
		closedir(d);
	return found;
}

static void name_of(const char *pid, char out[64])
{
	char path[300];

	snprintf(path, sizeof path, "/proc/%s/comm", pid);
	FILE *f = fopen(path, "re");

	if (!f || !fgets(out, 64, f))
		strcpy(out, "?");
	out[strcspn(out, "\n")] = '\0';
	if (f)
		fclose(f);
}

static void find_holder(uint16_t port, struct holder *out)
{
	unsigned long inode = inode_in("/proc/net/tcp", port);
	char link[64];

	*out = (struct holder){ .pid = 0 };
	if (!inode && !(inode = inode_in("/proc/net/tcp6", port)))
		return;
	snprintf(link, sizeof link, "socket:[%lu]", inode);
	DIR *d = opendir("/proc");

	for (struct dirent *e; d && !out->pid && (e = readdir(d));) {
		if (!isdigit((unsigned char)*e->d_name) || !has_open(e->d_name, link))
			continue;
		out->pid = (int)strtol(e->d_name, NULL, 10);
		name_of(e->d_name, out->name);
	}
	if (d)
		closedir(d);
}

bool port_is_taken(const char *host, uint16_t port, struct holder *out)
{
	int err = try_port(host, port);

	if (!err)
		return false;
	*out = (struct holder){ .pid = 0 };
	if (err == EADDRINUSE)
		find_holder(port, out);
	errno = err;
	return true;
}
