#include "common/metrics.h"
#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/*
 * Families and series hang in hash tables of lists that only grow, so readers walk them without a lock. A worker
 * looks only for its own series, which nobody else makes: only families can be made by two at once.
 */
enum { FAMILIES = 256, SERIES = 1024, LABELS_MAX = 8, HIST_BUCKETS = 27 * 16 };

/* The buckets Prometheus sees: their counts are kept exactly, apart from the log-linear ones. */
static const struct {
	uint64_t ns;
	const char *le;
} edges[] = {
	{ 50000, "5e-05" },      { 100000, "0.0001" },   { 250000, "0.00025" }, { 500000, "0.0005" },
	{ 1000000, "0.001" },    { 2500000, "0.0025" },  { 5000000, "0.005" },  { 10000000, "0.01" },
	{ 25000000, "0.025" },   { 50000000, "0.05" },   { 100000000, "0.1" },  { 250000000, "0.25" },
	{ 500000000, "0.5" },    { 1000000000, "1.0" },  { 2500000000, "2.5" }, { 5000000000, "5.0" },
	{ 10000000000, "10.0" }, { UINT64_MAX, "+Inf" },
};
enum { EDGES = sizeof edges / sizeof *edges };

struct series_hist {
	_Atomic uint64_t count, sum_ns, max_ns;
	_Atomic uint64_t edge[EDGES];
	_Atomic uint64_t bucket[HIST_BUCKETS];
};

struct metric {
	struct metric *next; /* in its hash list */
	struct family *family;
	unsigned worker;
	_Atomic uint64_t value;
	struct series_hist *hist;
	const char *values[LABELS_MAX]; /* copies */
};

struct family {
	struct family *next;
	enum metric_type type;
	unsigned labels_n;
	char *name, *help, *labels;
};

struct computed { /* a figure that lives elsewhere */
	struct computed *next;
	enum metric_type type;
	char *name, *help;
	int64_t (*fn)(void *arg);
	void *arg;
};

struct metrics {
	char *instance;
	_Atomic(struct computed *) computed;
	_Atomic(struct family *) families[FAMILIES];
	_Atomic(struct metric *) series[SERIES];
};

/* ---- making and finding ---------------------------------------------------------------------------------- */

static void *make(size_t n)
{
	void *p = calloc(1, n);
	if (!p)
		abort();
	return p;
}

static char *copy(const char *text)
{
	size_t n = strlen(text) + 1;
	return memcpy(make(n), text, n);
}

static uint32_t hash_text(uint32_t h, const char *text) /* FNV-1a, the NUL included */
{
	do
		h = (h ^ (unsigned char)*text) * 16777619u;
	while (*text++);
	return h;
}

struct metrics *metrics_new(const char *instance)
{
	struct metrics *m = make(sizeof *m);
	m->instance = copy(instance);
	return m;
}

static void series_free(struct metric *x)
{
	for (unsigned i = 0; i < x->family->labels_n; i++)
		free((char *)x->values[i]);
	free(x->hist);
	free(x);
}

static void family_free(struct family *f)
{
	free(f->name);
	free(f->help);
	free(f->labels);
	free(f);
}

void metrics_free(struct metrics *m)
{
	if (!m)
		return;
	for (int i = 0; i < SERIES; i++)
		for (struct metric *x = m->series[i], *next; x; x = next) {
			next = x->next;
			series_free(x);
		}
	for (int i = 0; i < FAMILIES; i++)
		for (struct family *f = m->families[i], *next; f; f = next) {
			next = f->next;
			family_free(f);
		}
	for (struct computed *c = m->computed, *next; c; c = next) {
		next = c->next;
		free(c->name);
		free(c->help);
		free(c);
	}
	free(m->instance);
	free(m);
}

static struct family *family_find(struct family *list, const char *name)
{
	while (list && strcmp(list->name, name))
		list = list->next;
	return list;
}

