/* The file `weir` is written to a temporary name, synced and renamed: it is whole or absent. Its
 * last line is a checksum of the others; a folder of before there was one gets it when it is
 * opened. */
#include "server/data.h"

#include "store/format.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DATA_VERSION = 1, CELLS_MOST = 64 }; /* as spec/options.toml allows */
enum { TEXT_BYTES = 256 };

static enum err say(char problem[512], const char *what, const char *path)
{
    snprintf(problem, 512, "%s %.300s: %s", what, path, strerror(errno));
    return ERR_IO;
}

static enum err sync_folder(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return ERR_IO;
    int failed = fsync(fd);
    close(fd);
    return failed ? ERR_IO : ERR_NONE;
}

/* The folder that holds its name; one that may not be looked into is left to the file system. */
static enum err sync_above(const char *path)
{
    char above[4096];
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/')
        len--;
    while (len > 0 && path[len - 1] != '/')
        len--;
    snprintf(above, sizeof above, "%.*s", len > 0 ? (int)len : 1, len > 0 ? path : ".");
    enum err err = sync_folder(above);
    return err != ERR_NONE && errno == EACCES ? ERR_NONE : err;
}

/* A new folder's name must survive a power cut as what will be in it does. */
static enum err make_folders(const char *path, char problem[512])
{
    char part[4096];
    size_t len = strlen(path);
    if (len == 0 || len >= sizeof part) {
        snprintf(problem, 512, "the data folder's name is empty or too long");
        return ERR_INVALID;
    }
    memcpy(part, path, len + 1);
    for (size_t i = 1; i <= len; i++) {
        if (part[i] != '/' && part[i] != '\0')
            continue;
        char saved = part[i];
        part[i] = '\0';
        int failed = mkdir(part, 0750);
        if (failed ? errno != EEXIST : sync_above(part) != ERR_NONE)
            return say(problem, "cannot make folder", part);
        part[i] = saved;
    }
    return ERR_NONE;
}

static enum err lock(const char *path, int *out, char problem[512])
{
    char name[4200];
    snprintf(name, sizeof name, "%s/lock", path);
    int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (fd < 0)
        return say(problem, "cannot open", name);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        snprintf(problem, 512, "another broker uses the data folder %.300s", path);
        close(fd);
        return ERR_IN_USE;
    }
    *out = fd;
    return ERR_NONE;
}

static enum err write_all(int fd, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, text, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return ERR_IO;
        text += n;
        len -= (size_t)n;
    }
    return ERR_NONE;
}

static size_t render(const struct data_folder *data, bool checksum, char text[TEXT_BYTES])
{
    size_t len = (size_t)snprintf(
        text, TEXT_BYTES, "version = %d\ncells = %u\ncluster = ", DATA_VERSION, data->cells);
    for (size_t i = 0; i < sizeof data->cluster_id; i++)
        len += (size_t)snprintf(text + len, TEXT_BYTES - len, "%02x", data->cluster_id[i]);
    len += (size_t)snprintf(text + len, TEXT_BYTES - len, "\n");
    if (checksum)
        len += (size_t)snprintf(text + len, TEXT_BYTES - len, "checksum = %08x\n",
                                crc32c(0, text, len));
    return len;
}

static enum err put(const char *path, const struct data_folder *data, char problem[512])
{
    char name[4200], temporary[4200], text[TEXT_BYTES];
    snprintf(name, sizeof name, "%s/weir", path);
    snprintf(temporary, sizeof temporary, "%s/weir.new", path);
    size_t len = render(data, true, text);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (fd < 0)
        return say(problem, "cannot make", temporary);
    enum err err = write_all(fd, text, len);
    if (err == ERR_NONE && fdatasync(fd) != 0)
        err = ERR_IO;
    close(fd);
    if (err == ERR_NONE && rename(temporary, name) != 0)
        err = ERR_IO;
    if (err == ERR_NONE)
        err = sync_folder(path);
    if (err == ERR_NONE) /* a start that was cut off may have made it */
        err = sync_above(path);
    return err == ERR_NONE ? err : say(problem, "cannot write", name);
}

