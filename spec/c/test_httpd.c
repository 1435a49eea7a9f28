/* net/httpd: real sockets against a real server; clients that are slow, lie, flood, or vanish. */
#include "test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#include "base/buf.h"
#include "core/loop.h"
#include "net/httpd.h"

static struct loop *loop;
static struct httpd *server;
static unsigned port;
static atomic_int gone, ended, requests, paused, last_status;
static struct httpd_exchange *hanging;

/* ---- the server ---- */

struct later {
  struct timer timer;
  struct httpd_exchange *x;
};

static void on_later(struct timer *t)
{
  struct later *l = t->data;
  struct buf body = {0};
  buf_puts(&body, "later");
  httpd_answer(l->x, 200, "text/plain", NULL, &body);
  free(l);
}

static size_t number(const char *query)
{
  return (size_t)strtoull(query, NULL, 10);
}

static struct buf filled(size_t n)
{
  struct buf b = {0};
  buf_reserve(&b, n);
  memset(b.data, 'x', n);
  b.len = n;
  b.data[n] = '\0';
  return b;
}

/* Pieces until the reader is full; the rest when it has caught up. */
static size_t pieces_left;
static void send_pieces(struct httpd_exchange *x)
{
  static char piece[32768];
  memset(piece, 'p', sizeof piece);
  int before = paused;
  while (pieces_left > 0 && paused == before) {
    pieces_left--;
    httpd_send(x, piece, sizeof piece);
  }
  if (pieces_left == 0 && paused == before) httpd_end(x);
}

static void on_full(struct httpd_exchange *x, bool full)
{
  if (full)
    paused++;
  else
    send_pieces(x);
}

static void on_head(struct httpd_exchange *x)
{
  struct buf body = {0};
  if (strcmp(httpd_path(x), "/refuse") != 0) return;
  buf_puts(&body, "no");
  httpd_answer(x, 401, "text/plain", "WWW-Authenticate: Bearer\r\n", &body);
}

static void on_request(struct httpd_exchange *x)
{
  const char *path = httpd_path(x), *type = "text/plain";
  struct buf body = {0};
  size_t len;
  const char *sent = httpd_body(x, &len);
  requests++;
  if (strcmp(path, "/hang") == 0) {
    hanging = x;
  } else if (strcmp(path, "/stall") == 0) {
    usleep((useconds_t)number(httpd_query(x)) * 1000);
    httpd_answer(x, 200, type, NULL, &body);
  } else if (strcmp(path, "/later") == 0) {
    struct later *l = xcalloc(1, sizeof *l);
    *l = (struct later){.timer = {.cb = on_later}, .x = x};
    l->timer.data = l;
    timer_start(loop, &l->timer, 20);
  } else if (strcmp(path, "/big") == 0) {
    body = filled(number(httpd_query(x)));
    httpd_answer(x, 200, type, NULL, &body);
  } else if (strcmp(path, "/pieces") == 0) {
    pieces_left = number(httpd_query(x));
    httpd_begin(x, 200, type, NULL);
    send_pieces(x);
  } else if (strcmp(path, "/length") == 0) {
    buf_printf(&body, "%zu", len);
    httpd_answer(x, 200, type, NULL, &body);
  } else {
    buf_printf(&body, "%s %s ", httpd_method(x), path);
    buf_append(&body, sent, len);
    httpd_answer(x, 200, type, NULL, &body);
  }
}

static void on_gone(struct httpd_exchange *x)
{
  if (x == hanging) hanging = NULL;
  gone++;
}

static void on_end(struct httpd_exchange *x, const struct httpd_record *record)
{
  (void)x;
  ended++;
  last_status = record->status;
}

static void print_fault(void *data, int status, const char *text, struct buf *out)
{
  (void)data;
  buf_printf(out, "{\"fault\":%d,\"text\":\"%s\"}", status, text);
}

