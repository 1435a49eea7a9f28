/* regolith serve: the Compute API over HTTP, on this machine's sandboxes.
 *
 * Brings together what serves: the engine, the supervisor, the books (store and ledger) and the
 * API. It takes SIGTERM or SIGINT as the wish to end: no further request is taken, what was asked
 * is answered for up to --drain, then sandboxes are ended and the books closed; a second signal
 * skips the wait. SIGHUP reads the certificate anew and opens the access log again.
 *
 * opening → serving → draining (the API) → ending (sandboxes, then the books) → ended */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#include "api/policy.h"
#include "api/server.h"
#include "base/buf.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/session.h"
#include "core/loop.h"
#include "core/op.h"
#include "db/store.h"
#include "engine/engine.h"
#include "ledger/ledger.h"
#include "sandbox/supervisor.h"
#include "wire/codec.h"
#include "wire/op.h"

enum {
  DRAIN_MS = 30 * 1000,
  SHUTDOWN_MS = 30 * 1000,
  SIGNALS = 3,
  FDS_OWN = 64,        /* descriptors that are no connection's and no sandbox's */
  FDS_PER_SANDBOX = 4, /* its socket, and pipes while commands run */
  OUTPUT_BYTES = 1 << 30
};

struct serve_options {
  struct cli_list listen, volumes;
  const char *state, *engine, *image, *network, *tls_cert, *tls_key, *access_log;
  uint64_t retain_ms, drain_ms, pull_wait_ms;
  uint32_t max_sandboxes, max_connections;
  uint64_t output_bytes;
  bool host_image, quiet;
};

#define AT(member) offsetof(struct serve_options, member)
static const struct cli_option options[] = {
    {"listen", 'l', CLI_LIST, AT(listen), "HOST:PORT",
     "Where to serve; may be repeated (default: 127.0.0.1:8080)"},
    {"state", 's', CLI_STR, AT(state), "DIR",
     "Where keys, credit and answers are kept (default: /var/lib/regolith/serve for root, else "
     "~/.local/state/regolith/serve)"},
    {"engine", 0, CLI_STR, AT(engine), "NAME", "What makes the sandboxes (default: local)"},
    {"default-image", 0, CLI_STR, AT(image), "IMAGE",
     "The image of a create that names none (default: python:3.11)"},
    {"default-network", 0, CLI_STR, AT(network), "none|open",
     "The network of a create that names none (default: open)"},
    {"allow-host-image", 0, CLI_FLAG, AT(host_image), NULL,
     "Clients may ask for the image \"host\": this machine's /usr, read-only"},
    {"pull-wait", 0, CLI_DURATION, AT(pull_wait_ms), "TIME",
     "How long a create waits for its image; the pull itself goes on (default: 55s)"},
    {"volume", 0, CLI_LIST, AT(volumes), "NAME=DIR[:ro]",
     "A directory that clients may mount under this name; may be repeated"},
    {"max-sandboxes", 0, CLI_UINT, AT(max_sandboxes), "N",
     "Sandboxes alive at once, of all clients together (default: as many as fit)"},
    {"max-connections", 0, CLI_UINT, AT(max_connections), "N",
     "Connections at once; the longest idle one makes room (default: as many as fit)"},
    {"output-memory", 0, CLI_SIZE, AT(output_bytes), "SIZE",
     "For the output of running commands, a quarter for each key; beyond it output is truncated "
     "(default: 1GiB, a quarter of the machine's memory at most)"},
    {"retain", 0, CLI_DURATION, AT(retain_ms), "TIME",
     "How long the ids of ended sandboxes still answer (default: 24h)"},
    {"tls-cert", 0, CLI_STR, AT(tls_cert), "FILE", "Serve HTTPS with this certificate chain (PEM)"},
    {"tls-key", 0, CLI_STR, AT(tls_key), "FILE", "The certificate's private key (PEM)"},
    {"access-log", 0, CLI_STR, AT(access_log), "FILE",
     "Append one line of JSON per request; - is standard error"},
    {"drain", 0, CLI_DURATION, AT(drain_ms), "TIME",
     "How long requests may still run after SIGTERM (default: 30s)"},
    {"quiet", 'q', CLI_FLAG, AT(quiet), NULL, "Only errors on stderr"},
    {0},
};
#undef AT

