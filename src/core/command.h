/* What a face asks of a cell (command) and what a cell answers (event). Both are plain values:
 * they are handed over directly when cell and connection share a shard and travel through a ring
 * otherwise. Slices are valid during the call that hands the value over; what must outlive it is
 * copied or its buf referenced. Rare requests with many parts stand in an arena that goes along
 * (`parts`, malloc'd, owned by whoever receives it; destroyed with parts_destroy). */
#ifndef WEIR_CORE_COMMAND_H
#define WEIR_CORE_COMMAND_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/slice.h"
#include "core/catalog.h"
#include "gen/err.h"
#include "store/store.h"

#include <stdbool.h>
#include <stdint.h>

/* An arena of its own on the heap, with the request or answer as its root. */
struct parts {
    struct arena arena;
    void *root;
};

/* limit_bytes bounds it. NULL when memory is exhausted. */
struct parts *parts_create(size_t limit_bytes);
/* NULL is allowed. */
void parts_destroy(struct parts *parts);

/* Who asks. conn 0 is nobody: internal commands. */
struct asker {
    uint64_t conn;    /* id of a connection; its upper 8 bits are its shard */
    uint64_t tag;     /* chosen by the face, comes back in the answer */
    uint16_t channel; /* comes back too */
};

enum command_type {
    /* To cell 0. */
    COMMAND_CATALOG,     /* parts: catalog_request -> EVENT_ANSWER */
    COMMAND_PRODUCER_ID, /* -> EVENT_ANSWER, value = a new producer id */

    /* To the queue's cell (object = queue id). */
    COMMAND_PUBLISH,   /* see struct publish; built by conn_publish */
    COMMAND_SUBSCRIBE, /* -> EVENT_ANSWER, then EVENT_DELIVER, ... */
    COMMAND_CANCEL,    /* ends the subscription -> EVENT_ANSWER after its last delivery */
    COMMAND_WINDOW, /* the face sent out `window.bytes` of what was delivered to a subscription */
    COMMAND_GET,    /* one message -> EVENT_DELIVER, or EVENT_ANSWER with ERR_NOT_FOUND: empty */
    COMMAND_SETTLE, /* data: struct offset_range[]; no answer */
    COMMAND_RETURN, /* data: the same; ready again, redelivered; no answer */
    COMMAND_REJECT, /* data: the same; dead-lettered or dropped; no answer */
    COMMAND_PURGE,  /* -> EVENT_ANSWER, value = messages dropped */
    COMMAND_DELETE_QUEUE, /* -> EVENT_ANSWER, value = messages dropped; conditions in flags */
    COMMAND_QUEUE_STATUS, /* -> EVENT_ANSWER, value = ready messages, value2 = consumers */

    /* To the partition's cell (object = partition id). */
    COMMAND_APPEND, /* data: one record batch -> EVENT_ANSWER, value = base offset, value2 = append
                       time or -1 */
    COMMAND_READ,   /* -> EVENT_READ once there is enough, or time is over */
    COMMAND_READ_STOP, /* the read with this tag is not wanted any more; its answer may still come
                        */
    COMMAND_OFFSETS,   /* -> EVENT_ANSWER, value = offset, value2 = timestamp, -1 when none */
    COMMAND_TRIM,      /* delete records below offset -> EVENT_ANSWER, value = new first offset */

    /* To the group's cell (hash of the group's name). */
    COMMAND_GROUP, /* parts: struct group_request -> EVENT_ANSWER with parts: struct group_answer */

    /* To every cell. */
    COMMAND_CONN_GONE, /* the connection `asker.conn` is closed: its subscriptions and leases end */
    COMMAND_CHANNEL_GONE, /* one channel of it: answered by EVENT_ANSWER from every cell */
};

struct offset_range {
    uint64_t first, last;
};

enum { SUBSCRIBE_NO_ACK = 1, SUBSCRIBE_EXCLUSIVE = 2 };
enum { DELETE_IF_UNUSED = 1, DELETE_IF_EMPTY = 2 };

/* Where a COMMAND_OFFSETS looks. */
enum offset_query {
    OFFSET_EARLIEST,
    OFFSET_LATEST,   /* committed end */
    OFFSET_AT_TIME,  /* first message whose timestamp is >= time_ms */
    OFFSET_MAX_TIME, /* the message with the largest timestamp */
};

