/* Names of a cell's files. */
#include "store/path.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void path_numbered(char *out, size_t room, const char *folder, const char *kind, uint64_t number)
{
    snprintf(out, room, "%s/%s-%016" PRIx64, folder, kind, number);
}

bool path_number(const char *name, const char *kind, uint64_t *out)
{
    size_t len = strlen(kind);
    if (strncmp(name, kind, len) != 0 || name[len] != '-' || strlen(name) != len + 17)
        return false;
    uint64_t number = 0;
    for (const char *at = name + len + 1; *at != '\0'; at++) {
        if (*at >= '0' && *at <= '9')
            number = number << 4 | (uint64_t)(*at - '0');
        else if (*at >= 'a' && *at <= 'f')
            number = number << 4 | (uint64_t)(*at - 'a' + 10);
        else
            return false;
    }
    *out = number;
    return true;
}
