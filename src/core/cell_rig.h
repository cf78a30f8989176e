/* For tests: cells on a simulated disk, driven as a shard drives them. The rig holds the catalog's
 * copy, carries what cells send each other, and keeps every event for a connection until the test
 * asks for it. Time passes in rig_run only. */
#ifndef WEIR_CORE_CELL_RIG_H
#define WEIR_CORE_CELL_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/memory_double.h"
#include "codec/entry.h"
#include "core/cell_state.h"
#include "core/partition.h"
#include "core/queue.h"
#include "io/sim.h"
#include "store/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RIG_CELLS = 4, RIG_TEXT = 64, RIG_ENTRIES = 64 };

/* An event as a connection saw it. */
struct rig_event {
    struct list link;
    struct event event;  /* its slices and pointers do not hold */
    char text[RIG_TEXT]; /* DELIVER: the body; ANSWER: the words */
    struct rig_entry {
        uint64_t base;
        uint32_t count;
        size_t len;
    } entries[RIG_ENTRIES];
    bool seen;
};

enum rig_mail_type { RIG_COMMAND, RIG_PUBLISH, RIG_EVENT, RIG_CHANGE };

struct rig_mail {
    struct list link;
    enum rig_mail_type type;
    uint32_t cell;
    union {
        struct command command;
        struct event event;
        struct {
            struct cell_publish publish;
            uint64_t targets[256];
        };
    };
    bool has_answer;
    size_t len;
    uint8_t bytes[];
};

struct rig {
    struct sim *sim;
    struct state_memory *states;
    const struct state_backend *state; /* in place of states, when it is not NULL */
    uint32_t cells;
    struct cell *cell[RIG_CELLS];
    struct catalog *catalog;
    struct list events, mail;
    uint64_t segment_bytes, memory_limit, checkpoint_ms;
    bool os; /* durability */
    enum err failed;
    uint32_t stopped;
    bool running;
    uint64_t tag, seq;
    void (*hook)(struct rig *rig, const struct event *event); /* sees events first */
    void *hook_ctx;
    uint64_t account;
    uint32_t unreadable;
    uint64_t copy_memory; /* the n-th allocation of the next publish between cells fails; 0: none */
};

/* ---- What the cells send ---- */

static inline struct rig_mail *rig_post(struct rig *rig, enum rig_mail_type type, uint32_t cell,
                                        size_t len)
{
    memory_pause();
    struct rig_mail *mail = calloc(1, sizeof *mail + len);
    memory_resume();
    assert_non_null(mail);
    mail->type = type;
    mail->cell = cell;
    mail->len = len;
    list_insert(&rig->mail, &mail->link);
    sim_wake(rig->sim, 0);
    return mail;
}

static inline void rig_keep(struct rig *rig, const struct event *event)
{
    if (rig->hook != NULL)
        rig->hook(rig, event);
    memory_pause();
    struct rig_event *kept = calloc(1, sizeof *kept);
    memory_resume();
    assert_non_null(kept);
    kept->event = *event;
    kept->event.parts = NULL;
    if (event->type == EVENT_DELIVER) {
        uint32_t body = entry_body_bytes(event->deliver.entry);
        const uint8_t *at = event->deliver.entry.data + event->deliver.entry.len - body;
        memcpy(kept->text, at, body < RIG_TEXT - 1 ? body : RIG_TEXT - 1);
    } else if (event->detail.len > 0) {
        memcpy(kept->text, event->detail.data,
               event->detail.len < RIG_TEXT - 1 ? event->detail.len : RIG_TEXT - 1);
    }
    for (uint32_t i = 0; event->type == EVENT_READ && i < event->read.count; i++) {
        const struct entry *entry = &event->read.entries[i];
        if (i < RIG_ENTRIES)
            kept->entries[i] = (struct rig_entry){entry->base, entry->count, entry->data.len};
        buf_unref(entry->buf);
    }
    list_insert(&rig->events, &kept->link);
    parts_destroy(event->parts);
}

static inline void rig_out_event(void *ctx, const struct event *event)
{
    struct rig *rig = ctx;
    if ((event->asker.conn & CELL_ASKER) == 0) {
        rig_keep(rig, event);
        return;
    }
    struct rig_mail *mail = rig_post(rig, RIG_EVENT, (uint32_t)(event->asker.conn & 0xff), 0);
    mail->event = *event;
    mail->event.detail = (struct slice){0};
}