static const struct httpd_ops ops = {.on_head = on_head,
                                     .on_request = on_request,
                                     .on_gone = on_gone,
                                     .on_full = on_full,
                                     .on_end = on_end,
                                     .print_fault = print_fault};

static uv_async_t client_done;

static void on_client_done(uv_async_t *a)
{
  uv_close((uv_handle_t *)a, NULL);
  loop_stop(loop);
}

static void *client_main(void *fn)
{
  (*(void (**)(void))fn)();
  uv_async_send(&client_done);
  return NULL;
}

static void stop(void *data)
{
  (void)data;
  loop_stop(loop);
}

/* Runs client on a thread of its own against a server with these limits. */
static void with_server(const struct httpd_conf *limits, void (*client)(void))
{
  struct err err = {0};
  struct httpd_conf conf = *limits;
  signal(SIGPIPE, SIG_IGN); /* as the program does */
  loop_new(&loop, NULL);
  conf.loop = loop;
  conf.ops = &ops;
  gone = ended = requests = paused = last_status = 0;
  CHECK_INT(httpd_new(&server, &conf, &err), 0);
  CHECK_INT(httpd_listen(server, "127.0.0.1:0", &port, &err), 0);
  uv_async_init(loop_uv(loop), &client_done, on_client_done);
  pthread_t thread;
  pthread_create(&thread, NULL, client_main, &client);
  loop_run(loop);
  pthread_join(thread, NULL);
  struct httpd_stats s;
  httpd_stats(server, &s);
  httpd_close(server, stop, NULL);
  loop_run(loop);
  loop_free(loop);
}

/* ---- clients ---- */

static int dial(void)
{
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0);
  return fd;
}

static bool put(int fd, const char *text, size_t len)
{
  while (len > 0) {
    ssize_t n = send(fd, text, len, MSG_NOSIGNAL);
    if (n <= 0) return false;
    text += n;
    len -= (size_t)n;
  }
  return true;
}

static bool say(int fd, const char *text)
{
  return put(fd, text, strlen(text));
}

/* All until the server closes, at most 20 s. */
static void hear_all(int fd, struct buf *out)
{
  char bytes[65536];
  struct pollfd p = {.fd = fd, .events = POLLIN};
  for (;;) {
    if (poll(&p, 1, 20000) <= 0) break;
    ssize_t n = recv(fd, bytes, sizeof bytes, 0);
    if (n <= 0) break;
    buf_append(out, bytes, (size_t)n);
  }
}

static int status_in(const struct buf *b)
{
  int status = 0;
  if (b->data) sscanf(b->data, "HTTP/1.1 %d ", &status);
  return status;
}

static int count(const char *text, const char *what)
{
  int n = 0;
  for (const char *p = text; p && (p = strstr(p, what)); p += strlen(what)) n++;
  return n;
}

