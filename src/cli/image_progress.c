/* Showing a pull: one bar per layer on a terminal, redrawn in place at most ten times a second; one
 * line per event on a pipe; one JSON object per line for programs. Everything but JSON goes to
 * stderr. Owns the state of each layer, in the order they first came. */
#include "cli/image_progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/val.h"
#include "image/part.h"

#define REDRAW_MS 100
#define ID_SHOWN  12
#define BAR_MAX   40
#define LINES_MAX 40

struct shown_layer {
  char id[ID_SHOWN + 1];
  char state[16];
  uint64_t bytes, total;
};

struct progress_view {
  enum progress_style style;
  bool bars;
  struct shown_layer *layers; /* owned */
  size_t layers_n;
  size_t drawn;      /* lines on the screen now */
  uint64_t drawn_at; /* clock_mono_ms of the last drawing */
};

struct progress_view *progress_view_new(enum progress_style style)
{
  struct progress_view *v = xcalloc(1, sizeof *v);
  v->style = style;
  const char *term = getenv("TERM");
  v->bars = style == PROGRESS_AUTO && isatty(2) && term && strcmp(term, "dumb") != 0;
  return v;
}

static void print_json(const struct image_progress *p)
{
  struct val v = val_map();
  val_add(&v, "event", val_str("progress"));
  if (p->layer) val_add(&v, "layer", val_str(p->layer));
  val_add(&v, "state", val_str(p->state));
  val_add(&v, "bytes", val_int((int64_t)p->bytes));
  val_add(&v, "bytes_total", val_int((int64_t)p->bytes_total));
  val_add(&v, "layers", val_int((int64_t)p->layers));
  val_add(&v, "layers_done", val_int((int64_t)p->layers_done));
  struct buf line = {0};
  json_print(&line, &v);
  puts(line.data);
  fflush(stdout);
  buf_free(&line);
  val_free(&v);
}

static struct shown_layer *find(struct progress_view *v, const char *digest)
{
  char id[ID_SHOWN + 1];
  snprintf(id, sizeof id, "%s", strncmp(digest, "sha256:", 7) == 0 ? digest + 7 : digest);
  for (size_t i = 0; i < v->layers_n; i++)
    if (strcmp(v->layers[i].id, id) == 0) return &v->layers[i];
  v->layers = xrealloc(v->layers, (v->layers_n + 1) * sizeof *v->layers);
  struct shown_layer *l = &v->layers[v->layers_n++];
  *l = (struct shown_layer){0};
  memcpy(l->id, id, sizeof id);
  return l;
}

static int bar_width(void)
{
  struct winsize ws = {0};
  int columns = ioctl(2, TIOCGWINSZ, &ws) == 0 && ws.ws_col > 0 ? ws.ws_col : 80;
  int width = columns - 50;
  return width > BAR_MAX ? BAR_MAX : width < 4 ? 4 : width;
}

static void draw_layer(const struct shown_layer *l, int width)
{
  char bar[BAR_MAX + 1];
  int full = l->total ? (int)((uint64_t)width * l->bytes / l->total) : width;
  for (int i = 0; i < width; i++) bar[i] = i < full ? '#' : '.';
  bar[width] = '\0';
  fprintf(stderr, "\r\033[K%s  [%s] %8.1f / %.1f MiB  %s\n", l->id, bar,
          (double)l->bytes / 1048576.0, (double)l->total / 1048576.0, l->state);
}

static void draw(struct progress_view *v)
{
  if (v->drawn) fprintf(stderr, "\033[%zuA", v->drawn);
  int width = bar_width();
  size_t from = v->layers_n > LINES_MAX ? v->layers_n - LINES_MAX : 0;
  for (size_t i = from; i < v->layers_n; i++) draw_layer(&v->layers[i], width);
  v->drawn = v->layers_n - from;
  v->drawn_at = clock_mono_ms();
}

void progress_view_add(struct progress_view *v, const struct image_progress *p)
{
  if (v->style == PROGRESS_JSON) print_json(p);
  if (v->style != PROGRESS_AUTO || !p->layer) return;
  struct shown_layer *l = find(v, p->layer);
  bool changed = strcmp(l->state, p->state) != 0;
  snprintf(l->state, sizeof l->state, "%s", p->state);
  l->bytes = p->bytes;
  l->total = p->bytes_total;
  if (v->bars) {
    if (changed || clock_mono_ms() - v->drawn_at >= REDRAW_MS) draw(v);
  } else if (changed) {
    fprintf(stderr, "%s: %s (%.1f MiB)\n", l->id, l->state, (double)l->total / 1048576.0);
  }
}

void progress_view_end(struct progress_view *v)
{
  if (!v) return;
  if (v->bars && v->layers_n) draw(v);
  free(v->layers);
  free(v);
}
