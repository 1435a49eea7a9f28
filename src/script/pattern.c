/* Lua's patterns, as §6.4.1 of the reference manual describes them: the matcher behind string.find,
 * match, gmatch and gsub.
 *
 * It differs from the stock matcher in what a hostile pattern can do. There is no recursion: each
 * choice (an optional item, a repetition, a capture's begin or end) is a frame on a stack of fixed
 * size, and going back means popping. The whole state is one struct, so that a search can stop when
 * its budget is spent (PATTERN_MORE) and go on later, from another C stack. A step is one item, one
 * frame taken back, or one byte scanned; items are turned into sets of bytes once and kept in a
 * small cache, so that the cost of a step does not depend on the pattern.
 *
 * Malformed patterns are found when the bad part is reached, not before, and the limits are those
 * of the stock library (32 captures, 200 levels), so that results and errors are the same.
 *
 *   pattern_init → (attempt: running → match or not) … → ended */
#include "script/pattern.h"

#include <string.h>

#define ESC '%'

enum frame_kind { FRAME_OPTIONAL, FRAME_GREEDY, FRAME_LAZY, FRAME_OPEN, FRAME_CLOSE };
enum step { STEP_GO, STEP_FAIL, STEP_MATCHED, STEP_ERROR };

static enum step fail_with(struct pattern *m, const char *error, int arg)
{
  m->error = error;
  m->error_arg = arg;
  return STEP_ERROR;
}

/* The classes in the C locale, whatever the process has: bytes 0-63 and 64-127; none is above. */
struct class_bits {
  uint64_t low, high;
};

static bool class_find(unsigned char class, struct class_bits *ret)
{
  static const struct class_bits upper = {0, 0x07fffffe}, lower = {0, 0x07fffffe00000000},
                                 digit = {0x03ff000000000000, 0},
                                 punct = {0xfc00fffe00000000, 0x78000001f8000001};
  const uint64_t alpha = upper.high | lower.high;
  switch (class | 0x20) {
  case 'a': *ret = (struct class_bits){0, alpha}; break;
  case 'c': *ret = (struct class_bits){0xffffffff, 1ULL << 63}; break;
  case 'd': *ret = digit; break;
  case 'g': *ret = (struct class_bits){digit.low | punct.low, alpha | punct.high}; break;
  case 'l': *ret = lower; break;
  case 'p': *ret = punct; break;
  case 's': *ret = (struct class_bits){0x100003e00, 0}; break;
  case 'u': *ret = upper; break;
  case 'w': *ret = (struct class_bits){digit.low, alpha}; break;
  case 'x': *ret = (struct class_bits){digit.low, 0x7e0000007e}; break;
  case 'z': *ret = (struct class_bits){1, 0}; break; /* from 5.1, undocumented, still there */
  default: return false;
  }
  return class >= 'A' && class <= 'z';
}

static void set_add(struct pattern_set *set, unsigned c)
{
  set->bits[c >> 6] |= 1ULL << (c & 63);
}

static bool set_has(const struct pattern_set *set, unsigned char c)
{
  return set->bits[c >> 6] >> (c & 63) & 1;
}

/* %class: upper case is the complement, what is no class stands for itself. */
static void set_add_class(struct pattern_set *set, unsigned char class)
{
  struct class_bits in;
  if (!class_find(class, &in)) {
    set_add(set, class);
    return;
  }
  bool complement = class < 'a';
  set->bits[0] |= complement ? ~in.low : in.low;
  set->bits[1] |= complement ? ~in.high : in.high;
  set->bits[2] |= complement ? ~0ULL : 0;
  set->bits[3] |= complement ? ~0ULL : 0;
}

/* Fills the set from the text between '[' and the ']' at close. */
static void set_add_bracket(struct pattern_set *set, const unsigned char *p,
                            const unsigned char *close)
{
  bool complement = *p == '^';
  if (complement) p++;
  while (p < close) {
    if (*p == ESC) {
      set_add_class(set, p[1]);
      p += 2;
    } else if (p[1] == '-' && p + 2 < close) {
      for (unsigned c = p[0]; c <= p[2]; c++) set_add(set, c);
      p += 3;
    } else {
      set_add(set, *p++);
    }
  }
  for (int i = 0; complement && i < 4; i++) set->bits[i] = ~set->bits[i];
}

