/* Messages between shards. Each pair of shards has a ring of its own, also a shard with itself:
 * what is asked from inside a cell is run at the top of the loop, never in the middle of another
 * command. Small payloads stand in the message; larger ones in a block on the heap that the
 * receiver frees; the body of a large message in the memory that it was gathered in; deliveries and
 * reads in a journal block that the sender holds a reference to until the receiver's release
 * message comes home. What does not fit the ring is delayed, in order, and slows publishers until
 * it is gone. */
#include "base/buf.h"
#include "shard/state.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAIL_ROUND = 4096,         /* messages from one shard per turn */
    INLINE_MAX = 16 << 10,     /* longest payload inside a message */
    DELIVER_INLINE_MAX = 2048, /* above it a delivery refers to the journal block */
};

enum mail_kind {
    MAIL_COMMAND,
    MAIL_PUBLISH,
    MAIL_EVENT,
    MAIL_CHANGE,
    MAIL_CHANGE_DONE,
    MAIL_RELEASE,
};

struct mail {
    enum mail_kind kind;
    uint32_t cell;
    union {
        struct command command;
        struct {
            struct asker asker;
            uint64_t seq;
            int64_t expiry_ms;
            bool persistent;
            uint32_t target_count;
            size_t lens[3];
        } publish;
        struct event event;
        struct {
            uint64_t number;
            bool last;
        } change;
        struct {
            struct buf *buf;
            uint32_t references;
        } release;
    };
    uint8_t *heap; /* the payload when it does not stand behind the message */
    size_t len;
    uint8_t *body; /* of a large message: taken over from who gathered it */
};

/* Bytes outside the ring that come with it. */
static uint64_t mail_kept(const struct mail *mail)
{
    return (mail->heap != NULL ? mail->len : 0) + (mail->body != NULL ? mail->publish.lens[2] : 0);
}

/* ---- Sending ---- */

static void *delay(struct shard *shard, uint32_t to, size_t len)
{
    struct delayed *delayed = malloc(sizeof *delayed + len);
    if (delayed == NULL)
        return NULL;
    delayed->len = len;
    list_insert(&shard->delayed[to], &delayed->link);
    shard->delayed_bytes += len;
    return delayed->bytes;
}

/* Space for a message of len bytes to a shard; done with by commit. NULL: no memory. */
static void *reserve(struct shard *shard, uint32_t to, size_t len, bool *delayed)
{
    shard->posted |= UINT64_C(1) << to;
    struct ring *ring = shard->broker->rings[shard->number][to];
    *delayed = !list_empty(&shard->delayed[to]);
    if (!*delayed) {
        void *space = ring_reserve(ring, len);
        if (space != NULL)
            return space;
        *delayed = true;
    }
    return delay(shard, to, len);
}

static void commit(struct shard *shard, uint32_t to, bool delayed)
{
    if (!delayed)
        ring_commit(shard->broker->rings[shard->number][to]);
}

/* Sends mail with its payload in pieces. Out of memory, a message is lost with its asker waiting:
 * the shard is marked failed, which ends the broker rather than let it go on wrong. */
static void send(struct shard *shard, uint32_t to, struct mail *mail, const struct slice *pieces,
                 uint32_t piece_count)
{
    mail->len = 0;
    for (uint32_t i = 0; i < piece_count; i++)
        mail->len += pieces[i].len;
    mail->heap = NULL;
    bool is_inline = mail->len <= INLINE_MAX;
    if (!is_inline && (mail->heap = malloc(mail->len)) == NULL) {
        shard_fail(shard, "out of memory");
        return;
    }
    bool delayed;
    uint8_t *space = reserve(shard, to, sizeof *mail + (is_inline ? mail->len : 0), &delayed);
    if (space == NULL) {
        free(mail->heap);
        shard_fail(shard, "out of memory");
        return;
    }
    memcpy(space, mail, sizeof *mail);
    uint64_t kept = mail_kept(mail);
    if (kept > 0)
        atomic_fetch_add(&shard->broker->mail_bytes[shard->number], kept);
    uint8_t *at = is_inline ? space + sizeof *mail : mail->heap;
    for (uint32_t i = 0; i < piece_count; i++) {
        if (pieces[i].len > 0)
            memcpy(at, pieces[i].data, pieces[i].len);
        at += pieces[i].len;
    }
    commit(shard, to, delayed);
}

