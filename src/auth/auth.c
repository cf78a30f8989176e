/* The comparison looks at every byte, so that time tells nothing about a password. */
#include "auth/auth.h"

static bool equal_in_constant_time(struct slice a, struct slice b)
{
    if (a.len != b.len)
        return false;
    unsigned char difference = 0;
    for (size_t i = 0; i < a.len; i++)
        difference |= a.data[i] ^ b.data[i];
    return difference == 0;
}

enum err auth_check_password(struct slice user, struct slice password, bool from_loopback)
{
    bool user_right = equal_in_constant_time(user, slice_of("guest"));
    bool password_right = equal_in_constant_time(password, slice_of("guest"));
    return user_right && password_right && from_loopback ? ERR_NONE : ERR_REFUSED;
}
