/* The wire of a box: a tap device made from outside.
 *
 * What makes it has to be in the box's network namespace for a moment, and whoever goes into one
 * may not be able to come back (an ordinary user's warden has no rights over its own). So a child
 * does it that shares memory and descriptors with the caller, as after vfork: it ends before the
 * caller goes on, and leaves the tap in the caller's own table. */
#include "engine/local/tap.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "engine/local/net_frame.h"

#define TUN "/dev/net/tun"

static int folder = AT_FDCWD; /* of TUN */

void tap_prepare(void)
{
  folder = open("/dev/net", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

struct job {
  int netns;
  int tap, sock; /* made by the child; -1 = not */
  const char *step;
  int error; /* errno of the step; 0 = all is well */
};

static struct sockaddr in(uint32_t addr)
{
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(addr)};
  struct sockaddr s;
  memcpy(&s, &a, sizeof s);
  return s;
}

static bool set_up(struct job *j)
{
  struct ifreq ifr = {.ifr_name = "eth0", .ifr_flags = IFF_TAP | IFF_NO_PI};
  j->step = "make a network device";
  if (ioctl(j->tap, TUNSETIFF, &ifr) < 0) return false;
  j->step = "set up a network device";
  ifr.ifr_hwaddr = (struct sockaddr){.sa_family = ARPHRD_ETHER};
  memcpy(ifr.ifr_hwaddr.sa_data, NET_MAC, 6);
  if (ioctl(j->sock, SIOCSIFHWADDR, &ifr) < 0) return false;
  ifr.ifr_mtu = NET_MTU;
  if (ioctl(j->sock, SIOCSIFMTU, &ifr) < 0) return false;
  ifr.ifr_addr = in(NET_ADDR);
  if (ioctl(j->sock, SIOCSIFADDR, &ifr) < 0) return false;
  ifr.ifr_netmask = in(NET_MASK);
  if (ioctl(j->sock, SIOCSIFNETMASK, &ifr) < 0) return false;
  ifr.ifr_flags = IFF_UP | IFF_RUNNING;
  if (ioctl(j->sock, SIOCSIFFLAGS, &ifr) < 0) return false;
  struct rtentry out = {.rt_dst = in(0),
                        .rt_genmask = in(0),
                        .rt_gateway = in(NET_GATEWAY),
                        .rt_flags = RTF_UP | RTF_GATEWAY};
  return ioctl(j->sock, SIOCADDRT, &out) == 0;
}

static int in_child(void *data)
{
  struct job *j = data;
  j->step = "enter a network namespace";
  bool ok = setns(j->netns, CLONE_NEWNET) == 0;
  if (ok) {
    j->step = "open " TUN;
    j->tap = openat(folder, "tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    j->sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ok = j->tap >= 0 && j->sock >= 0 && set_up(j);
  }
  j->error = ok ? 0 : errno;
  _exit(0);
}

int tap_make(int netns, int *ret_tap, struct err *err)
{
  _Alignas(16) char stack[32 * 1024];
  struct job j = {
      .netns = netns, .tap = -1, .sock = -1, .error = ECHILD, .step = "start a process"};
  pid_t pid = clone(in_child, stack + sizeof stack, CLONE_VM | CLONE_FILES | CLONE_VFORK, &j);
  if (pid < 0) j.error = errno;
  if (pid > 0) waitpid(pid, NULL, __WALL);
  if (j.sock >= 0) close(j.sock);
  if (j.error == 0) {
    *ret_tap = j.tap;
    return 0;
  }
  if (j.tap >= 0) close(j.tap);
  int rc = err_set(err, ERR_ENGINE_UNAVAILABLE, j.error, "the network of a sandbox: cannot %s: %s",
                   j.step, strerror(j.error));
  err_hint(err,
           "run \"regolith doctor\": it says what is missing; network = \"none\" needs nothing");
  return rc;
}

int tap_usable(void)
{
  cleanup_close int fd = open(TUN, O_RDWR | O_CLOEXEC);
  return fd < 0 ? -errno : 0;
}
