/* regolith image pull: fetches an image into the store, with progress. */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/val.h"
#include "cli/cli.h"
#include "cli/cmd_image.h"
#include "cli/image_progress.h"
#include "core/loop.h"
#include "image/part.h"
#include "image/settings.h"
#include "image/store.h"

struct pull_options {
  bool plain_http, quiet, json, progress;
  const char *platform;
};

static const struct cli_option pull_table[] = {
    {"plain-http", 0, CLI_FLAG, offsetof(struct pull_options, plain_http), NULL,
     "Talk to the registry without TLS"},
    {"platform", 0, CLI_STR, offsetof(struct pull_options, platform), "OS/ARCH",
     "Take the image for another machine, as in linux/arm64"},
    {"quiet", 'q', CLI_FLAG, offsetof(struct pull_options, quiet), NULL, "Show no progress"},
    {"json", 0, CLI_FLAG, offsetof(struct pull_options, json), NULL,
     "Print the result or the error as a JSON object"},
    {"progress-json", 0, CLI_FLAG, offsetof(struct pull_options, progress), NULL,
     "Print progress as JSON objects on standard output"},
    {0},
};

struct pulling {
  struct loop *loop;
  struct progress_view *view;
  struct image_store *store;
  struct image_settings settings;
  const struct image_part *part;
  struct image_pull *pull; /* NULL once done */
  uv_signal_t stops[2];    /* SIGINT, SIGTERM */
  char digest[IMAGE_DIGEST_SIZE];
  struct err err;
};

static void on_stop(uv_signal_t *signal, int number)
{
  (void)number;
  struct pulling *p = signal->data;
  if (p->pull) p->part->pull_cancel(p->pull);
}

static void on_progress(void *data, const struct image_progress *progress)
{
  struct pulling *p = data;
  progress_view_add(p->view, progress);
}

static void on_pulled(void *data, const char *digest, const struct err *err)
{
  struct pulling *p = data;
  p->pull = NULL;
  if (digest) snprintf(p->digest, sizeof p->digest, "%s", digest);
  if (err) p->err = *err;
  for (size_t i = 0; i < 2; i++) uv_close((uv_handle_t *)&p->stops[i], NULL);
}

static void watch_signals(struct pulling *p)
{
  static const int numbers[] = {SIGINT, SIGTERM};
  for (size_t i = 0; i < 2; i++) {
    uv_signal_init(loop_uv(p->loop), &p->stops[i]);
    p->stops[i].data = p;
    uv_signal_start(&p->stops[i], on_stop, numbers[i]);
  }
}

static int pull(struct pulling *p, const struct pull_options *o, const char *name, struct err *err)
{
  const struct part_head *head;
  int rc = image_settings_load(&p->settings, err);
  if (rc == 0) rc = image_open(&p->store, true, err);
  if (rc == 0) rc = image_store_tidy(p->store, err);
  if (rc == 0) rc = part_open("image", sizeof *p->part, &head, err);
  if (rc == 0) rc = loop_new(&p->loop, err);
  if (rc < 0) return rc;
  p->part = (const struct image_part *)head;
  p->view = progress_view_new(o->quiet      ? PROGRESS_NONE
                              : o->progress ? PROGRESS_JSON
                                            : PROGRESS_AUTO);
  struct image_pull_conf conf = {.loop = p->loop,
                                 .store = p->store,
                                 .settings = &p->settings,
                                 .name = name,
                                 .platform = o->platform,
                                 .plain_http = o->plain_http,
                                 .on_progress = on_progress,
                                 .on_done = on_pulled,
                                 .data = p};
  rc = p->part->pull(&p->pull, &conf, err);
  if (rc == 0) {
    watch_signals(p);
    loop_run(p->loop);
    *err = p->err;
    rc = err_errno(&p->err);
  }
  progress_view_end(p->view);
  return rc;
}

static void print_json(struct val v)
{
  struct buf line = {0};
  json_print(&line, &v);
  puts(line.data);
  fflush(stdout);
  buf_free(&line);
  val_free(&v);
}

static void print_result(const struct pull_options *o, const char *name, const char *digest)
{
  if (!o->json) {
    puts(digest);
    return;
  }
  struct val v = val_map();
  val_add(&v, "event", val_str("pulled"));
  val_add(&v, "image", val_str(name));
  val_add(&v, "digest", val_str(digest));
  print_json(v);
}

static int fail(const struct pull_options *o, struct err *err)
{
  if (!o->json) return image_fail(err);
  image_err_plain(err);
  struct val v = val_map(), e = val_map();
  val_add(&e, "code", val_str(err_info(err->kind)->code));
  val_add(&e, "message", val_str(err->msg));
  if (err->hint[0]) val_add(&e, "hint", val_str(err->hint));
  val_add(&v, "event", val_str("error"));
  val_add(&v, "error", e);
  print_json(v);
  return err_info(err->kind)->cli_exit;
}

static int run(int argc, char **argv)
{
  struct pull_options o = {0};
  struct err err = {0};
  int first, dashes, rc = cli_parse(&cmd_image_pull, argc, argv, &o, &first, &dashes);
  if (rc != CLI_GO_ON) return rc;
  if (argc - first != 1) {
    err_arg(&err, "", "image pull takes one operand: the image's name, as in python:3.11");
    return cli_usage_err(&cmd_image_pull, &err);
  }
  struct pulling p = {0};
  rc = pull(&p, &o, argv[first], &err);
  if (rc < 0 && err.kind == ERR_ENGINE_UNAVAILABLE && err.sys_errno == EHOSTUNREACH)
    err_hint(&err, "without network, bring the image: regolith image import docker-archive:FILE %s",
             argv[first]);
  /* The limit of the settings holds after every pull. */
  if (rc == 0 && p.settings.max_bytes)
    rc = image_store_gc(p.store, p.settings.max_bytes, NULL, &err);
  if (rc == 0) print_result(&o, argv[first], p.digest);
  loop_free(p.loop);
  image_store_close(p.store);
  image_settings_free(&p.settings);
  return rc == 0 ? CLI_EXIT_OK : fail(&o, &err);
}

const struct cli_command cmd_image_pull = {
    .name = "image pull",
    .summary = "Fetch an image from a registry",
    .usage = "NAME",
    .options = pull_table,
    .details = "NAME is [REGISTRY/]PATH[:TAG][@DIGEST]: python:3.11 is on Docker Hub.\n"
               "Logins are read from where docker login and podman login leave them.\n",
    .run = run,
};
