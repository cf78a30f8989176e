/* The simulated disk of a machine. Its names (paths) say which content they stand for now, and
 * which one they would stand for after a power cut; changes that no disk_sync_folder covers wait in
 * a list, in order. A request passes through events: its bytes are written (perhaps in two parts),
 * then it is synced, then it completes; a crash may fall between any two. */
#include "io/sim_memory.h"
#include "io/sim_names.h"
#include "io/sim_world.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct open_file {
    struct disk_file base;
    struct list link;
    struct sim_inode *inode;
    uint32_t epoch;
};

enum request_kind { WRITE, READ, RUN };

struct request {
    struct list link;
    struct sim_shard *shard;
    struct disk_op *op;
    enum request_kind kind;
    struct open_file *file;
    void (*run)(struct disk_op *op);
    uint64_t offset, bytes, bytes_done;
    enum err err;
    bool sync;
    int count;
    struct iovec parts[];
};

static struct sim_shard *shard_of(struct disk *disk)
{
    return (struct sim_shard *)disk;
}

static struct sim_machine *machine_of(const struct open_file *file)
{
    return shard_of(file->base.disk)->machine;
}

/* Every call passes here: it may hang the machine, or fail. */
static enum err call(struct sim_machine *machine)
{
    machine->disk_calls++;
    if (machine->hang_at > 0 && machine->disk_calls >= machine->hang_at &&
        machine->state == MACHINE_UP)
        machine->state = MACHINE_HUNG;
    if (machine->state != MACHINE_UP ||
        sim_random_chance(&machine->sim->random, machine->disk_error_rate))
        return ERR_IO;
    return ERR_NONE;
}

static enum err file_call(const struct open_file *file)
{
    struct sim_machine *machine = machine_of(file);
    return file->epoch == machine->epoch ? call(machine) : ERR_IO;
}

static enum err open_path(struct disk *disk, const char *path, bool create, struct disk_file **out)
{
    struct sim_machine *machine = shard_of(disk)->machine;
    struct sim_names *names = machine->names;
    enum err err = call(machine);
    if (err)
        return err;
    size_t number = sim_name_find(names, path, strlen(path));
    struct sim_inode *inode = number == SIM_NO_NAME ? NULL : names->names[number].now;
    if (inode == NULL && (!create || !sim_folder_exists(names, path, sim_folder_len(path))))
        return ERR_NOT_FOUND;
    if (inode != NULL && inode->folder)
        return ERR_IO;
    struct open_file *file = sim_make(sizeof *file);
    if (file == NULL)
        return ERR_NO_MEMORY;
    if (inode == NULL)
        inode = sim_make(sizeof *inode);
    if (inode == NULL) {
        free(file);
        return ERR_NO_MEMORY;
    }
    if (inode->refs == 0) {
        number = sim_name_make(names, path, strlen(path));
        sim_change_add(machine,
                       (struct sim_change){.from = SIM_NO_NAME, .to = number, .inode = inode});
    }
    file->base.disk = disk;
    file->inode = sim_inode_use(machine, inode);
    file->epoch = machine->epoch;
    list_init(&file->link);
    list_insert(&machine->files, &file->link);
    *out = &file->base;
    return ERR_NONE;
}

static void close_file(struct disk_file *base)
{
    struct open_file *file = (struct open_file *)base;
    if (file->epoch == machine_of(file)->epoch)
        sim_inode_unuse(machine_of(file), file->inode);
    else
        sim_inode_unref(file->inode); /* the crash has ended its use */
    list_remove(&file->link);
    free(file);
}

