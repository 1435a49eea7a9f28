/* The part "edit": lines from a terminal, with history and completion.
 *
 * libedit reads one character after the other and waits for the rest of an escape sequence, so it
 * runs in a thread of its own, which does nothing else and gets no signals. It is woken from poll
 * by an event descriptor: to drop the line, to draw again, to end. Between two lines the terminal
 * is in its ordinary mode: what runs then is interrupted by Ctrl-C as everywhere, and reads as
 * everywhere. The locale is the thread's alone.
 *
 * The history is a text file, one line each, appended to as lines come, so that several editors can
 * share it and a crash loses nothing; it is cut to its second half when it has grown too long.
 *
 * idle → reading (→ completing → reading) → a line for edit_take → idle */
#include "cli/edit.h"

#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <locale.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>
#include <wchar.h>

#include "base/buf.h"
#include "base/cleanup.h"

enum { HISTORY = 1000, HISTORY_FILE = 2 * HISTORY /* lines */ };

struct edit {
  struct edit_conf conf;
  char *history_path; /* owned, or NULL */
  int wake;           /* eventfd, owned */
  struct termios terminal;
  pthread_t thread;

  /* the thread's own */
  EditLine *el;
  History *history;
  mbstate_t half; /* of a character that comes in several bytes */

  /* shared, under lock */
  pthread_mutex_t lock;
  pthread_cond_t changed;
  char *prompt; /* owned */
  bool reading, closing, interrupted, redraw;
  enum edit_event event;
  char *text;          /* owned; of the event */
  bool answered;       /* to EDIT_COMPLETE */
  char *word, **names; /* owned */
  size_t names_n;
};

/* --- The thread: reading --- */

static struct edit *edit_of(EditLine *el)
{
  struct edit *e = NULL;
  el_get(el, EL_CLIENTDATA, &e);
  return e;
}

static char *give_prompt(EditLine *el)
{
  return edit_of(el)->prompt;
}

static void draw_again(EditLine *el)
{
  el_set(el, EL_PREP_TERM, 0);
  el_set(el, EL_PREP_TERM, 1);
  el_resize(el);
  el_set(el, EL_REFRESH);
}

/* What edit_interrupt and its like want; true: *ret and *ret_n are what the reader gets. */
static bool take_wake(struct edit *e, wchar_t *ret, int *ret_n)
{
  uint64_t n;
  bool redraw, interrupted, closing;
  if (read(e->wake, &n, sizeof n) < 0) return false;
  pthread_mutex_lock(&e->lock);
  redraw = e->redraw;
  interrupted = e->interrupted;
  closing = e->closing;
  e->redraw = false;
  pthread_mutex_unlock(&e->lock);
  if (redraw) draw_again(e->el);
  *ret = L'\n';
  *ret_n = closing ? 0 : 1;
  return closing || interrupted;
}

/* Bytes to characters: 1, or 0 where more bytes are needed. What is no character becomes one. */
static int decode(struct edit *e, char byte, wchar_t *ret)
{
  size_t n = mbrtowc(ret, &byte, 1, &e->half);
  if (n == (size_t)-2) return 0;
  if (n == (size_t)-1) {
    memset(&e->half, 0, sizeof e->half);
    *ret = L'\xfffd';
  }
  return 1;
}

static int get_char(EditLine *el, wchar_t *ret)
{
  struct edit *e = edit_of(el);
  for (;;) {
    struct pollfd fds[] = {{.fd = e->wake, .events = POLLIN},
                           {.fd = STDIN_FILENO, .events = POLLIN}};
    if (poll(fds, 2, -1) < 0) {
      if (errno == EINTR) continue;
      return -1;
    }
    int n;
    if (fds[0].revents && take_wake(e, ret, &n)) return n;
    if (!fds[1].revents) continue;
    char byte;
    ssize_t got = read(STDIN_FILENO, &byte, 1);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got <= 0) return 0;
    if (decode(e, byte, ret)) return 1;
  }
}

