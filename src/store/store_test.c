/* A store with everything under way (appends, trims, checkpoints, rewriting, volatile messages,
 * reading back what left memory) to which memory or the disk is refused at each moment in turn: it
 * says so or makes up for it, never falls, and loses nothing that it had confirmed. */
#include "base/memory_double.h"
#include "store/rig.h"
#include "store/state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { VOLATILE_STREAM = 99 };

/* The state store: memory that is always there, and commits that may be refused. */
struct fragile {
    struct state_backend backend; /* first member */
    const struct state_backend *real;
    uint64_t commits, fail_at, fails; /* so many fail, from that one on */
    uint64_t seeks, seek_fail_at;     /* one look-up fails */
    enum err fail_err;
    uint64_t readers, reader_fail_at;
};

static struct fragile fragile;

static enum err fragile_open(const struct state_backend *self, const char *path, bool create,
                             struct state **out)
{
    (void)self;
    return fragile.real->open(fragile.real, path, create, out);
}

static enum err fragile_reader_open(struct state *state, struct state_reader **out)
{
    if (++fragile.readers == fragile.reader_fail_at)
        return ERR_NO_MEMORY;
    return fragile.real->reader_open(state, out);
}

static enum err fragile_commit(struct state *state, const struct state_batch *batch)
{
    fragile.commits++;
    if (fragile.fail_at != 0 && fragile.commits >= fragile.fail_at &&
        fragile.commits < fragile.fail_at + fragile.fails)
        return fragile.fail_err;
    memory_pause();
    enum err err = fragile.real->commit(state, batch);
    memory_resume();
    return err;
}

static enum err fragile_seek(struct state_reader *reader, struct slice key, enum state_seek where,
                             struct state_found *out)
{
    if (++fragile.seeks == fragile.seek_fail_at)
        return fragile.fail_err;
    return fragile.real->seek(reader, key, where, out);
}

struct world {
    struct rig rig;
    struct state_memory *memory;
    struct stream fleeting; /* of the volatile log */
    uint64_t random;
};

static struct world *world_create(uint64_t seed)
{
    struct world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    rig_init(&world->rig, seed);
    world->memory = state_memory_create();
    fragile = (struct fragile){.real = state_memory_backend(world->memory)};
    fragile.backend = *fragile.real;
    fragile.backend.open = fragile_open;
    fragile.backend.reader_open = fragile_reader_open;
    fragile.backend.commit = fragile_commit;
    fragile.backend.seek = fragile_seek;
    world->rig.state = &fragile.backend;
    world->rig.size = 3000;
    world->rig.segment_bytes = 512 * 1024;
    world->rig.checkpoint_ms = 40;
    world->rig.memory_limit = 768 * 1024;
    world->random = seed + 5;
    return world;
}

static void world_close(struct world *world)
{
    if (world->fleeting.store != NULL)
        stream_done(&world->fleeting, false);
    world->fleeting = (struct stream){0};
    rig_close(&world->rig);
}

static void world_destroy(struct world *world)
{
    world_close(world);
    rig_done(&world->rig);
    state_memory_destroy(world->memory);
    free(world);
}

static enum err world_open(struct world *world)
{
    struct rig *rig = &world->rig;
    enum err err = rig_open(rig);
    if (err == ERR_NONE)
        stream_init(&world->fleeting, rig->store, VOLATILE_STREAM, 0, 0);
    for (int i = 0; err != ERR_NONE && i < RIG_STREAMS; i++) { /* made before it failed */
        if (rig->streams[i].stream.store != NULL)
            stream_done(&rig->streams[i].stream, false);
        rig->streams[i] = (struct rig_stream){0};
    }
    return err;
}

/* An orderly stop. */
static enum err world_stop(struct world *world)
{
    if (world->fleeting.store != NULL)
        stream_done(&world->fleeting, false);
    world->fleeting = (struct stream){0};
    return rig_stop(&world->rig);
}

static uint64_t dice_of(struct world *world)
{
    world->random = world->random * 6364136223846793005u + 1442695040888963407u;
    return world->random >> 33;
}

static bool well(const struct world *world)
{
    return world->rig.failed == ERR_NONE && !world->rig.disk->dead;
}

