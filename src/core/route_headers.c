/* See route_headers.h. */
#include "core/route_headers.h"

static bool begins_x(struct slice name)
{
    return name.len >= 2 && name.data[0] == 'x' && name.data[1] == '-';
}

static bool value_matches(const struct arg *wanted, const struct arg *header)
{
    if (wanted->kind == ARG_VOID)
        return true;
    bool texts = (wanted->kind == ARG_TEXT || wanted->kind == ARG_BYTES) &&
                 (header->kind == ARG_TEXT || header->kind == ARG_BYTES);
    return texts ? slice_equal(wanted->text, header->text) : arg_equal(wanted, header);
}

bool headers_match(struct args binding, struct args headers)
{
    const struct arg *mode = args_find(binding, "x-match");
    struct slice text = mode != NULL && mode->kind == ARG_TEXT ? mode->text : slice_of("all");
    bool any = slice_equal(text, slice_of("any")) || slice_equal(text, slice_of("any-with-x"));
    bool with_x =
        slice_equal(text, slice_of("all-with-x")) || slice_equal(text, slice_of("any-with-x"));
    for (uint32_t i = 0; i < binding.count; i++) {
        const struct arg *wanted = &binding.items[i];
        if (wanted == mode || (!with_x && begins_x(wanted->name)))
            continue;
        const struct arg *header = args_find_slice(headers, wanted->name);
        bool matches = header != NULL && value_matches(wanted, header);
        if (matches == any)
            return any;
    }
    return !any;
}
