/* A log and its copy on another host: rpc/standby.h and dbwriter/copies.h, with a link between them that loses answers. */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "common/err.h"
#include "dbwriter/copies.h"
#include "dbwriter/follow.h"
#include "proto/dbwriter.pb-c.h"
#include "rpc/service_private.h"
#include "tests/support/folder.h"
#include "tests/support/on_loop.h"
#include "tests/support/records.h"
#include "tests/support/suite.h"

static struct env *env;
static struct loop *loop; /* of both hosts */
static struct log *lines;
static char *dir, log_dir[400], copy_dir[400];
static struct schema *schema;
static struct service writer, keeper;
static struct service_private writer_private;
static struct worker keeper_worker;
static struct sqllog *l;
static struct standby *standby;
static struct copies *copies;
static _Atomic unsigned lose; /* answers to come that get lost */
static _Atomic unsigned asked;

static char watched[440];       /* a file */
static _Atomic unsigned synced; /* so often since it is */

int fdatasync(int fd)
{
	char name[40], path[440] = "";
	snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
	if (readlink(name, path, sizeof path - 1) > 0 && !strcmp(path, watched))
		synced++;
	return (int)syscall(SYS_fdatasync, fd);
}

/* ---- the link ------------------------------------------------------------------------------------------------------ */

static struct {
	const struct msg_method *method;
	rpc_handler *fn;
	void *arg;
} handlers[2];
static struct call {
	const struct msg_method *method;
	struct buf body;
	void (*on_answer)(void *arg, const struct rpc_answer *a);
	void *arg;
	struct rpc_answer answer;
	char answer_body[64], message[100];
} under_way;
static uint64_t calls; /* the last one's handle */

void rpc_handle(struct worker *w, const struct msg_method *method, rpc_handler *fn, void *arg)
{
	unsigned i = handlers[0].fn != NULL;
	(void)w;
	handlers[i].method = method;
	handlers[i].fn = fn;
	handlers[i].arg = arg;
}

void rpc_answer_ok(struct worker *w, uint64_t handle, struct span body, const struct rpc_attr *attrs, unsigned n_attrs)
{
	(void)w, (void)handle, (void)attrs, (void)n_attrs;
	ck_assert_uint_le(body.n, sizeof under_way.answer_body);
	memcpy(under_way.answer_body, body.p, body.n);
	under_way.answer = (struct rpc_answer){ .body = span_of(under_way.answer_body, body.n) };
}

void rpc_answer_err(struct worker *w, uint64_t handle, int err, enum effect effect, const char *message)
{
	(void)w, (void)handle;
	snprintf(under_way.message, sizeof under_way.message, "%s", message);
	under_way.answer = (struct rpc_answer){ .err = err,
						.effect = effect,
						.message = span_of(under_way.message, strlen(under_way.message)) };
}

/* The keeper answers within. */
static void handle(const struct msg_method *method, struct span body)
{
	struct rpc_request r = { .worker = &keeper_worker, .method = method, .handle = 1, .body = body };
	under_way.answer.err = 1;
	for (unsigned i = 0; i < 2; i++)
		if (handlers[i].method == method)
			handlers[i].fn(handlers[i].arg, &r);
	ck_assert_int_le(under_way.answer.err, 0); /* it has answered */
}

static void deliver(void *arg)
{
	struct call c = under_way;
	if (*(uint64_t *)arg == calls && c.on_answer) {
		under_way.on_answer = NULL;
		handle(c.method, span_of(c.body.data, c.body.len));
		bool lost = lose && lose--;
		if (lost)
			rpc_answer_err(NULL, 0, ERR_UNAVAILABLE, EFFECT_UNKNOWN, "the link was cut");
		const struct rpc_answer answer = under_way.answer;
		c.on_answer(c.arg, &answer);
	}
	free(arg);
}

uint64_t rpc_call(struct worker *w, const struct rpc_call *c)
{
	uint64_t *handle_of = malloc(sizeof *handle_of);
	ck_assert_ptr_eq(w, &writer_private.control_worker);
	ck_assert_str_eq(c->to.instance, "dbwriter-2");
	buf_clear(&under_way.body);
	buf_add(&under_way.body, c->body.p, c->body.n);
	under_way.method = c->method;
	under_way.on_answer = c->on_answer;
	under_way.arg = c->arg;
	asked++;
	*handle_of = ++calls;
	loop_call(loop, deliver, handle_of);
	return calls;
}

