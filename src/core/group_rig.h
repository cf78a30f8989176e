/* For tests: consumer groups on a cell that is only what groups need of one: a clock, timers, a
 * journal in memory and a list of answers. */
#ifndef WEIR_CORE_GROUP_RIG_H
#define WEIR_CORE_GROUP_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/memory_double.h"
#include "core/cell_state.h"
#include "core/group.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RIG_ANSWERS_MAX = 8192 };

struct rig_record {
    uint8_t *bytes;
    size_t len;
};

struct rig {
    struct cell cell; /* first member */
    struct event answers[RIG_ANSWERS_MAX];
    bool durable[RIG_ANSWERS_MAX];
    uint32_t answer_count;
    struct rig_record records[RIG_ANSWERS_MAX];
    uint32_t record_count;
    uint64_t tag;
    uint64_t random;
    enum err append_err; /* what the journal says */
};

/* ---- The cell ---- */

enum err cell_append(struct cell *cell, struct record *record, bool durable,
                     const struct slice *pieces, uint32_t piece_count)
{
    struct rig *rig = (struct rig *)cell;
    assert_int_equal(record->type, RECORD_GROUP);
    assert_true(durable);
    assert_int_equal(piece_count, 1);
    if (rig->append_err != ERR_NONE)
        return rig->append_err;
    assert_true(rig->record_count < RIG_ANSWERS_MAX);
    struct rig_record *kept = &rig->records[rig->record_count++];
    kept->len = pieces->len;
    memory_pause();
    kept->bytes = malloc(kept->len);
    memory_resume();
    memcpy(kept->bytes, pieces->data, kept->len);
    record->bytes = slice_make(kept->bytes, kept->len);
    return groups_apply(cell->groups, record, rig->record_count);
}

void cell_answer(struct cell *cell, const struct event *event, bool durable)
{
    struct rig *rig = (struct rig *)cell;
    assert_true(rig->answer_count < RIG_ANSWERS_MAX);
    rig->durable[rig->answer_count] = durable;
    rig->answers[rig->answer_count++] = *event;
}

void cell_timer(struct cell *cell, struct timer *timer, int64_t at_ms)
{
    memory_pause();
    assert_true(heap_set(&cell->timers, &timer->node, at_ms));
    memory_resume();
}

void cell_timer_off(struct cell *cell, struct timer *timer)
{
    heap_remove(&cell->timers, &timer->node);
}

void cell_touch(struct cell *cell, struct tracked *tracked)
{
    list_remove(&tracked->link);
    list_insert(&cell->changed, &tracked->link);
}

uint8_t *cell_object_space(struct cell *cell, size_t size)
{
    cell->object_bytes = realloc(cell->object_bytes, size);
    return cell->object_bytes;
}

static inline struct rig *rig_create(void)
{
    struct rig *rig = calloc(1, sizeof *rig);
    list_init(&rig->cell.changed);
    rig->cell.now_ms = 1000;
    rig->cell.groups = groups_create(&rig->cell);
    assert_non_null(rig->cell.groups);
    return rig;
}

static inline void rig_destroy(struct rig *rig)
{
    groups_destroy(rig->cell.groups);
    heap_done(&rig->cell.timers);
    free(rig->cell.object_bytes);
    for (uint32_t i = 0; i < rig->answer_count; i++)
        parts_destroy(rig->answers[i].parts);
    for (uint32_t i = 0; i < rig->record_count; i++)
        free(rig->records[i].bytes);
    free(rig);
}

/* Time goes on; what is due happens. */
static inline void rig_wait(struct rig *rig, int64_t ms)
{
    int64_t end = rig->cell.now_ms + ms;
    for (struct heap_node *top; (top = heap_top(&rig->cell.timers)) != NULL && top->due <= end;) {
        if (top->due > rig->cell.now_ms)
            rig->cell.now_ms = top->due;
        struct timer *timer = (struct timer *)top;
        heap_remove(&rig->cell.timers, top);
        timer->fire(&rig->cell, timer);
    }
    rig->cell.now_ms = end;
}

/* ---- Requests ---- */

