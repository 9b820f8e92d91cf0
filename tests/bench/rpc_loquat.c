/*
 * rpc_loquat: calls of rpc/ between two instances: a real service process on each side, with everything a call has there:
 * the table of calls, a deadline, the route by key, the proof of the cluster key, statistics per method.
 *
 * usage: rpc_loquat --flight N --seconds S [--poll] [--lua] [--once]
 *        --poll: both workers poll 50 us before they sleep    --lua: both sides are Lua
 *        --once: a once-method, whose answers the library keeps until they are acknowledged
 */
#include <arpa/inet.h>
#include <ftw.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include "tests/bench/rpc_load.h"
#include <lauxlib.h>
#include "common/buf.h"
#include "common/err.h"
#include "common/luahost.h"
#include "rpc/app_private.h"
#include "rpc/once.h"
#include "rpc/service.h"

#define KEY "player-7"

struct run {
	struct load load;
	char dir[64];
	int port;
	struct worker *worker; /* the client's */
	const struct msg_method *method;
	char body[LOAD_BODY];
	struct inbox_msg begin;
};

static struct run *run_of(struct worker *w)
{
	return w->service->user;
}

static const struct msg_method *method_of(struct worker *w, bool once)
{
	const char *name = once ? "calls.boxRemote.once" : "calls.boxRemote.put";
	return schema_method(w->service->schema, name, strlen(name));
}

/* A Text whose text fills the 50 bytes. */
static void body_fill(char body[LOAD_BODY])
{
	memset(body, 'x', LOAD_BODY);
	body[0] = 1 << 3 | 2;
	body[1] = LOAD_BODY - 2;
}

/* ---- the server ------------------------------------------------------------------------------------------- */

static void on_request(void *arg, struct rpc_request *r)
{
	(void)arg;
	rpc_answer_ok(r->worker, r->handle, r->body, NULL, 0);
}

/* What rpc/app_once.c does around a method, but for the record in the log. */
static void on_once(void *arg, struct rpc_request *r)
{
	struct once_server *s = arg;
	struct once_call c = {
		.owner = r->key,
		.method = { r->method->local, r->method->local_n },
		.client = r->client,
		.seq = r->once_seq,
		.first_incomplete = r->once_first,
		.attempt = r->once_attempt,
		.fingerprint = once_fingerprint(0, r->body.p, r->body.n),
	};
	struct once_result result;
	if (once_ask(s, &c, r->worker->loop->now_ms, &result) != ONCE_RUN)
		exit(2);
	once_done(s, result.entry, false, r->body);
	rpc_answer_ok(r->worker, r->handle, r->body, NULL, 0);
}

static int server_start(struct worker *w)
{
	rpc_handle(w, method_of(w, false), on_request, NULL);
	rpc_handle(w, method_of(w, true), on_once, once_server_new(&(struct once_options){ .lease_ms = 60000 }));
	return 0;
}

static int lua_init(struct service *s)
{
	return service_lua(s, s->def->name);
}

static const struct service_def server_c = { .name = "calls", .worker_start = server_start };
static const struct service_def server_lua = { .name = "calls", .init_service = lua_init };

/* ---- the client in C --------------------------------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *where)
{
	(void)st, (void)kind, (void)where;
	return remove(path);
}

static void finish(struct run *r)
{
	load_report(&r->load);
	nftw(r->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	_exit(0);
}

static void on_answer(void *arg, const struct rpc_answer *a);

static void call(struct run *r, uint64_t *sent_ns)
{
	struct rpc_call c = {
		.method = r->method,
		.to = { .worker = -1, .key = { KEY, sizeof KEY - 1 } },
		.body = { r->body, sizeof r->body },
		.on_answer = on_answer,
		.arg = sent_ns,
	};
	*sent_ns = load_sent(&r->load);
	rpc_call(r->worker, &c);
}

/* Each call's argument is its place in sent_ns; the run itself stands before the first. */
struct places {
	struct run *run;
	uint64_t sent_ns;
};

static void on_answer(void *arg, const struct rpc_answer *a)
{
	struct places *p = (struct places *)((char *)arg - offsetof(struct places, sent_ns));
	if (a->err < 0 || a->body.n != LOAD_BODY) {
		fprintf(stderr, "rpc_loquat: %s: %.*s\n", err_word(a->err), (int)a->message.n, a->message.p);
		exit(2);
	}
	if (!load_answered(&p->run->load, p->sent_ns))
		finish(p->run);
	call(p->run, &p->sent_ns);
}

static void begin(struct inbox_msg *m)
{
	struct run *r = (struct run *)((char *)m - offsetof(struct run, begin));
	struct places *p = calloc(r->load.flight, sizeof *p);
	for (unsigned i = 0; i < r->load.flight; i++) {
		p[i].run = r;
		call(r, &p[i].sent_ns);
	}
}

static int client_start(struct worker *w)
{
	struct run *r = run_of(w);
	r->worker = w;
	r->method = method_of(w, r->load.once);
	body_fill(r->body);
	r->begin.run = begin;
	loop_post(w->loop, &r->begin);
	return 0;
}

/* ---- the client in Lua --------------------------------------------------------------------------------------- */

