/* Requests about bindings. */
#include "core/catalog_decision.h"

/* ---- Bindings ---- */

/* A queue's name may be that of a topic. */
static const struct object *find_end(const struct decision *decision, enum target_kind kind,
                                     struct slice name)
{
    uint32_t ns = decision->request->namespace_id;
    const struct object *object = object_find(decision->catalog, kind, ns, name);
    if (object == NULL && kind == TARGET_QUEUE)
        object = object_find(decision->catalog, TARGET_TOPIC, ns, name);
    return object;
}

/* The exchange of that name or, there being none, the topic. */
static const struct object *find_source(const struct decision *decision)
{
    const struct catalog_request *request = decision->request;
    const struct object *object = find_end(decision, TARGET_EXCHANGE, request->name);
    return object != NULL ? object : find_end(decision, TARGET_TOPIC, request->name);
}

static enum err check_headers(struct decision *decision)
{
    const struct arg *match = args_find(decision->request->args, "x-match");
    if (match == NULL)
        return ERR_NONE;
    char value[200];
    arg_print(match, value, sizeof value);
    if (match->kind != ARG_TEXT)
        return decision_refuse(decision, ERR_INVALID,
                               "Invalid x-match field type %s (value %s); expected longstr",
                               arg_type_name(match), value);
    static const char *const modes[] = {"all", "any", "all-with-x", "any-with-x"};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        if (slice_equal(match->text, slice_of(modes[i])))
            return ERR_NONE;
    }
    return decision_refuse(
        decision, ERR_INVALID,
        "Invalid x-match field value <<\"%s\">>; expected all, any, all-with-x, or any-with-x",
        value);
}

static struct binding binding_of(const struct decision *decision, const struct object *from,
                                 const struct object *to)
{
    return (struct binding){
        .source_kind = from->kind,
        .target_kind = to->kind,
        .source = object_id(from),
        .target = object_id(to),
        .key = decision->request->key,
        .args = decision->request->args,
    };
}

static enum err emit_binding(struct decision *decision, enum change_type type,
                             const struct object *from, const struct object *to)
{
    struct change change = {
        .type = type,
        .id = object_id(from),
        .source_kind = from->kind,
        .target_kind = to->kind,
        .target = object_id(to),
        .name = decision->request->key,
        .args = decision->request->args,
    };
    return decision_emit(decision, &change, object_durable(from) && object_durable(to));
}

static bool touches_default(const struct catalog_request *request)
{
    return request->name.len == 0 ||
           (request->target_kind == TARGET_EXCHANGE && request->target.len == 0);
}

enum err decide_bind(struct decision *decision)
{
    const struct catalog_request *request = decision->request;
    if (touches_default(request))
        return decision_refuse_default(decision);
    const struct object *from = find_source(decision);
    if (from == NULL)
        return decision_refuse_missing(decision, "exchange", request->name);
    const struct object *to = find_end(decision, request->target_kind, request->target);
    const char *kind = request->target_kind == TARGET_EXCHANGE ? "exchange" : "queue";
    if (to == NULL)
        return decision_refuse_missing(decision, kind, request->target);
    decision_subject(decision, kind, request->target);
    if (to->kind == TARGET_QUEUE && !request_may_touch(request, &to->queue))
        return decision_refuse_locked(decision);
    if (from->kind == TARGET_EXCHANGE && from->exchange.type == EXCHANGE_HEADERS) {
        enum err err = check_headers(decision);
        if (err != ERR_NONE)
            return err;
    }
    struct binding binding = binding_of(decision, from, to);
    decision->out->id = object_id(from);
    if (edge_find(decision->catalog, &binding) != NULL) {
        decision->out->existed = true;
        return ERR_NONE;
    }
    return emit_binding(decision, CHANGE_BIND, from, to);
}

enum err decide_unbind(struct decision *decision)
{
    const struct catalog_request *request = decision->request;
    if (touches_default(request))
        return decision_refuse_default(decision);
    const struct object *from = find_source(decision);
    const struct object *to = find_end(decision, request->target_kind, request->target);
    if (from == NULL || to == NULL)
        return ERR_NONE;
    if (to->kind == TARGET_QUEUE && !request_may_touch(request, &to->queue)) {
        decision_subject(decision, "queue", request->target);
        return decision_refuse_locked(decision);
    }
    struct binding binding = binding_of(decision, from, to);
    const struct edge *edge = edge_find(decision->catalog, &binding);
    if (edge == NULL)
        return ERR_NONE;
    enum err err = emit_binding(decision, CHANGE_UNBIND, from, to);
    return err != ERR_NONE ? err : decision_cascade(decision, 0, edge);
}
