/* SASL PLAIN: offered, not asked for. After SaslHandshake v1 the token comes in SaslAuthenticate;
 * after v0 it comes bare, as a frame of its own, and an empty frame says that it was right. */
#include "face/kafka/kafka.h"

/* authorization id, NUL, name, NUL, password (RFC 4616). */
static bool plain_login(struct conn *conn, struct slice token)
{
    const uint8_t *end = token.data + token.len;
    const uint8_t *first = token.len ? memchr(token.data, 0, token.len) : NULL;
    if (first == NULL)
        return false;
    const uint8_t *name = first + 1;
    const uint8_t *second = memchr(name, 0, (size_t)(end - name));
    if (second == NULL)
        return false;
    const uint8_t *password = second + 1;
    return conn_login(conn, slice_make(name, (size_t)(second - name)),
                      slice_make(password, (size_t)(end - password))) == ERR_NONE;
}

static void handshake_start(struct request *request, const void *message)
{
    const struct kafka_sasl_handshake_request *in = message;
    struct kafka_sasl_handshake_response *out = request_alloc(request, 1, sizeof *out);
    struct slice *mechanism = request_alloc(request, 1, sizeof *mechanism);
    if (out == NULL || mechanism == NULL) {
        request_fail(request, "no memory");
        return;
    }
    *mechanism = slice_of("PLAIN");
    *out = kafka_sasl_handshake_response_default;
    out->mechanisms = mechanism;
    out->mechanisms_count = 1;
    if (slice_equal(in->mechanism, *mechanism))
        request->kafka->sasl = request->version == 0 ? SASL_RAW : SASL_PLAIN;
    else
        out->error_code = KAFKA_ERROR_UNSUPPORTED_SASL_MECHANISM;
    request_respond(request, out);
}

const struct handler sasl_handshake_handler = {.key = KAFKA_SASL_HANDSHAKE,
                                               .start = handshake_start};

static void authenticate_start(struct request *request, const void *message)
{
    const struct kafka_sasl_authenticate_request *in = message;
    struct kafka_sasl_authenticate_response *out = request_alloc(request, 1, sizeof *out);
    if (out == NULL) {
        request_fail(request, "no memory");
        return;
    }
    *out = kafka_sasl_authenticate_response_default;
    out->auth_bytes = slice_of("");
    if (request->kafka->sasl != SASL_PLAIN) {
        out->error_code = KAFKA_ERROR_ILLEGAL_SASL_STATE;
        out->error_message = slice_of("SaslAuthenticate request received without SaslHandshake");
    } else if (!plain_login(request->kafka->conn, in->auth_bytes)) {
        out->error_code = KAFKA_ERROR_SASL_AUTHENTICATION_FAILED;
        out->error_message = slice_of("Authentication failed: Invalid username or password");
        request->closes = true;
    }
    request->kafka->sasl = SASL_NONE;
    request_respond(request, out);
}

const struct handler sasl_authenticate_handler = {.key = KAFKA_SASL_AUTHENTICATE,
                                                  .start = authenticate_start};

void sasl_token(struct request *request, struct slice token)
{
    request->kafka->sasl = SASL_NONE;
    if (plain_login(request->kafka->conn, token))
        request_respond(request, NULL);
    else
        request_fail(request, "invalid user name or password");
}
