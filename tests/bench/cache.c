/*
 * cache: what a get and a put of the cache cost at a million entries, what an entry takes beside its key and value, and
 * how many gets SIEVE answers beside LRU with the same room.
 *
 * The skewed trace is as a game's: a tenth of 200,000 things has room, most gets are for few of them (Zipf, 1.0), and now
 * and then somebody goes through many that nobody asks for again (a ranking, a search), half of a block in four.
 *
 * Beside Redis the work is the same on both sides: both hold the million pairs, and are asked for keys at random (what is
 * asked for is in no processor's cache), and for one key again and again. A GET is above all two wake-ups, and where the
 * two programs run says what these cost: so both ways are measured, a core for each of them, and one core for both. Who
 * starts Redis puts it on core 1.
 *
 * usage: cache [--redis PORT]      also one GET after the other, over loopback; prints one JSON object
 */
#include <arpa/inet.h>
#include <math.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/cache.h"
#include "tests/bench/core.h"
#include "tests/bench/pairs.h"

enum { REDIS_GETS = 5000, OWN_CORE = 0, REDIS_CORE = 1 };
enum { THINGS = 200000, ROOM = THINGS / 10, GETS = 2000000, WARM = GETS / 4, BLOCK = 50000 };

static void fail(const char *why)
{
	fprintf(stderr, "cache: %s\n", why);
	exit(2);
}

struct figures {
	double get_ns, hot_get_ns, put_ns, overhead_bytes;
};

/* ---- the cost of a call ------------------------------------------------------------------------------------------ */

static struct figures run_calls(struct env *env, const struct pairs *p)
{
	struct figures f;
	struct wheel *w = wheel_new(0);
	struct cache *c = cache_new(env, (size_t)PAIRS * 150, w);
	char value[VALUE_BYTES] = "a value";
	uint64_t sum = 0;
	size_t n;
	for (uint32_t i = 0; i < PAIRS; i++)
		cache_put(c, p->key[i], KEY_BYTES, value, VALUE_BYTES, NULL);
	double from = cpu_ns();
	for (uint32_t i = 0; i < PAIRS; i++)
		sum += (unsigned char)*(const char *)cache_get(c, p->asked[i], KEY_BYTES, &n);
	f.get_ns = (cpu_ns() - from) / PAIRS;
	from = cpu_ns();
	for (uint32_t i = 0; i < PAIRS; i++)
		sum += (unsigned char)*(const char *)cache_get(c, p->key[0], KEY_BYTES, &n);
	f.hot_get_ns = (cpu_ns() - from) / PAIRS;
	from = cpu_ns();
	for (uint32_t i = 0; i < PAIRS; i++)
		cache_put(c, p->asked[i], KEY_BYTES, value, VALUE_BYTES, NULL);
	f.put_ns = (cpu_ns() - from) / PAIRS;
	if (sum != (uint64_t)'a' * PAIRS * 2)
		fail("a value is wrong");
	cache_free(c);
	wheel_free(w);
	return f;
}

/* Of a cache that is full, with values of 84 to 116 bytes: that a length suits the rounding is not counted on. */
static double overhead(struct env *env, const struct pairs *p)
{
	struct wheel *w = wheel_new(0);
	struct cache *c = cache_new(env, 64 << 20, w);
	struct cache_stats s = { 0 };
	char value[116] = "";
	double payload = 0;
	for (uint32_t i = 0; i < PAIRS && !s.evicted; i++) {
		size_t n = 84 + i * 7 % 33;
		cache_put(c, p->key[i], KEY_BYTES, value, n, NULL);
		payload += (double)(KEY_BYTES + n);
		cache_stats(c, &s);
	}
	cache_free(c);
	wheel_free(w);
	return ((double)s.bytes_max - payload) / (double)s.entries;
}

/* ---- the skewed trace ---------------------------------------------------------------------------------------------- */

