#ifndef REGOLITH_HOST_REPORT_H
#define REGOLITH_HOST_REPORT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/log.h"

struct host_hooks;
struct loop;
struct report;
struct tally;

/* What people and programs see of a run: output lines on stdout, logs, progress and failures on
 * stderr; or one JSON event per line on stdout. */
struct report_conf {
  struct loop *loop;
  int out_fd, err_fd; /* 1 and 2, but for tests */
  bool json;
  bool quiet, verbose;
  bool tty;                 /* err_fd is a terminal: progress is one line, rewritten */
  const struct tally *live; /* shown on a terminal; NULL = not. Its hooks come before these */
  const char *const *names; /* of the scripts, in order; the strings outlive the report */
  size_t names_n;
  /* The reader cannot keep up (true) or can again; the reader is gone. */
  void (*on_full)(void *data, bool full);
  void (*on_broken)(void *data, int sys_errno);
  void *data;
};

struct report *report_new(const struct report_conf *conf);
extern const struct host_hooks report_hooks; /* with a struct report as data */

/* A signal came; says what that leads to. */
void report_interrupt(struct report *report, int times);

/* A line of the process's own log, to stderr. */
void report_log(struct report *report, enum log_level level, const char *text);

/* A message of the run itself, "regolith: text", to stderr even when quiet. */
void report_err(struct report *report, const struct err *err);

/* The last event in JSON: how the run ended. */
void report_run_end(struct report *report, int exit_status);

/* Waits for the readers, then frees and calls done once, from the loop. report_abandon makes it
 * soon, and drops what was not read. */
void report_close(struct report *report, void (*done)(void *data), void *data);
void report_abandon(struct report *report);

/* The display names of scripts: the file's name; where two are alike their paths as given; where
 * those are alike too "#2", "#3" behind them. names are set to owned strings. */
void report_names(const char *const *paths, size_t n, char **ret_names);

#endif
