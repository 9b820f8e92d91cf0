#include "tests/support/sql_cases.h"
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include "common/err.h"

enum { LOCKED_MS = 300 }; /* what has not come by then waits for a lock */

struct step {
	int on; /* the connection; -1: the result of an earlier WAITS is due on 0, -2 on 1 … */
	const char *sql;
	unsigned code;
	int affected;     /* -1: makes no difference */
	const char *rows; /* "cell,cell|cell,NULL"; NULL: makes no difference */
};
#define WAITS           0xffff /* for code: no result yet */
#define DUE(connection) (-1 - (connection))

static const struct step steps[] = {
	{ 0, "DROP DATABASE IF EXISTS cases; CREATE DATABASE cases CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin", 0,
	  -1, NULL },
	{ 0, "USE cases", 0, -1, NULL },
	{ 1, "USE cases", 0, -1, NULL },
	{ 2, "USE cases", 0, -1, NULL },
	{ 0,
	  "CREATE TABLE role (id BIGINT NOT NULL PRIMARY KEY, uid VARCHAR(8) NOT NULL, name VARCHAR(80) NOT NULL, "
	  "level INT NOT NULL DEFAULT 1, gold BIGINT NOT NULL DEFAULT 0, small TINYINT UNSIGNED, x DOUBLE NOT NULL DEFAULT 0, "
	  "data VARBINARY(4), UNIQUE KEY role_uid (uid), KEY role_by_name (name)) "
	  "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin",
	  0, -1, NULL },
	{ 0,
	  "CREATE TABLE bag (role_id BIGINT NOT NULL, item INT NOT NULL, count BIGINT NOT NULL, "
	  "PRIMARY KEY (role_id, item)) ENGINE=InnoDB",
	  0, -1, NULL },
	{ 0, "CREATE TABLE bag (a INT)", 1050, -1, NULL },
	{ 0, "CREATE TABLE IF NOT EXISTS bag (a INT)", 0, -1, NULL },
	/* INSERT */
	{ 0, "INSERT INTO role (id, uid, name) VALUES (1, 'ann', 'Ann')", 0, 1, NULL },
	{ 0, "INSERT INTO role (id, uid, name, gold) VALUES (2, 'bob', 'Bob', 1000), (3, 'cat', 'C\\'at\\n', 5)", 0, 2,
	  NULL },
	{ 0, "SELECT * FROM role WHERE id = 1", 0, -1, "1,ann,Ann,1,0,NULL,0,NULL" },
	{ 0, "SELECT id, name, gold FROM role", 0, -1, "1,Ann,0|2,Bob,1000|3,C'at\n,5" },
	{ 0, "INSERT INTO role (id, uid, name) VALUES (4, 'dan', 'Dan'), (1, 'eve', 'Eve')", 1062, -1, NULL },
	{ 0, "SELECT COUNT(*) FROM role", 0, -1, "3" },
	{ 0, "INSERT INTO role (id, uid, name) VALUES (4, 'ann', 'Ann again')", 1062, -1, NULL },
	{ 0, "INSERT IGNORE INTO role (id, uid, name) VALUES (1, 'x', 'x'), (4, 'dan', 'Dan'), (5, 'bob', 'y')", 0, 1,
	  NULL },
	{ 0, "INSERT INTO role (id, uid) VALUES (9, 'z')", 1364, -1, NULL },
	{ 0, "INSERT INTO role (id, uid, name) VALUES (9, 'z')", 1136, -1, NULL },
	{ 0, "INSERT INTO role (id, uid, name) VALUES (9, NULL, 'z')", 1048, -1, NULL },
	{ 0, "INSERT INTO role (id, uid, nome) VALUES (9, 'z', 'z')", 1054, -1, NULL },
	{ 0, "INSERT INTO rule (id) VALUES (9)", 1146, -1, NULL },
	{ 0, "INSERT INTO role (id, uid, name) VALUES (9, '123456789', 'z')", 1406, -1, NULL },
	{ 0,
	  "INSERT INTO role (id, uid, name) VALUES (9, '\xe6\x9e\x87\xe6\x9e\x87\xe6\x9e\x87\xe6\x9e\x87\xe6\x9e\x87\xe6\x9e\x87\xe6\x9e\x87\xe6\x9e\x87', 'eight')",
	  0, 1, NULL },
	{ 0,
	  "INSERT INTO role (id, uid, name, data) VALUES (10, 'hex', 'Hex', x'00ff61'), (11, 'toolong', 'L', x'0102030405')",
	  1406, -1, NULL },
	{ 0, "INSERT INTO role (id, uid, name, data) VALUES (10, 'hex', 'Hex', x'616263')", 0, 1, NULL },
	{ 0, "SELECT data FROM role WHERE id = 10", 0, -1, "abc" },
	{ 0, "INSERT INTO role (id, uid, name, small) VALUES (12, 'small', 'S', 256)", 1264, -1, NULL },
	{ 0, "INSERT INTO role (id, uid, name, small) VALUES (12, 'small', 'S', -1)", 1264, -1, NULL },
	{ 0, "INSERT INTO role (id, uid, name, small) VALUES (12, 'small', 'S', 'abc')", 1366, -1, NULL },
	{ 0, "INSERT INTO role (id, uid, name, small) VALUES (12, 'small', 'S', '255')", 0, 1, NULL },
	/* bytes are compared as they are */
	{ 0, "INSERT INTO role (id, uid, name) VALUES (20, 'ANN', 'upper'), (21, 'ann ', 'blank')", 0, 2, NULL },
	{ 0, "SELECT id FROM role WHERE uid = 'ann'", 0, -1, "1" },
	{ 0, "SELECT id FROM role WHERE uid = 'ann '", 0, -1, "21" },
	{ 0, "SELECT id FROM role WHERE uid > 'ANN' AND uid < 'ann' ORDER BY id", 0, -1, "" },
	{ 0, "DELETE FROM role WHERE id >= 5", 0, 5, NULL },
	/* UPDATE counts what changed, not what was found */
	{ 0, "UPDATE role SET gold = 5 WHERE id IN (1, 3)", 0, 1, NULL },
	{ 0, "UPDATE role SET gold = gold + -10 WHERE id = 2", 0, 1, NULL },
	{ 0, "UPDATE role SET gold = gold - 1, level = gold WHERE id = 2", 0, 1, NULL },
	{ 0, "SELECT gold, level FROM role WHERE id = 2", 0, -1, "989,989" },
	{ 0, "UPDATE role SET gold = GREATEST(0, gold - 10000) WHERE id = 2", 0, 1, NULL },
	{ 0, "UPDATE role SET gold = 1 WHERE id = 77", 0, 0, NULL },
	{ 0, "UPDATE role SET uid = 'ann' WHERE id = 2", 1062, -1, NULL },
	{ 0, "UPDATE role SET id = 30 WHERE id = 2", 0, 1, NULL },
	{ 0, "SELECT id FROM role WHERE uid = 'bob'", 0, -1, "30" },
	{ 0, "SELECT id FROM role WHERE id = 2", 0, -1, "" },
	{ 0, "UPDATE role SET nothing = 1 WHERE id = 77", 1054, -1, NULL },
	{ 0, "UPDATE role SET gold = 1 WHERE nothing = 77", 1054, -1, NULL },
	{ 0, "UPDATE role SET gold = 9223372036854775807 WHERE id = 30", 0, 1, NULL },
	{ 0, "UPDATE role SET gold = gold + 1 WHERE id = 30", 1690, -1, NULL },
	{ 0, "UPDATE role SET gold = -9223372036854775808 WHERE id = 30", 0, 1, NULL },
	{ 0, "SELECT gold FROM role WHERE id = 30", 0, -1, "-9223372036854775808" },
	{ 0, "UPDATE role SET gold = 7 ORDER BY id LIMIT 2", 0, 2, NULL },
	{ 0, "SELECT id, gold FROM role ORDER BY gold DESC, id DESC", 0, -1, "3,7|1,7|4,0|30,-9223372036854775808" },
	{ 0, "SELECT id FROM role ORDER BY id LIMIT 2 OFFSET 1", 0, -1, "3|4" },
	{ 0, "SELECT id FROM role ORDER BY id LIMIT 1, 2", 0, -1, "3|4" },
	{ 0, "UPDATE role SET x = 0.1 WHERE id = 1", 0, 1, NULL },
	{ 0, "UPDATE role SET x = x + 0.2, name = CONCAT(name, '!', level) WHERE id = 1", 0, 1, NULL },
	{ 0, "SELECT name FROM role WHERE x > 0.29 AND x < 0.31", 0, -1, "Ann!1" },
	{ 0, "SELECT x FROM role WHERE id = 3", 0, -1, "0" },
	/* expressions */
	{ 0, "SELECT 1 + 2 * 3 - -4, 7 % 3, 7 DIV 2, NULL + 1, 1 < 2, NULL = NULL, NULL <=> NULL, NOT 0", 0, -1,
	  "11,1,3,NULL,1,NULL,1,1" },
	{ 0,
	  "SELECT COALESCE(NULL, 5), IF(1 > 2, 'a', 'b'), LEAST(3, 1, 2), 2 IN (1, 2), 3 NOT IN (1, 2), 5 BETWEEN 1 AND 5",
	  0, -1, "5,b,1,1,1,1" },
	{ 0, "SELECT CASE WHEN 1 = 2 THEN 'x' WHEN 2 = 2 THEN 'y' ELSE 'z' END, NULL IS NULL, 1 IS NOT NULL", 0, -1,
	  "y,1,1" },
	{ 0, "SELECT id FROM role WHERE name LIKE 'Ann%' OR (id = 3 AND NOT level = 2) ORDER BY id", 0, -1, "1|3" },
	{ 0, "SELECT MAX(id), MIN(id), SUM(level), COUNT(*), COUNT(small) FROM role", 0, -1, "30,1,992,4,0" },
	{ 0, "SELECT MAX(id), COUNT(*), SUM(id) FROM role WHERE id > 100", 0, -1, "NULL,0,NULL" },
	{ 0, "SELECT nothing FROM role", 1054, -1, NULL },
	{ 0, "SELEKT 1", 1064, -1, NULL },
	/* INSERT with its updates */
	{ 0, "INSERT INTO bag (role_id, item, count) VALUES (1, 1, 5) ON DUPLICATE KEY UPDATE count = count + 5", 0, 1,
	  NULL },
	{ 0, "INSERT INTO bag (role_id, item, count) VALUES (1, 1, 5) ON DUPLICATE KEY UPDATE count = count + 5", 0, 2,
	  NULL },
	{ 0, "INSERT INTO bag (role_id, item, count) VALUES (1, 1, 99) ON DUPLICATE KEY UPDATE count = count + 0", 0, 0,
	  NULL },
	{ 0,
	  "INSERT INTO bag (role_id, item, count) VALUES (1, 1, 7), (1, 2, 8) ON DUPLICATE KEY UPDATE count = VALUES(count)",
	  0, 3, NULL },
	{ 0, "SELECT role_id, item, count FROM bag", 0, -1, "1,1,7|1,2,8" },
	{ 0, "REPLACE INTO bag (role_id, item, count) VALUES (1, 1, 70), (1, 3, 9)", 0, 3, NULL },
	{ 0, "REPLACE INTO bag (role_id, item, count) VALUES (1, 3, 9)", 0, 1, NULL },
	{ 0, "REPLACE INTO role (id, uid, name) VALUES (3, 'ann', 'both')", 0, 3, NULL },
	{ 0, "SELECT id, uid FROM role ORDER BY id", 0, -1, "3,ann|4,dan|30,bob" },
	{ 0, "DELETE FROM bag WHERE role_id = 1 AND item = 2", 0, 1, NULL },
	{ 0, "SELECT item FROM bag WHERE role_id = 1 ORDER BY item DESC", 0, -1, "3|1" },
	{ 0, "DELETE FROM bag WHERE role_id = 1 ORDER BY item LIMIT 1", 0, 1, NULL },
	{ 0, "SELECT item FROM bag", 0, -1, "3" },
	/* several statements, transactions */
	{ 0, "BEGIN; UPDATE role SET gold = 100 WHERE id = 3; UPDATE role SET gold = 200 WHERE id = 4; COMMIT;", 0, -1,
	  NULL },
	{ 0, "SELECT gold FROM role WHERE id IN (3, 4)", 0, -1, "100|200" },
	{ 0,
	  "BEGIN; UPDATE role SET gold = 1 WHERE id = 3; INSERT INTO role (id, uid, name) VALUES (4, 'q', 'q'); COMMIT",
	  1062, -1, NULL },
	{ 1, "SELECT gold FROM role WHERE id = 3", 0, -1, "100" },
	{ 0, "SELECT gold FROM role WHERE id = 3", 0, -1, "1" },
	{ 0, "ROLLBACK", 0, -1, NULL },
	{ 0, "SELECT gold FROM role WHERE id = 3", 0, -1, "100" },
	{ 0, "START TRANSACTION; DELETE FROM role; INSERT INTO role (id, uid, name) VALUES (3, 'ann', 'new')", 0, 1,
	  NULL },
	{ 0, "SELECT id, name FROM role", 0, -1, "3,new" },
	{ 1, "SELECT COUNT(*) FROM role", 0, -1, "3" },
	{ 0, "ROLLBACK", 0, -1, NULL },
	{ 0, "SELECT COUNT(*) FROM role WHERE name = 'new'", 0, -1, "0" },
	/* locks */
	{ 0, "BEGIN; UPDATE role SET gold = gold + 1 WHERE id = 3", 0, 1, NULL },
	{ 1, "UPDATE role SET gold = gold * 2 WHERE id = 3", WAITS, -1, NULL },
	{ 2, "UPDATE role SET gold = 5 WHERE id = 4", 0, 1, NULL },
	{ 0, "COMMIT", 0, -1, NULL },
	{ DUE(1), NULL, 0, 1, NULL },
	{ 0, "SELECT gold FROM role WHERE id = 3", 0, -1, "202" },
	{ 0, "BEGIN; SELECT gold FROM role WHERE id = 3 FOR UPDATE", 0, -1, "202" },
	{ 1, "SELECT gold FROM role WHERE id = 3", 0, -1, "202" },
	{ 1, "BEGIN; SELECT gold FROM role WHERE id = 3 FOR UPDATE", WAITS, -1, NULL },
	{ 0, "UPDATE role SET gold = 1 WHERE id = 3; COMMIT", 0, -1, NULL },
	{ DUE(1), NULL, 0, -1, "1" },
	{ 1, "ROLLBACK", 0, -1, NULL },
	{ 0, "BEGIN; INSERT INTO role (id, uid, name) VALUES (50, 'new', 'New')", 0, 1, NULL },
	{ 1, "INSERT INTO role (id, uid, name) VALUES (50, 'other', 'Other')", WAITS, -1, NULL },
	{ 0, "ROLLBACK", 0, -1, NULL },
	{ DUE(1), NULL, 0, 1, NULL },
	{ 0, "BEGIN; INSERT INTO role (id, uid, name) VALUES (51, 'new', 'New')", 0, 1, NULL },
	{ 1, "INSERT INTO role (id, uid, name) VALUES (52, 'new', 'Other')", WAITS, -1, NULL },
	{ 0, "COMMIT", 0, -1, NULL },
	{ DUE(1), NULL, 1062, -1, NULL },
	{ 0, "BEGIN; UPDATE role SET gold = 1 WHERE id = 4", 0, 1, NULL },
	{ 1, "BEGIN; UPDATE role SET gold = 2 WHERE id = 50; UPDATE role SET gold = 3 WHERE id = 51", 0, 1, NULL },
	{ 1, "UPDATE role SET gold = 2 WHERE id = 4", WAITS, -1, NULL },
	{ 0, "UPDATE role SET gold = 9 WHERE id = 50", 1213, -1, NULL },
	{ DUE(1), NULL, 0, 1, NULL },
	{ 1, "COMMIT", 0, -1, NULL },
	{ 0, "SELECT id, gold FROM role WHERE id IN (4, 50, 51)", 0, -1, "4,2|50,2|51,3" },
	/* definitions */
	{ 0,
	  "CREATE TABLE n (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, v INT NULL, t TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, "
	  "CHECK (v < 10))",
	  0, -1, NULL },
	{ 0, "INSERT INTO n (v) VALUES (1), (2)", 0, 2, NULL },
	{ 0, "SELECT LAST_INSERT_ID()", 0, -1, "1" },
	{ 0, "INSERT INTO n (id, v) VALUES (10, NULL), (NULL, 4)", 0, 2, NULL },
	{ 0, "INSERT INTO n (v) VALUES (10)", 4025, -1, NULL },
	{ 0, "SELECT id, v FROM n ORDER BY v", 0, -1, "10,NULL|1,1|2,2|11,4" },
	{ 0, "ALTER TABLE n ADD COLUMN w INT NOT NULL DEFAULT 3", 0, -1, NULL },
	{ 0, "ALTER TABLE n ADD COLUMN w INT", 1060, -1, NULL },
	{ 0, "SELECT w, v FROM n WHERE id = 2", 0, -1, "3,2" },
	{ 0, "TRUNCATE TABLE n", 0, -1, NULL },
	{ 0, "SELECT COUNT(*) FROM n", 0, -1, "0" },
	{ 0, "DROP TABLE n", 0, -1, NULL },
	{ 0, "DROP TABLE n", 1051, -1, NULL },
	{ 0, "DROP TABLE IF EXISTS n", 0, -1, NULL },
	{ 0, "-- a comment\nSET NAMES utf8mb4; /* another */ SELECT 'done' # and one\n", 0, -1, "done" },
};

