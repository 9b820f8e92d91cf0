/*
 * log: what a line costs its caller, and how many lines a second come through, beside tests/bench/peers/log_spdlog.cc.
 *
 * When the ring is full the logger drops lines and counts them. In the flood only those that are in the file count: the
 * caller waits a moment when it sees that one was dropped, and says that line again.
 *
 * usage: log FILE      prints one JSON object
 */
#include <string.h>
#include "common/env.h"
#include "common/log.h"
#include "tests/bench/log_load.h"

static struct log *logger;
static struct env *env;
static const char *path;
static uint64_t dropped;

static void open_log(void)
{
	run_on(WRITER);
	if (log_open(env, "bench-1", path, LOG_INFO, &logger) < 0) {
		fprintf(stderr, "log: %s: %s\n", path, env_last_error());
		exit(2);
	}
	run_on(CALLER);
	dropped = 0;
}

static void say(unsigned i)
{
	for (;; sched_yield()) {
		log_info(logger, "role.change", "uid=%s gold=%lld item=%u", "player-4711", (long long)i * 7, i % 40);
		uint64_t now = log_dropped(logger);
		if (now == dropped)
			return;
		dropped = now;
	}
}

/* Closing is the one way to know that all is written. */
static void reopen(void)
{
	log_close(logger);
	open_log();
}

#define LINE(i) say(i)
#define FLUSH() reopen()

int main(int argc, char **argv)
{
	struct load_figures f;
	if (argc != 2)
		return fprintf(stderr, "usage: log FILE\n"), 2;
	path = argv[1];
	env = env_new();
	open_log();
	LOAD(f);
	log_close(logger);
	env_free(env);
	printf("{\"call_ns\":%.1f,\"p99_ns\":%.0f,\"lines_per_s\":%.0f}\n", f.call_ns, f.p99_ns, FLOOD / f.flood_s);
	return 0;
}
