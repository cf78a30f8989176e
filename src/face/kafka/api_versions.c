/* ApiVersions: the table of what is served. Asked in a version that is not known here it is
 * answered in the oldest one (request.c), so that any client can find a common language. */
#include "face/kafka/kafka.h"

static bool is_alphanumeric(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* Letters and digits; in between also dots and dashes (KIP-511). */
static bool software_name_valid(struct slice name)
{
    if (name.len == 0 || !is_alphanumeric(name.data[0]) ||
        !is_alphanumeric(name.data[name.len - 1]))
        return false;
    for (size_t i = 0; i < name.len; i++)
        if (!is_alphanumeric(name.data[i]) && name.data[i] != '.' && name.data[i] != '-')
            return false;
    return true;
}

static void start(struct request *request, const void *message)
{
    const struct kafka_api_versions_request *in = message;
    struct kafka_api_versions_response *out = request_alloc(request, 1, sizeof *out);
    struct kafka_api_versions_response_api_version *rows =
        request_alloc(request, KAFKA_APIS_COUNT, sizeof *rows);
    if (out == NULL || rows == NULL) {
        request_fail(request, "no memory");
        return;
    }
    *out = kafka_api_versions_response_default;
    if (request->version >= 3 && (!software_name_valid(in->client_software_name) ||
                                  !software_name_valid(in->client_software_version))) {
        out->error_code = KAFKA_ERROR_INVALID_REQUEST;
        request_respond(request, out);
        return;
    }
    out->api_versions = rows;
    for (int i = 0; i < KAFKA_APIS_COUNT; i++) {
        if (kafka_handlers[i] == NULL)
            continue;
        rows[out->api_versions_count++] = (struct kafka_api_versions_response_api_version){
            .api_key = kafka_apis[i].key,
            .min_version = kafka_apis[i].offered_min,
            .max_version = kafka_apis[i].version_max,
        };
    }
    request_respond(request, out);
}

const struct handler api_versions_handler = {.key = KAFKA_API_VERSIONS, .start = start};
