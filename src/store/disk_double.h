/* A disk for the store's tests: files in memory that tell what was synced from what was only
 * written, so that a crash can drop, keep or tear the rest by sectors, and a count of calls, so
 * that a test can crash or fail at each of them. Requests run when double_turn() says so. Directory
 * changes survive in order, up to a point between the last sync_folder and the crash. */
#ifndef WEIR_STORE_DISK_DOUBLE_H
#define WEIR_STORE_DISK_DOUBLE_H

#include "base/list.h"
#include "base/memory_double.h"
#include "io/disk.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DOUBLE_SECTOR 512u
#define DOUBLE_NAMES  256
#define DOUBLE_PATH   120

enum double_crash { DOUBLE_DROP, DOUBLE_KEEP, DOUBLE_TEAR };

struct double_inode {
    struct double_inode *next;
    uint8_t *data, *safe, *dirty; /* what is seen, what is synced, which sectors differ */
    uint64_t size, safe_size, room;
};

struct double_name {
    char path[DOUBLE_PATH];
    struct double_inode *inode; /* NULL: free */
};

struct double_change {
    char from[DOUBLE_PATH], to[DOUBLE_PATH]; /* from "": create `to`; to "": remove */
    struct double_inode *inode;
};

struct double_request {
    struct list link;
    struct disk_op *op;
    void (*job)(struct disk_op *op);
    struct disk_file *file;
    struct iovec parts[64];
    int count;
    void *into;
    size_t len;
    uint64_t offset;
    bool write, sync;
};

struct double_disk {
    struct disk disk;
    struct double_inode *inodes;
    struct double_name now[DOUBLE_NAMES], safe[DOUBLE_NAMES];
    struct double_change changes[DOUBLE_NAMES];
    int change_count;
    struct list requests;
    uint64_t random;
    uint64_t calls;    /* calls that change something, so far */
    uint64_t punched;  /* bytes */
    uint64_t crash_at; /* the disk dies in that call; 0: never */
    uint64_t fail_at;  /* that call fails with fail_err */
    enum err fail_err;
    uint64_t capacity; /* bytes of all files together; 0: no limit */
    uint64_t reads;
    uint64_t read_fail_at; /* that read fails with fail_err */
    bool dead;
    bool no_sync; /* sabotage: syncs do nothing */
    bool shuffle; /* requests complete in any order */
};

struct double_file {
    struct disk_file file;
    struct double_inode *inode;
};

static inline uint64_t double_random(struct double_disk *self)
{
    self->random = self->random * 6364136223846793005u + 1442695040888963407u;
    uint64_t mixed = self->random ^ (self->random >> 29);
    return mixed * 0xbf58476d1ce4e5b9u >> 17;
}

/* Counts a call. False: it does nothing and returns *err. */
static inline bool double_call(struct double_disk *self, enum err *err)
{
    *err = ERR_IO;
    if (self->dead)
        return false;
    self->calls++;
    if (self->calls == self->crash_at) {
        self->dead = true;
        return double_random(self) % 2 == 0;
    }
    if (self->calls == self->fail_at) {
        *err = self->fail_err;
        return false;
    }
    *err = ERR_NONE;
    return true;
}

static inline struct double_disk *double_of(struct disk *disk)
{
    return (struct double_disk *)(void *)disk;
}

static inline struct double_inode *inode_of(struct disk_file *file)
{
    return ((struct double_file *)(void *)file)->inode;
}

static inline struct double_name *double_find(struct double_name *names, const char *path)
{
    for (int i = 0; i < DOUBLE_NAMES; i++) {
        if (names[i].inode != NULL && strcmp(names[i].path, path) == 0)
            return &names[i];
    }
    return NULL;
}

static inline void double_put(struct double_name *names, const char *path,
                              struct double_inode *inode)
{
    struct double_name *name = double_find(names, path);
    for (int i = 0; name == NULL && i < DOUBLE_NAMES; i++) {
        if (names[i].inode == NULL)
            name = &names[i];
    }
    assert(name != NULL && strlen(path) < DOUBLE_PATH);
    snprintf(name->path, DOUBLE_PATH, "%s", path);
    name->inode = inode;
}

static inline void double_apply(struct double_name *names, const struct double_change *change)
{
    struct double_name *old = change->from[0] != '\0' ? double_find(names, change->from) : NULL;
    struct double_inode *inode = old != NULL ? old->inode : change->inode;
    if (old != NULL)
        old->inode = NULL;
    if (change->to[0] != '\0')
        double_put(names, change->to, inode);
}