static enum err create(const char *path, struct data_folder *data, char problem[512])
{
    if (getrandom(data->cluster_id, sizeof data->cluster_id, 0) != sizeof data->cluster_id)
        return say(problem, "no random numbers for", path);
    return put(path, data, problem);
}

/* Exactly what was written, to the byte. *checked: with its checksum. */
static bool parse(const char *text, size_t len, struct data_folder *data, bool *checked)
{
    unsigned version = 0, cells = 0;
    char cluster[33] = "", again[TEXT_BYTES];
    struct data_folder found = *data;
    if (sscanf(text, "version = %u cells = %u cluster = %32[0-9a-f]", &version, &cells, cluster) !=
            3 ||
        version != DATA_VERSION || cells < 1 || cells > CELLS_MOST || strlen(cluster) != 32)
        return false;
    found.cells = cells;
    for (size_t i = 0; i < sizeof found.cluster_id; i++) {
        unsigned byte = 0;
        if (sscanf(cluster + 2 * i, "%2x", &byte) != 1)
            return false;
        found.cluster_id[i] = (uint8_t)byte;
    }
    *checked = len == render(&found, true, again) && memcmp(text, again, len) == 0;
    if (!*checked && (len != render(&found, false, again) || memcmp(text, again, len) != 0))
        return false;
    *data = found;
    return true;
}

/* The one bit that makes sense of it when it is turned. False when none does, or several. */
static bool mend(char *text, size_t len, struct data_folder *data)
{
    struct data_folder found = *data;
    unsigned ways = 0;
    for (size_t bit = 0; bit < 8 * len; bit++) {
        struct data_folder maybe = *data;
        bool checked = false;
        text[bit / 8] = (char)(text[bit / 8] ^ 1 << bit % 8);
        if (parse(text, len, &maybe, &checked)) {
            ways++;
            found = maybe;
        }
        text[bit / 8] = (char)(text[bit / 8] ^ 1 << bit % 8);
    }
    if (ways == 1)
        *data = found;
    return ways == 1;
}

/* What stands in the file, or a new one. */
static enum err load(const char *path, bool repair, struct data_folder *data, char problem[512])
{
    char name[4200], text[TEXT_BYTES + 1] = "";
    snprintf(name, sizeof name, "%s/weir", path);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return create(path, data, problem);
    if (fd < 0)
        return say(problem, "cannot read", name);
    ssize_t n = read(fd, text, TEXT_BYTES);
    close(fd);
    if (n < 0)
        return say(problem, "cannot read", name);
    bool checked = false;
    if (parse(text, (size_t)n, data, &checked))
        return checked ? ERR_NONE : put(path, data, problem);
    data->damaged = true;
    if (repair && mend(text, (size_t)n, data))
        return ERR_NONE;
    snprintf(problem, 512,
             "%.300s is damaged (from byte 0 on), or not one that this version understands; "
             "`weir check` says more",
             name);
    return ERR_CORRUPT;
}

enum err data_folder_open(const char *path, uint32_t cells, bool repair, struct data_folder *out,
                          char problem[512])
{
    struct data_folder data = {.lock = -1, .cells = cells};
    enum err err = make_folders(path, problem);
    if (err == ERR_NONE)
        err = lock(path, &data.lock, problem);
    if (err != ERR_NONE)
        return err;
    err = load(path, repair, &data, problem);
    if (err != ERR_NONE) {
        close(data.lock);
        return err;
    }
    *out = data;
    return ERR_NONE;
}

enum err data_folder_write(const char *path, struct data_folder *data, char problem[512])
{
    enum err err = put(path, data, problem);
    if (err == ERR_NONE)
        data->damaged = false;
    return err;
}

void data_folder_close(struct data_folder *data)
{
    close(data->lock);
}
