/* api/policy: what tenants may ask of the machine, and what they get where they do not say.
 * valgrind: yes */
#include "test.h"

#include "api/policy.h"
#include "base/buf.h"
#include "base/json.h"
#include "base/val.h"
#include "wire/op.h"

static struct strv volumes;

/* The error's kind, ERR_NONE = admitted; args is the caller's to free then. */
static enum err_kind admit(const char *asked, struct policy *p, struct create_args *args,
                           struct err *err)
{
  struct val v;
  *err = (struct err){0};
  CHECK_INT(json_parse(&v, asked, strlen(asked), err), 0);
  if (create_args_parse(&v, &(struct create_defaults){"local", "python:3.11", "none"}, args, err) ==
      0)
    policy_admit(p, &v, args, err);
  val_free(&v);
  return err->kind;
}

static void refuses(void)
{
  static const struct {
    const char *asked;
    bool host;
    enum err_kind want;
    const char *field;
  } rows[] = {
      {"{}", false, ERR_NONE, ""},
      {"{\"image\":\"reg.test/a:1\"}", false, ERR_NONE, ""},
      {"{\"image\":\"host\"}", true, ERR_NONE, ""},
      {"{\"image\":\"host\"}", false, ERR_DENIED, "image"},
      {"{\"image\":\"dir:/\"}", true, ERR_DENIED, "image"},
      {"{\"image\":\"sha256:"
       "0000000000000000000000000000000000000000000000000000000000000000\"}",
       true, ERR_IMAGE_NOT_FOUND, ""},
      {"{\"cpu\":1.125}", false, ERR_INVALID_ARGUMENT, "cpu"},
      {"{\"memory\":1025}", false, ERR_INVALID_ARGUMENT, "memory"},
      {"{\"gpu\":\"T4\",\"cpu\":8}", false, ERR_CAPACITY, "cpu"},
      {"{\"gpu\":\"T4\",\"cpu\":9}", false, ERR_INVALID_ARGUMENT, "cpu"},
      {"{\"gpu\":\"T4:2\",\"cpu\":3.5}", false, ERR_NONE, ""},
      {"{\"gpu\":\"T4\",\"memory\":5000}", false, ERR_CAPACITY, "memory"},
      {"{\"volumes\":[{\"source\":\"data\",\"target\":\"/d\"}]}", false, ERR_NONE, ""},
      {"{\"volumes\":[{\"source\":\"dat\",\"target\":\"/d\"}]}", false, ERR_DENIED, "volumes"},
      {"{\"volumes\":[{\"source\":\"da\",\"target\":\"/d\"}]}", false, ERR_DENIED, "volumes"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct policy p = {.volumes = &volumes,
                       .host_image = rows[i].host,
                       .machine_cpu_milli = 4000,
                       .machine_mem_mib = 4096};
    struct create_args args;
    struct err err;
    enum err_kind got = admit(rows[i].asked, &p, &args, &err);
    if (got != rows[i].want) fprintf(stderr, "%s: %s\n", rows[i].asked, err.msg);
    CHECK_INT(got, rows[i].want);
    CHECK_STR(err.field, rows[i].field);
    create_args_free(&args);
  }
}

static void fills_in(void)
{
  static const struct {
    const char *asked;
    uint32_t machine_cpu, machine_mem, cpu, mem;
  } rows[] = {
      {"{}", 4000, 4096, 1000, 1024},
      {"{}", 500, 512, 500, 512},
      {"{}", 0, 0, 1000, 1024},
      {"{\"cpu\":0.25,\"memory\":128}", 4000, 4096, 250, 128},
      {"{\"gpu\":\"A100:2\"}", 4000, 4096, 4000, 4096},
      {"{\"gpu\":\"A100:2\"}", 0, 0, 16000, 65536},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct policy p = {.machine_cpu_milli = rows[i].machine_cpu,
                       .machine_mem_mib = rows[i].machine_mem};
    struct create_args args;
    struct err err;
    CHECK_INT(admit(rows[i].asked, &p, &args, &err), ERR_NONE);
    CHECK_INT(args.cpu_milli, rows[i].cpu);
    CHECK_INT(args.mem_mib, rows[i].mem);
    create_args_free(&args);
  }
}

/* The name stands for the directory; what may only be read stays so. */
static void volumes_have_paths(void)
{
  struct policy p = {.volumes = &volumes};
  struct create_args args;
  struct err err;
  CHECK_INT(admit("{\"volumes\":[{\"source\":\"data\",\"target\":\"/d\"},"
                  "{\"source\":\"ref\",\"target\":\"/r\"},"
                  "{\"source\":\"data\",\"target\":\"/e\",\"readonly\":true}]}",
                  &p, &args, &err),
            ERR_NONE);
  CHECK_STR(args.volumes[0].path, "/srv/data");
  CHECK(!args.volumes[0].readonly);
  CHECK_STR(args.volumes[1].path, "/srv/ref");
  CHECK(args.volumes[1].readonly && args.volumes[2].readonly);
  /* The path is shown to nobody. */
  struct val config = create_args_config(&args);
  struct buf text = {0};
  json_print(&text, &config);
  CHECK(!strstr(text.data, "/srv/"));
  buf_free(&text);
  val_free(&config);
  create_args_free(&args);
}

static void entries(void)
{
  struct err err = {0};
  CHECK_INT(policy_check_volume("a=/b", &err), 0);
  CHECK_INT(policy_check_volume("a=/b:ro", &err), 0);
  static const char *const bad[] = {"a", "a=", "a=b", "=/b", "", "/b"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    CHECK(policy_check_volume(bad[i], &err) < 0);
  CHECK(policy_admit_name(NULL, "python:3.11", &err) < 0);
  CHECK_INT(err.kind, ERR_DENIED);
}

static void own_images(void)
{
  struct val asked = val_map();
  struct create_args args = {.engine = xstrdup("local"),
                             .image = xstrdup("sha256:00"),
                             .image_made = true,
                             .cpu_milli = 1000,
                             .mem_mib = 1024};
  struct err err = {0};
  CHECK_INT(policy_admit(&(struct policy){0}, &asked, &args, &err), 0);
  create_args_free(&args);
}

static void all(void)
{
  strv_add(&volumes, "data=/srv/data");
  strv_add(&volumes, "ref=/srv/ref:ro");
  refuses();
  fills_in();
  volumes_have_paths();
  strv_free(&volumes);
}

const struct test_case test_cases[] = {
    {"what is asked", all},
    {"entries", entries},
    {"own images", own_images},
    {NULL, NULL},
};
