#ifndef REGOLITH_HOST_REPORT_INTERNAL_H
#define REGOLITH_HOST_REPORT_INTERNAL_H

#include "base/buf.h"
#include "core/loop.h"
#include "host/lines.h"
#include "host/out.h"
#include "host/report.h"

/* What report.c and report_text.c share. */

struct report_script {
  const char *name;   /* the caller's */
  struct lines lines; /* output behind the last newline */
  bool has_progress;  /* progress was called, and the script still runs */
  double done, total; /* total < 0: unknown */
  char *text;         /* of the progress, owned; NULL = none */
  int shown_percent;  /* last plain progress line, -1 = none */
};

struct report {
  struct report_conf conf;
  struct out *out, *err; /* the same where both are one terminal */
  unsigned open_outs;    /* of the two, not yet closed */
  bool many;             /* several scripts: lines carry their names */
  struct report_script *scripts;
  size_t ended_n;
  int64_t cost_microusd; /* of the sandboxes of the scripts that have ended */
  struct events *events; /* owned; with --json, else NULL */
  uint64_t start_ms;

  size_t status_script; /* whose progress is shown, HOST_NO_SCRIPT = none */
  bool status_shown;    /* the terminal's last line is ours */
  struct timer redraw;

  void (*on_closed)(void *data);
  void *closed_data;
};

extern const struct host_hooks report_text_hooks;

/* Takes the progress line off the terminal before something else is written there; it comes back
 * soon. */
void report_hide_status(struct report *r);
void report_show_status_soon(struct report *r);
void report_draw_status(struct timer *t);
bool report_is_full(const struct report *r);
/* "regolith: name: message", traceback and hint, to stderr. */
void report_failure(struct report *r, const char *name, const struct err *err,
                    const char *traceback);

#endif
