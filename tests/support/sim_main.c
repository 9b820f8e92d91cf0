#include "tests/support/sim_main.h"
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "tests/support/clock.h"

#define JOBS_MAX 64
#define SEED_S   60 /* seconds of processor time one seed may take; by the clock ten times as many */

struct options {
	const char *program, *scenario;
	uint64_t from, to; /* seeds; to 0: as the scenario says */
	bool one, hash, list;
	unsigned jobs, seconds;
};

struct board { /* shared by the workers */
	atomic_uint_fast64_t next, done, failed, sim_ms, events;
	atomic_uint_fast64_t running[JOBS_MAX]; /* seed + 1 */
	atomic_bool stop;
	uint64_t first_failed;
	char why[512];
	atomic_flag lock;
};

static double now_s(void)
{
	return (double)clock_ns() / 1e9;
}

static struct board *board_new(void)
{
	struct board *b = mmap(NULL, sizeof(*b), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (b == MAP_FAILED) {
		perror("sim_main: mmap");
		exit(2);
	}
	b->first_failed = UINT64_MAX;
	return b;
}

/* The smallest seed counts: it is the one a repeated run would name. */
static void note_failure(struct board *b, uint64_t seed, const char *why)
{
	atomic_fetch_add(&b->failed, 1);
	while (atomic_flag_test_and_set(&b->lock))
		;
	if (seed < b->first_failed) {
		b->first_failed = seed;
		snprintf(b->why, sizeof(b->why), "%s", why);
	}
	atomic_flag_clear(&b->lock);
	atomic_store(&b->stop, true);
}

/* Ends the program with SIGPROF or SIGALRM unless called again in time; 0: no limit. Processor time, as somebody who
 * stops the program or takes its cores does not make a seed endless; the clock, as one that sleeps for ever takes none. */
static void limit_s(unsigned s)
{
	setitimer(ITIMER_PROF, &(struct itimerval){ .it_value.tv_sec = s }, NULL);
	alarm(10 * s);
}

/* ---- a worker ---------------------------------------------------------------------------------------------------- */

static void go(struct board *b, const struct options *o, const struct sim_scenario *s, struct sim *w)
{
	uint64_t seed = sim_seed(w), from_ms = sim_now_ns(w) / 1000000, events = sim_events(w);
	limit_s(SEED_S);
	s->run(w);
	limit_s(0);
	atomic_fetch_add(&b->sim_ms, sim_now_ns(w) / 1000000 - from_ms);
	atomic_fetch_add(&b->events, sim_events(w) - events);
	atomic_fetch_add(&b->done, 1);
	if (o->hash)
		printf("# %s seed %llu hash %016llx\n", s->name, (unsigned long long)seed,
		       (unsigned long long)sim_hash(w));
	if (sim_failure(w))
		note_failure(b, seed, sim_failure(w));
}

static void note_death(struct board *b, uint64_t seed, int status);

/* The prepared world is the parent's and stays as it is; the child has a copy of it, at the same addresses. */
static void go_forked(struct board *b, const struct options *o, const struct sim_scenario *s, struct sim *w,
		      uint64_t seed)
{
	int status = 0;
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		sim_reseed(w, seed);
		go(b, o, s, w);
		fflush(stdout);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		note_failure(b, seed, "fork failed");
	note_death(b, seed, status);
}

static struct sim *prepared(struct board *b, const struct sim_scenario *s)
{
	struct sim *w = sim_new(0);
	limit_s(SEED_S);
	s->prepare(w);
	limit_s(0);
	if (sim_failure(w))
		note_failure(b, 0, sim_failure(w));
	return w;
}

static void work(struct board *b, const struct options *o, const struct sim_scenario *s, uint64_t to, unsigned job)
{
	uint64_t seed;
	struct sim *w = s->prepare ? prepared(b, s) : NULL;
	while (!atomic_load(&b->stop) && (seed = atomic_fetch_add(&b->next, 1)) <= to) {
		atomic_store(&b->running[job], seed + 1);
		if (s->prepare) {
			go_forked(b, o, s, w, seed);
		} else {
			w = sim_new(seed);
			go(b, o, s, w);
			sim_free(w);
		}
		atomic_store(&b->running[job], 0);
	}
	fflush(stdout);
}

static void note_death(struct board *b, uint64_t seed, int status)
{
	char why[64];
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return;
	if (WIFSIGNALED(status) && (WTERMSIG(status) == SIGPROF || WTERMSIG(status) == SIGALRM))
		snprintf(why, sizeof(why), "it does not end within %d s", SEED_S);
	else if (WIFSIGNALED(status))
		snprintf(why, sizeof(why), "the program died: %s", strsignal(WTERMSIG(status)));
	else
		snprintf(why, sizeof(why), "the program ended with status %d", WEXITSTATUS(status));
	note_failure(b, seed, why);
}

static void run_workers(struct board *b, const struct options *o, const struct sim_scenario *s, uint64_t to)
{
	pid_t pids[JOBS_MAX];
	int status;
	fflush(stdout);
	for (unsigned j = 0; j < o->jobs; j++)
		if ((pids[j] = fork()) == 0) {
			work(b, o, s, to, j);
			_exit(0);
		}
	if (o->seconds) {
		for (double end = now_s() + o->seconds; now_s() < end && !atomic_load(&b->stop);)
			nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
		atomic_store(&b->stop, true);
	}
	for (unsigned j = 0; j < o->jobs; j++)
		if (pids[j] > 0 && waitpid(pids[j], &status, 0) == pids[j]) {
			uint64_t running = atomic_load(&b->running[j]);
			note_death(b, running ? running - 1 : 0, status);
		}
}

/* ---- one scenario --------------------------------------------------------------------------------------------------- */

static bool report(struct board *b, const struct options *o, const struct sim_scenario *s, double took)
{
	bool ok = s->planted ? atomic_load(&b->failed) > 0 : atomic_load(&b->failed) == 0;
	unsigned long long done = atomic_load(&b->done), seed = b->first_failed;
	printf("%s %s", ok ? "ok" : "not ok", s->name);
	if (atomic_load(&b->failed))
		printf("%s seed %llu: %s", s->planted ? " found by" : ":", seed, b->why);
	else if (s->planted)
		printf(": no seed found the planted mistake: %s", s->planted);
	printf("\n# %llu seeds in %.2f s: %.0f seeds/s, %.0f simulated seconds and %.2f million events per second\n",
	       done, took, (double)done / took, (double)atomic_load(&b->sim_ms) / 1000 / took,
	       (double)atomic_load(&b->events) / 1e6 / took);
	if (!ok && !s->planted)
		printf("# repeat with: %s --scenario %s --seed %llu\n", o->program, s->name, seed);
	fflush(stdout);
	return ok;
}

static uint64_t fresh_seed(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec << 20;
}

static bool run_scenario(const struct options *o, const struct sim_scenario *s)
{
	struct board *b = board_new();
	uint64_t from = o->to ? o->from : o->seconds ? fresh_seed() : 1;
	uint64_t to = o->to ? o->to : o->seconds ? UINT64_MAX - 1 : s->seeds;
	double start = now_s();
	atomic_store(&b->next, from);
	run_workers(b, o, s, to);
	bool ok = report(b, o, s, now_s() - start);
	munmap(b, sizeof(*b));
	return ok;
}

/* ---- one seed, told in full ------------------------------------------------------------------------------------------ */

static struct sim *told; /* for the handler of a crash */

static void on_crash(int signo)
{
	printf("# %s; the last events were:\n", strsignal(signo));
	sim_trace_print(told);
	fflush(stdout);
	signal(signo, SIG_DFL);
	raise(signo);
}

static void catch_crashes(void)
{
	static char stack[65536];
	static const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGABRT, SIGPROF, SIGALRM };
	stack_t alternative = { .ss_sp = stack, .ss_size = sizeof(stack) };
	struct sigaction action = { .sa_handler = on_crash, .sa_flags = SA_ONSTACK };
	sigaltstack(&alternative, NULL);
	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++)
		sigaction(signals[i], &action, NULL);
}

