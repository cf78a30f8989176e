/*
 * Three walks over the same tables: decode, size, encode. A struct is its fields in order and, in a
 * flexible version, a section of tagged fields: count, then (tag, length, value) each, of which
 * only those that differ from their default are written and unknown ones are read past.
 *
 * What comes from outside is bounded here: an array's count by the bytes that are left and by the
 * arena's limit, a tagged value by its own length, depth by the tables.
 */

#include "codec/kafka_schema.h"

#include <assert.h>

/* What all functions of a walk need to know. */
struct walk {
    int16_t version;
    bool flexible;
    struct arena *arena;
};

static bool struct_decode(struct reader *reader, const struct walk *walk,
                          const struct kafka_schema *schema, void *out);
static size_t struct_size(const struct walk *walk, const struct kafka_schema *schema,
                          const void *in);
static void struct_encode(struct writer *writer, const struct walk *walk,
                          const struct kafka_schema *schema, const void *in);

static const size_t type_bytes[] = {
    [KAFKA_TYPE_BOOL] = sizeof(bool),
    [KAFKA_TYPE_INT8] = sizeof(int8_t),
    [KAFKA_TYPE_INT16] = sizeof(int16_t),
    [KAFKA_TYPE_INT32] = sizeof(int32_t),
    [KAFKA_TYPE_INT64] = sizeof(int64_t),
    [KAFKA_TYPE_UUID] = sizeof(struct kafka_uuid),
    [KAFKA_TYPE_STRING] = sizeof(struct slice),
    [KAFKA_TYPE_BYTES] = sizeof(struct slice),
    [KAFKA_TYPE_RECORDS] = sizeof(struct slice),
};

static size_t element_bytes(const struct kafka_field *field)
{
    return field->type == KAFKA_TYPE_STRUCT ? field->schema->size : type_bytes[field->type];
}

/* The least that an element of an array takes on the wire. */
static size_t element_wire_bytes_min(const struct kafka_field *field)
{
    switch (field->type) {
    case KAFKA_TYPE_STRUCT:
        return field->schema->wire_bytes_min;
    case KAFKA_TYPE_STRING:
    case KAFKA_TYPE_BYTES:
    case KAFKA_TYPE_RECORDS:
        return 1;
    default:
        return type_bytes[field->type];
    }
}

static bool field_present(const struct kafka_field *field, int16_t version)
{
    return version >= field->since && version <= field->until;
}

static bool field_nullable(const struct kafka_field *field, int16_t version)
{
    return version >= field->null_since;
}

/* The length of a string, bytes or array: -1 is null. */
static int32_t length_decode(struct reader *reader, const struct walk *walk, uint8_t type)
{
    if (walk->flexible) {
        uint32_t length = reader_uvarint(reader);
        if (length <= INT32_MAX)
            return (int32_t)length - 1;
        reader_fail(reader);
        return 0;
    }
    int32_t length = type == KAFKA_TYPE_STRING ? reader_i16(reader) : reader_i32(reader);
    if (length < -1)
        reader_fail(reader);
    return length;
}

static struct slice slice_decode(struct reader *reader, const struct walk *walk,
                                 const struct kafka_field *field)
{
    int32_t length = length_decode(reader, walk, field->type);
    if (field->type == KAFKA_TYPE_STRING && length > INT16_MAX)
        reader_fail(reader);
    if (length >= 0)
        return reader_slice(reader, (size_t)length);
    if (!field_nullable(field, walk->version))
        reader_fail(reader);
    return (struct slice){0};
}

static void value_decode(struct reader *reader, const struct walk *walk,
                         const struct kafka_field *field, void *out)
{
    const uint8_t *bytes;
    switch ((enum kafka_type)field->type) {
    case KAFKA_TYPE_BOOL:
        *(bool *)out = reader_u8(reader) != 0;
        break;
    case KAFKA_TYPE_INT8:
        *(int8_t *)out = reader_i8(reader);
        break;
    case KAFKA_TYPE_INT16:
        *(int16_t *)out = reader_i16(reader);
        break;
    case KAFKA_TYPE_INT32:
        *(int32_t *)out = reader_i32(reader);
        break;
    case KAFKA_TYPE_INT64:
        *(int64_t *)out = reader_i64(reader);
        break;
    case KAFKA_TYPE_UUID:
        bytes = reader_take(reader, sizeof(struct kafka_uuid));
        if (bytes)
            memcpy(out, bytes, sizeof(struct kafka_uuid));
        break;
    case KAFKA_TYPE_STRING:
    case KAFKA_TYPE_BYTES:
    case KAFKA_TYPE_RECORDS:
        *(struct slice *)out = slice_decode(reader, walk, field);
        break;
    case KAFKA_TYPE_STRUCT:
        if (!struct_decode(reader, walk, field->schema, out))
            reader_fail(reader);
        break;
    }
}