struct command {
    enum command_type type;
    struct asker asker;
    uint64_t object;
    union {
        struct {
            uint64_t
                consumer; /* chosen by the face, unique on the connection; names the subscription */
            uint32_t prefetch; /* most leases at a time, 0 = no limit */
            uint32_t window;   /* most bytes delivered and not yet reported by COMMAND_WINDOW */
            int32_t priority;
            uint8_t flags;
        } subscribe; /* CANCEL and WINDOW use consumer */
        struct {
            uint64_t consumer;
            uint32_t bytes;
        } window;
        struct {
            bool no_ack;
        } get;
        struct {
            uint64_t consumer; /* 0: any lease of the asker's channel */
            bool undelivered;  /* RETURN: was never shown to the client: no redelivered mark */
        } settle;              /* SETTLE, RETURN, REJECT */
        struct {
            uint8_t flags;
        } remove;
        struct {
            /* Idempotence: producer_id < 0 = none. */
            int64_t producer_id;
            int16_t producer_epoch;
            int32_t base_sequence;
            uint32_t count;      /* messages in the batch */
            int64_t max_time_ms; /* largest timestamp in it */
            bool wait_commit;    /* answer when safe (acks=all, 1), or at once */
            bool silent;         /* no answer at all (acks=0) */
        } append;
        struct {
            uint64_t offset;
            uint32_t max_bytes; /* at least one entry is given whatever its size */
            uint32_t min_bytes; /* wait for as much, until deadline_ms */
            int64_t deadline_ms;
        } read;
        struct {
            enum offset_query query;
            int64_t time_ms;
            uint64_t offset; /* TRIM: new first; UINT64_MAX = the committed end */
        } offsets;
    };
    struct slice data;
    struct parts *parts;
};

/* One message on its way to queues and topics. The entry's bytes are the three pieces one after
 * the other (head: codec/entry.h). */
struct publish {
    uint16_t channel;
    uint64_t seq; /* publisher confirm: EVENT_PUBLISHED names it; 0 = none wanted */
    bool persistent;
    int64_t expiry_ms; /* wall clock, 0 = none (also stands in the entry's head) */
    struct slice pieces[3];
    uint8_t **body; /* what pieces[2] stands in, from malloc: whoever takes it over sets *body to
                       NULL; may be NULL itself */
    const struct exchange *exchange;
    struct route_message *message;
    bool mandatory; /* no target: nothing is done and 0 returned, so the face can return it */
};

enum event_type {
    EVENT_ANSWER,    /* asker, err, detail, value, value2, parts */
    EVENT_PUBLISHED, /* asker.channel, first_seq..last_seq: safe (err = NONE) or refused (REJECTED,
                      * ...). A message with n target cells (what conn_publish returned) gets n of
                      * them. */
    EVENT_DELIVER,   /* a message for `consumer`, or the answer to COMMAND_GET (consumer = 0) */
    EVENT_CANCELLED, /* the queue of `consumer` is gone, or cannot be read: it has ended */
    EVENT_READ,      /* asker, err, entries, first/end offsets */
};

/* How EVENT_DELIVER's lease is named when it is settled, with the queue's id. */
struct delivery {
    uint64_t queue;
    uint64_t consumer;
    uint64_t offset;
    uint32_t ready; /* GET: messages that remain ready */
    uint16_t count; /* earlier deliveries; > 0 = redelivered */
    struct slice entry;
    struct buf *buf; /* entry stands in it: conn_share or copy; never kept without a reference */
};

struct event {
    enum event_type type;
    enum err err;
    struct asker asker;
    union {
        struct {
            uint64_t value, value2;
        };
        struct {
            uint64_t first_seq, last_seq;
        };
        struct delivery deliver;
        struct {
            uint64_t consumer;
        } cancelled;
        struct {
            /* Entries in order, referenced for the receiver: it must give every buf up by
             * conn_release. The first may begin before the offset that was asked for. */
            struct entry *entries;
            uint32_t count;
            uint64_t first_offset, end_offset; /* of the partition; end = committed */
        } read;
    };
    struct slice detail; /* ANSWER with an error: the words for the client, may be empty */
    struct parts
        *parts; /* ANSWER to COMMAND_GROUP; destroyed by the caller after the face saw it */
};

#endif
