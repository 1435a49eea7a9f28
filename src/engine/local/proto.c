/* Sends and receives the messages of proto.h. Owns nothing. Descriptors beyond PROTO_FDS_MAX are
 * never taken: the kernel drops them and the message counts as malformed. */
#include "engine/local/proto.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

union control {
  struct cmsghdr align;
  char room[CMSG_SPACE(PROTO_FDS_MAX * sizeof(int))];
};

int proto_send(int sock, const struct proto_piece *pieces, size_t n, const int *fds, size_t fds_n)
{
  struct iovec iov[3];
  union control control;
  for (size_t i = 0; i < n; i++) iov[i] = (struct iovec){(void *)pieces[i].data, pieces[i].len};
  struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n};
  if (fds_n) {
    msg.msg_control = control.room;
    msg.msg_controllen = CMSG_SPACE(fds_n * sizeof(int));
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    *c = (struct cmsghdr){CMSG_LEN(fds_n * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(c), fds, fds_n * sizeof(int));
  }
  ssize_t rc;
  do rc = sendmsg(sock, &msg, MSG_NOSIGNAL);
  while (rc < 0 && errno == EINTR);
  return rc < 0 ? -errno : 0;
}

int proto_send_one(int sock, const void *data, size_t len, int fd)
{
  struct proto_piece piece = {data, len};
  return proto_send(sock, &piece, 1, &fd, fd >= 0);
}

static void drop(const int *fds, size_t n)
{
  for (size_t i = 0; i < n; i++) close(fds[i]);
}

ssize_t proto_recv(int sock, void *data, size_t size, int *fds, size_t *ret_fds_n, bool wait)
{
  struct iovec iov = {data, size};
  union control control;
  struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
  msg.msg_control = control.room;
  msg.msg_controllen = sizeof control.room;
  size_t n = 0;
  ssize_t rc;
  do rc = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT));
  while (rc < 0 && errno == EINTR);
  if (rc < 0) return -errno;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    memcpy(fds, CMSG_DATA(c), n * sizeof(int));
  }
  if (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
    drop(fds, n);
    return -EMSGSIZE;
  }
  *ret_fds_n = n;
  return rc;
}
