/* The offline check: takes the data folder's lock, verifies cell after cell, prints every damage
 * found with file and byte offset, then a summary. */
#include "cli/check.h"

#include "cli/losses.h"
#include "core/cell_state.h"
#include "core/record.h"
#include "io/disk_real.h"
#include "server/data.h"
#include "store/verify.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

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

struct options {
    const char *data;
    bool repair;
};

static bool options_read(int argc, char **argv, struct options *out)
{
    *out = (struct options){.data = "./weir-data"};
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--data=", 7) == 0)
            out->data = argv[i] + 7;
        else if (strcmp(argv[i], "--data") == 0 && i + 1 < argc)
            out->data = argv[++i];
        else if (strcmp(argv[i], "--repair") == 0)
            out->repair = true;
        else
            return false;
    }
    return true;
}

/* ---- Damage: what is lost, and repairing ---- */

/* A record that means nothing. */
static const uint8_t nothing[8] = {RECORD_NOTHING};

static enum err cells_repair(const struct options *options, uint32_t cells, const char *aside,
                             bool dry, struct losses *losses)
{
    struct disk_real *disk;
    enum err err = disk_real_create(NULL, NULL, &disk);
    if (err != ERR_NONE)
        return err;
    for (uint32_t cell = 0; cell < cells && err == ERR_NONE; cell++) {
        char path[4200], cell_aside[4300];
        struct stat status;
        snprintf(path, sizeof path, "%s/cells/%03u", options->data, cell);
        snprintf(cell_aside, sizeof cell_aside, "%s/cells/%03u", aside, cell);
        if (stat(path, &status) != 0)
            continue;
        struct repair_config config = {
            .disk = disk_real_disk(disk),
            .backend = &state_lmdb,
            .path = path,
            .aside = cell_aside,
            .cell = cell,
            .dry = dry,
            .nothing = {.data = nothing, .len = sizeof nothing},
            .events = &losses_events,
            .ctx = losses,
        };
        err = repair_cell(&config);
        if (err != ERR_NONE)
            fprintf(stderr, "weir: %s cannot be repaired: %s\n", path, err_text(err));
    }
    disk_real_destroy(disk);
    return err;
}

/* The same words again, to be there beside the originals before anything is changed. */
static enum err report_keep(const struct losses *losses, const char *aside)
{
    char path[4300];
    snprintf(path, sizeof path, "%s/lost.txt", aside);
    if (mkdir(aside, 0750) != 0 && errno != EEXIST)
        return ERR_IO;
    FILE *file = fopen(path, "w");
    if (file == NULL)
        return ERR_IO;
    losses_print(losses, file);
    bool kept = fflush(file) == 0 && fsync(fileno(file)) == 0;
    fclose(file);
    return kept ? ERR_NONE : ERR_IO;
}

static void aside_name(const struct options *options, char *out, size_t room)
{
    struct timespec clock;
    struct tm parts;
    char now[32];
    clock_gettime(CLOCK_REALTIME, &clock);
    strftime(now, sizeof now, "%Y%m%dT%H%M%SZ", gmtime_r(&clock.tv_sec, &parts));
    snprintf(out, room, "%s/damaged-%s", options->data, now);
}

/* Says what is lost; then, with --repair, takes it out. */
static enum err damage_handle(const struct options *options, uint32_t cells)
{
    char aside[4200];
    struct losses losses, done;
    aside_name(options, aside, sizeof aside);
    if (!losses_init(&losses))
        return ERR_NO_MEMORY;
    enum err err = cells_repair(options, cells, aside, true, &losses);
    losses_print(&losses, stdout);
    fflush(stdout);
    if (err == ERR_NONE && options->repair)
        err = report_keep(&losses, aside);
    losses_done(&losses);
    if (err != ERR_NONE || !options->repair)
        return err;
    if (!losses_init(&done))
        return ERR_NO_MEMORY;
    err = cells_repair(options, cells, aside, false, &done);
    for (uint32_t i = 0; i < done.steps.count; i++)
        printf("repair: %s\n", done.steps.data[i]);
    printf("originals of what was changed, and what is lost: %s\n", aside);
    losses_done(&done);
    return err;
}

static int folder_check(const struct options *options, struct data_folder *folder)
{
    uint32_t used = 0;
    struct verify_report report = {.damage = damage_print, .doubt = doubt_print};
    enum err err = cells_verify(options->data, folder->cells, &used, &report);
    if (err == ERR_NONE && report.damaged > 0) {
        err = damage_handle(options, folder->cells);
        if (err == ERR_NONE && options->repair) {
            used = 0;
            report = (struct verify_report){.damage = damage_print, .doubt = doubt_print};
            err = cells_verify(options->data, folder->cells, &used, &report);
        }
    }
    summary_print(folder->cells, used, &report);
    return err == ERR_NONE && report.damaged == 0 ? 0 : 1;
}

int cli_check(int argc, char **argv)
{
    struct options options;
    if (!options_read(argc, argv, &options)) {
        fputs("usage: weir check [--data DIR] [--repair]\n", stderr);
        return 2;
    }
    char path[4200], problem[512] = "";
    struct stat status;
    snprintf(path, sizeof path, "%s/weir", options.data);
    if (stat(path, &status) != 0) {
        fprintf(stderr, "weir: %s is not a data folder\n", options.data);
        return 2;
    }
    struct data_folder folder;
    enum err err = data_folder_open(options.data, 0, options.repair, &folder, problem);
    if (err == ERR_NONE && folder.damaged) {
        printf("repair: %s: a bit is turned back\n", path);
        err = data_folder_write(options.data, &folder, problem);
    }
    if (err != ERR_NONE) {
        fprintf(stderr, "weir: %s\n", problem);
        return 1;
    }
    int code = folder_check(&options, &folder);
    data_folder_close(&folder);
    return code;
}
