/* The state directory: transactions that are one per turn, jobs that fail alone and together,
 * versions, and disks that are full or cannot be written. */
#include "ledger_world.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sched.h>

#include "db/schema.h"
#include "ledger/idem.h"

/* ---- jobs ---- */

struct insert {
  struct store_job job;
  const char *name;
  int64_t value;
  bool fails;
  int answered; /* its place in the order of answers, from 1 */
  struct err err;
};

static int answers;

static int run_insert(struct store_job *job, struct db *db, struct err *err)
{
  struct insert *i = job->data;
  int rc = db_run(db, err, "INSERT INTO meta (name, value) VALUES (?, ?)", "ti", i->name, i->value);
  if (rc == 0 && i->fails) return err_set(err, ERR_CONFLICT, 0, "it wants to fail");
  return rc;
}

static void on_insert(struct store_job *job, const struct err *err)
{
  struct insert *i = job->data;
  i->answered = ++answers;
  if (err) i->err = *err;
  loop_stop(loop);
}

static void insert(struct store *s, struct insert *i, const char *name, bool fails)
{
  *i = (struct insert){.name = name, .value = 1, .fails = fails};
  i->job = (struct store_job){.run = run_insert, .on_done = on_insert, .data = i};
  store_submit(s, &i->job);
}

static void jobs(void)
{
  make_state_dir();
  loop_new(&loop, NULL);
  struct err e = {0};
  CHECK_INT(store_open(&store, &(struct store_conf){.dir = state_dir, .loop = loop}, &e), 0);
  struct insert a, b, c;
  answers = 0;
  insert(store, &a, "a", false);
  insert(store, &b, "b", true);
  insert(store, &c, "c", false);
  CHECK_INT(a.answered, 0);
  while (answers < 3) loop_run(loop);
  CHECK_INT(a.answered, 1);
  CHECK_INT(b.answered, 2);
  CHECK_INT(c.answered, 3);
  CHECK_INT(a.err.kind, ERR_NONE);
  CHECK_INT(b.err.kind, ERR_CONFLICT);
  CHECK_INT(c.err.kind, ERR_NONE);
  /* What failed is taken back alone. */
  CHECK_INT(number(store, "SELECT count(*) FROM meta WHERE name IN ('a', 'b', 'c')"), 2);
  insert(store, &a, "a", false); /* breaks the key */
  while (!a.answered) loop_run(loop);
  CHECK(a.err.kind != ERR_NONE);
  CHECK(store_trouble(store) == NULL);
  bool closed = false;
  insert(store, &b, "last", false);
  store_close(store, on_part_closed, &closed); /* waits for it */
  while (!closed) loop_run(loop);
  CHECK(b.answered > 0 && b.err.kind == ERR_NONE);
  struct store *s = open_beside();
  CHECK_INT(number(s, "SELECT count(*) FROM meta WHERE name = 'last'"), 1);
  store_close(s, NULL, NULL);
  loop_free(loop);
  remove_state_dir();
}

/* ---- who may open it ---- */

static void one_server(void)
{
  make_state_dir();
  struct store *a, *b;
  struct err e = {0};
  CHECK_INT(store_open(&a, &(struct store_conf){.dir = state_dir, .server = true}, &e), 0);
  CHECK(store_open(&b, &(struct store_conf){.dir = state_dir, .server = true}, &e) < 0);
  CHECK_INT(e.kind, ERR_CONFLICT);
  CHECK(strstr(e.msg, state_dir) != NULL);
  b = open_beside(); /* the terminal may */
  store_close(b, NULL, NULL);
  store_close(a, NULL, NULL);
  CHECK_INT(store_open(&a, &(struct store_conf){.dir = state_dir, .server = true}, &e), 0);
  store_close(a, NULL, NULL);
  remove_state_dir();
}