/* The ']' that closes the set whose '[' is before p; NULL: there is none. The first character
 * never closes it. */
static const unsigned char *find_close(const struct pattern *m, const unsigned char *p)
{
  if (*p == '^') p++;
  do {
    if (p >= m->pattern_end) return NULL;
    if (*p++ == ESC && p < m->pattern_end) p++;
  } while (*p != ']' || p >= m->pattern_end);
  return p;
}

/* The set for the item at `item`; NULL with m->error when it is malformed. */
static const struct pattern_set *get_set(struct pattern *m, const unsigned char *item,
                                         int64_t *budget)
{
  struct pattern_set *set = &m->sets[(size_t)(item - m->pattern) % PATTERN_SETS];
  if (set->item == item) return set;
  memset(set, 0, sizeof *set);
  if (*item == ESC) {
    if (item + 1 >= m->pattern_end) {
      fail_with(m, "malformed pattern (ends with '%%')", 0);
      return NULL;
    }
    set_add_class(set, item[1]);
    set->end = item + 2;
  } else if (*item == '[') {
    const unsigned char *close = find_close(m, item + 1);
    if (!close) {
      fail_with(m, "malformed pattern (missing ']')", 0);
      return NULL;
    }
    set_add_bracket(set, item + 1, close);
    set->end = close + 1;
    *budget -= set->end - item;
  } else if (*item == '.') {
    memset(set->bits, 0xff, sizeof set->bits);
    set->end = item + 1;
  } else {
    set_add(set, *item);
    set->end = item + 1;
  }
  set->item = item;
  return set;
}

/* Makes a choice: what follows runs one level deeper. */
static enum step push(struct pattern *m, struct pattern_frame frame)
{
  if (m->depth == PATTERN_MAX_DEPTH) return fail_with(m, "pattern too complex", 0);
  m->frames[m->depth++] = frame;
  return STEP_GO;
}

static enum step open_capture(struct pattern *m)
{
  bool position = m->p[1] == ')';
  if (m->captures >= PATTERN_MAX_CAPTURES) return fail_with(m, "too many captures", 0);
  m->capture[m->captures].start = m->s;
  m->capture[m->captures].len = position ? PATTERN_CAP_POSITION : PATTERN_CAP_OPEN;
  m->captures++;
  m->p += position ? 2 : 1;
  return push(m, (struct pattern_frame){.kind = FRAME_OPEN});
}

static enum step close_capture(struct pattern *m)
{
  int i = m->captures - 1;
  while (i >= 0 && m->capture[i].len != PATTERN_CAP_OPEN) i--;
  if (i < 0) return fail_with(m, "invalid pattern capture", 0);
  m->capture[i].len = m->s - m->capture[i].start;
  m->p++;
  return push(m, (struct pattern_frame){.kind = FRAME_CLOSE, .n = i});
}

/* %bxy */
static enum step match_balance(struct pattern *m, int64_t *budget)
{
  const unsigned char *p = m->p + 2;
  if (p + 1 >= m->pattern_end) {
    return fail_with(m, "malformed pattern (missing arguments to '%%b')", 0);
  }
  if (m->s >= m->subject_end || *m->s != p[0]) return STEP_FAIL;
  size_t nesting = 1;
  for (const unsigned char *s = m->s + 1; s < m->subject_end; s++) {
    if (*s == p[1]) {
      if (--nesting == 0) {
        *budget -= s - m->s;
        m->s = s + 1;
        m->p = p + 2;
        return STEP_GO;
      }
    } else if (*s == p[0]) {
      nesting++;
    }
  }
  *budget -= m->subject_end - m->s;
  return STEP_FAIL;
}

