#ifndef REGOLITH_BASE_LOG_H
#define REGOLITH_BASE_LOG_H

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_NONE };

/* Messages below the level are dropped. The default is LOG_WARN. */
void log_set_level(enum log_level level);
enum log_level log_level(void);

/* Takes over writing: text has no final newline. NULL restores stderr. */
void log_set_sink(void (*sink)(enum log_level level, const char *text, void *data), void *data);

void log_write(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)
#define log_info(...)  log_write(LOG_INFO, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)

/* "debug", "info", "warn", "error". */
const char *log_level_name(enum log_level level);

#endif