unsigned sql_cases_count(void)
{
	return sizeof(steps) / sizeof(*steps);
}

static void next(struct sql_cases *c);

static void rows_text(const struct env_db_result *r, char *out, size_t size)
{
	size_t at = 0;
	out[0] = '\0';
	for (unsigned i = 0; i < r->rows * r->columns && at < size; i++)
		at += (size_t)snprintf(out + at, size - at, "%s%s",
				       !i               ? ""
				       : i % r->columns ? ","
							: "|",
				       r->cells[i] ? r->cells[i] : "NULL");
}

static void differs(struct sql_cases *c, const char *what, const char *expected, const char *found)
{
	if (!c->failed++)
		snprintf(c->first, sizeof(c->first), "%s\n%s: expected %s, found %s",
			 steps[c->step].sql ? steps[c->step].sql : "(the result that was due)", what, expected, found);
}

static void check(struct sql_cases *c, const struct env_db_result *r, unsigned step)
{
	const struct step *s = &steps[step];
	char a[400], b[400];
	if (r->err == ERR_UNAVAILABLE || s->code != r->code) {
		snprintf(a, sizeof(a), "%u", s->code);
		snprintf(b, sizeof(b), "%u (%.300s)", r->code, r->message);
		differs(c, "error", a, b);
		return;
	}
	if (s->affected >= 0 && r->affected != (uint64_t)s->affected) {
		snprintf(a, sizeof(a), "%d", s->affected);
		snprintf(b, sizeof(b), "%llu", (unsigned long long)r->affected);
		differs(c, "affected rows", a, b);
	}
	rows_text(r, b, sizeof(b));
	if (s->rows && strcmp(s->rows, b) != 0)
		differs(c, "rows", s->rows, b);
}

