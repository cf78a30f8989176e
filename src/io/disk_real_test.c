/* Files in a folder of their own under the system's one for temporary files. */
#include "io/disk_real.h"

#include "base/folder_rig.h"

#include <limits.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct place {
    struct disk_real *real;
    struct disk *disk;
    sem_t woken;
    char folder[FOLDER_BYTES];
    char path[PATH_MAX];
    struct disk_file *file;
};

struct request {
    struct disk_op op;
    int done;
    int order, *counter;
    struct disk_file *file;
};

static void request_done(struct disk_op *op)
{
    struct request *request = (struct request *)op;
    request->done++;
    if (request->counter != NULL)
        request->order = ++*request->counter;
}

static void wake(void *ctx)
{
    sem_post(&((struct place *)ctx)->woken);
}

static int place_setup(void **state)
{
    struct place *place = calloc(1, sizeof *place);
    assert_non_null(place);
    folder_make("disk", place->folder);
    snprintf(place->path, sizeof place->path, "%s/file", place->folder);
    sem_init(&place->woken, 0, 0);
    assert_int_equal(disk_real_create(wake, place, &place->real), ERR_NONE);
    place->disk = disk_real_disk(place->real);
    assert_int_equal(disk_open(place->disk, place->path, true, &place->file), ERR_NONE);
    *state = place;
    return 0;
}

static int place_teardown(void **state)
{
    struct place *place = *state;
    disk_close(place->file);
    assert_int_equal(disk_remove(place->disk, place->path), ERR_NONE);
    assert_int_equal(disk_remove(place->disk, place->folder), ERR_NONE);
    disk_real_destroy(place->real);
    sem_destroy(&place->woken);
    free(place);
    return 0;
}

static void wait_done(struct place *place, const struct request *request)
{
    while (request->done == 0) {
        sem_wait(&place->woken);
        disk_real_deliver(place->real);
    }
}

static void parts_are_written_one_after_the_other_and_read_back(void **state)
{
    struct place *place = *state;
    struct request write = {.op.done = request_done}, read = {.op.done = request_done};
    struct iovec parts[] = {{"abc", 3}, {"", 0}, {"defg", 4}};
    disk_write(place->file, parts, 3, 10, true, false, &write.op);
    assert_int_equal(write.done, 0);
    wait_done(place, &write);
    assert_int_equal(write.op.err, ERR_NONE);
    assert_int_equal(write.op.bytes, 7);
    char text[20] = "....................";
    disk_read(place->file, text, sizeof text, 8, &read.op);
    wait_done(place, &read);
    assert_int_equal(read.op.err, ERR_NONE);
    assert_int_equal(read.op.bytes, 9);
    assert_memory_equal(text, "\0\0abcdefg...", 12);
}

static void a_deferred_write_is_executed_here_when_it_is_quiet(void **state)
{
    struct place *place = *state;
    struct request write = {.op.done = request_done};
    struct iovec part = {"now", 3};
    disk_write(place->file, &part, 1, 0, true, true, &write.op);
    assert_true(disk_real_deferred(place->real));
    assert_int_equal(disk_real_deliver(place->real), 0);
    (void)disk_real_start(place->real, INT64_MAX);
    assert_false(disk_real_deferred(place->real));
    assert_int_equal(write.done, 0);
    assert_int_equal(disk_real_deliver(place->real), 1);
    assert_int_equal(write.done, 1);
    assert_int_equal(sem_trywait(&place->woken), -1);
}

static void a_deferred_write_goes_to_a_helper_when_it_is_not_quiet(void **state)
{
    struct place *place = *state;
    struct request writes[3] = {
        {.op.done = request_done}, {.op.done = request_done}, {.op.done = request_done}};
    struct iovec part = {"later", 5};
    for (unsigned i = 0; i < 3; i++)
        disk_write(place->file, &part, 1, i * 5, i == 1, true, &writes[i].op);
    (void)disk_real_start(place->real, 0);
    for (unsigned i = 0; i < 3; i++)
        wait_done(place, &writes[i]);
    uint64_t size;
    assert_int_equal(disk_size(place->file, &size), ERR_NONE);
    assert_int_equal(size, 15);
}

