#ifndef REGOLITH_WIRE_COMPUTE_H
#define REGOLITH_WIRE_COMPUTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/val.h"

struct buf;
struct create_args;
struct exec_args;
struct outcome;

/* The Compute API's objects as plain data, in both directions: what its server reads and prints,
 * and what a client of such a server prints and reads. Objects and the arguments of our own ops
 * have the same field names, so that what is here is only where they differ. */

#define COMPUTE_BODY_MAX   10485760 /* bytes of a request */
#define COMPUTE_ANSWER_MAX 10000000 /* bytes of an answer */

/* ---- the server's side ---- */

/* Makes arguments of sandbox.exec of a request, in place: `encoding` is taken out (base64: stdin,
 * stdout and stderr of this exec), and fields that only a script may use are refused. */
int compute_exec_request(struct val *body, bool *ret_base64, struct err *err);

/* The integer that stands for an outcome: of `exited` the real one, else one that a shell would
 * give. signal is a name ("SIGKILL") or NULL. */
int compute_exit_code(const char *reason, int64_t exit_code, const char *signal);

/* The answer to an exec, of the op's result; its output is cut to fit into max bytes. */
void compute_print_exec(struct buf *out, const char *sandbox_id, const struct val *result,
                        bool base64, size_t max);

/* {"error":{…}}. status is what the answer is sent with. result (NULL allowed) is an exec that its
 * sandbox's end has ended, whose output is printed beside the error; with PAYMENT_REQUIRED it is
 * what is missing, printed as error.payment. */
void compute_print_error(struct buf *out, const struct err *err, int status, const char *sandbox_id,
                         const struct val *result, bool base64);

/* The HTTP status of an error; kinds that only scripts know have one here too. */
int compute_status(const struct err *err);

/* A sandbox by the Modal schema, of what sandbox.status gives. */
struct val compute_modal(const struct val *view);

/* ---- the client's side ---- */

/* Bodies of requests. Output is asked for as base64, so that it comes back byte by byte. */
struct val compute_create_body(const struct create_args *args);
struct val compute_exec_body(const char *sandbox_id, const struct exec_args *args);

/* What an exec's answer says, of either family of fields: exit_code or returncode, with or without
 * reason, duration_ms, base64. An exit code is never guessed: without one, and without a reason,
 * the outcome is `unknown`. measured_ms stands in for a missing duration. */
int compute_read_exec(const struct val *answer, uint64_t measured_ms, struct outcome *ret,
                      struct err *err);

/* Seconds since 1970 of "2026-05-01T12:00:00Z", with a fraction or an offset ("+02:00") as well, as
 * RFC 3339 has them; 0 where it is none. */
int64_t compute_read_time(const char *text);

/* An answer's error as ours; answer is NULL where the body was no JSON. */
void compute_read_error(int status, const struct val *answer, struct err *ret);

/* ---- base64 ---- */

void base64_encode(struct buf *out, const void *data, size_t len);
/* false: not base64. Line breaks are not taken; out may then hold a part. */
bool base64_decode(struct buf *out, const char *text, size_t len);

#endif