/* Among "service,method". */
static bool is_label(const char *labels, const char *name)
{
	size_t n = strlen(name);
	for (const char *p = labels; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
		if (!strncmp(p, name, n) && (!p[n] || p[n] == ','))
			return true;
	return false;
}

static struct family *family_new(enum metric_type type, const char *name, const char *help, const char *labels)
{
	struct family *f = make(sizeof *f);
	f->type = type;
	f->name = copy(name);
	f->help = copy(help);
	f->labels = labels && *labels ? copy(labels) : NULL;
	for (const char *p = f->labels; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
		f->labels_n++;
	assert(f->labels_n <= LABELS_MAX && !is_label(f->labels, "instance") && !is_label(f->labels, "le"));
	return f;
}

static struct family *family_get(struct metrics *m, enum metric_type type, const char *name, const char *help,
				 const char *labels)
{
	_Atomic(struct family *) *at = &m->families[hash_text(2166136261u, name) % FAMILIES];
	struct family *first = atomic_load_explicit(at, memory_order_acquire), *f = family_find(first, name),
		      *mine = NULL;
	while (!f) {
		if (!mine)
			mine = family_new(type, name, help, labels);
		mine->next = first;
		/* release: pairs with the acquires of all who walk the list */
		if (atomic_compare_exchange_weak_explicit(at, &first, mine, memory_order_release, memory_order_acquire))
			return mine;
		f = family_find(first, name); /* another worker may have made it in the meantime */
	}
	if (mine)
		family_free(mine);
	assert(f->type == type &&
	       !strcmp(f->labels ? f->labels : "", labels ? labels : "")); /* one name, one meaning */
	return f;
}

static bool values_equal(const struct family *f, const char *const *a, const char *const *b)
{
	for (unsigned i = 0; i < f->labels_n; i++)
		if (strcmp(a[i], b[i]))
			return false;
	return true;
}

struct metric *metric(struct metrics *m, unsigned worker, enum metric_type type, const char *name, const char *help,
		      const char *labels, const char *const *values)
{
	struct family *f = family_get(m, type, name, help, labels);
	uint32_t hash = hash_text(2166136261u + worker, name);
	for (unsigned i = 0; i < f->labels_n; i++)
		hash = hash_text(hash, values[i]);
	_Atomic(struct metric *) *at = &m->series[hash % SERIES];
	struct metric *first = atomic_load_explicit(at, memory_order_acquire);
	for (struct metric *x = first; x; x = x->next)
		if (x->family == f && x->worker == worker && values_equal(f, x->values, values))
			return x;
	struct metric *x = make(sizeof *x);
	x->family = f;
	x->worker = worker;
	for (unsigned i = 0; i < f->labels_n; i++)
		x->values[i] = copy(values[i]);
	if (type == METRIC_HISTOGRAM)
		x->hist = make(sizeof *x->hist);
	x->next = first;
	while (!atomic_compare_exchange_weak_explicit(at, &x->next, x, memory_order_release, memory_order_relaxed))
		;
	return x;
}

static void compute(struct metrics *m, enum metric_type type, const char *name, const char *help,
		    int64_t (*fn)(void *arg), void *arg)
{
	struct computed *c = make(sizeof *c);
	*c = (struct computed){ .type = type, .name = copy(name), .help = copy(help), .fn = fn, .arg = arg };
	c->next = atomic_load_explicit(&m->computed, memory_order_relaxed);
	while (!atomic_compare_exchange_weak_explicit(&m->computed, &c->next, c, memory_order_release,
						      memory_order_relaxed))
		;
}

void metrics_gauge_fn(struct metrics *m, const char *name, const char *help, int64_t (*fn)(void *arg), void *arg)
{
	compute(m, METRIC_GAUGE, name, help, fn, arg);
}

void metrics_counter_fn(struct metrics *m, const char *name, const char *help, int64_t (*fn)(void *arg), void *arg)
{
	compute(m, METRIC_COUNTER, name, help, fn, arg);
}

/* ---- writing: only the owner writes, so a load and a store are enough ------------------------------------ */

static uint64_t peek(const _Atomic uint64_t *x)
{
	return atomic_load_explicit(x, memory_order_relaxed);
}

static void bump(_Atomic uint64_t *x, uint64_t n)
{
	atomic_store_explicit(x, peek(x) + n, memory_order_relaxed);
}

void metric_add(struct metric *x, uint64_t n)
{
	bump(&x->value, n);
}

void metric_set(struct metric *x, int64_t v)
{
	atomic_store_explicit(&x->value, (uint64_t)v, memory_order_relaxed);
}

/* Below 1024 ns 16 steps of 64; then 16 steps per power of two; the last takes what is above. */
static unsigned hist_index(uint64_t ns)
{
	if (ns < 1024)
		return (unsigned)(ns / 64);
	unsigned power = 63 - (unsigned)__builtin_clzll(ns);
	if (power > 35)
		return HIST_BUCKETS - 1;
	return (power - 9) * 16 + (unsigned)(ns >> (power - 4) & 15);
}

static uint64_t hist_upper_ns(unsigned i)
{
	if (i < 16)
		return (i + 1) * UINT64_C(64);
	return (UINT64_C(17) + i % 16) << (i / 16 + 5);
}

/* The first edge that is not below ns; a branch the processor cannot guess costs more than these compares. */
static unsigned edge_index(uint64_t ns)
{
	unsigned i = 0;
	for (unsigned step = 16; step; step /= 2)
		i += i + step < EDGES && edges[i + step - 1].ns < ns ? step : 0;
	return i;
}

void metric_observe_ns(struct metric *x, uint64_t ns)
{
	struct series_hist *h = x->hist;
	assert(h);
	bump(&h->bucket[hist_index(ns)], 1);
	bump(&h->edge[edge_index(ns)], 1);
	bump(&h->count, 1);
	bump(&h->sum_ns, ns);
	if (ns > peek(&h->max_ns))
		atomic_store_explicit(&h->max_ns, ns, memory_order_relaxed);
}

uint64_t metric_value(const struct metric *x)
{
	return peek(x->hist ? &x->hist->count : &x->value);
}

/* ---- plain histograms --------------------------------------------------------------------------------------- */

void hist_add(struct hist *h, uint64_t ns)
{
	h->bucket[hist_index(ns)]++;
	h->count++;
	h->sum_ns += ns;
	if (ns > h->max_ns)
		h->max_ns = ns;
}

void hist_merge(struct hist *into, const struct hist *from)
{
	into->count += from->count;
	into->sum_ns += from->sum_ns;
	if (from->max_ns > into->max_ns)
		into->max_ns = from->max_ns;
	for (unsigned i = 0; i < HIST_BUCKETS; i++)
		into->bucket[i] += from->bucket[i];
}

void metric_hist_read(const struct metric *x, struct hist *into)
{
	const struct series_hist *h = x->hist;
	assert(h);
	for (unsigned i = 0; i < HIST_BUCKETS; i++) {
		uint64_t n = peek(&h->bucket[i]);
		into->bucket[i] += n;
		into->count += n; /* not h->count: the owner may be between the two */
	}
	into->sum_ns += peek(&h->sum_ns);
	if (peek(&h->max_ns) > into->max_ns)
		into->max_ns = peek(&h->max_ns);
}

uint64_t hist_quantile_ns(const struct hist *h, double q)
{
	if (!h->count)
		return 0;
	double exact = q * (double)h->count;
	uint64_t rank = (uint64_t)exact, seen = 0;
	rank += (double)rank < exact || rank == 0; /* the smallest value that q of all do not exceed */
	for (unsigned i = 0; i < HIST_BUCKETS - 1; i++) {
		seen += h->bucket[i];
		if (seen >= rank)
			return hist_upper_ns(i) < h->max_ns ? hist_upper_ns(i) : h->max_ns;
	}
	return h->max_ns;
}

/* ---- reading ------------------------------------------------------------------------------------------------ */

void metrics_each(struct metrics *m, const char *name, void (*fn)(void *arg, const struct metric_row *row), void *arg)
{
	for (int i = 0; i < SERIES; i++)
		for (struct metric *x = atomic_load_explicit(&m->series[i], memory_order_acquire); x; x = x->next) {
			const struct family *f = x->family;
			if (name && strcmp(f->name, name))
				continue;
			struct metric_row row = { .name = f->name, .labels = f->labels, .type = f->type };
			row.worker = x->worker;
			row.values_n = f->labels_n;
			row.values = x->values;
			row.metric = x;
			fn(arg, &row);
		}
}

struct total {
	const char *const *values;
	uint64_t sum;
};

static void total_add(void *arg, const struct metric_row *row)
{
	struct total *t = arg;
	for (unsigned i = 0; t->values && i < row->values_n; i++)
		if (t->values[i] && strcmp(t->values[i], row->values[i]))
			return;
	t->sum += metric_value(row->metric);
}

int64_t metrics_total(struct metrics *m, const char *name, const char *const *values)
{
	struct total t = { .values = values };
	metrics_each(m, name, total_add, &t);
	return (int64_t)t.sum;
}

/* ---- Prometheus ---------------------------------------------------------------------------------------------- */

struct rows {
	struct metric_row *row;
	size_t n, cap;
};

static void rows_add(void *arg, const struct metric_row *row)
{
	struct rows *r = arg;
	if (r->n == r->cap) {
		r->cap = r->cap ? r->cap * 2 : 64;
		if (!(r->row = realloc(r->row, r->cap * sizeof *r->row)))
			abort();
	}
	r->row[r->n++] = *row;
}

/* Series of one family lie together, those that differ only by worker side by side. */
static int row_compare(const void *a, const void *b)
{
	const struct metric_row *x = a, *y = b;
	int c = strcmp(x->name, y->name);
	for (unsigned i = 0; !c && i < x->values_n; i++)
		c = strcmp(x->values[i], y->values[i]);
	return c ? c : (x->worker > y->worker) - (x->worker < y->worker);
}

static bool same_series(const struct metric_row *a, const struct metric_row *b)
{
	if (strcmp(a->name, b->name))
		return false;
	for (unsigned i = 0; i < a->values_n; i++)
		if (strcmp(a->values[i], b->values[i]))
			return false;
	return true;
}

static void add_escaped(struct buf *out, const char *text, bool quotes)
{
	for (; *text; text++)
		switch (*text) {
		case '\\': buf_addstr(out, "\\\\"); break;
		case '\n': buf_addstr(out, "\\n"); break;
		case '"': buf_addstr(out, quotes ? "\\\"" : "\""); break;
		default: buf_addch(out, *text);
		}
}

static void add_head(struct buf *out, const char *name, const char *help, const char *type)
{
	buf_addf(out, "# HELP %s ", name);
	add_escaped(out, help, false);
	buf_addf(out, "\n# TYPE %s %s\n", name, type);
}

static void add_label(struct buf *out, const char *name, size_t name_n, const char *value)
{
	buf_addf(out, ",%.*s=\"", (int)name_n, name);
	add_escaped(out, value, true);
	buf_addch(out, '"');
}

static void add_name(struct buf *out, const struct metrics *m, const struct metric_row *row, const char *suffix,
		     const char *le)
{
	buf_addf(out, "%s%s{instance=\"", row->name, suffix);
	add_escaped(out, m->instance, true);
	buf_addch(out, '"');
	const char *label = row->labels;
	for (unsigned i = 0; i < row->values_n; i++) {
		size_t n = strcspn(label, ",");
		add_label(out, label, n, row->values[i]);
		label += n + 1;
	}
	if (le)
		add_label(out, "le", 2, le);
	buf_addstr(out, "} ");
}

static bool ends_in(const char *name, const char *end)
{
	size_t n = strlen(name), e = strlen(end);
	return n > e && !strcmp(name + n - e, end);
}

static const char *const types[] = { "counter", "gauge", "histogram" };

static void add_gauge(struct buf *out, const char *name, int64_t v)
{
	if (ends_in(name, "_seconds"))
		buf_addf(out, "%.3f", (double)v / 1000);
	else
		buf_addi(out, v);
}

static void add_plain(struct buf *out, const struct metrics *m, const struct metric_row *row, size_t n)
{
	uint64_t sum = 0;
	for (size_t i = 0; i < n; i++)
		sum += metric_value(row[i].metric);
	add_name(out, m, row, "", NULL);
	if (row->type == METRIC_GAUGE)
		add_gauge(out, row->name, (int64_t)sum);
	else
		buf_addu(out, sum);
	buf_addch(out, '\n');
}

static void add_histogram(struct buf *out, const struct metrics *m, const struct metric_row *row, size_t n)
{
	uint64_t seen = 0, sum_ns = 0;
	for (unsigned e = 0; e < EDGES; e++) {
		for (size_t i = 0; i < n; i++)
			seen += peek(&row[i].metric->hist->edge[e]);
		add_name(out, m, row, "_bucket", edges[e].le);
		buf_addf(out, "%llu\n", (unsigned long long)seen);
	}
	for (size_t i = 0; i < n; i++)
		sum_ns += peek(&row[i].metric->hist->sum_ns);
	add_name(out, m, row, "_sum", NULL);
	buf_addf(out, "%llu.%09llu\n", (unsigned long long)(sum_ns / 1000000000),
		 (unsigned long long)(sum_ns % 1000000000));
	add_name(out, m, row, "_count", NULL);
	buf_addf(out, "%llu\n", (unsigned long long)seen);
}

static int computed_compare(const void *a, const void *b)
{
	return strcmp((*(struct computed *const *)a)->name, (*(struct computed *const *)b)->name);
}

static void add_computed(struct metrics *m, struct buf *out)
{
	size_t n = 0, i = 0;
	struct computed *first = atomic_load_explicit(&m->computed, memory_order_acquire), **all;
	for (struct computed *c = first; c; c = c->next)
		n++;
	all = make((n + 1) * sizeof *all);
	for (struct computed *c = first; c; c = c->next)
		all[i++] = c;
	qsort(all, n, sizeof *all, computed_compare);
	for (i = 0; i < n;) {
		struct computed *c = all[i];
		int64_t sum = 0;
		for (; i < n && !strcmp(all[i]->name, c->name); i++)
			sum += all[i]->fn(all[i]->arg);
		add_head(out, c->name, c->help, types[c->type]);
		add_name(out, m, &(struct metric_row){ .name = c->name }, "", NULL);
		add_gauge(out, c->name, sum);
		buf_addch(out, '\n');
	}
	free(all);
}

void metrics_prometheus(struct metrics *m, struct buf *out)
{
	struct rows rows = { 0 };
	metrics_each(m, NULL, rows_add, &rows);
	if (rows.n)
		qsort(rows.row, rows.n, sizeof *rows.row, row_compare);
	for (size_t i = 0, n; i < rows.n; i += n) {
		const struct metric_row *row = &rows.row[i];
		if (i == 0 || strcmp(row->name, row[-1].name))
			add_head(out, row->name, row->metric->family->help, types[row->type]);
		for (n = 1; i + n < rows.n && same_series(row, row + n);)
			n++;
		(row->type == METRIC_HISTOGRAM ? add_histogram : add_plain)(out, m, row, n);
	}
	free(rows.row);
	add_computed(m, out);
}

/* ---- rates ------------------------------------------------------------------------------------------------------ */

enum { RATE_SLOTS = 61 };

/*
 * second is kept plus one, so that a zeroed struct is one that was never told anything. Seconds nobody looked at
 * get an equal share of what happened since the last look.
 */
void rate_note(struct rate *r, uint64_t now_s, uint64_t total)
{
	uint64_t last_s = r->second - 1, from = total, passed = RATE_SLOTS;
	if (r->second && now_s >= last_s) {
		from = r->at_s[last_s % RATE_SLOTS];
		passed = now_s - last_s;
	}
	r->at_s[now_s % RATE_SLOTS] = total;
	for (uint64_t ago = 1; ago < passed && ago < RATE_SLOTS; ago++)
		r->at_s[(now_s + RATE_SLOTS - ago) % RATE_SLOTS] = total - (total - from) * ago / passed;
	r->second = now_s + 1;
}

double rate_per_s(const struct rate *r, unsigned seconds)
{
	assert(seconds >= 1 && seconds < RATE_SLOTS);
	if (!r->second)
		return 0;
	uint64_t now_s = r->second - 1 + RATE_SLOTS;
	return (double)(r->at_s[now_s % RATE_SLOTS] - r->at_s[(now_s - seconds) % RATE_SLOTS]) / seconds;
}
