#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "deploy/loquat/control.h"

static int by_rate(const void *a, const void *b)
{
	const json_t *x = json_object_get(*(json_t *const *)a, "rate_1s"),
		     *y = json_object_get(*(json_t *const *)b, "rate_1s");
	double d = json_number_value(y) - json_number_value(x);

	return d > 0 ? 1 : d < 0 ? -1 : 0;
}

static long long integer(const json_t *o, const char *name)
{
	return (long long)json_number_value(json_object_get(o, name));
}

static void print_method(const json_t *m)
{
	long long errors = 0;
	const char *word;
	json_t *e;

	json_object_foreach(json_object_get(m, "errors"), word, e) errors += (long long)json_integer_value(e);
	printf("%-40s %12lld %10.1f %10.1f %9lld %9lld %9lld %8lld\n", json_string_value(json_object_get(m, "name")),
	       integer(m, "count"), json_number_value(json_object_get(m, "rate_1s")),
	       json_number_value(json_object_get(m, "rate_10s")), integer(m, "p50_us"), integer(m, "p99_us"),
	       integer(m, "max_us"), errors);
}

static void print_methods(json_t *methods)
{
	size_t n = 0;
	json_t **list = calloc(json_object_size(methods) + 1, sizeof *list), *m;
	const char *name;

	if (!list)
		return;
	json_object_foreach(methods, name, m)
	{
		if (!integer(m, "count"))
			continue;
		json_object_set_new(m, "name", json_string(name));
		list[n++] = m;
	}
	qsort(list, n, sizeof *list, by_rate);
	printf("%-40s %12s %10s %10s %9s %9s %9s %8s\n", "method", "requests", "per s", "per s/10s", "p50 us", "p99 us",
	       "max us", "errors");
	for (size_t i = 0; i < n; i++)
		print_method(list[i]);
	free(list);
}

static void print(const json_t *stats)
{
	const json_t *replay = json_object_get(stats, "replay"), *log = json_object_get(stats, "sqllog");
	const char *id;
	char behind[80] = "not known";
	json_t *age;

	if (json_object_get(replay, "lag_records"))
		snprintf(behind, sizeof behind, "%lld records behind (%lld ms)", integer(replay, "lag_records"),
			 integer(replay, "lag_ms"));
	printf("sessions %lld · SQL log %lld records, %lld not yet synced · replay %s · memory %.0f MiB\n\n",
	       integer(stats, "sessions"), integer(log, "records"), integer(log, "unsynced"), behind,
	       json_number_value(json_object_get(stats, "rss_bytes")) / 1048576);
	json_object_foreach(json_object_get(stats, "silent_s"), id, age)
		printf("%s does not answer: its figures are %.0f s old, its rates are left out\n", id,
		       json_number_value(age));
	if (json_object_size(json_object_get(stats, "silent_s")))
		printf("\n");
	print_methods(json_object_get(stats, "methods"));
}

int command_stats(struct cluster *c, int argc, char **argv)
{
	bool once = (argc == 2 && !strcmp(argv[1], "--once")) || !isatty(1);
	const struct timespec second = { .tv_sec = 1 };
	json_t *stats;

	if (argc > 2 || (argc == 2 && strcmp(argv[1], "--once")))
		return complain("stats: unknown argument \"%s\" (loquat stats --help)", argv[1]);
	for (;;) {
		if (supervisor_ask(c, "GET", "/stats", &stats) < 0)
			return 1;
		if (!once)
			printf("\033[H\033[J");
		print(stats);
		json_decref(stats);
		if (once)
			return 0;
		printf("\nCtrl-C ends this.\n");
		fflush(stdout);
		nanosleep(&second, NULL);
	}
}
