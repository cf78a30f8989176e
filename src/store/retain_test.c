/* How many bytes a stream holds, and from where on it satisfies a limit: in memory and stored. */
#include "store/checkpoint_rig.h"

static void retention_knows_bytes_and_times(void **state)
{
    (void)state;
    for (int stored = 0; stored < 2; stored++) {
        struct world *world;
        struct rig *rig = world_create(&world, 1);
        rig->size = 2000;
        assert_int_equal(rig_open(rig), ERR_NONE);
        append(rig, 8000);
        if (stored)
            checkpoint(rig);
        append(rig, 2000);
        flush(rig);
        struct stream *stream = &rig->streams[1].stream;
        uint64_t bytes = 0;
        for (uint64_t i = 0; i < 2500; i++)
            bytes += rig_len(rig, i * RIG_STREAMS + 1);
        uint64_t slack = stored ? EXTENT_BLOCK_BYTES : 2000;
        assert_in_range(stream_bytes(stream), bytes - slack, bytes);
        assert_int_equal(stream_retain_from(stream, UINT64_MAX, INT64_MIN), 0);
        assert_int_equal(stream_retain_from(stream, 0, INT64_MIN), 2500);
        for (uint64_t keep = 10000; keep < bytes; keep += 123457) {
            uint64_t first = stream_retain_from(stream, keep, INT64_MIN), kept = 0;
            for (uint64_t i = first; i < 2500; i++)
                kept += rig_len(rig, i * RIG_STREAMS + 1);
            assert_true(kept <= keep && kept + slack + 2000 >= keep);
        }
        for (uint64_t i = 0; i < 2500; i += 61) { /* entry i is of 1000 + 4 i + 1 ms */
            int64_t ms = (int64_t)(1000 + i * RIG_STREAMS + 1);
            uint64_t from = stream_seek_time(stream, ms);
            assert_true(from <= i);
            assert_true(i - from <= (stored ? 150u : 0u));
            assert_true(stream_retain_from(stream, UINT64_MAX, ms) == from);
        }
        assert_int_equal(stream_seek_time(stream, 1000000), 2500);
        assert_int_equal(rig_trim(rig, 1, 1234), ERR_NONE);
        checkpoint(rig);
        assert_true(stream_retain_from(stream, UINT64_MAX, INT64_MIN) == 1234);
        bytes = 0;
        for (uint64_t i = 1234; i < 2500; i++)
            bytes += rig_len(rig, i * RIG_STREAMS + 1);
        assert_in_range(stream_bytes(stream), bytes, bytes + EXTENT_BLOCK_BYTES + 2000);
        world_destroy(world);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(retention_knows_bytes_and_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