static inline void rig_out_command(void *ctx, const struct command *command)
{
    struct rig *rig = ctx;
    uint32_t cell = command->type == COMMAND_CATALOG || command->type == COMMAND_PRODUCER_ID
                        ? 0
                        : cell_of(command->object, rig->cells);
    rig_post(rig, RIG_COMMAND, cell, 0)->command = *command;
}

static inline void rig_out_publish(void *ctx, uint32_t cell, const struct cell_publish *publish)
{
    size_t len = publish->pieces[0].len + publish->pieces[1].len + publish->pieces[2].len;
    struct rig_mail *mail = rig_post(ctx, RIG_PUBLISH, cell, len);
    mail->publish = *publish;
    assert_true(publish->target_count <= 256);
    memcpy(mail->targets, publish->targets, publish->target_count * sizeof *publish->targets);
    mail->publish.targets = mail->targets;
    uint8_t *at = mail->bytes;
    for (int i = 0; i < 3; i++) {
        if (publish->pieces[i].len > 0)
            memcpy(at, publish->pieces[i].data, publish->pieces[i].len);
        at += publish->pieces[i].len;
        mail->publish.pieces[i] = (struct slice){0};
    }
    mail->publish.pieces[0] = slice_make(mail->bytes, len);
}

static inline void rig_out_change(void *ctx, struct slice changes, const struct event *answer)
{
    struct rig *rig = ctx;
    size_t words = answer->detail.len;
    struct rig_mail *mail = rig_post(rig, RIG_CHANGE, 0, changes.len + words);
    mail->len = changes.len;
    if (changes.len > 0)
        memcpy(mail->bytes, changes.data, changes.len);
    if (words > 0)
        memcpy(mail->bytes + changes.len, answer->detail.data, words);
    mail->event = *answer;
    mail->event.detail = slice_make(mail->bytes + changes.len, words);
    mail->has_answer = answer->asker.conn != 0;
}

static inline void rig_out_failed(void *ctx, enum err err)
{
    ((struct rig *)ctx)->failed = err;
}

static inline void rig_out_unreadable(void *ctx, uint64_t stream, uint64_t offset, enum err err)
{
    (void)stream, (void)offset, (void)err;
    ((struct rig *)ctx)->unreadable++;
}

static const struct cell_out rig_out = {
    .event = rig_out_event,
    .command = rig_out_command,
    .publish = rig_out_publish,
    .change = rig_out_change,
    .failed = rig_out_failed,
    .unreadable = rig_out_unreadable,
};

/* ---- The catalog's copy: its own memory does not run out, that of the cells may ---- */

static inline struct cell *rig_cell(struct rig *rig, uint64_t object)
{
    return rig->cell[cell_of(object, rig->cells)];
}

static inline void rig_queue_added(void *ctx, const struct queue_def *queue)
{
    memory_resume();
    cell_queue_added(rig_cell(ctx, queue->id), queue);
    memory_pause();
}

static inline void rig_queue_removed(void *ctx, const struct queue_def *queue)
{
    memory_resume();
    cell_queue_removed(rig_cell(ctx, queue->id), queue);
    memory_pause();
}

static inline void rig_topic_added(void *ctx, const struct topic *topic, uint32_t first_new)
{
    (void)first_new;
    memory_resume();
    for (uint32_t i = 0; i < topic->partition_count; i++)
        cell_partition_added(rig_cell(ctx, topic->partitions[i]), topic, i);
    memory_pause();
}

static inline void rig_topic_removed(void *ctx, const struct topic *topic)
{
    memory_resume();
    for (uint32_t i = 0; i < topic->partition_count; i++)
        cell_partition_removed(rig_cell(ctx, topic->partitions[i]), topic->partitions[i]);
    memory_pause();
}

static inline enum err rig_apply(void *ctx, struct slice changes)
{
    static const struct catalog_listener listener = {
        .queue_added = rig_queue_added,
        .queue_removed = rig_queue_removed,
        .topic_added = rig_topic_added,
        .topic_removed = rig_topic_removed,
    };
    struct rig *rig = ctx;
    while (changes.len > 0) {
        size_t used = 0;
        memory_pause();
        assert_int_equal(catalog_apply(rig->catalog, changes, &used, &listener, rig), ERR_NONE);
        memory_resume();
        changes = slice_make(changes.data + used, changes.len - used);
    }
    return ERR_NONE;
}

/* ---- Turns ---- */

static inline void rig_times(struct rig *rig)
{
    for (uint32_t i = 0; i < rig->cells; i++)
        cell_turn(rig->cell[i], sim_now_ms(rig->sim), sim_wall_ms(rig->sim));
}