struct serve {
  struct serve_options opt;
  struct strv volumes; /* NAME=DIR[:ro] */
  struct policy policy;
  struct loop *loop;
  struct ops *ops;
  struct supervisor *sup;
  struct store *store;
  struct ledger *ledger;
  struct api *api;
  struct api_conf api_conf;
  int access_fd; /* -1 = none */
  uv_signal_t signals[SIGNALS];
  size_t signals_n;
  struct timer drain;
  enum { OPENING, SERVING, DRAINING, ENDING } state;
  int status;
};

/* ---- what is there to serve with ---- */

/* Descriptors bound both connections and sandboxes: as many as this process may have. */
static size_t raise_descriptors(void)
{
  struct rlimit r;
  if (getrlimit(RLIMIT_NOFILE, &r) < 0) return 1024;
  r.rlim_cur = r.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &r) < 0) getrlimit(RLIMIT_NOFILE, &r);
  return r.rlim_cur > 1 << 20 ? 1 << 20 : r.rlim_cur;
}

static void share_descriptors(struct serve *s)
{
  size_t all = raise_descriptors() - FDS_OWN;
  if (!s->opt.max_connections) s->opt.max_connections = (uint32_t)(all * 2 / 3);
  size_t left = all > s->opt.max_connections ? all - s->opt.max_connections : FDS_PER_SANDBOX;
  if (!s->opt.max_sandboxes) s->opt.max_sandboxes = (uint32_t)(left / FDS_PER_SANDBOX);
}

static void know_machine(struct policy *p)
{
  struct sysinfo info;
  long cpus = sysconf(_SC_NPROCESSORS_ONLN);
  p->machine_cpu_milli = cpus > 0 ? (uint32_t)cpus * 1000 : 0;
  if (sysinfo(&info) == 0)
    p->machine_mem_mib = (uint32_t)((uint64_t)info.totalram * info.mem_unit >> 20);
}

static void share_memory(struct serve *s)
{
  uint64_t quarter = (uint64_t)s->policy.machine_mem_mib << 18;
  s->opt.output_bytes = quarter && quarter < OUTPUT_BYTES ? quarter : OUTPUT_BYTES;
}

static int check_options(struct serve *s, struct err *err)
{
  if (!s->opt.tls_cert != !s->opt.tls_key)
    return err_arg(err, "--tls-cert", "--tls-cert and --tls-key go together");
  if (s->opt.network && strcmp(s->opt.network, "none") != 0 && strcmp(s->opt.network, "open") != 0)
    return err_arg(err, "--default-network", "--default-network is none or open, not \"%s\"",
                   s->opt.network);
  for (size_t i = 0; i < s->opt.volumes.n; i++) {
    int rc = policy_check_volume(s->opt.volumes.v[i], err);
    if (rc < 0) return rc;
    strv_add(&s->volumes, s->opt.volumes.v[i]);
  }
  if (!s->opt.image) s->opt.image = "python:3.11";
  if (!s->opt.network) s->opt.network = "open";
  if (!s->opt.engine) s->opt.engine = "local";
  if (!s->opt.drain_ms) s->opt.drain_ms = DRAIN_MS;
  s->policy.volumes = &s->volumes;
  s->policy.host_image = s->opt.host_image || strcmp(s->opt.image, "host") == 0;
  know_machine(&s->policy);
  if (!s->opt.output_bytes) share_memory(s);
  return 0;
}

static int open_access_log(struct serve *s, struct err *err)
{
  const char *path = s->opt.access_log;
  if (!path) return 0;
  int fd = strcmp(path, "-") == 0 ? fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3)
                                  : open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
  if (fd < 0)
    return err_set(err, ERR_INVALID_ARGUMENT, errno, "cannot open the access log %s: %s", path,
                   strerror(errno));
  if (s->access_fd >= 0) close(s->access_fd);
  s->access_fd = fd;
  return 0;
}

/* ---- keys ---- */

static uint64_t on_owner_new(void *data, const struct ledger_account *account)
{
  struct serve *s = data;
  return supervisor_owner_new(s->sup, &(struct owner_conf){.name = account->name,
                                                           .max_sandboxes = account->max_sandboxes,
                                                           .admit = policy_admit,
                                                           .admit_name = policy_admit_name,
                                                           .admit_data = &s->policy});
}

