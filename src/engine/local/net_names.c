/* Questions after names: passed on to this machine's own servers, one socket for each, and answered
 * from where the box asked, the way it asked: by a datagram or over a connection (net_streams.c).
 * Servers are asked by datagrams; for who asked over a connection, an answer that was cut short is
 * asked for again over one.
 *
 * The forwarder is where a name in the rules becomes addresses: what a server said for a name that
 * may be asked for is open to the box from then on. Names that no rule knows are refused here and
 * asked of nobody, so that a question is no way out either. There is no IPv6 in a box, so questions
 * after its addresses are answered at once, with none.
 *
 * asked → answered | asked over a connection | next server | given up */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "engine/local/net_internal.h"

enum { WAIT_MS = 3000, QUESTION_FRAME_MAX = 600 };

/* A question and its answer over a connection to a server, each with its length in front. */
struct connection {
  size_t sent, got;
  uint8_t answer[2 + UINT16_MAX];
};

struct question {
  struct list node; /* net.asked */
  struct net_box *box;
  struct net_stream *stream; /* that it came over; NULL: by the datagram in frame */
  int fd;                    /* connected to the server */
  struct connection *over;   /* owned; NULL: fd is for datagrams */
  size_t poll;
  unsigned server; /* which of the box's */
  uint64_t until_ms;
  struct dns_question q;
  uint8_t frame[QUESTION_FRAME_MAX]; /* as the box sent it */
  size_t frame_len;
  uint8_t query[2 + 512]; /* as it is sent on; its length in front */
  size_t query_len;
};

/* ---- answers ---- */

static uint8_t out[NET_FRAME_MAX];

static void answer(const struct net_asker *by, const void *msg, size_t len)
{
  if (by->stream)
    net_streams_answer(by->stream, msg, len);
  else if (len > 0)
    net_box_send(by->box, out, net_frame_answer(by->frame, msg, len, out));
}

static void answer_empty(const struct net_asker *by, const struct dns_question *q,
                         const uint8_t *question, enum dns_code code)
{
  uint8_t msg[512];
  answer(by, msg, dns_make_empty(q, question, code, msg, sizeof msg));
}

static void question_free(struct question *x)
{
  x->box->asked--;
  list_remove(&x->node);
  if (x->fd >= 0) close(x->fd);
  free(x->over);
  free(x);
}

/* Ends it with this answer; len 0: there is none. */
static void finish(struct question *x, uint8_t *msg, size_t len)
{
  struct net_frame f;
  struct net_asker by = {x->box, NULL, x->stream};
  if (!x->stream) {
    net_frame_parse(&f, x->frame, x->frame_len);
    by.frame = &f;
  }
  if (len == 0) {
    answer_empty(&by, &x->q, x->query + 2, DNS_FAILURE);
  } else {
    msg[0] = (uint8_t)(x->q.id >> 8);
    msg[1] = (uint8_t)x->q.id;
    answer(&by, msg, len);
  }
  question_free(x);
}

/* ---- servers ---- */

static bool is_server(const struct net_server *s)
{
  static const struct net_server none;
  return memcmp(s->addr, none.addr, sizeof s->addr) != 0;
}

