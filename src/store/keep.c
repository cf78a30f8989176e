/* Large entries are not copied by the checkpoint: they stay where they stand, and the journal's
 * file becomes an extent by a second name, extent-N, under which the index finds them. The journal
 * knows nothing of it: when it has no more use for the file it removes its own name, and what no
 * entry needs is given back to the file system as holes. A file with two names is never written
 * anew. Only streams whose entries leave from the front do so, for what is left of such a file is
 * never gathered by rewriting. */
#include "store/inside.h"

#include <stdlib.h>

#define HOLE_BYTES KEEP_BYTES_FREE /* what a file system can give back */

static bool span_add(struct segment *segment, uint64_t offset, uint32_t len)
{
    if (segment->span_count > 0) { /* most follow each other, a few headers apart */
        struct span *last = &segment->spans[segment->span_count - 1];
        if (offset >= last->offset && offset < last->offset + last->len + HOLE_BYTES) {
            uint64_t reach = offset + len - last->offset;
            last->len = reach > last->len ? reach : last->len;
            return true;
        }
    }
    if (segment->span_count == segment->span_room) {
        uint32_t room = segment->span_room == 0 ? 16 : segment->span_room * 2;
        struct span *spans = realloc(segment->spans, room * sizeof *spans);
        if (spans == NULL)
            return false;
        segment->spans = spans;
        segment->span_room = room;
    }
    segment->spans[segment->span_count++] = (struct span){.offset = offset, .len = len};
    return true;
}

/* Gives the file its second name. */
static bool name_make(struct store *store, struct segment *segment)
{
    struct checkpoint *checkpoint = &store->checkpoint;
    char path[PATH_BYTES], name[PATH_BYTES];
    if (segment->extent != 0 || segment->nameless)
        return segment->extent != 0;
    store_path(store, "journal", segment->start, path);
    store_path(store, "extent", checkpoint->next_extent, name);
    segment->once = true;
    enum err err = disk_link(store->config.disk, path, name);
    if (err != ERR_NONE) { /* then it is copied */
        segment->nameless = err == ERR_UNSUPPORTED || err == ERR_EXISTS;
        return false;
    }
    segment->extent = checkpoint->next_extent++;
    checkpoint->named = true;
    return true;
}

bool keep_entry(struct store *store, struct segment *segment, struct copy_entry *entry)
{
    uint64_t offset = JOURNAL_HEADER_BYTES + (entry->pos - segment->start);
    if (entry->len < store->config.keep_bytes || !name_make(store, segment) ||
        !span_add(segment, offset, entry->len))
        return false;
    entry->extent = segment->extent;
    entry->offset = offset;
    return true;
}

/* The checkpoint failed: names that no commit knows go. */
void keep_undo(struct store *store)
{
    char path[PATH_BYTES];
    list_each(node, &store->journal.segments)
    {
        struct segment *segment = list_entry(node, struct segment, link);
        if (segment->extent < store->extents.meta.next_extent)
            continue;
        store_path(store, "extent", segment->extent, path);
        enum err gone = disk_remove(store->config.disk, path);
        (void)gone; /* the next start removes it */
        segment->extent = 0;
    }
}

/* The extent goes: nothing in it is needed. */
void keep_ends(struct store *store, uint64_t extent)
{
    list_each(node, &store->journal.segments)
    {
        struct segment *segment = list_entry(node, struct segment, link);
        if (segment->extent == extent) {
            segment->extent = 0;
            segment->span_count = 0;
        }
    }
}

/* ---- On a helper ---- */

static int span_compare(const void *a, const void *b)
{
    const struct span *left = a, *right = b;
    return (left->offset > right->offset) - (left->offset < right->offset);
}

/* Only whole pages can be given back. */
static void hole_punch(struct disk_file *file, uint64_t from, uint64_t to)
{
    from = (from + HOLE_BYTES - 1) / HOLE_BYTES * HOLE_BYTES;
    to = to / HOLE_BYTES * HOLE_BYTES;
    if (from < to)
        disk_punch(file, from, to - from);
}

void keep_holes(struct store *store, const char *path, struct span *spans, uint32_t count)
{
    struct disk_file *file;
    uint64_t at = JOURNAL_HEADER_BYTES, size = 0;
    if (disk_open(store->config.disk, path, false, &file) != ERR_NONE)
        return;
    qsort(spans, count, sizeof *spans, span_compare);
    for (uint32_t i = 0; i < count; i++) {
        if (spans[i].offset > at)
            hole_punch(file, at, spans[i].offset);
        at = spans[i].offset + spans[i].len > at ? spans[i].offset + spans[i].len : at;
    }
    if (disk_size(file, &size) == ERR_NONE)
        hole_punch(file, at, size);
    disk_close(file);
}

/* Entries of kept files that nothing points to any more, in the order in which they were found:
 * neighbours are one hole, headers between them included. (No kept entry fits between them: it
 * would be shorter than every kept one is.) */
void keep_punch(struct store *store, const struct kept_hole *holes, uint64_t count)
{
    struct disk_file *file = NULL;
    uint64_t most = store->config.keep_bytes < HOLE_BYTES ? store->config.keep_bytes : HOLE_BYTES;
    for (uint64_t i = 0, next; i < count; i = next) {
        uint64_t end = holes[i].offset + holes[i].len;
        for (next = i + 1; next < count && holes[next].extent == holes[i].extent &&
                           holes[next].offset >= end && holes[next].offset - end < most;
             next++)
            end = holes[next].offset + holes[next].len;
        if (i == 0 || holes[i].extent != holes[i - 1].extent) {
            char path[PATH_BYTES];
            store_path(store, "extent", holes[i].extent, path);
            if (file != NULL)
                disk_close(file);
            if (disk_open(store->config.disk, path, false, &file) != ERR_NONE)
                file = NULL;
        }
        if (file != NULL)
            hole_punch(file, holes[i].offset, end);
    }
    if (file != NULL)
        disk_close(file);
}