static bool tell_seed(const struct options *o, const struct sim_scenario *s)
{
	told = sim_new(s->prepare ? 0 : o->from);
	catch_crashes();
	sim_verbose(told, true);
	limit_s(SEED_S);
	if (s->prepare) {
		s->prepare(told);
		sim_reseed(told, o->from);
	}
	s->run(told);
	limit_s(0);
	sim_trace_print(told);
	printf("# hash %016llx, %llu events, %.3f simulated s\n", (unsigned long long)sim_hash(told),
	       (unsigned long long)sim_events(told), (double)sim_now_ns(told) / 1e9);
	bool ok = !sim_failure(told) != !!s->planted;
	printf("%s %s%s%s\n", ok ? "ok" : "not ok", s->name, sim_failure(told) ? ": " : "",
	       sim_failure(told) ? sim_failure(told) : "");
	sim_free(told);
	return ok;
}

/* ---- the command line ---------------------------------------------------------------------------------------------------- */

/*
 * The regions have fixed addresses anyway; without randomisation the libraries have them too, which makes two
 * runs easier to compare in a debugger. Where the system forbids it we go on without.
 */
static void fix_addresses(char **argv)
{
	int now = personality(0xffffffff);
	if (now < 0 || now & ADDR_NO_RANDOMIZE || getenv("SIM_ASLR"))
		return;
	if (personality((unsigned long)now | ADDR_NO_RANDOMIZE) < 0)
		return;
	setenv("SIM_ASLR", "1", 1); /* never twice */
	execv("/proc/self/exe", argv);
}

