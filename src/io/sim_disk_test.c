/* The simulated disk: what survives which crash. */
#include "io/sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct sim *world(uint64_t seed)
{
    struct sim_config config = {0};
    struct sim *sim = sim_create(seed, &config);
    assert_non_null(sim);
    return sim;
}

static void run_all(struct sim *sim)
{
    for (int i = 0; i < 100000 && sim_step(sim); i++)
        continue;
    assert_false(sim_step(sim));
}

struct request {
    struct disk_op op;
    int done;
    struct disk_file *file;
    struct disk *disk;
};

static void request_done(struct disk_op *op)
{
    ((struct request *)op)->done++;
}

static struct disk_file *file_open(struct disk *disk, const char *path, bool create)
{
    struct disk_file *file = NULL;
    assert_int_equal(disk_open(disk, path, create, &file), ERR_NONE);
    return file;
}

static void file_read(struct disk *disk, const char *path, char *text, size_t size)
{
    struct disk_file *file = file_open(disk, path, false);
    size_t got = 0;
    assert_int_equal(disk_read_sync(file, text, size - 1, 0, &got), ERR_NONE);
    text[got] = '\0';
    disk_close(file);
}

static void requests_complete_later_with_their_bytes(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct sim *sim = world(seed);
        struct disk *disk = sim_disk(sim, 0);
        struct disk_file *file = file_open(disk, "f", true);
        struct request write = {.op.done = request_done}, read = {.op.done = request_done};
        struct iovec parts[] = {{"abc", 3}, {"defgh", 5}};
        disk_write(file, parts, 2, 5000, true, true, &write.op);
        assert_int_equal(write.done, 0);
        run_all(sim);
        assert_int_equal(write.done, 1);
        assert_int_equal(write.op.err, ERR_NONE);
        assert_int_equal(write.op.bytes, 8);
        char text[16] = "";
        disk_read(file, text, sizeof text, 4999, &read.op);
        run_all(sim);
        assert_int_equal(read.op.bytes, 9);
        assert_memory_equal(text, "\0abcdefgh", 9);
        disk_close(file);
        sim_destroy(sim);
    }
}

static void a_slow_disk_takes_so_many_times_as_long(void **state)
{
    (void)state;
    int64_t took_us[2];
    for (int i = 0; i < 2; i++) {
        struct sim *sim = world(3);
        struct disk_file *file = file_open(sim_disk(sim, 0), "f", true);
        struct request write = {.op.done = request_done};
        struct iovec part = {"abc", 3};
        sim_disk_slow(sim, 0, i == 0 ? 1 : 1000);
        disk_write(file, &part, 1, 0, true, false, &write.op);
        run_all(sim);
        assert_int_equal(write.op.err, ERR_NONE);
        took_us[i] = sim_now_us(sim);
        assert_int_equal(sim_disk_used(sim, 0), 4096);
        disk_close(file);
        sim_destroy(sim);
    }
    assert_int_equal(took_us[1], took_us[0] * 1000);
}

static void job_writes(struct disk_op *op)
{
    struct request *request = (struct request *)op;
    op->err = disk_write_sync(request->file, "one", 3, 0);
    if (op->err == ERR_NONE)
        op->err = disk_sync(request->file);
    if (op->err == ERR_NONE)
        op->err = disk_rename(request->disk, "new", "final");
    if (op->err == ERR_NONE)
        op->err = disk_sync_folder(request->disk, ".");
}

static void a_job_runs_and_completes(void **state)
{
    (void)state;
    struct sim *sim = world(7);
    struct disk *disk = sim_disk(sim, 0);
    struct request request = {
        .op.done = request_done, .file = file_open(disk, "new", true), .disk = disk};
    disk_run(disk, job_writes, &request.op);
    run_all(sim);
    assert_int_equal(request.done, 1);
    assert_int_equal(request.op.err, ERR_NONE);
    char text[8];
    file_read(disk, "final", text, sizeof text);
    assert_string_equal(text, "one");
    disk_close(request.file);
    sim_destroy(sim);
}

