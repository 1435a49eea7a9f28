/* regolith image push: sends an image of the store to a registry. */
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "cli/cli.h"
#include "cli/cmd_image.h"
#include "core/loop.h"
#include "image/part.h"
#include "image/settings.h"
#include "image/store.h"

struct push_options {
  bool plain_http, quiet;
};

static const struct cli_option push_table[] = {
    {"plain-http", 0, CLI_FLAG, offsetof(struct push_options, plain_http), NULL,
     "Talk to the registry without TLS"},
    {"quiet", 'q', CLI_FLAG, offsetof(struct push_options, quiet), NULL, "Show no progress"},
    {0},
};

struct pushing {
  struct loop *loop;
  struct image_store *store;
  struct image_settings settings;
  struct image_record record;
  struct image_lease *lease;
  const struct image_part *part;
  struct image_push *push; /* NULL once done */
  uv_signal_t stops[2];    /* SIGINT, SIGTERM */
  char digest[IMAGE_DIGEST_SIZE];
  struct err err;
};

static void on_stop(uv_signal_t *signal, int number)
{
  (void)number;
  struct pushing *p = signal->data;
  if (p->push) p->part->push_cancel(p->push);
}

static void say_blob(void *data, const struct image_progress *p)
{
  (void)data;
  fprintf(stderr, "%.12s: %s (%.1f MiB)\n", p->layer + 7, p->state, (double)p->bytes / 1048576.0);
}

static void on_pushed(void *data, const char *digest, const struct err *err)
{
  struct pushing *p = data;
  p->push = NULL;
  if (digest) snprintf(p->digest, sizeof p->digest, "%s", digest);
  if (err) p->err = *err;
  for (size_t i = 0; i < 2; i++) uv_close((uv_handle_t *)&p->stops[i], NULL);
}

static void watch_signals(struct pushing *p)
{
  static const int numbers[] = {SIGINT, SIGTERM};
  for (size_t i = 0; i < 2; i++) {
    uv_signal_init(loop_uv(p->loop), &p->stops[i]);
    p->stops[i].data = p;
    uv_signal_start(&p->stops[i], on_stop, numbers[i]);
  }
}

static int push(struct pushing *p, const struct push_options *o, const char *source,
                const char *target, struct err *err)
{
  const struct part_head *head;
  int rc = image_settings_load(&p->settings, err);
  if (rc == 0) rc = image_open(&p->store, true, err);
  if (rc == 0) rc = image_store_acquire(p->store, source, &p->record, &p->lease, err);
  if (rc == 0) rc = part_open("image", sizeof *p->part, &head, err);
  if (rc == 0) rc = loop_new(&p->loop, err);
  if (rc < 0) return rc;
  p->part = (const struct image_part *)head;
  struct image_push_conf conf = {.loop = p->loop,
                                 .store = p->store,
                                 .settings = &p->settings,
                                 .record = &p->record,
                                 .name = target,
                                 .plain_http = o->plain_http,
                                 .on_progress = o->quiet ? NULL : say_blob,
                                 .on_done = on_pushed,
                                 .data = p};
  rc = p->part->push(&p->push, &conf, err);
  if (rc < 0) return rc;
  watch_signals(p);
  loop_run(p->loop);
  *err = p->err;
  return err_errno(&p->err);
}

static int run(int argc, char **argv)
{
  struct push_options o = {0};
  struct err err = {0};
  int first, dashes, rc = cli_parse(&cmd_image_push, argc, argv, &o, &first, &dashes);
  if (rc != CLI_GO_ON) return rc;
  if (argc - first < 1 || argc - first > 2) {
    err_arg(&err, "", "image push takes an image and what it is to be called there");
    err_hint(&err, "as in: regolith image push mine/app:1 registry.example.org/team/app:1");
    return cli_usage_err(&cmd_image_push, &err);
  }
  struct pushing p = {0};
  rc = push(&p, &o, argv[first], argv[argc - 1], &err);
  if (rc == 0) puts(p.digest);
  loop_free(p.loop);
  image_lease_free(p.lease);
  image_record_free(&p.record);
  image_store_close(p.store);
  image_settings_free(&p.settings);
  return rc == 0 ? CLI_EXIT_OK : image_fail(&err);
}

const struct cli_command cmd_image_push = {
    .name = "image push",
    .summary = "Send an image to a registry",
    .usage = "NAME [TARGET]",
    .options = push_table,
    .details = "TARGET is the name it gets there, NAME where that says a registry already.\n"
               "Layers are packed anew, so it has another digest than where it came from.\n"
               "Logins are read from where docker login and podman login leave them.\n",
    .run = run,
};
