/* Names are few, so they are searched one by one. A number stays with its path for good. */
#include "io/sim_names.h"
#include "io/sim_memory.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Contents */

static uint64_t blocks(uint64_t size)
{
    return (size + SIM_PAGE_BYTES - 1) / SIM_PAGE_BYTES * SIM_PAGE_BYTES;
}

static struct sim_inode *inode_ref(struct sim_inode *inode)
{
    if (inode != NULL)
        inode->refs++;
    return inode;
}

void sim_inode_unref(struct sim_inode *inode)
{
    if (inode == NULL || --inode->refs > 0)
        return;
    sim_file_done(&inode->file);
    free(inode);
}

struct sim_inode *sim_inode_use(struct sim_machine *machine, struct sim_inode *inode)
{
    if (inode != NULL && inode->uses++ == 0)
        machine->disk_used += blocks(inode->file.size);
    return inode_ref(inode);
}

void sim_inode_unuse(struct sim_machine *machine, struct sim_inode *inode)
{
    if (inode != NULL && --inode->uses == 0)
        machine->disk_used -= blocks(inode->file.size);
    sim_inode_unref(inode);
}

void sim_inode_use_end(struct sim_machine *machine, struct sim_inode *inode)
{
    inode_ref(inode);
    sim_inode_unuse(machine, inode);
}

uint64_t sim_inode_grow(struct sim_machine *machine, struct sim_inode *inode, uint64_t size)
{
    uint64_t before = blocks(inode->file.size);
    if (size <= inode->file.size)
        return size;
    if (machine->disk_limit > 0) {
        uint64_t most = machine->disk_limit > machine->disk_used
                            ? machine->disk_limit - machine->disk_used + before
                            : before;
        size = size < most ? size : most;
    }
    sim_file_grow(&inode->file, size);
    machine->disk_used += blocks(inode->file.size) - before;
    return size;
}

enum err sim_inode_write(struct sim_machine *machine, struct sim_inode *inode, const void *data,
                         size_t len, uint64_t offset)
{
    uint64_t end = sim_inode_grow(machine, inode, offset + len);
    size_t fits = end <= offset ? 0 : end - offset < len ? (size_t)(end - offset) : len;
    if (!sim_file_write(&inode->file, data, fits, offset))
        return ERR_NO_MEMORY;
    return fits < len ? ERR_DISK_FULL : ERR_NONE;
}

enum err sim_inode_sync(struct sim_machine *machine, struct sim_inode *inode, enum err err)
{
    if (err == ERR_NONE && !machine->sim->config.lie_about_sync)
        sim_file_sync(&inode->file);
    if (err != ERR_NONE && machine->state == MACHINE_UP)
        sim_file_sync_fail(&inode->file);
    return err;
}

/* Names */

size_t sim_name_find(const struct sim_names *names, const char *path, size_t len)
{
    for (size_t i = 0; i < names->count; i++) {
        if (strncmp(names->names[i].path, path, len) == 0 && names->names[i].path[len] == '\0')
            return i;
    }
    return SIM_NO_NAME;
}

size_t sim_name_make(struct sim_names *names, const char *path, size_t len)
{
    size_t found = sim_name_find(names, path, len);
    if (found != SIM_NO_NAME)
        return found;
    if (names->count == names->capacity) {
        names->capacity = names->capacity ? names->capacity * 2 : 16;
        names->names = sim_resize(names->names, names->capacity, sizeof *names->names);
        assert(names->names != NULL);
    }
    names->names[names->count] = (struct sim_name){.path = strndup(path, len)};
    assert(names->names[names->count].path != NULL);
    return names->count++;
}

size_t sim_folder_len(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? 0 : (size_t)(slash - path);
}

bool sim_folder_has(const char *folder, size_t len, const char *path)
{
    return sim_folder_len(path) == len && strncmp(path, folder, len) == 0;
}

size_t sim_folder_trim(const char *path)
{
    size_t len = strlen(path);
    while (len > 0 && path[len - 1] == '/')
        len--;
    return len == 1 && path[0] == '.' ? 0 : len;
}

bool sim_folder_exists(const struct sim_names *names, const char *path, size_t len)
{
    if (len == 0)
        return true;
    size_t number = sim_name_find(names, path, len);
    return number != SIM_NO_NAME && names->names[number].now != NULL &&
           names->names[number].now->folder;
}

