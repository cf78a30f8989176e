/* Named arguments as every protocol gives them (AMQP's x-arguments, Kafka's configs, binding
 * headers): decoded once by the face, compared and stored by the core. */
#ifndef WEIR_CORE_ARGS_H
#define WEIR_CORE_ARGS_H

#include "base/arena.h"
#include "base/slice.h"
#include "codec/reader.h"
#include "codec/writer.h"

#include <stdbool.h>
#include <stdint.h>

enum arg_kind {
    ARG_VOID = 0,
    ARG_BOOL,   /* number is 0 or 1 */
    ARG_INT,    /* any integer type, in number */
    ARG_TIME,   /* seconds since 1970, in number */
    ARG_TEXT,   /* longstr, in text */
    ARG_BYTES,  /* byte array, in text */
    ARG_DOUBLE, /* float or double: its IEEE 754 double bits in number */
    ARG_OTHER,  /* table, array, decimal: verbatim wire bytes in text */
};

struct arg {
    struct slice name;
    enum arg_kind kind;
    uint8_t wire_type; /* the letter of the AMQP field table it came with, for error texts */
    int64_t number;
    struct slice text;
};

struct args {
    const struct arg *items;
    uint32_t count;
};

/* The argument of that name, or NULL. */
const struct arg *args_find(struct args args, const char *name);
const struct arg *args_find_slice(struct args args, struct slice name);
/* Same kind and value; all integer types are one class. */
bool arg_equal(const struct arg *a, const struct arg *b);
/* Equal arguments by equal names, in any order. */
bool args_same(struct args a, struct args b);

/* Stored form: u32 count, then {u16+name, u8 kind, u8 wire type, i64 number, u32+text}. */
size_t args_size(struct args args);
void args_encode(struct writer *writer, struct args args);
/* Slices borrow from the reader's bytes; items come from the arena. false: malformed or no memory.
 */
bool args_decode(struct reader *reader, struct arena *arena, struct args *out);
/* In two steps, into memory of the caller's: checks and passes over encoded arguments and says how
 * many there are, then reads those very bytes, which must have passed, into `count` items that
 * borrow from them. */
bool args_skip(struct reader *reader, uint32_t *count);
void args_read(struct slice encoded, struct arg *items);
/* A deep copy in one malloc'd block (free it), NULL when memory is exhausted. */
struct arg *args_copy(struct args args);

#endif