static int64_t price_extend(void *data, uint64_t owner, const char *sandbox_id, uint32_t seconds)
{
  struct serve *s = data;
  return supervisor_price_extend(s->sup, owner, sandbox_id, seconds);
}

static void on_owner_gone(void *data)
{
  (void)data;
}

static void on_revoked(void *data, uint64_t owner)
{
  struct serve *s = data;
  if (s->state < ENDING) supervisor_owner_end(s->sup, owner, on_owner_gone, NULL);
}

/* ---- the journal ---- */

static void on_record(void *data, uint64_t owner, const struct val *record)
{
  struct serve *s = data;
  if (s->ledger) ledger_record(s->ledger, owner, record);
}

static void on_forget(void *data, uint64_t owner, const char *sandbox_id)
{
  struct serve *s = data;
  if (s->ledger) ledger_forget(s->ledger, owner, sandbox_id);
}

static int on_restore(void *data, uint64_t owner, const struct val *record, struct err *err)
{
  struct serve *s = data;
  return supervisor_restore(s->sup, owner, record, err);
}

/* Somebody has to be able to ask: without a key nobody is. */
static void count_key(void *data, const struct key_info *key)
{
  size_t *n = data;
  if (!key->revoked_s) ++*n;
}

static void tell_of_keys(struct serve *s)
{
  size_t n = 0;
  struct err err = {0};
  if (key_list(s->store, count_key, &n, &err) < 0 || n > 0 || s->opt.quiet) return;
  fprintf(stderr,
          "regolith: there is no key yet; one is made, also while this runs, by\n"
          "  regolith key add NAME --credit 5.00 --state %s\n",
          store_dir(s->store));
}

/* ---- the end ---- */

static void on_loop_end(void *data)
{
  loop_stop(((struct serve *)data)->loop);
}

static void on_ledger_closed(void *data)
{
  struct serve *s = data;
  s->ledger = NULL;
  if (s->store)
    store_close(s->store, on_loop_end, s);
  else
    loop_stop(s->loop);
  s->store = NULL;
}

static void on_shut_down(void *data, const struct err *err)
{
  struct serve *s = data;
  if (err) {
    cli_print_err(err);
    s->status = CLI_EXIT_FAILED;
  }
  if (s->ledger)
    ledger_close(s->ledger, on_ledger_closed, s);
  else
    on_ledger_closed(s);
}

static void on_api_closed(void *data)
{
  struct serve *s = data;
  s->api = NULL;
  if (s->sup)
    supervisor_shutdown(s->sup, SHUTDOWN_MS, on_shut_down, s);
  else
    on_shut_down(s, NULL);
}

static void end(struct serve *s)
{
  if (s->state == ENDING) return;
  s->state = ENDING;
  timer_stop(s->loop, &s->drain);
  for (size_t i = 0; i < s->signals_n; i++) uv_close((uv_handle_t *)&s->signals[i], NULL);
  s->signals_n = 0;
  if (s->api)
    api_close(s->api, on_api_closed, s);
  else
    on_api_closed(s);
}

static void on_drained(void *data)
{
  end(data);
}

static void on_drain_late(struct timer *t)
{
  struct serve *s = t->data;
  log_warn("requests were still running after %llu s and are cut",
           (unsigned long long)s->opt.drain_ms / 1000);
  end(s);
}

static void drain(struct serve *s)
{
  s->state = DRAINING;
  timer_start(s->loop, &s->drain, s->opt.drain_ms);
  api_drain(s->api, on_drained, s);
}

static void reload(struct serve *s)
{
  struct err err = {0};
  if (open_access_log(s, &err) < 0 || api_reload(s->api, &err) < 0)
    log_error("reloading: %s", err.msg);
  api_set_access_log(s->api, s->access_fd);
}

static void on_signal(uv_signal_t *handle, int signal)
{
  struct serve *s = handle->data;
  if (signal == SIGHUP)
    reload(s);
  else if (s->state == SERVING)
    drain(s);
  else
    end(s);
}

static void open_signals(struct serve *s)
{
  static const int numbers[SIGNALS] = {SIGINT, SIGTERM, SIGHUP};
  for (; s->signals_n < SIGNALS; s->signals_n++) {
    uv_signal_t *handle = &s->signals[s->signals_n];
    uv_signal_init(loop_uv(s->loop), handle);
    handle->data = s;
    uv_signal_start(handle, on_signal, numbers[s->signals_n]);
  }
}