bool rpc_cancel(struct worker *w, uint64_t handle_of)
{
	(void)w;
	if (handle_of == calls)
		under_way.on_answer = NULL;
	return true;
}

/* ---- the two hosts -------------------------------------------------------------------------------------------------- */

static void nothing(void *arg)
{
	(void)arg;
}

static void keep(void *arg)
{
	(void)arg;
	memset(handlers, 0, sizeof handlers);
	copies = copies_new(&keeper_worker, copy_dir, nothing, NULL);
}

static void keep_no_more(void *arg)
{
	(void)arg;
	copies_free(copies);
	copies = NULL;
}

static void open_log(uint64_t file_bytes)
{
	struct sqllog_options o = {
		.folder = log_dir, .file_bytes_max = file_bytes, .linger_us = 0, .workers = 1, .replicated = true
	};
	char error[300] = "";
	ck_assert_msg(sqllog_open(env, lines, NULL, &o, error, sizeof error, &l) == 0, "%s", error);
	writer.sqllog = l;
}

static void copy_it(void *arg)
{
	(void)arg;
	standby = standby_new(&writer, "dbwriter-1, dbwriter-2");
}

static void copy_no_more(void *arg)
{
	(void)arg;
	standby_free(standby);
	standby = NULL;
}

static void close_log(void)
{
	on_loop(loop, copy_no_more, NULL);
	sqllog_close(l);
	l = NULL;
}

static void load_schema(void)
{
	char error[200], *bytes;
	size_t n;
	ck_assert_int_eq(env_file_load(env, "build/loquat.desc", 4 << 20, &bytes, &n), 0);
	ck_assert_int_eq(schema_load(bytes, n, error, sizeof error, &schema), 0);
	free(bytes);
}

static void setup(void)
{
	static const char routes[] =
		"return { version = 1, instances = {"
		" { id = 'role-1', service = 'role', host = '10.0.0.1', rpc = 1, workers = 1 },"
		" { id = 'dbwriter-1', service = 'dbwriter', host = '10.0.0.1', rpc = 2, workers = 1 },"
		" { id = 'dbwriter-2', service = 'dbwriter', host = '10.0.0.2', rpc = 3, workers = 1 } } }";
	char path[420], error[200] = "";
	env = env_new();
	dir = folder_new();
	loop = on_loop_new(env, "both");
	snprintf(path, sizeof path, "%s/log", dir);
	ck_assert_int_eq(log_open(env, "role-1", path, LOG_DEBUG, &lines), 0);
	load_schema();
	snprintf(log_dir, sizeof log_dir, "%s/sqllog", dir);
	mkdir(log_dir, 0755);
	snprintf(log_dir, sizeof log_dir, "%s/sqllog/role-1", dir);
	snprintf(copy_dir, sizeof copy_dir, "%s/standby", dir);
	mkdir(copy_dir, 0755);
	writer = (struct service){
		.env = env, .log = lines, .schema = schema, .control = loop, .id = "role-1", .p = &writer_private
	};
	snprintf(writer.var, sizeof writer.var, "%s", dir);
	writer_private.control_worker = (struct worker){ .service = &writer, .schema = schema, .loop = loop };
	struct route_table *t;
	ck_assert_msg(route_from_text(routes, sizeof routes - 1, error, sizeof error, &t) == 0, "%s", error);
	writer_private.control_worker.routes = t;
	writer.row = route_find(t, "role-1");
	keeper = (struct service){ .env = env, .log = lines, .schema = schema, .id = "dbwriter-2" };
	keeper_worker = (struct worker){ .service = &keeper, .schema = schema, .loop = loop };
	lose = asked = 0;
	on_loop(loop, keep, NULL);
}

static void teardown(void)
{
	if (l)
		close_log();
	on_loop(loop, keep_no_more, NULL);
	on_loop_free(loop);
	route_unref(writer_private.control_worker.routes);
	buf_release(&under_way.body);
	schema_free(schema);
	log_close(lines);
	folder_free(dir);
	env_free(env);
}

