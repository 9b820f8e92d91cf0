#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "common/env_sim_private.h"
/*
 * Memory at fixed addresses. A slot is 4 GiB of address space: 1 GiB for blocks, 2 GiB for huge ones, then
 * the stacks of its fibers. A heap is a bump pointer and free lists by size; the same calls give the same
 * addresses, and each block comes filled with a pattern, so that code which reads what it never wrote repeats its
 * mistake as well. Huge ones come from the system anew after each reset, zeroed: filling many megabytes of
 * which a short seed uses a page would be most of its cost.
 */
#define BASE       0x100000000000ull
#define SLOT_SHIFT 32
#define HEAP_BYTES (1ull << 30)
#define HUGE_AT    HEAP_BYTES
#define HUGE_BYTES (2ull << 30)
#define HUGE       (2u << 20)
#define SHARED_MIN (256u << 10)
#define STACKS_AT  (HUGE_AT + HUGE_BYTES)
#define SMALL      1024 /* up to here a list per 16 bytes */
#define SMALL_N    (SMALL / 16 + 1)
#define LARGE_N    (4 * 24) /* above: four per power of two */
#define FILL       0xA5
#define LIVE       0x51u
#define INNER      0xA1u /* an aligned address inside a block: bytes_16 leads back to the block */
#define FREED      0xF1u

struct header {            /* the 8 bytes before a block; blocks are aligned to 16 */
	uint32_t bytes_16; /* capacity / 16 */
	uint32_t mark;
};
struct region {
	char *base;
	size_t used, huge_used;
	pid_t pid;        /* whose pages they are */
	uint64_t guarded; /* bitmap of stacks whose lower end is guarded */
	void *small[SMALL_N], *large[LARGE_N];
};
_Static_assert(sizeof(struct header) == 8, "blocks stay aligned");

/* The only globals of the simulation: malloc has no other way to know whose memory is meant. */
static struct region regions[SIM_SLOTS];
static struct region *current;

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void __real_free(void *p);
int __real_posix_memalign(void **out, size_t align, size_t n);
time_t __real_time(time_t *out);
clock_t __real_clock(void);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_reallocarray(void *p, size_t n, size_t size);
void __wrap_free(void *p);
char *__wrap_strdup(const char *s);
char *__wrap_strndup(const char *s, size_t n);
int __wrap_posix_memalign(void **out, size_t align, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);
time_t __wrap_time(time_t *out);
clock_t __wrap_clock(void);

static _Noreturn void give_up(const char *what)
{
	fprintf(stderr, "env_sim: %s: %s\n", what, strerror(errno));
	abort();
}