static void send_call(struct shard *shard, struct mail *mail, const struct slice *pieces,
                      uint32_t piece_count)
{
    uint32_t to = shard_of_cell(shard->broker, mail->cell);
    if (to == shard->number)
        shard->own_calls++;
    send(shard, to, mail, pieces, piece_count);
}

void mail_command(struct shard *shard, uint32_t cell, const struct command *command)
{
    struct mail mail = {.kind = MAIL_COMMAND, .cell = cell, .command = *command};
    send_call(shard, &mail, &command->data, 1);
}

void mail_publish(struct shard *shard, uint32_t cell, const struct cell_publish *publish)
{
    struct mail mail = {.kind = MAIL_PUBLISH, .cell = cell};
    mail.publish.asker = publish->asker;
    mail.publish.seq = publish->seq;
    mail.publish.expiry_ms = publish->expiry_ms;
    mail.publish.persistent = publish->persistent;
    mail.publish.target_count = publish->target_count;
    struct slice pieces[4] = {
        slice_make(publish->targets, publish->target_count * sizeof *publish->targets)};
    for (int i = 0; i < 3; i++) {
        mail.publish.lens[i] = publish->pieces[i].len;
        pieces[i + 1] = publish->pieces[i];
    }
    if (publish->body != NULL && *publish->body != NULL && mail.publish.lens[2] > INLINE_MAX) {
        mail.body = *publish->body;
        *publish->body = NULL;
        pieces[3] = (struct slice){0};
    }
    send_call(shard, &mail, pieces, 4);
}

/* The receiver gets a reference of its own to every buf that the event refers to. */
void mail_event(struct shard *shard, uint32_t to, const struct event *event)
{
    struct mail mail = {.kind = MAIL_EVENT, .event = *event};
    struct slice payload = event->detail;
    if (event->type == EVENT_DELIVER) {
        payload = (struct slice){0};
        mail.event.deliver.buf = NULL;
        if (event->deliver.entry.len <= DELIVER_INLINE_MAX || event->deliver.buf == NULL)
            payload = event->deliver.entry;
        else
            mail.event.deliver.buf = buf_ref(event->deliver.buf);
    } else if (event->type == EVENT_READ) {
        /* The references that the event hands over go along with the entries. */
        payload = slice_make(event->read.entries, event->read.count * sizeof *event->read.entries);
    }
    if (to == shard->number)
        shard->own_events++;
    send(shard, to, &mail, &payload, 1);
}

void mail_change(struct shard *shard, uint32_t to, uint64_t number, struct slice changes, bool last)
{
    struct mail mail = {.kind = MAIL_CHANGE};
    mail.change.number = number;
    mail.change.last = last;
    send(shard, to, &mail, &changes, 1);
}

void mail_change_done(struct shard *shard, uint64_t number)
{
    struct mail mail = {.kind = MAIL_CHANGE_DONE};
    mail.change.number = number;
    send(shard, shard_of_cell(shard->broker, 0), &mail, NULL, 0);
}

void mail_release(struct shard *shard, struct buf *buf, uint32_t references)
{
    struct mail mail = {.kind = MAIL_RELEASE};
    mail.release.buf = buf;
    mail.release.references = references;
    send(shard, buf->home, &mail, NULL, 0);
}

void mail_flush(struct shard *shard)
{
    struct broker *broker = shard->broker;
    while (shard->posted != 0) {
        uint32_t to = (uint32_t)__builtin_ctzll(shard->posted);
        shard->posted &= shard->posted - 1;
        struct ring *ring = broker->rings[shard->number][to];
        while (!list_empty(&shard->delayed[to])) {
            struct delayed *delayed = list_entry(shard->delayed[to].next, struct delayed, link);
            void *space = ring_reserve(ring, delayed->len);
            if (space == NULL)
                break;
            memcpy(space, delayed->bytes, delayed->len);
            ring_commit(ring);
            shard->delayed_bytes -= delayed->len;
            list_remove(&delayed->link);
            free(delayed);
        }
        if (ring_publish(ring) && to != shard->number)
            broker->wake(broker->wake_ctx, to);
    }
    for (uint32_t to = 0; to < broker->shard_count && shard->delayed_bytes > 0; to++) {
        if (!list_empty(&shard->delayed[to]))
            shard->posted |= UINT64_C(1) << to; /* tried again next turn */
    }
}

/* ---- Receiving ---- */

