/*
 * transfers: a caller of its own that moves gold between roles by once-calls, while links break and instances die.
 *
 * usage: transfers CONFIG SEED ROLES CALLS SECONDS BYTES_MAX LISTEN:TARGET...
 *
 * It is the instance caller-1 of CONFIG, whose role instances stand at the LISTEN ports: of proxies that it runs, each
 * before a TARGET port, and whose connections are cut after at most BYTES_MAX bytes. A transfer takes from one of the roles
 * hero0, hero1, … and, when that is acknowledged, gives to another: two once-calls (role.roleRemote.reward) with
 * keys of their own. What ends with unknown, timeout, unavailable or busy is asked again with the same key until it is
 * known. One in 50 is asked once more after its answer: the answer must be the same.
 *
 * A line per role: "role UID GOLD", what it must have at the end. The last: "calls=… again=… cuts=… late_ms=… longest_ms=…";
 * late_ms: the latest end after a call's deadline, without what the caller waited for a processor. Exit 1 when not all were
 * acknowledged in SECONDS, or an answer was wrong.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "rpc/service.h"
#include "tests/support/clock.h"
#include "tests/support/flag.h"
#include "tests/support/proxy.h"

enum { CHAINS = 32, ROLES_MAX = 1000, AGAIN_MS = 40, TICK_MS = 10, TIMEOUT_MS = 1500, PROXIES_MAX = 8 };
#define GOLD 1000

struct transfer {
	struct timer timer;
	unsigned number, from, to;
	int amount;
	bool giving, checking;
	uint64_t sent_ns;
	char answer[200];
};

static struct {
	struct worker *worker;
	const struct msg_method *reward;
	struct transfer chain[CHAINS];
	unsigned roles, calls, begun, done, asked, again, idle, think_ms;
	int64_t gold[ROLES_MAX];
	uint64_t random, seed, tick_ns, tick_waited_ns, before_waited_ns, late_ns, longest_ns;
	struct timer tick;
	unsigned ended[9]; /* by error */
	char wrong[300];
	struct flag finished;
} all;

static unsigned draw(unsigned n)
{
	all.random ^= all.random << 13;
	all.random ^= all.random >> 7;
	all.random ^= all.random << 17;
	return (unsigned)(all.random >> 33) % n;
}

/* How long this thread has waited for a processor in its life; 0: the kernel does not say. */
static uint64_t waited_ns(void)
{
	FILE *file = fopen("/proc/thread-self/schedstat", "r");
	unsigned long long ran, waited = 0;

	if (file && fscanf(file, "%llu %llu", &ran, &waited) != 2)
		waited = 0;
	if (file)
		fclose(file);
	return waited;
}

/*
 * How long since a deadline this thread was ready and not run: that is the machine's lateness, not the call's. A tick that was
 * due in the same gap may have run before the call's end, or not yet.
 */
static uint64_t stalled_ns(uint64_t deadline, uint64_t now)
{
	bool before = deadline < all.tick_ns;
	uint64_t waited = waited_ns() - (before ? all.before_waited_ns : all.tick_waited_ns);

	return waited < now - deadline ? waited : now - deadline;
}

static void on_tick(struct timer *t, uint64_t now_ms)
{
	(void)now_ms;
	all.before_waited_ns = all.tick_waited_ns;
	all.tick_waited_ns = waited_ns();
	all.tick_ns = clock_ns();
	loop_timer(all.worker->loop, t, TICK_MS);
}

static void wrong(const char *text)
{
	if (!*all.wrong)
		snprintf(all.wrong, sizeof(all.wrong), "%s", text);
	flag_raise(&all.finished);
}

static void ask(struct transfer *t);
static void begin(struct transfer *t);

static bool may_ask_again(int err)
{
	return err == ERR_UNKNOWN || err == ERR_TIMEOUT || err == ERR_UNAVAILABLE || err == ERR_BUSY;
}

static void note_time(const struct transfer *t)
{
	uint64_t now = clock_ns(), took = now - t->sent_ns, allowed = TIMEOUT_MS * UINT64_C(1000000);

	if (took > allowed)
		allowed += stalled_ns(t->sent_ns + allowed, now);

	if (took > all.longest_ns)
		all.longest_ns = took;
	if (took > allowed && took - allowed > all.late_ns)
		all.late_ns = took - allowed;
}

/* The next of its two calls, or the next transfer. */
static void acknowledged(struct transfer *t)
{
	all.gold[t->giving ? t->to : t->from] += t->giving ? t->amount : -t->amount;
	all.done++;
	if (t->giving) {
		begin(t);
		return;
	}
	t->giving = true;
	loop_timer(all.worker->loop, &t->timer, draw(all.think_ms + 1));
}

static void on_answer(void *arg, const struct rpc_answer *a)
{
	struct transfer *t = arg;
	char text[sizeof(t->answer)];

	note_time(t);
	all.ended[-a->err]++;
	if (a->err) {
		if (!may_ask_again(a->err)) {
			snprintf(text, sizeof(text), "transfer %u: %s: %.*s", t->number, err_word(a->err),
				 (int)a->message.n, a->message.p);
			wrong(text);
			return;
		}
		all.again++;
		loop_timer(all.worker->loop, &t->timer, AGAIN_MS);
		return;
	}
	snprintf(text, sizeof(text), "%.*s", (int)a->body.n, a->body.p);
	if (t->checking && strcmp(text, t->answer) != 0) {
		wrong("a repeat got another answer");
		return;
	}
	if (!t->checking && draw(50) == 0) {
		t->checking = true;
		memcpy(t->answer, text, sizeof(text));
		ask(t);
		return;
	}
	t->checking = false;
	acknowledged(t);
}

