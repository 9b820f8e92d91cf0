#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "deploy/loquat/bots.h"

const char *const bots_action_name[BOTS_ACTIONS] = { "move", "echo", "attack", "buy", "chat" };

/* 12 moves, 3 echoes, 2 attacks and one purchase or chat in each 18. */
static const char mix[BOTS_MIX + 1] = "MMEMAMMEMMXMAMEMMM";
#define STEP_SHARE  0.9  /* of what the speed allows: a step that arrives early is still legal */
#define RANGE_SHARE 0.8  /* of the range: the monster walks, too, while the request travels */
#define COOL_SHARE  1.05 /* of the cooldown: requests overtake each other a little */

/* ---- what it sends ------------------------------------------------------------------------------------------- */

static void send_action(struct bots *b, struct bot *p, struct flight *f, const char *route, const char *body, int n)
{
	bot_request(p, f->id, route, body, (size_t)n);
	b->action[f->action].sent++;
	p->sent++;
}

/* Where to: up to the nearest monster in sight; else a walk that turns a little each time. */
static void turn(struct bots *b, struct bot *p)
{
	double distance;
	const struct monster *m = sight_nearest(&p->sight, p->x, p->y, &distance);

	if (m && distance > b->range * RANGE_SHARE / 2)
		p->heading = atan2(m->y - p->y, m->x - p->x);
	else
		p->heading += (bots_random(b) - 0.5) * 0.6;
}

/* A step, and around where the map ends. */
static void move(struct bots *b, struct bot *p, struct flight *f)
{
	char body[96];
	double seconds = p->moved_ns ? (double)(f->intended_ns - p->moved_ns) / 1e9 : 0.02;
	double step = b->speed * (seconds < 1 ? seconds : 1) * STEP_SHARE;

	turn(b, p);
	double x = p->x + step * cos(p->heading), y = p->y + step * sin(p->heading);
	if (x < 0 || y < 0 || x > b->width || y > b->height) {
		p->heading += M_PI;
		x = fmin(fmax(x, 0), b->width);
		y = fmin(fmax(y, 0), b->height);
	}
	p->x = x;
	p->y = y;
	p->moved_ns = f->intended_ns;
	p->moves_under_way++;
	unsigned cx = (unsigned)(x * 100), cy = (unsigned)(y * 100); /* hundredths: printing floats costs more */
	send_action(b, p, f, "scene.sceneHandler.move", body,
		    snprintf(body, sizeof body, "{\"x\":%u.%02u,\"y\":%u.%02u}", cx / 100, cx % 100, cy / 100,
			     cy % 100));
}

/* Keys in order, as the server writes them: then equal bytes are the usual way to be equal. */
static int echo_body(char *out, size_t size, uint32_t id)
{
	return snprintf(out, size, "{\"list\":[%u,null,true],\"n\":%u,\"text\":\"echo %u\"}", id % 100, id, id);
}

static void echo(struct bots *b, struct bot *p, struct flight *f)
{
	char body[128];

	send_action(b, p, f, "scene.sceneHandler.echo", body, echo_body(body, sizeof body, f->id));
}

static void attack(struct bots *b, struct bot *p, struct flight *f)
{
	char body[64];
	double distance;
	const struct monster *m = sight_nearest(&p->sight, p->x, p->y, &distance);
	int64_t target = m ? m->id : p->id; /* with no monster in view it hits out at nothing: denied */

	if (f->intended_ns >= p->attack_due_ns)
		p->attack_due_ns = f->intended_ns + (uint64_t)(b->cooldown_ns * COOL_SHARE);
	send_action(b, p, f, "scene.sceneHandler.attack", body,
		    snprintf(body, sizeof body, "{\"target\":%lld}", (long long)target));
}

static void buy(struct bots *b, struct bot *p, struct flight *f)
{
	char body[128];

	send_action(b, p, f, "role.shopHandler.buy", body,
		    snprintf(body, sizeof body, "{\"item\":1,\"count\":1,\"order\":\"bots-%s-%u-%u\"}", b->run,
			     p->index, f->id));
}

