/* Extents byte by byte: what is written is found, and no block is taken that says impossible things
 * under a sound checksum. */
#include "store/extent.h"

#include "base/endian.h"
#include "base/memory_double.h"
#include "store/disk_double.h"
#include "store/format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { ENTRIES = 3, ENTRY_LEN = 24 };

/* A file of one block with a few entries, offsets 10, 11, 12. */
static uint8_t *file_make(struct double_disk *disk, struct extent_row *row, uint64_t *bytes)
{
    struct extent_writer writer = {.disk = &disk->disk, .header = {.cell = 7, .number = 3}};
    snprintf(writer.path, sizeof writer.path, "extent");
    for (uint64_t i = 0; i < ENTRIES; i++) {
        uint8_t data[ENTRY_LEN] = {0};
        be64_put(data, 1000 + i);
        data[8] = (uint8_t)i;
        struct extent_entry entry = {
            .base = 10 + i, .count = 1, .data = {.data = data, .len = sizeof data}};
        assert_int_equal(extent_writer_add(&writer, 5, &entry, UINT64_MAX, INT64_MIN), ERR_NONE);
    }
    assert_int_equal(extent_writer_finish(&writer), ERR_NONE);
    assert_int_equal(writer.row_count, 1);
    *row = writer.rows[0];
    *bytes = writer.offset;
    extent_writer_done(&writer);
    return double_find(disk->now, "extent")->inode->data;
}

/* Puts a checksum under what the block says now. */
static void seal(uint8_t *block, uint32_t body)
{
    le32_put(block + 4, crc32c(0, block + 8, extent_block_bytes(body) - 8));
}

static void a_block_holds_its_entries(void **state)
{
    (void)state;
    struct double_disk *disk = double_create(1);
    struct extent_row row;
    uint64_t bytes;
    uint8_t *file = file_make(disk, &row, &bytes), *at = file + row.block.offset;
    struct extent_block block;
    assert_true(extent_block_check(at, bytes - row.block.offset, &block));
    assert_int_equal(block.stream, 5);
    assert_int_equal(block.base, 10);
    assert_int_equal(block.end, 13);
    assert_int_equal(block.count, ENTRIES);
    assert_int_equal(block.max_ms, 1002);
    uint32_t within = 0;
    for (uint64_t i = 0; i < ENTRIES; i++) {
        struct extent_entry entry;
        extent_entry_get(at, &block, &within, &entry);
        assert_int_equal(entry.base, 10 + i);
        assert_int_equal(entry.data.len, ENTRY_LEN);
        assert_int_equal(entry.data.data[8], i);
    }
    assert_int_equal(within, block.body);
    double_destroy(disk);
}

static void a_block_that_says_impossible_things_is_refused(void **state)
{
    (void)state;
    /* A place in the block, and what is written there (as 4 bytes, or 8 from 100 on). */
    enum { ENTRY0 = BLOCK_HEADER_BYTES, ENTRY1 = ENTRY0 + ENTRY_HEADER_BYTES + ENTRY_LEN };
    static const struct {
        uint32_t at;
        uint64_t value;
        bool wide;
    } lies[] = {
        {0, 0, false},                       /* magic */
        {48, 0, false},                      /* no entries */
        {48, ENTRIES + 1, false},            /* more than there are */
        {48, ENTRIES - 1, false},            /* fewer: some of the body is nobody's */
        {48, EXTENT_ENTRIES_MAX + 1, false}, /* too many */
        {52, 4, false},                      /* a body too small for its entries */
        {52, EXTENT_BLOCK_MAX + 1, false},   /* or too large */
        {52, 1u << 20, false},               /* or larger than the file */
        {16, 9, true},                       /* begins before its first entry */
        {24, 12, true},                      /* ends before its last */
        {24, 14, true},                      /* or behind it */
        {24, 10, true},                      /* where it begins */
        {ENTRY0, 1, false},                  /* the first entry is not the first offset */
        {ENTRY0 + 4, 0, false},              /* an entry of no messages */
        {ENTRY0 + 4, 4, false},              /* or of more than the block's */
        {ENTRY0 + 8, 7, false},              /* too short for its timestamp */
        {ENTRY0 + 8, 4000, false},           /* longer than the body */
        {ENTRY0 + 4, 2, false},              /* two entries with one offset */
        {ENTRY1, 0, false},                  /* an entry before the one before it */
        {ENTRY1, 3, false},                  /* or behind the block's end */
        {ENTRY1 + 8, ENTRY_LEN + 20, false}, /* leaving no room for the next one's head */
    };
    struct double_disk *disk = double_create(1);
    struct extent_row row;
    uint64_t bytes;
    uint8_t *file = file_make(disk, &row, &bytes), *at = file + row.block.offset;
    uint64_t room = bytes - row.block.offset, used = extent_block_bytes(row.block.body);
    uint8_t *sound = malloc(used);
    memcpy(sound, at, used);
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct extent_block block = {.count = 77};
        memcpy(at, sound, used);
        if (lies[i].wide)
            le64_put(at + lies[i].at, lies[i].value);
        else
            le32_put(at + lies[i].at, (uint32_t)lies[i].value);
        seal(at, row.block.body);
        if (extent_block_check(at, room, &block))
            fail_msg("lie %zu is believed", i);
        assert_int_equal(block.count, 77); /* left alone */
    }
    memcpy(at, sound, used);
    struct extent_block block;
    for (uint64_t less = 0; less < used; less++)
        assert_false(extent_block_check(at, less, &block));
    assert_true(extent_block_check(at, used, &block));
    free(sound);
    double_destroy(disk);
}