static void append(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		records_append(l, "role:1", 1);
}

/* Of three records; a few batches fill a file of 1,500 bytes. */
static void append_in_batches(unsigned n)
{
	for (; n; n--) {
		append(3);
		while (sqllog_written_lsn(l) < sqllog_lsn(l))
			usleep(1000);
	}
}

static void until_durable(uint64_t lsn)
{
	for (int i = 0; i < 60000 && sqllog_durable_lsn(l) < lsn; i++)
		usleep(1000);
	ck_assert_uint_eq(sqllog_durable_lsn(l), lsn);
}

/* The copy, read as a dbwriter would, has these and no other, each once. */
static void copy_has(uint64_t first, uint64_t last)
{
	struct follow f;
	struct sqllog_record r;
	char folder[420];
	snprintf(folder, sizeof folder, "%s/role-1", copy_dir);
	follow_init(&f, env, folder, (struct position){ 0, first - 1 });
	for (uint64_t lsn = first; lsn <= last; lsn++) {
		ck_assert_msg(follow_next(&f, &r) == FOLLOW_RECORD, "lsn %d: %s", (int)lsn, f.why);
		ck_assert_uint_eq(r.lsn, lsn);
	}
	ck_assert_int_eq(follow_next(&f, &r), FOLLOW_END);
	follow_release(&f);
}

static const char *copy_folder(void)
{
	static char folder[420];
	snprintf(folder, sizeof folder, "%s/role-1", copy_dir);
	return folder;
}

/* ---- together --------------------------------------------------------------------------------------------------------- */

START_TEST(what_is_appended_is_durable_when_the_copy_has_it)
{
	char folder[420];
	size_t n, n_copy;
	open_log(0);
	append(10);
	on_loop(loop, copy_it, NULL);
	until_durable(10);
	copy_has(1, 10);
	append(20);
	until_durable(30);
	copy_has(1, 30);
	snprintf(folder, sizeof folder, "%s/role-1", copy_dir);
	char *starts = folder_read(log_dir, "epoch", &n), *copied = folder_read(folder, "epoch", &n_copy);
	ck_assert_str_eq(starts, copied); /* who lands it knows where each epoch began */
	free(starts);
	free(copied);
}
END_TEST

START_TEST(a_log_of_many_files_is_copied_without_a_gap)
{
	open_log(1500); /* a few records each */
	on_loop(loop, copy_it, NULL);
	for (unsigned i = 0; i < 100; i++) {
		append(1 + i % 3);
		if (i % 7 == 0)
			until_durable(sqllog_lsn(l));
	}
	until_durable(199);
	copy_has(1, 199);
	close_log();
	open_log(1500); /* and from the middle on */
	append(50);
	on_loop(loop, copy_it, NULL);
	until_durable(249);
	copy_has(1, 249);
}
END_TEST

START_TEST(an_answer_that_is_lost_is_made_up_for_by_the_next_beginning)
{
	open_log(0);
	on_loop(loop, copy_it, NULL);
	append(5);
	until_durable(5);
	lose = 1;
	append(5);
	until_durable(10); /* nothing is sent any more: the beginning tells it */
	lose = 2;
	append(5);
	until_durable(15);
	append(5); /* and it goes on in the same file */
	until_durable(20);
	copy_has(1, 20);
}
END_TEST

START_TEST(a_writer_that_lost_its_last_records_copies_those_that_take_their_numbers)
{
	size_t n;
	open_log(0);
	on_loop(loop, copy_it, NULL);
	append(8);
	until_durable(8);
	char *bytes = folder_read(log_dir, "00000001.sql", &n);
	append(2);
	until_durable(10);
	close_log();
	folder_write(log_dir, "00000001.sql", bytes, n); /* its machine had not synced the last two */
	free(bytes);
	open_log(0);
	uint64_t epoch = sqllog_epoch(l);
	append(2);
	on_loop(loop, copy_it, NULL);
	until_durable(10);
	char folder[420];
	snprintf(folder, sizeof folder, "%s/role-1", copy_dir);
	ck_assert_uint_eq(follow_last(env, folder).epoch, epoch);
	ck_assert_uint_eq(follow_last(env, folder).lsn, 10);
}
END_TEST

