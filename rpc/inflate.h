#pragma once
#include <stddef.h>
#include "common/buf.h"
/*
 * inflate: compressed bodies, which libpitaya's clients send.
 *
 * Threads: any thread; pure.
 */
/*
 * Appends what a zlib or gzip stream holds, at most max bytes of it: a few bytes may announce gigabytes.
 * ERR_BAD_REQUEST: broken, cut or more behind it; ERR_FULL: over max. out may have grown then.
 */
int inflate_body(struct buf *out, const char *p, size_t n, size_t max);
