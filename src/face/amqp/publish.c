/* basic.publish. A small message whose three frames stand in the input is checked, routed and
 * handed on from where it stands (publish_fast); one that comes in pieces, or is large, is put
 * together in an assembly whose memory grows as its bytes arrive. Either ends in publish_message.
 */
#include "face/amqp/amqp.h"

#include "base/huge.h"
#include "codec/amqp_wire.h"
#include "codec/entry.h"
#include "codec/message.h"
#include "core/args_table.h"
#include "gen/amqp_send.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    FAST_BODY_MAX = 32 << 10,
    ASSEMBLY_FIRST_BYTES = 16 << 10,
    EXPIRATION_DIGITS_MAX = 10,
    MORE_KEYS_MAX = 128,
    HEAD_BYTES_MAX = ENTRY_HEAD_BYTES + 1 + 255 + 1 + 255 + 4,
};

/* What the last publish of the channel led to, good while the catalog stays as it is. */
struct route_cache {
    uint64_t generation;
    const struct exchange *exchange; /* named `name` */
    const struct queue_def *queue;   /* of the default exchange's key `key` */
    uint8_t name_len, key_len;
    bool has_exchange, has_queue;
    uint8_t name[255], key[255];
};

struct assembly {
    bool has_header;
    uint8_t exchange_len, key_len;
    bool mandatory, immediate;
    size_t list_len;
    uint64_t body_size;
    size_t body_len, body_capacity;
    size_t room; /* taken for list and body */
    uint8_t *list, *body;
    uint8_t exchange[255], key[255];
};

/* ---- Routing ---- */

static struct route_cache *route_cache(struct channel *channel)
{
    struct route_cache *cache = channel->route;
    uint64_t generation = catalog_generation(conn_catalog(channel->amqp->conn));
    if (cache && cache->generation == generation)
        return cache;
    if (!cache)
        cache = channel->route = malloc(sizeof *cache);
    if (!cache)
        return NULL;
    cache->generation = generation;
    cache->has_exchange = cache->has_queue = false;
    return cache;
}

void route_cache_free(struct channel *channel)
{
    free(channel->route);
    channel->route = NULL;
}

static bool same(const uint8_t *kept, uint8_t kept_len, struct slice name)
{
    return name.len == kept_len && memcmp(kept, name.data, kept_len) == 0;
}

/* NULL: no such queue. Without memory for the cache it is looked up each time. */
static const struct queue_def *queue_of_key(struct channel *channel, struct slice key)
{
    struct amqp *self = channel->amqp;
    struct route_cache *cache = route_cache(channel);
    if (!cache)
        return catalog_queue(conn_catalog(self->conn), self->namespace_id, key);
    if (!cache->has_queue || !same(cache->key, cache->key_len, key)) {
        cache->has_queue = true;
        cache->key_len = (uint8_t)key.len;
        if (key.len)
            memcpy(cache->key, key.data, key.len);
        cache->queue = catalog_queue(conn_catalog(self->conn), self->namespace_id, key);
    }
    return cache->queue;
}

static const struct exchange *exchange_of_name(struct channel *channel, struct slice name)
{
    struct amqp *self = channel->amqp;
    struct route_cache *cache = route_cache(channel);
    if (!cache)
        return catalog_exchange(conn_catalog(self->conn), self->namespace_id, name);
    if (!cache->has_exchange || !same(cache->name, cache->name_len, name)) {
        cache->has_exchange = true;
        cache->name_len = (uint8_t)name.len;
        if (name.len)
            memcpy(cache->name, name.data, name.len);
        cache->exchange = catalog_exchange(conn_catalog(self->conn), self->namespace_id, name);
    }
    return cache->exchange;
}

/* ---- Checks; each raises its error and gives false ---- */

/* Milliseconds as digits, at most what fits 32 bits. */
static bool expiration_valid(struct channel *channel, struct slice text, int64_t *out)
{
    int64_t value = 0;
    bool valid = text.len > 0 && text.len <= EXPIRATION_DIGITS_MAX;
    for (size_t i = 0; i < text.len && valid; i++) {
        valid = text.data[i] >= '0' && text.data[i] <= '9';
        value = value * 10 + (text.data[i] - '0');
    }
    if (valid && value <= UINT32_MAX) {
        *out = value;
        return true;
    }
    channel_error(channel, 406, AMQP_BASIC_PUBLISH, "invalid expiration '%.*s': %s", (int)text.len,
                  (const char *)text.data, valid ? "value_too_large" : "no_integer");
    return false;
}

