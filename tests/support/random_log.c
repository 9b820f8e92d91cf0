#include "tests/support/random_log.h"
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include "common/sqllog.h"
#include "tests/support/records.h"

const char random_log_tables[] =
	"CREATE TABLE hero (id BIGINT NOT NULL PRIMARY KEY, gold BIGINT NOT NULL DEFAULT 0, level TINYINT NOT NULL DEFAULT 1,"
	" name VARCHAR(12) NOT NULL DEFAULT '', x DOUBLE NOT NULL DEFAULT 0, note VARCHAR(40), debt INT UNSIGNED NOT NULL DEFAULT 9, mark MEDIUMBLOB) COLLATE=utf8mb4_nopad_bin;"
	"CREATE TABLE item (hero BIGINT NOT NULL, kind INT NOT NULL, count INT NOT NULL, PRIMARY KEY (hero, kind));"
	"CREATE TABLE quest (hero BIGINT NOT NULL, quest INT NOT NULL, state VARCHAR(12) NOT NULL, progress INT NOT NULL,"
	" PRIMARY KEY (hero, quest)) COLLATE=utf8mb4_nopad_bin;"
	"CREATE TABLE seat (id BIGINT NOT NULL PRIMARY KEY, hero BIGINT NOT NULL, row_no INT NOT NULL DEFAULT 0, UNIQUE KEY by_hero (hero));"
	"CREATE TABLE purse (id BIGINT NOT NULL PRIMARY KEY, low INT NOT NULL, high INT NOT NULL, CHECK (low <= high));"
	"CREATE TABLE word (word VARCHAR(20) NOT NULL PRIMARY KEY, n BIGINT NOT NULL) COLLATE=utf8mb4_nopad_bin;"
	"INSERT INTO hero (id, gold) VALUES (1, 100), (2, 100), (3, 100), (4, 100);"
	"INSERT INTO purse (id, low, high) VALUES (1, 0, 9), (2, 0, 9);"
	"INSERT INTO seat (id, hero) VALUES (1, 1), (2, 2), (3, 3)";

const char random_log_extra[] =
	"CREATE TABLE loose (word VARCHAR(20) NOT NULL PRIMARY KEY, n BIGINT NOT NULL) COLLATE=utf8mb4_general_ci;"
	"CREATE TABLE padded (word CHAR(20) NOT NULL PRIMARY KEY, n BIGINT NOT NULL) COLLATE=utf8mb4_bin;"
	"CREATE TABLE told (n BIGINT NOT NULL PRIMARY KEY AUTO_INCREMENT, hero BIGINT NOT NULL, gold BIGINT NOT NULL);"
	"CREATE TABLE rich (id BIGINT NOT NULL PRIMARY KEY, gold BIGINT NOT NULL);"
	"CREATE TRIGGER tell AFTER UPDATE ON rich FOR EACH ROW INSERT INTO told (hero, gold) VALUES (NEW.id, NEW.gold);"
	"CREATE TABLE parent (id BIGINT NOT NULL PRIMARY KEY, v INT NOT NULL);"
	"CREATE TABLE child (id BIGINT NOT NULL PRIMARY KEY, parent BIGINT NOT NULL, FOREIGN KEY (parent) REFERENCES parent (id) ON DELETE CASCADE);"
	"INSERT INTO rich VALUES (1, 1), (2, 2); INSERT INTO parent VALUES (1, 1), (2, 2)";

struct draw {
	uint64_t state;
	unsigned kinds;
	struct sql_record record;
};

static unsigned draw(struct draw *d, unsigned below)
{
	d->state ^= d->state << 13;
	d->state ^= d->state >> 7;
	d->state ^= d->state << 17;
	return (unsigned)(d->state >> 33) % below;
}

static struct sql_value number(int64_t v)
{
	return (struct sql_value){ .type = SQL_INT, .i = v };
}

static struct sql_value text(const char *s)
{
	return (struct sql_value){ .type = SQL_TEXT, .s = { s, strlen(s) } };
}

/* letters of sql's values: i a hero's number, k a kind, s a small signed step, p a small number, b one that may not fit,
 * t a text, m some bytes, w a word of few, d a double, n NULL or a text, u = p again */
