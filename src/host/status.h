#ifndef REGOLITH_HOST_STATUS_H
#define REGOLITH_HOST_STATUS_H

#include <sys/types.h>

#include "base/val.h"

struct err;
struct loop;
struct status_server;

/* How one regolith tells another of the same user what it is doing, for `regolith ps`.
 *
 * Each listens on an abstract socket "regolith/UID/PID": no file that a crash could leave. Whoever
 * connects with the same user id (or root) gets one frame of JSON, the snapshot, and is closed. */

/* snapshot is called from the loop, once per question; the server frees what it gives. */
int status_serve(struct status_server **ret_server, struct loop *loop,
                 struct val (*snapshot)(void *data), void *data, struct err *err);
void status_close(struct status_server *server, void (*closed)(void *data), void *data);

/* Asks every regolith of this user (root: of all), and calls on_answer for each that answers within
 * a second. Blocking; for the command line. */
int status_ask_all(void (*on_answer)(void *data, pid_t pid, const struct val *snapshot), void *data,
                   struct err *err);

#endif
