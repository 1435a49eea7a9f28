#ifndef REGOLITH_SPEC_TEST_H
#define REGOLITH_SPEC_TEST_H

/* Unit tests in C: each file is one program, each TEST one case in a child process of its own when
 * it wants one. The last line is "N passed, N failed". */

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct test_case {
  const char *name;
  void (*run)(void);
};

extern const struct test_case test_cases[]; /* ended by a NULL name */
static int test_failed_checks;

#define CHECK(cond)                                                                                \
  do {                                                                                             \
    if (!(cond)) {                                                                                 \
      fprintf(stderr, "%s:%d: CHECK(%s) failed\n", __FILE__, __LINE__, #cond);                     \
      test_failed_checks++;                                                                        \
    }                                                                                              \
  } while (0)

#define CHECK_STR(got, want)                                                                       \
  do {                                                                                             \
    const char *got_ = (got), *want_ = (want);                                                     \
    if (!got_ || strcmp(got_, want_) != 0) {                                                       \
      fprintf(stderr, "%s:%d: got \"%s\", want \"%s\"\n", __FILE__, __LINE__,                      \
              got_ ? got_ : "(null)", want_);                                                      \
      test_failed_checks++;                                                                        \
    }                                                                                              \
  } while (0)

#define CHECK_INT(got, want)                                                                       \
  do {                                                                                             \
    long long got_ = (long long)(got), want_ = (long long)(want);                                  \
    if (got_ != want_) {                                                                           \
      fprintf(stderr, "%s:%d: %s is %lld, want %lld\n", __FILE__, __LINE__, #got, got_, want_);    \
      test_failed_checks++;                                                                        \
    }                                                                                              \
  } while (0)

int main(int argc, char **argv)
{
  int passed = 0, failed = 0;
  for (const struct test_case *t = test_cases; t->name; t++) {
    if (argc > 1 && !strstr(t->name, argv[1])) continue;
    test_failed_checks = 0;
    t->run();
    if (test_failed_checks) {
      fprintf(stderr, "not ok: %s\n", t->name);
      failed++;
    } else {
      passed++;
    }
  }
  printf("%d passed, %d failed\n", passed, failed);
  return failed ? 1 : 0;
}

#endif
