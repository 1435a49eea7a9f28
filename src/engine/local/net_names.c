/* Questions after names: passed on to this machine's own servers, one socket for each, and answered
 * from where the box asked.
 *
 * The forwarder is where a name in the rules becomes addresses: what a server said for a name that
 * may be asked for is open to the box from then on. Names that no rule knows are refused here and
 * asked of nobody, so that a question is no way out either. There is no IPv6 in a box, so questions
 * after its addresses are answered at once, with none.
 *
 * asked → answered | next server | given up */
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

struct question {
  struct list node; /* net.asked */
  struct net_box *box;
  int fd; /* connected to the server */
  size_t poll;
  unsigned server; /* which of the box's */
  uint64_t until_ms;
  struct dns_question q;
  uint8_t frame[QUESTION_FRAME_MAX]; /* as the box sent it */
  size_t frame_len;
  uint8_t query[512]; /* as it was sent on */
  size_t query_len;
};

static uint8_t out[NET_FRAME_MAX];

static void answer(struct net_box *b, const struct net_frame *f, const void *msg, size_t len)
{
  if (len > 0) net_box_send(b, out, net_frame_answer(f, msg, len, out));
}

static void answer_empty(struct net_box *b, const struct net_frame *f, const struct dns_question *q,
                         enum dns_code code)
{
  uint8_t msg[512];
  size_t n = dns_make_empty(q, f->payload, code, msg, sizeof msg);
  answer(b, f, msg, n);
}

static void question_free(struct question *x)
{
  x->box->asked--;
  list_remove(&x->node);
  if (x->fd >= 0) close(x->fd);
  free(x);
}

static void fail(struct question *x)
{
  struct net_frame f;
  net_frame_parse(&f, x->frame, x->frame_len);
  answer_empty(x->box, &f, &x->q, DNS_FAILURE);
  question_free(x);
}

static int open_to(uint32_t server)
{
  struct sockaddr_in to = {
      .sin_family = AF_INET, .sin_port = htons(53), .sin_addr.s_addr = htonl(server)};
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) < 0) {
    close(fd);
    return -1;
  }
  return fd;
}

/* Asks the first server from x->server on that can be asked. */
static bool ask(struct question *x)
{
  for (; x->server < NET_SERVERS_MAX && x->box->servers[x->server]; x->server++) {
    if (x->fd >= 0) close(x->fd);
    x->fd = open_to(x->box->servers[x->server]);
    if (x->fd < 0 || send(x->fd, x->query, x->query_len, MSG_NOSIGNAL) < 0) continue;
    x->until_ms = net.now_ms + WAIT_MS;
    list_remove(&x->node);
    list_append(&net.asked, &x->node);
    return true;
  }
  return false;
}

static void pass_on(struct net_box *b, const struct net_frame *f, const struct dns_question *q)
{
  uint16_t id;
  if (b->asked >= NET_ASKED_MAX || f->len > QUESTION_FRAME_MAX) return;
  if (getrandom(&id, sizeof id, GRND_NONBLOCK) != sizeof id) return;
  struct question *x = xcalloc(1, sizeof *x);
  x->box = b;
  x->fd = -1;
  x->q = *q;
  list_init(&x->node);
  b->asked++;
  memcpy(x->frame, f->data, f->len);
  x->frame_len = f->len;
  x->query_len = dns_make_query(q, f->payload, f->payload_len, id, x->query, sizeof x->query);
  if (x->query_len == 0 || !ask(x)) fail(x);
}

void net_names_ask(struct net_box *b, const struct net_frame *f)
{
  struct dns_question q = {0};
  if (!dns_parse_question(&q, f->payload, f->payload_len)) {
    if (f->payload_len >= 12) answer_empty(b, f, &q, DNS_MALFORMED);
  } else if (!net_policy_knows(&b->policy, q.name)) {
    net_box_refused(b, 0, 0, true, q.name);
    answer_empty(b, f, &q, DNS_REFUSED);
  } else if (q.type == DNS_TYPE_AAAA) {
    answer_empty(b, f, &q, DNS_OK);
  } else {
    pass_on(b, f, &q);
  }
}

static void learn(void *data, uint32_t addr, uint32_t ttl_s)
{
  struct question *x = data;
  net_policy_learn(&x->box->policy, x->q.name, addr, ttl_s, net.now_ms);
}

static void on_answer(struct question *x)
{
  uint8_t msg[DNS_SIZE_MAX];
  struct net_frame f;
  ssize_t n = recv(x->fd, msg, sizeof msg, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n < 0) { /* nobody is there */
    x->server++;
    if (!ask(x)) fail(x);
    return;
  }
  if (!dns_is_answer(msg, (size_t)n, x->query, x->query_len)) return;
  dns_each_address(msg, (size_t)n, learn, x);
  msg[0] = (uint8_t)(x->q.id >> 8);
  msg[1] = (uint8_t)x->q.id;
  net_frame_parse(&f, x->frame, x->frame_len);
  answer(x->box, &f, msg, (size_t)n);
  question_free(x);
}

void net_names_fill(uint32_t *timeout_ms)
{
  LIST_FOREACH (it, &net.asked) {
    struct question *x = list_entry(it, struct question, node);
    uint64_t left = x->until_ms > net.now_ms ? x->until_ms - net.now_ms : 0;
    x->poll = net_polls_add(&net.polls, x->fd, POLLIN);
    if (left < *timeout_ms) *timeout_ms = (uint32_t)left;
  }
}

void net_names_polled(void)
{
  LIST_FOREACH_SAFE (it, &net.asked) {
    struct question *x = list_entry(it, struct question, node);
    bool over = x->until_ms <= net.now_ms;
    if (net.polls.v[x->poll].revents) {
      on_answer(x);
    } else if (over) {
      x->server++;
      if (!ask(x)) fail(x);
    }
  }
}

void net_names_forget(struct net_box *b)
{
  LIST_FOREACH_SAFE (it, &net.asked) {
    struct question *x = list_entry(it, struct question, node);
    if (x->box == b) question_free(x);
  }
}