static void the_end_knows_its_extent_and_its_place(void **state)
{
    (void)state;
    uint8_t end[EXTENT_END_BYTES];
    uint64_t blocks = 0;
    extent_end_put(end, 3, 4096, 17);
    assert_true(extent_end_get(end, 3, 4096, &blocks));
    assert_int_equal(blocks, 17);
    assert_false(extent_end_get(end, 4, 4096, &blocks));
    assert_false(extent_end_get(end, 3, 4104, &blocks));
    for (size_t i = 0; i < EXTENT_END_BYTES; i++) {
        end[i] ^= 1;
        assert_false(extent_end_get(end, 3, 4096, &blocks));
        end[i] ^= 1;
    }
}

static void entries_that_do_not_fit_together_get_blocks_of_their_own(void **state)
{
    (void)state;
    struct double_disk *disk = double_create(1);
    struct extent_writer writer = {.disk = &disk->disk, .header = {.cell = 7, .number = 3}};
    snprintf(writer.path, sizeof writer.path, "extent");
    uint8_t data[EXTENT_BLOCK_BYTES] = {0};
    static const struct {
        uint64_t stream, base, sum;
        size_t len;
    } entries[] = {
        {1, 0, UINT64_MAX, 16},
        {1, 5, UINT64_MAX, 16},                 /* a gap within one source */
        {2, 0, UINT64_MAX, 16},                 /* another stream */
        {2, 1, 500, 16},                        /* copied from another block */
        {2, 9, 900, 16},                        /* from a third, behind a gap */
        {2, 10, 900, 16},                       /* and no gap */
        {2, UINT64_C(1) << 33, 900, 16},        /* too far away */
        {3, 0, UINT64_MAX, EXTENT_BLOCK_BYTES}, /* as large as a block */
        {3, 1, UINT64_MAX, 16},
    };
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
        struct extent_entry entry = {
            .base = entries[i].base, .count = 1, .data = {.data = data, .len = entries[i].len}};
        assert_int_equal(
            extent_writer_add(&writer, entries[i].stream, &entry, entries[i].sum, INT64_MIN),
            ERR_NONE);
    }
    assert_int_equal(extent_writer_finish(&writer), ERR_NONE);
    assert_int_equal(writer.row_count, 7);
    extent_writer_done(&writer);
    double_destroy(disk);
}

static void without_memory_or_disk_it_is_not_written(void **state)
{
    (void)state;
    bool refused = true;
    for (uint64_t n = 1; refused; n++) {
        struct double_disk *disk = double_create(1);
        struct extent_writer writer = {.disk = &disk->disk, .header = {.number = 1}};
        snprintf(writer.path, sizeof writer.path, "extent");
        uint8_t data[5000] = {0};
        enum err err = ERR_NONE;
        memory_fail_at(n % 2 == 0 ? n / 2 : 0, 0);
        disk->fail_at = n % 2 == 1 ? n / 2 + 1 : 0;
        disk->fail_err = ERR_DISK_FULL;
        for (uint64_t i = 0; i < 600 && err == ERR_NONE; i++) {
            struct extent_entry entry = {
                .base = i * 2, .count = 1, .data = {.data = data, .len = sizeof data}};
            err = extent_writer_add(&writer, i / 100, &entry, UINT64_MAX, INT64_MIN);
        }
        if (err == ERR_NONE)
            err = extent_writer_finish(&writer);
        refused = err != ERR_NONE || n < 8;
        memory_fail_at(0, 0);
        assert_true(err == ERR_NONE || err == (n % 2 == 0 ? ERR_NO_MEMORY : ERR_DISK_FULL));
        extent_writer_done(&writer);
        double_destroy(disk);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_holds_its_entries),
        cmocka_unit_test(a_block_that_says_impossible_things_is_refused),
        cmocka_unit_test(the_end_knows_its_extent_and_its_place),
        cmocka_unit_test(entries_that_do_not_fit_together_get_blocks_of_their_own),
        cmocka_unit_test(without_memory_or_disk_it_is_not_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
