#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "deploy/loquat/bots.h"

static void cpu_add(struct served *s, const char *service, uint64_t us)
{
	unsigned i = 0;

	while (i < s->services && strcmp(s->by[i].service, service))
		i++;
	if (i == SERVED_MAX)
		return;
	if (i == s->services)
		snprintf(s->by[s->services++].service, sizeof s->by->service, "%s", service);
	s->by[i].cpu_us += us;
}

/* Requests of clients: a connector counts them under the names of the handlers' routes. */
static uint64_t requests(const json_t *stats)
{
	json_t *methods = json_object_get(stats, "methods"), *method;
	const char *name;
	uint64_t sum = 0;

	json_object_foreach(methods, name, method) if (strstr(name, "Handler.")) sum +=
		(uint64_t)json_integer_value(json_object_get(method, "count"));
	return sum;
}

static void read_instance(struct cluster *c, const struct route_row *row, struct served *s)
{
	char *text = NULL;
	json_t *stats = NULL;

	if (row->http_port && ask(c, row->host, row->http_port, "GET", "/stats", NULL, &text) == 200)
		stats = json_loads(text, 0, NULL);
	free(text);
	if (!stats)
		return;
	cpu_add(s, row->service, (uint64_t)json_integer_value(json_object_get(stats, "cpu_us")));
	if (!strcmp(row->service, "connector")) {
		s->connectors++;
		s->answered += requests(stats);
	}
	json_decref(stats);
}

static uint64_t machine_us(void)
{
	unsigned long long user = 0, nice = 0, system = 0, idle, wait, irq = 0, soft = 0;
	FILE *file = fopen("/proc/stat", "r");

	if (!file)
		return 0;
	int n = fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &wait, &irq,
		       &soft);
	fclose(file);
	return n == 7 ? (user + nice + system + irq + soft) * 1000000 / (unsigned long long)sysconf(_SC_CLK_TCK) : 0;
}

/* CPU of the private database, which has no /stats: the process of its pid file, if it is on this machine. */
static void read_database(struct cluster *c, struct served *s)
{
	char path[ENV_PATH_MAX + 32], text[1024] = "";
	unsigned long long user = 0, system = 0;
	int pid = 0;

	snprintf(path, sizeof path, "%s/mariadb/mysqld.pid", c->var);
	FILE *file = c->private_database ? fopen(path, "r") : NULL;

	if (!file)
		return;
	int n = fscanf(file, "%d", &pid);
	fclose(file);
	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	if (n != 1 || !(file = fopen(path, "r")))
		return;
	text[fread(text, 1, sizeof text - 1, file)] = '\0';
	fclose(file);
	const char *rest = strrchr(text, ')'); /* the name before may hold anything */

	if (rest && sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system) == 2)
		cpu_add(s, "mariadb", (user + system) * 1000000 / (unsigned long long)sysconf(_SC_CLK_TCK));
}

static uint64_t own_us(void)
{
	struct rusage r;

	getrusage(RUSAGE_SELF, &r);
	return (uint64_t)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1000000 +
	       (uint64_t)(r.ru_utime.tv_usec + r.ru_stime.tv_usec);
}

void served_read(struct cluster *c, struct served *out)
{
	*out = (struct served){ .at_ns = bots_now_ns(), .machine_us = machine_us(), .own_us = own_us() };
	for (size_t i = 0; i < c->routes->rows; i++)
		read_instance(c, &c->routes->row[i], out);
	read_database(c, out);
}

void bots_find_gates(struct bots *b)
{
	const struct route_table *t = b->cluster->routes;

	for (size_t i = 0; i < t->rows && b->gates < BOTS_GATES_MAX; i++) {
		const struct route_row *row = &t->row[i];
		char *text = NULL;

		if (strcmp(row->service, "gate") || !row->client_port)
			continue;
		if (!row->http_port || ask(b->cluster, row->host, row->http_port, "GET", "/readyz", NULL, &text) == 200)
			b->gate[b->gates++] = row;
		free(text);
	}
}
