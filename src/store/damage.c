/* The search for frames behind a damaged one. Any frame that is valid at its own position counts,
 * for one cannot know where the damaged one would have ended; remains of other journals in a file
 * that was used again name other positions. */
#include "store/damage.h"

#include "store/format.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define SEARCH_BYTES (1024u * 1024)

/* What a frame must say to be the one looked for. */
struct wanted {
    uint64_t durable, index; /* at least */
};

static enum err frame_proves(struct disk_file *file, uint64_t start, uint64_t end,
                             uint64_t position, const uint8_t *header, const struct wanted *wanted,
                             bool *out)
{
    struct frame frame;
    *out = false;
    if (!frame_peek(header, end - position, &frame) || frame.position != position ||
        frame.durable < wanted->durable || frame.durable > position || frame.index < wanted->index)
        return ERR_NONE;
    size_t bytes = frame_bytes(frame.body), got = 0;
    uint8_t *data = malloc(bytes);
    if (data == NULL)
        return ERR_NO_MEMORY;
    enum err err =
        disk_read_sync(file, data, bytes, JOURNAL_HEADER_BYTES + (position - start), &got);
    if (err == ERR_NONE)
        *out = frame_check(data, got, &frame);
    free(data);
    return err;
}

static enum err search(struct disk_file *file, uint64_t start, uint64_t end, uint64_t from,
                       const struct wanted *wanted, uint64_t *found)
{
    uint8_t *window = malloc(SEARCH_BYTES);
    if (window == NULL)
        return ERR_NO_MEMORY;
    enum err err = ERR_NONE;
    *found = 0;
    while (err == ERR_NONE && *found == 0 && from + FRAME_HEADER_BYTES <= end) {
        uint64_t left = end - from;
        size_t got = 0, at = 0;
        err = disk_read_sync(file, window, left < SEARCH_BYTES ? left : SEARCH_BYTES,
                             JOURNAL_HEADER_BYTES + (from - start), &got);
        if (got < FRAME_HEADER_BYTES)
            break;
        for (; err == ERR_NONE && at + FRAME_HEADER_BYTES <= got; at += FRAME_ALIGN) {
            bool proves = false;
            uint64_t word;
            memcpy(&word, window + at, sizeof word);
            if (word == 0 || !frame_begins(window + at)) /* most of it is zeroes */
                continue;
            err = frame_proves(file, start, end, from + at, window + at, wanted, &proves);
            if (proves) {
                *found = from + at;
                break;
            }
        }
        from += at;
    }
    free(window);
    return err;
}

enum err damage_proof(struct disk_file *file, uint64_t start, uint64_t end, uint64_t from,
                      uint64_t bad, uint64_t *found)
{
    struct wanted wanted = {.durable = bad + 1};
    return search(file, start, end, from, &wanted, found);
}

enum err damage_next(struct disk_file *file, uint64_t start, uint64_t end, uint64_t from,
                     uint64_t index, uint64_t *found)
{
    struct wanted wanted = {.index = index};
    return search(file, start, end, from, &wanted, found);
}