static void next_step(struct sql_cases *c)
{
	c->step++;
	next(c);
}

static void on_late(struct timer *t, uint64_t now_ms)
{
	(void)now_ms;
	next_step((struct sql_cases *)((char *)t - offsetof(struct sql_cases, later)));
}

/* A result that was waited for may come before that of the statement which ended the wait: it is kept. */
static void came(struct sql_cases *c, int connection, const struct env_db_result *r)
{
	const struct step *s = &steps[c->step];
	if (s->code == WAITS && s->on == connection) {
		differs(c, "result", "none yet, it waits for a lock", "one");
		loop_timer_stop(c->loop, &c->later);
	} else if (s->on == DUE(connection) || s->on == connection) {
		check(c, r, c->step);
	} else {
		unsigned due = c->step;
		while (due < sql_cases_count() && steps[due].on != DUE(connection))
			due++;
		if (due == sql_cases_count())
			differs(c, "result", "none", "one more");
		else
			check(c, r, due);
		c->early[connection] = true;
		return;
	}
	next_step(c);
}

static void on_result_0(void *arg, const struct env_db_result *r)
{
	came(arg, 0, r);
}
static void on_result_1(void *arg, const struct env_db_result *r)
{
	came(arg, 1, r);
}
static void on_result_2(void *arg, const struct env_db_result *r)
{
	came(arg, 2, r);
}

