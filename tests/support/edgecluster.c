#include "tests/support/edgecluster.h"
#include <arpa/inet.h>
#include <check.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "connector/connector.h"
#include "gate/gate.h"
#include "tests/support/folder.h"

static struct edgecluster *cluster; /* the made-up services find it here */

/* ---- what was asked ------------------------------------------------------------------------------------------- */

static void note(const char *word, const char *uid)
{
	pthread_mutex_lock(&cluster->lock);
	buf_addf(&cluster->asked, "%s %s;", word, uid);
	pthread_mutex_unlock(&cluster->lock);
	flag_raise(&cluster->asks);
}

unsigned edgecluster_count(struct edgecluster *c, const char *words)
{
	unsigned n = 0;

	pthread_mutex_lock(&c->lock);
	for (const char *at = buf_cstr(&c->asked); (at = strstr(at, words)); at++)
		n++;
	pthread_mutex_unlock(&c->lock);
	return n;
}

bool edgecluster_asked(struct edgecluster *c, const char *words)
{
	for (;;) {
		unsigned long seen = flag_count(&c->asks);
		if (edgecluster_count(c, words))
			return true;
		if (!flag_wait(&c->asks, seen + 1))
			return false;
	}
}

/* ---- the made-up services ----------------------------------------------------------------------------------------- */

static json_t *object(const struct rpc_request *r)
{
	json_t *o = json_loadb(r->body.p, r->body.n, 0, NULL);

	ck_assert_ptr_nonnull(o);
	return o;
}

static const char *text(const json_t *o, const char *name)
{
	const char *t = json_string_value(json_object_get(o, name));

	return t ? t : "";
}

static void answer(struct rpc_request *r, const char *json)
{
	if (r->handle)
		rpc_answer_ok(r->worker, r->handle, span_of(json, strlen(json)), NULL, 0);
}

static void keep(struct rpc_request *r, const char *json)
{
	cluster->held_worker = r->worker;
	cluster->held = r->handle;
	snprintf(cluster->held_answer, sizeof(cluster->held_answer), "%s", json);
	note("held", "it");
}

/* Whether the nonce is the uid's; then it is used. Made new in any case. */
static bool nonce_turn(const char *uid, const char *nonce, char out[32], size_t *at)
{
	size_t i = 0;

	while (i < 63 && *cluster->login[i].uid && strcmp(cluster->login[i].uid, uid) != 0)
		i++;
	bool fits = strcmp(cluster->login[i].nonce, nonce) == 0;
	snprintf(cluster->login[i].uid, sizeof(cluster->login[i].uid), "%s", uid);
	snprintf(cluster->login[i].nonce, sizeof(cluster->login[i].nonce), "n%llu",
		 (unsigned long long)++cluster->logins);
	snprintf(out, 32, "%s", cluster->login[i].nonce);
	*at = i;
	return fits;
}

static void on_login(void *arg, struct rpc_request *r)
{
	json_t *o = object(r);
	const char *uid = text(o, "uid"), *resume = text(o, "resume");
	char json[512], nonce[32], role[128] = "null";
	size_t at;

	(void)arg;
	note(json_is_true(json_object_get(o, "guest")) ? "login-guest" : "login", uid);
	bool fits = nonce_turn(uid, resume, nonce, &at);
	if (strncmp(uid, "none", 4) != 0)
		snprintf(role, sizeof(role), "{\"id\":1,\"name\":\"%s\",\"gold\":1000}", uid);
	snprintf(json, sizeof(json),
		 "{\"role\":%s,\"resume\":\"%s\",\"resumed\":%s,\"older_connector\":\"%s\",\"older_sid\":%llu}", role,
		 nonce, *resume ? "true" : "false", *resume ? cluster->login[at].connector : "",
		 (unsigned long long)cluster->login[at].sid);
	cluster->login[at].sid = cluster->login_sid = (uint64_t)json_integer_value(json_object_get(o, "sid"));
	snprintf(cluster->login[at].connector, sizeof(cluster->login[at].connector), "%s", text(o, "connector"));
	if (strncmp(uid, "living", 6) == 0)
		answer(r, "{\"refused\":true,\"message\":\"already here\"}");
	else if (strncmp(uid, "denied", 6) == 0 || (*resume && !fits))
		rpc_answer_err(r->worker, r->handle, ERR_DENIED, EFFECT_NONE, "not you");
	else if (strncmp(uid, "slow", 4) == 0)
		keep(r, json);
	else
		answer(r, json);
	json_decref(o);
}