static uint32_t *make_trace(void)
{
	uint32_t *trace = malloc(GETS * sizeof *trace);
	double *sum = malloc((THINGS + 1) * sizeof *sum);
	uint64_t seed = 4711;
	if (!trace || !sum)
		fail("no memory");
	sum[0] = 0;
	for (uint32_t i = 0; i < THINGS; i++)
		sum[i + 1] = sum[i] + 1.0 / (i + 1);
	for (uint32_t i = 0; i < GETS; i++) {
		if (i / BLOCK % 4 == 3 && i % 2) {
			trace[i] = THINGS + i; /* the walk */
			continue;
		}
		double x = chance(&seed, UINT32_MAX) / (double)UINT32_MAX * sum[THINGS];
		uint32_t low = 0, high = THINGS - 1;
		while (low < high) {
			uint32_t middle = (low + high) / 2;
			if (sum[middle + 1] < x)
				low = middle + 1;
			else
				high = middle;
		}
		trace[i] = low;
	}
	free(sum);
	return trace;
}

/* A cache with room for `room` of the trace's entries, as exactly as bytes allow. */
static double sieve_rate(struct env *env, const uint32_t *trace, size_t bytes, uint64_t *entries)
{
	struct wheel *w = wheel_new(0);
	struct cache *c = cache_new(env, bytes, w);
	struct cache_stats s;
	char value[VALUE_BYTES] = "";
	uint64_t hits = 0;
	size_t n;
	for (uint32_t i = 0; i < GETS; i++) {
		char key[KEY_BYTES] = "";
		memcpy(key, &trace[i], sizeof trace[i]);
		if (cache_get(c, key, KEY_BYTES, &n))
			hits += i >= WARM;
		else
			cache_put(c, key, KEY_BYTES, value, VALUE_BYTES, NULL);
	}
	cache_stats(c, &s);
	*entries = s.entries;
	cache_free(c);
	wheel_free(w);
	return (double)hits / (GETS - WARM);
}

/* LRU of as many entries: a ring of numbers, the newest behind the head. */
static double lru_rate(const uint32_t *trace, uint64_t room)
{
	struct node {
		uint32_t next, prev;
	} *node = calloc(THINGS + GETS + 1, sizeof *node); /* node i + 1 is thing i, 0 the head */
	uint64_t hits = 0, there = 0;
	if (!node)
		fail("no memory");
	for (uint32_t i = 0; i < GETS; i++) {
		uint32_t at = trace[i] + 1;
		bool hit = node[at].next || node[at].prev || node[0].next == at;
		if (!hit && there == room) {
			uint32_t last = node[0].prev;
			node[node[last].prev].next = 0;
			node[0].prev = node[last].prev;
			node[last] = (struct node){ 0, 0 };
		} else {
			there += !hit;
		}
		if (hit) {
			node[node[at].prev].next = node[at].next;
			node[node[at].next].prev = node[at].prev;
		}
		node[at] = (struct node){ .next = node[0].next };
		node[node[0].next].prev = at;
		node[0].next = at;
		hits += hit && i >= WARM;
	}
	free(node);
	return (double)hits / (GETS - WARM);
}

/* ---- redis ------------------------------------------------------------------------------------------------------------ */