START_TEST(behind_damage_nothing_is_copied_until_it_is_mended)
{
	size_t n;
	open_log(1500);
	append_in_batches(10);
	char *bytes = folder_read(log_dir, "00000002.sql", &n);
	bytes[n / 2] ^= 1;
	folder_write(log_dir, "00000002.sql", bytes, n);
	on_loop(loop, copy_it, NULL);
	while (!standby_away(standby) || asked < 4) /* it has begun anew */
		usleep(1000);
	uint64_t durable = sqllog_durable_lsn(l);
	ck_assert(durable >= 3 && durable < 15);
	copy_has(1, durable);
	bytes[n / 2] ^= 1;
	folder_write(log_dir, "00000002.sql", bytes, n);
	free(bytes);
	until_durable(30);
	copy_has(1, 30);
}
END_TEST

static void spoil(const char *name, size_t at)
{
	size_t n;
	char *bytes = folder_read(log_dir, name, &n);
	bytes[at ? at : n / 2] ^= 1;
	folder_write(log_dir, name, bytes, n);
	free(bytes);
}

/* Nothing of what stands behind the damage is durable after the standby has begun anew a few times. */
static void ck_stops_before(uint64_t lsn)
{
	unsigned before = asked;
	on_loop(loop, copy_it, NULL);
	while (asked < before + 5 && sqllog_durable_lsn(l) < lsn)
		usleep(1000);
	ck_assert_msg(sqllog_durable_lsn(l) < lsn, "durable up to %d: what is missing was passed by",
		      (int)sqllog_durable_lsn(l));
}

static void last_file(char name[16])
{
	uint32_t *numbers;
	size_t n;
	ck_assert_int_eq(sqllog_list(env, log_dir, &numbers, &n), 0);
	snprintf(name, 16, "%08u.sql", numbers[n - 1]);
	free(numbers);
}

START_TEST(behind_damage_of_an_epoch_before_nothing_is_copied)
{
	char last[16];
	open_log(1500);
	on_loop(loop, copy_it, NULL);
	append(2);
	until_durable(2);
	on_loop(loop, copy_no_more, NULL); /* the link is away */
	append_in_batches(10);
	close_log();
	last_file(last);
	open_log(1500);
	append_in_batches(3);
	spoil(last, 0);
	ck_stops_before(33);
}
END_TEST

START_TEST(behind_damage_at_the_very_beginning_nothing_is_copied)
{
	open_log(1500);
	append_in_batches(10);
	spoil("00000001.sql", 60); /* in its first record */
	ck_stops_before(15);
}
END_TEST

START_TEST(damage_in_the_last_file_is_told_and_what_is_behind_it_copied_when_it_is_mended)
{
	open_log(0);
	append_in_batches(3);
	spoil("00000001.sql", 0);
	on_loop(loop, copy_it, NULL);
	while (!standby_away(standby) || asked < 4)
		usleep(1000);
	ck_assert_uint_lt(sqllog_durable_lsn(l), 9);
	spoil("00000001.sql", 0);
	until_durable(9);
	copy_has(1, 9);
	while (standby_away(standby))
		usleep(1000);
}
END_TEST

START_TEST(a_file_that_cannot_be_opened_is_told_and_copied_when_it_can)
{
	char path[420], away[420];
	open_log(1500);
	append_in_batches(10);
	snprintf(path, sizeof path, "%s/00000002.sql", log_dir);
	snprintf(away, sizeof away, "%s/away", log_dir);
	ck_assert_int_eq(rename(path, away), 0);
	ck_assert_int_eq(symlink(path, path), 0); /* which leads to itself */
	on_loop(loop, copy_it, NULL);
	while (!standby_away(standby) || asked < 4)
		usleep(1000);
	ck_assert_uint_lt(sqllog_durable_lsn(l), 15);
	ck_assert_int_eq(rename(away, path), 0);
	until_durable(30);
	copy_has(1, 30);
	while (standby_away(standby))
		usleep(1000);
}
END_TEST

