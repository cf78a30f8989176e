/* The receiving queue: whatever pieces bytes come in, its reader sees all of them in one piece. */
#include "io/inq.h"

#include "io/sim_random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct fixture {
    struct inq queue;
    struct inq_pool pool;
    uint64_t account;
    size_t sent;  /* bytes of the pattern that were received */
    size_t shown; /* of these, used by the reader */
};

static int fixture_setup(void **state)
{
    struct fixture *it = calloc(1, sizeof *it);
    assert_non_null(it);
    assert_true(inq_pool_init(&it->pool, &it->account));
    *state = it;
    return 0;
}

static int fixture_teardown(void **state)
{
    struct fixture *it = *state;
    assert_true(inq_keep(&it->queue, &it->pool, NULL, 0));
    assert_int_equal(it->account, 0);
    inq_pool_done(&it->pool);
    free(it);
    return 0;
}

static uint8_t pattern(size_t at)
{
    return (uint8_t)(at * 31);
}

/* Receives up to len bytes; the reader uses whole items of `item` bytes and wants the next one. */
static size_t receive(struct fixture *it, size_t len, size_t item)
{
    size_t room;
    uint8_t *place = inq_place(&it->queue, &it->pool, &room);
    assert_non_null(place);
    assert_true(room > 0);
    len = len < room ? len : room;
    for (size_t i = 0; i < len; i++)
        place[i] = pattern(it->sent + i);
    it->sent += len;
    uint8_t *data;
    size_t have = inq_arrived(&it->queue, place, len, &data);
    assert_int_equal(have, it->sent - it->shown);
    for (size_t i = 0; i < have; i += 97)
        assert_int_equal(data[i], pattern(it->shown + i));
    size_t used = have / item * item;
    it->shown += used;
    it->queue.want = used < have ? item : 0;
    assert_int_equal(inq_rest(&it->queue, &it->pool, data + used, have - used, false), ERR_NONE);
    return len;
}

static void items_of_any_length_arrive_in_pieces_of_any_length(void **state)
{
    struct fixture *it = *state;
    static const size_t ITEMS[] = {1, 10, 4000, 33000, 70000, 200000, 1000000};
    static const size_t PIECES[] = {100, 5000, 65536, SIZE_MAX};
    struct sim_random random = {.state = 1};
    for (size_t i = 0; i < sizeof ITEMS / sizeof ITEMS[0]; i++) {
        for (size_t j = 0; j < sizeof PIECES / sizeof PIECES[0]; j++) {
            size_t most = PIECES[j] < 1000 && ITEMS[i] > 100000 ? 5000 : PIECES[j];
            size_t end = it->shown + ITEMS[i] * 2;
            while (it->shown < end) {
                size_t left = end - it->sent;
                size_t len = most == SIZE_MAX ? left : 1 + sim_random_below(&random, most);
                receive(it, len < left ? len : left, ITEMS[i]);
            }
            assert_int_equal(it->account, 0);
        }
    }
}

static void a_torn_item_keeps_only_what_came_of_it(void **state)
{
    struct fixture *it = *state;
    receive(it, 1010, 1000);
    assert_in_range(it->account, 10, 64);
    receive(it, 990, 1000);
    assert_int_equal(it->account, 0);
}

static void a_wanted_gigabyte_is_not_allocated_before_it_comes(void **state)
{
    struct fixture *it = *state;
    size_t item = (size_t)1 << 30;
    for (int i = 0; i < 200; i++) {
        receive(it, 10000, item);
        assert_true(it->account <= (it->sent + 10000) * 9);
    }
    assert_in_range(it->sent, 1900000, 2000000);
}

static void what_completes_an_item_is_received_into_its_place(void **state)
{
    struct fixture *it = *state;
    size_t item = 1000000;
    size_t first = receive(it, item, item);
    assert_int_equal(first, INQ_BLOCK_BYTES);
    size_t second = receive(it, item - first, item);
    assert_int_equal(second, item - first);
    assert_int_equal(it->shown, item);
    assert_int_equal(it->account, 0);
}

static void a_reader_without_progress_is_refused_at_the_limit(void **state)
{
    struct fixture *it = *state;
    enum err err = ERR_NONE;
    size_t kept = 0;
    while (err == ERR_NONE) {
        size_t room;
        uint8_t *place = inq_place(&it->queue, &it->pool, &room);
        assert_non_null(place);
        room = room < 10000 ? room : 10000;
        memset(place, 0, room);
        uint8_t *data;
        kept = inq_arrived(&it->queue, place, room, &data);
        it->queue.want = 0;
        err = inq_rest(&it->queue, &it->pool, data, kept, false);
        assert_true(err != ERR_NONE || it->queue.want == kept + 1);
    }
    assert_int_equal(err, ERR_TOO_LARGE);
    assert_in_range(kept, INQ_KEEP_MAX, INQ_KEEP_MAX + 10000);
}

static void a_paused_reader_may_keep_more_and_wants_nothing(void **state)
{
    struct fixture *it = *state;
    size_t room;
    uint8_t *place = inq_place(&it->queue, &it->pool, &room);
    memset(place, 7, room);
    uint8_t *data;
    size_t len = inq_arrived(&it->queue, place, room, &data);
    assert_int_equal(inq_rest(&it->queue, &it->pool, data, len, true), ERR_NONE);
    assert_int_equal(it->queue.want, 0);
    assert_int_equal(it->queue.len, room);
    for (size_t i = 0; i < room; i++)
        assert_int_equal(it->queue.kept[i], 7);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(items_of_any_length_arrive_in_pieces_of_any_length),
        TEST(a_torn_item_keeps_only_what_came_of_it),
        TEST(a_wanted_gigabyte_is_not_allocated_before_it_comes),
        TEST(what_completes_an_item_is_received_into_its_place),
        TEST(a_reader_without_progress_is_refused_at_the_limit),
        TEST(a_paused_reader_may_keep_more_and_wants_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
