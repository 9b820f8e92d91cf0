#include "dbwriter/history.h"
#include <stdio.h>
#include <string.h>
#include "common/err.h"
#include "dbwriter/merge.h"
#include "dbwriter/show.h"

static bool has_key(const struct sqllog_record *r, const char *key, size_t n)
{
	const char *at_key;
	size_t at = 0, bytes;
	while (sqllog_key_next(r, &at, &at_key, &bytes))
		if (bytes == n && !memcmp(at_key, key, n))
			return true;
	return false;
}

int history_each(struct env *env, const char *const *from, unsigned n, const char *key,
		 void (*fn)(void *arg, const char *text, size_t bytes), void *arg, char *why, size_t why_size)
{
	struct sql_record written; /* the key as it stands in a log */
	struct merge m;
	struct sqllog_record r;
	const struct merge_log *where;
	struct buf text = BUF_INIT;
	int found = 0, got;
	sql_record_init(&written);
	if ((got = sql_record_key(&written, key)) < 0) {
		snprintf(why, why_size, "'%s' is no key", key);
		return got;
	}
	if ((got = merge_open(&m, env, from, n)) == 0) {
		while ((got = merge_next(&m, &r, &where)) == 1) {
			buf_clear(&text);
			if (where->missing)
				buf_addf(&text, "-- %s: records before lsn %llu are not kept any more\n", where->name,
					 (unsigned long long)r.lsn);
			bool mine = has_key(&r, written.keys, written.keys_bytes);
			if (mine)
				show_record(&text, where->name, &r);
			if (text.len)
				fn(arg, text.data, text.len);
			found += mine;
		}
	}
	if (got < 0)
		snprintf(why, why_size, "%s", m.why);
	merge_release(&m);
	buf_release(&text);
	sql_record_release(&written);
	return got < 0 ? got : found;
}
