/* A ledger against a plain list of messages, and its stored form. */
#include "core/ledger.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "codec/entry.h"
#include "io/sim.h"
#include "store/state.h"

enum { MESSAGES = 600 };

struct bed {
    struct sim *sim;
    struct state_memory *states;
    struct store *store;
};

static void nothing_committed(void *ctx, uint64_t end)
{
    (void)ctx, (void)end;
}

static void nothing_failed(void *ctx, enum err err)
{
    (void)ctx, (void)err;
}

static void bed_make(struct bed *bed, uint64_t seed)
{
    static const struct store_handler handler = {.committed = nothing_committed,
                                                 .failed = nothing_failed};
    struct sim_config world = {0};
    bed->sim = sim_create(seed, &world);
    bed->states = state_memory_create();
    struct store_config config = {.path = "cell",
                                  .disk = sim_disk(bed->sim, 0),
                                  .state = state_memory_backend(bed->states),
                                  .sync = true,
                                  .segment_bytes = 64 << 20,
                                  .memory_limit = 64 << 20,
                                  .checkpoint_ms = INT32_MAX};
    assert_int_equal(store_open(&config, &handler, NULL, &bed->store), ERR_NONE);
}

static void bed_clear(struct bed *bed)
{
    sim_crash(bed->sim, 0, SIM_KILL);
    store_destroy(bed->store);
    sim_destroy(bed->sim);
    state_memory_destroy(bed->states);
}

/* Puts an entry with a body of that size into a log and appends it. */
static enum err append(struct bed *bed, struct ledger *ledger, uint64_t offset, bool durable,
                       uint32_t body, int64_t expiry_ms)
{
    uint64_t pos;
    enum err err = ERR_NONE;
    size_t len = ENTRY_HEAD_BYTES + 6 + body;
    uint8_t *at = store_reserve(bed->store, durable, len, &pos, &err);
    assert_non_null(at);
    memset(at, 0, len);
    entry_head_put(
        at, &(struct entry_head){.timestamp_ms = 1, .expiry_ms = expiry_ms, .form = ENTRY_AMQP});
    store_commit(bed->store, len);
    return ledger_append(ledger, offset, pos, slice_make(at, len));
}

struct message {
    bool fleeting, settled;
    uint32_t body, returns;
};

struct model {
    struct message messages[MESSAGES];
    uint64_t next;
};

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void model_append(struct model *model, struct bed *bed, struct ledger *ledger,
                         uint64_t *random)
{
    struct message *message = &model->messages[model->next];
    *message = (struct message){.fleeting = next_random(random) % 3 == 0,
                                .body = (uint32_t)(next_random(random) % 100)};
    assert_int_equal(append(bed, ledger, model->next, !message->fleeting, message->body, 0),
                     ERR_NONE);
    model->next++;
}

static void model_settle(struct model *model, struct ledger *ledger, uint64_t first, uint64_t last)
{
    uint64_t bytes = 0, durable = 0;
    for (uint64_t i = first; i <= last && i < model->next; i++) {
        struct message *message = &model->messages[i];
        if (message->settled)
            continue;
        message->settled = true;
        bytes += message->body;
        durable += message->fleeting ? 0 : message->body;
    }
    assert_int_equal(ledger_settle(ledger, first, last, bytes, durable), ERR_NONE);
}