static struct sql_value value(struct draw *d, char letter, struct sql_value *p)
{
	static const char *const texts[] = {
		"", "a", "O'Neill", "back\\slash", "\xe6\x9e\x87\n\"\x1a", "0123456789abc"
	};
	static const char *const words[] = { "ash", "Ash", "ash ", "oak", "x'41'" };
	switch (letter) {
	case 'i': return number(1 + draw(d, 5));
	case 'k': return number(1 + draw(d, 3));
	case 's': return number((int64_t)draw(d, 21) - 10);
	case 'p': return *p = number(draw(d, 10));
	case 'u': return *p;
	case 'b':
		return number(!(d->kinds & RANDOM_LOG_RISKY) || draw(d, 40) ? (int64_t)draw(d, 100)
									    : (int64_t)draw(d, 2) * 10000000000 - 500);
	case 't': return text(texts[draw(d, !(d->kinds & RANDOM_LOG_RISKY) || draw(d, 30) ? 5 : 6)]);
	case 'm':
		return (struct sql_value){ .type = SQL_BLOB, .s = { "\xff\0'\\\n\xe6\x9e" + draw(d, 3), draw(d, 5) } };
	case 'w': return text(words[draw(d, 5)]);
	case 'd': return (struct sql_value){ .type = SQL_DOUBLE, .d = ((double)draw(d, 2000) - 1000) / 7 };
	default: return draw(d, 2) ? text("noted") : (struct sql_value){ .type = SQL_NULL };
	}
}

struct form {
	unsigned weight;
	const char *sql, *letters;
	bool risky; /* the database may refuse it */
};
static const struct form forms[] = {
	{ 9, "UPDATE hero SET gold = gold - ? WHERE id = ?", "pi", false },
	{ 5, "UPDATE hero SET gold = gold + ? WHERE id = ?", "si", false },
	{ 6, "UPDATE hero SET gold = gold + ?, level = ? WHERE id = ?", "pbi", false },
	{ 4, "UPDATE hero SET gold = ? WHERE id = ?", "si", false },
	{ 6, "UPDATE hero SET x = ?, name = ? WHERE id = ?", "dti", false },
	{ 3, "UPDATE hero SET x = x + ? WHERE id = ?", "di", false },
	{ 3, "UPDATE hero SET note = ? WHERE id = ?", "ni", false },
	{ 3, "UPDATE hero SET mark = ? WHERE id = ?", "mi", false },
	{ 2, "REPLACE INTO hero (id, gold, mark) VALUES (?, ?, ?)", "ism", false },
	{ 2, "UPDATE hero SET level = level + ? WHERE id = ? AND level = ?", "kik", true },
	{ 2, "UPDATE hero SET gold = gold + ? WHERE level = ?", "sk", false },
	{ 1, "UPDATE hero SET gold = gold * 2 WHERE id = ?", "i", true },
	{ 1, "UPDATE hero SET gold = GREATEST(gold, ?) WHERE id = ?", "pi", false },
	{ 4, "UPDATE hero SET gold = (gold * 31 + ?) % 1009 WHERE id = ?", "si", false },
	{ 3, "UPDATE hero SET gold = (gold - ?) % ?, debt = debt + 1 WHERE id = ?", "ssi", true },
	{ 3, "UPDATE hero SET gold = gold + level * ? - ? WHERE id = ?", "kpi", false },
	{ 2, "UPDATE hero SET level = ? - level % 3 WHERE id = ?", "pi", false },
	{ 1, "UPDATE hero SET level = ?, gold = gold + level WHERE id = ?", "ki", false },
	{ 2, "UPDATE hero SET debt = debt * ? - 9 WHERE id = ? AND level > ?", "kik", true },
	{ 1, "UPDATE hero SET debt = debt * ? - 9 WHERE id = ?", "ki", true },
	{ 1, "UPDATE hero SET level = level * ? + ? WHERE id = ?", "kpi", true },
	{ 1, "UPDATE hero SET gold = gold * 3 % 1013 WHERE level = ?", "k", false },
	{ 2, "INSERT INTO hero (id, gold, name) VALUES (?, ?, ?)", "ist", true },
	{ 1, "DELETE FROM hero WHERE id = ?", "i", false },
	{ 8, "INSERT INTO item (hero, kind, count) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE count = count + ?", "ikpu",
	  false },
	{ 3, "INSERT INTO item (hero, kind, count) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE count = count + ?", "ikps",
	  false },
	{ 2, "INSERT INTO item (hero, kind, count) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE count = VALUES(count)",
	  "ikb", false },
	{ 3, "DELETE FROM item WHERE hero = ? AND kind = ?", "ik", false },
	{ 2, "DELETE FROM item WHERE hero = ? AND kind < ?", "ik", false },
	{ 3, "UPDATE hero SET gold = gold - ? WHERE id = ? AND gold >= ?", "pis", false },
	{ 2, "UPDATE item SET count = ? WHERE hero <= ? AND kind > ?", "pik", false },
	{ 6, "REPLACE INTO quest (hero, quest, state, progress) VALUES (?, ?, ?, ?)", "iktb", false },
	{ 5,
	  "INSERT INTO quest (hero, quest, state, progress) VALUES (?, ?, ?, ?) ON DUPLICATE KEY UPDATE progress = ?",
	  "iktbb", false },
	{ 3, "UPDATE quest SET progress = progress + ? WHERE hero = ? AND quest = ?", "sik", false },
	{ 3, "INSERT INTO seat (id, hero) VALUES (?, ?)", "ii", true },
	{ 3, "REPLACE INTO seat (id, hero, row_no) VALUES (?, ?, ?)", "iip", false },
	{ 3, "UPDATE seat SET row_no = ? WHERE id = ?", "pi", false },
	{ 2, "UPDATE seat SET hero = ? WHERE id = ?", "ii", true },
	{ 3, "DELETE FROM seat WHERE id = ?", "i", false },
	{ 4, "UPDATE purse SET low = ? WHERE id = ?", "pk", true },
	{ 4, "UPDATE purse SET high = ? WHERE id = ?", "pk", true },
	{ 4, "INSERT INTO word (word, n) VALUES (?, ?) ON DUPLICATE KEY UPDATE n = n + ?", "wpp", false },
	{ 2, "UPDATE word SET n = ? WHERE word = ?", "pw", false },
	{ 4, "UPDATE hero SET debt = debt - ? WHERE id = ?", "pi", true },
	{ 6, "UPDATE hero SET debt = debt + ? WHERE id = ?", "si", true },
	{ 1, "UPDATE nothing SET n = ? WHERE id = ?", "pi", true },
};
static const struct form extra_forms[] = {
	{ 4, "INSERT INTO loose (word, n) VALUES (?, ?) ON DUPLICATE KEY UPDATE n = n + ?", "wpp", false },
	{ 2, "UPDATE loose SET n = ? WHERE word = ?", "pw", false },
	{ 4, "INSERT INTO padded (word, n) VALUES (?, ?) ON DUPLICATE KEY UPDATE n = n + ?", "wpp", false },
	{ 2, "UPDATE padded SET n = ? WHERE word = ?", "pw", false },
	{ 5, "UPDATE rich SET gold = ? WHERE id = ?", "pk", false },
	{ 2, "REPLACE INTO parent (id, v) VALUES (?, ?)", "kp", true },
	{ 2, "DELETE FROM parent WHERE id = ?", "k", false },
	{ 3, "INSERT INTO child (id, parent) VALUES (?, ?)", "ik", true },
};

