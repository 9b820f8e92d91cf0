/*
 * loadgen: a load of pomelo clients from one thread of epoll, and what it cost.
 *
 * Closed loop (--outstanding K): each connection always has K requests under way. Open loop
 * (--rate R): each connection sends R requests a second, in turn, whatever the answers do; latency
 * counts from the intended time, so a stalled server is not excused. Every answer is looked at.
 *
 * In the window of --seconds it counts answers that arrived, and latencies of requests whose time
 * was in it; what is unanswered 5 s later is a timeout and enters the latencies with its age. SIGTERM ends the window early.
 * exit: 0, 1 if anything failed, 2 for a bad option or a dead server
 */
#include "tests/bench/player.h"

#include "tests/bench/cpu.h"
#include "tests/bench/hist.h"
#include "tests/bench/loadgen_options.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>

enum { DRAIN_S = 5, SWEEP_MS = 250 };

struct lane {              /* one request at a time; its id names the lane */
	uint32_t id, turn; /* id 0: free */
	uint64_t intended_ns;
};

struct load {
	struct options *o;
	int epoll;
	struct player *player;
	struct lane *lane;   /* lanes_each for each player */
	uint16_t *free_lane; /* a stack for each player */
	uint16_t *free_count;
	uint32_t lanes_each;
	int next, in_setup, ready, failed;
	char why[300];           /* the first failure, for people */
	uint64_t from_ns, to_ns; /* the window */
	uint64_t sent, unsent, answered, answered_in_window, refused, errors, timeouts, pushes;
	bool sending;
	uint64_t sweep_due_ns;
	struct cpu at_from, at_to; /* CPU times at the window's ends; clock_s 0: not taken */
	struct hist latency, late;
	uint8_t read[256 << 10];
};

static volatile sig_atomic_t enough;

static void on_term(int signo)
{
	(void)signo;
	enough = 1;
}

/* ---- requests and answers ---- */

static void note_failure(struct load *l, const struct player *p, const char *what, const void *text, size_t bytes)
{
	if (!l->why[0])
		snprintf(l->why, sizeof l->why, "connection %u, %s: %.*s", p->index, what,
			 (int)(bytes < 200 ? bytes : 200), (const char *)text);
}

static void send_request(struct load *l, struct player *p, uint64_t intended_ns)
{
	uint32_t base = p->index * l->lanes_each;
	if (p->stage != PLAYER_READY || !l->free_count[p->index]) {
		l->unsent++;
		return;
	}
	uint16_t i = l->free_lane[base + --l->free_count[p->index]];
	struct lane *lane = &l->lane[base + i];
	lane->id = ++lane->turn * l->lanes_each + i + 1;
	lane->intended_ns = intended_ns;
	player_request(p, lane->id, l->o->player.route, l->o->player.body);
	l->sent++;
}

/* The same text, or the same length (an equal object in another order), or a code 200. */
static bool right_answer(const struct load *l, const struct wire_message *m)
{
	const char *body = l->o->player.body;
	size_t bytes = strlen(body);
	double code;
	if (m->flag != WIRE_RESPONSE << 1)
		return false;
	if (m->body_bytes == bytes && memcmp(m->body, body, bytes) == 0)
		return true;
	if (peek_number(m->body, m->body_bytes, "code", &code))
		return code == 200;
	return m->body_bytes == bytes;
}

/* A clear no: the server has too much to do. */
static bool is_refusal(const struct load *l, const struct wire_message *m)
{
	double code;

	return l->o->busy && peek_number(m->body, m->body_bytes, "code", &code) && code == 429;
}

static void take_answer(struct load *l, struct player *p, const struct wire_message *m, uint64_t now)
{
	uint32_t base = p->index * l->lanes_each, i = (m->id - 1) % l->lanes_each;
	struct lane *lane = &l->lane[base + i];
	bool expected = m->id && lane->id == m->id, right = expected && right_answer(l, m);
	if (expected && !right && is_refusal(l, m)) {
		l->refused++;
	} else if (!right) {
		l->errors++;
		note_failure(l, p, "wrong answer", m->body, m->body_bytes);
	}
	if (!expected)
		return;
	l->answered++;
	if (right && now >= l->from_ns && now < l->to_ns)
		l->answered_in_window++;
	if (lane->intended_ns >= l->from_ns && lane->intended_ns < l->to_ns)
		hist_add(&l->latency, now - lane->intended_ns);
	lane->id = 0;
	l->free_lane[base + l->free_count[p->index]++] = (uint16_t)i;
	if (l->sending && l->o->rate <= 0)
		send_request(l, p, now);
}

