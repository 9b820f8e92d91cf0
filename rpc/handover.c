#include "rpc/handover.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/service_private.h"

#define LOOK_MS    2
#define READY_MS   20000 /* for the new process to come up */
#define QUIET_MS   6000  /* for requests under way: longer than one may take */
#define ACKS_MS    1000  /* for the callers to say that they wait */
#define DONE_MS    10000
#define HELLO_MS   2000
#define TAKE_MS    30000
#define SHARED_MAX 160
#define PIECE_HEAD 4 /* kind, last, worker (2 bytes) */

enum phase { IDLE, WAIT_HTTP, WAIT_READY, WAIT_QUIET, WAIT_ACKS, WAIT_PACK, WAIT_DONE, REOPEN, GONE };
struct handover {
	struct service *service;
	struct env_pass_door *door;
	struct env_pass *pass;
	enum phase phase;
	struct timer look;
	uint64_t until_ms, stopped_ms;
	unsigned waits, items; /* workers that have not said so yet */
	unsigned quiet;        /* looks in a row at which no answer was waited for over HTTP */
	struct handover_list list[SERVICE_WORKERS_MAX];
	char hello[300];
};

/* ---- words ------------------------------------------------------------------------------------------------------- */

static int say(struct handover *h, const char *text)
{
	return env_pass_send(h->pass, text, strlen(text), NULL, NULL);
}

/* 0 and the text; ERR_TIMEOUT, ERR_CLOSED. */
static int hear(struct handover *h, char *text, size_t size, uint32_t wait_ms)
{
	struct env_passed *passed;
	ssize_t n = env_pass_receive(h->pass, text, size - 1, wait_ms, &passed);

	env_passed_close(passed);
	if (n < 0)
		return (int)n;
	text[n] = '\0';
	return 0;
}

static void door_path(struct service *s, char path[ENV_PATH_MAX])
{
	snprintf(path, ENV_PATH_MAX, "%.400s/%s.door", s->var, s->id);
}

static struct handover *handover_of(struct service *s)
{
	if (!s->p->handover) {
		s->p->handover = calloc(1, sizeof(*s->p->handover));
		assert(s->p->handover);
		s->p->handover->service = s;
	}
	return s->p->handover;
}

/* ---- the old process ----------------------------------------------------------------------------------------------- */

static void look_later(struct handover *h, enum phase phase, uint64_t wait_ms)
{
	if (phase != h->phase)
		h->until_ms = h->service->control->now_ms + wait_ms;
	h->phase = phase;
	loop_timer(h->service->control, &h->look, LOOK_MS);
}

static void on_back(struct worker *w, void *arg)
{
	(void)arg;
	rpc_server_move(w->server, false);
	w->service->def->handover->back(w);
}

/* The ports are the new one's until it has ended. */
static bool ports_reopen(struct service *s)
{
	if (!s->p->acceptor && acceptor_start(s, s->row->host, s->row->rpc_port, &s->p->acceptor) < 0)
		return false;
	return !s->row->http_port || s->p->http || http_face_start(s, &s->p->http) == 0;
}

static void failed(struct handover *h, const char *why)
{
	struct service *s = h->service;
	bool stopped = h->phase > WAIT_READY;

	log_error(s->log, "handover.failed", "why=%s", why);
	env_pass_close(h->pass);
	h->pass = NULL;
	for (unsigned i = 0; i < s->workers; i++)
		handover_list_free(&h->list[i]);
	if (stopped)
		service_each(s, on_back, NULL);
	look_later(h, REOPEN, READY_MS);
}

static void on_stop(struct worker *w, void *arg)
{
	(void)arg;
	w->service->def->handover->stop(w);
}

static void worker_said(void *arg)
{
	struct handover *h = arg;

	if (h->waits)
		h->waits--;
}

void handover_quiet(struct worker *w)
{
	loop_call(w->service->control, worker_said, w->service->p->handover);
}

static void on_move(struct worker *w, void *arg)
{
	(void)arg;
	rpc_server_move(w->server, true);
}

static bool callers_wait(struct service *s)
{
	for (unsigned i = 0; i < s->workers; i++)
		if (!rpc_server_quiet(s->worker[i]->server))
			return false;
	return true;
}