static void on_logout(void *arg, struct rpc_request *r)
{
	json_t *o = object(r);

	(void)arg;
	note("logout", text(o, "uid"));
	if (json_is_true(json_object_get(o, "kicked")))
		note("void", text(o, "uid"));
	answer(r, "{}");
	json_decref(o);
}

static void on_announce(void *arg, struct rpc_request *r)
{
	json_t *o = object(r), *one;
	size_t i;

	(void)arg;
	for (i = 0; (one = json_array_get(json_object_get(o, "online"), i)); i++)
		note("announce", text(one, "uid"));
	if (json_is_true(json_object_get(o, "last")))
		note("announced", text(o, "connector"));
	answer(r, "{}");
	json_decref(o);
}

static void on_add(void *arg, struct rpc_request *r)
{
	json_t *o = object(r), *member = json_object_get(o, "member");
	char json[300];

	(void)arg;
	note("add", text(member, "uid"));
	note("room", text(o, "rid"));
	snprintf(json, sizeof(json), "{\"users\":[\"%s\",\"other\"]}", text(member, "name"));
	answer(r, json);
	json_decref(o);
}

static void on_remove(void *arg, struct rpc_request *r)
{
	json_t *o = object(r);

	(void)arg;
	note("remove", text(o, "uid"));
	answer(r, "{}");
	json_decref(o);
}

static void on_scene_enter(void *arg, struct rpc_request *r)
{
	json_t *o = object(r);
	char value[24], json[64];
	int scene = (int)json_integer_value(json_object_get(o, "scene"));
	struct rpc_attr attr = { .name = span_of("scene", 5) };

	(void)arg;
	cluster->sid = r->sid;
	snprintf(cluster->connector_id, sizeof(cluster->connector_id), "%s", r->instance);
	attr.value = span_of(value, (size_t)snprintf(value, sizeof(value), "%d", scene));
	snprintf(json, sizeof(json), "{\"code\":200,\"scene\":%d}", scene);
	if (scene == 99)
		keep(r, json);
	else
		rpc_answer_ok(r->worker, r->handle, span_of(json, strlen(json)), &attr, 1);
	json_decref(o);
}

static void on_move(void *arg, struct rpc_request *r)
{
	char json[200];

	(void)arg;
	snprintf(json, sizeof(json), "{\"code\":200,\"key\":\"%.*s\",\"uid\":\"%.*s\"}", (int)r->key.n, r->key.p,
		 (int)r->uid.n, r->uid.p);
	answer(r, json);
}

static void on_attack(void *arg, struct rpc_request *r)
{
	(void)arg;
	rpc_answer_err(r->worker, r->handle, ERR_FAILED, EFFECT_UNKNOWN, "the handler \"raised\"");
}

static void on_echo(void *arg, struct rpc_request *r)
{
	(void)arg;
	rpc_answer_ok(r->worker, r->handle, r->body, NULL, 0);
}

static void on_verify(void *arg, struct rpc_request *r)
{
	json_t *o = object(r);
	char json[100];

	(void)arg;
	int rank = strncmp(text(o, "account"), "rank", 4) == 0 ? atoi(text(o, "account") + 4) : 0;
	snprintf(json, sizeof(json), "{\"uid\":\"%s:%s\",\"rank\":%d}", text(o, "platform"), text(o, "account"), rank);
	if (strcmp(text(o, "credential"), "good") == 0)
		answer(r, json);
	else
		rpc_answer_err(r->worker, r->handle, ERR_DENIED, EFFECT_NONE, "the credential is wrong");
	json_decref(o);
}

static void on_news(void *arg, struct rpc_request *r)
{
	struct rpc_attr attr = { .name = span_of("scene", 5), .value = span_of("7", 1) };
	json_t *o = object(r);
	char json[200];

	(void)arg;
	snprintf(json, sizeof(json), "{\"code\":200,\"words\":[\"key %.*s\",\"uid %.*s\"]}", (int)r->key.n, r->key.p,
		 (int)r->uid.n, r->uid.p);
	if (strcmp(text(o, "text"), "wait") == 0)
		keep(r, json);
	else
		rpc_answer_ok(r->worker, r->handle, span_of(json, strlen(json)), &attr, 1);
	json_decref(o);
}

