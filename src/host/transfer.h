#ifndef REGOLITH_HOST_TRANSFER_H
#define REGOLITH_HOST_TRANSFER_H

struct files;
struct loop;
struct ops;

/* The ops that copy between this machine and a sandbox:
 *   sandbox.upload { source, target }   sandbox.download { source, target, max }
 *     → { files, directories, links, bytes, skipped = { { type, path } … }, skipped_total }
 * Here is the side of this machine, which needs a grant; the other one is sandbox.unpack and
 * sandbox.pack. */
struct transfers *transfers_new(struct loop *loop, struct ops *ops, struct files *files);
void transfers_free(struct transfers *t); /* none may be under way */

#endif
