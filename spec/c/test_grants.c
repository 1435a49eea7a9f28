/* Grants: hosts and addresses, how values are read, and what they allow.
 * valgrind: yes */
#include <arpa/inet.h>
#include <netinet/in.h>

#include "base/json.h"
#include "base/val.h"
#include "host/grants.h"
#include "host/hostname.h"
#include "test.h"
#include "wire/op.h"

static bool matches(const char *pattern, const char *host, uint16_t port)
{
  struct host_pattern p;
  CHECK(host_pattern_parse(&p, pattern));
  return host_pattern_matches(&p, host, port);
}

static void hosts_match_by_name_and_port(void)
{
  CHECK(matches("api.example.com", "api.example.com", 443));
  CHECK(matches("API.example.com", "api.EXAMPLE.com", 80));
  CHECK(!matches("api.example.com", "xapi.example.com", 443));
  CHECK(!matches("api.example.com", "api.example.com.evil.test", 443));
  CHECK(!matches("api.example.com", "example.com", 443));
  CHECK(matches("api.example.com:8443", "api.example.com", 8443));
  CHECK(!matches("api.example.com:8443", "api.example.com", 443));
  CHECK(matches("*.example.com", "a.example.com", 1));
  CHECK(matches("*.example.com", "a.b.example.com", 1));
  CHECK(!matches("*.example.com", "example.com", 1));
  CHECK(!matches("*.example.com", ".example.com", 1));
  CHECK(!matches("*.example.com", "evilexample.com", 1));
  CHECK(matches("*", "anything", 1));
  CHECK(!matches("*:443", "anything", 80));
  CHECK(matches("[::1]", "[::1]", 80));
  CHECK(matches("::1", "[0:0:0:0:0:0:0:1]", 80));
  CHECK(matches("[2001:DB8::1]:80", "[2001:db8:0::1]", 80));
  CHECK(!matches("[::1]:80", "[::1]", 81));
  CHECK(matches("127.0.0.1:8080", "127.0.0.1", 8080));
}

static void what_is_no_host_is_refused(void)
{
  static const char *const bad[] = {
      "",        "http://x", "x/y",  "a b",    "*a.com",     "a.*.com",   "x:",       "x:0",
      "x:65536", "x:port",   "[::1", "[::1]x", "[zz]",       "..",        "-x",       ".a",
      "a..b",    "a@b",      "**",   "*.",     "x:80:90abz", "[1.2.3.4]", "a\xc3\xbc"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct host_pattern p;
    if (host_pattern_parse(&p, bad[i])) fprintf(stderr, "took \"%s\"\n", bad[i]);
    CHECK(!host_pattern_parse(&p, bad[i]));
  }
}

static struct sockaddr_storage address(const char *text)
{
  struct sockaddr_storage s = {0};
  struct sockaddr_in in = {.sin_family = AF_INET};
  struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
  if (inet_pton(AF_INET, text, &in.sin_addr) == 1)
    memcpy(&s, &in, sizeof in);
  else if (inet_pton(AF_INET6, text, &in6.sin6_addr) == 1)
    memcpy(&s, &in6, sizeof in6);
  else
    abort();
  return s;
}

