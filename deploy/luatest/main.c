/* luatest: the tests of a service's Lua, one after another, each in a world of its own. */
#include <getopt.h>
#include <glob.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/err.h"
#include "deploy/luatest/luatest.h"
#include "deploy/luatest/plan.h"
#include "deploy/luatest/report.h"
#include "rpc/service_config.h"

struct options {
	const char *config_file, *service, *word;
	bool tap, no_cover;
};

static int complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int complain(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fputs("loquat: test: ", stderr);
	vfprintf(stderr, fmt, args);
	fputc('\n', stderr);
	va_end(args);
	return 2;
}

/* ---- what all tests share --------------------------------------------------------------------------------- */

static void find_home(char home[ENV_PATH_MAX])
{
	ssize_t n = readlink("/proc/self/exe", home, ENV_PATH_MAX - 1);

	home[n > 0 ? n : 0] = '\0';
	for (int up = 0; up < 3; up++) {
		char *slash = strrchr(home, '/');

		if (slash)
			*slash = '\0';
	}
}

static char *load(struct tester *t, const char *path, size_t *n)
{
	char *text;
	int err = env_file_load(t->env, path, 16 << 20, &text, n);

	if (err < 0)
		exit(complain("%s/%s: %s", t->home, path, err_text(err)));
	return text;
}

static void load_tables(struct tester *t)
{
	glob_t files;
	size_t n;

	if (glob("deploy/schema/*.sql", 0, NULL, &files) != 0)
		return;
	t->ddl = calloc(files.gl_pathc, sizeof *t->ddl);
	for (size_t i = 0; t->ddl && i < files.gl_pathc; i++)
		t->ddl[t->ddl_n++] = load(t, files.gl_pathv[i], &n);
	globfree(&files);
}

static int load_scripts(struct tester *t, const char *service)
{
	char folder[ENV_PATH_MAX + 64], error[512];
	const char *folders[] = { folder, NULL };

	snprintf(folder, sizeof folder, "%s/lua", service);
	if (access(folder, R_OK) < 0)
		return complain("there is no service %s with Lua: %s/%s is not there", service, t->home, folder);
	if (luasrc_read_tests(t->env, folders, error, sizeof error, &t->src) < 0)
		return complain("%s", error);
	return 0;
}

static int load_config(struct tester *t, const struct options *o)
{
	char error[512];

	if (service_config_load(t->env, o->config_file, t->def.name, t->def.config, error, sizeof error, &t->config) <
		    0 ||
	    route_from_config(t->config, true, error, sizeof error, &t->routes) < 0)
		return complain("%s", error);
	return 0;
}

static int by_text(const void *a, const void *b)
{
	uintptr_t x = (uintptr_t)((const struct compiled *)a)->text, y = (uintptr_t)((const struct compiled *)b)->text;

	return (x > y) - (x < y);
}

static void list_texts(struct tester *t)
{
	size_t n = luasrc_files(t->src);

	t->compiled = calloc(n + 1, sizeof *t->compiled);
	if (!t->compiled)
		return;
	for (size_t i = 0; i < n; i++)
		t->compiled[i].text = luasrc_at(t->src, i)->text;
	t->compiled[n].text = t->prelude;
	t->compiled_n = n + 1;
	qsort(t->compiled, t->compiled_n, sizeof *t->compiled, by_text);
}

struct compiled *tester_compiled(struct tester *t, const char *text)
{
	struct compiled key = { .text = text };

	return bsearch(&key, t->compiled, t->compiled_n, sizeof key, by_text);
}

static void add_libraries(struct tester *t)
{
	size_t n = 0;

	for (const struct service_library *l = t->def.libraries; l && l->name && n < 15; l++)
		t->libraries[n++] = *l;
	t->libraries[n++] = (struct service_library){ "test", test_library };
	t->libraries[n] = (struct service_library){ NULL, NULL };
	t->def.libraries = t->libraries;
}

static int open_tester(struct tester *t, const struct options *o)
{
	const struct service_def *def = luatest_service(o->service);
	char error[512], *schema;
	size_t n;

	if (def)
		t->def = *def;
	else
		t->def = (struct service_def){ .name = o->service, .sqllog = true };
	snprintf(t->id, sizeof t->id, "%.24s-1", o->service);
	snprintf(t->row.id, sizeof t->row.id, "%s", t->id);
	snprintf(t->row.service, sizeof t->row.service, "%.31s", o->service);
	t->row.workers = 1;
	t->metrics = metrics_new(t->id);
	if (load_config(t, o) || load_scripts(t, o->service))
		return 2;
	const char *messages = config_string(t->config, "paths.messages", "build/loquat.desc");

	schema = load(t, messages, &n);
	int err = schema_load(schema, n, error, sizeof error, &t->schema);

	free(schema);
	if (err < 0)
		return complain("%s: %s", messages, error);
	t->prelude = load(t, "deploy/luatest/test.lua", &t->prelude_n);
	load_tables(t);
	list_texts(t);
	add_libraries(t);
	t->cover = o->no_cover ? NULL : cover_new(t->src);
	return 0;
}

