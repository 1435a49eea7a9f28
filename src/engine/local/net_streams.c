/* The name server's end of TCP connections: as much of TCP (RFC 9293) as questions and answers
 * need, towards a kernel that does it well and over a wire that loses nothing by itself. There are
 * no options, nothing is sent twice unless the box asks again, and what is out of order is not
 * kept: the box sends it again. A connection that is quiet for too long is reset.
 *
 * Questions come one after another, two bytes of length before each (RFC 7766), and are answered in
 * their order: the next is looked at when the last answer is all acknowledged.
 *
 * opened → open ⇄ asked → answering → … → ending → gone */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/buf.h"
#include "engine/local/net_internal.h"

enum { QUIET_MS = 10000, HEAD = 14 };

struct net_stream {
  struct list node;   /* net.streams */
  struct list of_box; /* net_box.streams */
  struct net_box *box;
  struct net_frame to; /* whom to answer: head, addresses and ports */
  uint8_t head[HEAD];
  uint32_t first; /* sequence number of its SYN */
  uint32_t got;   /* what of the box's is expected next */
  uint32_t taken; /* what of ours it has */
  uint32_t sent;  /* what of ours comes next */
  uint16_t window;
  bool asked;       /* a question is under way */
  bool ends, ended; /* the box has said its last; so have we */
  uint8_t *answer;  /* owned; NULL: none is being sent */
  size_t answer_len, answer_at;
  uint64_t until_ms;
  size_t in_len;
  uint8_t in[2 + DNS_SIZE_MAX];
};

static uint8_t out[NET_FRAME_MAX];

static void say(struct net_stream *s, uint8_t flags, const void *data, size_t len)
{
  struct net_segment seg = {.seq = s->sent,
                            .ack = s->got,
                            .flags = (uint8_t)(flags | NET_TCP_ACK),
                            .window = (uint16_t)(sizeof s->in - s->in_len),
                            .data = data,
                            .len = len};
  net_box_send(s->box, out, net_frame_segment(&s->to, &seg, out));
  s->sent += (uint32_t)len + ((flags & (NET_TCP_SYN | NET_TCP_FIN)) != 0);
}

static void stream_free(struct net_stream *s)
{
  if (s->asked) net_names_forget(s->box, s);
  s->box->streams_n--;
  list_remove(&s->node);
  list_remove(&s->of_box);
  free(s->answer);
  free(s);
}

static void stir(struct net_stream *s)
{
  s->until_ms = net.now_ms + QUIET_MS;
  list_remove(&s->node);
  list_append(&net.streams, &s->node);
}

static struct net_stream *find(const struct net_box *b, uint16_t port)
{
  LIST_FOREACH (it, &b->streams) {
    struct net_stream *s = list_entry(it, struct net_stream, of_box);
    if (s->to.sport == port) return s;
  }
  return NULL;
}

/* ---- opening ---- */

static void open_stream(struct net_box *b, const struct net_frame *f)
{
  uint32_t number;
  if (b->streams_n >= NET_STREAMS_MAX ||
      getrandom(&number, sizeof number, GRND_NONBLOCK) != sizeof number) {
    net_box_send(b, out, net_frame_reset(f, out));
    return;
  }
  struct net_stream *s = xcalloc(1, sizeof *s);
  memcpy(s->head, f->data, HEAD);
  s->box = b;
  s->to = (struct net_frame){
      .data = s->head, .kind = NET_TCP, .dst = f->dst, .sport = f->sport, .dport = f->dport};
  s->first = f->tcp_seq;
  s->got = f->tcp_seq + 1;
  s->taken = s->sent = number;
  s->window = f->tcp_window;
  b->streams_n++;
  list_init(&s->node);
  list_append(&b->streams, &s->of_box);
  stir(s);
  say(s, NET_TCP_SYN, NULL, 0);
}

static void on_syn(struct net_box *b, struct net_stream *s, const struct net_frame *f)
{
  if (s && s->first == f->tcp_seq) { /* it did not see our answer */
    s->sent = s->taken;
    say(s, NET_TCP_SYN, NULL, 0);
    return;
  }
  if (s) stream_free(s);
  open_stream(b, f);
}

/* ---- going on ---- */

static void send_more(struct net_stream *s)
{
  uint32_t room = s->window - (s->sent - s->taken);
  size_t n = s->answer_len - s->answer_at;
  if (room > s->window) room = 0; /* the window has shrunk */
  if (n > room) n = room;
  if (n > NET_SEGMENT_MAX) n = NET_SEGMENT_MAX;
  if (n == 0) return;
  say(s, NET_TCP_PSH, s->answer + s->answer_at, n);
  s->answer_at += n;
}