static int made_up_start(struct worker *w)
{
	static const struct {
		const char *name;
		rpc_handler *fn;
	} all[] = {
		{ "role.roleRemote.login", on_login },       { "role.roleRemote.logout", on_logout },
		{ "role.roleRemote.announce", on_announce }, { "chat.chatRemote.add", on_add },
		{ "chat.chatRemote.remove", on_remove },     { "scene.sceneHandler.enter", on_scene_enter },
		{ "scene.sceneHandler.move", on_move },      { "scene.sceneHandler.attack", on_attack },
		{ "scene.sceneHandler.echo", on_echo },      { "platform.platformRemote.verify", on_verify },
		{ "calls.boxHandler.news", on_news },        { "calls.boxHandler.say", on_echo },
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		const struct msg_method *m = schema_method(w->service->schema, all[i].name, strlen(all[i].name));
		if (m && strcmp(m->service, w->service->def->name) == 0)
			rpc_handle(w, m, all[i].fn, NULL);
	}
	return 0;
}

static const struct service_def role_def = { .name = "role", .worker_start = made_up_start };
static const struct service_def chat_def = { .name = "chat", .worker_start = made_up_start };
static const struct service_def scene_def = { .name = "scene", .worker_start = made_up_start };
static const struct service_def calls_def = { .name = "calls", .worker_start = made_up_start };
static const struct service_def platform_def = { .name = "platform", .worker_start = made_up_start };

static void release(void *arg)
{
	struct edgecluster *c = arg;
	struct rpc_attr attr = { .name = span_of("scene", 5), .value = span_of("99", 2) };
	struct service *s = c->held_worker->service;

	rpc_answer_ok(c->held_worker, c->held, span_of(c->held_answer, strlen(c->held_answer)), &attr,
		      s == c->scene || s == c->calls);
}

void edgecluster_release(struct edgecluster *c)
{
	ck_assert(edgecluster_asked(c, "held it;"));
	loop_call(c->held_worker->loop, release, c);
}

/* ---- calls to the connectors --------------------------------------------------------------------------------------- */

struct wish {
	struct edgecluster *c;
	const char *method, *connector, *route;
	int worker;
	const char *json;
	struct buf bytes;
	struct flag done;
	char answer[512];
};

static void wish_answered(void *arg, const struct rpc_answer *a)
{
	struct wish *w = arg;

	if (a->err < 0)
		snprintf(w->answer, sizeof(w->answer), "%s", err_word(a->err));
	else
		snprintf(w->answer, sizeof(w->answer), "%.*s", (int)a->body.n, a->body.p);
	flag_raise(&w->done);
}

static void wish_call(void *arg)
{
	struct wish *w = arg;
	struct service *s = w->c->scene;
	struct rpc_call call = {
		.method = schema_method(s->schema, w->method, strlen(w->method)),
		.to = { .instance = w->connector, .worker = w->worker },
		.json = w->json != NULL,
		.body = w->json ? span_of(w->json, strlen(w->json)) : span_of(w->bytes.data, w->bytes.len),
		.on_answer = wish_answered,
		.arg = w,
	};

	rpc_call(s->worker[0], &call);
}

static void wish_do(struct wish *w)
{
	flag_init(&w->done);
	loop_call(w->c->scene->worker[0]->loop, wish_call, w);
	ck_assert(flag_wait(&w->done, 1));
	buf_release(&w->bytes);
}

const char *edgecluster_call(struct edgecluster *c, const char *method, const char *connector, uint64_t sid,
			     const char *json)
{
	static struct wish w;

	w = (struct wish){ .c = c, .method = method, .connector = connector, .worker = (int)(sid >> 48), .json = json };
	wish_do(&w);
	return w.answer;
}

static void field_add(struct buf *b, unsigned number, const void *p, size_t n)
{
	size_t left = n;

	buf_addch(b, (char)(number << 3 | 2));
	for (; left >= 128; left >>= 7)
		buf_addch(b, (char)(left | 128));
	buf_addch(b, (char)left);
	buf_add(b, p, n);
}

static void push(struct edgecluster *c, const char *connector, const uint64_t *sids, size_t n, const char *route,
		 const char *body, const char *supersedes)
{
	struct wish w = { .c = c,
			  .method = "connector.connectorRemote.push",
			  .connector = connector,
			  .worker = (int)(sids[0] >> 48) };

	field_add(&w.bytes, 1, sids, n * 8);
	field_add(&w.bytes, 2, route, strlen(route));
	field_add(&w.bytes, 3, body, strlen(body));
	if (supersedes)
		field_add(&w.bytes, 4, supersedes, strlen(supersedes));
	wish_do(&w);
	ck_assert_str_eq(w.answer, "");
}