static void array_decode(struct reader *reader, const struct walk *walk,
                         const struct kafka_field *field, uint8_t *out)
{
    int32_t count = length_decode(reader, walk, KAFKA_TYPE_BYTES);
    if (count < 0 && !field_nullable(field, walk->version))
        reader_fail(reader);
    if (count > 0 && (size_t)count > reader_left(reader) / element_wire_bytes_min(field))
        reader_fail(reader);
    if (reader->failed)
        return;
    size_t size = element_bytes(field);
    uint8_t *element = NULL;
    if (count > 0 && !(element = arena_array(walk->arena, (size_t)count, size))) {
        reader_fail(reader);
        return;
    }
    memcpy(out + field->offset, &element, sizeof element);
    memcpy(out + field->count_offset, &count, sizeof count);
    for (int32_t i = 0; i < count && !reader->failed; i++, element += size)
        value_decode(reader, walk, field, element);
}

static void field_decode(struct reader *reader, const struct walk *walk,
                         const struct kafka_field *field, uint8_t *out)
{
    if (field->array)
        array_decode(reader, walk, field, out);
    else
        value_decode(reader, walk, field, out + field->offset);
}

static const struct kafka_field *tagged_find(const struct kafka_schema *schema, int16_t version,
                                             uint32_t tag)
{
    const struct kafka_field *field = schema->fields + schema->fields_count;
    for (int i = 0; i < schema->tagged_count; i++, field++)
        if (field->tag == tag && field_present(field, version))
            return field;
    return NULL;
}

static void tagged_decode(struct reader *reader, const struct walk *walk,
                          const struct kafka_schema *schema, uint8_t *out)
{
    uint32_t count = reader_uvarint(reader);
    int64_t last_tag = -1;
    for (uint32_t i = 0; i < count && !reader->failed; i++) {
        uint32_t tag = reader_uvarint(reader);
        struct reader value = reader_over(reader_slice(reader, reader_uvarint(reader)));
        const struct kafka_field *field = tagged_find(schema, walk->version, tag);
        if (field && !reader->failed) {
            field_decode(&value, walk, field, out);
            if (value.failed || reader_left(&value))
                reader_fail(reader);
        }
        if (tag <= last_tag) /* each once and in order */
            reader_fail(reader);
        last_tag = tag;
    }
}

void kafka_tags_skip(struct reader *reader)
{
    static const struct kafka_field no_fields[1];
    static const struct kafka_schema none = {.fields = no_fields};
    static const struct walk walk = {0};
    tagged_decode(reader, &walk, &none, NULL);
}

static bool struct_decode(struct reader *reader, const struct walk *walk,
                          const struct kafka_schema *schema, void *out)
{
    memcpy(out, schema->defaults, schema->size);
    const struct kafka_field *field = schema->fields;
    const struct kafka_field *end = field + schema->fields_count;
    for (; field < end; field++)
        if (field_present(field, walk->version))
            field_decode(reader, walk, field, out);
    if (walk->flexible)
        tagged_decode(reader, walk, schema, out);
    return !reader->failed;
}

static int32_t count_of(const struct kafka_field *field, const uint8_t *in)
{
    int32_t count;
    memcpy(&count, in + field->count_offset, sizeof count);
    return count;
}

static const uint8_t *elements_of(const struct kafka_field *field, const uint8_t *in)
{
    const uint8_t *elements;
    memcpy(&elements, in + field->offset, sizeof elements);
    return elements;
}

static size_t length_size(const struct walk *walk, uint8_t type, size_t length)
{
    if (walk->flexible)
        return uvarlong_size(length + 1);
    return type == KAFKA_TYPE_STRING ? sizeof(int16_t) : sizeof(int32_t);
}

