/* The journal: order, group commit, crashes at every disk call, torn tails told from rot, files
 * that roll and are grown, a full disk, a failing one. */
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

static void reboot(struct rig *rig, enum double_crash crash)
{
    rig_close(rig);
    double_reboot(rig->disk, crash);
}

/* Every entry that replay saw can be read, in order. */
static void entries_readable(struct rig *rig, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        struct entry entry;
        struct stream *stream = &rig_stream_of(rig, i)->stream;
        assert_int_equal(stream_peek(stream, i / RIG_STREAMS, &entry), STREAM_HIT);
        assert_int_equal(entry.base, i / RIG_STREAMS);
        assert_true(rig_matches(rig, entry.data, i));
    }
}

static void what_was_flushed_is_replayed_in_order(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 1);
    assert_int_equal(rig_open(&rig), ERR_NONE);
    append(&rig, 1000);
    assert_int_equal(rig.committed, 0);
    flush(&rig);
    assert_int_equal(rig.committed, 1000);
    append(&rig, 500); /* never flushed */
    reboot(&rig, DOUBLE_DROP);
    assert_int_equal(rig_open(&rig), ERR_NONE);
    assert_int_equal(rig.replayed, 1000);
    entries_readable(&rig, 1000);
    rig_done(&rig);
}

static void an_empty_folder_is_an_empty_cell_and_stays_absent(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 1);
    assert_int_equal(rig_open(&rig), ERR_NONE);
    assert_int_equal(store_end(rig.store), 0);
    store_flush(rig.store, false);
    rig_tick(&rig, 1000);
    rig_settle(&rig);
    assert_int_equal(rig.disk->calls, 0);
    rig_done(&rig);
}

static void one_write_takes_all_that_gathered(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 1);
    assert_int_equal(rig_open(&rig), ERR_NONE);
    append(&rig, 1);
    flush(&rig);
    struct store_stats before, after;
    store_stats(rig.store, &before);
    append(&rig, 1);
    store_flush(rig.store, false);
    append(&rig, 300);
    store_flush(rig.store, false);
    store_flush(rig.store, false);
    rig_settle(&rig);
    store_stats(rig.store, &after);
    assert_int_equal(after.flushes - before.flushes, 2);
    assert_int_equal(rig.committed, 302);
    rig_done(&rig);
}

static void a_lazy_flush_waits_a_little(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 1);
    assert_int_equal(rig_open(&rig), ERR_NONE);
    append(&rig, 1);
    store_flush(rig.store, true);
    rig_tick(&rig, 1);
    rig_settle(&rig);
    assert_int_equal(rig.committed, 0);
    rig_tick(&rig, LAZY_FLUSH_MS);
    rig_settle(&rig);
    assert_int_equal(rig.committed, 1);
    rig_done(&rig);
}

static void records_larger_than_a_block_and_than_a_file_survive(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 1);
    rig.size = 3u << 20;
    assert_int_equal(rig_open(&rig), ERR_NONE);
    for (int i = 0; i < 40; i++) {
        append(&rig, 1);
        if (i % 3 == 0)
            flush(&rig);
    }
    flush(&rig);
    assert_int_equal(rig.committed, 40);
    reboot(&rig, DOUBLE_DROP);
    assert_int_equal(rig_open(&rig), ERR_NONE);
    assert_int_equal(rig.replayed, 40);
    entries_readable(&rig, 40);
    rig_done(&rig);
}

static void a_cancelled_reservation_leaves_nothing(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 1);
    assert_int_equal(rig_open(&rig), ERR_NONE);
    uint64_t pos;
    enum err err;
    assert_non_null(store_reserve(rig.store, true, 5000, &pos, &err));
    store_cancel(rig.store);
    assert_int_equal(store_end(rig.store), 0);
    append(&rig, 3);
    flush(&rig);
    reboot(&rig, DOUBLE_DROP);
    assert_int_equal(rig_open(&rig), ERR_NONE);
    assert_int_equal(rig.replayed, 3);
    rig_done(&rig);
}

