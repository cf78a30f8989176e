/* The search for frames behind a damaged one: only a frame that is whole, stands where it says and
 * tells what is looked for proves anything. */
#include "store/damage.h"

#include "store/disk_double.h"
#include "store/format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { START = 512 * 1024, BYTES = 1100 * 1024, AT = START + 1050 * 1024, BAD = START };

struct bed {
    struct double_disk *disk;
    struct disk_file *file;
};

/* A journal file of zeroes with one frame at position AT. */
static void bed_make(struct bed *bed, struct frame frame)
{
    uint8_t bytes[FRAME_ALIGN] = {0};
    bed->disk = double_create(1);
    assert_int_equal(disk_open(&bed->disk->disk, "journal", true, &bed->file), ERR_NONE);
    assert_int_equal(disk_allocate(bed->file, JOURNAL_HEADER_BYTES + BYTES, false), ERR_NONE);
    frame.body = 12;
    frame.records = 1;
    memset(bytes + FRAME_HEADER_BYTES, 'x', frame.body);
    frame_seal(bytes, &frame);
    assert_int_equal(
        disk_write_sync(bed->file, bytes, sizeof bytes, JOURNAL_HEADER_BYTES + (AT - START)),
        ERR_NONE);
}

static void bed_clear(struct bed *bed)
{
    disk_close(bed->file);
    double_destroy(bed->disk);
}

static uint64_t proof(struct frame frame)
{
    struct bed bed;
    uint64_t found = 1;
    bed_make(&bed, frame);
    assert_int_equal(damage_proof(bed.file, START, START + BYTES, BAD, BAD, &found), ERR_NONE);
    bed_clear(&bed);
    return found;
}

static const struct frame sound = {.position = AT, .index = 9, .durable = BAD + 512};

static void only_what_was_written_after_it_was_safe_proves_damage(void **state)
{
    (void)state;
    assert_int_equal(proof(sound), AT);
    struct frame frame = sound;
    frame.durable = BAD; /* it was not known to be safe */
    assert_int_equal(proof(frame), 0);
    frame.durable = AT + 512; /* more than there was */
    assert_int_equal(proof(frame), 0);
    frame = sound;
    frame.position = AT + 512; /* what remains of another journal */
    assert_int_equal(proof(frame), 0);
}

static void a_frame_of_a_later_index_is_found(void **state)
{
    (void)state;
    struct bed bed;
    uint64_t found;
    bed_make(&bed, sound);
    assert_int_equal(damage_next(bed.file, START, START + BYTES, START, 9, &found), ERR_NONE);
    assert_int_equal(found, AT);
    assert_int_equal(damage_next(bed.file, START, START + BYTES, START, 10, &found), ERR_NONE);
    assert_int_equal(found, 0);
    assert_int_equal(damage_next(bed.file, START, START + BYTES, AT + 512, 9, &found), ERR_NONE);
    assert_int_equal(found, 0);
    uint8_t odd = 1; /* one bit of it is another */
    assert_int_equal(disk_write_sync(bed.file, &odd, 1,
                                     JOURNAL_HEADER_BYTES + (AT - START) + FRAME_HEADER_BYTES),
                     ERR_NONE);
    assert_int_equal(damage_next(bed.file, START, START + BYTES, START, 9, &found), ERR_NONE);
    assert_int_equal(found, 0);
    bed_clear(&bed);
}

static void what_cannot_be_read_is_an_error(void **state)
{
    (void)state;
    struct bed bed;
    uint64_t found;
    bed_make(&bed, sound);
    bed.disk->fail_err = ERR_IO;
    enum err err = ERR_IO;
    uint64_t n = 1;
    for (; err != ERR_NONE; n++) {
        bed.disk->reads = 0;
        bed.disk->read_fail_at = n;
        err = damage_proof(bed.file, START, START + BYTES, BAD, BAD, &found);
        assert_int_equal(err, bed.disk->reads >= n ? ERR_IO : ERR_NONE);
    }
    assert_int_equal(n - 1, 4); /* two pieces and the frame, and then none */
    assert_int_equal(found, AT);
    bed.disk->read_fail_at = 0;
    err = ERR_NO_MEMORY;
    for (n = 1; err != ERR_NONE; n++) {
        memory_fail_at(n, 0);
        err = damage_proof(bed.file, START, START + BYTES, BAD, BAD, &found);
        memory_fail_at(0, 0);
        assert_true(err == ERR_NONE || err == ERR_NO_MEMORY);
    }
    assert_int_equal(n - 1, 3);
    assert_int_equal(found, AT);
    bed_clear(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_what_was_written_after_it_was_safe_proves_damage),
        cmocka_unit_test(a_frame_of_a_later_index_is_found),
        cmocka_unit_test(what_cannot_be_read_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