static void ask(struct transfer *t)
{
	char key[40], uid[20], body[80];
	int uid_n = snprintf(uid, sizeof(uid), "hero%u", t->giving ? t->to : t->from);
	int key_n = snprintf(key, sizeof(key), "t%" PRIu64 "-%u-%s", all.seed, t->number, t->giving ? "give" : "take");
	int n = snprintf(body, sizeof(body), "{\"uid\":\"%s\",\"gold\":%d}", uid, t->giving ? t->amount : -t->amount);
	struct rpc_call call = { .method = all.reward,
				 .to = { .worker = -1, .key = span_of(uid, (size_t)uid_n) },
				 .body = span_of(body, (size_t)n),
				 .json = true,
				 .timeout_ms = TIMEOUT_MS,
				 .once = span_of(key, (size_t)key_n),
				 .on_answer = on_answer,
				 .arg = t };

	all.asked++;
	t->sent_ns = clock_ns();
	rpc_call(all.worker, &call);
}

static void on_timer(struct timer *timer, uint64_t now_ms)
{
	(void)now_ms;
	ask((struct transfer *)((char *)timer - offsetof(struct transfer, timer)));
}

static void begin(struct transfer *t)
{
	if (all.begun == all.calls) {
		if (++all.idle == CHAINS)
			flag_raise(&all.finished);
		return;
	}
	all.begun += 2;
	t->number = all.begun / 2;
	t->from = draw(all.roles);
	t->to = (t->from + 1 + draw(all.roles - 1)) % all.roles;
	t->amount = 1 + (int)draw(5);
	t->giving = t->checking = false;
	loop_timer(all.worker->loop, &t->timer, draw(all.think_ms + 1));
}

static int caller_start(struct worker *w)
{
	static const char name[] = "role.roleRemote.reward";

	all.worker = w;
	all.reward = schema_method(w->service->schema, name, strlen(name));
	assert(all.reward && all.reward->kind == MSG_ONCE);
	all.tick.fire = on_tick;
	on_tick(&all.tick, 0);
	for (unsigned i = 0; i < CHAINS; i++) {
		all.chain[i].timer.fire = on_timer;
		begin(&all.chain[i]);
	}
	return 0;
}

static const struct service_def caller = { .name = "caller", .worker_start = caller_start };

static void on_stopped(void *arg, struct service *s)
{
	(void)s;
	flag_raise(arg);
}

static int report(unsigned cuts)
{
	for (unsigned i = 0; i < all.roles; i++)
		printf("role hero%u %" PRId64 "\n", i, all.gold[i]);
	for (int i = 1; i < 9; i++)
		if (all.ended[i])
			printf("ended %s %u\n", err_word(-i), all.ended[i]);
	if (*all.wrong)
		fprintf(stderr, "transfers: %s\n", all.wrong);
	printf("calls=%u asked=%u again=%u cuts=%u late_ms=%" PRIu64 " longest_ms=%" PRIu64 "\n", all.done, all.asked,
	       all.again, cuts, all.late_ns / 1000000, all.longest_ns / 1000000);
	return *all.wrong || all.done < all.calls;
}

int main(int argc, char **argv)
{
	struct proxy *proxy[PROXIES_MAX] = { NULL };
	struct flag stopped;
	char error[512];
	struct service *s;
	unsigned cuts = 0;

	if (argc < 8 || argc > 7 + PROXIES_MAX) {
		fprintf(stderr, "usage: transfers CONFIG SEED ROLES CALLS SECONDS BYTES_MAX LISTEN:TARGET...\n");
		return 2;
	}
	all.seed = strtoull(argv[2], NULL, 10);
	all.random = all.seed * 0x9e3779b97f4a7c15u + 1;
	all.roles = (unsigned)strtoul(argv[3], NULL, 10);
	all.calls = (unsigned)strtoul(argv[4], NULL, 10) & ~1u;
	time_t seconds = strtol(argv[5], NULL, 10);
	all.think_ms = 640u * CHAINS * (unsigned)seconds / all.calls /
		       3; /* on the average half of it: done in a tenth of the time */
	for (unsigned i = 0; i < all.roles && i < ROLES_MAX; i++)
		all.gold[i] = GOLD;
	for (int i = 7; i < argc; i++)
		proxy[i - 7] = proxy_new((uint16_t)strtoul(argv[i], NULL, 10),
					 (uint16_t)strtoul(strchr(argv[i], ':') + 1, NULL, 10),
					 strtoull(argv[6], NULL, 10), all.seed + (uint64_t)i);
	flag_init(&all.finished);
	flag_init(&stopped);
	struct service_options o = {
		.config_file = argv[1], .instance = "caller-1", .on_stopped = on_stopped, .arg = &stopped
	};
	time_t end = time(NULL) + seconds;

	if (service_start(env_new(), &caller, &o, error, sizeof(error), &s) < 0) {
		fprintf(stderr, "transfers: %s\n", error);
		return 2;
	}
	while (time(NULL) < end && !flag_wait_s(&all.finished, 1, 10)) {
	}
	service_stop(s);
	while (!flag_wait_s(&stopped, 1, 10)) {
	}
	service_free(s);
	for (int i = 0; i < PROXIES_MAX; i++) {
		cuts += proxy[i] ? proxy_cuts(proxy[i]) : 0;
		proxy_free(proxy[i]);
	}
	return report(cuts);
}
