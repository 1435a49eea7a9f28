/* Images: references, configurations, manifests, settings, credentials: everything that is parsed.
 * valgrind: yes */
#include "test.h"

#include "base/buf.h"
#include "image/auth.h"
#include "image/config.h"
#include "image/manifest.h"
#include "image/ref.h"
#include "image/settings.h"

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void check_ref(const char *text, const char *want)
{
  struct image_ref ref;
  struct err err = {0};
  int rc = image_ref_parse(&ref, text, &err);
  if (!want) {
    CHECK(rc < 0);
    CHECK_STR(err.field, "image");
    if (rc == 0) fprintf(stderr, "accepted: %s\n", text), image_ref_free(&ref);
    return;
  }
  CHECK_INT(rc, 0);
  if (rc < 0) {
    fprintf(stderr, "%s: %s\n", text, err.msg);
    return;
  }
  struct buf out = {0};
  image_ref_print(&out, &ref);
  CHECK_STR(out.data, want);
  buf_free(&out);
  image_ref_free(&ref);
}

static void references_are_filled_in(void)
{
  check_ref("python", "docker.io/library/python:latest");
  check_ref("python:3.11", "docker.io/library/python:3.11");
  check_ref("org/app", "docker.io/org/app:latest");
  check_ref("docker.io/python", "docker.io/library/python:latest");
  check_ref("index.docker.io/org/app:1", "docker.io/org/app:1");
  check_ref("ghcr.io/org/app@sha256:" HEX64, "ghcr.io/org/app@sha256:" HEX64);
  check_ref("ghcr.io/org/app:2@sha256:" HEX64, "ghcr.io/org/app:2@sha256:" HEX64);
  check_ref("127.0.0.1:5000/library/python:3.11", "127.0.0.1:5000/library/python:3.11");
  check_ref("localhost/x", "localhost/x:latest");
  check_ref("localhost:5000/x", "localhost:5000/x:latest");
  check_ref("HOST/x", "HOST/x:latest");
  check_ref("[::1]:5000/x", "[::1]:5000/x:latest");
  check_ref("a__b/c--d/e.f:T_1-2.3", "docker.io/a__b/c--d/e.f:T_1-2.3");
}

static void bad_references_are_refused(void)
{
  static const char *const bad[] = {
      "",        ":",           "@",         "Python",  "a b",        "a//b",      "/a",
      "a/",      "a:",          "a:.x",      "a:-x",    "a@sha256:x", "a@md5:abc", "-a",
      "a-",      "a___b",       "a..b",      "a._b",    "a/../b",     "..",        "../x",
      "host:/x", "h.o:99999/x", "h.o:0/x",   "-h.o/x",  "h..o/x",     "h.o/X",     "a:b:c",
      "a\nb",    "a%2e",        "[::1/x",    "a@b@c",   "a:t/x:y/",   "\xff",      "h.o/",
      "a/.b",    "a/b.",        "h.o/a?x=1", "h.o/a#x", "u@h.o/a",    "a.-b",      "a_.b"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) check_ref(bad[i], NULL);
  char longest[400];
  memset(longest, 'a', sizeof longest);
  longest[399] = '\0';
  check_ref(longest, NULL);
  strcpy(longest, "a:");
  memset(longest + 2, 't', 129);
  longest[131] = '\0';
  check_ref(longest, NULL);
  longest[130] = '\0';
  struct image_ref ref;
  CHECK_INT(image_ref_parse(&ref, longest, NULL), 0);
  image_ref_free(&ref);
}

static void digests_are_strict(void)
{
  CHECK(image_digest_valid("sha256:" HEX64));
  CHECK(!image_digest_valid("sha256:" HEX64 "0"));
  CHECK(!image_digest_valid("sha256:0123"));
  CHECK(!image_digest_valid("sha512:" HEX64));
  CHECK(!image_digest_valid(NULL));
  char upper[] = "sha256:" HEX64;
  upper[20] = 'A';
  CHECK(!image_digest_valid(upper));
  const char *hex;
  CHECK(image_digest_prefix("0123ab", &hex));
  CHECK(!image_digest_prefix("0123a", &hex));
  CHECK(image_digest_prefix("sha256:0", &hex));
  CHECK(!image_digest_prefix("python", &hex));
}

