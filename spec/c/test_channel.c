/* core/channel: frames whole, in order, bounded; a peer that floods, lies or goes. */
#include "test.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "core/channel.h"
#include "core/loop.h"

static struct loop *loop;
static struct channel *a, *b;
static size_t frames, bytes;
static bool in_order, ended, failed;
static size_t pause_at, stop_at;

static struct timer resume;

static void on_frame(void *data, const char *p, size_t len)
{
  (void)data;
  if (len > 0 && (unsigned char)p[0] != (unsigned char)frames) in_order = false;
  frames++;
  bytes += len;
  if (frames == pause_at) {
    channel_pause(b, true);
    timer_start(loop, &resume, 20);
  }
  if (frames == stop_at) loop_stop(loop);
}

static void on_end(void *data, const struct err *err)
{
  (void)data;
  ended = true;
  failed = err != NULL;
  loop_stop(loop);
}

static const struct channel_events events = {.on_frame = on_frame, .on_end = on_end};

static void on_resume(struct timer *t)
{
  (void)t;
  CHECK_INT(frames, pause_at);
  channel_pause(b, false);
}

static int fds[2];

static void open_pair(bool both)
{
  frames = bytes = pause_at = stop_at = 0;
  in_order = true;
  ended = failed = false;
  a = b = NULL;
  loop_new(&loop, NULL);
  CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
  if (both) CHECK(channel_new(&a, loop, fds[0], 1 << 20, &events, NULL, NULL) == 0);
  CHECK(channel_new(&b, loop, fds[1], 1 << 20, &events, NULL, NULL) == 0);
}

static void close_pair(void)
{
  channel_close(a, NULL, NULL);
  channel_close(b, NULL, NULL);
  loop_free(loop);
}

static void frames_arrive_whole(void)
{
  open_pair(true);
  static char body[300000];
  stop_at = 200;
  pause_at = 50;
  resume = (struct timer){.cb = on_resume};
  size_t sent = 0;
  for (int i = 0; i < 200; i++) {
    size_t len = (size_t)(i * 7919) % sizeof body + 1;
    body[0] = (char)i;
    channel_send(a, body, len);
    sent += len;
  }
  CHECK(channel_backlog(a) > 0);
  loop_run(loop);
  CHECK_INT(frames, 200);
  CHECK_INT(bytes, sent);
  CHECK(in_order);
  CHECK_INT(channel_backlog(a), 0);
  close_pair();
}

static void a_gone_peer_ends_it(void)
{
  open_pair(false);
  CHECK(write(fds[0], "\2\0\0\0\0x\2\0\0\0\1y", 12) == 12);
  close(fds[0]);
  loop_run(loop);
  CHECK_INT(frames, 2);
  CHECK(ended && !failed && in_order);
  channel_send(b, "into the void", 13);
  close_pair();
}

static void a_cut_frame_fails(void)
{
  open_pair(false);
  CHECK(write(fds[0], "\5\0\0\0ab", 6) == 6);
  close(fds[0]);
  loop_run(loop);
  CHECK(ended && failed);
  CHECK_INT(frames, 0);
  close_pair();
}

static void an_oversized_frame_fails(void)
{
  open_pair(false);
  CHECK(write(fds[0], "\1\0\x10\0", 4) == 4);
  loop_run(loop);
  CHECK(ended && failed);
  close(fds[0]);
  close_pair();
}

/* ---- turns ---- */

enum { FLOOD = 2000 };

struct flooded {
  struct channel *channel;
  int peer;
  size_t frames;
};

static struct flooded flooded[3];
static const struct flooded *last;
static size_t in_a_row, longest, floods_left;

static void on_flood(void *data, const char *p, size_t len)
{
  (void)p, (void)len;
  struct flooded *f = data;
  in_a_row = f == last ? in_a_row + 1 : 1;
  last = f;
  if (in_a_row > longest && floods_left > 1) longest = in_a_row;
  if (++f->frames == FLOOD && --floods_left == 0) loop_stop(loop);
}

static void floods_take_turns(void)
{
  static const struct channel_events flood_events = {.on_frame = on_flood, .on_end = on_end};
  static char flood[FLOOD][5];
  for (int k = 0; k < FLOOD; k++) memcpy(flood[k], "\1\0\0\0x", 5);
  loop_new(&loop, NULL);
  floods_left = 3;
  for (int i = 0; i < 3; i++) {
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    struct flooded *f = &flooded[i];
    f->peer = pair[0];
    CHECK(channel_new(&f->channel, loop, pair[1], 64, &flood_events, f, NULL) == 0);
    CHECK(write(f->peer, flood, sizeof flood) == sizeof flood);
    shutdown(f->peer, SHUT_WR);
  }
  loop_run(loop);
  CHECK(longest <= 64);
  for (int i = 0; i < 3; i++) {
    CHECK_INT(flooded[i].frames, FLOOD);
    close(flooded[i].peer);
    channel_close(flooded[i].channel, NULL, NULL);
  }
  loop_free(loop);
}

const struct test_case test_cases[] = {{"frames_arrive_whole", frames_arrive_whole},
                                       {"a_gone_peer_ends_it", a_gone_peer_ends_it},
                                       {"a_cut_frame_fails", a_cut_frame_fails},
                                       {"an_oversized_frame_fails", an_oversized_frame_fails},
                                       {"floods_take_turns", floods_take_turns},
                                       {0}};
