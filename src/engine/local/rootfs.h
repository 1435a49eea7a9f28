#ifndef REGOLITH_ENGINE_LOCAL_ROOTFS_H
#define REGOLITH_ENGINE_LOCAL_ROOTFS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct ids;
struct ids_block;
struct proto_create;
struct proto_device;
struct proto_dress;
struct proto_volume;

/* The file system of a box. */

/* Once in the warden, after ids_enter: a mount namespace of its own, whose /dev is the minimal one
 * that every box gets a read-only view of. */
int rootfs_prepare(struct err *err);

/* For IMAGE_HOST, which needs more; once, at the latest with the first such box. */
int rootfs_prepare_host(struct err *err);

/* In the warden: the mounts that it makes for the agent to take (PROTO_DRESS). userns_fd: the box's
 * user namespace, maps written; not needed for IMAGE_HOST. ret_upper: what the box changes against
 * its image; -1 with IMAGE_HOST. */
#define ROOTFS_MOUNTS_MAX 2
int rootfs_make(const struct proto_create *req, const struct ids *ids,
                const struct ids_block *block, int userns_fd, int ret_fds[ROOTFS_MOUNTS_MAX],
                size_t *ret_n, int *ret_upper, struct err *err);

/* In the warden: a /dev for one box, with these nodes beside the usual ones, as a mount for the box
 * to take. -errno with err. */
int rootfs_dev(const struct proto_device *devices, size_t n, const struct ids *ids,
               const struct ids_block *block, struct err *err);

/* In the warden: a directory or driver file of the host as a mount for the box to take. -errno with
 * err. */
int rootfs_volume(const struct proto_volume *volume, const struct ids *ids, int userns_fd,
                  struct err *err);

struct rootfs_volume {
  int kind;     /* enum bind_kind */
  char *target; /* owned */
  char *link;   /* owned: BIND_LINK, where it leads */
  int fd;       /* the mount; -1 = none */
};

/* In the agent, after rootfs_enter: names are asked for at NET_DNS. Nothing of the image is
 * followed or opened for it. */
int rootfs_name_server(struct err *err);

/* In the agent, with a mount namespace and ids of its own: builds the rest and moves in. The old
 * root is gone afterwards. Takes the descriptors. */
/* dev -1: the usual one. */
int rootfs_enter(const struct proto_dress *dress, const int *mounts, size_t mounts_n, int dev,
                 struct rootfs_volume *volumes, struct err *err);

/* In the agent, after rootfs_enter of IMAGE_HOST: another size than it was made with. */
int rootfs_resize(uint64_t bytes, uint64_t inodes, struct err *err);

#endif
