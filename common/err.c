#include "common/err.h"
#include <stddef.h>
#include <string.h>

struct row {
	int err, http, shown;
	const char *word, *text;
};

static const struct row rows[] = {
#define X(sym, num, word, http, shown, text) { ERR_##sym, http, ERR_##shown, word, text },
	ERR_TABLE(X)
#undef X
};
enum { ROWS = sizeof rows / sizeof rows[0] };

/* A number from elsewhere that we do not know is somebody's failure: we report it as such, never as success. */
static const struct row *row(int err)
{
	const struct row *failed = NULL;
	for (size_t i = 0; i < ROWS; i++) {
		if (rows[i].err == err)
			return &rows[i];
		if (rows[i].err == ERR_FAILED)
			failed = &rows[i];
	}
	return failed;
}

const char *err_word(int err)
{
	return err >= 0 ? "ok" : row(err)->word;
}

const char *err_text(int err)
{
	return err >= 0 ? "it worked" : row(err)->text;
}

int err_http(int err)
{
	return err >= 0 ? 200 : row(err)->http;
}

int err_public(int err)
{
	return err >= 0 ? 0 : row(err)->shown;
}

int err_from_word(const char *w)
{
	for (size_t i = 0; i < ROWS; i++)
		if (!strcmp(rows[i].word, w))
			return rows[i].err;
	return 0;
}

const char *effect_word(enum effect e)
{
	switch (e) {
	case EFFECT_NONE: return "none";
	case EFFECT_DONE: return "done";
	case EFFECT_UNKNOWN: break;
	}
	return "unknown"; /* in doubt nothing is promised */
}