static inline void rig_deliver(struct rig *rig, struct rig_mail *mail)
{
    switch (mail->type) {
    case RIG_COMMAND:
        cell_command(rig->cell[mail->cell], &mail->command);
        break;
    case RIG_PUBLISH:
        if (rig->copy_memory != 0)
            memory_fail_at(rig->copy_memory, 0);
        cell_publish(rig->cell[mail->cell], &mail->publish);
        if (rig->copy_memory != 0)
            memory_fail_at(0, 0);
        rig->copy_memory = 0;
        break;
    case RIG_EVENT:
        cell_event(rig->cell[mail->cell], &mail->event);
        parts_destroy(mail->event.parts);
        break;
    case RIG_CHANGE:
        rig_apply(rig, slice_make(mail->bytes, mail->len));
        if (mail->has_answer)
            rig_out_event(rig, &mail->event);
        break;
    }
    free(mail);
}

static inline int64_t rig_turn(void *ctx)
{
    struct rig *rig = ctx;
    int64_t due = INT64_MAX, now = sim_now_ms(rig->sim);
    rig_times(rig);
    while (!list_empty(&rig->mail)) {
        struct rig_mail *mail = list_entry(rig->mail.next, struct rig_mail, link);
        list_remove(&mail->link);
        rig_deliver(rig, mail);
    }
    for (uint32_t i = 0; i < rig->cells; i++) {
        if (cell_work(rig->cell[i], false))
            due = now;
        int64_t deadline = cell_deadline(rig->cell[i]);
        due = deadline < due ? deadline : due;
    }
    return !list_empty(&rig->mail) ? now : due;
}

/* Lets that much time pass. */
static inline void rig_run(struct rig *rig, int64_t ms)
{
    if (!rig->running)
        sim_shard_start(rig->sim, 0, rig_turn, rig);
    rig->running = true;
    sim_wake(rig->sim, 0);
    sim_run_until(rig->sim, sim_now_us(rig->sim) + ms * 1000);
    rig_times(rig);
}

/* ---- Life ---- */

static inline void rig_init(struct rig *rig, uint64_t seed, uint32_t cells)
{
    struct sim_config config = {0};
    *rig = (struct rig){.cells = cells,
                        .segment_bytes = 1 << 20,
                        .memory_limit = 64 << 20,
                        .checkpoint_ms = 600 * 1000};
    list_init(&rig->events);
    list_init(&rig->mail);
    rig->sim = sim_create(seed, &config);
    rig->states = state_memory_create();
    assert_true(cells <= RIG_CELLS);
}

static inline enum err rig_open_cells(struct rig *rig)
{
    rig->failed = ERR_NONE;
    rig->running = false;
    memory_pause();
    rig->catalog = catalog_create();
    memory_resume();
    assert_non_null(rig->catalog);
    for (uint32_t i = 0; i < rig->cells; i++) {
        char path[16];
        snprintf(path, sizeof path, "cell-%u", i);
        struct cell_config config = {
            .number = i,
            .cells = rig->cells,
            .out = &rig_out,
            .ctx = rig,
            .catalog = rig->catalog,
            .store = {.path = path,
                      .disk = sim_disk(rig->sim, 0),
                      .state = rig->state != NULL ? rig->state : state_memory_backend(rig->states),
                      .cell = i,
                      .sync = !rig->os,
                      .segment_bytes = rig->segment_bytes,
                      .memory_limit = rig->memory_limit,
                      .checkpoint_ms = rig->checkpoint_ms,
                      .memory_bytes = &rig->account}};
        enum err err = cell_open(&config, sim_wall_ms(rig->sim), &rig->cell[i]);
        if (err != ERR_NONE)
            return err;
    }
    return ERR_NONE;
}

/* The definitions come. */
static inline void rig_feed(struct rig *rig)
{
    rig_times(rig);
    assert_int_equal(cell_dump_catalog(rig->cell[0], rig_apply, rig), ERR_NONE);
    for (uint32_t i = 0; i < rig->cells; i++)
        cell_ready(rig->cell[i]);
    rig_run(rig, 1);
}

static inline void rig_open(struct rig *rig)
{
    assert_int_equal(rig_open_cells(rig), ERR_NONE);
    rig_feed(rig);
}

static inline void rig_forget(struct rig *rig)
{
    list_each(node, &rig->events)
    {
        list_remove(node);
        free(list_entry(node, struct rig_event, link));
    }
}