static int open_to(const struct net_server *s, int type)
{
  struct sockaddr_in6 to6 = {
      .sin6_family = AF_INET6, .sin6_port = htons(53), .sin6_scope_id = s->scope};
  struct sockaddr_in to4 = {.sin_family = AF_INET, .sin_port = htons(53)};
  memcpy(&to6.sin6_addr, s->addr, sizeof to6.sin6_addr);
  memcpy(&to4.sin_addr, s->addr + 12, sizeof to4.sin_addr);
  bool v4 = IN6_IS_ADDR_V4MAPPED(&to6.sin6_addr);
  int fd = socket(v4 ? AF_INET : AF_INET6, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  int rc = fd < 0 ? -1
           : v4   ? connect(fd, (struct sockaddr *)&to4, sizeof to4)
                  : connect(fd, (struct sockaddr *)&to6, sizeof to6);
  if (rc < 0 && errno != EINPROGRESS && fd >= 0) {
    close(fd);
    return -1;
  }
  return fd;
}

static bool use(struct question *x, int type)
{
  if (x->fd >= 0) close(x->fd);
  free(x->over);
  x->over = NULL;
  x->fd = open_to(&x->box->servers[x->server], type);
  if (x->fd < 0) return false;
  if (type == SOCK_STREAM)
    x->over = xcalloc(1, sizeof *x->over);
  else if (send(x->fd, x->query + 2, x->query_len, MSG_NOSIGNAL) < 0)
    return false;
  x->until_ms = net.now_ms + WAIT_MS;
  list_remove(&x->node);
  list_append(&net.asked, &x->node);
  return true;
}

/* Asks the first server from x->server on that can be asked, or gives up. */
static void ask(struct question *x)
{
  for (; x->server < NET_SERVERS_MAX && is_server(&x->box->servers[x->server]); x->server++)
    if (use(x, SOCK_DGRAM)) return;
  finish(x, NULL, 0);
}

static void ask_next(struct question *x)
{
  x->server++;
  ask(x);
}

/* ---- questions ---- */

static void pass_on(const struct net_asker *by, const struct dns_question *q, const uint8_t *msg,
                    size_t len)
{
  uint16_t id;
  struct net_box *b = by->box;
  size_t frame_len = by->frame ? by->frame->len : 0;
  bool room = b->asked < NET_ASKED_MAX && frame_len <= QUESTION_FRAME_MAX;
  if (!room || getrandom(&id, sizeof id, GRND_NONBLOCK) != sizeof id) {
    /* Who asked by a datagram asks again. */
    if (by->stream) answer_empty(by, q, msg, DNS_FAILURE);
    return;
  }
  struct question *x = xcalloc(1, sizeof *x);
  x->box = b;
  x->stream = by->stream;
  x->fd = -1;
  x->q = *q;
  list_init(&x->node);
  b->asked++;
  if (frame_len) memcpy(x->frame, by->frame->data, frame_len);
  x->frame_len = frame_len;
  x->query_len = dns_make_query(q, msg, len, id, x->query + 2, sizeof x->query - 2);
  x->query[0] = (uint8_t)(x->query_len >> 8);
  x->query[1] = (uint8_t)x->query_len;
  if (x->query_len == 0) {
    question_free(x);
    answer_empty(by, q, msg, DNS_FAILURE);
  } else {
    ask(x);
  }
}

void net_names_ask(const struct net_asker *by, const uint8_t *msg, size_t len)
{
  struct dns_question q = {0};
  if (!dns_parse_question(&q, msg, len)) {
    if (len >= 12 || by->stream) answer_empty(by, &q, msg, DNS_MALFORMED);
  } else if (!net_policy_knows(&by->box->policy, q.name)) {
    net_told_refused(by->box, 0, 0, true, q.name);
    answer_empty(by, &q, msg, DNS_REFUSED);
  } else if (q.type == DNS_TYPE_AAAA) {
    answer_empty(by, &q, msg, DNS_OK);
  } else {
    pass_on(by, &q, msg, len);
  }
}

/* ---- what servers say ---- */

static void learn(void *data, uint32_t addr, uint32_t ttl_s)
{
  struct question *x = data;
  net_policy_learn(&x->box->policy, x->q.name, addr, ttl_s, net.now_ms);
}

static void on_answer(struct question *x, uint8_t *msg, size_t len)
{
  dns_each_address(msg, len, learn, x);
  finish(x, msg, len);
}

static void on_datagram(struct question *x)
{
  uint8_t msg[DNS_SIZE_MAX];
  ssize_t n = recv(x->fd, msg, sizeof msg, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n < 0) /* nobody is there */
    ask_next(x);
  else if (!dns_is_answer(msg, (size_t)n, x->query + 2, x->query_len))
    return;
  else if (x->stream && dns_is_cut(msg) && use(x, SOCK_STREAM))
    return;
  else
    on_answer(x, msg, (size_t)n);
}

/* Moves on by one read or write. */
static void on_connection(struct question *x)
{
  struct connection *c = x->over;
  size_t all = 2 + x->query_len, want = 2;
  bool sends = c->sent < all;
  if (c->got >= 2) want += (size_t)c->answer[0] << 8 | c->answer[1];
  ssize_t n = sends ? send(x->fd, x->query + c->sent, all - c->sent, MSG_NOSIGNAL)
                    : recv(x->fd, c->answer + c->got, want - c->got, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) {
    ask_next(x);
    return;
  }
  *(sends ? &c->sent : &c->got) += (size_t)n;
  if (sends || c->got < want || want == 2) return;
  if (dns_is_answer(c->answer + 2, want - 2, x->query + 2, x->query_len))
    on_answer(x, c->answer + 2, want - 2);
  else
    ask_next(x);
}

/* ---- waiting ---- */

void net_names_fill(uint32_t *timeout_ms)
{
  LIST_FOREACH (it, &net.asked) {
    struct question *x = list_entry(it, struct question, node);
    uint64_t left = x->until_ms > net.now_ms ? x->until_ms - net.now_ms : 0;
    bool sends = x->over && x->over->sent < 2 + x->query_len;
    x->poll = net_polls_add(&net.polls, x->fd, sends ? POLLOUT : POLLIN);
    if (left < *timeout_ms) *timeout_ms = (uint32_t)left;
  }
}

void net_names_polled(void)
{
  struct list now;
  list_init(&now);
  /* What is asked meanwhile goes to net.asked and has not been waited for. */
  while (!list_empty(&net.asked)) {
    struct list *it = net.asked.next;
    list_remove(it);
    list_append(&now, it);
  }
  while (!list_empty(&now)) {
    struct question *x = list_entry(now.next, struct question, node);
    short got = net.polls.v[x->poll].revents;
    list_remove(&x->node);
    list_append(&net.asked, &x->node);
    if (got && x->over)
      on_connection(x);
    else if (got)
      on_datagram(x);
    else if (x->until_ms <= net.now_ms)
      ask_next(x);
  }
}

void net_names_forget(struct net_box *b, struct net_stream *s)
{
  LIST_FOREACH_SAFE (it, &net.asked) {
    struct question *x = list_entry(it, struct question, node);
    if (x->box == b && (!s || x->stream == s)) question_free(x);
  }
}