static size_t value_size(const struct walk *walk, const struct kafka_field *field, const void *in)
{
    const struct slice *slice;
    switch ((enum kafka_type)field->type) {
    case KAFKA_TYPE_STRING:
    case KAFKA_TYPE_BYTES:
    case KAFKA_TYPE_RECORDS:
        slice = in;
        return length_size(walk, field->type, slice->len) + slice->len;
    case KAFKA_TYPE_STRUCT:
        return struct_size(walk, field->schema, in);
    default:
        return type_bytes[field->type];
    }
}

static size_t field_size(const struct walk *walk, const struct kafka_field *field,
                         const uint8_t *in)
{
    if (!field->array)
        return value_size(walk, field, in + field->offset);
    int32_t count = count_of(field, in);
    size_t size = length_size(walk, KAFKA_TYPE_BYTES, count > 0 ? (size_t)count : 0);
    size_t step = element_bytes(field);
    const uint8_t *element = elements_of(field, in);
    if (field->type < KAFKA_TYPE_STRING)
        return size + (count > 0 ? (size_t)count * step : 0);
    for (int32_t i = 0; i < count; i++, element += step)
        size += value_size(walk, field, element);
    return size;
}

static bool value_is_default(const struct walk *walk, const struct kafka_field *field,
                             const uint8_t *in, const uint8_t *defaults);

/* Whether every field that the version has is at its default. */
static bool struct_is_default(const struct walk *walk, const struct kafka_schema *schema,
                              const uint8_t *in)
{
    if (memcmp(in, schema->defaults, schema->size) == 0)
        return true;
    const struct kafka_field *field = schema->fields;
    for (int i = 0; i < schema->fields_count + schema->tagged_count; i++, field++)
        if (field_present(field, walk->version) &&
            !value_is_default(walk, field, in, schema->defaults))
            return false;
    return true;
}

static bool value_is_default(const struct walk *walk, const struct kafka_field *field,
                             const uint8_t *in, const uint8_t *defaults)
{
    if (field->array)
        return count_of(field, in) == count_of(field, defaults);
    in += field->offset;
    const struct slice *slice;
    switch ((enum kafka_type)field->type) {
    case KAFKA_TYPE_STRING:
    case KAFKA_TYPE_BYTES:
    case KAFKA_TYPE_RECORDS: /* whose default is null, or empty where there is no null */
        slice = (const void *)in;
        return field_nullable(field, walk->version) ? slice->data == NULL : slice->len == 0;
    case KAFKA_TYPE_STRUCT:
        return struct_is_default(walk, field->schema, in);
    default:
        return memcmp(in, defaults + field->offset, type_bytes[field->type]) == 0;
    }
}

static size_t tagged_size(const struct walk *walk, const struct kafka_schema *schema,
                          const uint8_t *in)
{
    const struct kafka_field *field = schema->fields + schema->fields_count;
    size_t size = 1; /* the count, which is less than 128 */
    for (int i = 0; i < schema->tagged_count; i++, field++) {
        if (!field_present(field, walk->version) ||
            value_is_default(walk, field, in, schema->defaults))
            continue;
        size_t value = field_size(walk, field, in);
        size += uvarlong_size(field->tag) + uvarlong_size(value) + value;
    }
    return size;
}

static size_t struct_size(const struct walk *walk, const struct kafka_schema *schema,
                          const void *in)
{
    const struct kafka_field *field = schema->fields;
    const struct kafka_field *end = field + schema->fields_count;
    size_t size = walk->flexible ? tagged_size(walk, schema, in) : 0;
    for (; field < end; field++)
        if (field_present(field, walk->version))
            size += field_size(walk, field, in);
    return size;
}

static void length_encode(struct writer *writer, const struct walk *walk, uint8_t type,
                          int64_t length)
{
    if (length > (type == KAFKA_TYPE_STRING ? INT16_MAX : INT32_MAX - 1))
        writer_fail(writer);
    else if (walk->flexible)
        writer_uvarlong(writer, (uint64_t)(length + 1));
    else if (type == KAFKA_TYPE_STRING)
        writer_i16(writer, (int16_t)length);
    else
        writer_i32(writer, (int32_t)length);
}

