#include <stdio.h>
#include <string.h>
#include "deploy/loquat/bots.h"

/* The figures of one row: an action, or all of them. */
struct row {
	const char *name;
	const struct action_stats *stats;
};

static double ms(uint64_t ns)
{
	return (double)ns / 1e6;
}

static struct action_stats all_of(const struct bots *b)
{
	struct action_stats all = { 0 };

	for (int i = 0; i < BOTS_ACTIONS; i++) {
		all.sent += b->action[i].sent;
		all.answered += b->action[i].answered;
		hist_merge(&all.latency, &b->action[i].latency);
	}
	return all;
}

static double seconds_of(const struct bots *b)
{
	return b->after.at_ns > b->before.at_ns ? (double)(b->after.at_ns - b->before.at_ns) / 1e9 : 1;
}

static uint64_t cpu_before(const struct bots *b, const char *service)
{
	for (unsigned i = 0; i < b->before.services; i++)
		if (!strcmp(b->before.by[i].service, service))
			return b->before.by[i].cpu_us;
	return 0;
}

/* us of CPU per packet; a process that began anew counts from its beginning */
static double per_packet(uint64_t before, uint64_t after, uint64_t packets)
{
	return packets ? (double)(after >= before ? after - before : after) / (double)packets : 0;
}

static double servers_us(const struct bots *b, uint64_t packets)
{
	double sum = 0;

	for (unsigned i = 0; i < b->after.services; i++)
		sum += per_packet(cpu_before(b, b->after.by[i].service), b->after.by[i].cpu_us, packets);
	return sum;
}

/* Why the bots' count and the connectors' are not one; NULL: they are. */
static const char *mismatch(const struct bots *b, const struct action_stats *all)
{
	if (!b->before.connectors)
		return "no connector's /stats could be read";
	if (b->after.connectors != b->before.connectors)
		return "a connector came or went";
	if (all->sent != all->answered)
		return "requests were not answered";
	uint64_t counted = b->after.answered - b->before.answered;

	if (counted == all->sent)
		return NULL;
	return counted < all->sent ? "a connector was started anew, and began its count"
				   : "the connectors counted other requests too";
}

/* ---- for people -------------------------------------------------------------------------------------------------- */

static void print_refusals(const struct action_stats *s)
{
	const char *comma = "";

	for (int i = 0; i < BOTS_WORDS && s->refused[i].count; i++, comma = ", ")
		printf("%s%s %llu", comma, s->refused[i].word, (unsigned long long)s->refused[i].count);
	putchar('\n');
}

static void print_row(const char *name, const struct action_stats *s, const struct bots *b)
{
	const struct hist *h = &s->latency;

	printf("%-8s %10llu %10.1f %9.2f %9.2f %9.2f %9.2f  ", name, (unsigned long long)s->answered,
	       (double)s->answered / b->o.seconds, ms(hist_quantile_ns(h, 0.5)), ms(hist_quantile_ns(h, 0.99)),
	       ms(hist_quantile_ns(h, 0.999)), ms(h->max_ns));
	print_refusals(s);
}

static void print_cpu(const struct bots *b, uint64_t packets)
{
	double own = per_packet(b->before.own_us, b->after.own_us, packets), servers = servers_us(b, packets);
	double machine = per_packet(b->before.machine_us, b->after.machine_us, packets), cores = seconds_of(b) * 1e6;

	printf("\ncpu us per packet:");
	for (unsigned i = 0; i < b->after.services; i++)
		printf(" %s %.2f,", b->after.by[i].service,
		       per_packet(cpu_before(b, b->after.by[i].service), b->after.by[i].cpu_us, packets));
	printf(" servers together %.2f; bots %.2f\n", servers, own);
	printf("cores: servers %.2f, bots %.2f, whole machine %.2f\n", servers * (double)packets / cores,
	       own * (double)packets / cores, machine * (double)packets / cores);
}

