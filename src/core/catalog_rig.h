/* For tests: a catalog that requests are decided against, and a copy that is fed with the changes,
 * as a shard's is. */
#ifndef WEIR_CORE_CATALOG_RIG_H
#define WEIR_CORE_CATALOG_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/catalog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct rig {
    struct catalog *catalog, *copy;
    struct catalog_changes changes; /* of the last request */
    struct catalog_problem problem;
};

static inline void rig_init(struct rig *rig)
{
    *rig = (struct rig){.catalog = catalog_create(), .copy = catalog_create()};
    assert_non_null(rig->catalog);
    assert_non_null(rig->copy);
}

static inline void rig_done(struct rig *rig)
{
    free(rig->changes.data);
    catalog_destroy(rig->catalog);
    catalog_destroy(rig->copy);
}

static inline void rig_apply(struct catalog *catalog, const struct catalog_changes *changes)
{
    struct slice rest = slice_make(changes->data, changes->len);
    uint32_t count = 0;
    for (; rest.len > 0; count++) {
        size_t used = 0;
        assert_int_equal(catalog_apply(catalog, rest, &used, NULL, NULL), ERR_NONE);
        rest = slice_make(rest.data + used, rest.len - used);
    }
    assert_int_equal(count, changes->count);
}

static inline enum err rig_try(struct rig *rig, const struct catalog_request *request)
{
    enum err err = catalog_decide(rig->catalog, request, &rig->changes, &rig->problem);
    if (err == ERR_NONE) {
        rig_apply(rig->catalog, &rig->changes);
        rig_apply(rig->copy, &rig->changes);
    }
    return err;
}

/* The request holds; returns the id that it is about. */
static inline uint64_t rig_do(struct rig *rig, struct catalog_request request)
{
    enum err err = rig_try(rig, &request);
    if (err != ERR_NONE)
        print_message("%s\n", rig->problem.text);
    assert_int_equal(err, ERR_NONE);
    return rig->changes.id;
}

/* The request is refused with that error and text. */
static inline void rig_refused(struct rig *rig, struct catalog_request request, enum err err,
                               const char *text)
{
    assert_int_equal(rig_try(rig, &request), err);
    assert_string_equal(rig->problem.text, text);
}

static inline struct catalog_request rig_queue(const char *name)
{
    return (struct catalog_request){
        .op = CATALOG_DECLARE_QUEUE, .name = slice_of(name), .durable = true, .owner = 7};
}

static inline struct catalog_request rig_exchange(const char *name, enum exchange_type type)
{
    return (struct catalog_request){.op = CATALOG_DECLARE_EXCHANGE,
                                    .name = slice_of(name),
                                    .type = type,
                                    .durable = true,
                                    .owner = 7};
}

static inline struct catalog_request rig_topic(const char *name, uint32_t partitions)
{
    struct catalog_request request = {.op = CATALOG_CREATE_TOPIC,
                                      .name = slice_of(name),
                                      .partitions = partitions,
                                      .durable = true};
    size_t len = strlen(name);
    memcpy(request.uuid, name, len < 16 ? len : 16);
    return request;
}

static inline struct catalog_request rig_bind(const char *source, enum target_kind kind,
                                              const char *target, const char *key)
{
    return (struct catalog_request){.op = CATALOG_BIND,
                                    .name = slice_of(source),
                                    .target_kind = kind,
                                    .target = slice_of(target),
                                    .key = slice_of(key),
                                    .owner = 7};
}

static inline struct catalog_request rig_op(enum catalog_op op, const char *name)
{
    return (struct catalog_request){.op = op, .name = slice_of(name), .owner = 7};
}

static inline struct arg rig_int(const char *name, int64_t number)
{
    return (struct arg){
        .name = slice_of(name), .kind = ARG_INT, .wire_type = 'I', .number = number};
}

static inline struct arg rig_text(const char *name, const char *text)
{
    return (struct arg){
        .name = slice_of(name), .kind = ARG_TEXT, .wire_type = 'S', .text = slice_of(text)};
}

static inline struct arg rig_bool(const char *name, bool value)
{
    return (struct arg){
        .name = slice_of(name), .kind = ARG_BOOL, .wire_type = 't', .number = value};
}

/* The request with these arguments; they must outlive its use. */
#define rig_with(request, ...)                                                                     \
    rig_with_args((request), (const struct arg[]){__VA_ARGS__},                                    \
                  sizeof((const struct arg[]){__VA_ARGS__}) / sizeof(struct arg))

static inline struct catalog_request rig_with_args(struct catalog_request request,
                                                   const struct arg *items, size_t count)
{
    request.args = (struct args){items, (uint32_t)count};
    return request;
}

/* ---- All changes of a catalog, to compare ---- */

struct rig_dump {
    uint8_t *changes[4096];
    size_t lengths[4096];
    uint32_t count;
};

static inline enum err rig_gather(void *ctx, struct slice change)
{
    struct rig_dump *dump = ctx;
    assert_true(dump->count < 4096);
    uint8_t *copy = malloc(change.len);
    memcpy(copy, change.data, change.len);
    dump->changes[dump->count] = copy;
    dump->lengths[dump->count++] = change.len;
    return ERR_NONE;
}

static inline struct rig_dump *rig_dump(const struct catalog *catalog, bool durable_only)
{
    struct rig_dump *dump = calloc(1, sizeof *dump);
    assert_int_equal(catalog_dump(catalog, durable_only, rig_gather, dump), ERR_NONE);
    return dump;
}

static inline void rig_dump_done(struct rig_dump *dump)
{
    for (uint32_t i = 0; i < dump->count; i++)
        free(dump->changes[i]);
    free(dump);
}

/* The same changes, in any order. */
static inline bool rig_dump_equal(const struct rig_dump *a, const struct rig_dump *b)
{
    if (a->count != b->count)
        return false;
    bool used[4096] = {0};
    for (uint32_t i = 0; i < a->count; i++) {
        bool found = false;
        for (uint32_t j = 0; j < b->count && !found; j++) {
            if (!used[j] && a->lengths[i] == b->lengths[j] &&
                memcmp(a->changes[i], b->changes[j], a->lengths[i]) == 0)
                used[j] = found = true;
        }
        if (!found)
            return false;
    }
    return true;
}

static inline bool rig_same(const struct catalog *a, const struct catalog *b, bool durable_only)
{
    struct rig_dump *left = rig_dump(a, durable_only), *right = rig_dump(b, durable_only);
    bool same = rig_dump_equal(left, right);
    rig_dump_done(left);
    rig_dump_done(right);
    return same;
}

/* A catalog made from a dump of another. */
static inline struct catalog *rig_rebuild(const struct catalog *catalog, bool durable_only)
{
    struct catalog *copy = catalog_create();
    struct rig_dump *dump = rig_dump(catalog, durable_only);
    for (uint32_t i = 0; i < dump->count; i++) {
        size_t used = 0;
        struct slice change = slice_make(dump->changes[i], dump->lengths[i]);
        assert_int_equal(catalog_apply(copy, change, &used, NULL, NULL), ERR_NONE);
        assert_int_equal(used, change.len);
    }
    rig_dump_done(dump);
    return copy;
}

#endif
