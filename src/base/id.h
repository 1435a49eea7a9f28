#ifndef REGOLITH_BASE_ID_H
#define REGOLITH_BASE_ID_H

#include <stddef.h>

#define ID_SIZE 14 /* "sb_" + 10 + NUL */

/* A fresh sandbox id: "sb_" and 10 of [0-9a-z], uniform, from the kernel's generator. */
void id_sandbox(char out[ID_SIZE]);

/* Fills out with len uniform characters of [0-9a-z] and a NUL (out has len + 1 bytes). */
void id_random(char *out, size_t len);

#endif
