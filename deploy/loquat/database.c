#include "deploy/loquat/database.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "common/err.h"
#include "deploy/loquat/schema.h"

#define ANSWER_S 60 /* a recovery after kill -9 may take its time */
#define LOOK_MS  50

/* ---- the private server ------------------------------------------------------------------------------------------- */

const char *find_program(const char *name, char out[ENV_PATH_MAX])
{
	static const char *const folders[] = { "/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin",
					       "/usr/libexec" };

	for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
		snprintf(out, ENV_PATH_MAX, "%s/%s", folders[i], name);
		if (access(out, X_OK) == 0)
			return out;
	}
	return NULL;
}

static void absolute(const char *path, char out[ENV_PATH_MAX])
{
	char full[PATH_MAX];

	if (realpath(path, full) && strlen(full) < ENV_PATH_MAX)
		strcpy(out, full);
	else
		snprintf(out, ENV_PATH_MAX, "%s", path);
}

static const char *user_name(void)
{
	const struct passwd *p = getpwuid(getuid());

	return p ? p->pw_name : "root";
}

/* Runs a program to its end, what it says in a file. */
static int run_program(const char *const *argv, const char *words)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		int fd = open(words, O_WRONLY | O_CREAT | O_TRUNC, 0600);

		dup2(fd, 1);
		dup2(fd, 2);
		execvp(argv[0], (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int install(const char *folder)
{
	char program[ENV_PATH_MAX], data[ENV_PATH_MAX + 32], fresh[ENV_PATH_MAX + 32], words[ENV_PATH_MAX + 32];
	char data_option[ENV_PATH_MAX + 64], temporary_option[ENV_PATH_MAX + 16], user_option[96];
	struct stat st;

	snprintf(data, sizeof data, "%s/data", folder);
	if (stat(data, &st) == 0)
		return 0;
	if (!find_program("mariadb-install-db", program))
		return complain("mariadb-install-db is not installed: sudo apt-get install mariadb-server-core");
	snprintf(fresh, sizeof fresh, "%s/data.new", folder);
	snprintf(words, sizeof words, "%s/install.log", folder);
	snprintf(data_option, sizeof data_option, "--datadir=%s", fresh);
	snprintf(temporary_option, sizeof temporary_option, "--tmpdir=%s", folder); /* see database_describe */
	snprintf(user_option, sizeof user_option, "--user=%s", user_name());
	const char *const clear[] = { "rm", "-rf", fresh, NULL };
	const char *const make[] = { program,
				     "--no-defaults",
				     data_option,
				     temporary_option,
				     user_option,
				     "--auth-root-authentication-method=normal",
				     "--skip-test-db",
				     "--skip-name-resolve",
				     "--force", /* a machine without /etc/hosts has no name to look up */
				     NULL };

	printf("loquat: making the database in %s (once)\n", folder);
	fflush(stdout);
	/* renamed at the end: a first start that is cut leaves no half-made folder behind */
	if (run_program(clear, words) != 0 || run_program(make, words) != 0 || rename(fresh, data) < 0)
		return complain("the database could not be made: see %s", words);
	return 0;
}

int database_prepare(struct cluster *c)
{
	char program[ENV_PATH_MAX], folder[ENV_PATH_MAX + 16], full[ENV_PATH_MAX];

	if (!find_program("mariadbd", program))
		return complain(
			"mariadbd is not installed: sudo apt-get install mariadb-server-core mariadb-client-core");
	snprintf(folder, sizeof folder, "%s/mariadb", c->var);
	if (env_dir_make(c->env, folder) < 0)
		return complain("%s: %s", folder, env_last_error());
	absolute(folder, full);
	if (chmod(full, 0700) < 0) /* its socket lets in whoever reaches it */
		return complain("%s: %s", full, strerror(errno));
	snprintf(c->socket, sizeof c->socket, "%s/mysqld.sock", full);
	if (strlen(c->socket) >= sizeof((struct sockaddr_un *)0)->sun_path)
		return complain("paths.var: %s is too long for a unix socket (%zu bytes): choose a shorter folder",
				c->socket, sizeof((struct sockaddr_un *)0)->sun_path - 1);
	return install(full);
}

void database_describe(struct cluster *c, struct child *child)
{
	static const char *const fixed[] = {
		"--no-defaults",
		"--skip-networking",
		"--skip-name-resolve",
		"--skip-log-bin",
		"--character-set-server=utf8mb4",
		"--collation-server=utf8mb4_nopad_bin",
		"--innodb-buffer-pool-size=256M",
		"--innodb-log-file-size=128M",
		"--innodb-flush-log-at-trx-commit=1",
		"--max-connections=500",
		"--open-files-limit=4096",
		"--table-open-cache=1000",
		"--max-allowed-packet=64M",
	};
	enum { FIXED = sizeof fixed / sizeof *fixed, OURS = 6, TEXT_MAX = 2 * ENV_PATH_MAX };
	struct command {
		const char *argv[1 + FIXED + OURS + 1];
		char text[OURS][TEXT_MAX];
	} *k = calloc(1, sizeof *k);
	char full[ENV_PATH_MAX], folder[ENV_PATH_MAX + 16];

	assert(k);
	snprintf(folder, sizeof folder, "%s/mariadb", c->var);
	absolute(folder, full);
	find_program("mariadbd", child->program);
	k->argv[0] = "mariadbd";
	memcpy(k->argv + 1, fixed, sizeof fixed);
	snprintf(k->text[0], TEXT_MAX, "--datadir=%s/data", full);
	snprintf(k->text[1], TEXT_MAX, "--socket=%s", c->socket);
	snprintf(k->text[2], TEXT_MAX, "--pid-file=%s/mysqld.pid", full);
	snprintf(k->text[3], TEXT_MAX, "--log-error=%s/error.log", full);
	snprintf(k->text[4], TEXT_MAX, "--user=%s", user_name());
	/* In a shared folder a server that starts removes the temporary files of the others, which then fall. */
	snprintf(k->text[5], TEXT_MAX, "--tmpdir=%s", full);
	for (size_t i = 0; i < OURS; i++)
		k->argv[1 + FIXED + i] = k->text[i];
	child->argv = k->argv;
}

/* ---- its schema ------------------------------------------------------------------------------------------------------- */

struct database {
	struct cluster *c;
	struct loop *loop;
	struct env_db *db;
	struct env_db_options options;
	void (*on_ready)(void *arg, const char *why);
	void *arg;
	struct timer timer;
	uint64_t until_ms;
	char folder[ENV_PATH_MAX];
	struct schema *schema;
	unsigned applied; /* files, now */
	char why[2 * ENV_PATH_MAX + 128];
};

static void database_connect(struct database *d);

static void tell(struct database *d, const char *why)
{
	if (why)
		snprintf(d->why, sizeof d->why, "%s", why);
	d->on_ready(d->arg, why ? d->why : NULL);
}

/* A refused login will not get better by waiting; a server that is still starting will. */
static bool is_refused(const char *message)
{
	return strstr(message, "Access denied") || strstr(message, "not allowed to connect");
}

const char *database_cure(const struct cluster *c, const char *said, char out[320])
{
	const char *name = config_string(c->config, "database.name", "loquat");
	const char *user = config_string(c->config, "database.user", "root");

	if (strstr(said, "Access denied") && strstr(said, " to database "))
		snprintf(out, 320, "as its administrator: GRANT ALL ON `%.60s`.* TO '%.60s'@'%%'", name, user);
	else if (is_refused(said))
		snprintf(
			out, 320,
			"correct database.user and database.password, or as its administrator: CREATE USER '%.60s'@'%%' "
			"IDENTIFIED BY '…'; GRANT ALL ON `%.60s`.* TO '%.60s'@'%%'",
			user, name, user);
	else
		snprintf(out, 320, "correct database.* in the configuration, or start it");
	return out;
}

static void fail(struct database *d, const char *what, const struct env_db_result *r)
{
	char text[512], cure[320];

	snprintf(text, sizeof text, "%s: %s", what, r->message ? r->message : err_text(r->err));
	if (is_refused(text))
		snprintf(text + strlen(text), sizeof text - strlen(text), ": %s", database_cure(d->c, text, cure));
	tell(d, text);
}

static void on_schema(void *arg, const char *why, unsigned applied)
{
	struct database *d = arg;

	d->applied = applied;
	tell(d, why);
}

static void on_made(void *arg, const struct env_db_result *r)
{
	struct database *d = arg;

	if (r->err < 0)
		fail(d, "the schema", r);
	else
		d->schema = schema_apply(d->c->env, d->db, d->folder, on_schema, d);
}

static void make(struct database *d)
{
	const char *name = config_string(d->c->config, "database.name", "loquat");
	struct buf sql = BUF_INIT;

	buf_addf(&sql,
		 "CREATE DATABASE IF NOT EXISTS `%s` DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin; USE `%s`",
		 name, name);
	env_db_query(d->db, sql.data, sql.len, on_made, d);
	buf_release(&sql);
}

static void on_look_again(struct timer *t, uint64_t now_ms)
{
	(void)now_ms;
	database_connect((struct database *)((char *)t - offsetof(struct database, timer)));
}

static void on_open(void *arg, int err)
{
	struct database *d = arg;

	if (err == 0) {
		make(d);
		return;
	}
	char cure[320];

	snprintf(d->why, sizeof d->why, "the database does not let us in: %s", env_db_message(d->db));
	if (is_refused(d->why))
		snprintf(d->why + strlen(d->why), sizeof d->why - strlen(d->why), ": %s",
			 database_cure(d->c, d->why, cure));
	env_db_close(d->db);
	d->db = NULL;
	if (is_refused(d->why) || d->loop->now_ms >= d->until_ms)
		d->on_ready(d->arg, d->why);
	else
		loop_timer(d->loop, &d->timer, LOOK_MS);
}

static void database_connect(struct database *d)
{
	if (env_db_open(d->loop->ev, &d->options, on_open, d, &d->db) < 0)
		loop_timer(d->loop, &d->timer, LOOK_MS);
}

struct database *database_open(struct cluster *c, struct loop *loop, void (*on_ready)(void *arg, const char *why),
			       void *arg)
{
	struct database *d = calloc(1, sizeof *d);
	const char *host = config_string(c->config, "database.host", "");

	assert(d);
	*d = (struct database){ .c = c, .loop = loop, .on_ready = on_ready, .arg = arg };
	d->options = (struct env_db_options){
		.socket = *host ? NULL : c->socket,
		.host = *host ? host : NULL,
		.port = (uint16_t)config_int(c->config, "database.port", 3306),
		.user = config_string(c->config, "database.user", "root"),
		.password = config_string(c->config, "database.password", ""),
	};
	d->timer.fire = on_look_again;
	d->until_ms = loop->now_ms + ANSWER_S * 1000;
	cluster_path(c, "deploy/schema", d->folder);
	if (env_file_mtime_us(c->env, d->folder) < 0) /* a configuration elsewhere uses the installation's schema */
		snprintf(d->folder, sizeof d->folder, "%.490s/deploy/schema", c->home);
	database_connect(d);
	return d;
}

unsigned database_applied(const struct database *d)
{
	return d->applied;
}

const char *database_trouble(const struct database *d)
{
	return *d->why ? d->why : "the database does not answer";
}

void database_close(struct database *d)
{
	if (!d)
		return;
	loop_timer_stop(d->loop, &d->timer);
	env_db_close(d->db);
	schema_steps_free(d->schema);
	free(d);
}