static inline void double_change(struct double_disk *self, const char *from, const char *to,
                                 struct double_inode *inode)
{
    assert(self->change_count < DOUBLE_NAMES);
    struct double_change *change = &self->changes[self->change_count++];
    snprintf(change->from, DOUBLE_PATH, "%s", from);
    snprintf(change->to, DOUBLE_PATH, "%s", to);
    change->inode = inode;
    double_apply(self->now, change);
}

static inline void double_changes_save(struct double_disk *self, int count)
{
    for (int i = 0; i < count; i++)
        double_apply(self->safe, &self->changes[i]);
    memmove(self->changes, self->changes + count,
            (size_t)(self->change_count - count) * sizeof self->changes[0]);
    self->change_count -= count;
}

static inline void inode_reserve(struct double_inode *inode, uint64_t size)
{
    if (size > inode->room) {
        uint64_t room = (size * 2 + 65535) & ~UINT64_C(65535);
        memory_pause();
        inode->data = realloc(inode->data, room);
        inode->safe = realloc(inode->safe, room);
        inode->dirty = realloc(inode->dirty, room / DOUBLE_SECTOR);
        memory_resume();
        assert(inode->data != NULL && inode->safe != NULL && inode->dirty != NULL);
        memset(inode->data + inode->room, 0, room - inode->room);
        memset(inode->safe + inode->room, 0, room - inode->room);
        memset(inode->dirty + inode->room / DOUBLE_SECTOR, 0, (room - inode->room) / DOUBLE_SECTOR);
        inode->room = room;
    }
    if (size > inode->size)
        inode->size = size;
}

static inline void inode_sync(struct double_inode *inode)
{
    for (uint64_t i = 0; i * DOUBLE_SECTOR < inode->size; i++) {
        if (inode->dirty[i])
            memcpy(inode->safe + i * DOUBLE_SECTOR, inode->data + i * DOUBLE_SECTOR, DOUBLE_SECTOR);
        inode->dirty[i] = 0;
    }
    inode->safe_size = inode->size;
}

static inline uint64_t double_used(struct double_disk *self)
{
    uint64_t bytes = 0;
    for (int i = 0; i < DOUBLE_NAMES; i++)
        bytes += self->now[i].inode != NULL ? self->now[i].inode->size : 0;
    return bytes;
}

static inline enum err double_open(struct disk *disk, const char *path, bool create,
                                   struct disk_file **out)
{
    struct double_disk *self = double_of(disk);
    struct double_name *name = double_find(self->now, path);
    if (name == NULL && !create)
        return ERR_NOT_FOUND;
    enum err err;
    if (name == NULL && !double_call(self, &err))
        return err;
    memory_pause();
    struct double_inode *inode = name != NULL ? name->inode : calloc(1, sizeof *inode);
    struct double_file *file = calloc(1, sizeof *file);
    memory_resume();
    assert(inode != NULL && file != NULL);
    if (name == NULL) {
        inode->next = self->inodes;
        self->inodes = inode;
        double_change(self, "", path, inode);
    }
    file->file.disk = disk;
    file->inode = inode;
    *out = &file->file;
    return ERR_NONE;
}

static inline void double_close(struct disk_file *file)
{
    free(file);
}

static inline enum err double_write_now(struct disk_file *file, const struct iovec *parts,
                                        int count, uint64_t offset)
{
    struct double_disk *self = double_of(file->disk);
    struct double_inode *inode = inode_of(file);
    enum err err;
    if (!double_call(self, &err))
        return err;
    for (int i = 0; i < count; i++) {
        uint64_t end = offset + parts[i].iov_len;
        if (end > inode->size && self->capacity != 0 &&
            double_used(self) + end - inode->size > self->capacity)
            return ERR_DISK_FULL;
        inode_reserve(inode, end);
        memcpy(inode->data + offset, parts[i].iov_base, parts[i].iov_len);
        for (uint64_t s = offset / DOUBLE_SECTOR; s * DOUBLE_SECTOR < end; s++)
            inode->dirty[s] = 1;
        offset = end;
    }
    return err;
}

static inline enum err double_sync_sync(struct disk_file *file)
{
    struct double_disk *self = double_of(file->disk);
    enum err err;
    if (double_call(self, &err) && !self->no_sync)
        inode_sync(inode_of(file));
    return err;
}

static inline enum err double_write_sync(struct disk_file *file, const void *data, size_t len,
                                         uint64_t offset)
{
    struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
    return double_write_now(file, &part, 1, offset);
}

static inline enum err double_read_sync(struct disk_file *file, void *into, size_t len,
                                        uint64_t offset, size_t *got)
{
    struct double_disk *self = double_of(file->disk);
    struct double_inode *inode = inode_of(file);
    *got = 0;
    if (++self->reads == self->read_fail_at)
        return self->fail_err;
    *got = offset >= inode->size ? 0 : inode->size - offset < len ? inode->size - offset : len;
    if (*got > 0)
        memcpy(into, inode->data + offset, *got);
    return ERR_NONE;
}

