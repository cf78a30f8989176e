/* Messages that came by AMQP, on their way to a Kafka consumer: consecutive ones become one record
 * batch. A message that cannot be read becomes a record without key and value, so that the offsets
 * behind it stay what they are. */
#include "face/kafka/fetch.h"

#include "codec/entry.h"
#include "codec/kafka_batch.h"
#include "codec/message.h"

#include <stdlib.h>

enum { CONVERT_CHUNK_BYTES = 16 << 10, RUN_ENTRIES_MAX = 1000 };

static bool is_batch(const struct entry *entry)
{
    return entry_head_get(entry->data).form == ENTRY_KAFKA;
}

/* How many entries from `at` on go into one batch. */
static uint32_t run_length(const struct fetch_payload *payload, uint32_t at)
{
    uint32_t end = at + 1;
    while (end < payload->count && end - at < RUN_ENTRIES_MAX &&
           !is_batch(&payload->entries[end]) &&
           payload->entries[end].base == payload->entries[end - 1].base + 1)
        end++;
    return end - at;
}

static bool record_make(const struct entry *entry, struct arena *scratch,
                        struct message_record *record)
{
    struct message_view view;
    if (message_of_entry(entry->data, &view))
        return message_to_record(&view, scratch, record);
    *record = (struct message_record){.timestamp_ms = entry_head_get(entry->data).timestamp_ms};
    return true;
}

static bool run_build(struct request *request, const struct entry *entries, uint32_t count,
                      struct arena *scratch, struct slice *out)
{
    struct message_record *records = arena_array(scratch, count, sizeof *records);
    if (records == NULL)
        return false;
    size_t size = KAFKA_BATCH_HEADER_BYTES;
    for (uint32_t i = 0; i < count; i++) {
        if (!record_make(&entries[i], scratch, &records[i]))
            return false;
        size += kafka_record_bytes_max(records[i].key, records[i].value, records[i].headers,
                                       records[i].headers_count);
    }
    uint8_t *memory = arena_alloc(&request->arena, size);
    if (memory == NULL)
        return false;
    struct kafka_batch_builder builder;
    kafka_batch_begin(&builder, memory, size);
    for (uint32_t i = 0; i < count; i++)
        if (!kafka_batch_add(&builder, records[i].timestamp_ms, records[i].key, records[i].value,
                             records[i].headers, records[i].headers_count))
            return false;
    *out = kafka_batch_end(&builder);
    kafka_batch_place(memory, (int64_t)entries->base, LEADER_EPOCH);
    return true;
}

bool fetch_convert(struct request *request, struct fetch_payload *payload)
{
    payload->pieces = request_alloc(request, payload->count, sizeof *payload->pieces);
    if (payload->pieces == NULL)
        return false;
    struct arena scratch;
    arena_init(&scratch, CONVERT_CHUNK_BYTES, REQUEST_ARENA_BYTES_MAX);
    bool ok = true;
    for (uint32_t at = 0, run; ok && at < payload->count; at += run) {
        const struct entry *entry = &payload->entries[at];
        struct fetch_piece *piece = &payload->pieces[payload->piece_count++];
        run = 1;
        if (is_batch(entry)) {
            piece->buf = entry->buf;
            piece->data =
                slice_make(entry->data.data + ENTRY_HEAD_BYTES, entry->data.len - ENTRY_HEAD_BYTES);
        } else {
            run = run_length(payload, at);
            ok = run_build(request, entry, run, &scratch, &piece->data);
            arena_reset(&scratch);
        }
        payload->bytes += piece->data.len;
    }
    arena_done(&scratch);
    return ok;
}