static void nap(long ms)
{
  nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

/* Waits up to 5 s until *what has at least that value. */
static bool reaches(atomic_int *what, int value)
{
  for (int i = 0; i < 500 && *what < value; i++) nap(10);
  return *what >= value;
}

#define H "Host: a\r\n"

static void ask(const char *request, struct buf *out)
{
  int fd = dial();
  say(fd, request);
  hear_all(fd, out);
  close(fd);
}

static void check_answer(const char *request, int status, const char *part)
{
  struct buf b = {0};
  ask(request, &b);
  if (status_in(&b) != status || !strstr(b.data ? b.data : "", part))
    fprintf(stderr, "%s\n--> %s\n", request, b.data ? b.data : "(nothing)");
  CHECK_INT(status_in(&b), status);
  CHECK(b.data && strstr(b.data, part));
  buf_free(&b);
}

static void requests_client(void)
{
  check_answer("GET /a HTTP/1.1\r\n" H "Connection: close\r\n\r\n", 200, "GET /a ");
  check_answer("GET /a HTTP/1.0\r\n\r\n", 200, "Connection: close");
  check_answer("POST /b HTTP/1.1\r\n" H "Connection: close\r\nContent-Length: 3\r\n\r\nxyz", 200,
               "POST /b xyz");
  check_answer("POST /b HTTP/1.1\r\n" H "Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
               "2\r\nxy\r\n1\r\nz\r\n0\r\n\r\n",
               200, "POST /b xyz");
  check_answer("GET /later HTTP/1.1\r\n" H "Connection: close\r\n\r\n", 200, "later");
  check_answer("HEAD /big?10 HTTP/1.1\r\n" H "Connection: close\r\n\r\n", 200,
               "Connection: close\r\nContent-Length: 10\r\n\r\n");
  check_answer("GET /pieces?2 HTTP/1.1\r\n" H "Connection: close\r\n\r\n", 200, "\r\n0\r\n\r\n");
  check_answer("GET /pieces?2 HTTP/1.0\r\n\r\n", 200, "\r\n\r\npppp");
  check_answer("POST /b HTTP/1.1\r\n" H "Connection: close\r\nExpect: 100-continue\r\n"
               "Content-Length: 0\r\n\r\n",
               200, "POST /b ");
}

static void answers_requests(void)
{
  with_server(&(struct httpd_conf){0}, requests_client);
  CHECK_INT(requests, 9);
  CHECK_INT(ended, 9);
}

/* Many at once on one connection, whatever they cost, come back in order. */
static void pipeline_client(void)
{
  struct buf b = {0}, out = {0};
  for (int i = 0; i < 500; i++)
    buf_printf(&b, i % 7 ? "GET /n%d HTTP/1.1\r\n" H "\r\n" : "GET /later HTTP/1.1\r\n" H "\r\n",
               i);
  buf_puts(&b, "GET /last HTTP/1.1\r\n" H "Connection: close\r\n\r\n");
  int fd = dial();
  CHECK(put(fd, b.data, b.len));
  hear_all(fd, &out);
  close(fd);
  CHECK_INT(count(out.data, "HTTP/1.1 200 OK"), 501);
  const char *at = out.data;
  for (int i = 0; i < 500 && at; i++) {
    char want[32];
    snprintf(want, sizeof want, i % 7 ? "GET /n%d " : "later", i);
    at = strstr(at, want);
  }
  CHECK(at && strstr(at, "GET /last "));
  buf_free(&b);
  buf_free(&out);
}

static void takes_pipelines(void)
{
  with_server(&(struct httpd_conf){0}, pipeline_client);
}

/* Byte by byte is as good as at once. */
static void slow_client(void)
{
  static const char text[] = "POST /b HTTP/1.1\r\n" H "Connection: close\r\n"
                             "Transfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n";
  struct buf b = {0};
  int fd = dial();
  for (size_t i = 0; i < sizeof text - 1; i++) {
    put(fd, text + i, 1);
    if (i % 8 == 0) nap(1);
  }
  hear_all(fd, &b);
  close(fd);
  CHECK_INT(status_in(&b), 200);
  CHECK(strstr(b.data, "POST /b xyz"));
  buf_free(&b);
}

static void takes_bytes_one_by_one(void)
{
  with_server(&(struct httpd_conf){0}, slow_client);
}

/* One answer, in the server's own shape, and the end of the connection: what came behind a request
 * that was not understood is never taken for another one. */
static void faults_client(void)
{
  static const struct {
    const char *text;
    int status;
  } rows[] = {
      {"nonsense\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\n\r\n", 400},
      {"GET / HTTP/1.1\n", 400},
      {"GET / HTTP/3.0\r\n" H "\r\n", 505},
      {"POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
       400},
      {"POST / HTTP/1.1\r\n" H "Content-Length: 1001\r\n\r\n", 413},
      {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n3e9\r\n", 413},
      {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd", 400},
      {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip\r\n\r\n", 501},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct buf b = {0}, request = {0};
    buf_puts(&request, rows[i].text);
    buf_puts(&request, "GET /smuggled HTTP/1.1\r\n" H "\r\n");
    ask(request.data, &b);
    CHECK_INT(status_in(&b), rows[i].status);
    CHECK_INT(count(b.data, "\r\nDate: "), 1);
    CHECK(b.data && strstr(b.data, "Connection: close\r\n") && strstr(b.data, "{\"fault\":"));
    buf_free(&b);
    buf_free(&request);
  }
}

static void answers_faults(void)
{
  with_server(&(struct httpd_conf){.max_body = 1000}, faults_client);
  CHECK_INT(requests, 0);
}

/* The largest body is taken, one byte more is not, and its sender reads why. */
static void bodies_client(void)
{
  static const size_t sizes[] = {0, 1, 65536, 10485760, 10485761, 20000000};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    struct buf body = filled(sizes[i]), b = {0};
    char head[160], want[32];
    snprintf(head, sizeof head,
             "POST /length HTTP/1.1\r\n" H "Connection: close\r\nContent-Length: %zu\r\n\r\n",
             sizes[i]);
    int fd = dial();
    say(fd, head);
    put(fd, body.data, body.len);
    hear_all(fd, &b);
    close(fd);
    bool fits = sizes[i] <= 10485760;
    snprintf(want, sizeof want, "\r\n\r\n%zu", sizes[i]);
    CHECK_INT(status_in(&b), fits ? 200 : 413);
    if (fits) CHECK(b.data && strstr(b.data, want));
    buf_free(&body);
    buf_free(&b);
  }
}

static void bounds_bodies(void)
{
  with_server(&(struct httpd_conf){0}, bodies_client);
}

/* Refused by its head: the body is not waited for, and is no request. */
static void refused_client(void)
{
  struct buf b = {0};
  int fd = dial();
  say(fd, "POST /refuse HTTP/1.1\r\n" H "Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n");
  say(fd, "GET /smuggled HTTP/1.1\r\n" H "\r\n");
  hear_all(fd, &b);
  close(fd);
  CHECK_INT(status_in(&b), 401);
  CHECK_INT(count(b.data, "HTTP/1.1 "), 1);
  CHECK(strstr(b.data, "WWW-Authenticate: Bearer"));
  b.len = 0;
  /* Without a body the connection goes on. */
  ask("GET /refuse HTTP/1.1\r\n" H "\r\nGET /on HTTP/1.1\r\n" H "Connection: close\r\n\r\n", &b);
  CHECK_INT(count(b.data, "HTTP/1.1 "), 2);
  CHECK(strstr(b.data, "GET /on "));
  buf_free(&b);
}

static void refuses_by_head(void)
{
  with_server(&(struct httpd_conf){0}, refused_client);
  CHECK_INT(requests, 1);
}

static void continue_client(void)
{
  struct buf b = {0};
  char bytes[256];
  int fd = dial();
  say(fd, "POST /b HTTP/1.1\r\n" H "Connection: close\r\nContent-Length: 3\r\n"
          "Expect: 100-continue\r\n\r\n");
  ssize_t n = recv(fd, bytes, sizeof bytes - 1, 0);
  bytes[n > 0 ? n : 0] = '\0';
  CHECK_STR(bytes, "HTTP/1.1 100 Continue\r\n\r\n");
  say(fd, "xyz");
  hear_all(fd, &b);
  CHECK(b.data && strstr(b.data, "POST /b xyz"));
  close(fd);
  buf_free(&b);
}

static void says_continue(void)
{
  with_server(&(struct httpd_conf){0}, continue_client);
}

/* Whoever hangs up, or resets, while its request is being answered is noticed at once. */
static void vanishing_client(void)
{
  int fd = dial();
  say(fd, "GET /hang HTTP/1.1\r\n" H "\r\n");
  CHECK(reaches(&requests, 1));
  close(fd);
  CHECK(reaches(&gone, 1));
  fd = dial();
  say(fd, "GET /hang HTTP/1.1\r\n" H "\r\n");
  CHECK(reaches(&requests, 2));
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
  close(fd);
  CHECK(reaches(&gone, 2));
  CHECK_INT(last_status, 499);
  fd = dial(); /* in the middle of its body */
  say(fd, "POST /a HTTP/1.1\r\n" H "Content-Length: 10\r\n\r\nabc");
  nap(20);
  close(fd);
  CHECK(reaches(&ended, 3));
  CHECK_INT(requests, 2);
}

static void notices_hang_ups(void)
{
  with_server(&(struct httpd_conf){0}, vanishing_client);
  CHECK_INT(gone, 2);
}

/* A reader of pieces slows their sender; what waits is bounded. */
static void slow_reader(void)
{
  char bytes[8192];
  int fd = dial();
  size_t got = 0;
  say(fd, "GET /pieces?640 HTTP/1.1\r\n" H "Connection: close\r\n\r\n");
  CHECK(reaches(&paused, 1));
  nap(50);
  CHECK_INT(paused, 1);
  CHECK(pieces_left > 300);
  for (ssize_t n; (n = recv(fd, bytes, sizeof bytes, 0)) > 0;) got += (size_t)n;
  close(fd);
  CHECK(got > 640u * 32768u && got < 640u * 32768u + 20000u);
  CHECK(paused > 3);
}

static void slows_the_sender(void)
{
  with_server(&(struct httpd_conf){0}, slow_reader);
}

/* Times out whoever sends its head, its body, or takes its answer too slowly, or nothing at all. */
static void timing_client(void)
{
  struct buf b = {0};
  int fd = dial();
  say(fd, "GET / HTTP/1.1\r\nHo");
  hear_all(fd, &b);
  CHECK_INT(status_in(&b), 408);
  close(fd);
  b.len = 0;
  fd = dial();
  say(fd, "POST / HTTP/1.1\r\n" H "Content-Length: 10\r\n\r\nabc");
  hear_all(fd, &b);
  CHECK_INT(status_in(&b), 408);
  close(fd);
  b.len = 0;
  fd = dial(); /* one byte at a time, within stall_ms, but never done */
  say(fd, "POST / HTTP/1.1\r\n" H "Content-Length: 1000\r\n\r\n");
  for (int i = 0; i < 100 && put(fd, "x", 1); i++) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, 20) > 0) break;
  }
  hear_all(fd, &b);
  CHECK_INT(status_in(&b), 408);
  close(fd);
  b.len = 0;
  fd = dial(); /* nothing */
  hear_all(fd, &b);
  CHECK_INT(b.len, 0);
  close(fd);
  fd = dial(); /* nothing after a request */
  say(fd, "GET / HTTP/1.1\r\n" H "\r\n");
  hear_all(fd, &b);
  CHECK_INT(count(b.data, "HTTP/1.1 "), 1);
  close(fd);
  fd = dial(); /* does not read its answer */
  int ends = ended;
  say(fd, "GET /big?9000000 HTTP/1.1\r\n" H "\r\n");
  CHECK(reaches(&ended, ends + 1));
  close(fd);
  buf_free(&b);
}

