#pragma once
#include <stdbool.h>
/*
 * shape_private: what shape.c (what a statement does) and shape_split.c (cutting it into words and values) share: the
 * bytes a canonical statement is made of.
 */

/* 1: copied; 2: begins a word; 3: begins a number; 4: a quote; 0: not understood */
extern const unsigned char shape_class[256];

static inline bool shape_in_word(const char *p, const char *end)
{
	return p < end && (shape_class[(unsigned char)*p] == 2 || shape_class[(unsigned char)*p] == 3);
}