static int usage(const char *program, const char *what)
{
	fprintf(stderr,
		"%s: %s\nusage: %s [--scenario NAME] [--seeds A..B] [--seed N] [--jobs J] [--seconds S] [--hash] [--list]\n",
		program, what, program);
	return 2;
}

static int parse(int argc, char **argv, struct options *o)
{
	for (int i = 1; i < argc; i++) {
		const char *a = argv[i], *v = i + 1 < argc ? argv[i + 1] : "";
		unsigned long long from, to;
		if (!strcmp(a, "--hash")) {
			o->hash = true;
			continue;
		}
		if (!strcmp(a, "--list")) {
			o->list = true;
			continue;
		}
		i++;
		if (!strcmp(a, "--scenario"))
			o->scenario = v;
		else if (!strcmp(a, "--seeds") && sscanf(v, "%llu..%llu", &from, &to) == 2 && to)
			o->from = from, o->to = to;
		else if (!strcmp(a, "--seed") && sscanf(v, "%llu", &from) == 1)
			o->from = from, o->one = true;
		else if (!strcmp(a, "--jobs") && atoi(v) > 0 && atoi(v) <= JOBS_MAX)
			o->jobs = (unsigned)atoi(v);
		else if (!strcmp(a, "--seconds") && atoi(v) > 0)
			o->seconds = (unsigned)atoi(v);
		else
			return usage(argv[0], "bad option or value");
	}
	return 0;
}

int sim_main(int argc, char **argv, const struct sim_scenario *list)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	const char *soak = getenv("SOAK_S");
	struct options o = { .program = argv[0], .jobs = cores > 0 && cores < JOBS_MAX ? (unsigned)cores : 1 };
	unsigned count = 0, failed = 0;
	setvbuf(stdout, NULL, _IOLBF, 0); /* whole lines from several workers */
	fix_addresses(argv);
	int err = parse(argc, argv, &o);
	if (err)
		return err;
	for (const struct sim_scenario *s = list; s->name; s++)
		count += !o.scenario || !strcmp(o.scenario, s->name);
	if (!count)
		return usage(argv[0], "no such scenario");
	if (soak && atoi(soak) > 0 && !o.to && !o.one)
		o.seconds = (unsigned)atoi(soak) / count;
	for (const struct sim_scenario *s = list; s->name; s++) {
		if (o.scenario && strcmp(o.scenario, s->name) != 0)
			continue;
		if (o.list)
			printf("%s\n", s->name);
		else
			failed += !(o.one ? tell_seed(&o, s) : run_scenario(&o, s));
	}
	return failed > 0;
}

bool sim_until_ready(struct sim *w, const char *process, uint16_t port)
{
	struct sim_http_answer a;

	for (int i = 0; i < 100 && !sim_failure(w); i++) {
		int status = sim_http(w, process, port, "GET", "/readyz", NULL, NULL, 0, 2000, &a);

		sim_http_release(&a);
		if (status == 200)
			return true;
		sim_run_ms(w, 100);
	}
	return false;
}