static void check(const struct model *model, struct ledger *ledger)
{
    uint64_t count = 0, bytes = 0, durable = 0, first = 0;
    while (first < model->next && model->messages[first].settled)
        first++;
    for (uint64_t i = 0; i < model->next; i++) {
        const struct message *message = &model->messages[i];
        struct entry entry;
        enum stream_found found = stream_peek(&ledger->stream, i, &entry);
        assert_int_equal(ledger_is_settled(ledger, i), message->settled);
        if (message->settled) {
            assert_true(found == STREAM_END || entry.base > i);
            continue;
        }
        assert_int_equal(found, STREAM_HIT);
        assert_int_equal(entry.base, i);
        assert_int_equal(entry_body_bytes(entry.data), message->body);
        assert_int_equal(ledger_is_fleeting(ledger, i), message->fleeting);
        assert_int_equal(ledger_returns(ledger, i), message->returns);
        count++;
        bytes += message->body;
        durable += message->fleeting ? 0 : message->body;
    }
    assert_int_equal(ledger->count, count);
    assert_int_equal(ledger->bytes, bytes);
    assert_int_equal(ledger->durable_bytes, durable);
    assert_int_equal(ledger->stream.first, first);
    assert_int_equal(ledger->stream.next, model->next);
}

static struct slice encode(const struct ledger *ledger, uint64_t reflects)
{
    size_t size = ledger_size(ledger);
    uint8_t *bytes = malloc(size);
    struct writer writer = writer_over(bytes, size);
    ledger_encode(ledger, &writer, reflects);
    assert_false(writer.failed);
    return slice_make(bytes, (size_t)(writer.at - bytes));
}

static void slice_free(struct slice slice)
{
    free((void *)(uintptr_t)slice.data);
}

/* What a restart finds: fleeting messages are gone, everything else is as it was. */
static void check_stored(const struct model *model, const struct ledger *ledger, struct bed *bed)
{
    struct slice stored = encode(ledger, 4711);
    struct ledger restored;
    ledger_init(&restored, bed->store, 2);
    assert_int_equal(ledger_restore(&restored, stored), ERR_NONE);
    assert_int_equal(restored.reflects, 4711);
    assert_int_equal(restored.stream.next, model->next);
    assert_int_equal(restored.bytes, ledger->durable_bytes);
    uint64_t count = 0;
    uint32_t returns = 0;
    for (uint64_t i = 0; i < model->next; i++) {
        const struct message *message = &model->messages[i];
        bool owed = !message->settled && !message->fleeting;
        assert_int_equal(ledger_is_settled(&restored, i), !owed);
        assert_int_equal(ledger_returns(&restored, i), owed ? message->returns : 0);
        count += owed;
        returns += owed && message->returns > 0;
    }
    assert_int_equal(restored.count, count);
    assert_int_equal(restored.returns.count, returns);
    ledger_done(&restored, false);
    slice_free(stored);
}

static void it_keeps_what_a_plain_list_keeps(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct bed bed;
        bed_make(&bed, seed);
        uint64_t random = seed * 65537;
        struct model model = {.next = 0};
        struct ledger ledger;
        ledger_init(&ledger, bed.store, 1);
        while (model.next < MESSAGES) {
            uint64_t what = next_random(&random) % 100;
            if (what < 50 || model.next == 0) {
                model_append(&model, &bed, &ledger, &random);
            } else if (what < 60) { /* in order */
                uint64_t first = ledger.stream.first;
                model_settle(&model, &ledger, first, first + next_random(&random) % 5);
            } else if (what < 85) {
                uint64_t first = next_random(&random) % model.next;
                uint64_t most = next_random(&random) % 40 == 0 ? 200 : 3;
                model_settle(&model, &ledger, first, first + next_random(&random) % most);
            } else {
                uint64_t offset = next_random(&random) % (model.next + 2);
                assert_int_equal(ledger_return(&ledger, offset), ERR_NONE);
                if (offset < model.next && !model.messages[offset].settled)
                    model.messages[offset].returns++;
            }
            if (next_random(&random) % 32 == 0)
                check(&model, &ledger);
            if (next_random(&random) % 64 == 0)
                check_stored(&model, &ledger, &bed);
        }
        check(&model, &ledger);
        check_stored(&model, &ledger, &bed);
        model_settle(&model, &ledger, 0, UINT64_MAX);
        check(&model, &ledger);
        check_stored(&model, &ledger, &bed);
        ledger_done(&ledger, false);
        bed_clear(&bed);
    }
}