/* Sends it; the answer will have the tag that is returned. */
static inline uint64_t rig_send(struct rig *rig, struct group_request request)
{
    memory_pause();
    struct parts *parts = parts_create(4096);
    struct group_request *root = arena_alloc(&parts->arena, sizeof *root);
    memory_resume();
    *root = request;
    parts->root = root;
    struct command command = {
        .type = COMMAND_GROUP,
        .asker = {.conn = 1, .tag = ++rig->tag},
        .object = group_object(request.group),
        .parts = parts,
    };
    groups_command(rig->cell.groups, &command);
    return rig->tag;
}

/* NULL: not answered yet. */
static inline const struct event *rig_answer(const struct rig *rig, uint64_t tag)
{
    const struct event *found = NULL;
    for (uint32_t i = 0; i < rig->answer_count; i++) {
        if (rig->answers[i].asker.tag == tag) {
            assert_null(found);
            found = &rig->answers[i];
        }
    }
    return found;
}

static inline const struct group_answer *rig_expect(const struct rig *rig, uint64_t tag,
                                                    enum err err)
{
    const struct event *event = rig_answer(rig, tag);
    assert_non_null(event);
    assert_int_equal(event->err, err);
    assert_non_null(event->parts);
    return event->parts->root;
}

static inline const struct group_answer *rig_ask(struct rig *rig, struct group_request request,
                                                 enum err err)
{
    return rig_expect(rig, rig_send(rig, request), err);
}

static inline struct slice rig_text(const char *text)
{
    return text != NULL ? slice_of(text) : (struct slice){0};
}

static const struct group_protocol RIG_RANGE[] = {
    {{(const uint8_t *)"range", 5}, {(const uint8_t *)"m", 1}}};

static inline struct group_request rig_join(struct rig *rig, const char *member)
{
    return (struct group_request){
        .op = GROUP_JOIN,
        .group = slice_of("g"),
        .member = slice_of(member),
        .client_id = slice_of("client"),
        .client_host = slice_of("/1.2.3.4"),
        .generation = -1,
        .protocol_type = slice_of("consumer"),
        .protocols = RIG_RANGE,
        .protocol_count = 1,
        .session_timeout_ms = 10000,
        .rebalance_timeout_ms = 60000,
        .random = {++rig->random, 7},
    };
}

static inline struct group_request rig_member(enum group_op op, const char *member,
                                              int32_t generation)
{
    return (struct group_request){
        .op = op, .group = slice_of("g"), .member = slice_of(member), .generation = generation};
}

static inline const char *rig_c(struct slice slice)
{
    static char texts[64][256];
    static int next;
    char *text = texts[next++ % 64];
    snprintf(text, 256, "%.*s", (int)slice.len, (const char *)slice.data);
    return text;
}

#define assert_text(slice, text) assert_string_equal(rig_c(slice), text)

/* One member that joined an empty group and got its assignment; its id. */
static inline const char *rig_settle_one(struct rig *rig, int32_t *generation)
{
    static char id[256];
    uint64_t tag = rig_send(rig, rig_join(rig, ""));
    rig_wait(rig, 400);
    const struct group_answer *joined = rig_expect(rig, tag, ERR_NONE);
    snprintf(id, sizeof id, "%s", rig_c(joined->member));
    *generation = joined->generation;
    struct group_assignment assignment = {slice_of(id), slice_of("all")};
    struct group_request sync = rig_member(GROUP_SYNC, id, joined->generation);
    sync.assignments = &assignment;
    sync.assignment_count = 1;
    assert_text(rig_ask(rig, sync, ERR_NONE)->assignment, "all");
    return id;
}

static inline void rig_heartbeat(struct rig *rig, const char *member, int32_t generation,
                                 enum err err)
{
    rig_ask(rig, rig_member(GROUP_HEARTBEAT, member, generation), err);
}

/* The offset committed for a partition, -1: none. */
static inline int64_t rig_offset(struct rig *rig, const char *topic, uint32_t partition)
{
    struct group_offset asked = {.topic = slice_of(topic), .partition = partition};
    struct group_request request = rig_member(GROUP_OFFSETS, "", -1);
    request.offsets = &asked;
    request.offset_count = 1;
    return rig_ask(rig, request, ERR_NONE)->offsets[0].offset;
}

static inline const char *rig_state_of(struct rig *rig)
{
    return rig_c(rig_ask(rig, rig_member(GROUP_DESCRIBE, "", -1), ERR_NONE)->groups[0].state);
}

#endif
