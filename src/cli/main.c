/* The command line: one binary, a few words. */
#include "cli/check.h"
#include "server/server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern char **environ;

static const char usage[] =
    "usage: weir serve [OPTION...]   run the broker (weir serve --help)\n"
    "       weir check --data DIR    verify a data folder that no broker uses (--repair: put it\n"
    "                                right, and say what is lost)\n"
    "       weir --version\n";

static int serve(char **flags)
{
    if (flags[0] != NULL && strcmp(flags[0], "--help") == 0) {
        fputs(OPTIONS_HELP, stdout);
        return 0;
    }
    struct config *config = malloc(sizeof *config);
    if (config == NULL) {
        fputs("weir: out of memory\n", stderr);
        return 1;
    }
    struct config_problem problem;
    int status = 2;
    if (config_load(config, (const char *const *)flags, (const char *const *)environ, &problem) ==
        ERR_NONE)
        status = server_run(config);
    else
        fprintf(stderr, "weir: %s\n", problem.text);
    free(config);
    return status;
}

int main(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "";
    if (strcmp(word, "serve") == 0)
        return serve(argv + 2);
    if (strcmp(word, "check") == 0)
        return cli_check(argc - 1, argv + 1);
    if (strcmp(word, "--version") == 0 || strcmp(word, "version") == 0) {
        puts("weir " WEIR_VERSION);
        return 0;
    }
    bool asked = strcmp(word, "--help") == 0 || strcmp(word, "help") == 0;
    fputs(usage, asked ? stdout : stderr);
    return asked ? 0 : 2;
}