static inline void rig_destroy_cells(struct rig *rig)
{
    for (uint32_t i = 0; i < rig->cells; i++) {
        if (rig->cell[i] != NULL)
            cell_destroy(rig->cell[i]);
        rig->cell[i] = NULL;
    }
    list_each(node, &rig->mail)
    {
        struct rig_mail *mail = list_entry(node, struct rig_mail, link);
        list_remove(node);
        if (mail->type == RIG_COMMAND)
            parts_destroy(mail->command.parts);
        free(mail);
    }
    catalog_destroy(rig->catalog);
    rig->catalog = NULL;
    rig_forget(rig);
    assert_int_equal(rig->account, 0);
}

static inline void rig_crash(struct rig *rig, enum sim_crash kind)
{
    sim_crash(rig->sim, 0, kind);
    rig_destroy_cells(rig);
    sim_restart(rig->sim, 0);
}

/* A crash and the start after it. */
static inline void rig_restart(struct rig *rig, enum sim_crash kind)
{
    rig_crash(rig, kind);
    rig_open(rig);
}

static inline void rig_stopped(void *ctx, enum err err)
{
    struct rig *rig = ctx;
    assert_int_equal(err, ERR_NONE);
    rig->stopped++;
}

/* An orderly stop and a start. */
static inline void rig_stop(struct rig *rig)
{
    rig->stopped = 0;
    for (uint32_t i = 0; i < rig->cells; i++)
        cell_stop(rig->cell[i], rig_stopped, rig);
    rig_run(rig, 1000);
    assert_int_equal(rig->stopped, rig->cells);
    rig_crash(rig, SIM_POWER_CUT); /* nothing may be lost by it any more */
}

static inline void rig_done(struct rig *rig)
{
    rig_crash(rig, SIM_KILL);
    sim_destroy(rig->sim);
    state_memory_destroy(rig->states);
}

/* ---- Events ---- */

/* A rig of the heap with its cells open, and the end of one. */
static inline struct rig *rig_begin(uint32_t cells)
{
    struct rig *rig = malloc(sizeof *rig);
    rig_init(rig, 1, cells);
    rig_open(rig);
    return rig;
}

static inline void rig_end(struct rig *rig)
{
    rig_done(rig);
    free(rig);
}

/* The next event of that type for the connection that was not looked at yet, NULL: none. */
static inline struct rig_event *rig_next(struct rig *rig, enum event_type type, uint64_t conn)
{
    list_each(node, &rig->events)
    {
        struct rig_event *event = list_entry(node, struct rig_event, link);
        if (event->seen || event->event.type != type || event->event.asker.conn != conn)
            continue;
        event->seen = true;
        return event;
    }
    return NULL;
}

/* The connection got that message next. Returns its delivery. */
static inline const struct delivery *rig_got(struct rig *rig, uint64_t conn, const char *text)
{
    struct rig_event *event = rig_next(rig, EVENT_DELIVER, conn);
    if (event == NULL)
        print_message("nothing was delivered in place of %s\n", text);
    assert_non_null(event);
    assert_string_equal(event->text, text);
    return &event->event.deliver;
}

static inline void rig_got_nothing(struct rig *rig, uint64_t conn)
{
    struct rig_event *event = rig_next(rig, EVENT_DELIVER, conn);
    if (event != NULL)
        print_message("delivered: %s\n", event->text);
    assert_null(event);
}

/* Sends a command and takes its answer, which must come within a second. */
static inline struct event rig_ask(struct rig *rig, struct command command)
{
    if (command.asker.conn == 0)
        command.asker.conn = 1;
    command.asker.tag = ++rig->tag;
    rig_times(rig);
    uint32_t cell = command.type == COMMAND_CATALOG || command.type == COMMAND_PRODUCER_ID
                        ? 0
                        : cell_of(command.object, rig->cells);
    cell_command(rig->cell[cell], &command);
    for (int i = 0; i < 100; i++) {
        list_each(node, &rig->events)
        {
            struct rig_event *event = list_entry(node, struct rig_event, link);
            if (!event->seen && event->event.type == EVENT_ANSWER &&
                event->event.asker.tag == command.asker.tag) {
                event->seen = true;
                return event->event;
            }
        }
        rig_run(rig, 10);
    }
    fail_msg("no answer");
    return (struct event){.type = EVENT_ANSWER};
}

/* Sends a command that has no answer, or whose answer is of no interest. */
static inline void rig_tell(struct rig *rig, struct command command)
{
    rig_times(rig);
    cell_command(rig_cell(rig, command.object), &command);
}

#endif