static void chat(struct bots *b, struct bot *p, struct flight *f)
{
	char body[128];

	send_action(b, p, f, "chat.chatHandler.send", body,
		    snprintf(body, sizeof body, "{\"content\":\"hello from bot %u\",\"target\":\"*\"}", p->index));
}

static bool can_attack(const struct bots *b, const struct bot *p, uint64_t now_ns)
{
	double distance;

	return now_ns >= p->attack_due_ns && sight_nearest(&p->sight, p->x, p->y, &distance) &&
	       distance <= b->range * RANGE_SHARE;
}

/* Moves that are still to come: of this 18, and within the turns that are left of the run. */
static uint32_t moves_left(uint32_t at, uint64_t turns)
{
	uint32_t n = 0;

	for (; at < BOTS_MIX && turns; at++, turns--)
		n += mix[at] == 'M';
	return n;
}

/*
 * The mix, each 18 exactly; but an attack waits for a monster within range and for the cooldown, as a player's would: it
 * changes places with a later move of the same 18, the last of them at the latest.
 */
static enum bots_action next_action(const struct bots *b, struct bot *p, uint64_t now_ns, uint64_t turns_left)
{
	uint32_t turn = p->turn++, at = turn % BOTS_MIX;

	switch (mix[at]) {
	case 'E': return BOTS_ECHO;
	case 'X': return turn / BOTS_MIX % 2 ? BOTS_CHAT : BOTS_BUY;
	case 'A': p->owed++; break;
	default: break;
	}
	if (p->owed && (can_attack(b, p, now_ns) || moves_left(at + 1, turns_left) < p->owed)) {
		p->owed--;
		return BOTS_ATTACK;
	}
	return BOTS_MOVE;
}

void bots_act(struct bots *b, struct bot *p, uint64_t n, uint64_t intended_ns)
{
	static void (*const act[BOTS_ACTIONS])(struct bots *, struct bot *, struct flight *) = {
		[BOTS_MOVE] = move, [BOTS_ECHO] = echo, [BOTS_ATTACK] = attack, [BOTS_BUY] = buy, [BOTS_CHAT] = chat,
	};
	struct flight *f = &b->ring[n % b->ring_size];
	uint64_t turns_left = (b->scheduled - n - 1) / b->o.players;

	/* id 0 is a notify; the ring is smaller than 2^31, so no id is used twice at a time */
	*f = (struct flight){ intended_ns, p->index, (uint32_t)(n % b->ring_size) + 1,
			      next_action(b, p, intended_ns, turns_left) };
	act[f->action](b, p, f);
}

/* ---- how it is answered ------------------------------------------------------------------------------------------ */

static bool code_is_200(const char *body, size_t n)
{
	static const char usual[] = "{\"code\":200";
	double code = 0;

	if (n > sizeof usual && !memcmp(body, usual, sizeof usual - 1) && (body[11] == ',' || body[11] == '}'))
		return true;
	return sight_number(body, n, "code", &code) && code == 200;
}

static bool same_json(const char *a, size_t a_n, const char *b, size_t b_n)
{
	json_t *x = json_loadb(a, a_n, 0, NULL), *y = json_loadb(b, b_n, 0, NULL);
	bool same = x && y && json_equal(x, y);

	json_decref(x);
	json_decref(y);
	return same;
}

static bool echoed(uint32_t id, const char *body, size_t n)
{
	char sent[128];
	size_t sent_n = (size_t)echo_body(sent, sizeof sent, id);

	return (sent_n == n && !memcmp(sent, body, n)) || same_json(sent, sent_n, body, n);
}

static void count_refusal(struct action_stats *a, const char *word)
{
	unsigned i = 0;

	while (i < BOTS_WORDS - 1 && a->refused[i].count && strcmp(a->refused[i].word, word))
		i++;
	snprintf(a->refused[i].word, sizeof a->refused[i].word, "%s", word);
	a->refused[i].count++;
}

