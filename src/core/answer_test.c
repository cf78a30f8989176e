/* Answers go out when the journal is safe as far as they say, and not a frame before. */
#include "core/cell_steps.h"

enum { SEQS_MAX = 4096 };

/* Where the journal ended when each publish had been taken. */
struct watched {
    uint64_t queue, ends[SEQS_MAX], early, confirmed;
};

static void confirm_watch(struct rig *rig, const struct event *event)
{
    struct watched *watched = rig->hook_ctx;
    if (event->type != EVENT_PUBLISHED || event->err != ERR_NONE)
        return;
    uint64_t safe = store_committed(rig_cell(rig, watched->queue)->store);
    for (uint64_t seq = event->first_seq; seq <= event->last_seq; seq++) {
        watched->early += watched->ends[seq] > safe;
        watched->confirmed++;
    }
}

static void publish_watched(struct rig *rig, struct watched *watched, size_t padding)
{
    uint64_t seq = rig_publish_to(rig, &watched->queue, 1,
                                  (struct rig_message){.text = "x", .conn = 3, .padding = padding});
    assert_true(seq < SEQS_MAX);
    watched->ends[seq] = store_end(rig_cell(rig, watched->queue)->store);
}

/* Large ones bring flushes in the middle of a turn; small ones are one frame each when the disk is
 * quicker than the publisher. */
static void no_confirm_overtakes_the_journal(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct rig rig;
        struct watched watched = {0};
        rig_init(&rig, seed, 1);
        rig.segment_bytes = 16 << 20;
        rig_open(&rig);
        watched.queue = rig_plain_queue(&rig, "q");
        rig_run(&rig, 50);
        rig.hook = confirm_watch;
        rig.hook_ctx = &watched;
        for (int i = 0; i < 60; i++) {
            bool large = sim_random(rig.sim, 8) == 0;
            for (uint64_t n = 1 + sim_random(rig.sim, large ? 6 : 2); n > 0; n--)
                publish_watched(&rig, &watched, large ? 150000 : 1);
            sim_run_until(rig.sim, sim_now_us(rig.sim) + (int64_t)sim_random(rig.sim, 250));
        }
        rig_run(&rig, 100);
        assert_int_equal(watched.early, 0);
        assert_int_equal(watched.confirmed, rig.seq);
        rig.hook = NULL;
        rig_done(&rig);
    }
}

static void definition_watch(struct rig *rig, const struct event *event)
{
    uint64_t *early = rig->hook_ctx;
    struct store *store = rig->cell[0]->store;
    *early += event->type == EVENT_ANSWER && event->err == ERR_NONE && event->asker.conn == 1 &&
              store_committed(store) < store_end(store);
}

static void a_definition_is_answered_when_it_is_safe(void **state)
{
    (void)state;
    struct rig rig;
    uint64_t early = 0;
    rig_init(&rig, 1, 1);
    rig_open(&rig);
    rig.hook = definition_watch;
    rig.hook_ctx = &early;
    for (int i = 0; i < 20; i++) {
        char name[16];
        snprintf(name, sizeof name, "q%d", i);
        rig_plain_queue(&rig, name);
    }
    assert_int_equal(early, 0);
    rig.hook = NULL;
    rig_done(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_confirm_overtakes_the_journal),
        cmocka_unit_test(a_definition_is_answered_when_it_is_safe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