static void fleeting_append(struct world *world)
{
    struct rig *rig = &world->rig;
    struct stream *stream = &world->fleeting;
    uint64_t pos, number = stream->next;
    enum err err;
    size_t len = rig_len(rig, number);
    uint8_t *at = store_reserve(rig->store, false, len, &pos, &err);
    if (at == NULL)
        return;
    rig_fill(rig, at, number);
    store_commit(rig->store, len);
    if (stream_add(stream, number, 1, pos, (uint32_t)len) != ERR_NONE)
        rig->failed = ERR_NO_MEMORY;
}

static void read_done(struct stream_load *load, enum err err)
{
    struct rig_waiter *waiter = list_entry(load, struct rig_waiter, load);
    waiter->done++;
    waiter->err = err;
}

/* What a reader finds there is right, or it is told why there is nothing. */
static void read_one(struct world *world, struct stream *stream, uint64_t offset, uint64_t factor,
                     uint64_t which)
{
    struct rig *rig = &world->rig;
    struct entry entry;
    for (int tries = 0; tries < 4 && offset < stream->next; tries++) {
        enum stream_found found = stream_peek(stream, offset, &entry);
        if (found == STREAM_HIT)
            assert_true(rig_matches(rig, entry.data, entry.base * factor + which));
        if (found != STREAM_MISS)
            return;
        struct rig_waiter waiter = {.load.done = read_done};
        stream_load(stream, offset, &waiter.load);
        for (int turns = 0; waiter.done == 0; turns++) {
            if (!double_turn(rig->disk))
                rig_tick(rig, 1);
            assert_true(turns < 1000);
        }
        if (waiter.err != ERR_NONE)
            return;
    }
}

static void trim_some(struct world *world, uint64_t dice)
{
    struct rig *rig = &world->rig;
    uint64_t which = dice / 32 % RIG_STREAMS;
    struct stream *stream = &rig->streams[which].stream;
    if (stream->next <= stream->first)
        return;
    uint64_t most = stream->next - stream->first;
    enum err err = rig_trim(rig, which, stream->first + 1 + dice / 512 % most * 3 / 4);
    (void)err; /* it was refused: the next one may do */
}

/* An entry that is in the journal but found no room in the index fails the store, as it does a
 * cell. */
static void append_some(struct world *world, uint64_t count)
{
    struct rig *rig = &world->rig;
    for (; count > 0 && well(world); count--) {
        uint64_t before = rig->appended;
        if (rig_append(rig) != ERR_NONE && rig->appended > before)
            rig->failed = ERR_NO_MEMORY;
    }
}

static void work(struct world *world, int rounds)
{
    struct rig *rig = &world->rig;
    for (int round = 0; round < rounds && well(world); round++) {
        uint64_t dice = dice_of(world);
        append_some(world, dice % 24);
        for (uint64_t i = dice / 23 % 12; i > 0 && well(world); i--)
            fleeting_append(world);
        if (!well(world))
            return;
        if (dice / 128 % 2 == 0)
            trim_some(world, dice);
        store_flush(rig->store, dice / 7 % 4 == 0);
        for (uint64_t i = dice / 11 % 12; i > 0; i--)
            double_turn(rig->disk);
        uint64_t which = dice / 29 % RIG_STREAMS;
        struct stream *stream = &rig->streams[which].stream;
        if (well(world))
            read_one(world, stream, stream->first + dice / 37 % 50, RIG_STREAMS, which);
        if (well(world))
            read_one(world, &world->fleeting, world->fleeting.first, 1, 0);
        if (well(world) && stream->next > stream->first) {
            uint64_t first = stream_retain_from(stream, 200000, INT64_MIN);
            assert_in_range(first, stream->first, stream->next);
            first = stream_seek_time(stream, 1000 + (int64_t)(dice / 41 % rig->appended));
            assert_in_range(first, stream->first, stream->next);
            assert_true(stream_bytes(stream) < UINT64_C(1) << 40);
        }
        if (world->fleeting.next > 600)
            stream_trim(&world->fleeting, world->fleeting.next - 600);
        rig_tick(rig, (int64_t)(dice / 17 % 8));
    }
}

