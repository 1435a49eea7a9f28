#ifndef REGOLITH_SCRIPT_PATTERN_H
#define REGOLITH_SCRIPT_PATTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PATTERN_MAX_CAPTURES 32
#define PATTERN_MAX_DEPTH    199 /* choices open at once; one more is "pattern too complex" */

enum pattern_result {
  PATTERN_NO,   /* no (further) match */
  PATTERN_YES,  /* match_start, match_end and the captures are set */
  PATTERN_MORE, /* the budget is spent: call again to go on */
  PATTERN_ERROR /* malformed: error and error_arg say what */
};

#define PATTERN_CAP_OPEN     (-1) /* len of a capture that has no ')' yet */
#define PATTERN_CAP_POSITION (-2) /* len of "()" */

struct pattern_capture {
  const unsigned char *start; /* in the subject */
  ptrdiff_t len;              /* bytes, or PATTERN_CAP_… */
};

/* A choice that can be taken back. */
struct pattern_frame {
  const unsigned char *s;    /* subject where it was made */
  const unsigned char *item; /* pattern: the repeated item */
  const unsigned char *rest; /* pattern: behind the item and its suffix */
  ptrdiff_t n;               /* greedy: repetitions still taken; closing: the capture's index */
  unsigned char kind;
};

/* One item of a pattern ("x", ".", "%a", "[…]") as the set of bytes that it matches. */
struct pattern_set {
  const unsigned char *item, *end; /* in the pattern; NULL item = empty entry */
  uint64_t bits[4];
};

#define PATTERN_SETS 8

/* One search: subject, pattern, and the whole state of the machine by value. It points into subject
 * and pattern only, so it may be copied and go on elsewhere while these two stay put. Both need a
 * readable NUL behind their last byte, as Lua's strings have. */
struct pattern {
  const unsigned char *subject, *subject_end;
  const unsigned char *pattern, *pattern_end;
  const unsigned char *at;       /* where the current or next attempt begins */
  const unsigned char *last_end; /* end of the match before: an empty match there does not count */
  const unsigned char *match_start, *match_end;
  const unsigned char *s, *p; /* the machine's position */
  const char *error;          /* format with at most one %d, NULL = none */
  int error_arg;
  bool anchored; /* one attempt only */
  bool running;  /* an attempt is under way */
  bool ended;    /* no more attempts */
  bool failing;  /* the next step takes a choice back */
  int captures;  /* begun so far */
  int depth;     /* frames in use */
  struct pattern_capture capture[PATTERN_MAX_CAPTURES];
  struct pattern_set sets[PATTERN_SETS];
  struct pattern_frame frames[PATTERN_MAX_DEPTH];
};

/* offset is where to begin, 0..len + 1 (len + 1: no match). caret: a leading ^ is an anchor. */
void pattern_init(struct pattern *m, const char *subject, size_t len, size_t offset,
                  const char *pattern, size_t pattern_len, bool caret);

/* The next match from m->at on, taking at most about *budget steps, which it counts down. */
enum pattern_result pattern_next(struct pattern *m, int64_t *budget);

/* True where the text holds none of the pattern characters ^$*+?.([%- */
bool pattern_is_plain(const char *pattern, size_t len);

#endif