static enum err make_folder(struct disk *disk, const char *path)
{
    struct sim_machine *machine = shard_of(disk)->machine;
    enum err err = call(machine);
    size_t whole = sim_folder_trim(path);
    for (size_t len = 1; err == ERR_NONE && len <= whole; len++) {
        if (len < whole && path[len] != '/')
            continue;
        size_t number = sim_name_make(machine->names, path, len);
        const struct sim_inode *found = machine->names->names[number].now;
        if (found != NULL) {
            err = found->folder ? ERR_NONE : ERR_EXISTS;
            continue;
        }
        struct sim_inode *inode = sim_make(sizeof *inode);
        if (inode == NULL)
            return ERR_NO_MEMORY;
        inode->folder = true;
        sim_folder_set(machine, number, inode);
    }
    return err;
}

static enum err rename_path(struct disk *disk, const char *from, const char *to)
{
    struct sim_machine *machine = shard_of(disk)->machine;
    struct sim_names *names = machine->names;
    enum err err = call(machine);
    if (err)
        return err;
    size_t old = sim_name_find(names, from, strlen(from));
    if (old == SIM_NO_NAME || names->names[old].now == NULL ||
        !sim_folder_exists(names, to, sim_folder_len(to)))
        return ERR_NOT_FOUND;
    size_t new = sim_name_make(names, to, strlen(to));
    struct sim_inode *inode = names->names[old].now;
    if (inode->folder || (names->names[new].now != NULL && names->names[new].now->folder))
        return ERR_IO;
    if (new != old)
        sim_change_add(machine, (struct sim_change){.from = old, .to = new, .inode = inode});
    return ERR_NONE;
}

static enum err link_path(struct disk *disk, const char *path, const char *name)
{
    struct sim_machine *machine = shard_of(disk)->machine;
    struct sim_names *names = machine->names;
    enum err err = call(machine);
    if (err)
        return err;
    size_t old = sim_name_find(names, path, strlen(path));
    if (old == SIM_NO_NAME || names->names[old].now == NULL || names->names[old].now->folder)
        return ERR_NOT_FOUND;
    size_t new = sim_name_make(names, name, strlen(name));
    struct sim_inode *inode = names->names[old].now;
    if (names->names[new].now != NULL)
        return ERR_EXISTS;
    sim_change_add(
        machine, (struct sim_change){.from = SIM_NO_NAME, .to = new, .inode = inode, .link = true});
    return ERR_NONE;
}

/* As zeroes that are not synced: after a power cut all of it may stand there again. */
static void punch(struct disk_file *base, uint64_t offset, uint64_t len)
{
    static const uint8_t ZEROES[SIM_PAGE_BYTES];
    struct open_file *file = (struct open_file *)base;
    struct sim_machine *machine = machine_of(file);
    enum err err = file_call(file);
    uint64_t size = file->inode->file.size;
    uint64_t end = offset + len < size ? offset + len : size;
    while (err == ERR_NONE && offset < end) {
        size_t part = end - offset < sizeof ZEROES ? (size_t)(end - offset) : sizeof ZEROES;
        err = sim_inode_write(machine, file->inode, ZEROES, part, offset);
        offset += part;
    }
}

static enum err remove_path(struct disk *disk, const char *path)
{
    struct sim_machine *machine = shard_of(disk)->machine;
    struct sim_names *names = machine->names;
    enum err err = call(machine);
    if (err)
        return err;
    size_t len = sim_folder_trim(path);
    size_t number = sim_name_find(names, path, len);
    if (number == SIM_NO_NAME || names->names[number].now == NULL)
        return ERR_NOT_FOUND;
    if (!names->names[number].now->folder) {
        sim_change_add(machine, (struct sim_change){.from = number, .to = SIM_NO_NAME});
        return ERR_NONE;
    }
    for (size_t i = 0; i < names->count; i++) {
        if (names->names[i].now != NULL && sim_folder_has(path, len, names->names[i].path))
            return ERR_IO;
    }
    sim_folder_set(machine, number, NULL);
    return ERR_NONE;
}

