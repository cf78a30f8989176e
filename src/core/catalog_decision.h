/* One request while it is decided: what the files of catalog_decide share. For catalog_decide*.c
 * only. */
#ifndef WEIR_CORE_CATALOG_DECISION_H
#define WEIR_CORE_CATALOG_DECISION_H

#include "core/catalog_inside.h"

struct decision {
    const struct catalog *catalog;
    const struct catalog_request *request;
    struct catalog_changes *out;
    struct catalog_problem *problem;
    char subject[560]; /* "queue 'q' in vhost '/'", once decision_subject was called */
};

/* One for each operation. */
enum err decide_declare_exchange(struct decision *decision);
enum err decide_delete_exchange(struct decision *decision);
enum err decide_declare_queue(struct decision *decision);
enum err decide_delete_queue(struct decision *decision);
enum err decide_create_topic(struct decision *decision);
enum err decide_delete_topic(struct decision *decision);
enum err decide_grow_topic(struct decision *decision);
enum err decide_configure_topic(struct decision *decision);
enum err decide_bind(struct decision *decision);
enum err decide_unbind(struct decision *decision);

/* Writes the problem's text and returns err. */
enum err decision_refuse(struct decision *decision, enum err err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
const char *decision_subject(struct decision *decision, const char *kind, struct slice name);
enum err decision_refuse_missing(struct decision *decision, const char *kind, struct slice name);
/* "inequivalent arg", of a field that is otherwise than received. */
enum err decision_refuse_bool(struct decision *decision, const char *field, bool received);
enum err decision_refuse_locked(struct decision *decision);
/* The name belongs to a queue of the other type. */
enum err decision_refuse_type(struct decision *decision, const char *received, const char *current);
/* Is the argument what it was in the declaration that is in force? */
enum err decision_compare(struct decision *decision, const char *name, struct args current);
/* "operation not permitted on the default exchange" */
enum err decision_refuse_default(struct decision *decision);
enum err decision_refuse_reserved(struct decision *decision, const char *kind);
/* Arguments of a queue, and those that name an exchange. */
enum err decision_check_queue_args(struct decision *decision);
enum err decision_check_exchange_arg(struct decision *decision, const char *name);

bool name_begins_amq(struct slice name);
/* Exclusive queues are for their connection; `owner` 0 is the broker itself. */
bool request_may_touch(const struct catalog_request *request, const struct queue_def *queue);

/* Adds a change; durable when it concerns what is durable. */
enum err decision_emit(struct decision *decision, const struct change *change, bool durable);
/* Adds the removal of auto-delete exchanges that lose their last binding when `first` goes (an
 * object, or, with `edge`, that one edge). */
enum err decision_cascade(struct decision *decision, uint64_t first, const struct edge *edge);

#endif
