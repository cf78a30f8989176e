/* The index of a stream and the memory under it: peeks, trims, forgetting out of order, blocks that
 * leave memory and are read back, the volatile log and its spill file. */
#include "store/rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void append(struct rig *rig, int count)
{
    for (int i = 0; i < count; i++)
        assert_int_equal(rig_append(rig), ERR_NONE);
}

static void flush(struct rig *rig)
{
    store_flush(rig->store, false);
    rig_settle(rig);
}

static int read_at(struct rig *rig, struct stream *stream, uint64_t offset, struct entry *entry)
{
    int loads = 0;
    enum err err;
    assert_int_equal(rig_read(rig, stream, offset, entry, &loads, &err), STREAM_HIT);
    return loads;
}

static void add_volatile(struct rig *rig, struct stream *stream, uint64_t number)
{
    uint64_t pos;
    enum err err;
    size_t len = rig_len(rig, number);
    uint8_t *at = store_reserve(rig->store, false, len, &pos, &err);
    assert_non_null(at);
    rig_fill(rig, at, number);
    store_commit(rig->store, len);
    assert_true((pos & STORE_VOLATILE) != 0);
    assert_int_equal(stream_add(stream, stream->next, 1, pos, (uint32_t)len), ERR_NONE);
}

static void an_unused_stream_holds_no_memory(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 1);
    assert_int_equal(rig_open(&rig), ERR_NONE);
    struct stream *stream = &rig.streams[0].stream;
    struct entry entry;
    assert_int_equal(stream_peek(stream, 0, &entry), STREAM_END);
    assert_null(stream->rows);
    append(&rig, 100);
    stream_trim(stream, 25);
    assert_int_equal(stream->used, 0);
    for (int i = 0; i < 5; i++)
        rig_tick(&rig, SWEEP_MS);
    assert_null(stream->rows);
    assert_true(rig.streams[1].stream.rows != NULL);
    append(&rig, 4);
    assert_int_equal(stream_peek(stream, 0, &entry), STREAM_HIT);
    assert_int_equal(entry.base, 25);
    rig_done(&rig);
}

static void a_peek_finds_the_entry_that_holds_the_offset_or_the_next(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 1);
    assert_int_equal(rig_open(&rig), ERR_NONE);
    struct stream *stream = &rig.streams[0].stream;
    uint64_t pos, base = 0;
    enum err err;
    for (uint32_t i = 0; i < 100; i++) { /* entries of 1, 2, ... messages, with gaps between */
        uint8_t *at = store_reserve(rig.store, true, 16, &pos, &err);
        assert_non_null(at);
        be64_put(at, i);
        store_commit(rig.store, 16);
        assert_int_equal(stream_add(stream, base, i + 1, pos, 16), ERR_NONE);
        base += i + 3;
    }
    assert_int_equal(stream->next, base - 2);
    struct entry entry;
    base = 0;
    for (uint32_t i = 0; i < 100; i++) {
        for (uint32_t j = 0; j < i + 3; j++) {
            enum stream_found found = stream_peek(stream, base + j, &entry);
            if (i == 99 && j > i) {
                assert_int_equal(found, STREAM_END);
                continue;
            }
            assert_int_equal(found, STREAM_HIT);
            assert_int_equal(entry.base, j <= i ? base : base + i + 3);
            assert_int_equal(be64_get(entry.data.data), j <= i ? i : i + 1);
        }
        base += i + 3;
    }
    stream_trim(stream, 5); /* in the gap behind the entry 3..4 */
    assert_int_equal(stream_peek(stream, 0, &entry), STREAM_HIT);
    assert_int_equal(entry.base, 7);
    stream_trim(stream, 8); /* inside the entry 7..9 */
    assert_int_equal(stream_peek(stream, 0, &entry), STREAM_HIT);
    assert_int_equal(entry.base, 7);
    rig_done(&rig);
}

