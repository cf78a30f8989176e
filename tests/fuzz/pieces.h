/* A mutator for inputs that are one byte of choice and, when its bit 1 is set, pieces: a head,
 * whose last bytes are the payload's length, and the payload. It changes one piece and leaves the
 * others whole: its payload grows and shrinks with its length kept right, or it is doubled, dropped
 * or comes later. Mutations that know nothing of pieces break all that follow whenever a byte is
 * added. To be included by one source file of a fuzzer. */
#ifndef WEIR_TESTS_FUZZ_PIECES_H
#define WEIR_TESTS_FUZZ_PIECES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t size_max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t size_max, unsigned seed);

enum { PIECES_MAX = 256, PIECE_BYTES_MAX = 1 << 16 };

/* Heads are `head` bytes long, the last `width` of them (1 or 2) are the length. */
static size_t pieces_mutate(uint8_t *data, size_t size, size_t size_max, unsigned seed, size_t head,
                            size_t width)
{
    static uint8_t piece[PIECE_BYTES_MAX];
    size_t starts[PIECES_MAX + 1], count = 0, at = 1;
    if (size == 0 || !(data[0] & 2) || seed % 16 == 0)
        return LLVMFuzzerMutate(data, size, size_max);
    while (count < PIECES_MAX && at + head <= size) {
        const uint8_t *length = data + at + head - width;
        size_t len = width == 1 ? length[0] : (size_t)length[0] << 8 | length[1];
        starts[count++] = at;
        at += head + (len < size - at - head ? len : size - at - head);
    }
    if (count == 0)
        return LLVMFuzzerMutate(data, size, size_max);
    starts[count] = at;
    size_t which = (seed >> 4) % count, begin = starts[which], end = starts[which + 1];
    size_t len = end - begin, rest = size - end, room = size_max - size;
    switch ((seed >> 12) % 8) {
    case 0:
        data[begin] ^= (uint8_t)(1 << (seed >> 16) % 8);
        return size;
    case 1:
        if (len > room)
            return size;
        memmove(data + end + len, data + end, rest);
        memcpy(data + end, data + begin, len);
        return size + len;
    case 2:
        memmove(data + begin, data + end, rest);
        return size - len;
    case 3:
        if (len > sizeof piece)
            return size;
        memcpy(piece, data + begin, len);
        memmove(data + begin, data + end, rest);
        memcpy(data + begin + rest, piece, len);
        return size;
    default:
        break;
    }
    size_t payload = len - head, most = width == 1 ? 255 : 65535 - head;
    most = most < payload + room ? most : payload + room;
    if (most == 0)
        return size;
    memcpy(piece, data + begin + head, payload);
    size_t grown = LLVMFuzzerMutate(piece, payload, most);
    memmove(data + begin + head + grown, data + end, rest);
    memcpy(data + begin + head, piece, grown);
    data[begin + head - 1] = (uint8_t)grown;
    if (width == 2)
        data[begin + head - 2] = (uint8_t)(grown >> 8);
    return size - payload + grown;
}

#endif