static void receive_publish(struct shard *shard, const struct mail *mail, const uint8_t *payload)
{
    struct cell_publish publish = {
        .asker = mail->publish.asker,
        .seq = mail->publish.seq,
        .persistent = mail->publish.persistent,
        .expiry_ms = mail->publish.expiry_ms,
        .targets = (const uint64_t *)(const void *)payload, /* messages are 8-byte aligned */
        .target_count = mail->publish.target_count,
    };
    payload += publish.target_count * sizeof *publish.targets;
    for (int i = 0; i < 3; i++) {
        publish.pieces[i] = slice_make(payload, mail->publish.lens[i]);
        payload += mail->publish.lens[i];
    }
    if (mail->body != NULL)
        publish.pieces[2].data = mail->body;
    dispatch_local_publish(shard, mail->cell, &publish);
}

static void receive_event(struct shard *shard, const struct mail *mail, const uint8_t *payload)
{
    struct event event = mail->event;
    if (event.type == EVENT_DELIVER) {
        if (event.deliver.buf == NULL)
            event.deliver.entry = slice_make(payload, mail->len);
        else
            conn_adopt_buf(shard, event.deliver.buf);
    } else if (event.type == EVENT_READ) {
        event.read.entries = (struct entry *)(uintptr_t)(const void *)payload;
        for (uint32_t i = 0; i < event.read.count; i++)
            conn_adopt_buf(shard, event.read.entries[i].buf);
    } else {
        event.detail = slice_make(payload, mail->len);
    }
    dispatch_local_event(shard, &event);
    if (event.type == EVENT_DELIVER && event.deliver.buf != NULL)
        conn_release_buf(shard, event.deliver.buf);
    parts_destroy(event.parts);
}

/* All definitions were fed, unless one of them failed: then what has none must not be dropped. */
static void fed(struct shard *shard)
{
    bool complete = !atomic_load(&shard->broker->failed);
    for (uint32_t i = 0; complete && i < shard->broker->cell_count; i++) {
        if (shard->cells[i] != NULL)
            cell_ready(shard->cells[i]);
    }
    shard->ready = true;
}

static void receive(struct shard *shard, const struct mail *mail)
{
    const uint8_t *payload = mail->heap != NULL ? mail->heap : (const uint8_t *)(mail + 1);
    switch (mail->kind) {
    case MAIL_COMMAND: {
        struct command command = mail->command;
        command.data = slice_make(payload, mail->len);
        dispatch_local_command(shard, mail->cell, &command);
        break;
    }
    case MAIL_PUBLISH:
        receive_publish(shard, mail, payload);
        break;
    case MAIL_EVENT:
        receive_event(shard, mail, payload);
        break;
    case MAIL_CHANGE:
        changes_apply(shard, slice_make(payload, mail->len));
        if (mail->change.last)
            fed(shard);
        else if (mail->change.number != 0)
            mail_change_done(shard, mail->change.number);
        break;
    case MAIL_CHANGE_DONE:
        changes_done(shard, mail->change.number);
        break;
    case MAIL_RELEASE:
        for (uint32_t i = 0; i < mail->release.references; i++)
            buf_unref(mail->release.buf);
        break;
    }
    free(mail->heap);
    free(mail->body);
}

/* True when the round ended before the ring was empty. */
static bool work_from(struct shard *shard, uint32_t from)
{
    struct ring *ring = shard->broker->rings[from][shard->number];
    for (int left = MAIL_ROUND; left > 0; left--) {
        size_t len;
        const struct mail *mail = ring_peek(ring, &len);
        if (mail == NULL)
            return false;
        receive(shard, mail);
        uint64_t kept = mail_kept(mail); /* freed by now */
        if (kept > 0)
            atomic_fetch_sub(&shard->broker->mail_bytes[from], kept);
        if (from == shard->number && mail->kind == MAIL_EVENT)
            shard->own_events--;
        if (from == shard->number && (mail->kind == MAIL_COMMAND || mail->kind == MAIL_PUBLISH))
            shard->own_calls--;
        ring_consume(ring);
    }
    return true;
}

/* The shard's own mail comes last: most of it answers what came before. */
bool mail_work(struct shard *shard)
{
    bool more = false;
    for (uint32_t from = 0; from < shard->broker->shard_count; from++) {
        if (from != shard->number)
            more = work_from(shard, from) || more;
    }
    (void)ring_publish(shard->broker->rings[shard->number][shard->number]);
    return work_from(shard, shard->number) || more;
}

void mail_drop(struct shard *shard)
{
    for (uint32_t to = 0; to < shard->broker->shard_count; to++) {
        list_each(node, &shard->delayed[to])
        {
            list_remove(node);
            free(list_entry(node, struct delayed, link));
        }
    }
}
