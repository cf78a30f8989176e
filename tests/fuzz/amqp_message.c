/* Everything that is made of a stored AMQP message, over arbitrary entries: views, records, dead
 * letters. What comes out must be well-formed whenever it comes out. */
#include "codec/amqp_wire.h"
#include "codec/message.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void record_check(const struct message_view *view, struct arena *arena)
{
    struct message_record record;
    if (!message_to_record(view, arena, &record))
        return;
    for (size_t i = 0; i < record.headers_count; i++)
        assert(record.headers[i].key.data || record.headers[i].key.len == 0);
}

static void death_check(struct slice entry, const struct message_view *view, struct arena *arena)
{
    /* What publishers send is checked before it is stored. */
    if (view->headers.len && !amqp_table_valid(view->headers))
        return;
    struct slice key = view->body.len % 2 ? slice_of("key") : (struct slice){0};
    enum message_death reason = view->body.len % 4;
    for (int i = 0; i < 3; i++) {
        entry = message_dead_letter(entry, reason, slice_of("queue"), slice_of("exchange"), key,
                                    INT64_C(1700000000000), arena);
        if (slice_is_null(entry))
            return;
        struct message_view dead;
        assert(message_of_entry(entry, &dead));
        assert(amqp_table_valid(dead.headers));
        assert(slice_equal(dead.body, view->body));
        (void)message_death_cycle(entry, slice_of("queue"));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 1 << 16)
        return 0;
    struct arena arena;
    struct message_view view;
    struct slice entry = slice_make(data, size);
    arena_init(&arena, 4096, 16 << 20);
    (void)message_priority(entry);
    if (message_of_entry(entry, &view)) {
        struct slice keys[4];
        uint32_t count = 0;
        (void)message_keys(view.list, "CC", keys, 4, &count);
        (void)message_record_key(&view);
        (void)message_list_without(view.list, "BCC", &arena);
        record_check(&view, &arena);
        death_check(entry, &view, &arena);
    }
    arena_done(&arena);
    return 0;
}
