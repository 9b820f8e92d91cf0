#pragma once
/*
 * prefetch: asks for a line of memory that is about to be written.
 *
 * __builtin_prefetch(p, 1) is meant to do that, but without -mprfchw, which no x86-64 before Broadwell promises, gcc asks
 * for it only to be read: then a line that another core has written comes twice, the second time when the store stands
 * before it. Processors that do not know the instruction take it for none.
 *
 * Threads: any. Memory: p need not be valid.
 */
static inline void prefetch_write(const void *p)
{
#ifdef __x86_64__
	__asm__ volatile("prefetchw %0" : : "m"(*(const char *)p));
#else
	__builtin_prefetch(p, 1);
#endif
}