static void print_people(const struct bots *b, const struct action_stats *all, const char *wrong)
{
	printf("loquat bots: %u players, %g packets/s each, %u s (run %s)\n", b->o.players, b->o.rate, b->o.seconds,
	       b->run);
	printf("login: %u of %u in %.1f s, the slowest took %.0f ms\n\n", b->logged_in, b->o.players,
	       (double)b->login_took_ns / 1e9, ms(b->login_ns_max));
	printf("%-8s %10s %10s %9s %9s %9s %9s  %s\n", "action", "answers", "per s", "p50 ms", "p99 ms", "p99.9 ms",
	       "max ms", "refused");
	for (int i = 0; i < BOTS_ACTIONS; i++)
		print_row(bots_action_name[i], &b->action[i], b);
	print_row("all", all, b);
	print_cpu(b, all->answered);
	printf("pushes: %llu (%.0f/s, %.0f bytes each), of them scene updates %llu; bots sent p99 %.2f ms late\n",
	       (unsigned long long)b->pushes, (double)b->pushes / seconds_of(b),
	       b->pushes ? (double)b->push_bytes / (double)b->pushes : 0, (unsigned long long)b->updates,
	       ms(hist_quantile_ns(&b->late, 0.99)));
	printf("sent %llu, answered %llu, by the connectors' count %llu%s%s\n", (unsigned long long)all->sent,
	       (unsigned long long)all->answered, (unsigned long long)(b->after.answered - b->before.answered),
	       wrong ? ": " : "", wrong ? wrong : "");
	printf("players failed: %u\n", b->failed);
	for (unsigned i = 0; i < b->reasons; i++)
		printf("  %6u  %s\n", b->reason[i].count, b->reason[i].text);
}

/* ---- for programs ---------------------------------------------------------------------------------------------------- */

static void json_row(struct buf *out, const char *name, const struct action_stats *s, const struct bots *b)
{
	const struct hist *h = &s->latency;

	buf_addf(out, "\"%s\":{\"sent\":%llu,\"answered\":%llu,\"per_s\":%.1f,\"p50_ms\":%.3f,\"p99_ms\":%.3f", name,
		 (unsigned long long)s->sent, (unsigned long long)s->answered, (double)s->answered / b->o.seconds,
		 ms(hist_quantile_ns(h, 0.5)), ms(hist_quantile_ns(h, 0.99)));
	buf_addf(out, ",\"p999_ms\":%.3f,\"max_ms\":%.3f,\"refused\":{", ms(hist_quantile_ns(h, 0.999)), ms(h->max_ns));
	for (int i = 0; i < BOTS_WORDS && s->refused[i].count; i++)
		buf_addf(out, "%s\"%s\":%llu", i ? "," : "", s->refused[i].word,
			 (unsigned long long)s->refused[i].count);
	buf_addstr(out, "}}");
}

static void json_cpu(struct buf *out, const struct bots *b, uint64_t packets)
{
	buf_addstr(out, ",\"cpu_us_per_packet\":{");
	for (unsigned i = 0; i < b->after.services; i++)
		buf_addf(out, "\"%s\":%.3f,", b->after.by[i].service,
			 per_packet(cpu_before(b, b->after.by[i].service), b->after.by[i].cpu_us, packets));
	buf_addf(out, "\"servers\":%.3f,\"bots\":%.3f,\"machine\":%.3f}", servers_us(b, packets),
		 per_packet(b->before.own_us, b->after.own_us, packets),
		 per_packet(b->before.machine_us, b->after.machine_us, packets));
}

static void print_json(const struct bots *b, const struct action_stats *all, const char *wrong)
{
	struct buf out = BUF_INIT;

	buf_addf(&out, "{\"players\":%u,\"rate\":%g,\"seconds\":%u,\"run\":\"%s\",\"logged_in\":%u,\"login_s\":%.3f",
		 b->o.players, b->o.rate, b->o.seconds, b->run, b->logged_in, (double)b->login_took_ns / 1e9);
	buf_addstr(&out, ",\"actions\":{");
	for (int i = 0; i < BOTS_ACTIONS; i++) {
		json_row(&out, bots_action_name[i], &b->action[i], b);
		buf_addstr(&out, i + 1 < BOTS_ACTIONS ? "," : "},");
	}
	json_row(&out, "all", all, b);
	json_cpu(&out, b, all->answered);
	buf_addf(&out,
		 ",\"pushes\":%llu,\"late_p99_ms\":%.3f,\"counted\":%llu,\"mismatch\":", (unsigned long long)b->pushes,
		 ms(hist_quantile_ns(&b->late, 0.99)), (unsigned long long)(b->after.answered - b->before.answered));
	if (wrong)
		jsontext_quote(&out, wrong, strlen(wrong));
	else
		buf_addstr(&out, "null");
	buf_addf(&out, ",\"failed\":%u,\"reasons\":{", b->failed);
	for (unsigned i = 0; i < b->reasons; i++) {
		buf_addstr(&out, i ? "," : "");
		jsontext_quote(&out, b->reason[i].text, strlen(b->reason[i].text));
		buf_addf(&out, ":%u", b->reason[i].count);
	}
	buf_addstr(&out, "}}");
	puts(buf_cstr(&out));
	buf_release(&out);
}

int bots_report(const struct bots *b)
{
	struct action_stats all = all_of(b);
	const char *wrong = mismatch(b, &all);

	if (b->o.json)
		print_json(b, &all, wrong);
	else
		print_people(b, &all, wrong);
	return b->failed || wrong ? 1 : 0;
}