static void on_pack(struct worker *w, void *arg)
{
	struct handover *h = arg;

	w->service->def->handover->pack(w, &h->list[w->index]);
	loop_call(w->service->control, worker_said, h);
}

/* In pieces; the socket goes with the first. */
static int item_send(struct handover *h, unsigned worker, const struct handover_item *item)
{
	static const size_t room = ENV_PASS_MAX - PIECE_HEAD;
	char piece[ENV_PASS_MAX];
	size_t at = 0;

	do {
		size_t n = item->bytes.len - at < room ? item->bytes.len - at : room;
		piece[0] = 'i';
		piece[1] = at + n == item->bytes.len;
		piece[2] = (char)(worker & 0xff);
		piece[3] = (char)(worker >> 8);
		memcpy(piece + PIECE_HEAD, item->bytes.data + at, n);
		int err = env_pass_send(h->pass, piece, PIECE_HEAD + n, at ? NULL : item->conn,
					at ? NULL : item->listener);
		if (err < 0)
			return err;
		at += n;
	} while (at < item->bytes.len);
	return 0;
}

static int all_send(struct handover *h)
{
	int err = 0;

	h->items = 0;
	for (unsigned i = 0; i < h->service->workers && err == 0; i++)
		for (struct handover_item *item = h->list[i].first; item && err == 0; item = item->next, h->items++)
			err = item_send(h, i, item);
	return err < 0 ? err : say(h, "end");
}

static void on_gone(struct worker *w, void *arg)
{
	(void)arg;
	w->service->def->handover->gone(w);
}

static void done(struct handover *h)
{
	struct service *s = h->service;

	log_info(s->log, "handover.done", "items=%u pause_ms=%llu", h->items,
		 (unsigned long long)(s->control->now_ms - h->stopped_ms));
	for (unsigned i = 0; i < s->workers; i++)
		handover_list_free(&h->list[i]);
	h->phase = GONE;
	service_each(s, on_gone, NULL);
	life_leave(s);
}

/* What the new one says by now: "" nothing yet. false: it has gone, which is dealt with. */
static bool new_says(struct handover *h, char text[64])
{
	int err = hear(h, text, 64, 0);

	if (err == ERR_TIMEOUT)
		text[0] = '\0';
	else if (err < 0)
		failed(h, "the new process has gone");
	return err == 0 || err == ERR_TIMEOUT;
}

static const char *shared_of(struct service *s, char out[SHARED_MAX])
{
	const char *word = s->def->handover->shared ? s->def->handover->shared(s, out, SHARED_MAX) : NULL;

	return word ? word : "";
}

/* NULL: it may take over. */
static const char *refusal(struct service *s, const char *hello)
{
	char id[32], room[SHARED_MAX];
	const char *shared = shared_of(s, room);
	unsigned workers;
	int word = 0;

	if (sscanf(hello, "take-over 1 %31s %u %n", id, &workers, &word) != 2 || !word)
		return "it speaks another hand-over";
	if (strcmp(id, s->id) != 0)
		return "it is another instance";
	if (workers != s->workers)
		return "it has another number of threads: sessions belong to theirs";
	if (strcmp(hello + word, shared) != 0)
		return strstr(shared, HANDOVER_BEFORE)
			       ? "clients here go by messages from before a reload (told_before in "
				 "/stats): wait for their end, or drain it"
			       : "it has another dictionary or other message types than clients "
				 "were told: drain it";
	if (strcmp(config_string(s->config, "discovery.kind", "file"), "file") != 0)
		return "with discovery.kind = \"etcd\" an instance's lease cannot be handed over: drain it";
	return NULL;
}

/* What its workers were asked over HTTP is answered first; of a reload, all of it. */
static void look_http(struct handover *h)
{
	struct service *s = h->service;
	char text[160];

	h->quiet = http_face_quiet(s->p->http) ? h->quiet + 1 : 0;
	if (h->quiet < 2) { /* once more: the last answer is on its way out */
		look_later(h, WAIT_HTTP, 0);
		return;
	}
	http_face_stop(s->p->http);
	s->p->http = NULL;
	const char *why = refusal(s, h->hello); /* there may be other messages now */
	if (why) {
		snprintf(text, sizeof(text), "no: %s", why);
		say(h, text);
		failed(h, why);
	} else if (say(h, "go") < 0) {
		failed(h, "the new process has gone");
	} else {
		look_later(h, WAIT_READY, READY_MS);
	}
}