/* ---- the beginning ---- */

static int on_ready(void *data, struct err *err)
{
  struct serve *s = data;
  const struct err *trouble = store_trouble(s->store);
  if (s->state != SERVING)
    return err_set(err, ERR_ENGINE_UNAVAILABLE, 0, "this server is shutting down");
  if (!trouble) return 0;
  return err_set(err, ERR_ENGINE_UNAVAILABLE, 0, "the books cannot be written: %.300s",
                 trouble->msg);
}

static void on_metrics(void *data, struct buf *out)
{
  struct serve *s = data;
  struct ledger_stats n;
  ledger_stats(s->ledger, &n);
  buf_printf(out,
             "# HELP regolith_charged_usd_total Charged to all keys.\n"
             "# TYPE regolith_charged_usd_total counter\n"
             "regolith_charged_usd_total %.6f\n"
             "# HELP regolith_held_usd Held for what is in flight.\n"
             "# TYPE regolith_held_usd gauge\n"
             "regolith_held_usd %.6f\n"
             "# HELP regolith_charges_total Entries written to the books.\n"
             "# TYPE regolith_charges_total counter\n"
             "regolith_charges_total %llu\n"
             "# HELP regolith_refusals_total Requests refused for lack of credit.\n"
             "# TYPE regolith_refusals_total counter\n"
             "regolith_refusals_total %llu\n"
             "# HELP regolith_failed_writes_total Writes to the books that failed.\n"
             "# TYPE regolith_failed_writes_total counter\n"
             "regolith_failed_writes_total %llu\n",
             (double)n.charged_microusd / 1e6, (double)n.held_microusd / 1e6,
             (unsigned long long)n.charges, (unsigned long long)n.refusals,
             (unsigned long long)n.failed_writes);
}

static int open_sandboxes(struct serve *s, struct err *err)
{
  struct engine *engine;
  s->ops = ops_new(s->loop);
#ifdef REGOLITH_DEBUG
  ops_set_check(s->ops, codec_check);
#endif
  s->sup = supervisor_new(&(struct supervisor_conf){.loop = s->loop,
                                                    .ops = s->ops,
                                                    .default_engine = s->opt.engine,
                                                    .default_image = s->opt.image,
                                                    .default_network = s->opt.network,
                                                    .max_sandboxes = s->opt.max_sandboxes,
                                                    .output_max = s->opt.output_bytes,
                                                    .retain_ms = s->opt.retain_ms,
                                                    .record = on_record,
                                                    .forget = on_forget,
                                                    .journal_data = s});
  bool priced;
  int rc = session_open_engine(&engine, s->opt.engine, NULL, s->loop, true, &priced, err);
  if (rc < 0) return rc;
  supervisor_add_engine(s->sup, engine);
  supervisor_set_priced(s->sup, s->opt.engine, true);
  return 0;
}

static int open_books(struct serve *s, struct err *err)
{
  int rc = store_open(
      &s->store, &(struct store_conf){.dir = s->opt.state, .loop = s->loop, .server = true}, err);
  if (rc < 0) return rc;
  rc = ledger_open(
      &s->ledger,
      &(struct ledger_conf){
          .loop = s->loop,
          .ops = s->ops,
          .store = s->store,
          .defaults = &(struct create_defaults){s->opt.engine, s->opt.image, s->opt.network},
          .owner_new = on_owner_new,
          .price_extend = price_extend,
          .on_revoked = on_revoked,
          .data = s},
      err);
  return rc < 0 ? rc : ledger_restore(s->ledger, on_restore, s, err);
}

static void print_address(const char *address, unsigned port, bool tls)
{
  int host = (int)(strrchr(address, ':') - address);
  printf("regolith serves http%s://%.*s:%u\n", tls ? "s" : "", host ? host : 7,
         host ? address : "0.0.0.0", port);
}