static bool user_id_valid(struct channel *channel, struct slice claimed)
{
    struct slice user = conn_user(channel->amqp->conn);
    if (slice_equal(claimed, user))
        return true;
    channel_error(channel, 406, AMQP_BASIC_PUBLISH,
                  "user_id property set to '%.*s' but authenticated user was '%.*s'",
                  (int)claimed.len, (const char *)claimed.data, (int)user.len,
                  (const char *)user.data);
    return false;
}

/* CC and BCC: further keys to route by; BCC is taken out of the message. */
struct more_keys {
    struct slice keys[MORE_KEYS_MAX];
    uint32_t count;
};

static bool mentions(struct slice headers, const char *name)
{
    struct amqp_field field;
    return amqp_table_find(headers, name, &field);
}

static bool sender_selected(struct channel *channel, const struct amqp_properties *properties,
                            struct slice *list, struct more_keys *more)
{
    struct slice headers = properties->headers;
    if (!amqp_table_valid(headers)) {
        connection_error(channel->amqp, 502, AMQP_BASIC_PUBLISH, "malformed headers");
        return false;
    }
    bool bcc = mentions(headers, "BCC");
    if (!bcc && !mentions(headers, "CC"))
        return true;
    static const char *const names[2] = {"CC", "BCC"};
    for (int i = 0; i < 2; i++) {
        if (message_keys(*list, names[i], more->keys, MORE_KEYS_MAX, &more->count))
            continue;
        channel_error(channel, 406, AMQP_BASIC_PUBLISH,
                      "invalid value of header '%s': an array of strings is expected", names[i]);
        return false;
    }
    if (bcc)
        *list = message_list_without(*list, "BCC", &channel->amqp->scratch);
    if (list->data)
        return true;
    connection_error(channel->amqp, 506, AMQP_BASIC_PUBLISH, "out of memory");
    return false;
}

struct checked {
    struct slice list;
    bool persistent;
    int64_t expiry_ms;
    struct slice headers;
    struct more_keys *more;
};

/* The reply-to that stands for the channel's consumer of replies becomes its real name. */
static bool reply_to_replace(struct channel *channel, struct amqp_properties *properties,
                             struct slice *list)
{
    struct slice name = direct_reply_name(channel);
    if (slice_is_null(name)) {
        channel_error(channel, 406, AMQP_BASIC_PUBLISH, "fast reply consumer does not exist");
        return false;
    }
    properties->reply_to = name;
    size_t size = amqp_properties_size(properties);
    uint8_t *out = arena_alloc(&channel->amqp->scratch, size);
    if (!out) {
        connection_error(channel->amqp, 506, AMQP_BASIC_PUBLISH, "out of memory");
        return false;
    }
    amqp_properties_write(out, properties);
    *list = slice_make(out, size);
    return true;
}

static bool properties_check(struct channel *channel, const struct message_in *in, int64_t wall_ms,
                             struct checked *out)
{
    struct amqp_properties properties;
    out->list = in->list;
    out->persistent = false;
    out->expiry_ms = 0;
    out->headers = slice_make("", 0);
    if (!amqp_properties_read(in->list, &properties)) {
        connection_error(channel->amqp, 502, AMQP_BASIC_PUBLISH, "malformed properties");
        return false;
    }
    out->persistent = properties.flags & AMQP_DELIVERY_MODE && properties.delivery_mode == 2;
    if (properties.flags & AMQP_USER_ID && !user_id_valid(channel, properties.user_id))
        return false;
    if (properties.flags & AMQP_EXPIRATION) {
        int64_t ttl_ms;
        if (!expiration_valid(channel, properties.expiration, &ttl_ms))
            return false;
        out->expiry_ms = wall_ms + ttl_ms;
    }
    if (properties.flags & AMQP_REPLY_TO && direct_reply_is_alias(properties.reply_to) &&
        !reply_to_replace(channel, &properties, &out->list))
        return false;
    if (properties.flags & AMQP_HEADERS && properties.headers.len) {
        out->headers = properties.headers;
        return sender_selected(channel, &properties, &out->list, out->more);
    }
    return true;
}

/* ---- Handing on ---- */

struct headers_source {
    struct slice table;
    struct arena *arena;
};

static bool headers_decode(void *context, struct args *out)
{
    struct headers_source *source = context;
    return args_from_table(source->table, source->arena, out);
}

static void return_send(struct channel *channel, const struct message_in *in, struct slice list)
{
    struct amqp_basic_return m = {
        .reply_code = 312,
        .reply_text = slice_of("NO_ROUTE"),
        .exchange = in->exchange,
        .routing_key = in->routing_key,
    };
    amqp_basic_return_send(channel->amqp->conn, channel->number, &m);
    content_send(channel, list, in->body, NULL);
}

