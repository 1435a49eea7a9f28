/* Connections to ports of the box, from inside its network namespace: to hand out, or to hang up at
 * once, when only the question is whether somebody is there.
 *
 * Over loopback a connection is made or refused while connect runs; only a server whose backlog is
 * full keeps it waiting. The agent has other work, so it waits for a few milliseconds and then says
 * no: the host asks again. */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "engine/local/agent_internal.h"

#define WAIT_MS 3

static int connect_to(const struct sockaddr *addr, socklen_t len, bool wait)
{
  cleanup_close int fd =
      socket(addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
  if (fd < 0) return -1;
  if (connect(fd, addr, len) == 0) return take_fd(&fd);
  if (errno != EINPROGRESS) return -1;
  if (!wait) return take_fd(&fd);
  struct pollfd p = {.fd = fd, .events = POLLOUT};
  int error = 0;
  socklen_t size = sizeof error;
  bool made = poll(&p, 1, WAIT_MS) == 1 &&
              getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
  return made ? take_fd(&fd) : -1;
}

static int connect_port(uint16_t port, bool wait)
{
  struct sockaddr_in v4 = {
      .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
  struct sockaddr_in6 v6 = {
      .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = in6addr_loopback};
  int fd = connect_to((struct sockaddr *)&v4, sizeof v4, wait);
  return fd >= 0 ? fd : connect_to((struct sockaddr *)&v6, sizeof v6, wait);
}

/* One that is still being made is as good: whoever gets it waits. */
int agent_port_connect(uint16_t port)
{
  return connect_port(port, false);
}

bool agent_port_open(uint16_t port)
{
  cleanup_close int fd = connect_port(port, true);
  return fd >= 0;
}
