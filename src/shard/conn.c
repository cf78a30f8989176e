/* Connections: what face.h promises to faces, on top of io/net.h. A connection that publishes is
 * not read while the broker is under pressure. */
#include "auth/auth.h"
#include "base/buf.h"
#include "shard/state.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Output that falls below it wakes the face: drained(). */
enum { OUTPUT_LOW_BYTES = 256 << 10 };

/* Whoever waits for memory asks again long before that. */
enum { GATHER_WANTED_MS = 200 };

/* ---- Life ---- */

struct conn *conn_find(struct shard *shard, uint64_t id)
{
    uint32_t slot = (uint32_t)(id & ((1u << CONN_SLOT_BITS) - 1));
    if (slot >= shard->conn_slots || shard->conns[slot] == NULL || shard->conns[slot]->id != id)
        return NULL;
    return shard->conns[slot];
}

static bool grow_slots(struct shard *shard)
{
    uint32_t slots = shard->conn_slots == 0 ? 64 : shard->conn_slots * 2;
    if (slots > 1u << CONN_SLOT_BITS)
        return false;
    struct conn **conns = realloc(shard->conns, slots * sizeof(*conns));
    if (conns == NULL)
        return false;
    shard->conns = conns;
    uint32_t *free_slots = realloc(shard->free_slots, slots * sizeof *free_slots);
    if (free_slots == NULL)
        return false;
    shard->free_slots = free_slots;
    for (uint32_t i = slots; i-- > shard->conn_slots;) {
        shard->conns[i] = NULL;
        shard->free_slots[shard->free_count++] = i;
    }
    shard->conn_slots = slots;
    return true;
}

static void *accepted(void *user, struct net_conn *net)
{
    struct shard_listener *listener = user;
    struct shard *shard = listener->shard;
    const struct face *face = listener->face;
    if (shard->stopping)
        return NULL;
    struct conn *conn = NULL;
    if (atomic_load(&shard->broker->connections) < shard->broker->connections_max &&
        (shard->free_count > 0 || grow_slots(shard)))
        conn = calloc(1, sizeof *conn);
    if (conn == NULL) {
        metrics_add(shard, METRIC_CONNECTIONS_REFUSED, 1);
        return NULL;
    }
    uint32_t slot = shard->free_slots[shard->free_count - 1];
    conn->shard = shard;
    conn->face = face;
    conn->net = net;
    net->low_mark = OUTPUT_LOW_BYTES;
    conn->id = ((uint64_t)shard->number << CONN_SHARD_SHIFT) |
               ((++shard->conn_generation & 0xffffffff) << CONN_SLOT_BITS) | slot;
    list_init(&conn->link);
    conn->received_bytes = &shard->metrics[METRIC_RECEIVED_BYTES_AMQP + face->protocol];
    conn->sent_bytes = &shard->metrics[METRIC_SENT_BYTES_AMQP + face->protocol];
    conn->self = face->open(conn);
    if (conn->self == NULL) {
        heap_remove(&shard->timers, &conn->timer);
        free(conn);
        metrics_add(shard, METRIC_CONNECTIONS_REFUSED, 1);
        return NULL;
    }
    metrics_add(shard, METRIC_CONNECTIONS_AMQP + face->protocol, 1);
    metrics_add(shard, METRIC_CONNECTIONS_OPENED_AMQP + face->protocol, 1);
    shard->free_count--;
    shard->conns[slot] = conn;
    shard->conn_count++;
    atomic_fetch_add(&shard->broker->connections, 1);
    return conn;
}

static bool under_pressure(const struct conn *conn)
{
    const struct broker *broker = conn->shard->broker;
    return atomic_load_explicit(&broker->pressed, memory_order_relaxed) != 0 ||
           (conn->face->waits_when_full &&
            atomic_load_explicit(&broker->blocked, memory_order_relaxed) != 0);
}

static void update_pause(struct conn *conn)
{
    if (!conn->closing)
        net_conn_pause(conn->net, conn->held || conn->stalled);
}

static size_t received(void *user, const uint8_t *data, size_t len)
{
    struct conn *conn = user;
    if (conn->closing || conn->held)
        return 0;
    if (conn->publishes && under_pressure(conn)) {
        conn->stalled = true;
        list_insert(&conn->shard->stalled, &conn->link);
        update_pause(conn);
        return 0;
    }
    size_t used = conn->face->input(conn->self, data, len);
    *conn->received_bytes += used;
    return used;
}

void conn_resume_stalled(struct shard *shard)
{
    list_each(node, &shard->stalled)
    {
        struct conn *conn = list_entry(node, struct conn, link);
        if (under_pressure(conn))
            continue;
        list_remove(node);
        conn->stalled = false;
        update_pause(conn);
    }
}

static void drained(void *user)
{
    struct conn *conn = user;
    if (!conn->closing && conn->face->drained != NULL)
        conn->face->drained(conn->self);
}

