/* The option parser: GNU conventions over a command's option table.
 *
 * --name VALUE, --name=VALUE, -n VALUE, -nVALUE, bundled flags, "--" ends options. Long names are
 * written out in full: an abbreviation is answered with the full name instead of guessed, so that a
 * script that uses one cannot change its meaning when options are added. Unless the command stops
 * at its first operand, options may stand between operands. Nothing here prints. */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/suggest.h"
#include "cli/cli.h"

struct unit {
  const char *name;
  double factor;
};

static const struct unit duration_units[] = {{"", 1000},       {"ms", 1},          {"s", 1000},
                                             {"m", 60 * 1000}, {"h", 3600 * 1000}, {NULL, 0}};

static const struct unit size_units[] = {
    {"", 1 << 20},    {"B", 1},         {"KiB", 1 << 10},
    {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"K", 1 << 10},
    {"M", 1 << 20},   {"G", 1 << 30},   {"TiB", 1024.0 * (1 << 30)},
    {NULL, 0}};

/* A decimal number that is not negative, followed by one of the units. */
static bool read_number(double *ret, const char *text, const struct unit *units)
{
  if (!isdigit((unsigned char)*text) && *text != '.') return false;
  size_t digits = strspn(text, "0123456789.");
  char *end;
  double n = strtod(text, &end);
  if (end != text + digits || digits > 18) return false;
  for (const struct unit *u = units; u->name; u++)
    if (strcasecmp(end, u->name) == 0) {
      *ret = n * u->factor;
      return true;
    }
  return false;
}

int cli_read_duration(uint64_t *ret_ms, const char *text, const char *field, struct err *err)
{
  double ms;
  if (!read_number(&ms, text, duration_units) || ms > 1e12)
    return err_arg(err, field, "%s: \"%s\" is not a duration; write 250ms, 90s, 5m or 2h", field,
                   text);
  if (ms < 1) return err_arg(err, field, "%s: \"%s\" is too short; use 1ms or more", field, text);
  *ret_ms = (uint64_t)ms;
  return 0;
}

int cli_read_size(uint64_t *ret_bytes, const char *text, const char *field, struct err *err)
{
  double bytes;
  if (!read_number(&bytes, text, size_units) || bytes > 1e15)
    return err_arg(err, field, "%s: \"%s\" is not a size; write 64MiB or 2GiB", field, text);
  if (bytes < 1) return err_arg(err, field, "%s: \"%s\" is too small", field, text);
  *ret_bytes = (uint64_t)bytes;
  return 0;
}

static int read_uint(uint32_t *ret, const char *text, const char *field, struct err *err)
{
  char *end;
  errno = 0;
  unsigned long long n = strtoull(text, &end, 10);
  if (!isdigit((unsigned char)*text) || *end || errno || n > UINT32_MAX)
    return err_arg(err, field, "%s: \"%s\" is not a whole number", field, text);
  *ret = (uint32_t)n;
  return 0;
}

static int read_milli(uint32_t *ret, const char *text, const char *field, struct err *err)
{
  static const struct unit units[] = {{"", 1000}, {NULL, 0}};
  double n;
  if (!read_number(&n, text, units) || n > UINT32_MAX)
    return err_arg(err, field, "%s: \"%s\" is not a number such as 0.5 or 2", field, text);
  *ret = (uint32_t)lround(n);
  return 0;
}

static void add_to_list(struct cli_list *list, const char *text)
{
  list->v = xrealloc(list->v, (list->n + 1) * sizeof *list->v);
  list->v[list->n++] = text;
}

static int read_value(const struct cli_option *o, void *out, const char *text, struct err *err)
{
  char field[64];
  snprintf(field, sizeof field, "--%s", o->name);
  void *to = (char *)out + o->offset;
  switch (o->type) {
  case CLI_FLAG: *(bool *)to = true; return 0;
  case CLI_STR: *(const char **)to = text; return 0;
  case CLI_LIST: add_to_list(to, text); return 0;
  case CLI_CHOICE:
    add_to_list(to, o->name);
    add_to_list(to, text);
    return 0;
  case CLI_HEADING: break;
  case CLI_DURATION: return cli_read_duration(to, text, field, err);
  case CLI_SIZE: return cli_read_size(to, text, field, err);
  case CLI_UINT: return read_uint(to, text, field, err);
  case CLI_MILLI: return read_milli(to, text, field, err);
  }
  abort();
}

