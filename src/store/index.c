/* Keys and values of a cell's state store. */
#include "store/index.h"

#include "base/endian.h"
#include "store/format.h"

#include <assert.h>
#include <string.h>

#define CRC_BYTES     4u
#define META_BYTES    48u
#define ROW_BYTES     72u
#define EXTENT_BYTES  24u
#define ROW_KEY_BYTES 17u

static struct slice slice_at(const uint8_t *data, size_t len)
{
    return (struct slice){.data = data, .len = len};
}

void index_meta_key(struct index_key *out)
{
    out->data[0] = 'M';
    out->len = 1;
}

void index_row_key(uint64_t stream, uint64_t base, struct index_key *out)
{
    out->data[0] = 'E';
    be64_put(out->data + 1, stream);
    be64_put(out->data + 9, base);
    out->len = ROW_KEY_BYTES;
}

void index_extent_key(uint64_t number, struct index_key *out)
{
    out->data[0] = 'X';
    be64_put(out->data + 1, number);
    out->len = 9;
}

void index_object_key(uint8_t kind, uint64_t id, struct index_key *out)
{
    out->data[0] = 'O';
    out->data[1] = kind;
    be64_put(out->data + 2, id);
    out->len = 10;
}

static uint32_t pair_crc(struct slice key, struct slice value)
{
    return crc32c(crc32c(0, key.data, key.len), value.data, value.len);
}

/* Appends the checksum; `value` has room for it. */
static void pair_put(struct state_batch *batch, const struct index_key *key, uint8_t *value,
                     size_t len)
{
    struct slice name = index_key_slice(key);
    le32_put(value + len, pair_crc(name, slice_at(value, len)));
    state_batch_put(batch, name, slice_at(value, len + CRC_BYTES));
}

static bool pair_sound(struct slice key, struct slice value)
{
    if (value.len < CRC_BYTES)
        return false;
    struct slice body = slice_at(value.data, value.len - CRC_BYTES);
    return le32_get(value.data + body.len) == pair_crc(key, body);
}

void index_meta_put(struct state_batch *batch, const struct index_meta *meta)
{
    struct index_key key;
    uint8_t value[META_BYTES + CRC_BYTES];
    index_meta_key(&key);
    le32_put(value, INDEX_VERSION);
    le32_put(value + 4, meta->cell);
    le64_put(value + 8, meta->position);
    le64_put(value + 16, meta->index);
    le64_put(value + 24, meta->least_end);
    le64_put(value + 32, meta->next_extent);
    le32_put(value + 40, meta->chain);
    le32_put(value + 44, 0);
    pair_put(batch, &key, value, META_BYTES);
}

bool index_meta_get(struct slice key, struct slice value, struct index_meta *out)
{
    if (value.len != META_BYTES + CRC_BYTES || !pair_sound(key, value) ||
        le32_get(value.data) < 1 || le32_get(value.data) > INDEX_VERSION)
        return false;
    out->cell = le32_get(value.data + 4);
    out->position = le64_get(value.data + 8);
    out->index = le64_get(value.data + 16);
    out->least_end = le64_get(value.data + 24);
    out->next_extent = le64_get(value.data + 32);
    out->chain = le32_get(value.data + 40);
    return true;
}

void index_row_put(struct state_batch *batch, const struct index_row *row)
{
    struct index_key key;
    uint8_t value[ROW_BYTES + CRC_BYTES];
    index_row_key(row->stream, row->base, &key);
    le64_put(value, row->end);
    le64_put(value + 8, row->extent);
    le64_put(value + 16, row->offset);
    le32_put(value + 24, row->body);
    le32_put(value + 28, row->count);
    le64_put(value + 32, row->bytes);
    le64_put(value + 40, row->sum);
    le64_put(value + 48, (uint64_t)row->max_ms);
    le64_put(value + 56, (uint64_t)row->peak_ms);
    le32_put(value + 64, row->kept);
    le32_put(value + 68, row->crc);
    pair_put(batch, &key, value, ROW_BYTES);
}

bool index_row_get(struct slice key, struct slice value, struct index_row *out)
{
    if (key.len != ROW_KEY_BYTES || key.data[0] != 'E' || value.len != ROW_BYTES + CRC_BYTES ||
        !pair_sound(key, value))
        return false;
    out->stream = be64_get(key.data + 1);
    out->base = be64_get(key.data + 9);
    out->end = le64_get(value.data);
    out->extent = le64_get(value.data + 8);
    out->offset = le64_get(value.data + 16);
    out->body = le32_get(value.data + 24);
    out->count = le32_get(value.data + 28);
    out->bytes = le64_get(value.data + 32);
    out->sum = le64_get(value.data + 40);
    out->max_ms = (int64_t)le64_get(value.data + 48);
    out->peak_ms = (int64_t)le64_get(value.data + 56);
    out->kept = le32_get(value.data + 64) == 1;
    out->crc = le32_get(value.data + 68);
    return out->end > out->base && le32_get(value.data + 64) <= 1 && out->body > 0 &&
           out->body <= EXTENT_BLOCK_MAX;
}