static enum err sync_folder(struct disk *disk, const char *path)
{
    struct sim_machine *machine = shard_of(disk)->machine;
    struct sim_names *names = machine->names;
    enum err err = call(machine);
    size_t len = sim_folder_trim(path);
    if (err == ERR_NONE && !sim_folder_exists(names, path, len))
        err = ERR_NOT_FOUND;
    if (err || machine->sim->config.lie_about_sync)
        return err;
    sim_changes_sync(names, path, len);
    return ERR_NONE;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static enum err list_folder(struct disk *disk, const char *path,
                            void (*each)(void *ctx, const char *name), void *ctx)
{
    struct sim_machine *machine = shard_of(disk)->machine;
    const struct sim_names *names = machine->names;
    enum err err = call(machine);
    size_t len = sim_folder_trim(path), count = 0;
    if (err == ERR_NONE && !sim_folder_exists(names, path, len))
        err = ERR_NOT_FOUND;
    if (err)
        return err;
    /* Copies: each may rename and remove. */
    char **found = sim_make((names->count + 1) * sizeof *found);
    if (found == NULL)
        return ERR_NO_MEMORY;
    for (size_t i = 0; i < names->count; i++) {
        const char *name = names->names[i].path;
        if (names->names[i].now == NULL || !sim_folder_has(path, len, name))
            continue;
        found[count] = strdup(strrchr(name, '/') ? strrchr(name, '/') + 1 : name);
        assert(found[count] != NULL);
        count++;
    }
    qsort(found, count, sizeof *found, by_text);
    for (size_t i = 0; i < count; i++) {
        each(ctx, found[i]);
        free(found[i]);
    }
    free(found);
    return ERR_NONE;
}

static enum err free_space(struct disk *disk, const char *path, uint64_t *bytes)
{
    (void)path;
    struct sim_machine *machine = shard_of(disk)->machine;
    enum err err = call(machine);
    if (err)
        return err;
    uint64_t limit = machine->disk_limit == 0 ? (uint64_t)1 << 50 : machine->disk_limit;
    *bytes = limit > machine->disk_used ? limit - machine->disk_used : 0;
    return ERR_NONE;
}

/* The blocking forms */

static enum err write_sync(struct disk_file *base, const void *data, size_t len, uint64_t offset)
{
    struct open_file *file = (struct open_file *)base;
    struct sim_machine *machine = machine_of(file);
    enum err err = file_call(file);
    if (err == ERR_NONE)
        return sim_inode_write(machine, file->inode, data, len, offset);
    /* The start of it may have been written all the same. */
    bool current = machine->state == MACHINE_UP || machine->disk_calls == machine->hang_at;
    if (file->epoch == machine->epoch && current) {
        size_t part = (size_t)sim_random_below(&machine->sim->random, len + 1);
        (void)!sim_inode_write(machine, file->inode, data, part, offset);
    }
    return err;
}

static enum err read_sync(struct disk_file *base, void *into, size_t len, uint64_t offset,
                          size_t *got)
{
    struct open_file *file = (struct open_file *)base;
    enum err err = file_call(file);
    if (err == ERR_NONE)
        *got = sim_file_read(&file->inode->file, into, len, offset);
    return err;
}

static enum err sync_sync(struct disk_file *base)
{
    struct open_file *file = (struct open_file *)base;
    if (file->epoch != machine_of(file)->epoch)
        return ERR_IO;
    return sim_inode_sync(machine_of(file), file->inode, file_call(file));
}

static void bypass(struct disk_file *base, const char *path)
{
    (void)base;
    (void)path; /* a page cache is only what the sync writes out */
}

static enum err allocate(struct disk_file *base, uint64_t bytes, bool written)
{
    (void)written;
    struct open_file *file = (struct open_file *)base;
    enum err err = file_call(file);
    if (err)
        return err;
    uint64_t size = sim_inode_grow(machine_of(file), file->inode, bytes);
    err = sync_sync(base);
    return err == ERR_NONE && size < bytes ? ERR_DISK_FULL : err;
}

static enum err file_size(struct disk_file *base, uint64_t *bytes)
{
    struct open_file *file = (struct open_file *)base;
    enum err err = file_call(file);
    if (err == ERR_NONE)
        *bytes = file->inode->file.size;
    return err;
}

/* Requests */

static void request_event(struct request *request, uint32_t max_us, void (*run)(void *ctx))
{
    struct sim *sim = request->shard->sim;
    int64_t delay_us = sim_delay(sim, max_us) * request->shard->machine->disk_slow;
    sim_schedule(sim, request->shard->machine, delay_us, run, request);
}

static void request_complete(void *ctx)
{
    struct request *request = ctx;
    struct sim_shard *shard = request->shard;
    struct disk_op *op = request->op;
    op->err = request->err;
    if (request->kind != RUN)
        op->bytes = request->err == ERR_NONE ? request->bytes_done : 0;
    list_remove(&request->link);
    free(request);
    op->done(op);
    sim_shard_turn(shard);
}

/* Completes now or, so that a crash may fall between, a little later. */
static void request_finish(struct request *request, enum err err)
{
    struct sim *sim = request->shard->sim;
    request->err = err;
    if (!sim_shard_lives(request->shard))
        return; /* it hung; the crash frees the request */
    if (sim_random_below(&sim->random, 4) == 0)
        request_event(request, sim->config.disk_us_max, request_complete);
    else
        request_complete(request);
}

static void request_sync(void *ctx)
{
    struct request *request = ctx;
    struct sim_machine *machine = request->shard->machine;
    enum err err = sim_inode_sync(machine, request->file->inode, file_call(request->file));
    request_finish(request, err);
}

/* Writes bytes up to `end` of the request. */
static enum err request_apply(struct request *request, uint64_t end)
{
    struct sim_machine *machine = request->shard->machine;
    uint64_t at = 0;
    for (int i = 0; i < request->count && at < end; i++) {
        const struct iovec *part = &request->parts[i];
        uint64_t from = request->bytes_done > at ? request->bytes_done - at : 0;
        uint64_t to = end - at < part->iov_len ? end - at : part->iov_len;
        at += part->iov_len;
        if (from >= to)
            continue;
        enum err err = sim_inode_write(machine, request->file->inode, (char *)part->iov_base + from,
                                       (size_t)(to - from), request->offset + request->bytes_done);
        if (err)
            return err;
        request->bytes_done += to - from;
    }
    return ERR_NONE;
}

static void request_write(void *ctx)
{
    struct request *request = ctx;
    struct sim *sim = request->shard->sim;
    enum err err = file_call(request->file);
    uint64_t left = request->bytes - request->bytes_done;
    bool part = err != ERR_NONE || (left > 1 && sim_random_below(&sim->random, 4) == 0);
    uint64_t now = part ? sim_random_below(&sim->random, left + 1) : left;
    enum err write_err = request_apply(request, request->bytes_done + now);
    if (err == ERR_NONE)
        err = write_err;
    if (err)
        request_finish(request, err);
    else if (request->bytes_done < request->bytes)
        request_event(request, sim->config.disk_us_max, request_write);
    else if (request->sync)
        request_event(request, sim->config.sync_us_max, request_sync);
    else
        request_finish(request, ERR_NONE);
}

static void request_read(void *ctx)
{
    struct request *request = ctx;
    enum err err = file_call(request->file);
    if (err == ERR_NONE)
        request->bytes_done = sim_file_read(&request->file->inode->file, request->parts[0].iov_base,
                                            (size_t)request->bytes, request->offset);
    request_finish(request, err);
}

static void request_run(void *ctx)
{
    struct request *request = ctx;
    request->run(request->op);
    request_finish(request, request->op->err);
}

static struct request *request_make(struct sim_shard *shard, enum request_kind kind,
                                    struct disk_op *op, int count)
{
    struct request *request = sim_make(sizeof *request + (size_t)count * sizeof request->parts[0]);
    assert(request != NULL);
    request->shard = shard;
    request->kind = kind;
    request->op = op;
    request->count = count;
    list_init(&request->link);
    list_insert(&shard->machine->requests, &request->link);
    return request;
}

static void submit_write(struct disk_file *base, const struct iovec *parts, int count,
                         uint64_t offset, bool sync, bool now, struct disk_op *op)
{
    (void)now;
    assert(count > 0 && count <= 64);
    struct sim_shard *shard = shard_of(base->disk);
    if (!sim_shard_lives(shard))
        return;
    struct request *request = request_make(shard, WRITE, op, count);
    request->file = (struct open_file *)base;
    request->offset = offset;
    request->sync = sync;
    for (int i = 0; i < count; i++) {
        request->parts[i] = parts[i];
        request->bytes += parts[i].iov_len;
    }
    request_event(request, shard->sim->config.disk_us_max, request_write);
}

static void submit_read(struct disk_file *base, void *into, size_t len, uint64_t offset,
                        struct disk_op *op)
{
    struct sim_shard *shard = shard_of(base->disk);
    if (!sim_shard_lives(shard))
        return;
    struct request *request = request_make(shard, READ, op, 1);
    request->file = (struct open_file *)base;
    request->offset = offset;
    request->bytes = len;
    request->parts[0] = (struct iovec){.iov_base = into, .iov_len = len};
    request_event(request, shard->sim->config.disk_us_max, request_read);
}

static void submit_run(struct disk *disk, void (*run)(struct disk_op *op), struct disk_op *op)
{
    struct sim_shard *shard = shard_of(disk);
    if (!sim_shard_lives(shard))
        return;
    struct request *request = request_make(shard, RUN, op, 0);
    request->run = run;
    request_event(request, shard->sim->config.disk_us_max, request_run);
}

const struct disk_ops SIM_DISK_OPS = {
    .open = open_path,
    .close = close_file,
    .write = submit_write,
    .read = submit_read,
    .run = submit_run,
    .write_sync = write_sync,
    .read_sync = read_sync,
    .sync_sync = sync_sync,
    .bypass = bypass,
    .allocate = allocate,
    .size = file_size,
    .make_folder = make_folder,
    .rename = rename_path,
    .link = link_path,
    .punch = punch,
    .remove = remove_path,
    .sync_folder = sync_folder,
    .list = list_folder,
    .free_space = free_space,
};

/* Crashes */

/* What a helper thread may still have written when the process was killed. */
static void requests_end(struct sim_machine *machine, enum sim_crash kind)
{
    struct sim_random *random = &machine->sim->random;
    list_each(node, &machine->requests)
    {
        struct request *request = list_entry(node, struct request, link);
        uint64_t left = request->bytes - request->bytes_done;
        if (request->kind == WRITE && kind == SIM_KILL && sim_random_below(random, 2) == 0)
            (void)!request_apply(request, request->bytes_done + sim_random_below(random, left + 1));
        list_remove(node);
        free(request);
    }
}

void sim_disk_crash(struct sim_machine *machine, enum sim_crash kind)
{
    requests_end(machine, kind);
    list_each(node, &machine->files)
    {
        struct open_file *file = list_entry(node, struct open_file, link);
        if (file->epoch + 1 != machine->epoch)
            continue; /* left over from an earlier crash */
        sim_inode_use_end(machine, file->inode);
    }
    if (kind == SIM_KILL)
        return;
    sim_names_cut(machine);
}

bool sim_disk_init(struct sim_machine *machine)
{
    machine->names = sim_make(sizeof *machine->names);
    return machine->names != NULL;
}

void sim_disk_done(struct sim_machine *machine)
{
    if (machine->names == NULL)
        return;
    list_each(node, &machine->requests)
    {
        free(list_entry(node, struct request, link));
    }
    list_each(file_node, &machine->files)
    {
        close_file(&list_entry(file_node, struct open_file, link)->base);
    }
    sim_names_done(machine);
}