/* --- The thread: completion --- */

static size_t common_length(char *const *names, size_t n)
{
  size_t len = strlen(names[0]);
  for (size_t i = 1; i < n; i++) {
    size_t same = 0;
    while (same < len && names[i][same] == names[0][same]) same++;
    len = same;
  }
  return len;
}

static int window_width(void)
{
  struct winsize size;
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

static void list_names(char *const *names, size_t n)
{
  size_t widest = 0;
  for (size_t i = 0; i < n; i++)
    if (strlen(names[i]) > widest) widest = strlen(names[i]);
  size_t columns = (size_t)window_width() / (widest + 2);
  if (columns == 0) columns = 1;
  size_t rows = (n + columns - 1) / columns;
  putchar('\n');
  for (size_t row = 0; row < rows; row++) {
    for (size_t i = row; i < n; i += rows)
      printf("%-*s", i + rows < n ? (int)widest + 2 : 0, names[i]);
    putchar('\n');
  }
  fflush(stdout);
}

static void drop_answer(struct edit *e)
{
  for (size_t i = 0; i < e->names_n; i++) free(e->names[i]);
  free(e->names);
  free(e->word);
  e->names = NULL;
  e->word = NULL;
  e->names_n = 0;
}

static void post(struct edit *e, enum edit_event event, char *text)
{
  e->event = event;
  free(e->text);
  e->text = text;
  e->conf.notify(e->conf.data);
}

static unsigned char apply_answer(struct edit *e)
{
  if (e->names_n == 0) return CC_REFRESH_BEEP;
  size_t len = common_length(e->names, e->names_n), have = strlen(e->word);
  if (len > have) {
    cleanup_free char *more = xstrdup(e->names[0] + have);
    more[len - have] = '\0';
    el_insertstr(e->el, more);
    return CC_REFRESH;
  }
  if (e->names_n == 1) return CC_REFRESH;
  list_names(e->names, e->names_n);
  return CC_REDISPLAY;
}

static unsigned char on_tab(EditLine *el, int key)
{
  (void)key;
  struct edit *e = edit_of(el);
  const LineInfo *line = el_line(el);
  size_t n = (size_t)(line->cursor - line->buffer);
  cleanup_free char *text = xmalloc(n + 1);
  memcpy(text, line->buffer, n);
  text[n] = '\0';
  if (strspn(text, " \t") == n) return el_insertstr(el, "  ") < 0 ? CC_ERROR : CC_REFRESH;
  pthread_mutex_lock(&e->lock);
  e->answered = false;
  post(e, EDIT_COMPLETE, take_ptr(&text));
  while (!e->answered && !e->closing) pthread_cond_wait(&e->changed, &e->lock);
  unsigned char result = e->answered ? apply_answer(e) : CC_REFRESH;
  drop_answer(e);
  pthread_mutex_unlock(&e->lock);
  return result;
}

/* --- The thread: history --- */

static void remember(struct edit *e, const char *line)
{
  HistEvent event;
  if (strspn(line, " \t") == strlen(line)) return;
  history(e->history, &event, H_ENTER, line);
  cleanup_close int fd =
      e->history_path ? open(e->history_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
  if (fd < 0) return;
  struct buf entry = {0};
  buf_printf(&entry, "%s\n", line);
  ssize_t n = write(fd, entry.data, entry.len);
  (void)n; /* a full disk costs the entry, nothing else */
  buf_free(&entry);
}

/* Replaces the file by its last lines. */
static void shorten_history(const struct edit *e, const char *from)
{
  struct buf path = {0};
  buf_printf(&path, "%s.%d", e->history_path, (int)getpid());
  cleanup_close int fd = open(path.data, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  size_t len = strlen(from);
  if (fd >= 0 && (write(fd, from, len) != (ssize_t)len || rename(path.data, e->history_path) < 0))
    unlink(path.data);
  buf_free(&path);
}

static void load_history(struct edit *e)
{
  HistEvent event;
  cleanup_close int fd = e->history_path ? open(e->history_path, O_RDONLY | O_CLOEXEC) : -1;
  struct buf text = {0};
  if (fd < 0) return;
  for (ssize_t n = 1; n > 0;) {
    buf_reserve(&text, 64 << 10);
    n = read(fd, text.data + text.len, text.cap - text.len - 1);
    if (n > 0) text.len += (size_t)n;
  }
  text.data[text.len] = '\0';
  size_t lines = 0, skip;
  for (size_t i = 0; i < text.len; i++) lines += text.data[i] == '\n';
  char *at = text.data;
  for (skip = lines > HISTORY ? lines - HISTORY : 0; skip > 0; skip--) at = strchr(at, '\n') + 1;
  if (lines > HISTORY_FILE) shorten_history(e, at);
  for (char *end; (end = strchr(at, '\n')); at = end + 1) {
    *end = '\0';
    if (*at) history(e->history, &event, H_ENTER, at);
  }
  buf_free(&text);
}

/* --- The thread --- */

static void open_editor(struct edit *e)
{
  HistEvent event;
  e->el = el_init("regolith", stdin, stdout, stderr);
  e->history = history_init();
  history(e->history, &event, H_SETSIZE, HISTORY);
  history(e->history, &event, H_SETUNIQUE, 1);
  el_set(e->el, EL_CLIENTDATA, e);
  el_set(e->el, EL_PROMPT, give_prompt);
  el_set(e->el, EL_SIGNAL, 0);
  el_set(e->el, EL_EDITOR, "emacs");
  el_set(e->el, EL_HIST, history, e->history);
  el_set(e->el, EL_GETCFN, get_char);
  /* The narrow call copies the names and never frees them. */
  el_wset(e->el, EL_ADDFN, L"regolith-complete", L"Complete the name before the cursor", on_tab);
  el_set(e->el, EL_BIND, "^I", "regolith-complete", NULL);
  el_set(e->el, EL_BIND, "^R", "em-inc-search-prev", NULL);
  el_set(e->el, EL_BIND, "\\e[1;5C", "em-next-word", NULL);
  el_set(e->el, EL_BIND, "\\e[1;5D", "ed-prev-word", NULL);
  el_source(e->el, NULL); /* ~/.editrc, as with every program that uses libedit */
  load_history(e);
}

static void read_line(struct edit *e)
{
  int n = 0;
  const char *got = el_gets(e->el, &n);
  char *line = got && n > 0 ? xstrdup(got) : NULL;
  if (line) line[strcspn(line, "\n")] = '\0';
  pthread_mutex_lock(&e->lock);
  bool dropped = e->interrupted;
  e->interrupted = e->reading = false;
  pthread_mutex_unlock(&e->lock);
  if (line && !dropped) remember(e, line);
  enum edit_event event = dropped ? EDIT_INTERRUPTED : line ? EDIT_LINE : EDIT_END;
  pthread_mutex_lock(&e->lock);
  post(e, event, line);
  pthread_mutex_unlock(&e->lock);
}

static locale_t use_utf8(void)
{
  locale_t locale = newlocale(LC_CTYPE_MASK, "", (locale_t)0);
  if (!locale) locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
  if (locale) uselocale(locale);
  return locale;
}

static void *run_thread(void *arg)
{
  struct edit *e = arg;
  locale_t locale = use_utf8();
  open_editor(e);
  pthread_mutex_lock(&e->lock);
  while (!e->closing) {
    if (!e->reading) {
      pthread_cond_wait(&e->changed, &e->lock);
      continue;
    }
    pthread_mutex_unlock(&e->lock);
    read_line(e);
    pthread_mutex_lock(&e->lock);
  }
  pthread_mutex_unlock(&e->lock);
  el_end(e->el);
  history_end(e->history);
  uselocale(LC_GLOBAL_LOCALE);
  if (locale) freelocale(locale);
  return NULL;
}

/* --- The other side --- */

static void wake(struct edit *e)
{
  uint64_t one = 1;
  ssize_t n = write(e->wake, &one, sizeof one);
  (void)n; /* it cannot be full */
  pthread_cond_broadcast(&e->changed);
}

static void edit_free(struct edit *e)
{
  if (e->wake >= 0) close(e->wake);
  pthread_mutex_destroy(&e->lock);
  pthread_cond_destroy(&e->changed);
  drop_answer(e);
  free(e->history_path);
  free(e->prompt);
  free(e->text);
  free(e);
}

static int edit_open(struct edit **ret, const struct edit_conf *conf, struct err *err)
{
  struct edit *e = xcalloc(1, sizeof *e);
  sigset_t all, before;
  e->conf = *conf;
  e->history_path = conf->history ? xstrdup(conf->history) : NULL;
  pthread_mutex_init(&e->lock, NULL);
  pthread_cond_init(&e->changed, NULL);
  e->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  int rc = e->wake < 0 || tcgetattr(STDIN_FILENO, &e->terminal) < 0 ? errno : 0;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  if (rc == 0) rc = pthread_create(&e->thread, NULL, run_thread, e);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (rc != 0) {
    edit_free(e);
    return err_set(err, ERR_INTERNAL, rc, "cannot edit lines: %s", strerror(rc));
  }
  *ret = e;
  return 0;
}

static void edit_read(struct edit *e, const char *prompt)
{
  pthread_mutex_lock(&e->lock);
  free(e->prompt);
  e->prompt = xstrdup(prompt);
  e->reading = true;
  pthread_cond_broadcast(&e->changed);
  pthread_mutex_unlock(&e->lock);
}

static enum edit_event edit_take(struct edit *e, char **ret_text)
{
  pthread_mutex_lock(&e->lock);
  enum edit_event event = e->event;
  *ret_text = take_ptr(&e->text);
  e->event = EDIT_NOTHING;
  pthread_mutex_unlock(&e->lock);
  return event;
}

static void edit_answer(struct edit *e, const char *word, const char *const *names, size_t n)
{
  pthread_mutex_lock(&e->lock);
  drop_answer(e);
  e->word = xstrdup(word);
  e->names = xcalloc(n ? n : 1, sizeof *e->names);
  for (; e->names_n < n; e->names_n++) e->names[e->names_n] = xstrdup(names[e->names_n]);
  e->answered = true;
  pthread_cond_broadcast(&e->changed);
  pthread_mutex_unlock(&e->lock);
}

static void edit_interrupt(struct edit *e)
{
  pthread_mutex_lock(&e->lock);
  if (e->reading) {
    e->interrupted = true;
    wake(e);
  }
  pthread_mutex_unlock(&e->lock);
}

static void edit_redraw(struct edit *e)
{
  pthread_mutex_lock(&e->lock);
  if (e->reading) {
    e->redraw = true;
    wake(e);
  }
  pthread_mutex_unlock(&e->lock);
}

static void edit_restore(struct edit *e)
{
  tcsetattr(STDIN_FILENO, TCSADRAIN, &e->terminal);
}

static void edit_close(struct edit *e)
{
  if (!e) return;
  pthread_mutex_lock(&e->lock);
  e->closing = true;
  wake(e);
  pthread_mutex_unlock(&e->lock);
  pthread_join(e->thread, NULL);
  edit_restore(e);
  edit_free(e);
}

PART_EXPORT extern const struct edit_part regolith_part;

const struct edit_part regolith_part = {
    .head = {.name = "edit",
             .version = REGOLITH_VERSION,
             .size = sizeof(struct edit_part),
             .attach = part_attach_log},
    .open = edit_open,
    .read = edit_read,
    .take = edit_take,
    .answer = edit_answer,
    .interrupt = edit_interrupt,
    .redraw = edit_redraw,
    .restore = edit_restore,
    .close = edit_close,
};
