/* The process's own log. One line a message, "regolith: level: text", to stderr or to a sink that
 * cli installs. Libraries return errors instead of logging; only cli and the top of a callback log.
 * A message is written with one write, so that lines of several processes never mix. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static enum log_level min_level = LOG_WARN;
static void (*log_sink)(enum log_level, const char *, void *);
static void *log_sink_data;

void log_set_level(enum log_level level)
{
  min_level = level;
}

enum log_level log_level(void)
{
  return min_level;
}

void log_set_sink(void (*sink)(enum log_level, const char *, void *), void *data)
{
  log_sink = sink;
  log_sink_data = data;
}

const char *log_level_name(enum log_level level)
{
  static const char *const names[] = {"debug", "info", "warn", "error", "none"};
  return names[level <= LOG_NONE ? level : LOG_NONE];
}

void log_write(enum log_level level, const char *fmt, ...)
{
  if (level < min_level) return;
  char text[1024];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  if (log_sink) {
    log_sink(level, text, log_sink_data);
    return;
  }
  char line[1100];
  int n = snprintf(line, sizeof line, "regolith: %s: %s\n", log_level_name(level), text);
  if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0) return;
}