static void bounds_time(void)
{
  with_server(&(struct httpd_conf){.head_ms = 100, .idle_ms = 150, .stall_ms = 100, .body_ms = 500},
              timing_client);
}

/* The server stands still for longer than connections may be idle: what came meanwhile came in
 * time. */
static void stalling_client(void)
{
  struct buf b = {0};
  int idle = dial(), half = dial(), busy = dial();
  say(idle, "GET / HTTP/1.1\r\n" H "\r\n");
  CHECK(reaches(&ended, 1));
  say(half, "POST /length HTTP/1.1\r\n" H "Connection: close\r\nContent-Length: 4\r\n\r\nab");
  nap(20);
  say(busy, "GET /stall?400 HTTP/1.1\r\n" H "\r\n");
  CHECK(reaches(&requests, 2));
  say(idle, "GET / HTTP/1.1\r\n" H "Connection: close\r\n\r\n");
  say(half, "cd");
  hear_all(idle, &b);
  CHECK_INT(count(b.data, " 200 OK"), 2);
  b.len = 0;
  hear_all(half, &b);
  CHECK_INT(status_in(&b), 200);
  close(idle);
  close(half);
  close(busy);
  buf_free(&b);
}

static void forgives_its_own_stalls(void)
{
  with_server(&(struct httpd_conf){.head_ms = 200, .idle_ms = 200, .stall_ms = 200},
              stalling_client);
}

