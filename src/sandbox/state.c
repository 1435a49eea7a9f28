/* The life-cycle of a sandbox: one row per state, one column per event.
 *
 * The table is complete: every pair has an entry, and those that cannot happen say so. Two things
 * shape it. First, a create cannot be taken back by forgetting it: until both the create and its
 * cancel have answered there may be a box, and every box that ever existed is killed before the
 * sandbox counts as ended. Second, to be ended is not one event: a terminate, a time-out, the end
 * of the owner and the shutdown all arrive as END, any number of them at any time, and the first
 * one decides what the end is called. */
#include "sandbox/state.h"

#define NO(state)                                                                                  \
  {                                                                                                \
    SANDBOX_##state, SANDBOX_DO_ABORT                                                              \
  }
#define STAY(state)                                                                                \
  {                                                                                                \
    SANDBOX_##state, 0                                                                             \
  }
#define GO(state)                                                                                  \
  {                                                                                                \
    SANDBOX_##state, 0                                                                             \
  }
#define DO(state, acts)                                                                            \
  {                                                                                                \
    SANDBOX_##state, acts                                                                          \
  }

#define START  SANDBOX_DO_START
#define STOP   SANDBOX_DO_STOP
#define CANCEL SANDBOX_DO_CANCEL
#define KILL   SANDBOX_DO_KILL
#define DRAIN  SANDBOX_DO_DRAIN
#define BURY   SANDBOX_DO_BURY

/* clang-format off */
static const struct sandbox_transition table[SANDBOX_STATES][SANDBOX_EVENTS] = {
  /*                      CREATED              CREATE_FAILED        CANCELLED          END                    BOX_END                 KILLED               DRAINED */
  [SANDBOX_SCHEDULED]  = {DO(STARTED, START),  DO(ENDED, BURY),     NO(SCHEDULED),     DO(CANCELLING, CANCEL), NO(SCHEDULED),         NO(SCHEDULED),       NO(SCHEDULED)},
  [SANDBOX_CANCELLING] = {GO(LATE),            GO(DISCARDED),       GO(ABANDONED),     STAY(CANCELLING),      NO(CANCELLING),         NO(CANCELLING),      NO(CANCELLING)},
  [SANDBOX_ABANDONED]  = {DO(ENDING, KILL),    DO(ENDED, BURY),     NO(ABANDONED),     STAY(ABANDONED),       NO(ABANDONED),          NO(ABANDONED),       NO(ABANDONED)},
  [SANDBOX_DISCARDED]  = {NO(DISCARDED),       NO(DISCARDED),       DO(ENDED, BURY),   STAY(DISCARDED),       NO(DISCARDED),          NO(DISCARDED),       NO(DISCARDED)},
  [SANDBOX_LATE]       = {NO(LATE),            NO(LATE),            DO(ENDING, KILL),  STAY(LATE),            STAY(LATE),             NO(LATE),            NO(LATE)},
  [SANDBOX_STARTED]    = {NO(STARTED),         NO(STARTED),         NO(STARTED),       DO(ENDING, STOP|KILL), DO(ENDING, STOP|KILL),  NO(STARTED),         NO(STARTED)},
  [SANDBOX_ENDING]     = {NO(ENDING),          NO(ENDING),          NO(ENDING),        STAY(ENDING),          STAY(ENDING),           DO(DRAINING, DRAIN), NO(ENDING)},
  [SANDBOX_DRAINING]   = {NO(DRAINING),        NO(DRAINING),        NO(DRAINING),      STAY(DRAINING),        NO(DRAINING),           NO(DRAINING),        DO(ENDED, BURY)},
  [SANDBOX_ENDED]      = {NO(ENDED),           NO(ENDED),           NO(ENDED),         STAY(ENDED),           NO(ENDED),              NO(ENDED),           NO(ENDED)},
};
/* clang-format on */

struct sandbox_transition sandbox_state_next(enum sandbox_state state, enum sandbox_event event)
{
  return table[state][event];
}

const char *sandbox_state_name(enum sandbox_state state)
{
  if (state == SANDBOX_SCHEDULED) return "scheduled";
  return state == SANDBOX_STARTED ? "started" : "terminated";
}

const char *sandbox_state_status(enum sandbox_state state)
{
  if (state == SANDBOX_SCHEDULED) return "pending";
  return state == SANDBOX_STARTED ? "running" : "terminated";
}
