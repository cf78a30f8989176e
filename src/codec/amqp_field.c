/* See amqp_field.h. The values of fixed size are told by one table of letters. */
#include "codec/amqp_field.h"

#include "codec/amqp_wire.h"

enum { DEPTH_MAX = 16 };

/* How many bytes a value of that type has; -1 when a length stands before it, -2 when unknown. */
static int type_bytes(uint8_t type)
{
    switch (type) {
    case 'V':
        return 0;
    case 't':
    case 'b':
    case 'B':
        return 1;
    case 's':
    case 'u':
        return 2;
    case 'I':
    case 'i':
    case 'f':
        return 4;
    case 'D':
        return 5;
    case 'l':
    case 'L':
    case 'd':
    case 'T':
        return 8;
    case 'S':
    case 'x':
    case 'A':
    case 'F':
        return -1;
    default:
        return -2;
    }
}

bool amqp_type_is_integer(uint8_t type)
{
    return type != 0 && strchr("bBsuIilL", type) != NULL;
}

static int64_t double_bits(double value)
{
    int64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static double double_of(int64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static int64_t float_as_double(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return double_bits((double)value);
}

static bool value_read(struct reader *reader, struct amqp_field *out)
{
    out->type = reader_u8(reader);
    out->number = 0;
    out->bytes = (struct slice){0};
    switch (out->type) {
    case 't':
        out->number = reader_u8(reader) != 0;
        break;
    case 'b':
        out->number = reader_i8(reader);
        break;
    case 'B':
        out->number = reader_u8(reader);
        break;
    case 's':
        out->number = reader_i16(reader);
        break;
    case 'u':
        out->number = reader_u16(reader);
        break;
    case 'I':
        out->number = reader_i32(reader);
        break;
    case 'i':
        out->number = reader_u32(reader);
        break;
    case 'l':
    case 'L':
    case 'T':
    case 'd':
        out->number = reader_i64(reader);
        break;
    case 'f':
        out->number = float_as_double(reader_u32(reader));
        break;
    case 'D':
        out->bytes = reader_slice(reader, 5);
        break;
    case 'S':
    case 'x':
    case 'A':
    case 'F':
        out->bytes = amqp_longstr(reader);
        break;
    case 'V':
        break;
    default:
        reader_fail(reader);
    }
    return !reader->failed;
}

bool amqp_field_next(struct reader *table, struct amqp_field *out)
{
    if (table->at == table->end)
        return false;
    out->name = amqp_shortstr(table);
    return value_read(table, out);
}

bool amqp_value_next(struct reader *array, struct amqp_field *out)
{
    if (array->at == array->end)
        return false;
    out->name = (struct slice){0};
    return value_read(array, out);
}

static bool inside_valid(struct slice inside, bool named, unsigned depth)
{
    if (depth > DEPTH_MAX)
        return false;
    struct reader reader = reader_over(inside);
    while (reader.at != reader.end) {
        if (named)
            (void)amqp_shortstr(&reader);
        uint8_t type = reader_u8(&reader);
        int bytes = type_bytes(type);
        if (bytes == -2)
            return false;
        struct slice value =
            bytes >= 0 ? reader_slice(&reader, (size_t)bytes) : amqp_longstr(&reader);
        if (reader.failed)
            return false;
        if ((type == 'F' || type == 'A') && !inside_valid(value, type == 'F', depth + 1))
            return false;
    }
    return true;
}

bool amqp_table_valid(struct slice table)
{
    return inside_valid(table, true, 0);
}

bool amqp_field_is(const struct amqp_field *field, const char *name)
{
    return slice_equal(field->name, slice_of(name));
}

bool amqp_table_find(struct slice table, const char *name, struct amqp_field *out)
{
    struct reader reader = reader_over(table);
    struct amqp_field field;
    while (amqp_field_next(&reader, &field)) {
        if (amqp_field_is(&field, name)) {
            *out = field;
            return true;
        }
    }
    return false;
}

void amqp_value_write(struct writer *writer, const struct amqp_field *field)
{
    writer_u8(writer, field->type);
    switch (field->type) {
    case 't':
    case 'b':
    case 'B':
        writer_u8(writer, (uint8_t)field->number);
        break;
    case 's':
    case 'u':
        writer_u16(writer, (uint16_t)field->number);
        break;
    case 'I':
    case 'i':
        writer_u32(writer, (uint32_t)field->number);
        break;
    case 'f': {
        float value = (float)double_of(field->number);
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        writer_u32(writer, bits);
        break;
    }
    case 'l':
    case 'L':
    case 'T':
    case 'd':
        writer_i64(writer, field->number);
        break;
    case 'D':
        writer_slice(writer, field->bytes);
        break;
    case 'V':
        break;
    default:
        writer_u32(writer, (uint32_t)field->bytes.len);
        writer_slice(writer, field->bytes);
    }
}

void amqp_field_write(struct writer *writer, const struct amqp_field *field)
{
    writer_u8(writer, (uint8_t)field->name.len);
    writer_slice(writer, field->name);
    amqp_value_write(writer, field);
}

uint8_t *amqp_inside_begin(struct writer *writer)
{
    return writer_reserve(writer, 4);
}

void amqp_inside_end(struct writer *writer, uint8_t *length)
{
    if (length && !writer->failed)
        be32_put(length, (uint32_t)(writer->at - length - 4));
}
