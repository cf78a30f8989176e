/* The offline check: takes the data folder's lock, verifies cell after cell, prints every damage
 * found with file and byte offset, then a summary. */
#include "cli/check.h"

#include "core/cell_state.h"
#include "io/disk_real.h"
#include "server/data.h"
#include "store/verify.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static const struct {
    uint8_t kind;
    const char *name;
} kinds[] = {
    {OBJECT_QUEUE, "queues"},
    {OBJECT_PARTITION, "partitions"},
    {OBJECT_GROUP, "groups"},
    {OBJECT_CATALOG_CHANGE, "catalog changes"},
    {OBJECT_PRODUCER_IDS, "producer id blocks"},
};

static void damage_print(void *ctx, const char *text)
{
    (void)ctx;
    printf("damage: %s\n", text);
}

static void doubt_print(void *ctx, const char *text)
{
    (void)ctx;
    printf("note: %s\n", text);
}

static void objects_print(const struct verify_report *report)
{
    uint64_t left = 0, named = 0;
    for (int kind = 0; kind < 256; kind++)
        left += report->objects[kind];
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        uint64_t count = report->objects[kinds[i].kind];
        named += count;
        if (count > 0)
            printf("%-22s%" PRIu64 "\n", kinds[i].name, count);
    }
    if (left > named)
        printf("%-22s%" PRIu64 "\n", "other objects", left - named);
}

static void summary_print(uint32_t cells, uint32_t used, const struct verify_report *report)
{
    printf("%-22s%u, %u in use\n", "cells", cells, used);
    objects_print(report);
    printf("%-22s%" PRIu64 " in %" PRIu64 " extents, %" PRIu64 " bytes\n", "streams",
           report->streams, report->extents, report->extent_bytes);
    printf("%-22s%" PRIu64 " in %" PRIu64 " blocks, %" PRIu64 " bytes; %" PRIu64 " dead blocks\n",
           "entries", report->entries, report->blocks, report->entry_bytes, report->dead_blocks);
    printf("%-22s%" PRIu64 " records in %" PRIu64 " frames, %" PRIu64 " bytes, %" PRIu64 " files\n",
           "journal to replay", report->records, report->frames, report->record_bytes,
           report->journal_files);
    if (report->strays > 0)
        printf("%-22s%" PRIu64 " (the next start removes them)\n", "unfinished extents",
               report->strays);
    printf("%-22s%" PRIu64 "\n", "damage", report->damaged);
}

static enum err cells_verify(const char *data, uint32_t cells, uint32_t *used,
                             struct verify_report *report)
{
    struct disk_real *disk;
    enum err err = disk_real_create(NULL, NULL, &disk);
    if (err != ERR_NONE)
        return err;
    for (uint32_t cell = 0; cell < cells && err == ERR_NONE; cell++) {
        char path[4200];
        struct stat status;
        snprintf(path, sizeof path, "%s/cells/%03u", data, cell);
        if (stat(path, &status) != 0)
            continue; /* nothing durable was ever put there */
        *used += 1;
        err = verify_cell(disk_real_disk(disk), &state_lmdb, path, cell, report);
        if (err != ERR_NONE)
            fprintf(stderr, "weir: %s cannot be verified: %s\n", path, err_text(err));
    }
    disk_real_destroy(disk);
    return err;
}

static const char *data_option(int argc, char **argv)
{
    const char *data = "./weir-data";
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--data=", 7) == 0)
            data = argv[i] + 7;
        else if (strcmp(argv[i], "--data") == 0 && i + 1 < argc)
            data = argv[++i];
        else
            return NULL;
    }
    return data;
}

int cli_check(int argc, char **argv)
{
    const char *data = data_option(argc, argv);
    if (data == NULL) {
        fputs("usage: weir check [--data DIR]\n", stderr);
        return 2;
    }
    char path[4200], problem[512] = "";
    struct stat status;
    snprintf(path, sizeof path, "%s/weir", data);
    if (stat(path, &status) != 0) {
        fprintf(stderr, "weir: %s is not a data folder\n", data);
        return 2;
    }
    struct data_folder folder;
    if (data_folder_open(data, 0, false, &folder, problem) != ERR_NONE) {
        fprintf(stderr, "weir: %s\n", problem);
        return 1;
    }
    uint32_t used = 0;
    struct verify_report report = {.damage = damage_print, .doubt = doubt_print};
    enum err err = cells_verify(data, folder.cells, &used, &report);
    summary_print(folder.cells, used, &report);
    data_folder_close(&folder);
    return err == ERR_NONE && report.damaged == 0 ? 0 : 1;
}
