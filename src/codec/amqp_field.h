/* Field tables of AMQP 0-9-1: names with typed values. The types are RabbitMQ's, which differ from
 * the specification's text: 's' is a 16-bit integer, 'l' and 'L' are both signed 64-bit ones, 'x'
 * is a byte array. Tables are walked in place; nested ones are handed out as bytes. */
#ifndef WEIR_CODEC_AMQP_FIELD_H
#define WEIR_CODEC_AMQP_FIELD_H

#include "base/slice.h"
#include "codec/reader.h"
#include "codec/writer.h"

#include <stdbool.h>
#include <stdint.h>

struct amqp_field {
    struct slice name;
    uint8_t type;       /* its letter on the wire */
    int64_t number;     /* t b B s u I i l L T; of f and d: the bits of the value as a double */
    struct slice bytes; /* S x: the text; F A: what is inside; D: its five bytes */
};

/* The next field of a table, whose inside `table` reads. False at the end or, with table->failed
 * set, when it is malformed; nested tables are not looked into. */
bool amqp_field_next(struct reader *table, struct amqp_field *out);

/* The next value of an array, whose inside `array` reads; its name is empty. */
bool amqp_value_next(struct reader *array, struct amqp_field *out);

/* Whether the table's inside is well-formed at every depth; nesting is bounded. */
bool amqp_table_valid(struct slice table);

/* The field of that name: the first one. */
bool amqp_table_find(struct slice table, const char *name, struct amqp_field *out);

bool amqp_field_is(const struct amqp_field *field, const char *name);

/* Any of the integer types. */
bool amqp_type_is_integer(uint8_t type);

/* Writes type and value; fails the writer when there is no room. */
void amqp_value_write(struct writer *writer, const struct amqp_field *field);
/* The same behind the name, which has at most 255 bytes. */
void amqp_field_write(struct writer *writer, const struct amqp_field *field);

static inline struct amqp_field amqp_text(const char *name, struct slice text)
{
    return (struct amqp_field){.name = slice_of(name), .type = 'S', .bytes = text};
}

static inline struct amqp_field amqp_bool(const char *name, bool value)
{
    return (struct amqp_field){.name = slice_of(name), .type = 't', .number = value};
}

static inline struct amqp_field amqp_long(const char *name, int64_t value)
{
    return (struct amqp_field){.name = slice_of(name), .type = 'l', .number = value};
}

/* Begins a table or array whose length amqp_inside_end fills in: returns the place of the length,
 * NULL when there is no room. */
uint8_t *amqp_inside_begin(struct writer *writer);
void amqp_inside_end(struct writer *writer, uint8_t *length);

#endif