START_TEST(damage_that_stays_is_said_once)
{
	size_t n;
	open_log(1500);
	append_in_batches(10);
	spoil("00000002.sql", 0);
	on_loop(loop, copy_it, NULL);
	while (asked < 5) /* it has begun anew a few times, each after a longer rest */
		usleep(1000);
	close_log();
	log_close(lines); /* all is in the file then */
	lines = NULL;
	char *text = folder_read(dir, "log", &n);
	unsigned said = 0;
	for (const char *p = text; (p = strstr(p, "sqllog.standby_away")); p++)
		said++;
	free(text);
	ck_assert_uint_eq(said, 1);
}
END_TEST

START_TEST(damage_that_stays_does_not_fill_the_copys_folder)
{
	char folder[420];
	uint32_t *numbers;
	size_t n;
	open_log(1500);
	append_in_batches(10);
	spoil("00000002.sql", 0);
	on_loop(loop, copy_it, NULL);
	while (asked < 6)
		usleep(1000);
	snprintf(folder, sizeof folder, "%s/role-1", copy_dir);
	ck_assert_int_eq(sqllog_list(env, folder, &numbers, &n), 0);
	free(numbers);
	ck_assert_uint_le(n, 2);
}
END_TEST

START_TEST(files_that_landed_and_were_removed_are_no_damage)
{
	char path[420];
	open_log(1500);
	on_loop(loop, copy_it, NULL);
	append(2);
	until_durable(2);
	on_loop(loop, copy_no_more, NULL);
	append_in_batches(10);
	for (unsigned i = 1; i <= 2; i++) {
		snprintf(path, sizeof path, "%s/%08u.sql", log_dir, i);
		ck_assert_int_eq(unlink(path), 0);
	}
	on_loop(loop, copy_it, NULL);
	while (!standby_away(standby)) /* nobody says that they have landed */
		usleep(1000);
	ck_assert_uint_eq(sqllog_durable_lsn(l), 2);
	int n = snprintf(path, sizeof path, "lsn=32 epoch=%llu\n", (unsigned long long)sqllog_epoch(l));
	folder_write(log_dir, "replayed", path, (size_t)n);
	until_durable(32);
}
END_TEST

/* ---- the copy alone ----------------------------------------------------------------------------------------------------- */

struct asking {
	const char *method;
	uint8_t *bytes;
	size_t n;
	int err;
	uint64_t session, epoch, lsn; /* of the answer */
};

static void ask_now(void *arg)
{
	struct asking *a = arg;
	handle(schema_method(schema, a->method, strlen(a->method)), span_of((const char *)a->bytes, a->n));
	a->err = under_way.answer.err;
	a->session = a->epoch = a->lsn = 0;
	if (a->err)
		return;
	Dbwriter__CopyAnswer *m =
		dbwriter__copy_answer__unpack(NULL, under_way.answer.body.n, (const uint8_t *)under_way.answer.body.p);
	a->session = m->session;
	a->epoch = m->epoch;
	a->lsn = m->lsn;
	dbwriter__copy_answer__free_unpacked(m, NULL);
}

static struct asking begins(uint64_t epoch)
{
	Dbwriter__CopyBeginRequest m = DBWRITER__COPY_BEGIN_REQUEST__INIT;
	uint8_t bytes[100];
	struct asking a = { .method = "dbwriter.dbwriterRemote.copyBegin", .bytes = bytes };
	m.instance = (char *)"role-1";
	m.epoch = epoch;
	a.n = dbwriter__copy_begin_request__pack(&m, bytes);
	on_loop(loop, ask_now, &a);
	return a;
}

/* Records first to last of an epoch, with a text of so many bytes in each. */
static struct asking sends(uint64_t session, uint64_t epoch, uint64_t first, uint64_t last, size_t text)
{
	Dbwriter__CopyRequest m = DBWRITER__COPY_REQUEST__INIT;
	struct asking a = { .method = "dbwriter.dbwriterRemote.copy" };
	struct buf records = BUF_INIT, statement = BUF_INIT;
	buf_addstr(&statement, "UPDATE role SET name = '");
	for (size_t i = 0; i < text; i++)
		buf_addch(&statement, 'x');
	buf_addstr(&statement, "' WHERE id = 1;\n");
	for (uint64_t lsn = first; lsn <= last; lsn++)
		records_add(&records,
			    (struct made){
				    .lsn = lsn, .epoch = epoch, .keys = "role:1", .statements = buf_cstr(&statement) });
	m.instance = (char *)"role-1";
	m.session = session;
	m.records = (ProtobufCBinaryData){ records.len, (uint8_t *)records.data };
	a.bytes = malloc(dbwriter__copy_request__get_packed_size(&m));
	a.n = dbwriter__copy_request__pack(&m, a.bytes);
	on_loop(loop, ask_now, &a);
	free(a.bytes);
	buf_release(&records);
	buf_release(&statement);
	return a;
}