static int parse_config(struct image_config *c, const char *text, struct err *err)
{
  return image_config_parse(c, text, strlen(text), err);
}

static void configurations_are_read(void)
{
  struct image_config c;
  struct err err = {0};
  CHECK_INT(
      parse_config(&c,
                   "{\"os\":\"linux\",\"architecture\":\"arm64\",\"variant\":\"v8\",\"config\":"
                   "{\"Env\":[\"A=1\",\"B=\",\"bad\",\"=x\"],\"Entrypoint\":[\"/a\"],\"Cmd\":"
                   "\"echo hi\",\"WorkingDir\":\"/w\",\"User\":\"1000:5\",\"StopSignal\":"
                   "\"SIGINT\",\"ExposedPorts\":{\"80/tcp\":{}},\"Labels\":{\"k\":\"v\"}},"
                   "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:" HEX64 "\"]}}",
                   &err),
      0);
  CHECK_STR(c.architecture, "arm64");
  CHECK_INT(c.env.n, 2);
  CHECK_STR(c.env.v[1], "B=");
  CHECK_STR(c.entrypoint.v[0], "/a");
  CHECK_INT(c.cmd.n, 3);
  CHECK_STR(c.cmd.v[2], "echo hi");
  CHECK_STR(c.user, "1000:5");
  CHECK_STR(c.ports.v[0], "80/tcp");
  CHECK_STR(c.labels.v[0], "k=v");
  CHECK_INT(c.diff_ids.n, 1);
  image_config_free(&c);
  CHECK_INT(parse_config(&c, "{\"config\":{\"Cmd\":null,\"User\":\"\"},\"rootfs\":{}}", &err), 0);
  CHECK(c.user == NULL);
  CHECK_INT(c.cmd.n, 0);
  image_config_free(&c);
}

static void bad_configurations_are_refused(void)
{
  static const char *const bad[] = {"",
                                    "[]",
                                    "null",
                                    "{}",
                                    "{\"rootfs\":1}",
                                    "{\"rootfs\":{\"diff_ids\":[\"sha256:1\"]}}",
                                    "{\"rootfs\":{},\"config\":[]}",
                                    "{\"rootfs\":{},\"rootfs\":{}}",
                                    "{\"rootfs\":{},\"variant\":\"v8\\u001b[2J\"}",
                                    "{\"rootfs\":{},\"os\":\"a23456789012345678901\"}",
                                    "{\"rootfs\":{},\"config\":{\"Cmd\":1}}",
                                    "{\"rootfs\":{},\"config\":{\"Cmd\":[1]}}",
                                    "{\"rootfs\":{},\"config\":{\"Env\":\"A=1\"}}",
                                    "{\"rootfs\":{},\"config\":{\"User\":0}}",
                                    "{\"rootfs\":{},\"config\":{\"Labels\":{\"a\":1}}}",
                                    "{\"rootfs\":{},\"config\":{\"ExposedPorts\":[\"80\"]}}",
                                    "{\"rootfs\":{}} trailing"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct image_config c;
    struct err err = {0};
    CHECK(parse_config(&c, bad[i], &err) < 0);
    CHECK(err.kind != ERR_NONE);
  }
}

#define DESC(type) "{\"mediaType\":\"" type "\",\"digest\":\"sha256:" HEX64 "\",\"size\":5}"
#define CONFIG     "\"config\":" DESC("application/vnd.oci.image.config.v1+json")

static int parse_manifest(struct image_manifest *m, const char *text, struct err *err)
{
  return image_manifest_parse(m, text, strlen(text), NULL, err);
}

/* What is small as text and large in memory. */
static void documents_of_too_many_values_are_refused(void)
{
  struct image_config c;
  struct image_manifest m;
  struct err err = {0};
  struct buf text = {0};
  buf_puts(&text, "{\"rootfs\":{},\"layers\":[],\"x\":[0");
  for (int i = 0; i < 200000; i++) buf_puts(&text, ",0");
  buf_puts(&text, "]}");
  CHECK(image_config_parse(&c, text.data, text.len, &err) < 0);
  CHECK_INT(err.kind, ERR_PAYLOAD_TOO_LARGE);
  CHECK(image_manifest_parse(&m, text.data, text.len, NULL, &err) < 0);
  CHECK_INT(err.kind, ERR_PAYLOAD_TOO_LARGE);
  buf_free(&text);
}

