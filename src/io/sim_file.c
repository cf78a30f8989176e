/* A page remembers its synced content from the first write after a sync on, and which of its
 * sectors have been written since. It is on the dirty list then; a failed sync moves it to the list
 * of lost pages, from where the next write to it brings it back. */
#include "io/sim_file.h"
#include "io/sim_memory.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNK_PAGES = 64, SECTORS = SIM_PAGE_BYTES / SIM_SECTOR_BYTES };

struct sim_page {
    struct sim_page *next; /* on the dirty or the lost list */
    uint64_t number;
    bool lost;
    uint8_t *synced; /* NULL: zeroes, or nothing is dirty */
    uint8_t sectors; /* bit i: sector i is not synced */
    uint8_t data[SIM_PAGE_BYTES];
};

static struct sim_page *page_find(const struct sim_file *file, uint64_t number)
{
    size_t chunk = number / CHUNK_PAGES;
    if (chunk >= file->chunks || file->pages[chunk] == NULL)
        return NULL;
    return file->pages[chunk][number % CHUNK_PAGES];
}

static struct sim_page *page_make(struct sim_file *file, uint64_t number)
{
    struct sim_page *page = page_find(file, number);
    if (page != NULL)
        return page;
    size_t chunk = number / CHUNK_PAGES;
    if (chunk >= file->chunks) {
        size_t chunks = file->chunks * 2 > chunk + 1 ? file->chunks * 2 : chunk + 1;
        struct sim_page ***pages = sim_resize(file->pages, chunks, sizeof *pages);
        if (pages == NULL)
            return NULL;
        memset(pages + file->chunks, 0, (chunks - file->chunks) * sizeof *pages);
        file->pages = pages;
        file->chunks = chunks;
    }
    if (file->pages[chunk] == NULL) {
        file->pages[chunk] = sim_make(CHUNK_PAGES * sizeof **file->pages);
        if (file->pages[chunk] == NULL)
            return NULL;
    }
    page = sim_make(sizeof *page);
    if (page == NULL)
        return NULL;
    page->number = number;
    return file->pages[chunk][number % CHUNK_PAGES] = page;
}

void sim_file_done(struct sim_file *file)
{
    for (size_t i = 0; i < file->chunks; i++) {
        for (size_t j = 0; file->pages[i] != NULL && j < CHUNK_PAGES; j++) {
            struct sim_page *page = file->pages[i][j];
            if (page != NULL)
                free(page->synced);
            free(page);
        }
        free(file->pages[i]);
    }
    free(file->pages);
    *file = (struct sim_file){0};
}

/* Before bytes [from, to) of the page are changed. */
static bool page_dirty(struct sim_file *file, struct sim_page *page, size_t from, size_t to)
{
    if (page->lost) {
        struct sim_page **link = &file->lost;
        while (*link != page)
            link = &(*link)->next;
        *link = page->next;
        page->lost = false;
        page->next = file->dirty;
        file->dirty = page;
    } else if (page->sectors == 0) {
        static const uint8_t ZEROES[SIM_PAGE_BYTES];
        if (memcmp(page->data, ZEROES, sizeof ZEROES) != 0) {
            page->synced = sim_resize(NULL, 1, SIM_PAGE_BYTES);
            if (page->synced == NULL)
                return false;
            memcpy(page->synced, page->data, SIM_PAGE_BYTES);
        }
        page->next = file->dirty;
        file->dirty = page;
    }
    for (size_t i = from / SIM_SECTOR_BYTES; i <= (to - 1) / SIM_SECTOR_BYTES; i++)
        page->sectors |= (uint8_t)(1u << i);
    return true;
}

bool sim_file_write(struct sim_file *file, const void *data, size_t len, uint64_t offset)
{
    const uint8_t *from = data;
    while (len > 0) {
        size_t at = offset % SIM_PAGE_BYTES;
        size_t part = SIM_PAGE_BYTES - at < len ? SIM_PAGE_BYTES - at : len;
        struct sim_page *page = page_make(file, offset / SIM_PAGE_BYTES);
        if (page == NULL || !page_dirty(file, page, at, at + part))
            return false;
        memcpy(page->data + at, from, part);
        from += part;
        len -= part;
        offset += part;
        file->last_sector = (offset - 1) / SIM_SECTOR_BYTES;
        sim_file_grow(file, offset);
    }
    return true;
}

