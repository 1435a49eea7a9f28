#ifndef REGOLITH_CORE_TREE_INTERNAL_H
#define REGOLITH_CORE_TREE_INTERNAL_H

#include "core/tree.h"

/* Shared by the tree*.c files; nobody else includes this. */

void tree_note_skipped(struct tree_report *r, const char *what, const char *path);
void tree_path_push(struct buf *path, const char *name);
void tree_path_pop(struct buf *path);

#endif
