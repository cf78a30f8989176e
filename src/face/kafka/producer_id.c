/* InitProducerId: a number that no other producer has, with which batches are known again when they
 * are sent twice. Transactions are not served; the refusal is one that every client takes as final.
 */
#include "face/kafka/kafka.h"

static void start(struct request *request, const void *message)
{
    const struct kafka_init_producer_id_request *in = message;
    struct kafka_init_producer_id_response *out = request_alloc(request, 1, sizeof *out);
    request->state = out;
    if (out == NULL) {
        request_fail(request, "no memory");
        return;
    }
    *out = kafka_init_producer_id_response_default;
    out->producer_id = -1;
    out->producer_epoch = -1;
    if (in->transactional_id.data != NULL) {
        out->error_code = KAFKA_ERROR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
        return;
    }
    struct command command = {.type = COMMAND_PRODUCER_ID};
    request_limit(request, TIMEOUT_MS_DEFAULT);
    out->error_code = KAFKA_ERROR_COORDINATOR_LOAD_IN_PROGRESS; /* if time is over: "try again" */
    request_command(request, 0, &command);
}

static void answer(struct request *request, uint32_t index, const struct event *event)
{
    (void)index;
    struct kafka_init_producer_id_response *out = request->state;
    if (event->err == ERR_DISK_FULL || event->err == ERR_IO)
        return; /* this one is retried too, which not every client does with others */
    out->error_code = err_kafka(event->err);
    if (event->err != ERR_NONE)
        return;
    out->producer_id = (int64_t)event->value;
    out->producer_epoch = 0;
}

static void finish(struct request *request)
{
    request_respond(request, request->state);
}

const struct handler init_producer_id_handler = {
    .key = KAFKA_INIT_PRODUCER_ID, .start = start, .answer = answer, .finish = finish};
