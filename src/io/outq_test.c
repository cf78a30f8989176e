/* The output queue, held against a plain copy of what went in. */
#include "io/outq.h"

#include "io/sim_random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PARTS = 16, MODEL_BYTES = 4 << 20 };

struct fixture {
    struct outq queue;
    struct outq_pool pool;
    uint64_t account, bufs;
    uint8_t *in; /* everything that was queued */
    size_t in_len, out_len;
    uint8_t next;
};

static int fixture_setup(void **state)
{
    struct fixture *it = calloc(1, sizeof *it);
    assert_non_null(it);
    it->in = malloc(MODEL_BYTES);
    assert_non_null(it->in);
    it->pool.account = &it->account;
    *state = it;
    return 0;
}

static int fixture_teardown(void **state)
{
    struct fixture *it = *state;
    outq_clear(&it->queue, &it->pool);
    assert_int_equal(it->account, 0);
    assert_int_equal(it->bufs, 0);
    assert_null(it->queue.first);
    outq_pool_done(&it->pool);
    free(it->in);
    free(it);
    return 0;
}

/* The next bytes of the model, as many as asked for. */
static const uint8_t *fresh(struct fixture *it, size_t len)
{
    assert_true(it->in_len + len <= MODEL_BYTES);
    uint8_t *bytes = it->in + it->in_len;
    for (size_t i = 0; i < len; i++)
        bytes[i] = it->next++;
    it->in_len += len;
    return bytes;
}

static void put_copy(struct fixture *it, size_t len)
{
    assert_true(outq_copy(&it->queue, &it->pool, fresh(it, len), len));
}

static void put_reserved(struct fixture *it, size_t reserve, size_t used)
{
    uint8_t *space = outq_reserve(&it->queue, &it->pool, reserve);
    assert_non_null(space);
    memset(space, 0xee, reserve);
    memcpy(space, fresh(it, used), used);
    outq_commit(&it->queue, used);
}

static void put_shared(struct fixture *it, size_t len)
{
    struct buf *buf = buf_create(len + 1, 0, &it->bufs);
    assert_non_null(buf);
    memcpy(buf->data, fresh(it, len), len);
    assert_true(outq_share(&it->queue, &it->pool, buf, buf->data, len));
}

/* Takes up to `most` bytes out, as writev would. */
static size_t take(struct fixture *it, size_t most)
{
    struct iovec parts[PARTS];
    size_t bytes, taken = 0;
    int count = outq_gather(&it->queue, parts, PARTS, &bytes);
    for (int i = 0; i < count && taken < most; i++) {
        size_t part = parts[i].iov_len < most - taken ? parts[i].iov_len : most - taken;
        assert_memory_equal(parts[i].iov_base, it->in + it->out_len + taken, part);
        taken += part;
    }
    outq_consume(&it->queue, &it->pool, taken);
    it->out_len += taken;
    assert_int_equal(it->queue.bytes, it->in_len - it->out_len);
    return taken;
}

static void small_copies_leave_as_one_part(void **state)
{
    struct fixture *it = *state;
    for (int i = 0; i < 100; i++)
        put_copy(it, 20);
    struct iovec parts[PARTS];
    size_t bytes;
    assert_int_equal(outq_gather(&it->queue, parts, PARTS, &bytes), 1);
    assert_int_equal(bytes, 2000);
    assert_int_equal(take(it, SIZE_MAX), 2000);
}

static void an_empty_queue_holds_no_memory(void **state)
{
    struct fixture *it = *state;
    put_copy(it, 100);
    put_shared(it, 10000);
    assert_true(it->account > 0 && it->bufs > 0);
    take(it, SIZE_MAX);
    assert_int_equal(it->account, 0);
    assert_int_equal(it->bufs, 0);
    assert_null(it->queue.first);
}

static void order_holds_over_copied_reserved_and_shared_bytes(void **state)
{
    struct fixture *it = *state;
    put_copy(it, 10);
    put_shared(it, 600);
    put_reserved(it, 64, 7);
    put_shared(it, 40000);
    put_reserved(it, OUTQ_RESERVE_MAX, OUTQ_RESERVE_MAX);
    put_reserved(it, 100, 0);
    put_copy(it, 200000);
    while (take(it, 777) > 0)
        continue;
    assert_int_equal(it->out_len, it->in_len);
}

static void few_shared_bytes_are_copied_and_released(void **state)
{
    struct fixture *it = *state;
    put_shared(it, OUTQ_SHARE_MIN - 1);
    assert_int_equal(it->bufs, 0);
    put_shared(it, OUTQ_SHARE_MIN);
    assert_true(it->bufs > 0);
}

static void one_buf_may_be_queued_several_times(void **state)
{
    struct fixture *it = *state;
    struct buf *buf = buf_create(1000, 0, &it->bufs);
    assert_non_null(buf);
    memset(buf->data, 'b', 1000);
    for (int i = 0; i < 3; i++)
        assert_true(outq_share(&it->queue, &it->pool, buf_ref(buf), buf->data, 1000));
    buf_unref(buf);
    assert_int_equal(it->bufs, 1000);
    outq_consume(&it->queue, &it->pool, 2999);
    assert_int_equal(it->bufs, 1000);
    outq_consume(&it->queue, &it->pool, 1);
    assert_int_equal(it->bufs, 0);
}

static void count_release(void *ctx, struct buf *buf)
{
    ++*(int *)ctx;
    buf_unref(buf);
}

static void a_buf_is_given_up_as_the_pool_says(void **state)
{
    struct fixture *it = *state;
    int released = 0;
    it->pool.release = count_release;
    it->pool.release_ctx = &released;
    put_shared(it, 10);
    assert_int_equal(released, 1);
    put_shared(it, 5000);
    assert_int_equal(released, 1);
    outq_clear(&it->queue, &it->pool);
    assert_int_equal(released, 2);
}

static void any_mix_of_calls_keeps_bytes_and_order(void **state)
{
    struct fixture *it = *state;
    struct sim_random random = {.state = 1};
    for (int i = 0; i < 3000; i++) {
        size_t len = sim_random_below(&random, 10) == 0 ? sim_random_below(&random, 30000)
                                                        : sim_random_below(&random, 300);
        if (it->in_len + len > MODEL_BYTES)
            break;
        switch (sim_random_below(&random, 5)) {
        case 0:
            put_copy(it, len);
            break;
        case 1:
            put_reserved(it, len + 1, len);
            break;
        case 2:
            put_shared(it, len);
            break;
        default:
            take(it, sim_random_below(&random, 3000));
        }
    }
    while (take(it, SIZE_MAX) > 0)
        continue;
    assert_int_equal(it->out_len, it->in_len);
    assert_int_equal(it->account, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(small_copies_leave_as_one_part),
        TEST(an_empty_queue_holds_no_memory),
        TEST(order_holds_over_copied_reserved_and_shared_bytes),
        TEST(few_shared_bytes_are_copied_and_released),
        TEST(one_buf_may_be_queued_several_times),
        TEST(a_buf_is_given_up_as_the_pool_says),
        TEST(any_mix_of_calls_keeps_bytes_and_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