static void entries_forgotten_out_of_order_are_skipped(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 1);
    assert_int_equal(rig_open(&rig), ERR_NONE);
    append(&rig, 4000 * RIG_STREAMS);
    struct stream *stream = &rig.streams[1].stream;
    for (uint64_t i = 0; i < 4000; i++) {
        if (i % 10 != 3)
            stream_forget(stream, i * 7 % 4000 % 10 == 3 ? 0 : i);
    }
    for (uint64_t i = 0; i < 4000; i++) {
        if (i % 10 != 3)
            stream_forget(stream, i);
    }
    stream_forget(stream, 5); /* twice is harmless */
    struct entry entry;
    for (uint64_t i = 0; i < 3990; i++) {
        assert_int_equal(stream_peek(stream, i, &entry), STREAM_HIT);
        assert_int_equal(entry.base, i % 10 <= 3 ? i / 10 * 10 + 3 : i / 10 * 10 + 13);
    }
    assert_true(stream->used < 1000);
    assert_true(stream->slots <= 8192);
    rig_done(&rig);
}

static void what_is_needed_no_more_leaves_memory_at_once(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 1);
    rig.size = 4000;
    assert_int_equal(rig_open(&rig), ERR_NONE);
    for (int i = 0; i < 200; i++) {
        append(&rig, 10 * RIG_STREAMS);
        flush(&rig);
        for (int j = 0; j < RIG_STREAMS; j++)
            stream_trim(&rig.streams[j].stream, rig.streams[j].stream.next);
        assert_true(rig.store->memory <= 3 * BLOCK_BYTES);
    }
    rig_done(&rig);
}

static void a_backlog_above_the_limit_leaves_memory_and_is_read_back(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 1);
    rig.size = 4000;
    rig.memory_limit = 2u << 20;
    rig.segment_bytes = 4u << 20;
    assert_int_equal(rig_open(&rig), ERR_NONE);
    for (int i = 0; i < 100; i++) {
        append(&rig, 100);
        flush(&rig);
        assert_true(rig.store->memory <= rig.memory_limit + 4 * BLOCK_BYTES);
    }
    int loads = 0;
    for (uint64_t i = 0; i < rig.appended; i++) {
        struct entry entry;
        struct stream *stream = &rig_stream_of(&rig, i)->stream;
        loads += read_at(&rig, stream, i / RIG_STREAMS, &entry);
        assert_int_equal(entry.base, i / RIG_STREAMS);
        assert_true(rig_matches(&rig, entry.data, i));
        stream_trim(stream, entry.base + 1);
        assert_true(rig.store->memory <= rig.memory_limit + 4 * BLOCK_BYTES);
    }
    assert_in_range(loads, 5, 80); /* about 20 MB in blocks, read ahead by one */
    rig_done(&rig);
}

static void damage_in_what_is_read_back_is_noticed(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 1);
    rig.size = 4000;
    rig.memory_limit = 1u << 20;
    rig.segment_bytes = 64u << 20;
    assert_int_equal(rig_open(&rig), ERR_NONE);
    append(&rig, 2000);
    flush(&rig);
    struct entry entry;
    assert_int_equal(stream_peek(&rig.streams[0].stream, 0, &entry), STREAM_MISS);
    struct double_name *name = double_find(rig.disk->now, RIG_PATH "/journal-0000000000000000");
    name->inode->data[JOURNAL_HEADER_BYTES + 100000] ^= 4;
    struct rig_waiter waiter = {.load.done = rig_waiter_done};
    stream_load(&rig.streams[0].stream, 0, &waiter.load);
    rig_settle(&rig);
    assert_int_equal(waiter.done, 1);
    assert_int_equal(waiter.err, ERR_CORRUPT);
    assert_int_equal(stream_peek(&rig.streams[0].stream, 0, &entry), STREAM_MISS);
    name->inode->data[JOURNAL_HEADER_BYTES + 100000] ^= 4;
    read_at(&rig, &rig.streams[0].stream, 0, &entry);
    rig_done(&rig);
}

