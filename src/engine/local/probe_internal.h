#ifndef REGOLITH_ENGINE_LOCAL_PROBE_INTERNAL_H
#define REGOLITH_ENGINE_LOCAL_PROBE_INTERNAL_H

#include <stdbool.h>

/* probe_try.c: each tries one thing in a child process and gives 0, or the errno it failed with. As
 * an ordinary user everything is tried as root of a fresh user namespace, as sandboxes do it. */
int probe_try_userns(void);          /* making one and mapping one's own id */
int probe_try_userns_power(void);    /* whether its root may do anything: EPERM, EACCES: no */
int probe_try_namespace(int flag);   /* a CLONE_NEW… flag, together with a user namespace */
int probe_try_proc(void);            /* a fresh /proc in new user, pid and mount namespaces */
int probe_try_overlay(void);         /* an overlay whose upper layer is a tmpfs */
int probe_try_overlay_replace(void); /* removing and remaking a directory of its lower layer */
int probe_try_idmap(
    const char *path);           /* an idmapped clone of the mount that path is on; root only */
int probe_try_tmpfs_xattr(void); /* user.* attributes on a tmpfs */
int probe_try_seccomp(void);     /* loading our filter */
int probe_landlock_abi(void);    /* 0: none */

#endif
