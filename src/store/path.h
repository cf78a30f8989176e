/* Names of a cell's files: KIND-NUMBER with sixteen hexadecimal digits, so that names sort as
 * numbers. */
#ifndef WEIR_STORE_PATH_H
#define WEIR_STORE_PATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void path_numbered(char *out, size_t room, const char *folder, const char *kind, uint64_t number);
/* The number of a file's name of that kind; false for any other name. */
bool path_number(const char *name, const char *kind, uint64_t *out);

#endif