static void who_holds_a_reference_keeps_the_bytes(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 1);
    rig.size = 4000;
    assert_int_equal(rig_open(&rig), ERR_NONE);
    append(&rig, 1);
    flush(&rig);
    struct entry entry;
    assert_int_equal(stream_peek(&rig.streams[0].stream, 0, &entry), STREAM_HIT);
    struct buf *held = buf_ref(entry.buf);
    stream_trim(&rig.streams[0].stream, 1);
    append(&rig, 1000);
    flush(&rig);
    assert_true(rig_matches(&rig, entry.data, 0));
    buf_unref(held);
    rig_done(&rig);
}

static void add_volatiles(struct rig *rig, struct stream *stream, uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to; i++) {
        add_volatile(rig, stream, i);
        if (i % 50 == 0) {
            rig_tick(rig, 10);
            rig_settle(rig);
        }
    }
}

static void volatile_entries_spill_and_come_back(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 1);
    rig.size = 4000;
    rig.memory_limit = 2u << 20;
    assert_int_equal(rig_open(&rig), ERR_NONE);
    struct stream *stream = &rig.streams[0].stream;
    add_volatiles(&rig, stream, 0, 7000);
    rig.size = 900000; /* larger than a block */
    add_volatiles(&rig, stream, 7000, 7010);
    rig.size = 4000;
    add_volatiles(&rig, stream, 7010, 10000);
    struct store_stats stats;
    store_stats(rig.store, &stats);
    assert_true(stats.spilled_bytes > 10u << 20);
    assert_true(stats.memory_bytes <= rig.memory_limit + 6 * BLOCK_BYTES);
    for (uint64_t i = 0; i < 10000; i++) {
        struct entry entry;
        rig.size = i >= 7000 && i < 7010 ? 900000 : 4000;
        read_at(&rig, stream, i, &entry);
        assert_true(entry.is_volatile);
        assert_true(rig_matches(&rig, entry.data, i));
        stream_trim(stream, i + 1);
    }
    store_stats(rig.store, &stats);
    assert_int_equal(stats.spilled_bytes, 0);
    assert_null(double_find(rig.disk->now, RIG_PATH "/spill"));
    rig_done(&rig);
}

static void damage_in_the_spill_file_is_noticed(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 1);
    rig.size = 4000;
    rig.memory_limit = 1u << 20;
    assert_int_equal(rig_open(&rig), ERR_NONE);
    struct stream *stream = &rig.streams[0].stream;
    add_volatiles(&rig, stream, 0, 2000);
    struct entry entry;
    assert_int_equal(stream_peek(stream, 0, &entry), STREAM_MISS);
    struct double_inode *spill = double_find(rig.disk->now, RIG_PATH "/spill")->inode;
    for (uint64_t at = 1000; at < spill->size; at += BLOCK_BYTES / 2)
        spill->data[at] ^= 1;
    struct rig_waiter waiter = {.load.done = rig_waiter_done};
    stream_load(stream, 0, &waiter.load);
    rig_settle(&rig);
    assert_int_equal(waiter.done, 1);
    assert_int_equal(waiter.err, ERR_CORRUPT);
    rig_done(&rig);
}

static void what_is_read_back_stays_until_it_was_looked_at(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 1);
    rig.size = 1u << 30;
    rig.memory_limit = 1u << 20;
    const uint64_t large = 400; /* from here on each alone is above the limit */
    assert_int_equal(rig_open(&rig), ERR_NONE);
    struct stream *stream = &rig.streams[0].stream;
    for (uint64_t i = 0; i < 4; i++)
        add_volatile(&rig, stream, large + i);
    rig_settle(&rig);
    for (uint64_t i = 0; i < 3; i++) {
        struct entry entry;
        assert_int_equal(read_at(&rig, stream, i, &entry), 1);
        assert_true(rig_matches(&rig, entry.data, large + i));
        rig_settle(&rig); /* the next one comes too, and is not to push this one out */
        assert_int_equal(stream_peek(stream, i, &entry), STREAM_HIT);
        rig_tick(&rig, 1);
        assert_int_equal(stream_peek(stream, i, &entry), STREAM_MISS);
    }
    rig_done(&rig);
}