static void tell_cells(struct conn *conn)
{
    struct shard *shard = conn->shard;
    struct command command = {.type = COMMAND_CONN_GONE, .asker = {.conn = conn->id}};
    for (uint64_t cells = conn->cells; cells != 0; cells &= cells - 1)
        dispatch_command(shard, (uint32_t)__builtin_ctzll(cells), &command);
}

static void closed(void *user, enum err err)
{
    struct conn *conn = user;
    struct shard *shard = conn->shard;
    uint32_t slot = (uint32_t)(conn->id & ((1u << CONN_SLOT_BITS) - 1));
    conn->closing = true;
    conn->face->close(conn->self, err);
    tell_cells(conn);
    heap_remove(&shard->timers, &conn->timer);
    list_remove(&conn->link);
    shard->conns[slot] = NULL;
    shard->free_slots[shard->free_count++] = slot;
    shard->conn_count--;
    atomic_fetch_sub(&shard->broker->connections, 1);
    metrics_add(shard, METRIC_CONNECTIONS_AMQP + conn->face->protocol, UINT64_MAX);
    metrics_add(shard, METRIC_CONNECTIONS_CLOSED_AMQP + conn->face->protocol, 1);
    free(conn);
}

void conn_run_timers(struct shard *shard)
{
    for (struct heap_node *top;
         (top = heap_top(&shard->timers)) != NULL && top->due <= shard->now_ms;) {
        struct conn *conn = list_entry(top, struct conn, timer);
        heap_remove(&shard->timers, top);
        if (!conn->closing)
            conn->face->timer(conn->self, shard->now_ms);
    }
}

const struct net_handler conn_handler = {
    .accepted = accepted,
    .received = received,
    .drained = drained,
    .closed = closed,
};

/* ---- Bufs of other shards ---- */

/* shard->foreign: buf -> references held here (low 32 bits) and taken at home for them (high). */
void conn_adopt_buf(struct shard *shard, struct buf *buf)
{
    if (buf == NULL || buf->home == shard->number)
        return;
    uint64_t key = (uint64_t)(uintptr_t)buf;
    uint64_t held = (uint64_t)(uintptr_t)map_get(&shard->foreign, key);
    held += (UINT64_C(1) << 32) + 1;
    if (!map_put(&shard->foreign, key, (void *)(uintptr_t)held))
        shard_fail(shard, "out of memory"); /* leaked; nothing is freed early */
}

/* There was no memory to adopt it: it is leaked, and the broker ends. */
static bool is_leaked(const struct shard *shard, uint64_t held)
{
    return held == 0 && atomic_load(&shard->broker->failed);
}

static void ref_buf(struct shard *shard, struct buf *buf)
{
    if (buf->home == shard->number) {
        buf_ref(buf);
        return;
    }
    uint64_t key = (uint64_t)(uintptr_t)buf;
    uint64_t held = (uint64_t)(uintptr_t)map_get(&shard->foreign, key);
    if (is_leaked(shard, held))
        return;
    assert(held != 0);
    if (!map_put(&shard->foreign, key, (void *)(uintptr_t)(held + 1)))
        shard_fail(shard, "out of memory");
}

void conn_release_buf(struct shard *shard, struct buf *buf)
{
    if (buf == NULL)
        return;
    if (buf->home == shard->number) {
        buf_unref(buf);
        return;
    }
    uint64_t key = (uint64_t)(uintptr_t)buf;
    uint64_t held = (uint64_t)(uintptr_t)map_get(&shard->foreign, key);
    if (is_leaked(shard, held))
        return;
    assert((held & UINT32_MAX) > 0);
    held--;
    if ((held & UINT32_MAX) > 0) {
        if (!map_put(&shard->foreign, key, (void *)(uintptr_t)held))
            shard_fail(shard, "out of memory");
        return;
    }
    map_take(&shard->foreign, key);
    mail_release(shard, buf, (uint32_t)(held >> 32));
}

/* ---- Bytes out ---- */

/* A broker that has failed says nothing any more: a cell may have lost what it is asked to
 * acknowledge, a catalog may know less than the others. */
static bool is_mute(const struct conn *conn)
{
    return conn->closing ||
           atomic_load_explicit(&conn->shard->broker->failed, memory_order_relaxed);
}

void conn_copy(struct conn *conn, const void *data, size_t len)
{
    if (is_mute(conn))
        return;
    *conn->sent_bytes += len;
    net_conn_copy(conn->net, data, len);
}

uint8_t *conn_reserve(struct conn *conn, size_t len)
{
    return is_mute(conn) ? NULL : net_conn_reserve(conn->net, len);
}

void conn_commit(struct conn *conn, size_t len)
{
    *conn->sent_bytes += len;
    net_conn_commit(conn->net, len);
}

void conn_share(struct conn *conn, struct buf *buf, struct slice data)
{
    if (is_mute(conn))
        return;
    ref_buf(conn->shard, buf);
    *conn->sent_bytes += data.len;
    net_conn_share(conn->net, buf, data.data, data.len);
}

size_t conn_output_pending(const struct conn *conn)
{
    return conn->net->pending;
}