static void close_tester(struct tester *t)
{
	cover_free(t->cover);
	for (size_t i = 0; i < t->ddl_n; i++)
		free(t->ddl[i]);
	free(t->ddl);
	for (size_t i = 0; i < t->compiled_n; i++)
		buf_release(&t->compiled[i].code);
	free(t->compiled);
	free(t->prelude);
	luasrc_unref(t->src);
	schema_free(t->schema);
	route_unref(t->routes);
	config_free(t->config);
	metrics_free(t->metrics);
	env_free(t->env);
}

/* ---- all tests, in order ------------------------------------------------------------------------------------- */

static void add_item(struct plan *p, const char *module, int index, const char *name)
{
	p->item = realloc(p->item, (p->items + 1) * sizeof *p->item);
	if (!p->item)
		abort();
	p->item[p->items++] = (struct item){ module, strdup(name), index };
}

static bool is_wanted(const struct options *o, const char *module, const char *name)
{
	return !o->word || strstr(name, o->word) || strstr(module, o->word);
}

/* The names, as a fresh world lists them. A file that cannot be loaded is a test that fails. */
static void list_tests(struct tester *t, const char *module, const struct options *o, struct plan *p)
{
	struct world x;
	struct buf b = BUF_INIT;
	int n = world_open(&x, t) == 0 ? test_count(&x, module) : ERR_FAILED;

	if (n < 0)
		add_item(p, module, 0, "the file is loaded");
	for (int i = 1; i <= n; i++)
		if (is_wanted(o, module, test_name(&x, i, &b)))
			add_item(p, module, i, buf_cstr(&b));
	buf_release(&b);
	world_close(&x);
}

static void make_plan(struct tester *t, const struct options *o, struct plan *p)
{
	*p = (struct plan){ .tester = t };
	for (size_t i = 0; i < luasrc_files(t->src); i++) {
		const char *name = luasrc_at(t->src, i)->name;

		if (!strncmp(name, "tests.", 6))
			list_tests(t, name, o, p);
	}
}

static void on_result(void *arg, const struct item *item, struct outcome *out)
{
	report_test(arg, strchr(item->module, '.') + 1, item->name, out->ok, buf_cstr(&out->why), buf_cstr(&out->log),
		    out->took_us);
}

static int run_all(struct tester *t, const struct options *o)
{
	struct report r = { .tap = o->tap };
	struct cover_line line;
	struct plan p;
	uint64_t begun = now_us();

	report_begin(&r, o->service);
	make_plan(t, o, &p);
	plan_run(&p, on_result, &r);
	plan_release(&p);
	begun = now_us() - begun;
	if (t->cover && !o->word) {
		if (!o->tap)
			puts("\n  coverage");
		for (size_t i = 0; cover_file(t->cover, i, &line); i++)
			report_cover(&r, line.path, line.ran, line.lines, line.missing);
	}
	report_end(&r, begun);
	if (r.passed + r.failed == 0)
		return complain("%s/lua/tests holds no test%s%s", o->service, o->word ? " with " : "",
				o->word ? o->word : "");
	return r.failed ? 1 : 0;
}

static int read_options(int argc, char **argv, struct options *o)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "tap", no_argument, NULL, 't' },
		{ "no-coverage", no_argument, NULL, 'n' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	*o = (struct options){ .config_file = "deploy/cluster.lua" };
	opterr = 0;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'c')
			o->config_file = optarg;
		else if (c == 't')
			o->tap = true;
		else if (c == 'n')
			o->no_cover = true;
		else
			return complain("unknown option %s: expected SERVICE [WORD] [--tap] [--no-coverage]",
					argv[optind - 1]);
	}
	if (optind >= argc || optind + 2 < argc)
		return complain("expected SERVICE [WORD] [--tap] [--no-coverage]");
	o->service = argv[optind];
	o->word = argv[optind + 1];
	return 0;
}

int main(int argc, char **argv)
{
	struct options o;
	struct tester t = { .env = env_new() };
	int status = read_options(argc, argv, &o);

	if (status)
		return status;
	char *config = realpath(o.config_file, NULL);

	if (!config)
		return complain("%s: there is no such file", o.config_file);
	o.config_file = config;
	find_home(t.home);
	if (chdir(t.home) < 0)
		return complain("%s: it cannot be entered", t.home);
	status = open_tester(&t, &o);
	if (status == 0)
		status = run_all(&t, &o);
	close_tester(&t);
	free(config);
	return status;
}
