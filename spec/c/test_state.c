/* sandbox/state: properties of the whole table, by exhaustion over every state, event and path. */
#include "test.h"

#include "sandbox/state.h"

/* What an engine and a supervisor that keep their contracts can still send. */
struct world {
  enum sandbox_state state;
  int create; /* 1 asked, 2 succeeded, 3 failed */
  int cancel; /* 0 not asked, 1 asked, 2 answered */
  int kill;   /* likewise */
  bool buried, started, stopped, box_ended;
};

static void apply(struct world *w, enum sandbox_event ev)
{
  struct sandbox_transition t = sandbox_state_next(w->state, ev);
  CHECK(!(t.actions & SANDBOX_DO_ABORT));
  CHECK(!w->buried || t.actions == 0);
  w->state = t.next;
  if (ev == SANDBOX_EV_CREATED) w->create = 2;
  if (ev == SANDBOX_EV_CREATE_FAILED) w->create = 3;
  if (ev == SANDBOX_EV_CANCELLED) w->cancel = 2;
  if (ev == SANDBOX_EV_KILLED) w->kill = 2;
  if (ev == SANDBOX_EV_BOX_END) w->box_ended = true;
  if (t.actions & SANDBOX_DO_START) {
    CHECK(!w->started);
    w->started = true;
  }
  if (t.actions & SANDBOX_DO_STOP) {
    CHECK(w->started && !w->stopped);
    w->stopped = true;
  }
  if (t.actions & SANDBOX_DO_CANCEL) {
    CHECK(w->cancel == 0 && w->create == 1);
    w->cancel = 1;
  }
  if (t.actions & SANDBOX_DO_KILL) {
    CHECK(w->kill == 0 && w->create == 2);
    w->kill = 1;
  }
  if (t.actions & SANDBOX_DO_BURY) {
    /* Nothing may be out there, and nobody may still answer. */
    CHECK(!w->buried && w->create != 1 && w->cancel != 1 && w->kill != 1);
    CHECK(w->create == 3 || w->kill == 2);
    CHECK(w->started == w->stopped);
    w->buried = true;
  }
}

static bool possible(const struct world *w, enum sandbox_event ev)
{
  switch (ev) {
  case SANDBOX_EV_CREATED:
  case SANDBOX_EV_CREATE_FAILED: return w->create == 1;
  case SANDBOX_EV_CANCELLED: return w->cancel == 1;
  case SANDBOX_EV_END: return true;
  case SANDBOX_EV_BOX_END: return w->create == 2 && w->kill != 2 && !w->box_ended;
  case SANDBOX_EV_KILLED: return w->kill == 1;
  case SANDBOX_EV_DRAINED: return w->state == SANDBOX_DRAINING;
  case SANDBOX_EVENTS: break;
  }
  return false;
}

static int paths, ends;
static bool seen[SANDBOX_STATES];

/* Every order of what can happen; END as often as it likes, but only while it changes something. */
static void walk(struct world w, int depth)
{
  seen[w.state] = true;
  paths++;
  if (w.buried) {
    CHECK_INT(w.state, SANDBOX_ENDED);
    ends++;
  }
  bool stuck = true;
  for (int ev = 0; ev < SANDBOX_EVENTS; ev++) {
    if (!possible(&w, (enum sandbox_event)ev)) continue;
    if (ev != SANDBOX_EV_END) stuck = false;
    struct world next = w;
    apply(&next, (enum sandbox_event)ev);
    if (ev == SANDBOX_EV_END && next.state == w.state) continue;
    walk(next, depth + 1);
  }
  /* Where only END can happen the sandbox is alive or over: it never waits for nobody. */
  if (stuck) CHECK(w.state == SANDBOX_STARTED || w.state == SANDBOX_ENDED);
  CHECK(depth < 20);
}

static void every_path_ends_well(void)
{
  walk((struct world){.state = SANDBOX_SCHEDULED, .create = 1}, 0);
  CHECK(ends > 10 && paths > ends);
  for (int s = 0; s < SANDBOX_STATES; s++) CHECK(seen[s]);
}

static void every_pair_has_an_entry(void)
{
  for (int s = 0; s < SANDBOX_STATES; s++)
    for (int ev = 0; ev < SANDBOX_EVENTS; ev++) {
      struct sandbox_transition t =
          sandbox_state_next((enum sandbox_state)s, (enum sandbox_event)ev);
      /* An entry left out would lead back to SCHEDULED without a word. */
      CHECK(s == SANDBOX_SCHEDULED || t.next != SANDBOX_SCHEDULED);
      if (t.actions & SANDBOX_DO_ABORT) CHECK_INT(t.next, s);
      if (s == SANDBOX_SCHEDULED && t.next == SANDBOX_SCHEDULED)
        CHECK(t.actions & SANDBOX_DO_ABORT);
      /* To want the end is never wrong. */
      if (ev == SANDBOX_EV_END) CHECK(!(t.actions & SANDBOX_DO_ABORT));
    }
}

static void names(void)
{
  CHECK_STR(sandbox_state_name(SANDBOX_SCHEDULED), "scheduled");
  CHECK_STR(sandbox_state_status(SANDBOX_SCHEDULED), "pending");
  CHECK_STR(sandbox_state_name(SANDBOX_STARTED), "started");
  CHECK_STR(sandbox_state_status(SANDBOX_STARTED), "running");
  CHECK_STR(sandbox_state_status(SANDBOX_ENDING), "terminated");
  CHECK_STR(sandbox_state_name(SANDBOX_ENDED), "terminated");
}

const struct test_case test_cases[] = {{"every_path_ends_well", every_path_ends_well},
                                       {"every_pair_has_an_entry", every_pair_has_an_entry},
                                       {"names", names},
                                       {0}};
