#ifndef REGOLITH_ENGINE_LOCAL_PROTO_H
#define REGOLITH_ENGINE_LOCAL_PROTO_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* The private words between host, warden and agent: one SOCK_SEQPACKET message each, a struct of
 * fixed size that begins with its type, and descriptors beside it. The three run the same build, so
 * the structs are plain memory. Host and warden trust each other. The agent shares a house with the
 * enemy: the host checks its every word (size, type, ranges, known ids) and takes no text from it
 * once a command has run. */

#define PROTO_FDS_MAX     16
#define PROTO_INLINE_MAX  (64 * 1024) /* an exec request beyond this travels as a sealed memfd */
#define PROTO_ID_SIZE     64
#define PROTO_VOLUMES_MAX 32
#define PROTO_DRIVER_MAX  480 /* files of GPU drivers */
#define PROTO_BINDS_MAX   (PROTO_VOLUMES_MAX + PROTO_DRIVER_MAX)
#define PROTO_DEVICES_MAX 64
#define PROTO_CARDS_MAX   8
#define PROTO_LAYERS_SIZE 3840 /* 132 layers; with the rest it fits a page of mount options */

enum proto_type {
  /* host → warden */
  PROTO_CREATE = 1, /* + the agent's end of the box's socket */
  PROTO_VOLUME,     /* before the CREATE of its box; warden → agent: behind DRESS, + its mount */
  PROTO_DEVICE,     /* likewise; + the lock of its card, with the first of each card */
  PROTO_KILL,
  PROTO_QUIT,
  /* warden → host */
  PROTO_HELLO,   /* first: it works, or why it does not */
  PROTO_CREATED, /* + pidfd of the agent, whose set-up goes on; its upper folder, its tap */
  PROTO_CREATE_FAILED,
  PROTO_ENDED, /* the box's last process is dead, its groups are gone or going */
  /* warden → agent */
  PROTO_BLANK, /* are its namespaces there? And the answer */
  PROTO_DRESS, /* what the box is made of, + mounts (rootfs.h) */
  PROTO_JOIN,  /* + the way into its groups */
  PROTO_GO,    /* whose it is, + its socket */
  /* host → agent */
  PROTO_EXEC, /* + stdin?, stdout, stderr; or + memfd and these */
  PROTO_EXEC_KILL,
  PROTO_PROBE,   /* does something accept connections? One at a time */
  PROTO_CONNECT, /* to a port of the box's loopback; agent → host: the same, + the connection */
  /* agent → host */
  PROTO_READY,
  PROTO_FAILED,  /* set-up failed: instead of READY */
  PROTO_REFUSED, /* an exec did not start */
  PROTO_STARTED, /* an exec's command runs: where EXEC_TELL asked */
  PROTO_EXITED,  /* an exec's command ended */
  PROTO_PROBED,
};

enum image_kind { IMAGE_HOST, IMAGE_DIR, IMAGE_LAYERS };

struct proto_create {
  uint32_t type;
  uint32_t image;      /* enum image_kind */
  uint64_t box;        /* the host's number for it; never reused */
  uint64_t mem_bytes;  /* without the disk */
  uint64_t disk_bytes; /* size of the tmpfs that takes all writes */
  uint64_t inodes;     /* of that tmpfs */
  uint32_t cpu_milli;
  uint32_t pids;
  uint32_t volumes_n; /* binds that come before it: volumes and driver files */
  uint32_t devices_n; /* likewise */
  uint32_t network;   /* 1: it gets a way out */
  char sandbox_id[PROTO_ID_SIZE];
  char path[PATH_MAX]; /* IMAGE_DIR: the root; IMAGE_LAYERS: the folder of layers. Absolute */
  char layers[PROTO_LAYERS_SIZE]; /* IMAGE_LAYERS: names in that folder, topmost first, by colons */
};

enum bind_kind {
  BIND_VOLUME, /* a directory */
  BIND_DRIVER, /* a file or directory of a GPU's driver, read-only; what the image already shows of
                  it stays */
  BIND_LINK,   /* no mount: a symbolic link to path, unless something is there */
};

/* A directory of the host in a box, or a file of it. The agent gets the target alone (and the path
 * of a link). */
struct proto_volume {
  uint32_t type;
  uint16_t kind; /* enum bind_kind */
  uint16_t readonly;
  uint64_t box;
  char target[PATH_MAX]; /* absolute, in the box */
  char path[PATH_MAX];   /* absolute and without links, on the host */
};

/* A device node of the host that a box gets beside the usual ones. */
struct proto_device {
  uint32_t type;
  uint32_t mode; /* permissions */
  uint64_t box;
  uint32_t major, minor; /* of a character device */
  char target[256];      /* below /dev, in the box */
  char path[512];        /* absolute, on the host */
};

struct proto_box { /* KILL, ENDED; QUIT with box 0 */
  uint32_t type;
  uint32_t oom; /* ENDED: the kernel killed in this box for want of memory */
  uint64_t box;
};