static struct run *run_of_lua(lua_State *L)
{
	return lua_touserdata(L, lua_upvalueindex(1));
}

static int lua_sent(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)load_sent(&run_of_lua(L)->load));
	return 1;
}

static int lua_answered(lua_State *L)
{
	struct run *r = run_of_lua(L);
	if (!load_answered(&r->load, (uint64_t)lua_tointeger(L, 1)))
		finish(r);
	return 0;
}

static int lua_open_load(lua_State *L)
{
	static const luaL_Reg functions[] = { { "sent", lua_sent }, { "answered", lua_answered }, { NULL, NULL } };
	struct app *a = luahost_user(luahost_of(L));
	struct run *r = run_of(a->worker);
	luaL_newlibtable(L, functions);
	lua_pushlightuserdata(L, r);
	luaL_setfuncs(L, functions, 1);
	lua_pushinteger(L, r->load.flight);
	lua_setfield(L, -2, "flight");
	return 1;
}

static const struct service_library libraries[] = { { "load", lua_open_load }, { NULL, NULL } };
static const struct service_def client_c = { .name = "caller", .worker_start = client_start };
static const struct service_def client_lua = { .name = "caller", .init_service = lua_init, .libraries = libraries };

/* ---- both ------------------------------------------------------------------------------------------------------ */

static const char server_script[] = "local Remote = {}\n"
				    "function Remote.put(args) return { text = args.text } end\n"
				    "return Remote\n";
static const char client_script[] = "local load = load\n"
				    "local put = app.rpc.calls.boxRemote.put\n"
				    "local text = string.rep('x', 48)\n"
				    "local function again()\n"
				    "  while true do\n"
				    "    local sent = load.sent()\n"
				    "    local answer, why, message = put('" KEY "', { text = text })\n"
				    "    if not answer then error(why .. ': ' .. message) end\n"
				    "    load.answered(sent)\n"
				    "  end\n"
				    "end\n"
				    "return { init_service = function()\n"
				    "  for _ = 1, load.flight do app.task(again) end\n"
				    "end }\n";

static int free_port(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	socklen_t size = sizeof a;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || getsockname(fd, (struct sockaddr *)&a, &size) < 0)
		load_die("a free port");
	close(fd);
	return ntohs(a.sin_port);
}

static void file_write(const struct run *r, const char *name, const char *text, size_t n)
{
	char path[160];
	FILE *file;
	snprintf(path, sizeof path, "%s/%s", r->dir, name);
	*strrchr(path, '/') = '\0';
	mkdir(path, 0700);
	path[strlen(path)] = '/';
	if (!(file = fopen(path, "w")) || fwrite(text, 1, n, file) != n || fclose(file) != 0)
		load_die(path);
}

static void dir_make(struct run *r)
{
	const char *tmp = getenv("TMPDIR");
	snprintf(r->dir, sizeof r->dir, "%s/loquat-bench-XXXXXX", tmp && strlen(tmp) < 32 ? tmp : "/tmp");
	if (!mkdtemp(r->dir))
		load_die(r->dir);
}

static void config_write(struct run *r)
{
	struct buf b = BUF_INIT;
	char root[512];
	int poll_us = r->load.poll ? 50 : 0;
	if (!getcwd(root, sizeof root))
		load_die("the working folder");
	r->port = free_port();
	buf_addf(&b,
		 "return { instances = {\n"
		 "{ id = 'calls-1', service = 'calls', rpc = %d },\n"
		 "{ id = 'caller-1', service = 'caller', rpc = %d } },\n"
		 "paths = { var = '%s/var', messages = '%s/build/tests.desc' }, log = { level = 'warn' },\n"
		 "calls = { poll_us = %d }, caller = { poll_us = %d } }\n",
		 r->port, free_port(), r->dir, root, poll_us, poll_us);
	file_write(r, "deploy/cluster.lua", b.data, b.len);
	buf_release(&b);
}

static struct service *start(struct run *r, const struct service_def *def, const char *instance)
{
	struct service *s;
	char error[600], file[600];
	snprintf(file, sizeof file, "%s/deploy/cluster.lua", r->dir);
	struct service_options o = { .config_file = file, .instance = instance, .user = r };
	if (service_start(env_new(), def, &o, error, sizeof error, &s) < 0) {
		fprintf(stderr, "%s\n", error);
		exit(2);
	}
	return s;
}

static void serve(struct load *l, int told)
{
	struct run *r = (struct run *)((char *)l - offsetof(struct run, load));
	struct service *s = start(r, l->lua ? &server_lua : &server_c, "calls-1");
	while (atomic_load(&s->state) == SERVICE_STARTING)
		usleep(1000);
	if (write(told, &r->port, sizeof r->port) < 0)
		exit(2);
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	struct run r = { 0 };
	int told;
	load_options(&r.load, argc, argv);
	dir_make(&r);
	if (r.load.lua) {
		file_write(&r, "calls/boxRemote.lua", server_script, sizeof server_script - 1);
		file_write(&r, "caller/init.lua", client_script, sizeof client_script - 1);
	}
	config_write(&r);
	load_fork(&r.load, serve, &told);
	load_port(told);
	start(&r, r.load.lua ? &client_lua : &client_c, "caller-1");
	for (;;)
		pause();
}