void conn_release(struct conn *conn, struct buf *buf)
{
    conn_release_buf(conn->shard, buf);
}

/* ---- Memory of what is not complete ---- */

bool conn_gather(struct conn *conn, size_t bytes)
{
    struct broker *broker = conn->shard->broker;
    uint64_t max = broker->memory_limit / 2, one = conn_config(conn)->max_message_bytes;
    uint64_t before = atomic_fetch_add(&broker->gathered, bytes);
    if (before == 0 || before + bytes <= (max > one ? max : one))
        return true;
    atomic_fetch_sub(&broker->gathered, bytes);
    atomic_store(&broker->gather_refused_ms, conn->shard->now_ms);
    return false;
}

void conn_ungather(struct conn *conn, size_t bytes)
{
    uint64_t before = atomic_fetch_sub(&conn->shard->broker->gathered, bytes);
    assert(before >= bytes);
}

bool conn_gather_wanted(const struct conn *conn)
{
    int64_t refused_ms = atomic_load(&conn->shard->broker->gather_refused_ms);
    return refused_ms != 0 && conn->shard->now_ms - refused_ms < GATHER_WANTED_MS;
}

/* ---- Control ---- */

void conn_close(struct conn *conn, bool flush)
{
    if (conn->closing)
        return;
    conn->closing = true;
    net_conn_close(conn->net, flush);
}

void conn_want(struct conn *conn, size_t bytes)
{
    if (!conn->closing)
        net_conn_want(conn->net, bytes);
}

void conn_hold(struct conn *conn)
{
    conn->held = true;
    update_pause(conn);
}

void conn_resume(struct conn *conn)
{
    if (!conn->held)
        return;
    conn->held = false;
    update_pause(conn);
}

void conn_timer(struct conn *conn, int64_t at_ms)
{
    if (at_ms == INT64_MAX)
        heap_remove(&conn->shard->timers, &conn->timer);
    else if (!heap_set(&conn->shard->timers, &conn->timer, at_ms))
        conn_close(conn, false);
}

int64_t conn_now_ms(const struct conn *conn)
{
    return conn->shard->now_ms;
}

int64_t conn_wall_ms(const struct conn *conn)
{
    return conn->shard->wall_ms;
}

/* xorshift128+: ids and tags need not be secret, only different. */
uint64_t conn_random(struct conn *conn)
{
    uint64_t *state = conn->shard->random;
    uint64_t a = state[0], b = state[1];
    state[0] = b;
    a ^= a << 23;
    state[1] = a ^ b ^ (a >> 17) ^ (b >> 26);
    return state[1] + b;
}

uint64_t conn_id(const struct conn *conn)
{
    return conn->id;
}

const char *conn_peer(const struct conn *conn, uint16_t *port)
{
    *port = conn->net->peer.port;
    return conn->net->peer.host;
}

const char *conn_local(const struct conn *conn, uint16_t *port)
{
    *port = conn->net->local.port;
    return conn->net->local.host;
}

bool conn_is_loopback(const struct conn *conn)
{
    return conn->net->peer.loopback;
}

const struct face_config *conn_config(const struct conn *conn)
{
    return &conn->shard->broker->faces;
}

const struct catalog *conn_catalog(const struct conn *conn)
{
    return conn->shard->catalog;
}

void conn_log(struct conn *conn, const char *level, const char *format, ...)
{
    enum log_level wanted = LOG_INFO;
    if (log_level_parse(level, &wanted) != ERR_NONE || !log_wants(conn->shard->broker->log, wanted))
        return;
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    log_event(conn->shard->broker->log, wanted, conn->face->name,
              (const struct log_field[]){log_text("peer", conn->net->peer.host),
                                         log_uint("port", conn->net->peer.port),
                                         log_text("text", text), log_end()});
}

/* ---- Identity ---- */

enum err conn_login(struct conn *conn, struct slice user, struct slice password)
{
    enum err err = auth_check_password(user, password, conn->net->peer.loopback);
    if (err == ERR_NONE && user.len <= sizeof conn->user) {
        memcpy(conn->user, user.data, user.len);
        conn->user_len = (uint8_t)user.len;
    }
    uint32_t first = err == ERR_NONE ? METRIC_LOGINS_AMQP : METRIC_LOGINS_REFUSED_AMQP;
    metrics_add(conn->shard, first + conn->face->protocol, 1);
    return err;
}

struct slice conn_user(const struct conn *conn)
{
    return slice_make(conn->user, conn->user_len);
}

const char *conn_blocked(const struct conn *conn)
{
    const struct broker *broker = conn->shard->broker;
    bool disk = atomic_load_explicit(&broker->blocked, memory_order_relaxed) != 0;
    bool memory = atomic_load_explicit(&broker->short_of_memory, memory_order_relaxed) != 0;
    return disk && memory ? "memory & disk" : disk ? "disk" : memory ? "memory" : NULL;
}

bool conn_unread(const struct conn *conn)
{
    return conn->stalled;
}
