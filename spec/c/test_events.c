/* engine/remote/events: streams whole, and in pieces of every size.
 * valgrind: yes */
#include "test.h"

#include "engine/remote/events.h"

struct got {
  struct buf text;
  int stop_at; /* on_event has enough then; 0 = never */
  int n;
};

static bool on_event(void *owner, const char *name, const char *data, size_t len)
{
  struct got *g = owner;
  buf_printf(&g->text, "[%s=%.*s]", name, (int)len, data);
  return ++g->n != g->stop_at;
}

static void feed(const char *stream, const char *want)
{
  for (size_t step = 1; step <= strlen(stream); step++) {
    struct got g = {0};
    struct events ev = {.on_event = on_event, .owner = &g};
    for (size_t at = 0; at < strlen(stream); at += step) {
      size_t left = strlen(stream) - at;
      CHECK(events_feed(&ev, stream + at, left < step ? left : step));
    }
    CHECK_STR(g.text.data ? g.text.data : "", want);
    events_done(&ev);
    buf_free(&g.text);
  }
}

static void reads_events(void)
{
  feed("event: exit\ndata: {}\n\n", "[exit={}]");
  feed("data: 1\ndata:  2\n\ndata\n\n", "[message=1\n 2][message=]");
  feed("event: a\r\ndata: x\r\n\r\nevent: b\rdata: y\r\r", "[a=x][b=y]");
  feed(": ping\n\n: \n\nid: 3\nretry: 1\ndata: x\n\n", "[message=x]");
  feed("event: lost\n\ndata: x\n\n", "[message=x]");
  feed("data: cut off\n", "");
}

static void stops_when_told(void)
{
  struct got g = {.stop_at = 1};
  struct events ev = {.on_event = on_event, .owner = &g};
  CHECK(!events_feed(&ev, "data: 1\n\ndata: 2\n\n", 18));
  CHECK(g.n == 1);
  events_done(&ev);
  buf_free(&g.text);
}

static void bounds_an_event(void)
{
  static char much[1 << 20];
  struct got g = {0};
  struct events ev = {.on_event = on_event, .owner = &g};
  bool taken = true;
  size_t n = 0;
  memset(much, 'x', sizeof much);
  while (taken && n < 64) taken = events_feed(&ev, much, sizeof much), n++;
  CHECK(!taken && n == EVENTS_MAX / sizeof much + 1);
  events_done(&ev);
}

const struct test_case test_cases[] = {
    {"reads events", reads_events},
    {"stops when told", stops_when_told},
    {"bounds an event", bounds_an_event},
    {NULL, NULL},
};
