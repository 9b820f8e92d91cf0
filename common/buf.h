#pragma once
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
/*
 * buf: a growable byte buffer.
 *
 * Threads: owner only. Memory: buf_init needs no memory, buf_release frees; growth doubles. Appending
 * never fails: running out of memory ends the process (abort), bounds are the caller's to keep.
 * data[0..len) are the bytes; they are not NUL-ended unless buf_cstr was called last.
 */
struct buf {
	char *data;
	size_t len, cap;
};
// clang-format off
#define BUF_INIT {0}
// clang-format on
void buf_init(struct buf *b);
void buf_release(struct buf *b);
void buf_clear(struct buf *b);              /* len = 0, memory kept */
char *buf_reserve(struct buf *b, size_t n); /* room for n more; returns the end; add to len what you wrote */
void buf_add(struct buf *b, const void *p, size_t n);
void buf_addstr(struct buf *b, const char *s);
void buf_addch(struct buf *b, char c);
void buf_addu(struct buf *b, uint64_t v); /* decimal */
void buf_addi(struct buf *b, int64_t v);
void buf_addf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_consume(struct buf *b, size_t n); /* drops n bytes from the front */
const char *buf_cstr(struct buf *b);       /* puts a NUL behind, not counted */