static void manifests_are_read(void)
{
  struct image_manifest m;
  struct err err = {0};
  CHECK_INT(parse_manifest(&m,
                           "{\"schemaVersion\":2," CONFIG
                           ",\"layers\":[" DESC("application/vnd.oci.image.layer.v1.tar+zstd") "]}",
                           &err),
            0);
  CHECK(!m.is_index);
  CHECK_INT(m.entries_n, 1);
  CHECK_INT(m.entries[0].size, 5);
  image_manifest_free(&m);
  CHECK_INT(parse_manifest(
                &m,
                "{\"schemaVersion\":2,\"manifests\":[{\"digest\":\"sha256:" HEX64 "\",\"size\":1,"
                "\"platform\":{\"os\":\"linux\",\"architecture\":\"arm\",\"variant\":\"v6\"}},"
                "{\"digest\":\"sha256:" HEX64 "\",\"size\":2,\"platform\":{\"os\":\"linux\","
                "\"architecture\":\"arm\",\"variant\":\"v7\"}}]}",
                &err),
            0);
  CHECK(m.is_index);
  const struct image_desc *d =
      image_manifest_select(&m, &(struct image_platform){"linux", "arm", "v7"});
  CHECK(d && d->size == 2);
  d = image_manifest_select(&m, &(struct image_platform){"linux", "arm", "v8"});
  CHECK(d && d->size == 1);
  CHECK(!image_manifest_select(&m, &(struct image_platform){"linux", "amd64", NULL}));
  image_manifest_free(&m);
}

static void bad_manifests_are_refused(void)
{
  static const struct {
    const char *text;
    enum err_kind kind;
  } bad[] = {
      {"{\"schemaVersion\":1}", ERR_UNSUPPORTED},
      {"{\"schemaVersion\":2}", ERR_INVALID_ARGUMENT},
      {"{\"schemaVersion\":2," CONFIG "}", ERR_INVALID_ARGUMENT},
      {"{\"schemaVersion\":2," CONFIG ",\"layers\":[],\"manifests\":[]}", ERR_INVALID_ARGUMENT},
      {"{\"schemaVersion\":2,\"config\":" DESC("application/x") ",\"layers\":[]}", ERR_UNSUPPORTED},
      {"{\"schemaVersion\":2," CONFIG ",\"layers\":[" DESC("application/x") "]}", ERR_UNSUPPORTED},
      {"{\"schemaVersion\":2," CONFIG
       ",\"layers\":[" DESC("application/vnd.oci.image.layer.v1.tar+gzip+encrypted") "]}",
       ERR_UNSUPPORTED},
      {"{\"schemaVersion\":2," CONFIG ",\"layers\":[{\"digest\":\"sha256:" HEX64
       "\",\"size\":-1}]}",
       ERR_INVALID_ARGUMENT},
      {"{\"schemaVersion\":2," CONFIG ",\"layers\":[{\"digest\":\"sha256:../../x\",\"size\":1}]}",
       ERR_INVALID_ARGUMENT},
      {"{\"schemaVersion\":2," CONFIG ",\"layers\":[{\"digest\":\"sha256:" HEX64
       "\",\"size\":1e30}]}",
       ERR_INVALID_ARGUMENT},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct image_manifest m;
    struct err err = {0};
    CHECK(parse_manifest(&m, bad[i].text, &err) < 0);
    CHECK_INT(err.kind, bad[i].kind);
  }
}

static int parse_settings(struct image_settings *s, const char *text, struct err *err)
{
  return image_settings_parse(s, text, strlen(text), err);
}