/* After a crash everything confirmed is there; what was not may be, in order. */
static void recovered(struct world *world)
{
    struct rig *rig = &world->rig;
    uint64_t promised = rig->committed, appended = rig->appended;
    world_close(world);
    double_reboot(rig->disk, DOUBLE_DROP);
    enum err err = world_open(world);
    if (err != ERR_NONE)
        print_message("%s\n", rig->problem);
    assert_int_equal(err, ERR_NONE);
    int64_t count = rig_count(rig);
    assert_true(count >= (int64_t)promised && count <= (int64_t)appended);
    for (int i = 0; i < RIG_STREAMS; i++)
        assert_true(rig->streams[i].stream.first >= rig->promised_first[i]);
    assert_true(rig_verify(rig) >= 0);
    rig->appended = rig->committed = (uint64_t)count;
}

/* It goes on without faults: what was put off is made up for. */
static void calm_down(struct world *world)
{
    memory_fail_at(0, 0);
    world->rig.disk->fail_at = world->rig.disk->read_fail_at = 0;
    for (int i = 0; i < 4 && well(world); i++) {
        rig_tick(&world->rig, 2000);
        rig_settle(&world->rig);
    }
}

static void recover_and_go_on(struct world *world)
{
    recovered(world);
    work(world, 12);
    assert_int_equal(world->rig.failed, ERR_NONE);
    assert_int_equal(world_stop(world), ERR_NONE);
    assert_int_equal(world_open(world), ERR_NONE);
    assert_true(rig_verify(&world->rig) >= 0);
}

static void memory_may_run_out_at_any_moment(void **state)
{
    (void)state;
    bool reached = true;
    for (uint64_t n = 1; reached; n += 1 + n / 40) {
        struct world *world = world_create(n);
        memory_fail_at(n, n % 3);
        enum err err = world_open(world);
        if (err != ERR_NONE) {
            assert_int_equal(err, ERR_NO_MEMORY);
            memory_fail_at(0, 0);
            assert_int_equal(world_open(world), ERR_NONE);
        }
        work(world, 50);
        reached = memory_count() >= n || err != ERR_NONE;
        calm_down(world);
        assert_true(world->rig.failed == ERR_NONE || world->rig.failed == ERR_NO_MEMORY);
        recover_and_go_on(world);
        world_destroy(world);
    }
}

/* One that was worked with, for a start that fails. */
static struct world *world_stopped(void)
{
    struct world *world = world_create(3);
    assert_int_equal(world_open(world), ERR_NONE);
    work(world, 60);
    world_close(world);
    double_reboot(world->rig.disk, DOUBLE_KEEP);
    return world;
}

static void memory_may_run_out_at_any_moment_of_a_start(void **state)
{
    (void)state;
    struct world *world = world_stopped();
    enum err err = ERR_NO_MEMORY;
    uint64_t failed = 0;
    for (uint64_t n = 1; err != ERR_NONE; n++) {
        memory_fail_at(n, 0);
        err = world_open(world);
        memory_fail_at(0, 0);
        assert_true(err == ERR_NONE || err == ERR_NO_MEMORY);
        failed += err != ERR_NONE;
    }
    assert_true(failed > 10);
    assert_true(rig_verify(&world->rig) >= 0);
    world_destroy(world);
}

static void memory_may_run_out_at_any_moment_of_a_stop(void **state)
{
    (void)state;
    bool reached = true;
    for (uint64_t n = 1; reached; n += 1 + n / 30) {
        struct world *world = world_create(n);
        assert_int_equal(world_open(world), ERR_NONE);
        work(world, 30);
        memory_fail_at(n, 0);
        enum err err = world_stop(world);
        reached = memory_count() >= n;
        memory_fail_at(0, 0);
        assert_true(err == ERR_NONE || err == ERR_NO_MEMORY);
        assert_int_equal(world_open(world), ERR_NONE);
        recover_and_go_on(world);
        world_destroy(world);
    }
}

/* Readers are told, checkpoints fail loudly or are made again, and nothing is taken for gone. */
static void a_look_up_that_fails_harms_nothing(void **state)
{
    (void)state;
    static const enum err errors[] = {ERR_NO_MEMORY, ERR_IO, ERR_CORRUPT};
    bool reached = true;
    for (uint64_t n = 1; reached; n += 1 + n / 10) {
        struct world *world = world_create(n);
        assert_int_equal(world_open(world), ERR_NONE);
        fragile.fail_err = errors[n % 3];
        fragile.seek_fail_at = fragile.seeks + n;
        work(world, 60);
        reached = fragile.seeks >= fragile.seek_fail_at;
        fragile.seek_fail_at = 0;
        calm_down(world);
        assert_true(world->rig.failed == ERR_NONE || world->rig.failed == fragile.fail_err);
        recover_and_go_on(world);
        world_destroy(world);
    }
}