static void lost_messages_leave_gaps_at_replay(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed, 1);
    struct ledger ledger;
    ledger_init(&ledger, bed.store, 1);
    /* 0 and 1 were volatile, then 4 and 5, then 7. */
    assert_int_equal(append(&bed, &ledger, 2, true, 10, 0), ERR_NONE);
    assert_int_equal(ledger.stream.first, 2);
    assert_int_equal(append(&bed, &ledger, 3, true, 10, 0), ERR_NONE);
    assert_int_equal(append(&bed, &ledger, 6, true, 10, 0), ERR_NONE);
    assert_int_equal(append(&bed, &ledger, 8, true, 10, 0), ERR_NONE);
    assert_int_equal(ledger.count, 4);
    const bool owed[] = {false, false, true, true, false, false, true, false, true};
    for (uint64_t i = 0; i < 9; i++)
        assert_int_equal(ledger_is_settled(&ledger, i), !owed[i]);
    /* A record that settled some that are lost, too. */
    assert_int_equal(ledger_settle(&ledger, 2, 5, 20, 20), ERR_NONE);
    assert_int_equal(ledger.stream.first, 6);
    assert_int_equal(ledger.count, 2);
    assert_int_equal(ledger.bytes, 20);
    ledger_done(&ledger, false);
    bed_clear(&bed);
}

static void a_settle_beyond_the_end_or_again_is_harmless(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed, 1);
    struct ledger ledger;
    ledger_init(&ledger, bed.store, 1);
    assert_int_equal(ledger_settle(&ledger, 0, UINT64_MAX, 0, 0), ERR_NONE);
    for (uint64_t i = 0; i < 10; i++)
        assert_int_equal(append(&bed, &ledger, i, true, 1, 0), ERR_NONE);
    assert_int_equal(ledger_settle(&ledger, 8, UINT64_MAX, 2, 2), ERR_NONE);
    assert_int_equal(ledger_settle(&ledger, 8, 12, 0, 0), ERR_NONE);
    assert_int_equal(ledger.count, 8);
    assert_int_equal(ledger_settle(&ledger, 3, 2, 0, 0), ERR_NONE);
    assert_int_equal(ledger.count, 8);
    assert_int_equal(ledger_settle(&ledger, 0, 7, 8, 8), ERR_NONE);
    assert_int_equal(ledger.stream.first, 10);
    assert_int_equal(ledger.count, 0);
    assert_int_equal(ledger.bytes, 0);
    ledger_done(&ledger, false);
    bed_clear(&bed);
}

static void bytes_go_though_the_range_that_they_came_with_is_lost(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed, 1);
    struct ledger ledger;
    ledger_init(&ledger, bed.store, 1);
    /* 0 and 1 were volatile. One record settled 0..1 and 3, and says 10 bytes in all. */
    assert_int_equal(append(&bed, &ledger, 2, true, 10, 0), ERR_NONE);
    assert_int_equal(append(&bed, &ledger, 3, true, 10, 0), ERR_NONE);
    assert_int_equal(ledger_settle(&ledger, 0, 1, 10, 10), ERR_NONE);
    assert_int_equal(ledger_settle(&ledger, 3, 3, 0, 0), ERR_NONE);
    assert_int_equal(ledger.bytes, 10);
    assert_int_equal(ledger.durable_bytes, 10);
    assert_int_equal(ledger.count, 1);
    ledger_done(&ledger, false);
    bed_clear(&bed);
}

