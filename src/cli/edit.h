#ifndef REGOLITH_CLI_EDIT_H
#define REGOLITH_CLI_EDIT_H

#include <stdbool.h>
#include <stddef.h>

#include "core/part.h"

/* Line editing on a terminal, by libedit: the part "edit". The editor has a thread of its own, so
 * that the loop runs while somebody types; it says by `notify` that edit_take has something. */
struct edit;

struct edit_conf {
  const char *history;        /* file that lines are kept in, NULL = none */
  void (*notify)(void *data); /* from the editor's thread */
  void *data;
};

enum edit_event {
  EDIT_NOTHING,
  EDIT_LINE,        /* text: the line, without its end */
  EDIT_END,         /* Ctrl-D on an empty line, or the terminal is gone */
  EDIT_INTERRUPTED, /* after edit_interrupt: the line was dropped */
  EDIT_COMPLETE     /* text: the line up to the cursor; edit_answer must follow */
};

struct edit_part {
  struct part_head head;
  int (*open)(struct edit **ret, const struct edit_conf *conf, struct err *err);
  void (*read)(struct edit *edit, const char *prompt); /* one line; not before the last was taken */
  enum edit_event (*take)(struct edit *edit, char **ret_text); /* text: owned by the caller */
  /* What the word before the cursor could become. */
  void (*answer)(struct edit *edit, const char *word, const char *const *names, size_t n);
  void (*interrupt)(struct edit *edit);
  void (*redraw)(struct edit *edit);  /* the window has another size, or is ours again */
  void (*restore)(struct edit *edit); /* the terminal, at once: the process is about to end */
  void (*close)(struct edit *edit);   /* NULL allowed */
};

#endif