static void synced_bytes_survive_a_power_cut_and_others_may_not(void **state)
{
    (void)state;
    int kept = 0, dropped = 0, torn = 0;
    for (uint64_t seed = 0; seed < 300; seed++) {
        struct sim *sim = world(seed);
        struct disk *disk = sim_disk(sim, 0);
        struct disk_file *file = file_open(disk, "f", true);
        uint8_t old[4096], new[4096], found[4096];
        memset(old, 'o', sizeof old);
        memset(new, 'n', sizeof new);
        assert_int_equal(disk_write_sync(file, old, sizeof old, 0), ERR_NONE);
        assert_int_equal(disk_sync(file), ERR_NONE);
        assert_int_equal(disk_sync_folder(disk, "."), ERR_NONE);
        assert_int_equal(disk_write_sync(file, new, 2048, 512), ERR_NONE);
        sim_crash(sim, 0, SIM_POWER_CUT);
        assert_int_equal(disk_write_sync(file, new, 512, 0), ERR_IO);
        disk_close(file);
        sim_restart(sim, 0);
        file = file_open(disk, "f", false);
        size_t got = 0;
        assert_int_equal(disk_read_sync(file, found, sizeof found, 0, &got), ERR_NONE);
        assert_int_equal(got, 4096);
        assert_memory_equal(found, old, 512);
        assert_memory_equal(found + 2560, old, 4096 - 2560);
        for (size_t at = 512; at < 2560; at += 512) {
            if (memcmp(found + at, new, 512) == 0)
                kept++;
            else if (memcmp(found + at, old, 512) == 0)
                dropped++;
            else
                torn++;
        }
        disk_close(file);
        sim_destroy(sim);
    }
    assert_in_range(kept, 300, 900);
    assert_in_range(dropped, 300, 900);
    assert_in_range(torn, 30, 300);
}

static void everything_written_survives_the_end_of_the_process(void **state)
{
    (void)state;
    struct sim *sim = world(3);
    struct disk *disk = sim_disk(sim, 0);
    struct disk_file *file = file_open(disk, "f", true);
    assert_int_equal(disk_write_sync(file, "text", 4, 0), ERR_NONE);
    sim_crash(sim, 0, SIM_KILL);
    disk_close(file);
    sim_restart(sim, 0);
    char text[8];
    file_read(disk, "f", text, sizeof text);
    assert_string_equal(text, "text");
    sim_destroy(sim);
}

static void a_request_under_way_never_completes_after_a_crash(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct sim *sim = world(seed);
        struct disk *disk = sim_disk(sim, 0);
        struct disk_file *file = file_open(disk, "f", true);
        struct request write = {.op.done = request_done};
        struct iovec part = {"text", 4};
        disk_write(file, &part, 1, 0, true, false, &write.op);
        for (uint64_t i = seed % 3; i > 0; i--)
            sim_step(sim);
        int done = write.done;
        sim_crash(sim, 0, seed % 2 ? SIM_KILL : SIM_POWER_CUT);
        disk_close(file);
        sim_restart(sim, 0);
        run_all(sim);
        assert_int_equal(write.done, done);
        sim_destroy(sim);
    }
}