static void it_knows_whether_messages_may_expire(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed, 1);
    struct ledger ledger, restored;
    ledger_init(&ledger, bed.store, 1);
    assert_int_equal(append(&bed, &ledger, 0, true, 1, 0), ERR_NONE);
    assert_false(ledger.expires);
    assert_int_equal(append(&bed, &ledger, 1, true, 1, 1234), ERR_NONE);
    assert_int_equal(append(&bed, &ledger, 2, true, 1, 0), ERR_NONE);
    assert_true(ledger.expires);
    struct slice stored = encode(&ledger, 0);
    ledger_init(&restored, bed.store, 2);
    assert_int_equal(ledger_restore(&restored, stored), ERR_NONE);
    assert_true(restored.expires);
    slice_free(stored);
    assert_int_equal(ledger_settle(&ledger, 0, 2, 3, 3), ERR_NONE);
    assert_false(ledger.expires);
    ledger_done(&restored, false);
    ledger_done(&ledger, false);
    bed_clear(&bed);
}

static void a_stored_form_cut_short_or_senseless_is_corrupt(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed, 1);
    struct ledger ledger, other;
    ledger_init(&ledger, bed.store, 1);
    for (uint64_t i = 0; i < 10; i++) {
        assert_int_equal(append(&bed, &ledger, i, true, 1, 0), ERR_NONE);
        assert_int_equal(ledger_return(&ledger, i), ERR_NONE);
    }
    for (uint64_t i = 1; i < 10; i += 3)
        assert_int_equal(ledger_settle(&ledger, i, i, 1, 1), ERR_NONE);
    struct slice stored = encode(&ledger, 0);
    for (size_t len = 0; len < stored.len; len++) {
        uint8_t *copy = malloc(len + 1);
        memcpy(copy, stored.data, len);
        ledger_init(&other, bed.store, 2);
        assert_int_equal(ledger_restore(&other, slice_make(copy, len)), ERR_CORRUPT);
        ledger_done(&other, false);
        free(copy);
    }
    /* Every byte changed in some way: an error or not, but a ledger that adds up. */
    for (size_t i = 0; i < stored.len; i++) {
        uint8_t *copy = malloc(stored.len);
        memcpy(copy, stored.data, stored.len);
        copy[i] ^= (uint8_t)(1 + i % 255);
        ledger_init(&other, bed.store, 2);
        if (ledger_restore(&other, slice_make(copy, stored.len)) == ERR_NONE)
            assert_int_equal(other.count + ranges_sum(&other.settled),
                             other.stream.next - other.stream.first);
        ledger_done(&other, false);
        free(copy);
    }
    slice_free(stored);
    ledger_done(&ledger, false);
    bed_clear(&bed);
}

static void a_long_run_in_the_middle_is_settled_at_once(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed, 1);
    struct ledger ledger;
    ledger_init(&ledger, bed.store, 1);
    /* As after a restart with a backlog in extents: no index in memory. */
    ledger.stream.next = UINT64_C(1) << 40;
    ledger.count = ledger.stream.next;
    assert_int_equal(ledger_return(&ledger, 0), ERR_NONE);
    assert_int_equal(ledger_return(&ledger, 77), ERR_NONE);
    assert_int_equal(ledger_settle(&ledger, 1, (UINT64_C(1) << 40) - 2, 0, 0), ERR_NONE);
    assert_int_equal(ledger.count, 2);
    assert_int_equal(ledger_returns(&ledger, 0), 1);
    assert_int_equal(ledger_returns(&ledger, 77), 0);
    assert_false(ledger_all_fleeting(&ledger, 0, UINT64_C(1) << 40));
    ledger_done(&ledger, false);
    bed_clear(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_keeps_what_a_plain_list_keeps),
        cmocka_unit_test(lost_messages_leave_gaps_at_replay),
        cmocka_unit_test(a_settle_beyond_the_end_or_again_is_harmless),
        cmocka_unit_test(bytes_go_though_the_range_that_they_came_with_is_lost),
        cmocka_unit_test(it_knows_whether_messages_may_expire),
        cmocka_unit_test(a_stored_form_cut_short_or_senseless_is_corrupt),
        cmocka_unit_test(a_long_run_in_the_middle_is_settled_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