void cli_list_free(struct cli_list *list)
{
  free(list->v);
  *list = (struct cli_list){0};
}

struct parser {
  const struct cli_command *cmd;
  int argc, at; /* at: the word being read */
  char **argv;
  void *out;
  struct err *err;
};

static const struct cli_option *find_long(const struct cli_command *cmd, const char *name,
                                          size_t len)
{
  for (const struct cli_option *o = cmd->options; o && o->name; o++)
    if (o->type != CLI_HEADING && strlen(o->name) == len && strncmp(o->name, name, len) == 0)
      return o;
  return NULL;
}

static int unknown_long(const struct parser *p, const char *name, size_t len)
{
  const char *names[64];
  size_t n = 0;
  for (const struct cli_option *o = p->cmd->options; o && o->name && n < 63; o++)
    if (o->type != CLI_HEADING) names[n++] = o->name;
  names[n++] = "help";
  char word[64];
  snprintf(word, sizeof word, "%.*s", (int)len, name);
  int rc = err_arg(p->err, word, "regolith %s has no option --%s", p->cmd->name, word);
  const char *near = suggest_nearest(word, names, n);
  if (near) err_hint(p->err, "did you mean --%s?", near);
  return rc;
}

static int take_value(struct parser *p, const struct cli_option *o, const char *attached)
{
  if (!attached) {
    if (p->at + 1 >= p->argc)
      return err_arg(p->err, o->name, "--%s needs a value: --%s %s", o->name, o->name, o->value);
    attached = p->argv[++p->at];
  }
  return read_value(o, p->out, attached, p->err);
}

static int read_long(struct parser *p, const char *word)
{
  size_t len = strcspn(word, "=");
  const char *attached = word[len] == '=' ? word + len + 1 : NULL;
  const struct cli_option *o = find_long(p->cmd, word, len);
  if (!o && len == 4 && strncmp(word, "help", 4) == 0 && !attached) return 1;
  if (!o) return unknown_long(p, word, len);
  if (o->type != CLI_FLAG) return take_value(p, o, attached);
  if (attached) return err_arg(p->err, o->name, "--%s takes no value", o->name);
  return read_value(o, p->out, NULL, p->err);
}

static int read_letters(struct parser *p, const char *letters)
{
  for (; *letters; letters++) {
    const struct cli_option *o = p->cmd->options;
    while (o && o->name && o->letter != *letters) o++;
    if (!o || !o->name) {
      if (*letters == 'h') return 1;
      return err_arg(p->err, "", "regolith %s has no option -%c", p->cmd->name, *letters);
    }
    if (o->type != CLI_FLAG) return take_value(p, o, letters[1] ? letters + 1 : NULL);
    read_value(o, p->out, NULL, p->err);
  }
  return 0;
}

int cli_parse_quiet(const struct cli_command *cmd, int argc, char **argv, void *out, int *ret_first,
                    int *ret_dashes, struct err *err)
{
  struct parser p = {.cmd = cmd, .argc = argc, .at = 1, .argv = argv, .out = out, .err = err};
  int operands = 0, dashes = -1;
  char **kept = xcalloc((size_t)argc + 1, sizeof *kept);
  int rc = 0;
  for (; p.at < argc && rc == 0; p.at++) {
    char *word = argv[p.at];
    bool last = false;
    if (strcmp(word, "--") == 0) {
      dashes = operands;
      p.at++;
      last = true;
    } else if (word[0] == '-' && word[1] == '-') {
      rc = read_long(&p, word + 2);
    } else if (word[0] == '-' && word[1]) {
      rc = read_letters(&p, word + 1);
    } else {
      last = cmd->flags & CLI_STOPS_AT_OPERAND;
      if (!last) kept[operands++] = word;
    }
    if (!last) continue;
    for (; p.at < argc; p.at++) kept[operands++] = argv[p.at];
  }
  if (rc == 0) {
    *ret_first = argc - operands;
    *ret_dashes = dashes < 0 ? argc : *ret_first + dashes;
    memcpy(argv + *ret_first, kept, (size_t)operands * sizeof *kept);
  }
  free(kept);
  return rc;
}