START_TEST(a_copy_takes_whole_records_of_the_present_session_behind_those_it_has)
{
	uint64_t session = begins(7).session;
	ck_assert_uint_ne(session, 0);
	ck_assert_uint_eq(sends(session, 7, 1, 5, 1).lsn, 5);
	ck_assert_int_eq(sends(session, 7, 5, 6, 1).err, ERR_BAD_REQUEST);
	ck_assert_int_eq(sends(session, 6, 6, 6, 1).err, ERR_BAD_REQUEST);
	ck_assert_int_eq(sends(session, 7, 6, 5, 1).err, ERR_BAD_REQUEST); /* none */
	ck_assert_int_eq(sends(0, 7, 6, 6, 1).err, ERR_DENIED);
	struct asking again = begins(7);
	ck_assert(again.session != session && again.epoch == 7 && again.lsn == 5);
	ck_assert_int_eq(sends(session, 7, 6, 6, 1).err, ERR_DENIED);
	ck_assert_uint_eq(sends(again.session, 7, 6, 6, 1).lsn, 6);
	copy_has(1, 6);
}
END_TEST

START_TEST(a_former_owner_is_denied_also_by_who_only_finds_the_copy)
{
	ck_assert_uint_eq(sends(begins(7).session, 7, 1, 5, 1).lsn, 5);
	ck_assert_int_eq(begins(6).err, ERR_DENIED);
	on_loop(loop, keep_no_more, NULL);
	on_loop(loop, keep, NULL);
	ck_assert_int_eq(begins(6).err, ERR_DENIED);
	struct asking a = begins(8);
	ck_assert(!a.err && a.epoch == 7 && a.lsn == 5);
	on_loop(loop, keep_no_more, NULL); /* the last file has no record yet */
	on_loop(loop, keep, NULL);
	ck_assert_int_eq(begins(6).err, ERR_DENIED);
	ck_assert_uint_eq(begins(8).lsn, 5);
}
END_TEST

START_TEST(a_keeper_that_starts_anew_goes_on_behind_its_last_file_and_in_another_session)
{
	ck_assert_int_eq(env_dir_make(env, copy_folder()), 0);
	records_file(copy_folder(), 5, 1, 5, 7); /* those before have landed and gone */
	struct asking a = begins(7);
	ck_assert_uint_eq(sends(a.session, 7, 6, 7, 1).lsn, 7);
	copy_has(1, 7);
	on_loop(loop, keep_no_more, NULL);
	on_loop(loop, keep, NULL);
	struct asking again = begins(7);
	ck_assert_uint_ne(again.session, a.session);
	ck_assert_int_eq(sends(a.session, 7, 9, 9, 1).err, ERR_DENIED); /* one that was long under way */
	ck_assert_uint_eq(sends(again.session, 7, 8, 8, 1).lsn, 8);
	copy_has(1, 8);
}
END_TEST

/* It may have died between the write and the sync. */
START_TEST(what_another_process_wrote_here_is_synced_before_it_is_answered_for)
{
	char folder[420];
	snprintf(folder, sizeof folder, "%s/role-1", copy_dir);
	ck_assert_int_eq(env_dir_make(env, folder), 0);
	records_file(folder, 1, 1, 5, 7);
	snprintf(watched, sizeof watched, "%s/00000001.sql", folder);
	ck_assert_uint_eq(begins(7).lsn, 5);
	ck_assert_uint_ge(synced, 1);
}
END_TEST