static void names_survive_when_their_folder_was_synced(void **state)
{
    (void)state;
    int lost = 0, found = 0, moved = 0;
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct sim *sim = world(seed);
        struct disk *disk = sim_disk(sim, 0);
        assert_int_equal(disk_make_folder(disk, "a/b"), ERR_NONE);
        disk_close(file_open(disk, "a/b/kept", true));
        assert_int_equal(disk_sync_folder(disk, "a/b/"), ERR_NONE);
        disk_close(file_open(disk, "a/b/other", true));
        assert_int_equal(disk_rename(disk, "a/b/kept", "a/b/moved"), ERR_NONE);
        sim_crash(sim, 0, SIM_POWER_CUT);
        sim_restart(sim, 0);
        struct disk_file *kept = NULL, *to = NULL, *other = NULL;
        bool has_kept = disk_open(disk, "a/b/kept", false, &kept) == ERR_NONE;
        bool has_moved = disk_open(disk, "a/b/moved", false, &to) == ERR_NONE;
        assert_true(has_kept != has_moved);
        disk_close(has_kept ? kept : to);
        moved += has_moved;
        if (disk_open(disk, "a/b/other", false, &other) == ERR_NONE) {
            disk_close(other);
            found++;
        } else {
            lost++;
        }
        sim_destroy(sim);
    }
    assert_in_range(lost, 40, 160);
    assert_in_range(found, 40, 160);
    assert_in_range(moved, 40, 160);
}

static void a_replaced_file_is_the_old_or_the_new_one(void **state)
{
    (void)state;
    int new = 0;
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct sim *sim = world(seed);
        struct disk *disk = sim_disk(sim, 0);
        struct disk_file *file = file_open(disk, "f", true);
        assert_int_equal(disk_write_sync(file, "old", 3, 0), ERR_NONE);
        assert_int_equal(disk_sync(file), ERR_NONE);
        assert_int_equal(disk_sync_folder(disk, "."), ERR_NONE);
        disk_close(file);
        file = file_open(disk, "f.new", true);
        assert_int_equal(disk_write_sync(file, "new", 3, 0), ERR_NONE);
        assert_int_equal(disk_sync(file), ERR_NONE);
        disk_close(file);
        assert_int_equal(disk_rename(disk, "f.new", "f"), ERR_NONE);
        sim_crash(sim, 0, SIM_POWER_CUT);
        sim_restart(sim, 0);
        char text[8];
        file_read(disk, "f", text, sizeof text);
        assert_true(strcmp(text, "old") == 0 || strcmp(text, "new") == 0);
        new += text[0] == 'n';
        sim_destroy(sim);
    }
    assert_in_range(new, 20, 80);
}

static void a_lying_disk_loses_what_was_synced(void **state)
{
    (void)state;
    int lost = 0;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct sim_config config = {.lie_about_sync = true};
        struct sim *sim = sim_create(seed, &config);
        struct disk *disk = sim_disk(sim, 0);
        struct disk_file *file = file_open(disk, "f", true);
        assert_int_equal(disk_write_sync(file, "text", 4, 0), ERR_NONE);
        assert_int_equal(disk_sync(file), ERR_NONE);
        assert_int_equal(disk_sync_folder(disk, "."), ERR_NONE);
        disk_close(file);
        sim_crash(sim, 0, SIM_POWER_CUT);
        sim_restart(sim, 0);
        char text[8] = "";
        if (disk_open(disk, "f", false, &file) == ERR_NONE) {
            disk_close(file);
            file_read(disk, "f", text, sizeof text);
        }
        lost += strcmp(text, "text") != 0;
        sim_destroy(sim);
    }
    assert_true(lost > 20);
}

static void a_full_disk_refuses_until_there_is_room(void **state)
{
    (void)state;
    struct sim_config config = {.disk_capacity = 3 * 4096};
    struct sim *sim = sim_create(1, &config);
    struct disk *disk = sim_disk(sim, 0);
    struct disk_file *one = file_open(disk, "one", true), *two = file_open(disk, "two", true);
    uint8_t block[8192] = {1};
    uint64_t bytes = 0;
    assert_int_equal(disk_write_sync(one, block, 8192, 0), ERR_NONE);
    assert_int_equal(disk_free_space(disk, ".", &bytes), ERR_NONE);
    assert_int_equal(bytes, 4096);
    assert_int_equal(disk_write_sync(two, block, 8192, 0), ERR_DISK_FULL);
    assert_int_equal(disk_write_sync(one, block, 8192, 0), ERR_NONE);
    assert_int_equal(disk_allocate(one, 8193, true), ERR_DISK_FULL);
    disk_close(one);
    assert_int_equal(disk_remove(disk, "one"), ERR_NONE);
    assert_int_equal(disk_write_sync(two, block, 8192, 0), ERR_NONE);
    assert_int_equal(disk_allocate(two, 3 * 4096, true), ERR_NONE);
    sim_disk_limit(sim, 0, 0);
    assert_int_equal(disk_allocate(two, 5 * 4096, true), ERR_NONE);
    disk_close(two);
    sim_destroy(sim);
}