static void versions(void)
{
  make_state_dir();
  char path[128];
  snprintf(path, sizeof path, "%s/regolith.db", state_dir);
  /* As version 1 left it. */
  struct db *db;
  struct err e = {0};
  CHECK_INT(db_open(&db, path, &e), 0);
  CHECK_INT(db_script(db, schema_step(1), &e), 0);
  CHECK_INT(db_script(db, "PRAGMA user_version=1", &e), 0);
  CHECK_INT(db_script(db,
                      "INSERT INTO accounts (name, key_hash, key_hint, created_s, balance, seq) "
                      "VALUES ('old', zeroblob(32), 'sk-0000', 1, 5, 1);"
                      "INSERT INTO entries VALUES (1, 1, 1000, 1, 5, 5, NULL, NULL, NULL)",
                      &e),
            0);
  /* Not while a server of that version runs. */
  snprintf(path, sizeof path, "%s/server.lock", state_dir);
  int lock = open(path, O_RDWR | O_CREAT, 0600);
  CHECK_INT(flock(lock, LOCK_EX), 0);
  struct store *s;
  CHECK(store_open(&s, &(struct store_conf){.dir = state_dir}, &e) < 0);
  CHECK_INT(e.kind, ERR_CONFLICT);
  CHECK(strstr(e.hint, "older version") != NULL);
  int64_t version = 0;
  CHECK_INT(db_get(db, &version, 0, &e, "PRAGMA user_version", ""), 0);
  CHECK_INT(version, 1);
  close(lock);
  db_close(db);
  snprintf(path, sizeof path, "%s/regolith.db", state_dir);
  s = open_beside();
  CHECK_INT(number(s, "PRAGMA user_version"), schema_version());
  CHECK_INT(number(s, "SELECT count(*) FROM sandboxes"), 0);
  int64_t after = 0;
  CHECK_INT(key_topup(s, "old", 3, &after, &e), 0);
  CHECK_INT(after, 8);
  store_close(s, NULL, NULL);
  check_books();
  /* A newer one is refused, untouched. */
  CHECK_INT(db_open(&db, path, &e), 0);
  CHECK_INT(db_script(db, "PRAGMA user_version=99", &e), 0);
  db_close(db);
  CHECK(store_open(&s, &(struct store_conf){.dir = state_dir}, &e) < 0);
  CHECK_INT(e.kind, ERR_CONFLICT);
  CHECK(strstr(e.msg, "newer regolith") != NULL && strstr(e.msg, "99") != NULL);
  CHECK_INT(db_open(&db, path, &e), 0);
  CHECK_INT(db_get(db, &version, 0, &e, "PRAGMA user_version", ""), 0);
  CHECK_INT(version, 99);
  db_close(db);
  /* What is no database is refused, untouched. */
  int fd = open(path, O_WRONLY | O_TRUNC);
  CHECK(write(fd, "this is not a database, and it is long enough to be one", 55) == 55);
  close(fd);
  CHECK(store_open(&s, &(struct store_conf){.dir = state_dir}, &e) < 0);
  CHECK(strstr(e.msg, path) != NULL);
  remove_state_dir();
}

/* ---- answers to be given again ---- */

struct seen {
  int state, status;
  char body[64];
  bool failed;
};

static void on_idem_begun(void *data, enum idem_state state, int status, const void *body,
                          size_t len, const struct err *err)
{
  struct seen *s = data;
  s->failed = err != NULL;
  s->state = (int)state;
  s->status = status;
  snprintf(s->body, sizeof s->body, "%.*s", (int)len, body ? (const char *)body : "");
  loop_stop(loop);
}

static void on_finished_idem(void *data, const struct err *err)
{
  *(bool *)data = err == NULL;
  loop_stop(loop);
}

static struct seen begin(const char *k, const char *request)
{
  struct seen s = {.state = -1};
  struct err e = {0};
  struct idem_request r = {1, k, request, strlen(request)};
  if (idem_begin(store, &r, on_idem_begun, &s, &e) < 0) return s;
  loop_run(loop);
  CHECK(!s.failed);
  return s;
}

/* ---- disks ---- */