/* A workload with flushes of many sizes over several files. Returns when the disk died. */
static void work(struct rig *rig, uint64_t *random)
{
    for (int round = 0; round < 40 && !rig->disk->dead && rig->failed == ERR_NONE; round++) {
        *random = *random * 6364136223846793005u + 1;
        uint64_t count = 1 + (*random >> 33) % 40;
        for (uint64_t i = 0; i < count; i++) {
            if (rig_append(rig) != ERR_NONE)
                return;
        }
        store_flush(rig->store, (*random >> 40) % 4 == 0);
        for (uint64_t i = (*random >> 50) % 4; i > 0; i--)
            double_turn(rig->disk);
        rig_tick(rig, (int64_t)((*random >> 45) % 8));
    }
    rig_settle(rig);
}

/* After a crash: what was confirmed is there, nothing but a prefix of what was appended is, and it
 * goes on from there. */
static void recovered(struct rig *rig, enum double_crash crash)
{
    uint64_t promised = rig->committed, appended = rig->appended;
    reboot(rig, crash);
    enum err err = rig_open(rig);
    if (err != ERR_NONE)
        print_message("%s\n", rig->problem);
    assert_int_equal(err, ERR_NONE);
    assert_true(rig->replayed >= promised);
    assert_true(rig->replayed <= appended);
    rig->appended = rig->committed = rig->replayed;
}

static void nothing_confirmed_is_lost_in_a_crash_at_any_call(void **state)
{
    (void)state;
    static const enum double_crash kinds[] = {DOUBLE_DROP, DOUBLE_KEEP, DOUBLE_TEAR, DOUBLE_TEAR};
    for (uint64_t seed = 0; seed < 4; seed++) {
        bool crashed = true;
        for (uint64_t at = 1 + seed; crashed; at += 1 + seed) { /* all of them with the first */
            struct rig rig;
            rig_init(&rig, seed * 1000 + at);
            rig.disk->shuffle = seed % 2 == 1;
            rig.size = 3000;
            rig.segment_bytes = 300 * 1024;
            uint64_t random = seed;
            assert_int_equal(rig_open(&rig), ERR_NONE);
            rig.disk->crash_at = at;
            work(&rig, &random);
            crashed = rig.disk->dead;
            recovered(&rig, kinds[seed]);
            rig.disk->crash_at = rig.disk->calls + 1 + at % 17;
            work(&rig, &random); /* on top of what the first crash left */
            recovered(&rig, kinds[seed]);
            append(&rig, 50);
            flush(&rig);
            assert_int_equal(rig.committed, rig.appended);
            recovered(&rig, kinds[seed]);
            entries_readable(&rig, rig.replayed);
            rig_done(&rig);
        }
    }
}

static void a_disk_that_ignores_syncs_is_found_out(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 5);
    assert_int_equal(rig_open(&rig), ERR_NONE);
    rig.disk->no_sync = true;
    append(&rig, 100);
    flush(&rig);
    uint64_t promised = rig.committed;
    assert_int_equal(promised, 100);
    reboot(&rig, DOUBLE_DROP);
    rig.disk->no_sync = false;
    assert_true(rig_open(&rig) != ERR_NONE || rig.replayed < promised);
    rig_done(&rig);
}

/* The newest file whose name starts so. */
static struct double_inode *file_named(struct rig *rig, const char *start)
{
    struct double_inode *found = NULL;
    char path[DOUBLE_PATH];
    snprintf(path, sizeof path, "%s/%s", RIG_PATH, start);
    for (int i = 0; i < DOUBLE_NAMES; i++) {
        if (rig->disk->now[i].inode != NULL &&
            strncmp(rig->disk->now[i].path, path, strlen(path)) == 0)
            found = rig->disk->now[i].inode;
    }
    assert_non_null(found);
    return found;
}