/* Past the bound the connection that has asked nothing for the longest makes room. */
static void crowd_client(void)
{
  enum { CROWD = 64 };
  int fds[CROWD], busy = dial();
  say(busy, "GET /hang HTTP/1.1\r\n" H "\r\n");
  CHECK(reaches(&requests, 1));
  for (int i = 0; i < CROWD; i++) {
    fds[i] = dial();
    say(fds[i], "GET / HT");
  }
  check_answer("GET /a HTTP/1.1\r\n" H "Connection: close\r\n\r\n", 200, "GET /a ");
  char byte;
  CHECK(recv(busy, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
  CHECK(recv(fds[0], &byte, 1, 0) <= 0); /* it was the first to go */
  for (int i = 0; i < CROWD; i++) close(fds[i]);
  close(busy);
  CHECK(reaches(&gone, 1));
}

static void makes_room(void)
{
  with_server(&(struct httpd_conf){.max_connections = 16}, crowd_client);
}

/* All at work: the next one waits in the kernel and is served when one is done. */
static void full_client(void)
{
  int fds[4];
  for (int i = 0; i < 4; i++) {
    fds[i] = dial();
    say(fds[i], "GET /hang HTTP/1.1\r\n" H "\r\n");
  }
  CHECK(reaches(&requests, 4));
  int fd = dial();
  struct buf b = {0};
  say(fd, "GET /a HTTP/1.1\r\n" H "Connection: close\r\n\r\n");
  nap(50);
  CHECK_INT(requests, 4);
  close(fds[2]);
  hear_all(fd, &b);
  CHECK_INT(status_in(&b), 200);
  close(fd);
  for (int i = 0; i < 4; i++)
    if (i != 2) close(fds[i]);
  CHECK(reaches(&gone, 4));
  buf_free(&b);
}

static void lets_wait(void)
{
  with_server(&(struct httpd_conf){.max_connections = 4}, full_client);
}

static bool has_evicted(const struct httpd_stats *s)
{
  return s->evicted > 0;
}

static bool holds_nothing(const struct httpd_stats *s)
{
  return s->held == 0;
}

/* The server's numbers, once they are so or never will be. */
static struct httpd_stats stats_when(bool (*so)(const struct httpd_stats *))
{
  struct httpd_stats s;
  for (int i = 0; i < 5000; i++) {
    httpd_stats(server, &s);
    if (so(&s)) break;
    nap(1);
  }
  return s;
}

/* Answers that nobody takes are bounded for all connections together. */
static void hoarders_client(void)
{
  int fds[12];
  for (int i = 0; i < 12; i++) {
    fds[i] = dial();
    say(fds[i], "GET /big?8000000 HTTP/1.1\r\n" H "\r\n");
    nap(5);
  }
  struct httpd_stats s = stats_when(has_evicted);
  CHECK(s.held <= 40000000);
  CHECK(s.evicted > 0);
  check_answer("GET /a HTTP/1.1\r\n" H "Connection: close\r\n\r\n", 200, "GET /a ");
  for (int i = 0; i < 12; i++) close(fds[i]);
  CHECK(reaches(&ended, 13));
  CHECK_INT(stats_when(holds_nothing).held, 0);
}

static void bounds_what_is_held(void)
{
  with_server(&(struct httpd_conf){.max_held = 40000000}, hoarders_client);
}

/* A drain answers what was asked, closes what is idle, and takes nothing new. */
static int draining_fd, idle_fd;
static atomic_int drained;

static void on_drained(void *data)
{
  (void)data;
  drained++;
}

static struct timer drain_timer;

static void on_drain_timer(struct timer *t)
{
  (void)t;
  httpd_drain(server, on_drained, NULL);
}

static uv_async_t drain_now;

static void on_drain_now(uv_async_t *a)
{
  uv_close((uv_handle_t *)a, NULL);
  drain_timer = (struct timer){.cb = on_drain_timer};
  timer_start(loop, &drain_timer, 5);
}

static void draining_client(void)
{
  struct buf b = {0};
  char byte;
  idle_fd = dial();
  draining_fd = dial();
  say(draining_fd, "GET /later HTTP/1.1\r\n" H "\r\n");
  CHECK(reaches(&requests, 1));
  uv_async_send(&drain_now);
  hear_all(draining_fd, &b);
  CHECK_INT(status_in(&b), 200);
  CHECK(b.data && strstr(b.data, "Connection: close"));
  CHECK_INT(recv(idle_fd, &byte, 1, 0), 0);
  CHECK(reaches(&drained, 1));
  close(idle_fd);
  close(draining_fd);
  buf_free(&b);
}

static void start_draining_client(void)
{
  draining_client();
}

static void drains(void)
{
  struct err err = {0};
  drained = 0;
  loop_new(&loop, NULL);
  gone = ended = requests = paused = 0;
  CHECK_INT(httpd_new(&server, &(struct httpd_conf){.loop = loop, .ops = &ops}, &err), 0);
  CHECK_INT(httpd_listen(server, "127.0.0.1:0", &port, &err), 0);
  uv_async_init(loop_uv(loop), &client_done, on_client_done);
  uv_async_init(loop_uv(loop), &drain_now, on_drain_now);
  void (*client)(void) = start_draining_client;
  pthread_t thread;
  pthread_create(&thread, NULL, client_main, &client);
  loop_run(loop);
  pthread_join(thread, NULL);
  CHECK_INT(drained, 1);
  httpd_close(server, stop, NULL);
  loop_run(loop);
  loop_free(loop);
}

static void addresses(void)
{
  static const char *const bad[] = {
      "",       "127.0.0.1",       "127.0.0.1:",         "127.0.0.1:99999",
      "::1:80", "127.0.0.1:http2", "nowhere.invalid:80", "300.0.0.1:1"};
  struct err err = {0};
  loop_new(&loop, NULL);
  CHECK_INT(httpd_new(&server, &(struct httpd_conf){.loop = loop, .ops = &ops}, &err), 0);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    err = (struct err){0};
    CHECK(httpd_listen(server, bad[i], NULL, &err) < 0);
    CHECK(err.msg[0]);
  }
  CHECK_INT(httpd_listen(server, "localhost:0", &port, &err), 0);
  char again[32];
  snprintf(again, sizeof again, "127.0.0.1:%u", port);
  CHECK(httpd_listen(server, again, NULL, &err) < 0);
  CHECK_INT(err.sys_errno, EADDRINUSE);
  httpd_close(server, stop, NULL);
  loop_run(loop);
  loop_free(loop);
}

const struct test_case test_cases[] = {
    {"answers requests", answers_requests},
    {"takes pipelines", takes_pipelines},
    {"takes bytes one by one", takes_bytes_one_by_one},
    {"answers faults", answers_faults},
    {"bounds bodies", bounds_bodies},
    {"refuses by head", refuses_by_head},
    {"says continue", says_continue},
    {"notices hang-ups", notices_hang_ups},
    {"slows the sender", slows_the_sender},
    {"bounds time", bounds_time},
    {"forgives its own stalls", forgives_its_own_stalls},
    {"makes room", makes_room},
    {"lets wait", lets_wait},
    {"bounds what is held", bounds_what_is_held},
    {"drains", drains},
    {"addresses", addresses},
    {NULL, NULL},
};