static void look_ready(struct handover *h)
{
	struct service *s = h->service;
	char text[64];

	if (!new_says(h, text))
		return;
	if (strcmp(text, "ready")) {
		look_later(h, WAIT_READY, 0);
		return;
	}
	h->waits = s->workers;
	h->stopped_ms = s->control->now_ms;
	service_each(s, on_stop, NULL);
	look_later(h, WAIT_QUIET, QUIET_MS);
}

static void look_quiet(struct handover *h, bool late)
{
	if (h->waits && !late) {
		look_later(h, WAIT_QUIET, 0);
		return;
	}
	service_each(h->service, on_move, NULL);
	look_later(h, WAIT_ACKS, ACKS_MS);
}

static void look_acks(struct handover *h, bool late)
{
	if (!callers_wait(h->service) && !late) {
		look_later(h, WAIT_ACKS, 0);
		return;
	}
	h->waits = h->service->workers;
	service_each(h->service, on_pack, h);
	look_later(h, WAIT_PACK, 0);
}

static void look_pack(struct handover *h)
{
	if (h->waits)
		look_later(h, WAIT_PACK, 0);
	else if (all_send(h) < 0)
		failed(h, "the new process does not take it");
	else
		look_later(h, WAIT_DONE, DONE_MS);
}

static void look_done(struct handover *h)
{
	char text[64];

	if (!new_says(h, text))
		return;
	if (strcmp(text, "done"))
		look_later(h, WAIT_DONE, 0);
	else
		done(h);
}

static void on_look(struct timer *t, uint64_t now_ms)
{
	struct handover *h = (struct handover *)((char *)t - offsetof(struct handover, look));
	bool late = now_ms >= h->until_ms;

	if (late && (h->phase == WAIT_READY || h->phase == WAIT_DONE)) {
		failed(h, "the new process takes too long");
		return;
	}
	switch (h->phase) {
	case WAIT_HTTP: look_http(h); break;
	case WAIT_READY: look_ready(h); break;
	case WAIT_QUIET: look_quiet(h, late); break;
	case WAIT_ACKS: look_acks(h, late); break;
	case WAIT_PACK: look_pack(h); break;
	case WAIT_DONE: look_done(h); break;
	case REOPEN:
		if (ports_reopen(h->service))
			h->phase = IDLE;
		else
			look_later(h, REOPEN, 0);
		break;
	case IDLE:
	case GONE: break;
	}
}

static void on_knock(void *arg, struct env_pass *pass)
{
	struct handover *h = arg;
	struct service *s = h->service;
	char text[160];

	if (h->phase != IDLE || s->p->stopping) {
		env_pass_close(pass);
		return;
	}
	h->pass = pass;
	int err = hear(h, h->hello, sizeof(h->hello), HELLO_MS);
	const char *why = err < 0 ? "it says nothing" : refusal(s, h->hello);
	if (why) {
		snprintf(text, sizeof(text), "no: %s", why);
		say(h, text);
		log_warn(s->log, "handover.refused", "why=%s", why);
		env_pass_close(pass);
		h->pass = NULL;
		return;
	}
	log_info(s->log, "handover.asked", "workers=%u", s->workers);
	acceptor_stop(s->p->acceptor);
	s->p->acceptor = NULL;
	http_face_shut(s->p->http);
	h->look.fire = on_look;
	h->quiet = 0;
	look_later(h, WAIT_HTTP, 0);
}

void handover_open(struct service *s)
{
	struct handover *h;
	char path[ENV_PATH_MAX];

	if (!s->def->handover)
		return;
	h = handover_of(s);
	door_path(s, path);
	int err = env_pass_listen(s->control->ev, path, on_knock, h, &h->door);
	if (err < 0 && err != ERR_UNAVAILABLE)
		log_warn(s->log, "handover.door", "path=%s why=%s", path, env_last_error());
}

void handover_close(struct service *s)
{
	struct handover *h = s->p->handover;

	if (!h)
		return;
	loop_timer_stop(s->control, &h->look);
	env_pass_door_close(h->door, h->phase != GONE); /* a new one's door stands at the same path */
	h->door = NULL;
	env_pass_close(h->pass); /* one that waits for us hears that it waits in vain */
	h->pass = NULL;
}

