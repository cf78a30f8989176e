/*
 * What an operator decided: the options of `weir serve`, read from flags, the environment and a
 * file. spec/options.toml describes every option once; struct config, the table of options and the
 * help text (OPTIONS_HELP) are generated from it into gen/options.h.
 *
 * A flag goes before the environment (WEIR_NAME), the environment before the file, the file before
 * the default; a list (listen) given by one of them replaces, never joins, that of a lesser one. A
 * flag or a file key that does not exist is an error, which suggests the nearest that does. A
 * WEIR_ variable that does not exist is one only when it is close to one that does: others belong
 * to whoever set them (container platforms make up WEIR_PORT and its like).
 */
#ifndef WEIR_SERVER_CONFIG_H
#define WEIR_SERVER_CONFIG_H

#include "base/slice.h"
#include "gen/err.h"
#include "gen/options.h"

/* What is wrong, in words for the operator, without a newline: where it stands, then why. */
struct config_problem {
    char text[512];
};

/*
 * Fills config from everything: `flags` are the words after `weir serve`, `environment` is as
 * environ, both end with NULL. Afterwards listen holds at least one address: every face's own when
 * none was given. ERR_INVALID, ERR_NOT_FOUND or ERR_IO (the file) with `problem` filled; config is
 * then of no use.
 */
__attribute__((warn_unused_result)) enum err config_load(struct config *config,
                                                         const char *const *flags,
                                                         const char *const *environment,
                                                         struct config_problem *problem);

/* Every option as it is when nobody says anything; listen is empty. The first step of config_load.
 */
void config_init(struct config *config);

/*
 * Sets the options that a file's text names. `path` is for the problem. The text is borrowed.
 * Options already set from a stronger source are checked, but keep their value.
 */
__attribute__((warn_unused_result)) enum err config_read(struct config *config, const char *path,
                                                         struct slice text,
                                                         struct config_problem *problem);

/* "default", "file", "environment" or "flag". */
const char *config_source_name(enum config_source source);

#endif