static void a_start_that_cannot_look_up_fails(void **state)
{
    (void)state;
    struct world *world = world_stopped();
    enum err err = ERR_IO;
    for (uint64_t n = 1; err != ERR_NONE; n++) {
        fragile.fail_err = ERR_IO;
        fragile.seek_fail_at = fragile.seeks + n;
        err = world_open(world);
        assert_true(err == ERR_NONE || err == ERR_IO);
        fragile.seek_fail_at = 0;
    }
    assert_true(rig_verify(&world->rig) >= 0);
    world_destroy(world);
}

static void a_read_that_fails_is_told_and_harms_nothing(void **state)
{
    (void)state;
    bool reached = true;
    for (uint64_t n = 1; reached; n += 1 + n / 20) {
        struct world *world = world_create(n);
        assert_int_equal(world_open(world), ERR_NONE);
        world->rig.disk->fail_err = ERR_IO;
        world->rig.disk->read_fail_at = world->rig.disk->reads + n;
        work(world, 60);
        reached = world->rig.disk->reads >= world->rig.disk->read_fail_at;
        calm_down(world);
        assert_true(world->rig.failed == ERR_NONE || world->rig.failed == ERR_IO);
        recover_and_go_on(world);
        world_destroy(world);
    }
}

static void a_start_that_cannot_read_says_what(void **state)
{
    (void)state;
    struct world *world = world_stopped();
    enum err err = ERR_IO;
    for (uint64_t n = 1; err != ERR_NONE; n++) {
        world->rig.problem[0] = '\0';
        world->rig.disk->fail_err = ERR_IO;
        world->rig.disk->read_fail_at = world->rig.disk->reads + n;
        err = world_open(world);
        assert_true(err == ERR_NONE || err == ERR_IO);
        world->rig.disk->read_fail_at = 0;
    }
    assert_true(rig_verify(&world->rig) >= 0);
    world_destroy(world);
}

/* A commit that found no room is made again later, and nothing that changed is forgotten, even when
 * nothing changes any more. */
static void a_commit_that_is_refused_is_made_up_for(void **state)
{
    (void)state;
    static const enum err errors[] = {ERR_DISK_FULL, ERR_NO_MEMORY, ERR_AGAIN, ERR_IO};
    for (uint64_t i = 0; i < 60; i++) {
        struct world *world = world_create(i);
        assert_int_equal(world_open(world), ERR_NONE);
        fragile.fail_at = 1 + i / 4 % 5;
        fragile.fails = 1 + i / 20;
        fragile.fail_err = errors[i % 4];
        work(world, 30);
        if (fragile.fail_err == ERR_IO)
            assert_int_equal(world->rig.failed, fragile.commits >= fragile.fail_at ? ERR_IO : 0);
        for (int turns = 0; turns < 40 && well(world); turns++) { /* the next checkpoints */
            rig_tick(&world->rig, 2000);
            rig_settle(&world->rig);
            store_flush(world->rig.store, false);
        }
        if (fragile.fail_err != ERR_IO)
            assert_int_equal(world->rig.failed, ERR_NONE);
        fragile.fail_at = 0;
        recover_and_go_on(world);
        world_destroy(world);
    }
}

/* What was committed stays, even when the store cannot look at it any more. */
static void a_commit_that_cannot_be_followed_takes_nothing_back(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 24; i++) {
        struct world *world = world_create(i);
        assert_int_equal(world_open(world), ERR_NONE);
        fragile.reader_fail_at = 1 + i % 3;
        work(world, 30);
        fragile.reader_fail_at = 0;
        recover_and_go_on(world);
        world_destroy(world);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_may_run_out_at_any_moment),
        cmocka_unit_test(memory_may_run_out_at_any_moment_of_a_start),
        cmocka_unit_test(memory_may_run_out_at_any_moment_of_a_stop),
        cmocka_unit_test(a_commit_that_is_refused_is_made_up_for),
        cmocka_unit_test(a_commit_that_cannot_be_followed_takes_nothing_back),
        cmocka_unit_test(a_look_up_that_fails_harms_nothing),
        cmocka_unit_test(a_start_that_cannot_look_up_fails),
        cmocka_unit_test(a_read_that_fails_is_told_and_harms_nothing),
        cmocka_unit_test(a_start_that_cannot_read_says_what),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