void index_extent_put(struct state_batch *batch, const struct index_extent *extent)
{
    struct index_key key;
    uint8_t value[EXTENT_BYTES + CRC_BYTES];
    index_extent_key(extent->number, &key);
    le64_put(value, extent->bytes);
    le64_put(value + 8, extent->live);
    le64_put(value + 16, extent->blocks);
    pair_put(batch, &key, value, EXTENT_BYTES);
}

bool index_extent_get(struct slice key, struct slice value, struct index_extent *out)
{
    if (key.len != 9 || key.data[0] != 'X' || value.len != EXTENT_BYTES + CRC_BYTES ||
        !pair_sound(key, value))
        return false;
    out->number = be64_get(key.data + 1);
    out->bytes = le64_get(value.data);
    out->live = le64_get(value.data + 8);
    out->blocks = le64_get(value.data + 16);
    return true;
}

void index_object_put(struct state_batch *batch, uint8_t kind, uint64_t id, struct slice value)
{
    struct index_key key;
    index_object_key(kind, id, &key);
    struct slice name = index_key_slice(&key);
    if (value.data == NULL) {
        state_batch_delete(batch, name);
        return;
    }
    uint8_t crc[CRC_BYTES];
    le32_put(crc, pair_crc(name, value));
    state_batch_put_parts(batch, name, value, slice_at(crc, CRC_BYTES));
}

bool index_object_get(struct slice key, struct slice value, uint8_t *kind, uint64_t *id,
                      struct slice *out)
{
    if (key.len != 10 || key.data[0] != 'O' || !pair_sound(key, value))
        return false;
    *kind = key.data[1];
    *id = be64_get(key.data + 2);
    *out = slice_at(value.data, value.len - CRC_BYTES);
    return true;
}

bool index_row_sound(struct slice key, struct slice value)
{
    static const struct {
        uint8_t table;
        size_t key_len;
    } tables[] = {{'M', 1}, {'E', ROW_KEY_BYTES}, {'X', 9}, {'O', 10}};
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        if (index_table(key) == tables[i].table)
            return key.len == tables[i].key_len && pair_sound(key, value);
    }
    return false;
}

/* Seeks and decodes; ERR_NOT_FOUND when what is there is not a row of the stream. */
static enum err row_seek(const struct state_backend *backend, struct state_reader *reader,
                         uint64_t stream, uint64_t base, enum state_seek where,
                         struct index_row *out)
{
    struct index_key key;
    struct state_found found;
    index_row_key(stream, base, &key);
    enum err err = backend->seek(reader, index_key_slice(&key), where, &found);
    if (err != ERR_NONE)
        return err;
    if (found.key_len != ROW_KEY_BYTES || memcmp(found.key, key.data, 9) != 0)
        return ERR_NOT_FOUND;
    if (!index_row_get(slice_at(found.key, found.key_len), slice_at(found.value, found.value_len),
                       out))
        return ERR_CORRUPT;
    return ERR_NONE;
}

enum err index_row_find(const struct state_backend *backend, struct state_reader *reader,
                        uint64_t stream, uint64_t offset, struct index_row *out)
{
    struct index_row row;
    enum err err = row_seek(backend, reader, stream, offset, STATE_AT_OR_BEFORE, &row);
    if (err == ERR_NONE && row.end <= offset)
        err = ERR_NOT_FOUND;
    if (err == ERR_NOT_FOUND)
        err = row_seek(backend, reader, stream, offset, STATE_AT_OR_AFTER, &row);
    if (err == ERR_NONE)
        *out = row;
    return err;
}

enum err index_row_last(const struct state_backend *backend, struct state_reader *reader,
                        uint64_t stream, struct index_row *out)
{
    return row_seek(backend, reader, stream, UINT64_MAX, STATE_AT_OR_BEFORE, out);
}

enum err index_row_from(const struct state_backend *backend, struct state_reader *reader,
                        uint64_t stream, uint64_t base, struct index_row *out)
{
    return row_seek(backend, reader, stream, base, STATE_AT_OR_AFTER, out);
}