size_t sim_file_read(const struct sim_file *file, void *into, size_t len, uint64_t offset)
{
    if (offset >= file->size)
        return 0;
    if (len > file->size - offset)
        len = (size_t)(file->size - offset);
    uint8_t *to = into;
    for (size_t left = len; left > 0;) {
        size_t at = offset % SIM_PAGE_BYTES;
        size_t part = SIM_PAGE_BYTES - at < left ? SIM_PAGE_BYTES - at : left;
        const struct sim_page *page = page_find(file, offset / SIM_PAGE_BYTES);
        if (page == NULL)
            memset(to, 0, part);
        else
            memcpy(to, page->data + at, part);
        to += part;
        left -= part;
        offset += part;
    }
    return len;
}

void sim_file_grow(struct sim_file *file, uint64_t size)
{
    if (file->size < size)
        file->size = size;
}

static struct sim_page *page_clean(struct sim_page *page)
{
    struct sim_page *next = page->next;
    free(page->synced);
    page->synced = NULL;
    page->sectors = 0;
    page->lost = false;
    page->next = NULL;
    return next;
}

void sim_file_sync(struct sim_file *file)
{
    for (struct sim_page *page = file->dirty; page != NULL;)
        page = page_clean(page);
    file->dirty = NULL;
    file->size_synced = file->size;
}

void sim_file_sync_fail(struct sim_file *file)
{
    while (file->dirty != NULL) {
        struct sim_page *page = file->dirty;
        file->dirty = page->next;
        page->lost = true;
        page->next = file->lost;
        file->lost = page;
    }
}

/* Puts back the synced bytes of a sector from byte `from` of it on. */
static void sector_drop(struct sim_page *page, size_t sector, size_t from)
{
    size_t at = sector * SIM_SECTOR_BYTES + from;
    size_t len = SIM_SECTOR_BYTES - from;
    if (page->synced == NULL)
        memset(page->data + at, 0, len);
    else
        memcpy(page->data + at, page->synced + at, len);
}

/* Bytes behind the end are zeroes if the file grows again. */
static void tail_zero(struct sim_file *file)
{
    uint64_t first = file->size / SIM_PAGE_BYTES;
    for (uint64_t number = first; number / CHUNK_PAGES < file->chunks; number++) {
        if (file->pages[number / CHUNK_PAGES] == NULL) {
            number = (number / CHUNK_PAGES + 1) * CHUNK_PAGES - 1;
            continue;
        }
        struct sim_page *page = page_find(file, number);
        size_t from = number == first ? file->size % SIM_PAGE_BYTES : 0;
        if (page != NULL)
            memset(page->data + from, 0, SIM_PAGE_BYTES - from);
    }
}

/* What the file's length is after the cut. */
static uint64_t size_choose(const struct sim_file *file, struct sim_random *random)
{
    if (file->size <= file->size_synced)
        return file->size;
    uint64_t growth = file->size - file->size_synced;
    switch (sim_random_below(random, 3)) {
    case 0:
        return file->size_synced;
    case 1:
        return file->size;
    default:
        return file->size_synced + sim_random_below(random, growth + 1);
    }
}

static void pages_cut(const struct sim_file *file, struct sim_page *page, uint32_t keep,
                      struct sim_random *random)
{
    for (; page != NULL; page = page_clean(page)) {
        for (size_t i = 0; i < SECTORS; i++) {
            if ((page->sectors >> i & 1) == 0)
                continue;
            bool last = page->number * SECTORS + i == file->last_sector;
            if (last && sim_random_below(random, 2) == 0)
                sector_drop(page, i, 1 + sim_random_below(random, SIM_SECTOR_BYTES - 1));
            else if (!sim_random_chance(random, keep))
                sector_drop(page, i, 0);
        }
    }
}

void sim_file_cut(struct sim_file *file, struct sim_random *random)
{
    /* Of one cut all, some or no sectors are kept. */
    pages_cut(file, file->dirty, (uint32_t)sim_random_below(random, 5) * 250000, random);
    pages_cut(file, file->lost, 0, random);
    file->dirty = file->lost = NULL;
    uint64_t size = size_choose(file, random);
    bool shorter = size < file->size;
    file->size = file->size_synced = size;
    if (shorter)
        tail_zero(file);
}
