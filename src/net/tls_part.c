/* The part "tls": OpenSSL between two memory buffers.
 *
 * Owns no descriptor: the server feeds it what arrived and sends what it gives back. TLS 1.2 and
 * 1.3 with OpenSSL's own choice of ciphers; no renegotiation, no compression, no client
 * certificates, HTTP/1.1 by ALPN. */
#include "net/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

#define RECORD_BYTES 16384 /* of plain text, the most in one record */

struct tls_server {
  SSL_CTX *ctx;
};

struct tls {
  SSL *ssl;
  BIO *in, *out; /* the SSL's */
};

static int failed(struct err *err, const char *file, const char *what)
{
  unsigned long code = ERR_get_error();
  const char *why = code ? ERR_reason_error_string(code) : NULL;
  ERR_clear_error();
  return err_set(err, ERR_INVALID_ARGUMENT, 0, "%s: %s (%s)", file, what, why ? why : "unknown");
}

static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                   const unsigned char *in, unsigned in_len, void *arg)
{
  (void)ssl;
  (void)arg;
  static const unsigned char ours[] = "\x08http/1.1";
  unsigned char *chosen;
  if (SSL_select_next_proto(&chosen, out_len, ours, sizeof ours - 1, in, in_len) !=
      OPENSSL_NPN_NEGOTIATED)
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

static void server_free(struct tls_server *server)
{
  if (!server) return;
  SSL_CTX_free(server->ctx); /* counted: connections keep theirs */
  free(server);
}

static int server_new(struct tls_server **ret, const char *cert_file, const char *key_file,
                      struct err *err)
{
  struct tls_server *s = xcalloc(1, sizeof *s);
  int rc = 0;
  s->ctx = SSL_CTX_new(TLS_server_method());
  if (!s->ctx) {
    rc = err_set(err, ERR_INTERNAL, 0, "OpenSSL cannot start");
  } else {
    SSL_CTX_set_min_proto_version(s->ctx, TLS1_2_VERSION);
    SSL_CTX_set_options(s->ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                    SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_mode(s->ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_alpn_select_cb(s->ctx, on_alpn, NULL);
    if (SSL_CTX_use_certificate_chain_file(s->ctx, cert_file) != 1)
      rc = failed(err, cert_file, "cannot read the certificate");
    else if (SSL_CTX_use_PrivateKey_file(s->ctx, key_file, SSL_FILETYPE_PEM) != 1)
      rc = failed(err, key_file, "cannot read the private key");
    else if (SSL_CTX_check_private_key(s->ctx) != 1)
      rc = failed(err, key_file, "the key is not the certificate's");
  }
  if (rc < 0)
    server_free(s);
  else
    *ret = s;
  return rc;
}

static void tls_close(struct tls *t)
{
  if (!t) return;
  SSL_free(t->ssl);
  free(t);
}

static struct tls *tls_open(struct tls_server *server)
{
  struct tls *t = xcalloc(1, sizeof *t);
  t->ssl = SSL_new(server->ctx);
  t->in = BIO_new(BIO_s_mem());
  t->out = BIO_new(BIO_s_mem());
  if (!t->ssl || !t->in || !t->out) abort();
  SSL_set_bio(t->ssl, t->in, t->out);
  SSL_set_accept_state(t->ssl);
  return t;
}

static void take_wire(struct tls *t, struct buf *wire)
{
  char *p;
  long n = BIO_get_mem_data(t->out, &p);
  if (n > 0) buf_append(wire, p, (size_t)n);
  (void)BIO_reset(t->out);
}

static bool tls_input(struct tls *t, const void *data, size_t len, struct buf *plain,
                      struct buf *wire)
{
  ERR_clear_error();
  if (len > 0 && BIO_write(t->in, data, (int)len) != (int)len) return false;
  for (;;) {
    buf_reserve(plain, RECORD_BYTES);
    int n = SSL_read(t->ssl, plain->data + plain->len, RECORD_BYTES);
    if (n > 0) {
      plain->len += (size_t)n;
      plain->data[plain->len] = '\0';
      continue;
    }
    int why = SSL_get_error(t->ssl, n);
    take_wire(t, wire);
    return why == SSL_ERROR_WANT_READ;
  }
}

static bool tls_output(struct tls *t, const void *data, size_t len, struct buf *wire)
{
  ERR_clear_error();
  for (size_t at = 0; at < len;) {
    size_t n = len - at < RECORD_BYTES ? len - at : RECORD_BYTES;
    int done = SSL_write(t->ssl, (const char *)data + at, (int)n);
    take_wire(t, wire); /* at once: the buffer between would keep its size */
    if (done <= 0) return false;
    at += (size_t)done;
  }
  return true;
}

static void tls_goodbye(struct tls *t, struct buf *wire)
{
  ERR_clear_error();
  SSL_shutdown(t->ssl);
  take_wire(t, wire);
  ERR_clear_error();
}

PART_EXPORT extern const struct tls_part regolith_part;

const struct tls_part regolith_part = {
    .head = {.name = "tls",
             .version = REGOLITH_VERSION,
             .size = sizeof(struct tls_part),
             .attach = part_attach_log},
    .server_new = server_new,
    .server_free = server_free,
    .open = tls_open,
    .close = tls_close,
    .input = tls_input,
    .output = tls_output,
    .goodbye = tls_goodbye,
};
