/* base: errors, buffers, plain data, JSON, ids, times.
 * valgrind: yes */
#include "test.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/id.h"
#include "base/idmap.h"
#include "base/json.h"
#include "base/plain.h"
#include "base/val.h"

static void err_fields(void)
{
  struct err e = {0};
  CHECK_INT(err_arg(&e, "timeout", "must be %d", 5), -22);
  CHECK_STR(e.field, "timeout");
  CHECK_STR(e.msg, "must be 5");
  err_wrap(&e, "sandbox.create");
  CHECK_STR(e.msg, "sandbox.create: must be 5");
  CHECK_STR(err_info(e.kind)->code, "invalid_argument");
  CHECK_INT(err_kind_from_code("sandbox_terminated"), ERR_SANDBOX_TERMINATED);
}

static void err_cuts_between_characters(void)
{
  struct err e = {0};
  char text[1200];
  for (size_t i = 0; i + 2 < sizeof text; i += 2) memcpy(text + i, "\xC3\xA4", 3);
  err_set(&e, ERR_INTERNAL, 0, "x%s", text);
  size_t n = strlen(e.msg);
  CHECK(n < sizeof e.msg);
  CHECK((unsigned char)e.msg[n - 1] == 0xA4);
}

static void json_round_trip(void)
{
  const char *text = "{\"a\":[1,2.5,true,null,\"x\\u00e4\\n\"],\"b\":{}}";
  struct val v;
  struct err e = {0};
  CHECK_INT(json_parse(&v, text, strlen(text), &e), 0);
  struct buf out = {0};
  json_print(&out, &v);
  CHECK_STR(out.data, "{\"a\":[1,2.5,true,null,\"x\xC3\xA4\\n\"],\"b\":{}}");
  struct val again = val_copy(&v);
  CHECK(val_equal(&v, &again));
  val_free(&v);
  val_free(&again);
  buf_free(&out);
}

static void json_prints_bytes(void)
{
  struct val v = val_bytes("a\0\xFF\xE2\x82z\xC0\xAF\xED\xA0\x80", 11);
  struct buf out = {0};
  json_print(&out, &v);
#define R "\xEF\xBF\xBD"
  CHECK_STR(out.data, "\"a\\u0000" R R "z" R R R R R "\"");
  val_free(&v);
  buf_free(&out);
}

static void json_refuses(void)
{
  static const char *const bad[] = {"",     "{",  "{\"a\":1,\"a\":2}", "1 2", "\"\\u0000\"",
                                    "[1,]", "nul"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct val v;
    struct err e = {0};
    CHECK(json_parse(&v, bad[i], strlen(bad[i]), &e) < 0);
    CHECK(e.kind == ERR_INVALID_ARGUMENT);
  }
  char deep[200];
  memset(deep, '[', 100);
  memset(deep + 100, ']', 100);
  struct val v;
  struct err e = {0};
  CHECK(json_parse(&v, deep, sizeof deep, &e) < 0);
}

static void ids_have_their_form(void)
{
  char a[ID_SIZE], b[ID_SIZE];
  id_sandbox(a);
  id_sandbox(b);
  CHECK_INT(strlen(a), 13);
  CHECK(strncmp(a, "sb_", 3) == 0 && strspn(a + 3, "0123456789abcdefghijklmnopqrstuvwxyz") == 10);
  CHECK(strcmp(a, b) != 0);
}

static void idmap_matches_an_array(void)
{
  enum { IDS = 500 };
  static char *want[IDS + 1], cells[IDS + 1];
  struct idmap map = {0};
  uint64_t seed = 42;
  for (int step = 0; step < 20000; step++) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    uint64_t id = (seed >> 33) % IDS + 1;
    if (seed >> 63) {
      idmap_set(&map, id << 32, &cells[id]);
      want[id] = &cells[id];
    } else {
      CHECK(idmap_remove(&map, id << 32) == want[id]);
      want[id] = NULL;
    }
  }
  size_t n = 0, seen = 0, at = 0;
  for (uint64_t id = 1; id <= IDS; id++) {
    CHECK(idmap_get(&map, id << 32) == want[id]);
    n += want[id] != NULL;
  }
  while (idmap_next(&map, &at)) seen++;
  CHECK_INT(map.n, n);
  CHECK_INT(seen, n);
  idmap_free(&map);
}

static void iso_times(void)
{
  char out[CLOCK_ISO_SIZE];
  clock_format_iso(1781344800, out);
  CHECK_STR(out, "2026-06-13T10:00:00Z");
}

static void strangers_text_is_plain(void)
{
  static const struct {
    const char *from, *to;
  } rows[] = {
      {"plain, na\xC3\xAFve \xF0\x9F\x8C\x99", "plain, na\xC3\xAFve \xF0\x9F\x8C\x99"},
      {"\x1B[2Ja\r\n\tb\x7F", "?[2Ja???b?"},
      {"\xC2\x9B"
       "31m\xC2\xA0",
       "??31m\xC2\xA0"}, /* CSI in UTF-8, and a space beside it */
      {"\x9B"
       "31m \xFF\xC0\x80",
       "?31m ???"},
      {"cut \xE2\x82", "cut ??"},
      {"\xE2\x82\x1B", "???"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    char text[64];
    snprintf(text, sizeof text, "%s", rows[i].from);
    plain(text);
    CHECK_STR(text, rows[i].to);
  }
}

const struct test_case test_cases[] = {{"err_fields", err_fields},
                                       {"strangers_text_is_plain", strangers_text_is_plain},
                                       {"err_cuts_between_characters", err_cuts_between_characters},
                                       {"json_round_trip", json_round_trip},
                                       {"json_prints_bytes", json_prints_bytes},
                                       {"json_refuses", json_refuses},
                                       {"ids_have_their_form", ids_have_their_form},
                                       {"idmap_matches_an_array", idmap_matches_an_array},
                                       {"iso_times", iso_times},
                                       {0}};