static uint8_t *entry_head(uint8_t *head, const struct message_in *in,
                           const struct checked *checked, int64_t wall_ms)
{
    entry_head_put(head, &(struct entry_head){
                             .timestamp_ms = wall_ms,
                             .expiry_ms = checked->expiry_ms,
                             .form = ENTRY_AMQP,
                             .flags = checked->persistent ? ENTRY_PERSISTENT : 0,
                         });
    uint8_t *at = amqp_shortstr_put(head + ENTRY_HEAD_BYTES, in->exchange);
    at = amqp_shortstr_put(at, in->routing_key);
    be32_put(at, (uint32_t)checked->list.len);
    return at + 4;
}

/* Raises 404 or 403 when the exchange cannot be published to. */
static const struct exchange *exchange_for(struct channel *channel, struct slice name)
{
    struct slice vhost = vhost_name(channel->amqp);
    const struct exchange *exchange = exchange_of_name(channel, name);
    if (!exchange)
        channel_error(channel, 404, AMQP_BASIC_PUBLISH, "no exchange '%.*s' in vhost '%.*s'",
                      (int)name.len, (const char *)name.data, (int)vhost.len,
                      (const char *)vhost.data);
    else if (exchange->internal)
        channel_error(channel, 403, AMQP_BASIC_PUBLISH,
                      "cannot publish to internal exchange '%.*s' in vhost '%.*s'", (int)name.len,
                      (const char *)name.data, (int)vhost.len, (const char *)vhost.data);
    else
        return exchange;
    return NULL;
}

bool publish_now(struct channel *channel, const struct message_in *in, uint64_t seq)
{
    struct amqp *self = channel->amqp;
    int64_t wall_ms = conn_wall_ms(self->conn);
    struct more_keys more;
    struct checked checked = {.more = &more};
    uint8_t head[HEAD_BYTES_MAX];
    more.count = 0;

    if (!self->published) {
        self->published = true;
        connection_timer_set(self);
    }
    bool by_default = in->exchange.len == 0;
    const struct exchange *exchange = by_default ? NULL : exchange_for(channel, in->exchange);
    if ((!by_default && !exchange) || !properties_check(channel, in, wall_ms, &checked))
        return false;

    struct headers_source source = {checked.headers, &self->scratch};
    struct route_message message = {
        .key = in->routing_key,
        .more_keys = more.keys,
        .more_count = more.count,
        .headers = headers_decode,
        .ctx = &source,
    };
    uint8_t *end = entry_head(head, in, &checked, wall_ms);
    struct publish publish = {
        .channel = channel->number,
        .seq = seq,
        .persistent = checked.persistent,
        .expiry_ms = checked.expiry_ms,
        .pieces = {slice_make(head, (size_t)(end - head)), checked.list, in->body},
        .body = in->memory,
        .exchange = exchange,
        .message = &message,
        .mandatory = in->mandatory,
    };
    /* Acks gathered so far go first: a confirm then says that they are on the disk, too. */
    if (checked.persistent && channel->confirm)
        settle_flush(self);
    const struct queue_def *queue = NULL;
    if (by_default && more.count == 0)
        queue = queue_of_key(channel, in->routing_key);
    uint32_t cells;
    if (queue) {
        cells = conn_publish_queue(self->conn, &publish, queue);
    } else {
        if (by_default)
            publish.exchange = exchange_of_name(channel, in->exchange);
        cells = publish.exchange ? conn_publish(self->conn, &publish) : 0;
    }
    conn_count(self->conn, METRIC_MESSAGES_RECEIVED_AMQP, 1);
    if (cells == 0)
        conn_count(self->conn,
                   in->mandatory ? METRIC_MESSAGES_UNROUTABLE_RETURNED
                                 : METRIC_MESSAGES_UNROUTABLE_DROPPED,
                   1);
    if (cells == 0 && in->mandatory)
        return_send(channel, in, checked.list);
    if (seq)
        confirm_sent(channel, seq, cells);
    return true;
}

void publish_message(struct channel *channel, const struct message_in *in)
{
    if (in->immediate) {
        channel_error(channel, 540, AMQP_BASIC_PUBLISH, "immediate=true");
        return;
    }
    if (channel->tx) {
        tx_publish(channel, in);
        return;
    }
    uint64_t seq = 0;
    if (channel->confirm) {
        seq = confirm_begin(channel);
        if (seq == 0) {
            connection_error(channel->amqp, 506, AMQP_BASIC_PUBLISH, "out of memory");
            return;
        }
    }
    (void)publish_now(channel, in, seq);
}