static inline void double_bypass(struct disk_file *file, const char *path)
{
    (void)file;
    (void)path;
}

static inline enum err double_allocate(struct disk_file *file, uint64_t bytes, bool written)
{
    (void)written;
    struct double_disk *self = double_of(file->disk);
    struct double_inode *inode = inode_of(file);
    enum err err;
    if (!double_call(self, &err))
        return err;
    if (bytes > inode->size && self->capacity != 0 &&
        double_used(self) + bytes - inode->size > self->capacity)
        return ERR_DISK_FULL;
    inode_reserve(inode, bytes);
    inode->safe_size = inode->size;
    return err;
}

static inline enum err double_size(struct disk_file *file, uint64_t *bytes)
{
    *bytes = inode_of(file)->size;
    return ERR_NONE;
}

static inline enum err double_make_folder(struct disk *disk, const char *path)
{
    (void)path;
    return double_of(disk)->dead ? ERR_IO : ERR_NONE;
}

static inline enum err double_rename(struct disk *disk, const char *from, const char *to)
{
    struct double_disk *self = double_of(disk);
    enum err err;
    if (double_find(self->now, from) == NULL)
        return ERR_NOT_FOUND;
    if (double_call(self, &err))
        double_change(self, from, to, NULL);
    return err;
}

static inline enum err double_link(struct disk *disk, const char *path, const char *name)
{
    struct double_disk *self = double_of(disk);
    struct double_name *old = double_find(self->now, path);
    enum err err;
    if (old == NULL)
        return ERR_NOT_FOUND;
    if (double_find(self->now, name) != NULL)
        return ERR_EXISTS;
    if (double_call(self, &err))
        double_change(self, "", name, old->inode);
    return err;
}

static inline void double_punch(struct disk_file *file, uint64_t offset, uint64_t len)
{
    struct double_disk *self = double_of(file->disk);
    struct double_inode *inode = inode_of(file);
    enum err err;
    if (!double_call(self, &err) || offset >= inode->size)
        return;
    uint64_t end = offset + len < inode->size ? offset + len : inode->size;
    memset(inode->data + offset, 0, end - offset);
    memset(inode->safe + offset, 0, end - offset);
    self->punched += end - offset;
}

static inline enum err double_remove(struct disk *disk, const char *path)
{
    struct double_disk *self = double_of(disk);
    enum err err;
    if (double_find(self->now, path) == NULL)
        return ERR_NOT_FOUND;
    if (double_call(self, &err))
        double_change(self, path, "", NULL);
    return err;
}

static inline enum err double_sync_folder(struct disk *disk, const char *path)
{
    struct double_disk *self = double_of(disk);
    enum err err;
    (void)path;
    if (double_call(self, &err))
        double_changes_save(self, self->change_count);
    return err;
}

static inline int double_compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

static inline enum err double_list(struct disk *disk, const char *path,
                                   void (*each)(void *ctx, const char *name), void *ctx)
{
    struct double_disk *self = double_of(disk);
    static _Thread_local char found[DOUBLE_NAMES][DOUBLE_PATH];
    size_t len = strlen(path), count = 0;
    for (int i = 0; i < DOUBLE_NAMES; i++) {
        if (self->now[i].inode != NULL && strncmp(self->now[i].path, path, len) == 0 &&
            self->now[i].path[len] == '/')
            snprintf(found[count++], DOUBLE_PATH, "%s", self->now[i].path + len + 1);
    }
    qsort(found, count, DOUBLE_PATH, double_compare);
    for (size_t i = 0; i < count; i++)
        each(ctx, found[i]);
    return count > 0 ? ERR_NONE : ERR_NOT_FOUND;
}

static inline enum err double_free_space(struct disk *disk, const char *path, uint64_t *bytes)
{
    struct double_disk *self = double_of(disk);
    (void)path;
    uint64_t used = double_used(self);
    *bytes = self->capacity == 0 ? UINT64_MAX : used < self->capacity ? self->capacity - used : 0;
    return ERR_NONE;
}

static inline struct double_request *double_submit(struct disk *disk, struct disk_op *op)
{
    memory_pause();
    struct double_request *request = calloc(1, sizeof *request);
    memory_resume();
    assert(request != NULL);
    request->op = op;
    list_insert(&double_of(disk)->requests, &request->link);
    return request;
}

