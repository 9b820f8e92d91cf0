#include "rpc/inflate.h"
#include <string.h>
#include <zlib.h>
#include "common/err.h"

#define EITHER_FORMAT (15 + 32) /* zlib or gzip, told apart by their first bytes */

static int run(z_stream *z, struct buf *out, size_t max)
{
	size_t from = out->len;

	for (;;) {
		size_t room = out->len - from < max ? 1024 : 1; /* one byte more shows that it is too much */
		z->next_out = (Bytef *)buf_reserve(out, room);
		z->avail_out = (uInt)room;
		int got = inflate(z, Z_NO_FLUSH);
		out->len += room - z->avail_out;
		if (out->len - from > max)
			return ERR_FULL;
		if (got == Z_STREAM_END)
			return z->avail_in ? ERR_BAD_REQUEST : 0;
		if (got != Z_OK)
			return ERR_BAD_REQUEST;
	}
}

int inflate_body(struct buf *out, const char *p, size_t n, size_t max)
{
	z_stream z;

	memset(&z, 0, sizeof(z));
	z.next_in = (Bytef *)(uintptr_t)p;
	z.avail_in = (uInt)n;
	if (inflateInit2(&z, EITHER_FORMAT) != Z_OK)
		return ERR_NOMEM;
	int err = run(&z, out, max);
	inflateEnd(&z);
	return err;
}
