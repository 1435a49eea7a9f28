/* Which addresses are this machine's own: the kernel's routing table says so, by one question over
 * rtnetlink (rtnetlink(7)), for whatever interface came or went meanwhile. */
#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/local/net.h"

int net_route_open(void)
{
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  return fd < 0 ? -errno : fd;
}

struct question {
  struct nlmsghdr head;
  struct rtmsg route;
  struct rtattr attr;
  uint32_t addr;
};

int net_route_is_own(int fd, uint32_t addr)
{
  static uint32_t seq;
  union {
    struct nlmsghdr head;
    char bytes[4096];
  } answer;
  struct question q = {
      .head = {.nlmsg_len = sizeof q,
               .nlmsg_type = RTM_GETROUTE,
               .nlmsg_flags = NLM_F_REQUEST,
               .nlmsg_seq = ++seq},
      .route = {.rtm_family = AF_INET, .rtm_dst_len = 32},
      .attr = {.rta_len = RTA_LENGTH(sizeof addr), .rta_type = RTA_DST},
      .addr = htonl(addr),
  };
  if (send(fd, &q, sizeof q, 0) < 0) return -errno;
  for (;;) {
    ssize_t n = recv(fd, &answer, sizeof answer, 0);
    if (n < 0) return -errno;
    if (n < (ssize_t)sizeof(struct nlmsghdr) || answer.head.nlmsg_seq != seq) continue;
    if (answer.head.nlmsg_type != RTM_NEWROUTE) return 0; /* no way there: who connects is told */
    const struct rtmsg *route = NLMSG_DATA(&answer.head);
    return route->rtm_type != RTN_UNICAST;
  }
}