START_TEST(what_cannot_be_written_is_not_answered_for_and_ends_the_session)
{
	struct rlimit r;
	struct asking a = begins(7);
	signal(SIGXFSZ, SIG_IGN);
	ck_assert_uint_eq(sends(a.session, 7, 1, 2, 1).lsn, 2);
	getrlimit(RLIMIT_FSIZE, &r);
	rlim_t was = r.rlim_cur;
	r.rlim_cur = 300000; /* of any file of this process, Check's too */
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &r), 0);
	struct asking refused = sends(a.session, 7, 3, 3, 400000);
	r.rlim_cur = was;
	setrlimit(RLIMIT_FSIZE, &r);
	ck_assert_int_eq(refused.err, ERR_UNAVAILABLE);
	ck_assert_int_eq(sends(a.session, 7, 3, 3, 1).err, ERR_DENIED);
	ck_assert_int_eq(sends(0, 7, 3, 3, 1).err, ERR_DENIED); /* there is none */
	a = begins(7);
	ck_assert_uint_eq(a.lsn, 2);
	ck_assert_uint_eq(sends(a.session, 7, 3, 4, 1).lsn, 4);
	copy_has(1, 4);
}
END_TEST

/* ---- a copy that has rotted ------------------------------------------------------------------------------------------- */

static struct {
	uint32_t file;
	struct position landed;
} damage;

static void tell_damage(void *arg)
{
	(void)arg;
	copies_damaged(copies, "role-1", damage.file, damage.landed);
}

static void damaged(uint32_t file, uint64_t epoch, uint64_t lsn)
{
	damage.file = file;
	damage.landed = (struct position){ epoch, lsn };
	on_loop(loop, tell_damage, NULL);
}

static void rot(const char *name, uint64_t lsn)
{
	char line[40];
	size_t n;
	char *bytes = folder_read(copy_folder(), name, &n);
	snprintf(line, sizeof line, "-- loquat lsn=%d ", (int)lsn);
	char *at = strstr(bytes, line);
	ck_assert_ptr_nonnull(at);
	at[60] ^= 1;
	folder_write(copy_folder(), name, bytes, n);
	free(bytes);
}

static void copy_begins_at(uint64_t lsn)
{
	size_t n;
	char line[40], *bytes = folder_read(copy_folder(), "00000002.sql", &n);
	snprintf(line, sizeof line, "SET NAMES utf8mb4;\n-- loquat lsn=%d ", (int)lsn);
	ck_assert_msg(!strncmp(bytes, line, strlen(line)), "%.60s", bytes);
	free(bytes);
}

START_TEST(what_is_damaged_in_the_copy_is_sent_again_and_goes_when_all_of_it_is_there)
{
	open_log(0);
	append(30);
	on_loop(loop, copy_it, NULL);
	until_durable(30);
	rot("00000001.sql", 12);
	damaged(1, 0, 0);
	append(1);
	until_durable(31);
	copy_has(1, 31);
	ck_assert_int_eq(folder_size(copy_folder(), "00000001.sql"), -1);
	ck_assert_int_eq(folder_size(copy_folder(), "00000001.sql.damaged"), -1);
}
END_TEST

START_TEST(only_what_has_not_landed_is_sent_again)
{
	open_log(0);
	append(30);
	on_loop(loop, copy_it, NULL);
	until_durable(30);
	rot("00000001.sql", 25);
	damaged(1, sqllog_epoch(l), 20);
	append(1);
	until_durable(31);
	copy_begins_at(21);
}
END_TEST

START_TEST(a_copy_that_nobody_can_send_again_is_left_as_it_is)
{
	struct asking a = begins(7);
	ck_assert_uint_eq(sends(a.session, 7, 1, 5, 1).lsn, 5);
	damaged(1, 7, 2); /* its writer has told no epochs */
	ck_assert_uint_eq(sends(a.session, 7, 6, 6, 1).lsn, 6);
	folder_write(copy_folder(), "epoch", "epoch=8 lsn=0 boot=a\n", 21); /* another log's */
	damaged(1, 7, 2);
	damaged(1, 0, 0);
	ck_assert_uint_eq(sends(a.session, 7, 7, 7, 1).lsn, 7);
	folder_write(copy_folder(), "epoch", "epoch=7 lsn=0 boot=a\n", 21);
	damaged(1, 7, 2);
	ck_assert_int_eq(sends(a.session, 7, 8, 8, 1).err, ERR_DENIED);
	folder_write(copy_folder(), "epoch", "epoch=8 lsn=0 boot=a\n", 21); /* who begins is not who was there */
	ck_assert_uint_eq(begins(8).lsn, 7);
	copy_has(1, 7);
}
END_TEST

