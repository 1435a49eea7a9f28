#ifndef REGOLITH_BASE_SUGGEST_H
#define REGOLITH_BASE_SUGGEST_H

#include <stddef.h>

/* Finds the name a misspelt word was probably meant to be: the nearest of n names within about a
 * third of the word's length in edits (a swap of neighbours counts as one). NULL: none is near. */
const char *suggest_nearest(const char *word, const char *const *names, size_t n);

#endif
