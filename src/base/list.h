#ifndef REGOLITH_BASE_LIST_H
#define REGOLITH_BASE_LIST_H

/* Intrusive doubly linked list. The head is a node too; an unlinked node points at itself, so that
 * list_remove is idempotent. */

#include <stdbool.h>
#include <stddef.h>

struct list {
  struct list *prev, *next;
};

static inline void list_init(struct list *l)
{
  l->prev = l->next = l;
}

static inline bool list_empty(const struct list *l)
{
  return l->next == l;
}

static inline void list_append(struct list *head, struct list *node)
{
  node->prev = head->prev;
  node->next = head;
  head->prev->next = node;
  head->prev = node;
}

static inline void list_remove(struct list *node)
{
  node->prev->next = node->next;
  node->next->prev = node->prev;
  list_init(node);
}

#define list_entry(node, type, member) ((type *)((char *)(node)-offsetof(type, member)))

#define LIST_FOREACH(it, head) for (struct list *it = (head)->next; it != (head); it = it->next)

/* The body may remove `it`, and nothing else. */
#define LIST_FOREACH_SAFE(it, head)                                                                \
  for (struct list *it = (head)->next, *it##_next = it->next; it != (head);                        \
       it = it##_next, it##_next = it->next)

#endif