/* ---- A whole message in the input ---- */

/* Offset of the first byte behind the frame at `at`, 0 when it is not all there (then *want says
 * how much is, counted from data) or not of that type and channel. */
static size_t frame_end(const uint8_t *data, size_t len, size_t at, uint8_t type, uint16_t number,
                        size_t *want)
{
    if (len - at < AMQP_FRAME_HEAD_BYTES) {
        *want = at + AMQP_FRAME_OVERHEAD_BYTES;
        return 0;
    }
    if (data[at] != type || be16_get(data + at + 1) != number)
        return 0;
    uint32_t size = be32_get(data + at + 3);
    if (size > FAST_BODY_MAX)
        return 0;
    size_t end = at + size + AMQP_FRAME_OVERHEAD_BYTES;
    if (end > len) {
        *want = end;
        return 0;
    }
    return data[end - 1] == AMQP_FRAME_END ? end : 0;
}

size_t publish_fast(struct amqp *self, const uint8_t *data, size_t len, size_t *want)
{
    enum { METHOD_AT = AMQP_FRAME_HEAD_BYTES, SEEN = METHOD_AT + 4 };
    if (len < SEEN || data[0] != AMQP_FRAME_METHOD ||
        be32_get(data + METHOD_AT) != AMQP_BASIC_PUBLISH)
        return 0;
    uint16_t number = be16_get(data + 1);
    struct channel *channel = channel_get(self, number);
    if (!channel || channel->state != CHANNEL_OPEN || channel->assembly)
        return 0;
    size_t method_end = frame_end(data, len, 0, AMQP_FRAME_METHOD, number, want);
    if (!method_end)
        return 0;
    size_t header_end = frame_end(data, len, method_end, AMQP_FRAME_HEADER, number, want);
    if (!header_end)
        return 0;
    const uint8_t *header = data + method_end + AMQP_FRAME_HEAD_BYTES;
    size_t header_len = header_end - 1 - (method_end + AMQP_FRAME_HEAD_BYTES);
    if (header_len < AMQP_CONTENT_HEAD_BYTES + 2 || be16_get(header) != AMQP_BASIC_PUBLISH >> 16)
        return 0;
    uint64_t body_size = be64_get(header + 4);
    uint32_t frame_max = self->frame_max;
    if (body_size > FAST_BODY_MAX || body_size > conn_config(self->conn)->max_message_bytes)
        return 0;
    size_t end = header_end;
    if (body_size > 0) {
        end = frame_end(data, len, header_end, AMQP_FRAME_BODY, number, want);
        if (!end || end - header_end - AMQP_FRAME_OVERHEAD_BYTES != body_size ||
            body_size > frame_max)
            return 0;
    }
    struct amqp_basic_publish m;
    if (!amqp_basic_publish_read(slice_make(data + SEEN, method_end - 1 - SEEN), &m))
        return 0;
    struct message_in in = {
        .exchange = m.exchange,
        .routing_key = m.routing_key,
        .mandatory = m.mandatory,
        .immediate = m.immediate,
        .list = slice_make(header + AMQP_CONTENT_HEAD_BYTES, header_len - AMQP_CONTENT_HEAD_BYTES),
        .body = slice_make(data + header_end + (body_size ? AMQP_FRAME_HEAD_BYTES : 0),
                           (size_t)body_size),
    };
    publish_message(channel, &in);
    if (self->scratch.last)
        arena_reset(&self->scratch);
    return end;
}

/* ---- A message in pieces ---- */

bool publish_awaits_header(const struct channel *channel)
{
    return channel->assembly && !channel->assembly->has_header;
}

bool publish_awaits_body(const struct channel *channel)
{
    return channel->assembly && channel->assembly->has_header;
}

void publish_forget(struct channel *channel)
{
    struct assembly *assembly = channel->assembly;
    if (!assembly)
        return;
    room_give(channel->amqp, assembly->room);
    free(assembly->list);
    free(assembly->body);
    free(assembly);
    channel->assembly = NULL;
}

void publish_abandon(struct channel *channel)
{
    publish_forget(channel);
    tx_empty(channel);
}

void publish_room_set(struct channel *channel, size_t bytes)
{
    channel->assembly->room = bytes;
}