/*
 * Refusals that belong to the game: the dead do not walk, monsters are out of range or died meanwhile, gold runs out. Else
 * the refusal is a fault: not_found for a move would be a scene that has forgotten its players.
 */
static bool is_expected(enum bots_action action, const char *word)
{
	if (!strcmp(word, "denied"))
		return action == BOTS_MOVE || action == BOTS_ATTACK || action == BOTS_BUY;
	return action == BOTS_ATTACK && !strcmp(word, "not_found");
}

static void refused(struct bots *b, struct bot *p, const struct flight *f, const char *body, size_t n)
{
	char word[24], message[64];

	if (!sight_text(body, n, "error", word, sizeof word))
		snprintf(word, sizeof word, "nonsense");
	count_refusal(&b->action[f->action], word);
	if (is_expected(f->action, word))
		return;
	if (!sight_text(body, n, "message", message, sizeof message))
		*message = '\0';
	bot_fail(b, p, "%s answered %s: %s", bots_action_name[f->action], word, message);
}

/* The server decides where one stands; while newer steps are under way their answers will say. */
static void stepped(struct bot *p, const char *body, size_t n)
{
	double x, y;

	if (p->moves_under_way == 0 && sight_number(body, n, "x", &x) && sight_number(body, n, "y", &y)) {
		p->x = x;
		p->y = y;
	}
}

static void judge(struct bots *b, struct bot *p, const struct flight *f, const char *body, size_t n)
{
	if (f->action == BOTS_MOVE && p->moves_under_way)
		p->moves_under_way--;
	if (f->action == BOTS_ECHO ? !echoed(f->id, body, n) : !code_is_200(body, n))
		refused(b, p, f, body, n);
	else if (f->action == BOTS_MOVE)
		stepped(p, body, n);
}

void bots_answer(struct bots *b, struct bot *p, uint32_t id, const char *body, size_t n)
{
	struct flight *f = id && id <= b->ring_size ? &b->ring[id - 1] : NULL;
	uint64_t now = bots_now_ns();

	if (!f || !f->intended_ns || f->player != p->index) {
		bot_fail(b, p, "an answer to nothing, or the second to one request");
		return;
	}
	struct flight answered = *f;
	struct action_stats *a = &b->action[f->action];

	f->intended_ns = 0;
	a->answered++;
	p->answered++;
	p->last_ns = now;
	hist_add(&a->latency, now > answered.intended_ns ? now - answered.intended_ns : 0);
	judge(b, p, &answered, body, n);
}

uint64_t bots_overdue(struct bots *b, uint64_t now)
{
	while (b->oldest < b->next) {
		struct flight *f = &b->ring[b->oldest % b->ring_size];

		if (f->intended_ns && now < f->intended_ns + BOTS_DEADLINE_NS && b->bot[f->player].stage == BOT_PLAYS)
			break;
		if (f->intended_ns)
			bot_fail(b, &b->bot[f->player], "%s unanswered for 5 s", bots_action_name[f->action]);
		f->intended_ns = 0;
		b->oldest++;
	}
	return b->next - b->oldest;
}

bool bots_placed(struct bots *b, struct bot *p, const char *body, size_t n)
{
	json_t *o = json_loadb(body, n, 0, NULL);
	bool whole = json_is_number(json_object_get(o, "x")) && json_is_number(json_object_get(o, "y"));

	p->id = json_integer_value(json_object_get(o, "id"));
	p->x = json_number_value(json_object_get(o, "x"));
	p->y = json_number_value(json_object_get(o, "y"));
	b->width = json_number_value(json_object_get(o, "width"));
	b->height = json_number_value(json_object_get(o, "height"));
	b->speed = json_number_value(json_object_get(o, "speed"));
	b->range = json_number_value(json_object_get(o, "range"));
	b->cooldown_ns = json_number_value(json_object_get(o, "cooldown_ms")) * 1e6;
	p->heading = bots_random(b) * 2 * M_PI;
	sight_update(&p->sight, body, n);
	json_decref(o);
	return whole;
}