/* ---- players ---- */

static void watch(struct load *l, struct player *p, int how)
{
	struct epoll_event e = { .data.ptr = p };
	e.events = p->waits_out ? EPOLLIN | EPOLLOUT : EPOLLIN;
	if (epoll_ctl(l->epoll, how, p->fd, &e) < 0)
		die("epoll_ctl: %s", strerror(errno));
}

static void fail_player(struct load *l, struct player *p, const char *why, size_t bytes)
{
	note_failure(l, p, player_stage_name(p), why, bytes);
	if (p->stage == PLAYER_READY)
		l->ready--;
	else
		l->in_setup--;
	player_close(p);
	p->stage = PLAYER_FAILED;
	l->failed++;
}

static void flush_player(struct load *l, struct player *p)
{
	if (!queue_flush(&p->out, p->fd)) {
		fail_player(l, p, strerror(errno), strlen(strerror(errno)));
		return;
	}
	bool rest = queue_bytes(&p->out) > 0;
	if (rest != p->waits_out) {
		p->waits_out = rest;
		watch(l, p, EPOLL_CTL_MOD);
	}
}

static void connect_player(struct load *l, struct player *p)
{
	if (player_connect(p, &l->o->player) < 0) {
		fail_player(l, p, "refused", 7);
		return;
	}
	watch(l, p, EPOLL_CTL_ADD);
}

/* One package; false: the player is closed now (or connects anew). */
static bool take_package(struct load *l, struct player *p, const uint8_t *bytes, size_t body_bytes, uint64_t now)
{
	struct wire_message m = { 0 };
	enum wire_package type = bytes[0];
	if (type == WIRE_DATA && !wire_read_message(bytes + WIRE_HEAD_BYTES, body_bytes, &m))
		type = 0;
	if (type == WIRE_DATA && m.type == WIRE_PUSH)
		l->pushes++;
	if (type == WIRE_DATA && m.type == WIRE_RESPONSE && p->stage == PLAYER_READY) {
		take_answer(l, p, &m, now);
		return true;
	}
	switch (player_take(p, &l->o->player, type, type == WIRE_DATA ? &m : NULL, bytes + WIRE_HEAD_BYTES, body_bytes,
			    now)) {
	case PLAYER_GOES_ON: return true;
	case PLAYER_IS_READY:
		l->in_setup--;
		l->ready++;
		return true;
	case PLAYER_MOVES:
		player_close(p);
		connect_player(l, p);
		return false;
	case PLAYER_FAILS: break;
	}
	fail_player(l, p, (const char *)bytes + WIRE_HEAD_BYTES, body_bytes);
	return false;
}

static bool take_packages(struct load *l, struct player *p, const uint8_t *read, size_t bytes, size_t *used)
{
	uint64_t now = now_ns();
	size_t at = 0;
	while (bytes - at >= WIRE_HEAD_BYTES) {
		size_t body = wire_body_bytes(read + at);
		if (WIRE_HEAD_BYTES + body > sizeof l->read) {
			fail_player(l, p, "a package too large", 19);
			return false;
		}
		if (bytes - at < WIRE_HEAD_BYTES + body)
			break;
		if (!take_package(l, p, read + at, body, now))
			return false;
		at += WIRE_HEAD_BYTES + body;
	}
	*used = at;
	return true;
}

