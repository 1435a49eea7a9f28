#ifndef REGOLITH_SPEC_HOST_PROC_H
#define REGOLITH_SPEC_HOST_PROC_H

struct loop;
struct ops;
struct proc_ops;

/* The ops of spec/support/proc.lua: programs run by a spec, with captured output.
 *
 *   test.proc.start { argv, env, cwd, uid, gid, stdin | stdin_open, close_stdout } → { id, pid }
 *   test.proc.wait  { id, timeout_ms } → { done, exited, status, signal, stdout, stderr,
 * duration_ms } test.proc.peek  { id } → the same, at once      test.proc.write { id, data }   ""
 * closes stdin test.proc.free  { id }                          test.kill { pid, signal } test.reap
 * {}    waits for orphans that were handed to this process and have ended */
struct proc_ops *proc_ops_new(struct loop *loop, struct ops *ops);

/* Kills what still runs; the handles close on the loop's next turns, then done is called. */
void proc_ops_close(struct proc_ops *p, void (*done)(void *data), void *data);

#endif
