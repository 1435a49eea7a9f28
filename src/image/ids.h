#ifndef REGOLITH_IMAGE_IDS_H
#define REGOLITH_IMAGE_IDS_H

#include <stdbool.h>

#include "base/err.h"

/* Whose ids this process can give to files. */

/* It is in the machine's first user namespace. */
bool image_ids_first(void);

/* It can give files any of at least 65,536 owners. */
bool image_ids_many(void);

/* Makes an ordinary user root of a user namespace of its own, with the user's subordinate ids where
 * newuidmap and newgidmap grant them, else with the user's own id alone. Nothing for root. The
 * process must have one thread. */
int image_ids_enter(struct err *err);

#endif
