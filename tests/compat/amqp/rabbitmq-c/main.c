/* rabbitmq-c (Debian's librabbitmq) against the broker: a sample of what the pika suite asks in
 * full. */
#include "tests.h"

#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    int (*const groups[])(int *count) = {opening_tests,   messages_tests, routing_tests,
                                         consuming_tests, confirms_tests, errors_tests,
                                         restart_tests};
    const int skipped = getenv("WEIR_COMPAT_RESTART") == NULL ? 2 : 0;
    int count = 0, failed = 0;

    for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
        failed += groups[i](&count);
    }
    printf("%d passed, %d failed, %d skipped\n", count - failed - skipped, failed, skipped);
    return failed != 0;
}