static void finish(struct sql_cases *c)
{
	for (int i = 0; i < SQL_CASES_CONNECTIONS; i++)
		env_db_close(c->db[i]);
	c->done(c->arg);
}

static void next(struct sql_cases *c)
{
	static void (*const on_result[])(void *, const struct env_db_result *) = { on_result_0, on_result_1,
										   on_result_2 };
	const struct step *s = &steps[c->step];
	if (c->step >= sql_cases_count()) {
		finish(c);
		return;
	}
	if (s->on < 0) { /* it comes by itself, or has come */
		int connection = -1 - s->on;
		bool early = c->early[connection];
		c->early[connection] = false;
		if (early)
			next_step(c);
		return;
	}
	if (s->code == WAITS)
		loop_timer(c->loop, &c->later, LOCKED_MS);
	if (env_db_query(c->db[s->on], s->sql, strlen(s->sql), on_result[s->on], c) < 0) {
		differs(c, "query", "accepted", "refused");
		finish(c);
	}
}

static void on_open(void *arg, int err)
{
	struct sql_cases *c = arg;
	if (err < 0) {
		differs(c, "connection", "open", env_db_message(c->db[c->opened]));
		finish(c);
	} else if (++c->opened == SQL_CASES_CONNECTIONS) {
		next(c);
	} else if (env_db_open(c->loop->ev, &c->options, on_open, c, &c->db[c->opened]) < 0) {
		finish(c);
	}
}

void sql_cases_start(struct sql_cases *c, struct loop *loop, const struct env_db_options *o, void (*done)(void *arg),
		     void *arg)
{
	*c = (struct sql_cases){ .loop = loop, .options = *o, .later.fire = on_late, .done = done, .arg = arg };
	if (env_db_open(loop->ev, o, on_open, c, &c->db[0]) < 0)
		done(arg);
}