enum ids_mode {
  IDS_BLOCKS, /* root: a block of 65,536 ids for each box */
  IDS_SHARED, /* a user's subordinate ids, shared by his boxes */
  IDS_SINGLE, /* one id: everyone inside is root, and is the user outside */
};

struct proto_hello {
  uint32_t type;
  uint32_t reserved;
  struct err err; /* kind ERR_NONE: ready for work */
};

struct proto_created {
  uint32_t type;
  int32_t pid; /* of the agent, as the host sees it */
  uint64_t box;
  uint32_t first, rest;       /* owners in the upper folder: of root, and of user 1 and so on */
  uint8_t has_upper, has_tap; /* descriptors behind the pidfd, in this order */
};

struct proto_failed { /* CREATE_FAILED, FAILED */
  uint32_t type;
  uint32_t reserved;
  uint64_t box;
  struct err err;
};

struct proto_blank {
  uint32_t type;
  uint32_t ok; /* 1 = yes; else the host is told why, later */
};

struct proto_dress {
  uint32_t type;
  uint32_t image;
  uint64_t disk_bytes; /* IMAGE_HOST; where GO says otherwise, that counts */
  uint64_t inodes;     /* likewise */
  uint32_t mapped;     /* how many ids exist inside, from 0 */
  uint32_t volumes_n;
  uint32_t mounts_n;
  uint32_t has_dev; /* a /dev of its own comes behind the mounts */
};

struct proto_join { /* struct cgroup_entry; descriptors in this order */
  uint32_t type;
  uint8_t has_into, tasks_n, has_box, has_oom;
  uint32_t ns_per_exec;
};

struct proto_go {
  uint32_t type;
  uint32_t nproc;    /* a limit where no group counts processes; 0 = none */
  uint64_t as_bytes; /* a limit where no group counts memory; 0 = none */
  uint64_t disk_bytes;
  uint64_t inodes;
  uint32_t network; /* 1: names are asked for at NET_DNS */
  char sandbox_id[PROTO_ID_SIZE];
};

enum {
  EXEC_HAS_STDIN = 1,
  EXEC_TELL = 4, /* say STARTED */
  EXEC_FILE = 2, /* no command but an operation on files: kind, path, mode, max, follow as argv */
};
#define EXEC_FILE_ARGC 5

/* EXEC: behind the struct, or in the memfd, len bytes of NUL-terminated strings: cwd, user, then
 * argc arguments, then envc variables. Empty cwd and user mean the default. */
struct proto_exec {
  uint32_t type;
  uint32_t flags;
  uint64_t exec; /* the host's number for it; never reused */
  uint32_t argc, envc;
  uint32_t len;
  uint32_t in_memfd;
};

struct proto_exec_kill {
  uint32_t type;
  int32_t signal; /* 0: end it and all it started */
  uint64_t exec;
};

enum refused_why {
  REFUSED_CWD,   /* error: of chdir */
  REFUSED_USER,  /* no such user or group, or not one that this box can be */
  REFUSED_ARGS,  /* arguments and environment are too long together */
  REFUSED_PIDS,  /* no process can be made: the pids limit */
  REFUSED_OTHER, /* our machinery failed: error */
  REFUSED_COUNT
};

struct proto_refused {
  uint32_t type;
  uint32_t why; /* enum refused_why */
  uint64_t exec;
  int32_t error; /* positive errno */
  uint32_t reserved;
};

struct proto_started {
  uint32_t type;
  int32_t pid; /* as the box sees it */
  uint64_t exec;
};

enum exited_how { EXITED_CODE, EXITED_SIGNAL, EXITED_OOM, EXITED_COUNT };

struct proto_exited {
  uint32_t type;
  uint32_t how; /* enum exited_how */
  uint64_t exec;
  int32_t code; /* exit code or signal number */
  uint32_t reserved;
  uint64_t duration_us;
  uint64_t cpu_us;
  uint64_t max_rss_kib;
};

struct proto_probe { /* PROBE, PROBED */
  uint32_t type;
  uint32_t port;
  uint32_t open; /* PROBED: 1 = yes */
};

struct proto_connect { /* both ways; the answer without a descriptor: nobody is there */
  uint32_t type;
  uint32_t id; /* the host's, of this connection */
  uint32_t port;
};

struct proto_ready {
  uint32_t type;
  uint32_t reserved;
};

/* Sends one message of up to three pieces. Returns 0 or a negative errno (-EAGAIN: would block).
 * The descriptors stay the caller's. Async-signal-safe. */
struct proto_piece {
  const void *data;
  size_t len;
};
int proto_send(int sock, const struct proto_piece *pieces, size_t n, const int *fds, size_t fds_n);
int proto_send_one(int sock, const void *data, size_t len, int fd); /* fd -1: none */

/* Receives one message: its length, 0 at end of file, or a negative errno; a message longer than
 * size is -EMSGSIZE. Descriptors are close-on-exec and the caller's. Async-signal-safe. */
ssize_t proto_recv(int sock, void *data, size_t size, int *fds, size_t *ret_fds_n, bool wait);

#endif
