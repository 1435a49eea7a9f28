#ifndef REGOLITH_SANDBOX_STATE_H
#define REGOLITH_SANDBOX_STATE_H

/* The life-cycle of a sandbox as a table: state × event → next state and actions. Pure: it knows
 * neither engines nor timers. docs/supervisor.md shows it as a picture. */

enum sandbox_state {
  SANDBOX_SCHEDULED,  /* the engine is creating it */
  SANDBOX_CANCELLING, /* unwanted while being created: neither create nor cancel answered */
  SANDBOX_ABANDONED,  /* the cancel answered, the create has not */
  SANDBOX_DISCARDED,  /* the create failed, the cancel has not answered */
  SANDBOX_LATE,       /* the create succeeded after all, the cancel has not answered */
  SANDBOX_STARTED,    /* takes commands */
  SANDBOX_ENDING,     /* the engine is ending it */
  SANDBOX_DRAINING,   /* its box is gone, commands of it have not reported */
  SANDBOX_ENDED,      /* nothing of it is left; only its id answers */
  SANDBOX_STATES
};

enum sandbox_event {
  SANDBOX_EV_CREATED,       /* the engine's create succeeded */
  SANDBOX_EV_CREATE_FAILED, /* … failed, cancelled included */
  SANDBOX_EV_CANCELLED,     /* the engine's cancel of the create answered */
  SANDBOX_EV_END,           /* somebody or some timer wants it ended */
  SANDBOX_EV_BOX_END,       /* its box ended by itself */
  SANDBOX_EV_KILLED,        /* the engine's kill answered: nothing runs any more */
  SANDBOX_EV_DRAINED,       /* no command is left that has not reported */
  SANDBOX_EVENTS
};

/* What has to be done on the way, in this order. */
enum sandbox_action {
  SANDBOX_DO_START = 1 << 0,  /* start its clocks, answer the create */
  SANDBOX_DO_STOP = 1 << 1,   /* stop its clocks, refuse commands from here on */
  SANDBOX_DO_CANCEL = 1 << 2, /* ask the engine to give up creating */
  SANDBOX_DO_KILL = 1 << 3,   /* ask the engine to end the box */
  SANDBOX_DO_DRAIN = 1 << 4,  /* say DRAINED once no command is left */
  SANDBOX_DO_BURY = 1 << 5,   /* answer everyone who waits for the end */
  SANDBOX_DO_ABORT = 1 << 6,  /* this cannot happen: a fault of ours or of the engine */
};

struct sandbox_transition {
  enum sandbox_state next;
  unsigned actions; /* enum sandbox_action */
};

struct sandbox_transition sandbox_state_next(enum sandbox_state state, enum sandbox_event event);

/* "scheduled" "started" "terminated": the API's `state`, but for "finished". */
const char *sandbox_state_name(enum sandbox_state state);
/* "pending" "running" "terminated": the API's `status`. */
const char *sandbox_state_status(enum sandbox_state state);

#endif
