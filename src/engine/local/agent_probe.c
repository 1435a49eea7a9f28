/* Is a port of the box open? Asked by connecting to it, from inside the box's network namespace,
 * and hanging up at once.
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

static bool connects(const struct sockaddr *addr, socklen_t len)
{
  cleanup_close int fd =
      socket(addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
  if (fd < 0) return false;
  if (connect(fd, addr, len) == 0) return true;
  if (errno != EINPROGRESS) return false;
  struct pollfd p = {.fd = fd, .events = POLLOUT};
  int error = 0;
  socklen_t size = sizeof error;
  return poll(&p, 1, WAIT_MS) == 1 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 &&
         error == 0;
}

bool agent_port_open(uint16_t port)
{
  struct sockaddr_in v4 = {
      .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
  struct sockaddr_in6 v6 = {
      .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = in6addr_loopback};
  return connects((struct sockaddr *)&v4, sizeof v4) || connects((struct sockaddr *)&v6, sizeof v6);
}