/* A mount namespace of our own, in a child, so that nothing is left. */
static void in_own_mounts(void (*fn)(void))
{
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) {
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
      printf("skipped: mounting is not allowed here\n");
      _exit(0);
    }
    fn();
    _exit(test_failed_checks ? 1 : 0);
  }
  int status;
  waitpid(pid, &status, 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void fill(const char *path)
{
  static const char zeros[4096];
  int fd = open(path, O_WRONLY | O_CREAT, 0600);
  while (write(fd, zeros, sizeof zeros) > 0) {}
  close(fd);
}

/* Charges on a full disk are refused and nothing is lost; they work again when there is room, which
 * is found out without a request. */
static void full(void)
{
  make_state_dir();
  CHECK_INT(mount("tmpfs", state_dir, "tmpfs", 0, "size=1m"), 0);
  set_up(NULL);
  log_set_level(LOG_NONE);
  supervisor_set_priced(sup, "local", true);
  add_key("alice", 1000000, key);
  open_ledger();
  struct err e = {0};
  CHECK_INT(ledger_authenticate(ledger, key, &account, &e), 0);
  owner = account.owner;
  create("{}");
  CHECK_INT(begin("k", "a").state, IDEM_NEW);
  char path[128];
  snprintf(path, sizeof path, "%s/filler", state_dir);
  fill(path);
  int64_t before = balance();
  struct call c = {0};
  /* What space the log has left is used up first. */
  for (int i = 0; i < 500; i++) {
    call(&c, "sandbox.status", "{\"sandbox_id\": \"%s\"}", id);
    if (!c.ok) break;
    before -= 1000;
  }
  CHECK_STR(code(&c), "engine_unavailable");
  CHECK(strstr(c.err.msg, "books") != NULL);
  call(&c, "sandbox.create", "{}");
  CHECK_STR(code(&c), "engine_unavailable");
  size_t boxes = fake.boxes_n;
  call(&c, "sandbox.exec", "{\"sandbox_id\": \"%s\", \"command\": [\"exit\", \"0\", \"0\"]}", id);
  CHECK_STR(code(&c), "engine_unavailable");
  CHECK_INT(fake.execs_n, 0);
  CHECK_INT(boxes, 1);
  CHECK_INT(balance(), before);
  CHECK_INT(held(), 0);
  CHECK(store_trouble(store) != NULL);
  idem_forget(store, 1, "k", NULL, NULL);
  run_ms(5);
  unlink(path);
  for (int i = 0; i < 1000 && store_trouble(store); i++) run_ms(10);
  CHECK(store_trouble(store) == NULL);
  CHECK_INT(begin("k", "b").state, IDEM_NEW);
  call(&c, "sandbox.exec", "{\"sandbox_id\": \"%s\", \"command\": [\"exit\", \"0\", \"0\"]}", id);
  CHECK_STR(code(&c), "ok");
  CHECK_INT(balance(), before - 1000);
  CHECK(store_trouble(store) == NULL);
  call_clear(&c);
  /* (As tear_down_ledger, over a mount.) */
  supervisor_shutdown(sup, 5000, on_closed, &e);
  loop_run(loop);
  close_ledger();
  check_books();
  supervisor_free(sup);
  ops_free(ops);
  loop_free(loop);
  umount(state_dir);
  rmdir(state_dir);
}

static void disk_full(void)
{
  in_own_mounts(full);
}

static void read_only(void)
{
  make_state_dir();
  add_key("alice", 1, key);
  CHECK_INT(mount(state_dir, state_dir, NULL, MS_BIND, NULL), 0);
  CHECK_INT(mount(NULL, state_dir, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL), 0);
  struct store *s;
  struct err e = {0};
  CHECK(store_open(&s, &(struct store_conf){.dir = state_dir}, &e) < 0);
  CHECK(strstr(e.msg, state_dir) != NULL);
  CHECK(store_open(&s, &(struct store_conf){.dir = state_dir, .server = true}, &e) < 0);
  CHECK(strstr(e.msg, state_dir) != NULL);
  umount(state_dir);
  check_books();
  remove_state_dir();
}

static void disk_read_only(void)
{
  in_own_mounts(read_only);
}

static void open_store(void)
{
  struct err e = {0};
  CHECK_INT(store_open(&store, &(struct store_conf){.dir = state_dir, .loop = loop}, &e), 0);
}

static void close_store(void)
{
  bool closed = false;
  store_close(store, on_part_closed, &closed);
  while (!closed) loop_run(loop);
}

static void answers_again(void)
{
  make_state_dir();
  loop_new(&loop, NULL);
  open_store();
  bool done = false;
  CHECK_INT(begin("k", "a").state, IDEM_NEW);
  CHECK_INT(begin("k", "a").state, IDEM_IN_FLIGHT);
  CHECK_INT(begin("k", "b").state, IDEM_MISMATCH);
  idem_finish(store, 1, "k", 200, "{\"x\":1}", 7, on_finished_idem, &done);
  loop_run(loop);
  CHECK(done);
  struct seen s = begin("k", "a");
  CHECK_INT(s.state, IDEM_REPLAY);
  CHECK_INT(s.status, 200);
  CHECK_STR(s.body, "{\"x\":1}");
  CHECK_INT(begin("k", "b").state, IDEM_MISMATCH);
  CHECK_INT(begin("other", "a").state, IDEM_NEW);
  idem_forget(store, 1, "other", NULL, NULL);
  CHECK_INT(begin("other", "a").state, IDEM_NEW);
  /* A start keeps what was answered, and forgets what was not. */
  close_store();
  open_store();
  struct err e = {0};
  CHECK_INT(idem_recover(store, &e), 0);
  CHECK_INT(begin("k", "a").state, IDEM_REPLAY);
  CHECK_INT(begin("other", "a").state, IDEM_NEW);
  /* After a day the key is new. */
  CHECK_INT(db_run(store_db(store), &e, "UPDATE answers SET time_s = time_s - ?", "i",
                   (int64_t)IDEM_KEEP_S + 1),
            0);
  CHECK_INT(begin("k", "other request").state, IDEM_NEW);
  CHECK_INT(begin("", "a").state, -1);
  char long_key[300];
  memset(long_key, 'k', sizeof long_key - 1);
  long_key[sizeof long_key - 1] = '\0';
  CHECK_INT(begin(long_key, "a").state, -1);
  close_store();
  loop_free(loop);
  remove_state_dir();
}

const struct test_case test_cases[] = {
    {"jobs", jobs},
    {"one server", one_server},
    {"versions", versions},
    {"disk full", disk_full},
    {"disk read-only", disk_read_only},
    {"answers again", answers_again},
    {NULL, NULL},
};