static void on_taken(struct net_stream *s, const struct net_frame *f)
{
  if (f->tcp_ack - s->taken > s->sent - s->taken) return; /* old, or of what was never sent */
  s->taken = f->tcp_ack;
  s->window = f->tcp_window;
  if (!s->answer || s->answer_at < s->answer_len || s->taken != s->sent) return;
  free(s->answer);
  s->answer = NULL;
}

/* Takes what comes next in order. */
static void on_data(struct net_stream *s, const struct net_frame *f)
{
  uint32_t old = s->got - f->tcp_seq; /* of it, we have this much */
  if (old > f->payload_len) return;
  size_t new = f->payload_len - old, room = sizeof s->in - s->in_len;
  size_t n = new < room ? new : room;
  memcpy(s->in + s->in_len, f->payload + old, n);
  s->in_len += n;
  s->got += (uint32_t)n;
  if (n < new || !(f->tcp_flags & NET_TCP_FIN) || s->ends) return;
  s->got++;
  s->ends = true;
}

static void next_question(struct net_stream *s)
{
  size_t len = (size_t)s->in[0] << 8 | s->in[1], all = 2 + len;
  uint8_t msg[DNS_SIZE_MAX];
  if (s->asked || s->answer || s->ended || s->in_len < 2) return;
  if (all > sizeof s->in) { /* longer than any question */
    s->in_len = 0;
    s->ends = true;
    return;
  }
  if (s->in_len < all) return;
  memcpy(msg, s->in + 2, len);
  s->in_len -= all;
  memmove(s->in, s->in + all, s->in_len);
  s->asked = true;
  net_names_ask(&(struct net_asker){s->box, NULL, s}, msg, len);
}

static void go_on(struct net_stream *s)
{
  next_question(s);
  if (s->answer) send_more(s);
  if (!s->ends || s->asked || s->answer || s->ended) return;
  s->ended = true;
  say(s, NET_TCP_FIN, NULL, 0);
}

void net_streams_frame(struct net_box *b, const struct net_frame *f)
{
  struct net_stream *s = find(b, f->sport);
  if (f->tcp_flags & NET_TCP_RST) {
    if (s) stream_free(s);
    return;
  }
  if (f->tcp_flags & NET_TCP_SYN) {
    on_syn(b, s, f);
    return;
  }
  if (!s || !(f->tcp_flags & NET_TCP_ACK)) {
    net_box_send(b, out, net_frame_reset(f, out));
    return;
  }
  stir(s);
  on_taken(s, f);
  on_data(s, f);
  bool tells = f->payload_len > 0 || (f->tcp_flags & NET_TCP_FIN) || f->tcp_seq != s->got;
  if (s->ended && s->taken == s->sent) {
    if (tells) say(s, 0, NULL, 0);
    stream_free(s);
    return;
  }
  if (tells) say(s, 0, NULL, 0);
  go_on(s);
}

void net_streams_answer(struct net_stream *s, const void *msg, size_t len)
{
  s->asked = false;
  if (len > UINT16_MAX) len = 0;
  s->answer_len = 2 + len;
  s->answer_at = 0;
  s->answer = xmalloc(s->answer_len);
  s->answer[0] = (uint8_t)(len >> 8);
  s->answer[1] = (uint8_t)len;
  memcpy(s->answer + 2, msg, len);
  stir(s);
  send_more(s);
}

/* ---- time ---- */

void net_streams_fill(uint32_t *timeout_ms)
{
  if (list_empty(&net.streams)) return;
  uint64_t until = list_entry(net.streams.next, struct net_stream, node)->until_ms;
  uint64_t left = until > net.now_ms ? until - net.now_ms : 0;
  if (left < *timeout_ms) *timeout_ms = (uint32_t)left;
}

void net_streams_polled(void)
{
  LIST_FOREACH_SAFE (it, &net.streams) {
    struct net_stream *s = list_entry(it, struct net_stream, node);
    if (s->until_ms > net.now_ms) return;
    say(s, NET_TCP_RST, NULL, 0);
    stream_free(s);
  }
}

void net_streams_forget(struct net_box *b)
{
  LIST_FOREACH_SAFE (it, &b->streams) stream_free(list_entry(it, struct net_stream, of_box));
}
