// log_spdlog: spdlog's asynchronous logger, as its README sets it up, with the lines of tests/bench/log.c.
//
// usage: log_spdlog FILE      prints one JSON object
#include <memory>
#include "spdlog/async.h"
#include "spdlog/sinks/basic_file_sink.h"
#include "spdlog/spdlog.h"
#include "tests/bench/log_load.h"

static std::shared_ptr<spdlog::logger> logger;
static const char *path;

static void open_log()
{
	run_on(WRITER);
	spdlog::init_thread_pool(8192, 1);
	run_on(CALLER);
	logger = spdlog::basic_logger_mt<spdlog::async_factory>("bench", path);
	logger->set_pattern("%Y-%m-%dT%H:%M:%S.%fZ %l bench-1 %v");
}

// Its thread ends when its queue is empty, and the file is flushed when it is closed.
static void reopen()
{
	logger.reset();
	spdlog::shutdown();
	open_log();
}

#define LINE(i) logger->info("role.change uid={} gold={} item={}", "player-4711", (long long)(i) * 7, (i) % 40)
#define FLUSH() reopen()

int main(int argc, char **argv)
{
	load_figures f;
	if (argc != 2)
		return fprintf(stderr, "usage: log_spdlog FILE\n"), 2;
	path = argv[1];
	open_log();
	LOAD(f);
	logger.reset();
	spdlog::shutdown();
	printf("{\"call_ns\":%.1f,\"p99_ns\":%.0f,\"lines_per_s\":%.0f}\n", f.call_ns, f.p99_ns, FLOOD / f.flood_s);
	return 0;
}
