/* A batch of changes to the state store, as one run of bytes: per change a header {u32 key length,
 * u32 value length, UINT32_MAX for a deletion}, the key and the value. */
#include "store/state.h"

#include "base/endian.h"

#include <stdlib.h>
#include <string.h>

#define HEADER_BYTES 8u

static void batch_add(struct state_batch *batch, struct slice key, bool put, struct slice first,
                      struct slice second)
{
    size_t value_len = first.len + second.len, bytes = HEADER_BYTES + key.len + value_len;
    if (batch->failed || key.len > STATE_KEY_MAX || value_len >= UINT32_MAX) {
        batch->failed = true;
        return;
    }
    if (batch->room - batch->used < bytes) {
        size_t room = batch->room * 2 > batch->used + bytes ? batch->room * 2 : batch->used + bytes;
        room = room < 4096 ? 4096 : room;
        uint8_t *data = realloc(batch->data, room);
        if (data == NULL) {
            batch->failed = true;
            return;
        }
        batch->data = data;
        batch->room = room;
    }
    uint8_t *at = batch->data + batch->used;
    le32_put(at, (uint32_t)key.len);
    le32_put(at + 4, put ? (uint32_t)value_len : UINT32_MAX);
    at += HEADER_BYTES;
    memcpy(at, key.data, key.len);
    if (first.len > 0)
        memcpy(at + key.len, first.data, first.len);
    if (second.len > 0)
        memcpy(at + key.len + first.len, second.data, second.len);
    batch->used += bytes;
}

void state_batch_put(struct state_batch *batch, struct slice key, struct slice value)
{
    batch_add(batch, key, true, value, (struct slice){0});
}

void state_batch_put_parts(struct state_batch *batch, struct slice key, struct slice first,
                           struct slice second)
{
    batch_add(batch, key, true, first, second);
}

void state_batch_delete(struct state_batch *batch, struct slice key)
{
    batch_add(batch, key, false, (struct slice){0}, (struct slice){0});
}

void state_batch_done(struct state_batch *batch)
{
    free(batch->data);
    *batch = (struct state_batch){0};
}

bool state_batch_next(const struct state_batch *batch, size_t *at, struct slice *key,
                      struct slice *value)
{
    if (*at >= batch->used)
        return false;
    const uint8_t *data = batch->data + *at;
    uint32_t value_len = le32_get(data + 4);
    *key = (struct slice){.data = data + HEADER_BYTES, .len = le32_get(data)};
    *value = (struct slice){0};
    if (value_len != UINT32_MAX)
        *value = (struct slice){.data = key->data + key->len, .len = value_len};
    *at += HEADER_BYTES + key->len + value->len;
    return true;
}