static int open_api(struct serve *s, struct err *err)
{
  static const char *const usual[] = {"127.0.0.1:8080"};
  const char *const *addresses = s->opt.listen.n ? s->opt.listen.v : usual;
  size_t n = s->opt.listen.n ? s->opt.listen.n : 1;
  unsigned ports[16];
  if (n > sizeof ports / sizeof *ports)
    return err_arg(err, "--listen", "--listen may be given 16 times");
  int rc = api_new(&s->api,
                   &(struct api_conf){.loop = s->loop,
                                      .ops = s->ops,
                                      .sup = s->sup,
                                      .ledger = s->ledger,
                                      .store = s->store,
                                      .tls_cert = s->opt.tls_cert,
                                      .tls_key = s->opt.tls_key,
                                      .max_connections = s->opt.max_connections,
                                      .create_ms = s->opt.pull_wait_ms,
                                      .access_log = s->access_fd,
                                      .metrics = on_metrics,
                                      .ready = on_ready,
                                      .data = s},
                   err);
  for (size_t i = 0; i < n && rc == 0; i++) rc = api_listen(s->api, addresses[i], &ports[i], err);
  if (rc < 0) return rc;
  for (size_t i = 0; i < n && !s->opt.quiet; i++)
    print_address(addresses[i], ports[i], s->opt.tls_cert);
  fflush(stdout);
  return 0;
}

/* Whoever started us may wait for this (systemd's Type=notify). */
static void notify_ready(void)
{
  const char *path = getenv("NOTIFY_SOCKET");
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  if (!path || !*path || strlen(path) >= sizeof a.sun_path) return;
  strcpy(a.sun_path, path);
  socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
  if (a.sun_path[0] == '@') a.sun_path[0] = '\0';
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  static const char ready[] = "READY=1";
  if (sendto(fd, ready, sizeof ready - 1, MSG_NOSIGNAL, (struct sockaddr *)&a, len) < 0)
    log_warn("cannot tell the service manager that all is ready: %s", strerror(errno));
  close(fd);
}

static int open_all(struct serve *s, struct err *err)
{
  share_descriptors(s);
  int rc = open_access_log(s, err);
  if (rc == 0) rc = open_sandboxes(s, err);
  if (rc == 0) rc = open_books(s, err);
  if (rc == 0) rc = open_api(s, err);
  if (rc == 0) tell_of_keys(s);
  return rc;
}

static void close_all(struct serve *s)
{
  if (s->sup) supervisor_free(s->sup);
  if (s->ops) ops_free(s->ops);
  loop_free(s->loop);
  if (s->access_fd >= 0) close(s->access_fd);
}

static int serve(struct serve *s)
{
  struct err err = {0};
  if (loop_new(&s->loop, &err) < 0) {
    cli_print_err(&err);
    return CLI_EXIT_FAILED;
  }
  s->drain = (struct timer){.cb = on_drain_late, .data = s};
  if (open_all(s, &err) < 0) {
    cli_print_err(&err);
    s->status = err.kind == ERR_INVALID_ARGUMENT     ? CLI_EXIT_USAGE
                : err.kind == ERR_ENGINE_UNAVAILABLE ? CLI_EXIT_NO_SANDBOXES
                                                     : CLI_EXIT_FAILED;
    end(s);
  } else {
    s->state = SERVING;
    open_signals(s);
    notify_ready();
  }
  loop_run(s->loop);
  close_all(s);
  return s->status;
}

static int run(int argc, char **argv)
{
  struct serve s = {.access_fd = -1};
  struct err err = {0};
  int first, dashes, status = cli_parse(&cmd_serve, argc, argv, &s.opt, &first, &dashes);
  if (status == CLI_GO_ON && first < argc) {
    err_arg(&err, "", "regolith serve takes no operands");
    status = cli_usage_err(&cmd_serve, &err);
  } else if (status == CLI_GO_ON && check_options(&s, &err) < 0) {
    status = cli_usage_err(&cmd_serve, &err);
  }
  if (status == CLI_GO_ON) status = serve(&s);
  strv_free(&s.volumes);
  cli_list_free(&s.opt.listen);
  cli_list_free(&s.opt.volumes);
  return status;
}

const struct cli_command cmd_serve = {
    .name = "serve",
    .summary = "Serve sandboxes to others over HTTP: the Compute API",
    .usage = "",
    .details =
        "Clients need a key: regolith key add NAME --credit 5.00. GET /openapi.json says what is "
        "served.\n"
        "SIGTERM ends it gracefully, SIGHUP reads the certificate and opens the access log "
        "anew.\n",
    .options = options,
    .flags = CLI_MAKES_SANDBOXES,
    .run = run,
};