void edgecluster_push(struct edgecluster *c, const char *connector, const uint64_t *sids, size_t n, const char *route,
		      const char *body)
{
	push(c, connector, sids, n, route, body, NULL);
}

void edgecluster_push_named(struct edgecluster *c, const char *connector, uint64_t sid, const char *route,
			    const char *body, const char *supersedes)
{
	push(c, connector, &sid, 1, route, body, supersedes);
}

/* ---- life --------------------------------------------------------------------------------------------------------------- */

/* Returns the players' port; 0: it has none. */
static uint16_t row(struct edgecluster *c, struct buf *b, const char *id, const char *service, bool client)
{
	uint16_t port = client ? ports_hold(&c->ports) : 0;

	buf_addf(b, "{ id = \"%s\", service = \"%s\", client = %u, ", id, service, port);
	buf_addf(b, "rpc = %u, http = %u },\n", ports_hold(&c->ports), client ? ports_hold(&c->ports) : 0);
	return port;
}

static void config_write(struct edgecluster *c, const struct edgecluster_options *o)
{
	struct buf b = BUF_INIT;
	char root[512], path[600];

	ck_assert_ptr_nonnull(getcwd(root, sizeof(root)));
	buf_addstr(&b, "local c = { instances = {\n");
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "gate-%d", i + 1);
		if (i == 0 || o->two_gates)
			c->gate_port[i] = row(c, &b, path, "gate", true);
		snprintf(path, sizeof(path), "connector-%d", i + 1);
		c->connector_port[i] = row(c, &b, path, "connector", true);
	}
	row(c, &b, "role-1", "role", false);
	row(c, &b, "chat-1", "chat", false);
	row(c, &b, "scene-1", "scene", false);
	row(c, &b, "platform-1", "platform", false);
	if (o->calls)
		row(c, &b, "calls-1", "calls", false);
	buf_addf(&b, "},\npaths = { var = \"%s/var\", messages = \"%s/build/%s.desc\" },\n", c->dir, root,
		 o->calls ? "tests" : "loquat");
	buf_addf(&b, "log = { level = \"%s\" },\n", getenv("TEST_LOG") ? getenv("TEST_LOG") : "error");
	buf_addf(&b, "%s\n", o->lua ? o->lua : "");
	buf_addstr(&b, "}\nfor _, name in ipairs { \"gate\", \"connector\" } do\n  c[name] = c[name] or {}\n");
	buf_addstr(&b, "  c[name].heartbeat_s = 60 -- the tests' clients send none\n");
	buf_addf(&b, "  c[name].threads = %u\nend\nreturn c\n", o->threads ? o->threads : 1);
	folder_write(c->dir, "cluster.lua", b.data, b.len);
	buf_release(&b);
}

static void start(struct edgecluster *c, const struct service_def *def, const char *instance, struct service **out)
{
	struct service_options o = { .config_file = c->config, .instance = instance };
	char error[600] = "";

	ck_assert_msg(service_start(c->env, def, &o, error, sizeof(error), out) == 0, "%s: %s", instance, error);
}

void edgecluster_begin(struct edgecluster *c, struct service **s, const char *instance)
{
	static const struct service_def *const all[] = { &role_def,     &chat_def,     &scene_def,        &calls_def,
							 &platform_def, &gate_service, &connector_service };

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (strncmp(all[i]->name, instance, strlen(all[i]->name)) == 0)
			start(c, all[i], instance, s);
}

void edgecluster_end(struct edgecluster *c, struct service **s)
{
	(void)c;
	if (!*s)
		return;
	service_stop(*s);
	loop_join((*s)->control); /* its thread ends when all has ended; Check's limit bounds the wait */
	service_free(*s);
	*s = NULL;
}

static bool is_state(struct service *s, int state)
{
	return atomic_load(&s->state) == state;
}

/* The same cluster's file, but for that. */
static void config_with_threads(struct edgecluster *c, unsigned threads)
{
	struct buf b = BUF_INIT;
	char *text;
	size_t n;

	ck_assert_int_eq(env_file_load(c->env, c->config, 1 << 20, &text, &n), 0);
	char *at = strstr(text, "  c[name].threads");
	ck_assert_ptr_nonnull(at);
	buf_add(&b, text, (size_t)(at - text));
	buf_addf(&b, "  c[name].threads = %u\nend\nreturn c\n", threads);
	folder_write(c->dir, "other.lua", b.data, b.len);
	buf_release(&b);
	free(text);
}