static inline void double_write(struct disk_file *file, const struct iovec *parts, int count,
                                uint64_t offset, bool sync, bool now, struct disk_op *op)
{
    struct double_request *request = double_submit(file->disk, op);
    (void)now;
    assert(count > 0 && count <= 64);
    memcpy(request->parts, parts, (size_t)count * sizeof *parts);
    request->file = file;
    request->count = count;
    request->offset = offset;
    request->write = true;
    request->sync = sync;
}

static inline void double_read(struct disk_file *file, void *into, size_t len, uint64_t offset,
                               struct disk_op *op)
{
    struct double_request *request = double_submit(file->disk, op);
    request->file = file;
    request->into = into;
    request->len = len;
    request->offset = offset;
}

static inline void double_run(struct disk *disk, void (*job)(struct disk_op *op),
                              struct disk_op *op)
{
    double_submit(disk, op)->job = job;
}

/* Completes one request. False when there is none (or the disk is dead). */
static inline bool double_turn(struct double_disk *self)
{
    if (self->dead || list_empty(&self->requests))
        return false;
    struct list *node = self->requests.next;
    if (self->shuffle && double_random(self) % 3 == 0 && node->next != &self->requests)
        node = node->next;
    struct double_request *request = list_entry(node, struct double_request, link);
    list_remove(node);
    struct disk_op *op = request->op;
    size_t got = 0;
    if (request->job != NULL) {
        request->job(op);
    } else if (request->write) {
        op->err = double_write_now(request->file, request->parts, request->count, request->offset);
        if (op->err == ERR_NONE && request->sync)
            op->err = double_sync_sync(request->file);
    } else {
        op->err =
            double_read_sync(request->file, request->into, request->len, request->offset, &got);
        op->bytes = got;
    }
    free(request);
    if (self->dead)
        return false;
    op->done(op);
    return true;
}

static const struct disk_ops double_ops = {
    .open = double_open,
    .close = double_close,
    .write = double_write,
    .read = double_read,
    .run = double_run,
    .write_sync = double_write_sync,
    .read_sync = double_read_sync,
    .sync_sync = double_sync_sync,
    .bypass = double_bypass,
    .allocate = double_allocate,
    .size = double_size,
    .make_folder = double_make_folder,
    .rename = double_rename,
    .link = double_link,
    .punch = double_punch,
    .remove = double_remove,
    .sync_folder = double_sync_folder,
    .list = double_list,
    .free_space = double_free_space,
};

static inline struct double_disk *double_create(uint64_t seed)
{
    struct double_disk *self = calloc(1, sizeof *self);
    assert(self != NULL);
    self->disk.ops = &double_ops;
    self->random = seed * 2 + 1;
    list_init(&self->requests);
    return self;
}

/* After everything that used the disk was destroyed: what a machine finds after the power came
 * back. The disk works again. */
static inline void double_reboot(struct double_disk *self, enum double_crash crash)
{
    list_each(node, &self->requests)
    {
        list_remove(node);
        free(list_entry(node, struct double_request, link));
    }
    uint64_t kept = crash == DOUBLE_DROP ? 0 : (uint64_t)self->change_count;
    if (crash == DOUBLE_TEAR)
        kept = double_random(self) % (uint64_t)(self->change_count + 1);
    double_changes_save(self, (int)kept);
    self->change_count = 0;
    memcpy(self->now, self->safe, sizeof self->now);
    for (struct double_inode *inode = self->inodes; inode != NULL; inode = inode->next) {
        uint64_t size = inode->safe_size;
        for (uint64_t i = 0; i * DOUBLE_SECTOR < inode->size; i++) {
            if (!inode->dirty[i])
                continue;
            inode->dirty[i] = 0;
            bool keep =
                crash == DOUBLE_KEEP || (crash == DOUBLE_TEAR && double_random(self) % 2 == 0);
            if (keep) {
                memcpy(inode->safe + i * DOUBLE_SECTOR, inode->data + i * DOUBLE_SECTOR,
                       DOUBLE_SECTOR);
                uint64_t end = (i + 1) * DOUBLE_SECTOR;
                end = end < inode->size ? end : inode->size;
                size = end > size ? end : size;
            }
        }
        if (inode->room > 0)
            memcpy(inode->data, inode->safe, inode->room);
        inode->size = inode->safe_size = size;
    }
    self->dead = false;
    self->crash_at = self->fail_at = self->read_fail_at = 0;
}

static inline void double_destroy(struct double_disk *self)
{
    list_each(node, &self->requests)
    {
        list_remove(node);
        free(list_entry(node, struct double_request, link));
    }
    for (struct double_inode *inode = self->inodes; inode != NULL;) {
        struct double_inode *next = inode->next;
        free(inode->data);
        free(inode->safe);
        free(inode->dirty);
        free(inode);
        inode = next;
    }
    free(self);
}

#endif