static void what_a_failed_sync_covered_is_not_saved_by_the_next(void **state)
{
    (void)state;
    struct sim *sim = world(5);
    struct disk *disk = sim_disk(sim, 0);
    struct disk_file *file = file_open(disk, "f", true);
    assert_int_equal(disk_allocate(file, 8192, true), ERR_NONE);
    assert_int_equal(disk_sync_folder(disk, "."), ERR_NONE);
    assert_int_equal(disk_write_sync(file, "lost", 4, 0), ERR_NONE);
    sim_disk_errors(sim, 0, 1000000);
    assert_int_equal(disk_sync(file), ERR_IO);
    sim_disk_errors(sim, 0, 0);
    assert_int_equal(disk_write_sync(file, "kept", 4, 4096), ERR_NONE);
    assert_int_equal(disk_sync(file), ERR_NONE);
    disk_close(file);
    sim_crash(sim, 0, SIM_POWER_CUT);
    sim_restart(sim, 0);
    file = file_open(disk, "f", false);
    char text[4];
    size_t got;
    assert_int_equal(disk_read_sync(file, text, 4, 4096, &got), ERR_NONE);
    assert_memory_equal(text, "kept", 4);
    assert_int_equal(disk_read_sync(file, text, 4, 0, &got), ERR_NONE);
    assert_memory_not_equal(text, "lost", 4);
    disk_close(file);
    sim_destroy(sim);
}

static void a_machine_hangs_in_the_middle_of_a_job(void **state)
{
    (void)state;
    for (uint64_t calls = 1; calls <= 4; calls++) {
        struct sim *sim = world(9);
        struct disk *disk = sim_disk(sim, 0);
        struct request request = {
            .op.done = request_done, .file = file_open(disk, "new", true), .disk = disk};
        assert_int_equal(sim_disk_calls(sim, 0), 1);
        sim_hang_after(sim, 0, calls);
        disk_run(disk, job_writes, &request.op);
        run_all(sim);
        assert_true(sim_hung(sim, 0));
        assert_int_equal(request.done, 0);
        assert_int_equal(request.op.err, ERR_IO);
        struct disk_file *file;
        assert_int_equal(disk_open(disk, "new", false, &file), ERR_IO);
        sim_crash(sim, 0, SIM_KILL);
        disk_close(request.file);
        sim_restart(sim, 0);
        assert_false(sim_hung(sim, 0));
        file = file_open(disk, calls < 4 ? "new" : "final", false);
        disk_close(file);
        sim_destroy(sim);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_complete_later_with_their_bytes),
        cmocka_unit_test(a_slow_disk_takes_so_many_times_as_long),
        cmocka_unit_test(a_job_runs_and_completes),
        cmocka_unit_test(synced_bytes_survive_a_power_cut_and_others_may_not),
        cmocka_unit_test(everything_written_survives_the_end_of_the_process),
        cmocka_unit_test(a_request_under_way_never_completes_after_a_crash),
        cmocka_unit_test(names_survive_when_their_folder_was_synced),
        cmocka_unit_test(a_replaced_file_is_the_old_or_the_new_one),
        cmocka_unit_test(a_lying_disk_loses_what_was_synced),
        cmocka_unit_test(a_full_disk_refuses_until_there_is_room),
        cmocka_unit_test(what_a_failed_sync_covered_is_not_saved_by_the_next),
        cmocka_unit_test(a_machine_hangs_in_the_middle_of_a_job),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