static void talk(int fd, const char *request, size_t n, size_t answer_bytes)
{
	char answer[512];
	if (send(fd, request, n, 0) != (ssize_t)n)
		fail("redis does not take a request");
	for (size_t got = 0; got < answer_bytes;) {
		ssize_t more = recv(fd, answer, sizeof answer, 0);
		if (more <= 0 || answer[0] == '-')
			fail("redis gives no answer");
		got += (size_t)more;
	}
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static const char set_head[] = "*3\r\n$3\r\nSET\r\n$16\r\n", set_middle[] = "\r\n$100\r\n", set_end[] = "\r\n";
enum { SET_BYTES = sizeof set_head + KEY_BYTES + sizeof set_middle + VALUE_BYTES + sizeof set_end, SETS = 500 };

/* All pairs; SETS of them at a time, then their answers. */
static void redis_fill(int fd, const struct pairs *p)
{
	static char sets[SETS * SET_BYTES];
	for (uint32_t i = 0; i < PAIRS; i += SETS) {
		char *o = sets;
		for (uint32_t k = i; k < i + SETS; k++) {
			o = mempcpy(o, set_head, sizeof set_head - 1);
			o = mempcpy(o, p->key[k], KEY_BYTES);
			o = mempcpy(o, set_middle, sizeof set_middle - 1);
			memset(o, 'a', VALUE_BYTES);
			o = mempcpy(o + VALUE_BYTES, set_end, sizeof set_end - 1);
		}
		talk(fd, sets, (size_t)(o - sets), SETS * strlen("+OK\r\n"));
	}
}

/* One GET of 100 bytes, the middle one of many; wall time, for that is what a caller waits. */
static double redis_get_ns(int fd, const struct pairs *p, bool hot)
{
	static double took[REDIS_GETS];
	char get[] = "*2\r\n$3\r\nGET\r\n$16\r\n0123456789abcdef\r\n";
	for (unsigned i = 0; i < REDIS_GETS; i++) {
		struct timespec a, b;
		memcpy(get + sizeof get - 1 - 2 - KEY_BYTES, hot ? p->key[0] : p->asked[i], KEY_BYTES);
		clock_gettime(CLOCK_MONOTONIC, &a);
		talk(fd, get, sizeof get - 1, strlen("$100\r\n") + VALUE_BYTES + 2);
		clock_gettime(CLOCK_MONOTONIC, &b);
		took[i] = (double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec);
	}
	qsort(took, REDIS_GETS, sizeof *took, by_value);
	return took[REDIS_GETS / 2];
}

static int redis_connect(int port)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
		fail("redis does not listen");
	return fd;
}

struct redis_figures {
	double get_ns, hot_get_ns, one_core_get_ns;
};

static struct redis_figures run_redis(int port, const struct pairs *p)
{
	struct redis_figures f;
	run_on(OWN_CORE);
	int fd = redis_connect(port);
	redis_fill(fd, p);
	f.get_ns = redis_get_ns(fd, p, false);
	f.hot_get_ns = redis_get_ns(fd, p, true);
	run_on(REDIS_CORE);
	f.one_core_get_ns = redis_get_ns(fd, p, false);
	close(fd);
	return f;
}

int main(int argc, char **argv)
{
	int port = argc == 3 && !strcmp(argv[1], "--redis") ? atoi(argv[2]) : 0;
	if (argc != 1 && !port)
		fail("usage: cache [--redis PORT]");
	struct env *env = env_new();
	struct pairs *p = pairs_new();
	struct figures f = run_calls(env, p);
	f.overhead_bytes = overhead(env, p);
	struct redis_figures redis = { 0 };
	if (port)
		redis = run_redis(port, p);
	free(p);
	uint32_t *trace = make_trace();
	uint64_t room;
	double sieve = sieve_rate(env, trace, (size_t)ROOM * 140, &room), lru = lru_rate(trace, room);
	free(trace);
	env_free(env);
	printf("{\"get_ns\":%.1f,\"hot_get_ns\":%.1f,\"put_ns\":%.1f,\"overhead_bytes\":%.2f,\"sieve_percent\":%.2f,"
	       "\"lru_percent\":%.2f,\"room\":%llu,\"redis_get_ns\":%.0f,\"redis_hot_get_ns\":%.0f,"
	       "\"redis_one_core_get_ns\":%.0f}\n",
	       f.get_ns, f.hot_get_ns, f.put_ns, f.overhead_bytes, sieve * 100, lru * 100, (unsigned long long)room,
	       redis.get_ns, redis.hot_get_ns, redis.one_core_get_ns);
	return 0;
}