void publish_begin(struct channel *channel, struct slice arguments)
{
    struct amqp_basic_publish m;
    if (!amqp_basic_publish_read(arguments, &m)) {
        arguments_error(channel->amqp, AMQP_BASIC_PUBLISH);
        return;
    }
    struct assembly *assembly = malloc(sizeof *assembly);
    if (!assembly) {
        connection_error(channel->amqp, 506, AMQP_BASIC_PUBLISH, "out of memory");
        return;
    }
    assembly->has_header = false;
    assembly->mandatory = m.mandatory;
    assembly->immediate = m.immediate;
    assembly->list = assembly->body = NULL;
    assembly->body_len = assembly->body_capacity = assembly->room = 0;
    assembly->exchange_len = (uint8_t)m.exchange.len;
    assembly->key_len = (uint8_t)m.routing_key.len;
    if (m.exchange.len)
        memcpy(assembly->exchange, m.exchange.data, m.exchange.len);
    if (m.routing_key.len)
        memcpy(assembly->key, m.routing_key.data, m.routing_key.len);
    channel->assembly = assembly;
}

static void assembly_end(struct channel *channel)
{
    struct assembly *assembly = channel->assembly;
    struct message_in in = {
        .exchange = slice_make(assembly->exchange, assembly->exchange_len),
        .routing_key = slice_make(assembly->key, assembly->key_len),
        .mandatory = assembly->mandatory,
        .immediate = assembly->immediate,
        .list = slice_make(assembly->list, assembly->list_len),
        .body =
            slice_make(assembly->body ? assembly->body : (const uint8_t *)"", assembly->body_len),
        .memory = &assembly->body,
    };
    /* Detached first: an error may close the channel, which forgets its assembly. */
    channel->assembly = NULL;
    room_give(channel->amqp, assembly->room);
    publish_message(channel, &in);
    free(assembly->list);
    free(assembly->body);
    free(assembly);
}

void publish_header(struct channel *channel, struct slice payload)
{
    struct amqp *self = channel->amqp;
    struct assembly *assembly = channel->assembly;
    if (payload.len < AMQP_CONTENT_HEAD_BYTES + 2) {
        connection_error(self, 501, AMQP_BASIC_PUBLISH, "content header of %zu bytes", payload.len);
        return;
    }
    uint16_t class = be16_get(payload.data);
    if (class != AMQP_BASIC_PUBLISH >> 16) {
        connection_error(self, 505, AMQP_BASIC_PUBLISH,
                         "expected content header for class 60, got one for class %u instead",
                         class);
        return;
    }
    assembly->body_size = be64_get(payload.data + 4);
    uint32_t max = conn_config(self->conn)->max_message_bytes;
    if (assembly->body_size > max) {
        channel_error(channel, 406, AMQP_BASIC_PUBLISH,
                      "message size %llu is larger than configured max size %u",
                      (unsigned long long)assembly->body_size, max);
        return;
    }
    assembly->list_len = payload.len - AMQP_CONTENT_HEAD_BYTES;
    assembly->list = malloc(assembly->list_len);
    if (!assembly->list) {
        connection_error(self, 506, AMQP_BASIC_PUBLISH, "out of memory");
        return;
    }
    memcpy(assembly->list, payload.data + AMQP_CONTENT_HEAD_BYTES, assembly->list_len);
    assembly->has_header = true;
    if (assembly->body_size == 0)
        assembly_end(channel);
}

/* Doubles, but never beyond what was announced; so it follows what really arrives. */
static bool body_grow(struct channel *channel, size_t needed)
{
    struct assembly *assembly = channel->assembly;
    if (needed <= assembly->body_capacity)
        return true;
    size_t capacity = assembly->body_capacity ? assembly->body_capacity * 2 : ASSEMBLY_FIRST_BYTES;
    if (capacity < needed)
        capacity = needed;
    if (capacity > assembly->body_size)
        capacity = (size_t)assembly->body_size;
    uint8_t *body = realloc(assembly->body, capacity);
    if (!body)
        return false;
    huge_wish(body, capacity);
    assembly->body = body;
    assembly->body_capacity = capacity;
    return true;
}

void publish_body(struct channel *channel, struct slice bytes)
{
    struct assembly *assembly = channel->assembly;
    if (!assembly || bytes.len > assembly->body_size - assembly->body_len) {
        connection_error(channel->amqp, 501, AMQP_BASIC_PUBLISH,
                         "the body is longer than its header said");
        return;
    }
    if (bytes.len == 0)
        return;
    if (!body_grow(channel, assembly->body_len + bytes.len)) {
        connection_error(channel->amqp, 506, AMQP_BASIC_PUBLISH, "out of memory");
        return;
    }
    room_arrived(channel->amqp, bytes.len);
    memcpy(assembly->body + assembly->body_len, bytes.data, bytes.len);
    assembly->body_len += bytes.len;
    if (assembly->body_len == assembly->body_size)
        assembly_end(channel);
}
