/* The queue in front of a socket: the kernel takes ten messages of a peer that sleeps, a busy agent
 * may be owed hundreds. Order is kept: once something waits, everything waits. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/local/local_internal.h"

struct out_msg {
  struct list node;
  int fds[PROTO_FDS_MAX]; /* owned */
  size_t fds_n, len;
  char data[];
};

static void close_all(const int *fds, size_t n)
{
  for (size_t i = 0; i < n; i++) close(fds[i]);
}

void outq_init(struct outq *q)
{
  list_init(&q->msgs);
}

static void queue(struct outq *q, const struct proto_piece *pieces, size_t n, const int *fds,
                  size_t fds_n)
{
  size_t len = 0;
  for (size_t i = 0; i < n; i++) len += pieces[i].len;
  struct out_msg *m = xmalloc(sizeof *m + len);
  m->len = 0;
  m->fds_n = fds_n;
  if (fds_n) memcpy(m->fds, fds, fds_n * sizeof *fds);
  for (size_t i = 0; i < n; i++) {
    memcpy(m->data + m->len, pieces[i].data, pieces[i].len);
    m->len += pieces[i].len;
  }
  list_append(&q->msgs, &m->node);
}

/* Too many descriptors on their way, or no memory for them right now, passes as well. */
static bool passes(int rc)
{
  return rc == -EAGAIN || rc == -ENOBUFS || rc == -ENOMEM || rc == -ETOOMANYREFS;
}

int outq_send(struct outq *q, int sock, const struct proto_piece *pieces, size_t n, const int *fds,
              size_t fds_n)
{
  int rc = list_empty(&q->msgs) ? proto_send(sock, pieces, n, fds, fds_n) : -EAGAIN;
  if (passes(rc)) {
    queue(q, pieces, n, fds, fds_n);
    return 1;
  }
  close_all(fds, fds_n);
  return rc;
}

static void drop_first(struct outq *q)
{
  struct out_msg *m = list_entry(q->msgs.next, struct out_msg, node);
  list_remove(&m->node);
  close_all(m->fds, m->fds_n);
  free(m);
}

int outq_flush(struct outq *q, int sock)
{
  while (!list_empty(&q->msgs)) {
    struct out_msg *m = list_entry(q->msgs.next, struct out_msg, node);
    struct proto_piece piece = {m->data, m->len};
    int rc = proto_send(sock, &piece, 1, m->fds, m->fds_n);
    if (passes(rc)) return 1;
    if (rc < 0) return rc;
    drop_first(q);
  }
  return 0;
}

void outq_drop(struct outq *q)
{
  while (!list_empty(&q->msgs)) drop_first(q);
}
