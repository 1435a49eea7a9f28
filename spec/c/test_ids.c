/* engine/local/ids: every box has its own, also where there are thousands. */
#include "test.h"

#include <stdlib.h>
#include <unistd.h>

#include "engine/local/ids.h"

#define MANY 5000

static int by_first(const void *a, const void *b)
{
  uint32_t x = ((const struct ids_block *)a)->first, y = ((const struct ids_block *)b)->first;
  return (x > y) - (x < y);
}

/* A block is [first, agent], both ends included. */
static void check_apart(const struct ids_block *blocks, size_t n)
{
  static struct ids_block sorted[MANY];
  memcpy(sorted, blocks, n * sizeof *blocks);
  qsort(sorted, n, sizeof *sorted, by_first);
  for (size_t i = 0; i < n; i++) {
    const struct ids_block *b = &sorted[i];
    CHECK_INT(b->agent - b->first, 65535);
    CHECK_INT(b->rest, b->first + 1);
    CHECK_INT(b->rest + b->mapped - 1, b->agent);
    if (i > 0) CHECK(sorted[i - 1].agent < b->first);
    /* Below: those of accounts and of other programs; between: systemd's. */
    CHECK(b->first >= 0x70000000u);
    CHECK(b->agent < 0x7FFE0000u || b->first >= 0x80000000u);
    CHECK(b->agent < 0x90000000u);
  }
}

static void thousands_of_boxes_share_no_id(void)
{
  static struct ids_block blocks[MANY];
  struct ids ids;
  struct err err = {0};
  CHECK_INT(ids_enter(&ids, &err), 0);
  if (ids.mode != IDS_BLOCKS) {
    fprintf(stderr, "SKIPPED: only root gives every box its own ids\n");
    return;
  }
  for (size_t i = 0; i < MANY; i++) CHECK_INT(ids_take(&ids, false, &blocks[i], &err), 0);
  check_apart(blocks, MANY);
  for (size_t i = 0; i < MANY; i += 2) ids_give(&ids, &blocks[i]);
  for (size_t i = 0; i < MANY; i += 2) CHECK_INT(ids_take(&ids, false, &blocks[i], &err), 0);
  check_apart(blocks, MANY);
  for (size_t i = 0; i < MANY; i++) ids_give(&ids, &blocks[i]);
  ids_done(&ids);
}

/* Two processes look into the same file: what one has, the other does not get. */
static void two_owners_share_no_id(void)
{
  static struct ids_block blocks[200];
  struct ids a, b;
  struct err err = {0};
  CHECK_INT(ids_enter(&a, &err), 0);
  if (a.mode != IDS_BLOCKS) return;
  CHECK_INT(ids_enter(&b, &err), 0);
  for (size_t i = 0; i < 200; i++) CHECK_INT(ids_take(i % 2 ? &a : &b, false, &blocks[i], &err), 0);
  check_apart(blocks, 200);
  for (size_t i = 1; i < 200; i += 2) ids_give(&a, &blocks[i]);
  for (size_t i = 1; i < 200; i += 2) CHECK_INT(ids_take(&b, false, &blocks[i], &err), 0);
  check_apart(blocks, 200);
  ids_done(&a);
  ids_done(&b);
}

const struct test_case test_cases[] = {
    {"thousands_of_boxes_share_no_id", thousands_of_boxes_share_no_id},
    {"two_owners_share_no_id", two_owners_share_no_id},
    {0}};