/* Whole frames, each with whole packages in it, as the server promises; before the first the answer to the upgrade. */
static bool take_frames(struct load *l, struct player *p, size_t bytes, size_t *used)
{
	const char *end;
	size_t at = 0, inside;

	if (!p->upgraded) {
		if (!(end = memmem(l->read, bytes, "\r\n\r\n", 4)))
			return *used = 0, true;
		at = (size_t)(end + 4 - (char *)l->read);
		p->upgraded = true;
	}
	while (bytes - at >= 2) {
		size_t n = l->read[at + 1], head = n == 126 ? 4 : 2;
		if (n == 127 || (l->read[at] & 0x0f) != 2) {
			fail_player(l, p, "a WebSocket frame of another kind", 33);
			return false;
		}
		if (bytes - at < head)
			break;
		if (n == 126)
			n = (size_t)l->read[at + 2] << 8 | l->read[at + 3];
		if (bytes - at < head + n)
			break;
		if (!take_packages(l, p, l->read + at + head, n, &inside))
			return false;
		at += head + n;
	}
	*used = at;
	return true;
}

/* Reads all that is ready, answers, writes once. */
static void serve_player(struct load *l, struct player *p)
{
	size_t kept = queue_bytes(&p->in), used;
	if (kept)
		memcpy(l->read, p->in.p + p->in.off, kept);
	ssize_t n = recv(p->fd, l->read + kept, sizeof l->read - kept, 0);
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		fail_player(l, p, strerror(errno), strlen(strerror(errno)));
		return;
	}
	if (n == 0) {
		fail_player(l, p, "closed by the server", 20);
		return;
	}
	if (n > 0) {
		size_t all = kept + (size_t)n;
		if (!(p->framed ? take_frames(l, p, all, &used) : take_packages(l, p, l->read, all, &used)))
			return;
		p->in.off = p->in.len = 0;
		if (used < kept + (size_t)n)
			queue_add(&p->in, l->read + used, kept + (size_t)n - used);
	}
	if (queue_bytes(&p->out) || p->waits_out)
		flush_player(l, p);
}

static void serve(struct load *l, int wait_ms)
{
	struct epoll_event events[1024];
	int count = epoll_wait(l->epoll, events, 1024, wait_ms);
	for (int i = 0; i < count; i++)
		serve_player(l, events[i].data.ptr);
}

/* Reads the CPU times at the window's start, and sends the heartbeats that are due. */
static void keep_time(struct load *l, uint64_t now)
{
	if (l->from_ns && now >= l->from_ns && l->at_from.clock_s == 0)
		l->at_from = cpu_now(l->o->pids, l->o->pid_count);
	if (now < l->sweep_due_ns)
		return;
	l->sweep_due_ns = now + SWEEP_MS * UINT64_C(1000000);
	for (int i = 0; i < l->next; i++)
		if (l->player[i].fd >= 0 && player_heartbeat(&l->player[i], now))
			flush_player(l, &l->player[i]);
}

/* ---- the run ---- */

static void set_up(struct load *l)
{
	uint64_t end = now_ns() + (uint64_t)(l->o->setup_s * 1e9);
	while (l->ready + l->failed < l->o->connections && !l->failed) {
		while (l->in_setup < l->o->ramp && l->next < l->o->connections && !l->failed) {
			l->in_setup++;
			connect_player(l, &l->player[l->next++]);
		}
		serve(l, 100);
		keep_time(l, now_ns());
		if (now_ns() > end)
			die("loadgen: only %d of %d connections were ready in %g s", l->ready, l->o->connections,
			    l->o->setup_s);
	}
	if (l->failed)
		die("loadgen: %s", l->why);
}

static void run_closed(struct load *l, uint64_t end)
{
	for (int i = 0; i < l->o->connections; i++) {
		for (int k = 0; k < l->o->outstanding; k++)
			send_request(l, &l->player[i], now_ns());
		if (l->player[i].fd >= 0)
			flush_player(l, &l->player[i]);
	}
	for (uint64_t now = now_ns(); now < end && l->ready && !enough; now = now_ns()) {
		serve(l, 1 + (int)((end - now) / 1000000 < SWEEP_MS ? (end - now) / 1000000 : SWEEP_MS));
		keep_time(l, now);
	}
}

/* Sends what is due by now; request n of all is intended at start + n / (rate of all). */
static void send_due(struct load *l, uint64_t start, double each_ns, uint64_t *n, uint64_t end)
{
	uint64_t now = now_ns();
	for (;; (*n)++) {
		uint64_t intended = start + (uint64_t)((double)*n * each_ns);
		if (intended > now || intended >= end)
			return;
		struct player *p = &l->player[*n % (uint64_t)l->o->connections];
		send_request(l, p, intended);
		if (p->fd >= 0)
			flush_player(l, p);
		if (intended >= l->from_ns)
			hist_add(&l->late, now_ns() - intended);
	}
}

