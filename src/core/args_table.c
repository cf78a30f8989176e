/* See args_table.h. */
#include "core/args_table.h"

static enum arg_kind kind_of(uint8_t type)
{
    if (amqp_type_is_integer(type))
        return ARG_INT;
    switch (type) {
    case 'V':
        return ARG_VOID;
    case 't':
        return ARG_BOOL;
    case 'T':
        return ARG_TIME;
    case 'S':
        return ARG_TEXT;
    case 'x':
        return ARG_BYTES;
    case 'f':
    case 'd':
        return ARG_DOUBLE;
    default:
        return ARG_OTHER;
    }
}

bool args_from_table(struct slice table, struct arena *arena, struct args *out)
{
    struct reader reader = reader_over(table);
    struct amqp_field field;
    uint32_t count = 0;
    while (amqp_field_next(&reader, &field))
        count++;
    if (reader.failed)
        return false;
    struct arg *items = arena_array(arena, count, sizeof *items);
    if (!items)
        return false;
    reader = reader_over(table);
    for (uint32_t i = 0; amqp_field_next(&reader, &field); i++)
        items[i] = (struct arg){
            .name = field.name,
            .kind = kind_of(field.type),
            .wire_type = field.type,
            .number = field.number,
            .text = field.bytes,
        };
    *out = (struct args){items, count};
    return true;
}