/* %f[set]: a border, with NULs around the subject. */
static enum step match_frontier(struct pattern *m, int64_t *budget)
{
  const unsigned char *item = m->p + 2;
  if (*item != '[') return fail_with(m, "missing '[' after '%%f' in pattern", 0);
  const struct pattern_set *set = get_set(m, item, budget);
  if (!set) return STEP_ERROR;
  unsigned char before = m->s == m->subject ? 0 : m->s[-1];
  unsigned char after = m->s == m->subject_end ? 0 : *m->s;
  if (set_has(set, before) || !set_has(set, after)) return STEP_FAIL;
  m->p = set->end;
  return STEP_GO;
}

/* %1 … %9 */
static enum step match_reference(struct pattern *m, int64_t *budget)
{
  int i = m->p[1] - '1';
  if (i < 0 || i >= m->captures || m->capture[i].len == PATTERN_CAP_OPEN) {
    return fail_with(m, "invalid capture index %%%d", i + 1);
  }
  ptrdiff_t len = m->capture[i].len;
  if (len < 0 || m->subject_end - m->s < len) return STEP_FAIL; /* a position has no text */
  *budget -= len >> 4;
  if (memcmp(m->capture[i].start, m->s, (size_t)len) != 0) return STEP_FAIL;
  m->s += len;
  m->p += 2;
  return STEP_GO;
}

/* x* and x+: takes all it can, and gives back one by one. */
static enum step match_greedy(struct pattern *m, const struct pattern_set *set, int64_t *budget)
{
  const unsigned char *from = m->s, *s = from + (*set->end == '+');
  const unsigned char *base = s;
  while (s < m->subject_end && set_has(set, *s)) s++;
  *budget -= s - base;
  m->s = s;
  m->p = set->end + 1;
  return push(m,
              (struct pattern_frame){.kind = FRAME_GREEDY, .s = base, .rest = m->p, .n = s - base});
}

/* One character item with its suffix. */
static enum step match_item(struct pattern *m, int64_t *budget)
{
  const struct pattern_set *set = get_set(m, m->p, budget);
  if (!set) return STEP_ERROR;
  const unsigned char *end = set->end;
  unsigned char suffix = end < m->pattern_end ? *end : 0;
  if (m->s >= m->subject_end || !set_has(set, *m->s)) {
    if (suffix != '*' && suffix != '?' && suffix != '-') return STEP_FAIL;
    m->p = end + 1;
    return STEP_GO;
  }
  switch (suffix) {
  case '?': {
    struct pattern_frame frame = {.kind = FRAME_OPTIONAL, .s = m->s, .rest = end + 1};
    m->s++;
    m->p = end + 1;
    return push(m, frame);
  }
  case '*':
  case '+': return match_greedy(m, set, budget);
  case '-': {
    struct pattern_frame frame = {.kind = FRAME_LAZY, .s = m->s, .item = m->p, .rest = end + 1};
    m->p = end + 1;
    return push(m, frame);
  }
  default:
    m->s++;
    m->p = end;
    return STEP_GO;
  }
}

static enum step match_step(struct pattern *m, int64_t *budget)
{
  if (m->p == m->pattern_end) return STEP_MATCHED;
  switch (*m->p) {
  case '(': return open_capture(m);
  case ')': return close_capture(m);
  case '$':
    if (m->p + 1 != m->pattern_end) break;
    return m->s == m->subject_end ? STEP_MATCHED : STEP_FAIL;
  case ESC: /* behind the last byte is a NUL, which is none of these */
    if (m->p[1] == 'b') return match_balance(m, budget);
    if (m->p[1] == 'f') return match_frontier(m, budget);
    if (m->p[1] >= '0' && m->p[1] <= '9') return match_reference(m, budget);
    break;
  default: break;
  }
  return match_item(m, budget);
}