static void map(unsigned slot)
{
	char *at = (char *)(BASE + ((uint64_t)slot << SLOT_SHIFT));
	void *got = mmap(at, 1ull << SLOT_SHIFT, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	if (got != at)
		give_up("cannot map a region at its fixed address");
	madvise(at, HEAP_BYTES, MADV_HUGEPAGE); /* where the system can: fewer page faults after a fork */
	regions[slot].base = at;
	regions[slot].pid = getpid();
}

struct region *region_get(unsigned slot)
{
	if (!regions[slot].base)
		map(slot);
	return &regions[slot];
}

void region_reset(struct region *r)
{
	/* Pages shared with the process we were forked from would be copied one by one, only to be overwritten. */
	if (r->used > SHARED_MIN && r->pid != getpid() &&
	    madvise(r->base, (r->used + 4095) & ~4095ull, MADV_DONTNEED) < 0)
		give_up("cannot reset a region");
	r->pid = getpid();
	r->used = 0;
	if (r->huge_used && madvise(r->base + HUGE_AT, (r->huge_used + 4095) & ~4095ull, MADV_DONTNEED) < 0)
		give_up("cannot reset a region");
	r->huge_used = 0;
	memset(r->small, 0, sizeof(r->small));
	memset(r->large, 0, sizeof(r->large));
}

char *region_stack(unsigned slot, unsigned index)
{
	struct region *r = region_get(slot);
	char *at = r->base + STACKS_AT + (uint64_t)index * SIM_STACK_BYTES;
	if (!(r->guarded >> index & 1) && mprotect(at, SIM_GUARD_BYTES, PROT_NONE) < 0)
		give_up("cannot guard a stack");
	r->guarded |= 1ull << index;
	return at + SIM_GUARD_BYTES;
}

struct region *region_enter(struct region *r)
{
	struct region *was = current;
	current = r;
	return was;
}

/* The list a request belongs to and the capacity its blocks have: 16k + 8, so that header and block fill 16s. */
static void **class_of(struct region *r, size_t n, size_t *bytes)
{
	size_t b = n <= 24 ? 24 : ((n - 8 + 15) & ~(size_t)15) + 8;
	if (b <= SMALL) {
		*bytes = b;
		return &r->small[b / 16];
	}
	unsigned log = 63 - (unsigned)__builtin_clzll(b - 9);
	size_t quarter = (size_t)1 << (log - 2);
	size_t up = (b - 8 + quarter - 1) & ~(quarter - 1);
	log = 63 - (unsigned)__builtin_clzll(up);
	*bytes = up + 8;
	return &r->large[(log - 10) * 4 + ((up >> (log - 2)) & 3)];
}

static struct header *header_of(void *p)
{
	return (struct header *)((char *)p - 8);
}

static size_t capacity(void *p)
{
	return (size_t)header_of(p)->bytes_16 * 16 + 8;
}

/* A block never used since the reset, of so many bytes behind its header; NULL: the region is full. */
static char *bump(struct region *r, size_t bytes)
{
	bool huge = bytes >= HUGE;
	size_t *used = huge ? &r->huge_used : &r->used;
	if (*used + bytes + 16 > (huge ? HUGE_BYTES : HEAP_BYTES)) {
		errno = ENOMEM;
		return NULL;
	}
	if (*used == 0)
		*used = 8; /* so that blocks are at 16k */
	*used += bytes + 8;
	return r->base + (huge ? HUGE_AT : 0) + *used - bytes;
}

static void *take(struct region *r, size_t n, bool *fresh)
{
	size_t bytes;
	if (n > HUGE_BYTES / 2)
		return NULL;
	void **list = class_of(r, n, &bytes), *p = *list;
	*fresh = !p;
	if (p)
		memcpy(list, p, sizeof(*list));
	else if (!(p = bump(r, bytes)))
		return NULL;
	header_of(p)->bytes_16 = (uint32_t)((bytes - 8) / 16);
	header_of(p)->mark = LIVE;
	return p;
}

void *region_alloc(struct region *r, size_t n)
{
	bool fresh;
	void *p = take(r, n, &fresh);
	return p && n < HUGE ? memset(p, FILL, capacity(p)) : p;
}

void *region_zalloc(struct region *r, size_t n)
{
	bool fresh;
	void *p = take(r, n, &fresh);
	return p && !(fresh && n >= HUGE) ? memset(p, 0, n) : p;
}

static struct region *region_of(const void *p)
{
	uint64_t at = (uint64_t)(uintptr_t)p;
	return at < BASE || at >= BASE + ((uint64_t)SIM_SLOTS << SLOT_SHIFT) ? NULL
									     : &regions[(at - BASE) >> SLOT_SHIFT];
}

/* The block that p, as malloc's family gave it out, lies in. */
static void *block_of(void *p)
{
	return header_of(p)->mark == INNER ? (char *)p - (size_t)header_of(p)->bytes_16 * 16 : p;
}

void region_free(void *p)
{
	struct region *r = region_of(p);
	size_t bytes;
	p = block_of(p);
	if (header_of(p)->mark != LIVE) {
		fprintf(stderr, "env_sim: free of %p, which is not a living block\n", p);
		abort();
	}
	header_of(p)->mark = FREED;
	void **list = class_of(r, capacity(p), &bytes);
	memset(p, FILL, capacity(p) < 256 ? capacity(p) : 256);
	memcpy(p, list, sizeof(*list));
	*list = p;
}

void *region_realloc(struct region *r, void *p, size_t n)
{
	size_t had = capacity(block_of(p)) - (size_t)((char *)p - (char *)block_of(p));
	if (n <= had && n * 4 >= had)
		return p;
	void *q = region_alloc(r, n);
	if (q) {
		memcpy(q, p, had < n ? had : n);
		region_free(p);
	}
	return q;
}

/* ---- the world's own --------------------------------------------------------------------------------- */

void *w_alloc(size_t n)
{
	void *p = region_zalloc(region_get(SIM_WORLD_SLOT), n);
	if (!p)
		give_up("the world is out of memory");
	return p;
}

void *w_realloc(void *p, size_t n)
{
	void *q = p ? region_realloc(region_get(SIM_WORLD_SLOT), p, n) : w_alloc(n);
	if (!q)
		give_up("the world is out of memory");
	return q;
}

char *w_strdup(const char *s)
{
	size_t n = strlen(s) + 1;
	return memcpy(w_alloc(n), s, n);
}

void w_free(void *p)
{
	if (p)
		region_free(p);
}

/* ---- what malloc and its family become ------------------------------------------------------------------ */

void *__wrap_malloc(size_t n)
{
	return current ? region_alloc(current, n) : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
	size_t bytes;
	if (!current)
		return __real_calloc(n, size);
	if (__builtin_mul_overflow(n, size, &bytes))
		return NULL;
	return region_zalloc(current, bytes);
}

/* A block stays where it was made: in a region even when somebody outside grows it, and the other way round. */
void *__wrap_realloc(void *p, size_t n)
{
	struct region *r = p ? region_of(p) : NULL;
	if (!p)
		return __wrap_malloc(n);
	if (!r)
		return __real_realloc(p, n);
	if (n == 0) {
		region_free(p);
		return NULL;
	}
	return region_realloc(r, p, n);
}

void *__wrap_reallocarray(void *p, size_t n, size_t size)
{
	size_t bytes;
	if (__builtin_mul_overflow(n, size, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	return __wrap_realloc(p, bytes);
}

void __wrap_free(void *p)
{
	if (!p)
		return;
	if (region_of(p))
		region_free(p);
	else
		__real_free(p);
}

static char *copy_text(const char *s, size_t n)
{
	char *p = __wrap_malloc(n + 1);
	if (p) {
		memcpy(p, s, n);
		p[n] = '\0';
	}
	return p;
}

char *__wrap_strndup(const char *s, size_t n)
{
	return copy_text(s, strnlen(s, n));
}
char *__wrap_strdup(const char *s)
{
	return copy_text(s, strlen(s));
}

int __wrap_posix_memalign(void **out, size_t align, size_t n)
{
	if (!current)
		return __real_posix_memalign(out, align, n);
	char *block = region_alloc(current, n + (align > 16 ? align : 0));
	if (!block)
		return ENOMEM;
	char *p = align > 16 ? (char *)(((uintptr_t)block + align - 1) & ~(uintptr_t)(align - 1)) : block;
	if (p != block)
		*header_of(p) = (struct header){ (uint32_t)((p - block) / 16), INNER };
	*out = p;
	return 0;
}

void *__wrap_aligned_alloc(size_t align, size_t n)
{
	void *p;
	return __wrap_posix_memalign(&p, align, n) == 0 ? p : NULL;
}

/* Lua seeds its tables' order and its random numbers from these. */
time_t __wrap_time(time_t *out)
{
	struct sim *w = sim_current();
	struct env *env = w ? w_env(w) : NULL;
	if (!env)
		return __real_time(out);
	time_t t = (time_t)(env_wall_us(env) / 1000000);
	if (out)
		*out = t;
	return t;
}

clock_t __wrap_clock(void)
{
	struct sim *w = sim_current();
	struct env *env = w ? w_env(w) : NULL;
	return env ? (clock_t)(env_mono_ns(env) / 1000) : __real_clock();
}
