/* A change of the catalog, and its encoding: u8 type, u32 length of what follows, the fields of its
 * type in the order of struct change. What stands in the journal and the state store is this.
 *
 * Changes are applied again after a crash, behind a state that may hold them already: adding what
 * is there and removing what is not are no errors. For src/core only. */
#ifndef WEIR_CORE_CATALOG_CHANGE_H
#define WEIR_CORE_CATALOG_CHANGE_H

#include "core/catalog.h"

/* On disk, never renumbered. */
enum change_type {
    CHANGE_NEXT_ID = 1, /* id = the next free one */
    CHANGE_ADD_NAMESPACE,
    CHANGE_REMOVE_NAMESPACE,
    CHANGE_ADD_EXCHANGE,
    CHANGE_REMOVE_EXCHANGE,
    CHANGE_ADD_QUEUE,
    CHANGE_REMOVE_QUEUE,
    CHANGE_ADD_TOPIC,
    CHANGE_GROW_TOPIC,
    CHANGE_CONFIGURE_TOPIC,
    CHANGE_REMOVE_TOPIC,
    CHANGE_BIND,
    CHANGE_UNBIND,
};

enum {
    CHANGE_DURABLE = 1,
    CHANGE_AUTO_DELETE = 2,
    CHANGE_EXCLUSIVE = 4,
    CHANGE_INTERNAL = 8,
};

enum {
    CATALOG_NAME_BYTES_MAX = 255,
    CATALOG_PARTITIONS_MAX = 100000,
    CATALOG_ARGS_BYTES_MAX = 128 * 1024,
};

/* Consecutive ids. */
struct id_run {
    uint64_t first;
    uint32_t count;
};

struct change {
    enum change_type type;
    uint64_t id;
    uint32_t namespace_id;
    uint8_t flags;
    enum exchange_type exchange_type;
    uint64_t owner;
    uint8_t uuid[16];
    /* Partitions of a topic, those that come in addition when it grows: to encode by themselves,
     * decoded as runs of u64 first, u32 count. */
    const uint64_t *partitions;
    uint32_t partition_count;
    uint32_t first_index; /* GROW_TOPIC: how many there were before */
    struct slice runs;
    /* BIND, UNBIND */
    enum target_kind source_kind, target_kind;
    uint64_t target;   /* the source is in id */
    struct slice name; /* of a binding: the key */
    struct args args;  /* to encode; decoded, their encoding is: */
    struct slice args_bytes;
    uint32_t args_count;
};

/* Adds the encoded change to `out`. */
enum err change_encode(struct catalog_changes *out, const struct change *change)
    __attribute__((warn_unused_result));
/* The first change in `encoded`, whose bytes it borrows. ERR_CORRUPT when malformed. */
enum err change_decode(struct slice encoded, struct change *out, size_t *used)
    __attribute__((warn_unused_result));
/* Writes out a decoded change's partition ids. */
void change_partitions(const struct change *change, uint64_t *ids);

#endif
