/*
 * The Kafka face under arbitrary input. The first byte chooses: bit 0, answers come from inside of
 * the commands; bit 1, the rest is cut into requests with a right header, so that fuzzing gets
 * behind the framing; bits 2 to 4, in how small pieces it arrives; bit 5, appends are refused; bit
 * 6, groups answer with errors; bit 7, answers come after all time limits. The fake broker asserts
 * that reads and stops name partitions that are there.
 */

#include "face/kafka/fake_conn.h"

#include "codec/kafka_header.h"

#include "pieces.h"

enum { INPUT_BYTES_MAX = 1 << 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void group_answers(struct conn *conn, const struct group_request *request,
                          struct event *event)
{
    static const struct group_member member = {.id = {(const uint8_t *)"m", 1},
                                               .metadata = {(const uint8_t *)"x", 1}};
    static const struct group_description description = {.name = {(const uint8_t *)"g", 1},
                                                         .state = {(const uint8_t *)"Stable", 6},
                                                         .members = &member,
                                                         .member_count = 1};
    struct group_answer *answer = event->parts->root;
    (void)conn;
    answer->generation = 1;
    answer->member = answer->leader = request->member.len ? request->member : slice_of("m");
    answer->members = &member;
    answer->member_count = 1;
    answer->offsets = request->offsets;
    answer->offset_count = request->offset_count;
    answer->leavers = request->leavers;
    answer->leaver_count = request->leaver_count;
    answer->groups = &description;
    answer->group_count = 1;
    answer->assignment = slice_of("a");
    /* The request goes before the answer does. */
    struct group_offset *offsets =
        arena_array(&event->parts->arena, answer->offset_count, sizeof *offsets);
    struct group_leaver *leavers =
        arena_array(&event->parts->arena, answer->leaver_count, sizeof *leavers);
    if (offsets == NULL || leavers == NULL)
        abort();
    for (uint32_t i = 0; i < answer->offset_count; i++)
        offsets[i] = (struct group_offset){.topic = slice_of("t"), .partition = i, .offset = i};
    for (uint32_t i = 0; i < answer->leaver_count; i++)
        leavers[i] = (struct group_leaver){.err = i & 1 ? ERR_UNKNOWN_MEMBER : ERR_NONE};
    answer->offsets = offsets;
    answer->leavers = leavers;
    answer->member = answer->leader = slice_of("m");
}

static void group_refuses(struct conn *conn, const struct group_request *request,
                          struct event *event)
{
    (void)conn;
    (void)request;
    event->err = ERR_REBALANCING;
}

/* Topic "t" with two partitions: Kafka batches in one, also messages that came by AMQP in the
 * other. */
static void topic_make(struct conn *conn)
{
    static const struct catalog_listener nobody = {0};
    struct catalog_request request = {.op = CATALOG_CREATE_TOPIC,
                                      .name = slice_of("t"),
                                      .durable = true,
                                      .partitions = 2,
                                      .uuid = {1}};
    struct catalog_changes changes = {0};
    struct catalog_problem problem;
    size_t used;
    if (catalog_decide(conn->catalog, &request, &changes, &problem) ||
        catalog_apply(conn->catalog, slice_make(changes.data, changes.len), &used, &nobody, NULL))
        abort();
    free(changes.data);
    const struct topic *topic = catalog_topic(conn->catalog, 0, slice_of("t"));
    for (uint32_t i = 0; i < topic->partition_count; i++) {
        struct fake_partition *partition = fake_partition(conn, topic->partitions[i]);
        uint8_t entry[256] = {0};
        struct kafka_batch_builder builder;
        entry_head_put(entry, &(struct entry_head){.timestamp_ms = 1000, .form = ENTRY_KAFKA});
        kafka_batch_begin(&builder, entry + ENTRY_HEAD_BYTES, sizeof entry - ENTRY_HEAD_BYTES);
        if (!kafka_batch_add(&builder, 1000, slice_of("key"), slice_of("value"), NULL, 0))
            abort();
        fake_append(partition, slice_make(entry, ENTRY_HEAD_BYTES + kafka_batch_end(&builder).len),
                    1);
        static const uint8_t rest[] = {0, 1, 't', 0, 0, 0, 2, 0, 0, 'h', 'i'};
        entry_head_put(entry, &(struct entry_head){.timestamp_ms = 2000, .form = ENTRY_AMQP});
        memcpy(entry + ENTRY_HEAD_BYTES, rest, sizeof rest);
        for (uint32_t k = 0; k < i * 3; k++)
            fake_append(partition, slice_make(entry, ENTRY_HEAD_BYTES + sizeof rest), 1);
    }
}

static void feed(struct conn *conn, const uint8_t *data, size_t size, size_t piece)
{
    for (size_t at = 0; at < size && !conn->closed; at += piece)
        fake_input(conn, data + at, size - at < piece ? size - at : piece);
}

/* {API, version, length (two bytes), body}... as requests. */
static void feed_requests(struct conn *conn, const uint8_t *data, size_t size, size_t piece)
{
    uint8_t frame[512];
    for (size_t at = 0; at + 4 <= size && !conn->closed;) {
        const struct kafka_api *api = &kafka_apis[data[at] % KAFKA_APIS_COUNT];
        int versions = api->version_max - api->version_min + 1;
        struct kafka_request_header header = {
            .api_key = api->key,
            .api_version = (int16_t)(api->version_min + data[at + 1] % versions),
            .correlation_id = data[at],
        };
        size_t len = be16_get(data + at + 2);
        at += 4;
        if (len > size - at)
            len = size - at;
        struct writer writer = writer_over(frame, sizeof frame);
        writer_u32(&writer, 0);
        kafka_request_header_encode(&writer, &header);
        size_t head = (size_t)(writer.at - frame);
        be32_put(frame, (uint32_t)(head - 4 + len));
        feed(conn, frame, head, piece);
        feed(conn, data + at, len, piece);
        at += len;
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t size_max, unsigned seed)
{
    return pieces_mutate(data, size, size_max, seed, 4, 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > INPUT_BYTES_MAX)
        return 0;
    uint8_t choice = data[0];
    size_t piece = choice >> 2 & 7 ? (size_t)1 << ((choice >> 2 & 7) + 2) : size;
    struct conn *conn = fake_open(&face_kafka);
    topic_make(conn);
    conn->at_once = choice & 1;
    conn->append_err = choice & 32 ? ERR_OUT_OF_ORDER : ERR_NONE;
    conn->group = choice & 64 ? group_refuses : group_answers;
    conn->stuck = choice & 128 ? FAKE_ALL : 0;
    if (choice & 2)
        feed_requests(conn, data + 1, size - 1, piece);
    else
        feed(conn, data + 1, size - 1, piece);
    for (int i = 0; i < 8 && !conn->closed; i++)
        fake_time(conn, 300 * 1000);
    fake_unstick(conn);
    fake_close(conn);
    return 0;
}
