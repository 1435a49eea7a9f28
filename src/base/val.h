#ifndef REGOLITH_BASE_VAL_H
#define REGOLITH_BASE_VAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Plain data: what ops carry. A tree without pointers to anything else, the common shape behind Lua
 * values, JSON and the binary frame. Strings are bytes of any value. Maps keep insertion order and
 * have string keys. Zero-initialised is nil. */
enum val_type { VAL_NIL, VAL_BOOL, VAL_INT, VAL_NUM, VAL_STR, VAL_LIST, VAL_MAP };

struct val_pair;
struct val {
  enum val_type type;
  union {
    bool b;
    int64_t i;
    double n;
    struct {
      char *p; /* owned, NUL-terminated behind len */
      size_t len;
    } s;
    struct {
      struct val *v; /* owned */
      size_t n, cap;
    } list;
    struct {
      struct val_pair *v; /* owned */
      size_t n, cap;
    } map;
  };
};

struct val_pair {
  char *key; /* owned, NUL-terminated, no NUL inside */
  struct val val;
};

void val_free(struct val *v); /* back to nil; NULL allowed */
struct val val_copy(const struct val *v);
bool val_equal(const struct val *a, const struct val *b);
const char *val_type_name(enum val_type type); /* "nil", "boolean", … as a user would say it */

struct val val_bool(bool b);
struct val val_int(int64_t i);
struct val val_num(double n);
struct val val_str(const char *s); /* copies; NULL gives nil */
struct val val_bytes(const void *p, size_t len);
struct val val_take_bytes(char *p, size_t len); /* owns p, which has a NUL behind len */
struct val val_list(void);
struct val val_map(void);

/* v moves into the container: pass a temporary, or forget it afterwards. */
void val_push(struct val *list, struct val v);
void val_set(struct val *map, const char *key, struct val v); /* replaces */
/* As val_set, for a key that the caller knows to be new: no search, so that building is linear. */
void val_add(struct val *map, const char *key, struct val v);
const struct val *val_get(const struct val *map, const char *key); /* NULL: absent, or not a map */
struct val *val_get_mut(struct val *map, const char *key);
bool val_remove(struct val *map, const char *key);

/* Shorthands for reading results that we made ourselves: the fallback where absent or of another
 * type. */
const char *val_get_str(const struct val *map, const char *key, const char *fallback);
int64_t val_get_int(const struct val *map, const char *key, int64_t fallback);
double val_get_num(const struct val *map, const char *key, double fallback);
bool val_get_bool(const struct val *map, const char *key, bool fallback);

#endif