static void value_encode(struct writer *writer, const struct walk *walk,
                         const struct kafka_field *field, const void *in)
{
    const struct slice *slice;
    bool null;
    switch ((enum kafka_type)field->type) {
    case KAFKA_TYPE_BOOL:
        writer_u8(writer, *(const bool *)in);
        break;
    case KAFKA_TYPE_INT8:
        writer_i8(writer, *(const int8_t *)in);
        break;
    case KAFKA_TYPE_INT16:
        writer_i16(writer, *(const int16_t *)in);
        break;
    case KAFKA_TYPE_INT32:
        writer_i32(writer, *(const int32_t *)in);
        break;
    case KAFKA_TYPE_INT64:
        writer_i64(writer, *(const int64_t *)in);
        break;
    case KAFKA_TYPE_UUID:
        writer_bytes(writer, in, sizeof(struct kafka_uuid));
        break;
    case KAFKA_TYPE_STRING:
    case KAFKA_TYPE_BYTES:
    case KAFKA_TYPE_RECORDS:
        slice = in;
        null = !slice->data && !slice->len && field_nullable(field, walk->version);
        length_encode(writer, walk, field->type, null ? -1 : (int64_t)slice->len);
        if (field->type == KAFKA_TYPE_RECORDS)
            writer_payload(writer, *slice);
        else
            writer_slice(writer, *slice);
        break;
    case KAFKA_TYPE_STRUCT:
        struct_encode(writer, walk, field->schema, in);
        break;
    }
}

static void field_encode(struct writer *writer, const struct walk *walk,
                         const struct kafka_field *field, const uint8_t *in)
{
    if (!field->array) {
        value_encode(writer, walk, field, in + field->offset);
        return;
    }
    int32_t count = count_of(field, in);
    if (count < 0)
        count = field_nullable(field, walk->version) ? -1 : 0;
    length_encode(writer, walk, KAFKA_TYPE_BYTES, count);
    size_t step = element_bytes(field);
    const uint8_t *element = elements_of(field, in);
    for (int32_t i = 0; i < count; i++, element += step)
        value_encode(writer, walk, field, element);
}

static void tagged_encode(struct writer *writer, const struct walk *walk,
                          const struct kafka_schema *schema, const uint8_t *in)
{
    const struct kafka_field *field = schema->fields + schema->fields_count;
    uint8_t *count = writer_reserve(writer, 1);
    uint8_t written = 0;
    for (int i = 0; i < schema->tagged_count; i++, field++) {
        if (!field_present(field, walk->version) ||
            value_is_default(walk, field, in, schema->defaults))
            continue;
        writer_uvarlong(writer, field->tag);
        writer_uvarlong(writer, field_size(walk, field, in));
        field_encode(writer, walk, field, in);
        written++;
    }
    if (count)
        *count = written;
}

static void struct_encode(struct writer *writer, const struct walk *walk,
                          const struct kafka_schema *schema, const void *in)
{
    const struct kafka_field *field = schema->fields;
    const struct kafka_field *end = field + schema->fields_count;
    for (; field < end; field++)
        if (field_present(field, walk->version))
            field_encode(writer, walk, field, in);
    if (walk->flexible)
        tagged_encode(writer, walk, schema, in);
}

static struct walk walk_of(const struct kafka_message *message, int16_t version)
{
    assert(version >= message->version_min && version <= message->version_max);
    return (struct walk){.version = version, .flexible = version >= message->flexible_since};
}

bool kafka_message_decode(struct reader *reader, const struct kafka_message *message,
                          int16_t version, struct arena *arena, void *out)
{
    if (version < message->version_min || version > message->version_max)
        return false;
    struct walk walk = walk_of(message, version);
    walk.arena = arena;
    return struct_decode(reader, &walk, message->schema, out);
}

size_t kafka_message_size(const struct kafka_message *message, int16_t version, const void *in)
{
    struct walk walk = walk_of(message, version);
    return struct_size(&walk, message->schema, in);
}

void kafka_message_encode(struct writer *writer, const struct kafka_message *message,
                          int16_t version, const void *in)
{
    struct walk walk = walk_of(message, version);
    struct_encode(writer, &walk, message->schema, in);
}
