/* The names of a simulated disk: what each stands for now and what it would stand for after a power
 * cut, and the contents that they stand for. Changes that no sync of a folder covers wait in a
 * list, in order. */
#ifndef WEIR_IO_SIM_NAMES_H
#define WEIR_IO_SIM_NAMES_H

#include "io/sim_file.h"
#include "io/sim_world.h"

/* What a name stands for: a folder or a file's content. */
struct sim_inode {
    struct sim_file file;
    uint32_t refs; /* names, changes of names and open files */
    uint32_t uses; /* of these the present names and open files: then it takes space */
    bool folder;
};

struct sim_name {
    char *path;
    struct sim_inode *now, *durable;
};

/* A change that is not durable: from stands for nothing, then to stands for inode. */
struct sim_change {
    size_t from, to; /* numbers of names, or SIM_NO_NAME */
    struct sim_inode *inode;
    bool link; /* the inode keeps the names that it has */
};

static const size_t SIM_NO_NAME = SIZE_MAX;

struct sim_names {
    struct sim_name *names;
    size_t count, capacity;
    struct sim_change *changes;
    size_t changes_count, changes_capacity;
};

/* References, and uses, which are references too. NULL is allowed. */
void sim_inode_unref(struct sim_inode *inode);
struct sim_inode *sim_inode_use(struct sim_machine *machine, struct sim_inode *inode);
void sim_inode_unuse(struct sim_machine *machine, struct sim_inode *inode);

/* The use of an open file ends with a crash, its reference only when it is closed. */
void sim_inode_use_end(struct sim_machine *machine, struct sim_inode *inode);

/* Grows the file to `size` or as far as the disk allows; returns how far. */
uint64_t sim_inode_grow(struct sim_machine *machine, struct sim_inode *inode, uint64_t size);

/* ERR_DISK_FULL: what fits was written. */
enum err sim_inode_write(struct sim_machine *machine, struct sim_inode *inode, const void *data,
                         size_t len, uint64_t offset) __attribute__((warn_unused_result));

/* A sync whose outcome is `err`; returns it. */
enum err sim_inode_sync(struct sim_machine *machine, struct sim_inode *inode, enum err err)
    __attribute__((warn_unused_result));

/* The number of a name, by the first len bytes of a path. */
size_t sim_name_find(const struct sim_names *names, const char *path, size_t len);
size_t sim_name_make(struct sim_names *names, const char *path, size_t len);

/* Length of the path of the folder that a path is in, 0 when that is the folder of all. */
size_t sim_folder_len(const char *path);

/* The length of a folder's path as it is compared: without slashes at its end; "." is nothing. */
size_t sim_folder_trim(const char *path);

bool sim_folder_has(const char *folder, size_t len, const char *path);
bool sim_folder_exists(const struct sim_names *names, const char *path, size_t len);

/* Makes and removes the name of a folder: durable at once. inode NULL: removes. */
void sim_folder_set(struct sim_machine *machine, size_t number, struct sim_inode *inode);

/* Makes the change now; it is durable once synced. */
void sim_change_add(struct sim_machine *machine, struct sim_change change);

/* Makes the waiting changes in that folder durable. */
void sim_changes_sync(struct sim_names *names, const char *folder, size_t len);

/* A power cut: some changes happen, the others never did; contents lose what was not synced. */
void sim_names_cut(struct sim_machine *machine);

void sim_names_done(struct sim_machine *machine);

#endif