static void addresses_are_public_or_not(void)
{
  static const char *const private[] = {"0.0.0.0",
                                        "10.1.2.3",
                                        "127.0.0.1",
                                        "127.255.0.1",
                                        "100.64.0.1",
                                        "169.254.1.1",
                                        "169.254.169.254",
                                        "168.63.129.16",
                                        "172.16.0.1",
                                        "172.31.9.9",
                                        "192.168.1.1",
                                        "192.0.2.1",
                                        "198.18.0.1",
                                        "198.19.255.1",
                                        "224.0.0.1",
                                        "240.0.0.1",
                                        "203.0.113.9",
                                        "255.255.255.255",
                                        "::",
                                        "::1",
                                        "fe80::1",
                                        "fc00::1",
                                        "fd12:3456::1",
                                        "ff02::1",
                                        "2001:db8::1",
                                        "::ffff:127.0.0.1",
                                        "2001::1",
                                        "64:ff9b::a00:1",
                                        "2002:7f00:1::",
                                        "::127.0.0.1",
                                        "64:ff9b:1::1",
                                        "5f00::1",
                                        "::ffff:10.0.0.1",
                                        "2002:a9fe:a9fe::"};
  static const char *const public[] = {
      "1.1.1.1",         "100.63.255.255",       "100.128.0.1",    "172.15.0.1",      "172.32.0.1",
      "192.167.1.1",     "198.17.0.1",           "198.20.0.1",     "223.255.255.1",   "11.0.0.1",
      "2606:4700::1111", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808"};
  for (size_t i = 0; i < sizeof private / sizeof *private; i++) {
    struct sockaddr_storage s = address(private[i]);
    if (address_is_public((struct sockaddr *)&s)) fprintf(stderr, "public: %s\n", private[i]);
    CHECK(!address_is_public((struct sockaddr *)&s));
  }
  for (size_t i = 0; i < sizeof public / sizeof *public; i++) {
    struct sockaddr_storage s = address(public[i]);
    if (!address_is_public((struct sockaddr *)&s)) fprintf(stderr, "private: %s\n", public[i]);
    CHECK(address_is_public((struct sockaddr *)&s));
  }
  struct sockaddr_storage s = {.ss_family = AF_UNIX};
  CHECK(!address_is_public((struct sockaddr *)&s));
}

static struct err last;

/* Options and values in turn, ended by NULL. */
static struct grants *read_them(const char *profile, const char *const *words)
{
  struct grant_choice choices[16];
  size_t n = 0;
  for (; words && words[2 * n]; n++)
    choices[n] = (struct grant_choice){words[2 * n], words[2 * n + 1]};
  struct grants *g = NULL;
  last = (struct err){0};
  unsetenv("XDG_CONFIG_HOME");
  unsetenv("HOME");
  return grants_new(&g, profile, NULL, choices, n, &last) < 0 ? NULL : g;
}

#define READ(...) read_them(NULL, (const char *const[]){__VA_ARGS__, NULL})

/* "ok", or the hint of the refusal. */
static const char *ask(struct grants *g, const char *json)
{
  struct val asked = {0};
  struct create_args args;
  static struct err err;
  err = (struct err){0};
  CHECK_INT(json_parse(&asked, json, strlen(json), &err), 0);
  CHECK_INT(create_args_parse(&asked, NULL, &args, &err), 0);
  int rc = grants_admit_create(g, &asked, &args, &err);
  create_args_free(&args);
  val_free(&asked);
  if (rc == 0) return "ok";
  CHECK_INT(err.kind, ERR_DENIED);
  return err.hint;
}

static void sandboxes_are_admitted_by_grant(void)
{
  struct grants *g = READ("allow-image", "python:*", "allow-image", "reg.test/*/app",
                          "allow-network", "*.example.org:443", "allow-network", "10.0.0.0/8",
                          "allow-volume", "data", "max-memory", "2GiB");
  CHECK_STR(ask(g, "{}"), "ok");
  CHECK_STR(ask(g, "{\"image\":\"python:3.11\"}"), "ok");
  CHECK_STR(ask(g, "{\"image\":\"python:5000/x\"}"),
            "regolith run --allow-image python:5000/x grants it");
  CHECK_STR(ask(g, "{\"image\":\"reg.test/a/app\"}"), "ok");
  CHECK(strcmp(ask(g, "{\"image\":\"reg.test/a/b/app\"}"), "ok") != 0);
  CHECK(strcmp(ask(g, "{\"image\":\"reg.test/a/app2\"}"), "ok") != 0);
  CHECK_STR(ask(g, "{\"image\":\"dir:/\"}"), "regolith run --allow-dir-image / grants it");
  CHECK_STR(ask(g, "{\"engine\":\"docker\"}"), "regolith run --allow-engine docker grants it");
  CHECK_STR(ask(g, "{\"network\":{\"allow\":[\"a.example.org:443\",\"10.0.0.0/8\"]}}"), "ok");
  CHECK_STR(ask(g, "{\"network\":{\"allow\":[\"*.a.example.org:443\"]}}"), "ok");
  CHECK_STR(ask(g, "{\"network\":{\"allow\":[\"10.1.0.0/16:22\",\"10.2.3.4\"]}}"), "ok");
  CHECK(strcmp(ask(g, "{\"network\":{\"allow\":[\"0.0.0.0/0\"]}}"), "ok") != 0);
  CHECK(strcmp(ask(g, "{\"network\":{\"allow\":[\"a.example.org\"]}}"), "ok") != 0);
  CHECK(strcmp(ask(g, "{\"network\":{\"allow\":[\"a.example.org:80\"]}}"), "ok") != 0);
  CHECK(strcmp(ask(g, "{\"network\":{\"allow\":[\"example.org:443\"]}}"), "ok") != 0);
  CHECK(strcmp(ask(g, "{\"network\":\"open\"}"), "ok") != 0);
  CHECK_STR(ask(g, "{\"volumes\":[{\"source\":\"data\",\"target\":\"/d\"}]}"), "ok");
  CHECK(strcmp(ask(g, "{\"volumes\":[{\"source\":\"other\",\"target\":\"/d\"}]}"), "ok") != 0);
  CHECK_STR(ask(g, "{\"memory\":2048}"), "ok");
  CHECK_STR(ask(g, "{\"memory\":2049}"), "a higher regolith run --max-memory grants it");
  grants_free(g);
}

/* "" where the engine keeps the volume; what else the admission filled in otherwise. */
static const char *dir_of(struct grants *g, const char *json)
{
  static char text[512];
  struct val asked = {0};
  struct create_args args;
  struct err err = {0};
  CHECK_INT(json_parse(&asked, json, strlen(json), &err), 0);
  CHECK_INT(create_args_parse(&asked, NULL, &args, &err), 0);
  if (grants_admit_create(g, &asked, &args, &err) < 0)
    snprintf(text, sizeof text, "%s", err.hint);
  else
    snprintf(text, sizeof text, "%s%s", args.volumes[0].path ? args.volumes[0].path : "",
             args.volumes[0].readonly ? " ro" : "");
  create_args_free(&args);
  val_free(&asked);
  return text;
}

static void volumes_are_names_of_directories(void)
{
  struct grants *g = READ("volume", "data=/usr/bin/../lib", "volume", "conf=/etc:ro", "volume",
                          "both=/tmp:rw", "allow-volume", "kept*");
  CHECK_STR(dir_of(g, "{\"volumes\":[{\"source\":\"data\",\"target\":\"/d\"}]}"), "/usr/lib");
  CHECK_STR(dir_of(g, "{\"volumes\":[{\"source\":\"both\",\"target\":\"/d\"}]}"), "/tmp");
  CHECK_STR(dir_of(g, "{\"volumes\":[{\"source\":\"kept1\",\"target\":\"/d\"}]}"), "");
  /* Read-only where the script says so, or leaves it open. */
  CHECK_STR(dir_of(g, "{\"volumes\":[{\"source\":\"data\",\"target\":\"/d\",\"readonly\":true}]}"),
            "/usr/lib ro");
  CHECK_STR(dir_of(g, "{\"volumes\":[{\"source\":\"conf\",\"target\":\"/d\"}]}"), "/etc ro");
  CHECK(strstr(
            dir_of(g, "{\"volumes\":[{\"source\":\"conf\",\"target\":\"/d\",\"readonly\":false}]}"),
            "granted with :ro") != NULL);
  CHECK_STR(
      dir_of(g, "{\"volumes\":[{\"source\":\"other\",\"target\":\"/d\"}]}"),
      "regolith run --allow-volume other grants it, --volume other=DIR makes it a directory of "
      "this machine");
  /* A script cannot bring a path of its own. */
  struct val asked = {0};
  struct create_args args;
  const char *json = "{\"volumes\":[{\"source\":\"data\",\"target\":\"/d\",\"path\":\"/\"}]}";
  CHECK_INT(json_parse(&asked, json, strlen(json), &last), 0);
  CHECK(create_args_parse(&asked, NULL, &args, &last) < 0);
  val_free(&asked);
  grants_free(g);
  static const char *const bad[] = {
      "data", "=/tmp", "data=", "data=/no/such", "data=/etc/passwd", "a=/tmp:ro:ro"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    CHECK(READ("volume", bad[i]) == NULL);
    CHECK_STR(last.field, "--volume");
  }
  CHECK(READ("volume", "a=/tmp", "volume", "a=/usr") == NULL);
}

static void defaults_are_granted_by_their_names(void)
{
  struct grants *g = READ("engine", "docker", "image", "dir:/opt");
  CHECK_STR(grants_engine(g), "docker");
  CHECK_STR(ask(g, "{\"engine\":\"docker\",\"image\":\"dir:/opt\"}"), "ok");
  CHECK(strcmp(ask(g, "{\"image\":\"dir:/usr\"}"), "ok") != 0);
  grants_free(g);
  g = read_them("trusted", NULL);
  CHECK_STR(ask(g, "{\"engine\":\"x\",\"image\":\"dir:/usr\",\"network\":\"open\"}"), "ok");
  CHECK_STR(ask(g, "{\"image\":\"any/thing/at:all\"}"), "ok");
  grants_free(g);
}

static void requests_are_admitted_by_grant(void)
{
  setenv("THE_TOKEN", "t0ken", 1);
  struct grants *g = READ("allow-http", "*.example.com", "http-secret", "api.test=THE_TOKEN",
                          "allow-http", "192.168.1.5:80", "allow-http", "localhost");
  struct err e = {0};
  CHECK_INT(grants_admit_http(g, "a.example.com", 443, &e), 0);
  CHECK(grants_admit_http(g, "other.test", 443, &e) < 0);
  CHECK_INT(e.kind, ERR_DENIED);
  CHECK_STR(e.hint, "regolith run --allow-http other.test grants it");
  CHECK_INT(grants_admit_http(g, "api.test", 443, &e), 0);
  CHECK_STR(grants_secret(g, "api.test", 443), "t0ken");
  CHECK(grants_secret(g, "a.example.com", 443) == NULL);
  CHECK(grants_secret(g, "x.api.test", 443) == NULL);
  struct sockaddr_storage s = address("192.168.1.5");
  CHECK(grants_admit_address(g, (struct sockaddr *)&s, 80));
  CHECK(!grants_admit_address(g, (struct sockaddr *)&s, 81));
  s = address("192.168.1.6");
  CHECK(!grants_admit_address(g, (struct sockaddr *)&s, 80));
  s = address("127.0.0.1");
  CHECK(grants_admit_address(g, (struct sockaddr *)&s, 80));
  s = address("::1");
  CHECK(grants_admit_address(g, (struct sockaddr *)&s, 80));
  s = address("9.9.9.9");
  CHECK(grants_admit_address(g, (struct sockaddr *)&s, 80));
  CHECK(grants_admit_http(NULL, "a", 1, &e) < 0);
  grants_free(g);
}

static void values_are_read_or_refused(void)
{
  struct grant_bounds b;
  struct grants *g = READ("max-ops", "1000/s", "max-cost", "0.5", "max-sandboxes", "7", "cpu-time",
                          "90s", "memory", "32MiB", "max-ops", "500");
  grants_bounds(g, &b);
  CHECK_INT(b.ops_per_s, 500);
  CHECK(b.cost_capped);
  CHECK_INT(b.max_microusd, 500000);
  CHECK_INT(b.max_sandboxes, 7);
  CHECK_INT(b.cpu_ms, 90000);
  CHECK_INT(b.mem_bytes, 32 << 20);
  grants_free(g);
  static const char *const bad[][2] = {{"max-ops", "0"},
                                       {"max-ops", "5/m"},
                                       {"max-cost", "-1"},
                                       {"max-cost", "1 dollar"},
                                       {"max-memory", "1"},
                                       {"max-timeout", "1.5s"},
                                       {"allow-http", "http://x"},
                                       {"http-secret", "x"},
                                       {"http-secret", "*.x=THE_TOKEN"},
                                       {"http-secret", "x=UNSET"},
                                       {"allow-read", "/no/dir"},
                                       {"allow-read", "/dev/null"},
                                       {"env", "=x"},
                                       {"env", "NOT_SET_HERE"},
                                       {"max-sandboxes", "many"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    char label[64];
    snprintf(label, sizeof label, "--%s", bad[i][0]);
    CHECK(READ(bad[i][0], bad[i][1]) == NULL);
    CHECK_INT(last.kind, ERR_INVALID_ARGUMENT);
    CHECK(strstr(last.msg, label) != NULL);
  }
  CHECK(read_them("root", NULL) == NULL);
  CHECK(strstr(last.msg, "--profile") != NULL);
}

const struct test_case test_cases[] = {
    {"hosts_match_by_name_and_port", hosts_match_by_name_and_port},
    {"what_is_no_host_is_refused", what_is_no_host_is_refused},
    {"addresses_are_public_or_not", addresses_are_public_or_not},
    {"volumes_are_names_of_directories", volumes_are_names_of_directories},
    {"sandboxes_are_admitted_by_grant", sandboxes_are_admitted_by_grant},
    {"defaults_are_granted_by_their_names", defaults_are_granted_by_their_names},
    {"requests_are_admitted_by_grant", requests_are_admitted_by_grant},
    {"values_are_read_or_refused", values_are_read_or_refused},
    {0}};