static void settings_are_read(void)
{
  struct image_settings s;
  struct err err = {0};
  CHECK_INT(
      parse_settings(&s,
                     "{\"registries\":{\"docker.io\":{\"mirrors\":[\"https://m.x/\"],\"ca\":"
                     "\"/c\"},\"127.0.0.1:5000\":{\"plain_http\":true}},\"max_size\":\"2GiB\"}",
                     &err),
      0);
  CHECK_INT(s.max_bytes, 2LL << 30);
  CHECK_STR(image_settings_find(&s, "docker.io")->mirrors.v[0], "https://m.x/");
  CHECK(image_settings_find(&s, "127.0.0.1:5000")->plain_http);
  CHECK(!image_settings_find(&s, "ghcr.io"));
  image_settings_free(&s);
  static const char *const bad[] = {"[]",
                                    "{\"x\":1}",
                                    "{\"max_size\":\"2 GB\"}",
                                    "{\"max_size\":-1}",
                                    "{\"registries\":[]}",
                                    "{\"registries\":{\"a\":{\"mirror\":[]}}}",
                                    "{\"registries\":{\"a\":{\"mirrors\":[\"x\"]}}}",
                                    "{\"registries\":{\"a\":{\"plain_http\":\"yes\"}}}",
                                    "{\"max_size\":\"99999999999TiB\"}"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) CHECK(parse_settings(&s, bad[i], &err) < 0);
}

static void credentials_are_found(void)
{
  static const char text[] =
      "{\"auths\":{\"https://index.docker.io/v1/\":{\"auth\":\"dXNlcjpwYTpzcw==\"},"
      "\"ghcr.io\":{\"identitytoken\":\"tok\"},\"http://r.x:5000/v2/\":{\"username\":\"u\","
      "\"password\":\"p\"}},\"credHelpers\":{\"h.x\":\"store\"}}";
  struct image_credential c;
  char *helper;
  struct err err = {0};
  CHECK_INT(image_credential_parse(text, strlen(text), "docker.io", &c, &helper, &err), 0);
  CHECK_STR(c.user, "user");
  CHECK_STR(c.password, "pa:ss");
  CHECK(!helper);
  image_credential_free(&c);
  CHECK_INT(image_credential_parse(text, strlen(text), "ghcr.io", &c, &helper, &err), 0);
  CHECK_STR(c.identity_token, "tok");
  image_credential_free(&c);
  CHECK_INT(image_credential_parse(text, strlen(text), "r.x:5000", &c, &helper, &err), 0);
  CHECK_STR(c.password, "p");
  image_credential_free(&c);
  CHECK_INT(image_credential_parse(text, strlen(text), "h.x", &c, &helper, &err), 0);
  CHECK_STR(helper, "store");
  free(helper);
  /* a name that only begins alike gets nothing */
  CHECK_INT(image_credential_parse(text, strlen(text), "ghcr.io.evil.x", &c, &helper, &err), 0);
  CHECK(!c.user && !c.identity_token && !helper);
  CHECK_INT(image_credential_parse(text, strlen(text), "r.x", &c, &helper, &err), 0);
  CHECK(!c.user);
}

static void challenges_are_read(void)
{
  struct image_challenge c;
  image_challenge_parse(
      "Bearer realm=\"https://a.x/t?k=1\",service=\"reg \\\"q\\\"\",scope=s:a:pull", &c);
  CHECK(c.bearer && !c.basic);
  CHECK_STR(c.realm, "https://a.x/t?k=1");
  CHECK_STR(c.service, "reg \"q\"");
  CHECK_STR(c.scope, "s:a:pull");
  image_challenge_free(&c);
  image_challenge_parse("Basic realm=\"x\", Bearer realm=\"https://b/\"", &c);
  CHECK(c.bearer && c.basic);
  CHECK_STR(c.realm, "https://b/");
  image_challenge_free(&c);
  static const char *const odd[] = {"",
                                    ",,,",
                                    "=",
                                    "\"",
                                    "Bearer",
                                    "Bearer realm=",
                                    "Bearer realm=\"x",
                                    "Bearer =x",
                                    "\"\\",
                                    "Bearer realm=\"x\\"};
  for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
    image_challenge_parse(odd[i], &c);
    image_challenge_free(&c);
  }
}

const struct test_case test_cases[] = {
    {"references_are_filled_in", references_are_filled_in},
    {"bad_references_are_refused", bad_references_are_refused},
    {"digests_are_strict", digests_are_strict},
    {"configurations_are_read", configurations_are_read},
    {"bad_configurations_are_refused", bad_configurations_are_refused},
    {"documents_of_too_many_values_are_refused", documents_of_too_many_values_are_refused},
    {"manifests_are_read", manifests_are_read},
    {"bad_manifests_are_refused", bad_manifests_are_refused},
    {"settings_are_read", settings_are_read},
    {"credentials_are_found", credentials_are_found},
    {"challenges_are_read", challenges_are_read},
    {0}};
