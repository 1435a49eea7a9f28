/* Whom a command runs as: a name or number is looked up in the box's own files. Those belong to
 * whoever is inside, so they are read as hostile: regular files only, a bounded part of them, and
 * nothing but numbers below the number of ids that the box has ever comes out. */
#include "engine/local/agent_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

#define FILE_MAX (256 * 1024)

/* The file's text, NUL-terminated, or NULL. */
static char *read_text(const char *path)
{
  cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  struct stat st;
  if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) return NULL;
  size_t size = st.st_size < FILE_MAX ? (size_t)st.st_size : FILE_MAX;
  char *text = malloc(size + 1);
  ssize_t n = text ? pread(fd, text, size, 0) : -1;
  if (n < 0) {
    free(text);
    return NULL;
  }
  text[n] = '\0';
  return text;
}

static bool parse_id(const char *s, uint32_t mapped, uint32_t *ret)
{
  if (*s < '0' || *s > '9') return false;
  char *end;
  unsigned long v = strtoul(s, &end, 10);
  if (*end || v >= mapped) return false;
  *ret = (uint32_t)v;
  return true;
}

/* Splits a line at colons, in place; returns the number of fields. */
static size_t split(char *line, char *fields[8])
{
  size_t n = 0;
  for (char *p = line; p && n < 8; n++) {
    fields[n] = p;
    // cppcheck-suppress nullPointer  ; the loop's condition
    p = strchr(p, ':');
    if (p) *p++ = '\0';
  }
  return n;
}

static bool find_passwd(const char *name, bool by_id, uint32_t mapped, struct agent_user *u)
{
  cleanup_free char *text = read_text("/etc/passwd");
  char *save = NULL, *f[8];
  for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line;
       line = strtok_r(NULL, "\n", &save)) {
    uint32_t uid, gid;
    if (split(line, f) < 6 || !parse_id(f[2], mapped, &uid) || !parse_id(f[3], mapped, &gid))
      continue;
    if (by_id ? uid != u->uid : strcmp(f[0], name) != 0) continue;
    u->uid = uid;
    u->gid = gid;
    snprintf(u->home, sizeof u->home, "%s", f[5][0] == '/' ? f[5] : "/");
    return true;
  }
  return false;
}

static bool lists(char *members, const char *name)
{
  char *save = NULL;
  for (char *m = strtok_r(members, ",", &save); m; m = strtok_r(NULL, ",", &save))
    if (strcmp(m, name) == 0) return true;
  return false;
}

/* With a group's name: that group alone. With a user's: all groups that list the user. */
static bool find_groups(const char *group, const char *user, uint32_t mapped, struct agent_user *u)
{
  cleanup_free char *text = read_text("/etc/group");
  char *save = NULL, *f[8];
  for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line;
       line = strtok_r(NULL, "\n", &save)) {
    uint32_t gid;
    size_t n = split(line, f);
    if (n < 3 || !parse_id(f[2], mapped, &gid)) continue;
    if (group && strcmp(f[0], group) == 0) {
      u->gid = gid;
      return true;
    }
    if (user && n > 3 && u->groups_n < AGENT_GROUPS_MAX && lists(f[3], user))
      u->groups[u->groups_n++] = gid;
  }
  return false;
}

int agent_user_find(const char *spec, uint32_t mapped, struct agent_user *ret)
{
  *ret = (struct agent_user){.home = "/root"};
  if (!*spec || strcmp(spec, "root") == 0 || strcmp(spec, "0") == 0) return 0;
  char name[128];
  if ((size_t)snprintf(name, sizeof name, "%s", spec) >= sizeof name) return -ENAMETOOLONG;
  char *group = strchr(name, ':');
  if (group) *group++ = '\0';
  if (parse_id(name, mapped, &ret->uid)) {
    snprintf(ret->home, sizeof ret->home, "/");
    ret->gid = ret->uid;
    find_passwd(name, true, mapped, ret);
  } else if (!find_passwd(name, false, mapped, ret)) {
    return -ENOENT;
  } else if (!group) {
    find_groups(NULL, name, mapped, ret);
  }
  if (group && !parse_id(group, mapped, &ret->gid) && !find_groups(group, NULL, mapped, ret))
    return -ENOENT;
  return 0;
}
