#ifndef REGOLITH_BASE_DIRS_H
#define REGOLITH_BASE_DIRS_H

#include <sys/types.h>

/* Makes the directories above path that are missing, not path itself. What cannot be made shows
 * when path is. */
void dirs_make_parents(const char *path, mode_t mode);

#endif
