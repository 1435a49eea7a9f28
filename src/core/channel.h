#ifndef REGOLITH_CORE_CHANNEL_H
#define REGOLITH_CORE_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct loop;
struct channel;

/* Frames over a connected stream socket: a 32-bit little-endian length and that many bytes. What
 * the bytes mean is the caller's. The peer may be hostile: a frame over the limit ends the channel.
 *
 *   open → (paused ⇄ open) → ended → closed */

struct channel_events {
  /* One whole frame, valid during the call. May close the channel. */
  void (*on_frame)(void *data, const char *bytes, size_t len);
  /* Once: the peer is gone (err NULL), or the channel failed. No frame comes any more; close it. */
  void (*on_end)(void *data, const struct err *err);
  /* What was queued has been written down to nothing. NULL allowed. */
  void (*on_drain)(void *data);
};

/* Takes the descriptor over, also on failure. max_frame in bytes. */
int channel_new(struct channel **ret_channel, struct loop *loop, int fd, size_t max_frame,
                const struct channel_events *events, void *data, struct err *err);

/* Sends or queues one frame; what a gone peer would not read is dropped. */
void channel_send(struct channel *channel, const void *bytes, size_t len);
size_t channel_backlog(const struct channel *channel); /* bytes queued and not yet written */
void channel_pause(struct channel *channel,
                   bool paused); /* stops reading frames, so that the peer has to wait */

/* Closes and frees; no event comes any more. closed (NULL allowed) is called from the loop. */
void channel_close(struct channel *channel, void (*closed)(void *data), void *data);

#endif
