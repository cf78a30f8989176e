/*
 * Configuration files: whatever stands in one, it is read or refused with a problem that names the
 * line, and a struct that was read holds only ended texts.
 */
#include "server/config.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config *config = malloc(sizeof(*config));
    struct config_problem problem = {.text = ""};

    if (config == NULL)
        return 0;
    config_init(config);
    if (config_read(config, "file", slice_make(data, size), &problem)) {
        if (strncmp(problem.text, "file:", 5) != 0)
            abort();
    } else if (memchr(config->data, '\0', sizeof(config->data)) == NULL ||
               config->listen_count > CONFIG_LISTEN_MAX) {
        abort();
    }
    free(config);
    return 0;
}
