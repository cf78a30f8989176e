/* The tests, in groups of a file each. Every function runs its group, adds how many tests it has to
 * *count, and returns how many failed. */
#ifndef WEIR_COMPAT_TESTS_H
#define WEIR_COMPAT_TESTS_H

int opening_tests(int *count);
int messages_tests(int *count);
int routing_tests(int *count);
int consuming_tests(int *count);
int confirms_tests(int *count);
int errors_tests(int *count);
int restart_tests(int *count);

#endif