const char *edgecluster_upgrade(struct edgecluster *c, int i, unsigned threads)
{
	static char why[600];
	struct service *old = c->connector[i], *new;
	char path[360], id[32];

	snprintf(id, sizeof(id), "connector-%d", i + 1);
	snprintf(path, sizeof(path), "%s", c->config);
	if (threads) {
		snprintf(path, sizeof(path), "%s/other.lua", c->dir);
		config_with_threads(c, threads);
	}
	struct service_options o = { .config_file = path, .instance = id, .take_over = true };

	why[0] = '\0';
	if (service_start(c->env, &connector_service, &o, why, sizeof(why), &new) < 0)
		return why;
	why[0] = '\0'; /* it may hold a warning */
	while (!is_state(new, SERVICE_STOPPED) && !is_state(old, SERVICE_STOPPED))
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	if (is_state(new, SERVICE_STOPPED)) {
		loop_join(new->control);
		snprintf(why, sizeof(why), "%s", service_failure(new));
		service_free(new);
		return why;
	}
	loop_join(old->control);
	service_free(old);
	c->connector[i] = new;
	return why;
}

void edgecluster_ready(struct service *s)
{
	for (int i = 0; i < 60000 && atomic_load(&s->state) != SERVICE_READY; i++)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	ck_assert_msg(atomic_load(&s->state) == SERVICE_READY, "%s is not ready: %s", s->id, service_failure(s));
}

static bool takes_connections(uint16_t port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	bool ok = connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
	close(fd);
	return ok;
}

void edgecluster_gate_spawn(struct edgecluster *c)
{
	c->gate_pid = fork();
	ck_assert_int_ge(c->gate_pid, 0);
	if (!c->gate_pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execl("build/bin/gate", "gate", "--config", c->config, "--instance", "gate-1", NULL);
		_exit(127);
	}
	for (int i = 0; i < 60000 && !takes_connections(c->gate_port[0]); i++)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}

void edgecluster_gate_kill(struct edgecluster *c)
{
	kill(c->gate_pid, SIGKILL);
	waitpid(c->gate_pid, NULL, 0);
	c->gate_pid = 0;
}

void edgecluster_start(struct edgecluster *c, const struct edgecluster_options *o)
{
	memset(c, 0, sizeof(*c));
	cluster = c;
	pthread_mutex_init(&c->lock, NULL);
	flag_init(&c->asks);
	char *dir = folder_new();
	snprintf(c->dir, sizeof(c->dir), "%s", dir);
	free(dir);
	snprintf(c->config, sizeof(c->config), "%s/cluster.lua", c->dir);
	config_write(c, o);
	c->env = env_new();
	edgecluster_begin(c, &c->role, "role-1");
	edgecluster_begin(c, &c->chat, "chat-1");
	edgecluster_begin(c, &c->scene, "scene-1");
	edgecluster_begin(c, &c->platform, "platform-1");
	if (o->calls)
		edgecluster_begin(c, &c->calls, "calls-1");
	edgecluster_begin(c, &c->connector[0], "connector-1");
	edgecluster_begin(c, &c->connector[1], "connector-2");
	if (o->gate_process)
		edgecluster_gate_spawn(c);
	else
		edgecluster_begin(c, &c->gate[0], "gate-1");
	if (o->two_gates)
		edgecluster_begin(c, &c->gate[1], "gate-2");
	if (c->gate[0])
		edgecluster_ready(c->gate[0]);
	if (o->two_gates)
		edgecluster_ready(c->gate[1]);
	edgecluster_ready(c->connector[0]);
	edgecluster_ready(c->connector[1]);
	ck_assert(edgecluster_asked(c, "announced connector-1;"));
	ck_assert(edgecluster_asked(c, "announced connector-2;"));
}

void edgecluster_stop(struct edgecluster *c)
{
	struct service **all[] = { &c->gate[0], &c->gate[1], &c->connector[0], &c->connector[1], &c->role,
				   &c->chat,    &c->scene,   &c->platform,     &c->calls };

	if (c->gate_pid)
		edgecluster_gate_kill(c);
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		edgecluster_end(c, all[i]);
	ports_release(&c->ports);
	env_free(c->env);
	buf_release(&c->asked);
	folder_free(strdup(c->dir));
}