/* Asks the latest choice for something else; STEP_FAIL where it has nothing more and is gone. */
static enum step take_back(struct pattern *m, int64_t *budget)
{
  if (m->depth == 0) return STEP_FAIL;
  struct pattern_frame *f = &m->frames[m->depth - 1];
  switch ((enum frame_kind)f->kind) {
  case FRAME_OPTIONAL:
    m->depth--;
    m->s = f->s;
    m->p = f->rest;
    return STEP_GO;
  case FRAME_GREEDY:
    if (f->n-- == 0) break;
    m->s = f->s + f->n;
    m->p = f->rest;
    return STEP_GO;
  case FRAME_LAZY: {
    const struct pattern_set *set = get_set(m, f->item, budget);
    if (!set || f->s >= m->subject_end || !set_has(set, *f->s)) break;
    m->s = ++f->s;
    m->p = f->rest;
    return STEP_GO;
  }
  case FRAME_OPEN: m->captures--; break;
  case FRAME_CLOSE: m->capture[f->n].len = PATTERN_CAP_OPEN; break;
  }
  m->depth--;
  return STEP_FAIL;
}

static enum pattern_result run_attempt(struct pattern *m, int64_t *budget)
{
  for (;;) {
    if (--*budget < 0) return PATTERN_MORE;
    enum step step = m->failing ? take_back(m, budget) : match_step(m, budget);
    if (step == STEP_MATCHED) return PATTERN_YES;
    if (step == STEP_ERROR) return PATTERN_ERROR;
    m->failing = step == STEP_FAIL;
    if (m->failing && m->depth == 0) return PATTERN_NO;
  }
}

/* Skips to where a pattern that begins with a plain character can match at all. */
static const unsigned char *skip_ahead(const struct pattern *m)
{
  if (m->pattern == m->pattern_end || strchr("^$*+?.([%-)", *m->pattern)) return m->at;
  if (m->pattern + 1 < m->pattern_end && m->pattern[1] && strchr("*?-", m->pattern[1])) {
    return m->at;
  }
  const unsigned char *found =
      m->at < m->subject_end ? memchr(m->at, *m->pattern, (size_t)(m->subject_end - m->at)) : NULL;
  return found ? found : m->subject_end;
}

static void begin_attempt(struct pattern *m, int64_t *budget)
{
  if (!m->anchored) {
    const unsigned char *to = skip_ahead(m);
    *budget -= (to - m->at) >> 4;
    m->at = to;
  }
  m->s = m->at;
  m->p = m->pattern;
  m->captures = 0;
  m->depth = 0;
  m->failing = false;
  m->running = true;
}

enum pattern_result pattern_next(struct pattern *m, int64_t *budget)
{
  while (!m->ended && (m->running || m->at <= m->subject_end)) {
    if (!m->running) begin_attempt(m, budget);
    enum pattern_result result = run_attempt(m, budget);
    if (result == PATTERN_MORE) return result;
    m->running = false;
    m->ended = m->anchored || result == PATTERN_ERROR;
    if (result == PATTERN_ERROR) return result;
    if (result == PATTERN_YES && m->s != m->last_end) {
      m->match_start = m->at;
      m->match_end = m->at = m->last_end = m->s;
      return result;
    }
    m->at++;
  }
  m->ended = true;
  return PATTERN_NO;
}

void pattern_init(struct pattern *m, const char *subject, size_t len, size_t offset,
                  const char *pattern, size_t pattern_len, bool caret)
{
  memset(m, 0, offsetof(struct pattern, capture));
  for (int i = 0; i < PATTERN_SETS; i++) m->sets[i].item = NULL;
  m->subject = (const unsigned char *)subject;
  m->subject_end = m->subject + len;
  m->at = m->subject + offset;
  m->pattern = (const unsigned char *)pattern;
  m->pattern_end = m->pattern + pattern_len;
  if (caret && pattern_len > 0 && pattern[0] == '^') {
    m->anchored = true;
    m->pattern++;
  }
}

bool pattern_is_plain(const char *pattern, size_t len)
{
  for (size_t i = 0; i < len; i++) {
    if (pattern[i] && strchr("^$*+?.([%-", pattern[i])) return false;
  }
  return true;
}
