#ifndef REGOLITH_CLI_IMAGE_PROGRESS_H
#define REGOLITH_CLI_IMAGE_PROGRESS_H

#include <stdbool.h>

struct image_progress;

/* How a pull is shown: bars on a terminal, lines elsewhere, JSON lines, or nothing. */
enum progress_style { PROGRESS_AUTO, PROGRESS_JSON, PROGRESS_NONE };

struct progress_view;
struct progress_view *progress_view_new(enum progress_style style);
void progress_view_add(struct progress_view *v, const struct image_progress *p);
/* Draws the last state and leaves the cursor on a fresh line. */
void progress_view_end(struct progress_view *view);

#endif
