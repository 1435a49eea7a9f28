#ifndef REGOLITH_CLI_DOCTOR_H
#define REGOLITH_CLI_DOCTOR_H

struct probe;
struct probe_item;

/* Adds a line; name is static. */
struct probe_item *doctor_add(struct probe *p, const char *name);

/* A line for each engine elsewhere that has a name here; some seconds where one does not answer. */
void doctor_engines(struct probe *p);

#endif