static void entries_may_go_while_their_blocks_are_being_spilled(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 1);
    rig.size = 4000;
    rig.memory_limit = 2u << 20;
    assert_int_equal(rig_open(&rig), ERR_NONE);
    struct stream *stream = &rig.streams[0].stream;
    uint64_t number = 0;
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 1200; i++)
            add_volatile(&rig, stream, number++);
        assert_true(rig.store->spill.writing > 0);
        stream_trim(stream, number); /* before one of the writes has completed */
    }
    rig_settle(&rig);
    assert_int_equal(rig.store->spill.writing, 0);
    assert_int_equal(rig.store->spill.writing_bytes, 0);
    assert_true(rig.store->memory <= BLOCK_BYTES);
    assert_null(double_find(rig.disk->now, RIG_PATH "/spill"));
    rig_done(&rig);
}

static void without_room_to_spill_the_volatile_log_refuses(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 1);
    rig.size = 4000;
    rig.memory_limit = 1u << 20;
    rig.disk->capacity = 1u << 20;
    assert_int_equal(rig_open(&rig), ERR_NONE);
    uint64_t pos;
    enum err err = ERR_NONE;
    struct stream *stream = &rig.streams[0].stream;
    for (int i = 0; i < 10000 && err == ERR_NONE; i++) {
        uint8_t *at = store_reserve(rig.store, false, 4000, &pos, &err);
        if (at == NULL)
            break;
        be64_put(at, 1);
        store_commit(rig.store, 4000);
        assert_int_equal(stream_add(stream, stream->next, 1, pos, 4000), ERR_NONE);
        rig_settle(&rig);
    }
    assert_int_equal(err, ERR_DISK_FULL);
    stream_trim(stream, stream->next);
    assert_non_null(store_reserve(rig.store, false, 4000, &pos, &err));
    store_cancel(rig.store);
    rig_done(&rig);
}

static void a_stream_that_ends_gives_back_its_memory(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 1);
    rig.size = 4000;
    assert_int_equal(rig_open(&rig), ERR_NONE);
    append(&rig, 2000);
    flush(&rig);
    for (uint64_t i = 0; i < RIG_STREAMS; i++) {
        stream_done(&rig.streams[i].stream, true);
        stream_init(&rig.streams[i].stream, rig.store, 10 + i, 0, 0);
    }
    assert_true(rig.store->memory <= BLOCK_BYTES);
    assert_true(list_empty(&rig.store->indexed));
    rig_done(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unused_stream_holds_no_memory),
        cmocka_unit_test(a_peek_finds_the_entry_that_holds_the_offset_or_the_next),
        cmocka_unit_test(entries_forgotten_out_of_order_are_skipped),
        cmocka_unit_test(what_is_needed_no_more_leaves_memory_at_once),
        cmocka_unit_test(a_backlog_above_the_limit_leaves_memory_and_is_read_back),
        cmocka_unit_test(damage_in_what_is_read_back_is_noticed),
        cmocka_unit_test(who_holds_a_reference_keeps_the_bytes),
        cmocka_unit_test(volatile_entries_spill_and_come_back),
        cmocka_unit_test(damage_in_the_spill_file_is_noticed),
        cmocka_unit_test(what_is_read_back_stays_until_it_was_looked_at),
        cmocka_unit_test(entries_may_go_while_their_blocks_are_being_spilled),
        cmocka_unit_test(without_room_to_spill_the_volatile_log_refuses),
        cmocka_unit_test(a_stream_that_ends_gives_back_its_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