static void many_requests_at_once_all_complete(void **state)
{
    struct place *place = *state;
    enum { COUNT = 300 };
    static struct request requests[COUNT];
    memset(requests, 0, sizeof requests);
    for (uint32_t i = 0; i < COUNT; i++) {
        requests[i].op.done = request_done;
        struct iovec part = {&requests[i].order, sizeof(int)};
        requests[i].order = (int)i;
        disk_write(place->file, &part, 1, i * sizeof(int), false, false, &requests[i].op);
    }
    for (int i = 0; i < COUNT; i++)
        wait_done(place, &requests[i]);
    int values[COUNT];
    size_t got;
    assert_int_equal(disk_read_sync(place->file, values, sizeof values, 0, &got), ERR_NONE);
    assert_int_equal(got, sizeof values);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(values[i], i);
}

static void job_writes(struct disk_op *op)
{
    struct request *request = (struct request *)op;
    op->err = disk_write_sync(request->file, "job", 3, 0);
    if (op->err == ERR_NONE)
        op->err = disk_sync(request->file);
}

static void a_job_runs_elsewhere_and_reports_here(void **state)
{
    struct place *place = *state;
    struct request request = {.op.done = request_done, .file = place->file};
    disk_run(place->disk, job_writes, &request.op);
    wait_done(place, &request);
    assert_int_equal(request.op.err, ERR_NONE);
    char text[3];
    size_t got;
    assert_int_equal(disk_read_sync(place->file, text, 3, 0, &got), ERR_NONE);
    assert_memory_equal(text, "job", 3);
}

static void allocated_bytes_are_zeroes_and_the_rest_stays(void **state)
{
    struct place *place = *state;
    assert_int_equal(disk_write_sync(place->file, "kept", 4, 0), ERR_NONE);
    assert_int_equal(disk_allocate(place->file, 1 << 20, false), ERR_NONE);
    assert_int_equal(disk_allocate(place->file, (3 << 20) + 5, true), ERR_NONE);
    uint64_t size;
    assert_int_equal(disk_size(place->file, &size), ERR_NONE);
    assert_int_equal(size, (3 << 20) + 5);
    assert_int_equal(disk_allocate(place->file, 100, true), ERR_NONE);
    char bytes[8];
    size_t got;
    assert_int_equal(disk_read_sync(place->file, bytes, 8, 0, &got), ERR_NONE);
    assert_memory_equal(bytes, "kept\0\0\0\0", 8);
    assert_int_equal(disk_read_sync(place->file, bytes, 8, 3 << 20, &got), ERR_NONE);
    assert_int_equal(got, 5);
}

/* Whole sectors past the page cache, others through it, in turn: readers see both. */
static void what_goes_past_the_page_cache_is_seen_through_it(void **state)
{
    struct place *place = *state;
    enum { ROUNDS = 40, SIZE = 64 * 1024 };
    uint8_t *sectors = aligned_alloc(DISK_SECTOR, SIZE), *seen = malloc(SIZE);
    uint8_t expected[SIZE] = {0};
    assert_non_null(sectors);
    assert_non_null(seen);
    disk_bypass(place->file, place->path);
    assert_int_equal(disk_allocate(place->file, SIZE, true), ERR_NONE);
    for (int i = 0; i < ROUNDS; i++) {
        struct request write = {.op.done = request_done};
        bool whole = i % 3 != 0;
        size_t unit = whole ? DISK_SECTOR : 1;
        size_t from = (size_t)(i * 7919 % 60000) / unit * unit, len = unit * (1 + (size_t)i % 8);
        memset(sectors, i + 1, SIZE);
        memset(expected + from, i + 1, len);
        struct iovec parts[] = {{sectors, len}};
        disk_write(place->file, parts, 1, from, true, i % 2 == 0, &write.op);
        (void)disk_real_start(place->real, INT64_MAX);
        disk_real_deliver(place->real);
        wait_done(place, &write);
        assert_int_equal(write.op.err, ERR_NONE);
        assert_int_equal(write.op.bytes, len);
        size_t got = 0;
        assert_int_equal(disk_read_sync(place->file, seen, SIZE, 0, &got), ERR_NONE);
        assert_int_equal(got, SIZE);
        assert_memory_equal(seen, expected, SIZE);
    }
    free(sectors);
    free(seen);
}

