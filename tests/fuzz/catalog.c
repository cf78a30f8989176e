/* Changes of the catalog as a journal might hold them: any bytes leave a catalog whose dump makes
 * the same one again. */
#include "core/catalog.h"

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct copying {
    struct catalog *copy;
    uint32_t changes;
};

static enum err feed(void *ctx, struct slice change)
{
    struct copying *copying = ctx;
    size_t used = 0;
    enum err err = catalog_apply(copying->copy, change, &used, NULL, NULL);
    assert(err == ERR_NONE && used == change.len);
    copying->changes++;
    return err;
}

static enum err count(void *ctx, struct slice change)
{
    (void)change;
    (*(uint32_t *)ctx)++;
    return ERR_NONE;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct catalog *catalog = catalog_create();
    struct slice rest = slice_make(data, size);
    while (rest.len > 0) {
        size_t used = 0;
        if (catalog_apply(catalog, rest, &used, NULL, NULL) != ERR_NONE)
            used = 1; /* look for another change behind it */
        rest = slice_make(rest.data + used, rest.len - used);
    }
    struct copying copying = {.copy = catalog_create()};
    assert(catalog_dump(catalog, false, feed, &copying) == ERR_NONE);
    uint32_t again = 0;
    assert(catalog_dump(copying.copy, false, count, &again) == ERR_NONE);
    assert(again == copying.changes);
    catalog_destroy(copying.copy);
    catalog_destroy(catalog);
    return 0;
}