void handover_free(struct service *s)
{
	struct handover *h = s->p->handover;

	for (unsigned i = 0; h && i < SERVICE_WORKERS_MAX; i++)
		handover_list_free(&h->list[i]);
	free(h);
}

/* ---- the new process ----------------------------------------------------------------------------------------------- */

int handover_ask(struct service *s)
{
	char path[ENV_PATH_MAX], text[300], room[SHARED_MAX];

	if (!s->def->handover) {
		service_fail(s, "%s: a %s cannot take over: drain it, and start it anew", s->id, s->def->name);
		return ERR_UNAVAILABLE;
	}
	struct handover *h = handover_of(s);
	door_path(s, path);
	int err = env_pass_connect(s->env, path, &h->pass);
	if (err < 0) {
		service_fail(s, "%s: nobody to take over from at %s", s->id, path);
		return err;
	}
	snprintf(text, sizeof(text), "take-over 1 %s %u %s", s->id, s->workers, shared_of(s, room));
	err = say(h, text);
	if (err == 0)
		err = hear(h, text, sizeof(text), HELLO_MS + DONE_MS);
	if (err < 0 || strcmp(text, "go") != 0) {
		service_fail(s, "%s: the running process does not hand over: %s", s->id,
			     err < 0 ? err_word(err) : text + strcspn(text, " "));
		return ERR_UNAVAILABLE;
	}
	return 0;
}

static void taken(void *arg)
{
	struct handover *h = arg;
	struct service *s = h->service;

	if (--h->waits)
		return;
	/* the old one may have given up meanwhile, and goes on: two must not read from one socket */
	if (say(h, "done") < 0)
		env_abort(s->env, "the hand-over was given up by the old process");
	log_info(s->log, "handover.taken", "items=%u", h->items);
	env_pass_close(h->pass);
	h->pass = NULL;
	handover_open(s);
}

static void on_take(struct worker *w, void *arg)
{
	struct handover *h = arg;

	w->service->def->handover->take(w, &h->list[w->index]);
	handover_list_free(&h->list[w->index]);
	loop_call(w->service->control, taken, h);
}

/* The next piece; 1: all have come. */
static int piece_take(struct handover *h, struct handover_item *open[])
{
	char piece[ENV_PASS_MAX];
	struct env_passed *passed;
	ssize_t n = env_pass_receive(h->pass, piece, sizeof(piece), TAKE_MS, &passed);

	if (n == 3 && memcmp(piece, "end", 3) == 0)
		return 1;
	unsigned worker =
		n < PIECE_HEAD ? SERVICE_WORKERS_MAX : (unsigned)(uint8_t)piece[2] | (unsigned)(uint8_t)piece[3] << 8;
	if (worker >= h->service->workers || piece[0] != 'i') {
		env_passed_close(passed);
		return n < 0 ? (int)n : ERR_CORRUPT;
	}
	if (!open[worker]) {
		open[worker] = handover_add(&h->list[worker]);
		h->items++;
	}
	if (passed) {
		env_passed_close(open[worker]->passed);
		open[worker]->passed = passed;
	}
	buf_add(&open[worker]->bytes, piece + PIECE_HEAD, (size_t)n - PIECE_HEAD);
	if (piece[1])
		open[worker] = NULL;
	return 0;
}

static void all_take(struct handover *h)
{
	struct service *s = h->service;
	struct handover_item *open[SERVICE_WORKERS_MAX] = { NULL };
	int got;

	while ((got = piece_take(h, open)) == 0)
		;
	if (got < 0) {
		service_fail(s, "%s: the hand-over broke: %s", s->id, err_word(got));
		return;
	}
	h->waits = s->workers;
	service_each(s, on_take, h);
}

static void joined(void *arg)
{
	struct handover *h = arg;

	if (!h->waits || --h->waits || !h->pass)
		return;
	if (say(h, "ready") < 0)
		service_fail(h->service, "%s: the old process has gone before it handed over", h->service->id);
	else
		all_take(h);
}

void handover_joined(struct worker *w)
{
	loop_call(w->service->control, joined, w->service->p->handover);
}

static void on_join(struct worker *w, void *arg)
{
	(void)arg;
	w->service->def->handover->join(w);
}

void handover_begin(struct service *s)
{
	s->p->handover->waits = s->workers;
	service_each(s, on_join, NULL);
}
