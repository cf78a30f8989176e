/* `weir check --data DIR [--repair]`: verifies a data folder offline and prints what is in it and
 * what is lost; repairs it. */
#ifndef WEIR_CLI_CHECK_H
#define WEIR_CLI_CHECK_H

/* argv[0] is the word `check`. Returns the exit status: 0 sound (now), 1 damaged or not readable, 2
 * wrong usage. */
int cli_check(int argc, char **argv);

#endif