static void remains_of_a_torn_write_never_come_back(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 1);
    rig.size = 1; /* all records have one length */
    assert_int_equal(rig_open(&rig), ERR_NONE);
    append(&rig, 1);
    flush(&rig);
    uint64_t torn = store_end(rig.store);
    append(&rig, 20000); /* several frames in one write */
    store_flush(rig.store, false);
    double_turn(rig.disk);
    rig_close(&rig);
    double_reboot(rig.disk, DOUBLE_KEEP);
    struct double_inode *file = file_named(&rig, "journal-0");
    file->data[JOURNAL_HEADER_BYTES + torn + 80] ^= 1; /* the first of them did not arrive whole */
    file->safe[JOURNAL_HEADER_BYTES + torn + 80] ^= 1;
    assert_int_equal(rig_open(&rig), ERR_NONE);
    assert_int_equal(rig.replayed, 1);
    rig.appended = rig.committed = 1;
    rig_tick(&rig, 5); /* the new frame differs from the torn one, but ends where it ended */
    uint32_t records = le32_get(file->data + JOURNAL_HEADER_BYTES + torn + 56);
    append(&rig, (int)records);
    flush(&rig);
    struct frame next;
    assert_true(frame_check(file->data + JOURNAL_HEADER_BYTES + store_end(rig.store), BLOCK_BYTES,
                            &next)); /* there they are */
    assert_int_equal(next.position, store_end(rig.store));
    assert_int_equal(next.index, 3);
    uint64_t promised = rig.committed;
    reboot(&rig, DOUBLE_DROP);
    assert_int_equal(rig_open(&rig), ERR_NONE);
    assert_int_equal(rig.replayed, promised);
    rig_done(&rig);
}

static void what_was_replayed_is_safe_from_then_on(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 1);
    rig.sync = false;
    assert_int_equal(rig_open(&rig), ERR_NONE);
    append(&rig, 100);
    flush(&rig);     /* written, never synced */
    rig_close(&rig); /* the process is killed, the machine goes on */
    rig.sync = true;
    assert_int_equal(rig_open(&rig), ERR_NONE);
    assert_int_equal(rig.replayed, 100);
    assert_int_equal(store_committed(rig.store), store_end(rig.store));
    reboot(&rig, DOUBLE_DROP);
    assert_int_equal(rig_open(&rig), ERR_NONE);
    assert_int_equal(rig.replayed, 100);
    rig_done(&rig);
}

static void a_write_without_room_is_made_again(void **state)
{
    (void)state;
    for (uint64_t call = 1; call <= 2; call++) { /* the write, the sync */
        struct rig rig;
        rig_init(&rig, 1);
        assert_int_equal(rig_open(&rig), ERR_NONE);
        append(&rig, 10);
        flush(&rig);
        append(&rig, 10);
        rig.disk->fail_at = rig.disk->calls + call;
        rig.disk->fail_err = ERR_DISK_FULL;
        flush(&rig);
        assert_int_equal(rig.failed, ERR_DISK_FULL);
        assert_int_equal(rig.committed, 10);
        append(&rig, 10);
        flush(&rig);
        assert_int_equal(rig.committed, 10);
        rig_tick(&rig, PROBE_MS + 1);
        rig_settle(&rig);
        assert_int_equal(rig.failed, ERR_NONE);
        assert_int_equal(rig.committed, 30);
        reboot(&rig, DOUBLE_DROP);
        assert_int_equal(rig_open(&rig), ERR_NONE);
        assert_int_equal(rig.replayed, 30);
        rig_done(&rig);
    }
}

static void rot_before_synced_frames_is_refused_wherever_it_is(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 1);
    assert_int_equal(rig_open(&rig), ERR_NONE);
    append(&rig, 5);
    flush(&rig);
    uint64_t end = store_end(rig.store);
    append(&rig, 5);
    flush(&rig);
    rig_close(&rig);
    struct double_inode *file = file_named(&rig, "journal-0");
    for (uint64_t at = 0; at < JOURNAL_HEADER_BYTES + end; at += at < 64 ? 1 : 7) {
        file->data[at] ^= 0x10;
        assert_int_equal(rig_open(&rig), ERR_CORRUPT);
        assert_non_null(strstr(rig.problem, "journal-0000000000000000"));
        file->data[at] ^= 0x10;
    }
    for (uint64_t at = JOURNAL_HEADER_BYTES; at < JOURNAL_HEADER_BYTES + end; at++) {
        file->data[at] ^= 1;
        assert_int_equal(rig_open(&rig), ERR_CORRUPT);
        file->data[at] ^= 1;
    }
    assert_int_equal(rig_open(&rig), ERR_NONE);
    assert_int_equal(rig.replayed, 10);
    rig_done(&rig);
}