static void run_open(struct load *l, uint64_t end)
{
	struct timespec rest = { .tv_nsec = l->o->rest_us * 1000L };
	uint64_t n = 0, start = now_ns();
	double each_ns = 1e9 / (l->o->rate * l->o->connections);
	for (uint64_t now = start; now < end && l->ready && !enough; now = now_ns()) {
		send_due(l, start, each_ns, &n, end);
		serve(l, 0);
		keep_time(l, now);
		if (rest.tv_nsec)
			nanosleep(&rest, NULL);
	}
}

static uint64_t busy_lanes(struct load *l, bool count_timeouts)
{
	uint64_t busy = 0, now = now_ns();
	for (uint32_t i = 0; i < (uint32_t)l->o->connections * l->lanes_each; i++) {
		struct lane *lane = &l->lane[i];
		if (!lane->id)
			continue;
		busy++;
		if (!count_timeouts)
			continue;
		l->timeouts++;
		if (lane->intended_ns >= l->from_ns && lane->intended_ns < l->to_ns)
			hist_add(&l->latency, now - lane->intended_ns);
	}
	return busy;
}

static void drain(struct load *l)
{
	uint64_t end = now_ns() + DRAIN_S * UINT64_C(1000000000);
	l->sending = false;
	while (now_ns() < end && l->ready && busy_lanes(l, false)) {
		serve(l, 10);
		keep_time(l, now_ns());
	}
	busy_lanes(l, true);
}

static void make_lanes(struct load *l)
{
	struct options *o = l->o;
	/* In the open loop room for all that one connection will ever send. */
	double open = o->rate * (o->warmup + o->seconds) + 2;
	if (open > UINT16_MAX)
		die("loadgen: at most %d requests per connection in the open loop", UINT16_MAX);
	l->lanes_each = o->rate > 0 ? (uint32_t)open : (uint32_t)o->outstanding;
	size_t all = (size_t)o->connections * l->lanes_each;
	l->lane = calloc(all, sizeof *l->lane);
	l->free_lane = calloc(all, sizeof *l->free_lane);
	l->free_count = calloc((size_t)o->connections, sizeof *l->free_count);
	if (!l->lane || !l->free_lane || !l->free_count)
		die("no memory for %zu requests", all);
	for (size_t i = 0; i < all; i++)
		l->free_lane[i] = (uint16_t)(l->lanes_each - 1 - i % l->lanes_each);
	for (int i = 0; i < o->connections; i++)
		l->free_count[i] = (uint16_t)l->lanes_each;
}

static void make_players(struct load *l)
{
	l->player = calloc((size_t)l->o->connections, sizeof *l->player);
	if (!l->player)
		die("no memory for %d players", l->o->connections);
	for (int i = 0; i < l->o->connections; i++)
		l->player[i] = (struct player){ .index = (uint32_t)i, .fd = -1 };
}

/* ---- the report ---- */

struct figures {
	double rate, p50, p99, p999, max, late99, server_us, server_cores, own_cores, other_cores;
	uint64_t failures;
};

static struct figures figures(const struct load *l)
{
	const struct cpu *a = &l->at_from, *b = &l->at_to;
	double seconds = b->clock_s - a->clock_s, server = b->server_s - a->server_s;
	double own = b->own_s - a->own_s, all = b->machine_s - a->machine_s;
	double other = all > own + server ? all - own - server : 0;
	return (struct figures){
		.rate = (double)l->answered_in_window / l->o->seconds,
		.p50 = (double)hist_quantile(&l->latency, 0.5) / 1e3,
		.p99 = (double)hist_quantile(&l->latency, 0.99) / 1e3,
		.p999 = (double)hist_quantile(&l->latency, 0.999) / 1e3,
		.max = (double)l->latency.max / 1e3,
		.late99 = (double)hist_quantile(&l->late, 0.99) / 1e3,
		.server_us = l->answered_in_window ? server * 1e6 / (double)l->answered_in_window : 0,
		.server_cores = server / seconds,
		.own_cores = own / seconds,
		.other_cores = other / seconds,
		.failures = l->errors + l->timeouts + l->unsent + (uint64_t)l->failed,
	};
}

