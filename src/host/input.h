#ifndef REGOLITH_HOST_INPUT_H
#define REGOLITH_HOST_INPUT_H

struct input;
struct loop;
struct ops;

/* Standard input for scripts: the op stdin.read { max } → { data } (none: the end). One script
 * reads at a time; a second gets `conflict`. */
struct input *input_new(struct loop *loop, struct ops *ops, int fd);
void input_free(
    struct input *input); /* no op of it may be in flight; run the loop once more after it */

#endif