START_TEST(what_was_set_aside_stays_until_it_is_there_again_whoever_restarts)
{
	struct position last;
	ck_assert_uint_eq(sends(begins(7).session, 7, 1, 5, 1).lsn, 5);
	folder_write(copy_folder(), "epoch", "epoch=6 lsn=0 boot=a\nepoch=7 lsn=0 boot=a\n", 42);
	damaged(1, 0, 0);
	ck_assert_int_eq(begins(6).err, ERR_DENIED);
	ck_assert_uint_eq(copies_aside(env, copy_folder(), &last), 0); /* a former owner moves nothing */
	struct asking a = begins(7);
	ck_assert(!a.err && !a.lsn);
	ck_assert_int_eq(begins(6).err, ERR_DENIED); /* the newer epoch's records are here all the same */
	a = begins(7);
	ck_assert_uint_eq(copies_aside(env, copy_folder(), &last), 1);
	ck_assert_uint_eq(last.lsn, 5);
	ck_assert_uint_eq(sends(a.session, 7, 1, 3, 1).lsn, 3);
	on_loop(loop, keep_no_more, NULL);
	on_loop(loop, keep, NULL);
	ck_assert_int_eq(begins(6).err, ERR_DENIED);
	a = begins(7);
	ck_assert_uint_eq(a.lsn, 3);
	ck_assert_uint_eq(sends(a.session, 7, 4, 4, 1).lsn, 4);
	ck_assert_uint_eq(copies_aside(env, copy_folder(), &last), 1);
	ck_assert_uint_eq(sends(a.session, 7, 5, 5, 1).lsn, 5);
	ck_assert_uint_eq(copies_aside(env, copy_folder(), &last), 0);
	copy_has(1, 5);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("standby");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, what_is_appended_is_durable_when_the_copy_has_it);
	tcase_add_test(t, a_log_of_many_files_is_copied_without_a_gap);
	tcase_add_test(t, an_answer_that_is_lost_is_made_up_for_by_the_next_beginning);
	tcase_add_test(t, a_writer_that_lost_its_last_records_copies_those_that_take_their_numbers);
	tcase_add_test(t, behind_damage_nothing_is_copied_until_it_is_mended);
	tcase_add_test(t, behind_damage_of_an_epoch_before_nothing_is_copied);
	tcase_add_test(t, behind_damage_at_the_very_beginning_nothing_is_copied);
	tcase_add_test(t, damage_in_the_last_file_is_told_and_what_is_behind_it_copied_when_it_is_mended);
	tcase_add_test(t, a_file_that_cannot_be_opened_is_told_and_copied_when_it_can);
	tcase_add_test(t, damage_that_stays_is_said_once);
	tcase_add_test(t, damage_that_stays_does_not_fill_the_copys_folder);
	tcase_add_test(t, files_that_landed_and_were_removed_are_no_damage);
	tcase_add_test(t, a_copy_takes_whole_records_of_the_present_session_behind_those_it_has);
	tcase_add_test(t, a_former_owner_is_denied_also_by_who_only_finds_the_copy);
	tcase_add_test(t, a_keeper_that_starts_anew_goes_on_behind_its_last_file_and_in_another_session);
	tcase_add_test(t, what_another_process_wrote_here_is_synced_before_it_is_answered_for);
	tcase_add_test(t, what_cannot_be_written_is_not_answered_for_and_ends_the_session);
	tcase_add_test(t, what_is_damaged_in_the_copy_is_sent_again_and_goes_when_all_of_it_is_there);
	tcase_add_test(t, only_what_has_not_landed_is_sent_again);
	tcase_add_test(t, a_copy_that_nobody_can_send_again_is_left_as_it_is);
	tcase_add_test(t, what_was_set_aside_stays_until_it_is_there_again_whoever_restarts);
	return suite_run("standby", t);
}