static void now_set(struct sim_machine *machine, struct sim_name *name, struct sim_inode *inode)
{
    sim_inode_use(machine, inode);
    sim_inode_unuse(machine, name->now);
    name->now = inode;
}

static void durable_set(struct sim_name *name, struct sim_inode *inode)
{
    inode_ref(inode);
    sim_inode_unref(name->durable);
    name->durable = inode;
}

static void change_apply(struct sim_names *names, const struct sim_change *change)
{
    if (change->from != SIM_NO_NAME)
        durable_set(&names->names[change->from], NULL);
    /* When a change before this one was undone it may still have another name. */
    for (size_t i = 0; change->inode != NULL && !change->link && i < names->count; i++) {
        if (names->names[i].durable == change->inode)
            durable_set(&names->names[i], NULL);
    }
    if (change->to != SIM_NO_NAME)
        durable_set(&names->names[change->to], change->inode);
}

void sim_change_add(struct sim_machine *machine, struct sim_change change)
{
    struct sim_names *names = machine->names;
    if (names->changes_count == names->changes_capacity) {
        names->changes_capacity = names->changes_capacity ? names->changes_capacity * 2 : 16;
        names->changes =
            sim_resize(names->changes, names->changes_capacity, sizeof *names->changes);
        assert(names->changes != NULL);
    }
    inode_ref(change.inode);
    names->changes[names->changes_count++] = change;
    if (change.from != SIM_NO_NAME)
        now_set(machine, &names->names[change.from], NULL);
    if (change.to != SIM_NO_NAME)
        now_set(machine, &names->names[change.to], change.inode);
}

void sim_folder_set(struct sim_machine *machine, size_t number, struct sim_inode *inode)
{
    struct sim_name *name = &machine->names->names[number];
    now_set(machine, name, inode);
    durable_set(name, inode);
}

static bool change_is_in(const struct sim_names *names, size_t number, const char *folder,
                         size_t len)
{
    return number != SIM_NO_NAME && sim_folder_has(folder, len, names->names[number].path);
}

void sim_changes_sync(struct sim_names *names, const char *folder, size_t len)
{
    size_t kept = 0;
    for (size_t i = 0; i < names->changes_count; i++) {
        struct sim_change change = names->changes[i];
        if (change_is_in(names, change.from, folder, len) ||
            change_is_in(names, change.to, folder, len)) {
            change_apply(names, &change);
            sim_inode_unref(change.inode);
        } else {
            names->changes[kept++] = change;
        }
    }
    names->changes_count = kept;
}

/* Of the changes of names that are not durable, the first ones or any ones happen. */
static void changes_cut(struct sim_machine *machine)
{
    struct sim_names *names = machine->names;
    struct sim_random *random = &machine->sim->random;
    bool ordered = sim_random_below(random, 2) == 0;
    size_t first = (size_t)sim_random_below(random, names->changes_count + 1);
    for (size_t i = 0; i < names->changes_count; i++) {
        if (ordered ? i < first : sim_random_below(random, 2) == 0)
            change_apply(names, &names->changes[i]);
        sim_inode_unref(names->changes[i].inode);
    }
    names->changes_count = 0;
    for (size_t i = 0; i < names->count; i++)
        now_set(machine, &names->names[i], names->names[i].durable);
}

void sim_names_cut(struct sim_machine *machine)
{
    changes_cut(machine);
    for (size_t i = 0; i < machine->names->count; i++) {
        struct sim_inode *inode = machine->names->names[i].now;
        if (inode == NULL)
            continue;
        uint64_t before = blocks(inode->file.size);
        sim_file_cut(&inode->file, &machine->sim->random);
        machine->disk_used -= before - blocks(inode->file.size);
    }
}

void sim_names_done(struct sim_machine *machine)
{
    struct sim_names *names = machine->names;
    for (size_t i = 0; i < names->changes_count; i++)
        sim_inode_unref(names->changes[i].inode);
    for (size_t i = 0; i < names->count; i++) {
        now_set(machine, &names->names[i], NULL);
        durable_set(&names->names[i], NULL);
        free(names->names[i].path);
    }
    free(names->names);
    free(names->changes);
    free(names);
}