static void a_failing_write_is_reported_once(void **state)
{
    struct place *place = *state;
    struct disk_file *full;
    if (disk_open(place->disk, "/dev/full", false, &full) != ERR_NONE)
        skip();
    struct request write = {.op.done = request_done};
    struct iovec parts[] = {{"a", 1}, {"b", 1}};
    disk_write(full, parts, 2, 0, true, false, &write.op);
    wait_done(place, &write);
    assert_int_equal(write.op.err, ERR_DISK_FULL);
    assert_int_equal(write.op.bytes, 0);
    assert_int_equal(disk_real_deliver(place->real), 0);
    disk_close(full);
}

enum { NAMES_BYTES = 100 };

static void name_add(void *ctx, const char *name)
{
    char *names = ctx;
    size_t len = strlen(names);
    snprintf(names + len, NAMES_BYTES - len, "%s ", name);
}

static void folders_are_made_listed_and_renamed(void **state)
{
    struct place *place = *state;
    char path[PATH_MAX + 32], other[PATH_MAX + 32];
    struct disk_file *file;
    snprintf(path, sizeof path, "%s/a/b", place->folder);
    assert_int_equal(disk_make_folder(place->disk, path), ERR_NONE);
    assert_int_equal(disk_make_folder(place->disk, path), ERR_NONE);
    snprintf(path, sizeof path, "%s/a/b/two", place->folder);
    assert_int_equal(disk_open(place->disk, path, false, &file), ERR_NOT_FOUND);
    assert_int_equal(disk_open(place->disk, path, true, &file), ERR_NONE);
    disk_close(file);
    snprintf(other, sizeof other, "%s/a/one", place->folder);
    assert_int_equal(disk_rename(place->disk, path, other), ERR_NONE);
    assert_int_equal(disk_rename(place->disk, path, other), ERR_NOT_FOUND);
    snprintf(path, sizeof path, "%s/a", place->folder);
    assert_int_equal(disk_sync_folder(place->disk, path), ERR_NONE);
    char names[NAMES_BYTES] = "";
    assert_int_equal(disk_list(place->disk, path, name_add, names), ERR_NONE);
    assert_string_equal(names, "b one ");
    uint64_t bytes = 0;
    assert_int_equal(disk_free_space(place->disk, path, &bytes), ERR_NONE);
    assert_true(bytes > 0);
    assert_int_equal(disk_make_folder(place->disk, other), ERR_EXISTS);
    assert_int_equal(disk_remove(place->disk, other), ERR_NONE);
    snprintf(other, sizeof other, "%s/a/b", place->folder);
    assert_int_equal(disk_remove(place->disk, other), ERR_NONE);
    assert_int_equal(disk_remove(place->disk, path), ERR_NONE);
    assert_int_equal(disk_remove(place->disk, path), ERR_NOT_FOUND);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, place_setup, place_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(parts_are_written_one_after_the_other_and_read_back),
        TEST(a_deferred_write_is_executed_here_when_it_is_quiet),
        TEST(a_deferred_write_goes_to_a_helper_when_it_is_not_quiet),
        TEST(many_requests_at_once_all_complete),
        TEST(a_job_runs_elsewhere_and_reports_here),
        TEST(allocated_bytes_are_zeroes_and_the_rest_stays),
        TEST(what_goes_past_the_page_cache_is_seen_through_it),
        TEST(a_failing_write_is_reported_once),
        TEST(folders_are_made_listed_and_renamed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