static const struct form *pick(struct draw *d, const struct form *all, size_t n)
{
	const struct form *f;
	do {
		unsigned sum = 0;
		for (size_t i = 0; i < n; i++)
			sum += all[i].weight;
		unsigned at = draw(d, sum);
		for (f = all; at >= f->weight; f++)
			at -= f->weight;
	} while (f->risky && !(d->kinds & RANDOM_LOG_RISKY));
	return f;
}

static void add_statement(struct draw *d)
{
	const struct form *f = d->kinds & RANDOM_LOG_EXTRA && !draw(d, 3)
				       ? pick(d, extra_forms, sizeof extra_forms / sizeof *extra_forms)
				       : pick(d, forms, sizeof forms / sizeof *forms);
	struct sql_value values[8], last = number(0);
	char why[160];
	size_t n = strlen(f->letters);
	for (size_t i = 0; i < n; i++)
		values[i] = value(d, f->letters[i], &last);
	if (sql_record_add(&d->record, f->sql, values, n, why, sizeof why) < 0)
		fprintf(stderr, "random_log: %s: %s\n", f->sql, why);
}

void random_log(struct buf *out, uint64_t seed, uint64_t first, unsigned n, unsigned kinds)
{
	struct draw d = { .kinds = kinds, .state = seed * 0x9e3779b97f4a7c15u + 88172645463325252u };
	sql_record_init(&d.record);
	records_begin(out);
	for (uint64_t lsn = first; lsn < first + n; lsn++) {
		char key[24];
		sql_record_clear(&d.record);
		for (unsigned i = 1 + draw(&d, 3); i; i--)
			add_statement(&d);
		snprintf(key, sizeof key, "hero:%u", 1 + draw(&d, 5));
		records_add(out, (struct made){ .lsn = lsn,
						.epoch = 1,
						.keys = key,
						.statements = buf_cstr(&d.record.body) + sizeof "BEGIN;\n" - 1 });
	}
	sql_record_release(&d.record);
}