static void report(const struct load *l, const struct figures *f)
{
	FILE *people = l->o->json ? stderr : stdout;
	fprintf(people,
		"%s: %.0f answers/s  p50 %.0f us  p99 %.0f us  p99.9 %.0f us  max %.0f us  "
		"server %.2f us/answer, %.2f cores  generator %.2f cores  other %.2f cores  "
		"refused %llu errors %llu timeouts %llu unsent %llu failed %d\n",
		l->o->player.route, f->rate, f->p50, f->p99, f->p999, f->max, f->server_us, f->server_cores,
		f->own_cores, f->other_cores, (unsigned long long)l->refused, (unsigned long long)l->errors,
		(unsigned long long)l->timeouts, (unsigned long long)l->unsent, l->failed);
	if (f->failures)
		fprintf(stderr, "loadgen: the first failure: %s\n", l->why[0] ? l->why : "a timeout");
	if (!l->o->json)
		return;
	printf("{\"route\":\"%s\",\"connections\":%d,\"answers_per_s\":%.1f,\"p50_us\":%.1f,"
	       "\"p99_us\":%.1f,\"p999_us\":%.1f,\"max_us\":%.1f,\"late_p99_us\":%.1f,"
	       "\"server_cpu_us\":%.3f,\"server_cores\":%.3f,\"generator_cores\":%.3f,"
	       "\"other_cores\":%.3f,\"sent\":%llu,\"answered\":%llu,\"pushes\":%llu,\"refused\":%llu,\"errors\":%llu,"
	       "\"timeouts\":%llu,\"unsent\":%llu,\"failed\":%d}\n",
	       l->o->player.route, l->o->connections, f->rate, f->p50, f->p99, f->p999, f->max, f->late99, f->server_us,
	       f->server_cores, f->own_cores, f->other_cores, (unsigned long long)l->sent,
	       (unsigned long long)l->answered, (unsigned long long)l->pushes, (unsigned long long)l->refused,
	       (unsigned long long)l->errors, (unsigned long long)l->timeouts, (unsigned long long)l->unsent,
	       l->failed);
}

/* The window begins after the warm-up, and the load ends with it. */
static void run_load(struct load *l)
{
	struct options *o = l->o;
	l->from_ns = now_ns() + (uint64_t)(o->warmup * 1e9);
	l->to_ns = l->from_ns + (uint64_t)(o->seconds * 1e9);
	l->sending = true;
	if (o->rate > 0)
		run_open(l, l->to_ns);
	else
		run_closed(l, l->to_ns);
	l->at_to = cpu_now(o->pids, o->pid_count);
	if (enough) {
		uint64_t now = now_ns();

		l->to_ns = now > l->from_ns ? now : l->from_ns + 1;
		o->seconds = (double)(l->to_ns - l->from_ns) / 1e9;
	}
	drain(l);
	if (!l->ready)
		die("loadgen: no connection was left; the first failure: %s", l->why);
}

int main(int argc, char **argv)
{
	struct options o = {
		.player = { .host = "127.0.0.1",
			    .route = "connector.entryHandler.echo",
			    .body = "{\"x\":1234,\"y\":5678}",
			    .name = "bench",
			    .rid = "bench" },
		.connections = 500,
		.outstanding = 1,
		.ramp = 64,
		.rest_us = 50,
		.seconds = 10,
		.warmup = 2,
		.setup_s = 60,
	};
	struct load *l = calloc(1, sizeof *l);
	take_options(&o, argc, argv);
	check_options(&o);
	if (!l)
		die("no memory");
	net_raise_files();
	prctl(PR_SET_TIMERSLACK, 1); /* the rest between polls is 50 us, not 100 */
	signal(SIGTERM, on_term);
	l->o = &o;
	l->epoll = epoll_create1(EPOLL_CLOEXEC);
	make_players(l);
	make_lanes(l);
	set_up(l);
	run_load(l);
	struct figures f = figures(l);
	report(l, &f);
	return f.failures ? 1 : 0;
}