static void rot_in_an_earlier_file_is_refused(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 1);
    rig.size = 3000;
    assert_int_equal(rig_open(&rig), ERR_NONE);
    for (int i = 0; i < 300; i++) {
        append(&rig, 10);
        flush(&rig);
    }
    struct store_stats stats;
    store_stats(rig.store, &stats);
    assert_true(stats.journal_bytes > 3u << 20);
    rig_close(&rig);
    struct double_inode *file = file_named(&rig, "journal-0000000000000000");
    for (uint64_t at = JOURNAL_HEADER_BYTES; at + 300000 < file->size; at += 100003) {
        file->data[at] ^= 1;
        assert_int_equal(rig_open(&rig), ERR_CORRUPT);
        file->data[at] ^= 1;
    }
    assert_int_equal(rig_open(&rig), ERR_NONE);
    rig_done(&rig);
}

static void a_missing_file_is_refused(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 1);
    rig.size = 3000;
    assert_int_equal(rig_open(&rig), ERR_NONE);
    append(&rig, 2000);
    flush(&rig);
    rig_close(&rig);
    assert_int_equal(disk_remove(&rig.disk->disk, RIG_PATH "/journal-0000000000000000"), ERR_NONE);
    assert_int_equal(rig_open(&rig), ERR_CORRUPT);
    rig_done(&rig);
}

static void a_failed_write_stops_everything(void **state)
{
    (void)state;
    for (uint64_t call = 1; call <= 2; call++) {
        struct rig rig;
        rig_init(&rig, 1);
        assert_int_equal(rig_open(&rig), ERR_NONE);
        append(&rig, 1);
        flush(&rig);
        append(&rig, 1);
        rig.disk->fail_at = rig.disk->calls + call; /* the write, the sync */
        rig.disk->fail_err = ERR_IO;
        flush(&rig);
        assert_int_equal(rig.failed, ERR_IO);
        assert_int_equal(rig.committed, 1);
        assert_int_equal(rig_append(&rig), ERR_IO);
        flush(&rig);
        assert_int_equal(rig.committed, 1);
        rig_done(&rig);
    }
}

static void a_full_disk_refuses_and_recovers_by_itself(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig, 1);
    rig.size = 4000;
    rig.disk->capacity = 3u << 20;
    assert_int_equal(rig_open(&rig), ERR_NONE);
    enum err err = ERR_NONE;
    for (int i = 0; i < 100000 && err == ERR_NONE; i++) {
        err = rig_append(&rig);
        if (i % 16 == 0)
            flush(&rig);
    }
    flush(&rig);
    assert_int_equal(err, ERR_DISK_FULL);
    assert_int_equal(rig.failed, ERR_DISK_FULL);
    assert_int_equal(rig.committed, rig.appended);
    assert_int_equal(rig_trim(&rig, 0, 1), ERR_NONE); /* settles still fit */
    flush(&rig);
    assert_int_equal(store_committed(rig.store), store_end(rig.store));
    rig.disk->capacity = 6u << 20;
    rig_tick(&rig, PROBE_MS + 1);
    rig_settle(&rig);
    assert_int_equal(rig.failed, ERR_NONE);
    append(&rig, 10);
    flush(&rig);
    assert_int_equal(rig.committed, rig.appended);
    uint64_t promised = rig.committed;
    reboot(&rig, DOUBLE_DROP);
    assert_int_equal(rig_open(&rig), ERR_NONE);
    assert_int_equal(rig.replayed, promised);
    rig_done(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_flushed_is_replayed_in_order),
        cmocka_unit_test(an_empty_folder_is_an_empty_cell_and_stays_absent),
        cmocka_unit_test(one_write_takes_all_that_gathered),
        cmocka_unit_test(a_lazy_flush_waits_a_little),
        cmocka_unit_test(records_larger_than_a_block_and_than_a_file_survive),
        cmocka_unit_test(a_cancelled_reservation_leaves_nothing),
        cmocka_unit_test(nothing_confirmed_is_lost_in_a_crash_at_any_call),
        cmocka_unit_test(a_disk_that_ignores_syncs_is_found_out),
        cmocka_unit_test(remains_of_a_torn_write_never_come_back),
        cmocka_unit_test(what_was_replayed_is_safe_from_then_on),
        cmocka_unit_test(a_write_without_room_is_made_again),
        cmocka_unit_test(rot_before_synced_frames_is_refused_wherever_it_is),
        cmocka_unit_test(rot_in_an_earlier_file_is_refused),
        cmocka_unit_test(a_missing_file_is_refused),
        cmocka_unit_test(a_failed_write_stops_everything),
        cmocka_unit_test(a_full_disk_refuses_and_recovers_by_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
