/* Members of a group: their ids, the protocols they know and what they bring for each. */
#include "core/group_state.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

struct slice slice_copy(struct slice slice)
{
    if (slice.data == NULL)
        return slice;
    uint8_t *copy = malloc(slice.len + 1);
    if (copy != NULL && slice.len > 0)
        memcpy(copy, slice.data, slice.len);
    return slice_make(copy, slice.len);
}

static void slice_free(struct slice slice)
{
    free((void *)(uintptr_t)slice.data);
}

static uint32_t id_hash(struct slice id)
{
    return table_hash(XXH3_64bits(id.data, id.len));
}

struct member *member_find(const struct group *group, struct slice id)
{
    uint32_t hash = id_hash(id), at = hash;
    for (struct member *member; (member = table_next(&group->by_id, hash, &at)) != NULL;) {
        if (slice_equal(member->id, id))
            return member;
    }
    return NULL;
}

struct member *member_by_instance(const struct group *group, struct slice instance)
{
    if (instance.data == NULL)
        return NULL;
    list_each(node, &group->members)
    {
        struct member *member = list_entry(node, struct member, link);
        if (member->instance.data != NULL && slice_equal(member->instance, instance))
            return member;
    }
    return NULL;
}

static struct slice clip(struct slice slice)
{
    if (slice.len > GROUP_CLIENT_BYTES_MAX)
        slice.len = GROUP_CLIENT_BYTES_MAX;
    return slice;
}

/* "CLIENT-0123-..." as Kafka makes them: the client's or instance's name and a UUID. */
struct slice member_id_make(const struct group_request *request)
{
    struct slice prefix =
        request->instance.data != NULL ? request->instance : clip(request->client_id);
    size_t len = prefix.len + 1 + 36;
    char *id = malloc(len + 1);
    if (id == NULL)
        return (struct slice){0};
    uint64_t a = request->random[0], b = request->random[1];
    if (prefix.len > 0)
        memcpy(id, prefix.data, prefix.len);
    snprintf(id + prefix.len, len + 1 - prefix.len,
             "-%08" PRIx64 "-%04" PRIx64 "-%04" PRIx64 "-%04" PRIx64 "-%012" PRIx64, a >> 32,
             a >> 16 & 0xffff, (a & 0xfff) | 0x4000, (b >> 48 & 0x3fff) | 0x8000,
             b & UINT64_C(0xffffffffffff));
    return slice_make(id, len);
}

/* ---- What a member brings ---- */

static size_t protocols_size(const struct group_request *request)
{
    size_t size = 0;
    for (uint32_t i = 0; i < request->protocol_count; i++)
        size += request->protocols[i].name.len + request->protocols[i].metadata.len;
    return size;
}

enum err member_check(const struct group *group, const struct member *member,
                      const struct group_request *request)
{
    size_t others = group->bytes - (member != NULL ? member->bytes : 0);
    if (others + protocols_size(request) > GROUP_BYTES_MAX)
        return ERR_GROUP_FULL;
    bool is_new = member == NULL;
    return is_new && group->member_count + group->pending_count >= GROUP_MEMBERS_MAX
               ? ERR_GROUP_FULL
               : ERR_NONE;
}

static struct slice put(uint8_t **at, struct slice slice)
{
    struct slice copy = slice_make(*at, slice.len);
    if (slice.len > 0)
        memcpy(*at, slice.data, slice.len);
    *at += slice.len;
    return copy;
}

enum err member_update(struct member *member, const struct group_request *request)
{
    size_t bytes = protocols_size(request);
    struct group_protocol *protocols =
        malloc(request->protocol_count * sizeof *protocols + bytes + 1);
    if (protocols == NULL)
        return ERR_NO_MEMORY;
    uint8_t *at = (uint8_t *)(protocols + request->protocol_count);
    for (uint32_t i = 0; i < request->protocol_count; i++) {
        protocols[i].name = put(&at, request->protocols[i].name);
        protocols[i].metadata = put(&at, request->protocols[i].metadata);
    }
    free(member->protocols);
    member->protocols = protocols;
    member->protocol_count = request->protocol_count;
    member->group->bytes -= member->bytes;
    member->bytes = bytes + member->assignment.len;
    member->group->bytes += member->bytes;
    member->session_timeout_ms = request->session_timeout_ms;
    member->rebalance_timeout_ms = request->rebalance_timeout_ms > 0 ? request->rebalance_timeout_ms
                                                                     : request->session_timeout_ms;
    return ERR_NONE;
}

enum err member_assign(struct member *member, struct slice assignment)
{
    struct slice copy = slice_copy(assignment);
    if (assignment.data != NULL && copy.data == NULL)
        return ERR_NO_MEMORY;
    member->group->bytes += copy.len - member->assignment.len;
    member->bytes += copy.len - member->assignment.len;
    slice_free(member->assignment);
    member->assignment = copy;
    return ERR_NONE;
}

bool member_brings_same(const struct member *member, const struct group_request *request)
{
    if (member->protocol_count != request->protocol_count)
        return false;
    for (uint32_t i = 0; i < request->protocol_count; i++) {
        if (!slice_equal(member->protocols[i].name, request->protocols[i].name) ||
            !slice_equal(member->protocols[i].metadata, request->protocols[i].metadata))
            return false;
    }
    return true;
}

const struct group_protocol *member_protocol(const struct member *member, struct slice name)
{
    for (uint32_t i = 0; i < member->protocol_count; i++) {
        if (slice_equal(member->protocols[i].name, name))
            return &member->protocols[i];
    }
    return NULL;
}

/* ---- Life ---- */

struct member *member_create(struct group *group, const struct group_request *request,
                             struct slice id)
{
    struct member *member = calloc(1, sizeof *member);
    if (member == NULL || !table_reserve(&group->by_id)) {
        free(member);
        return NULL;
    }
    member->group = group;
    member->id = slice_copy(id);
    member->hash = id_hash(id);
    member->instance = slice_copy(request->instance);
    member->client_id = slice_copy(clip(request->client_id));
    member->client_host = slice_copy(clip(request->client_host));
    list_insert(&group->members, &member->link);
    table_put(&group->by_id, member->hash, member);
    group->member_count++;
    bool whole = member->id.data != NULL &&
                 (member->instance.data != NULL || request->instance.data == NULL) &&
                 (member->client_id.data != NULL || request->client_id.data == NULL) &&
                 (member->client_host.data != NULL || request->client_host.data == NULL);
    if (!whole || member_update(member, request) != ERR_NONE) {
        member_destroy(member);
        return NULL;
    }
    return member;
}

void member_destroy(struct member *member)
{
    struct group *group = member->group;
    assert(member->waits != WAIT_JOIN || group->waiting_join > 0);
    if (member->waits == WAIT_JOIN)
        group->waiting_join--;
    if (group->leader == member)
        group->leader = NULL;
    cell_timer_off(group->groups->cell, &member->session);
    table_take(&group->by_id, member->hash, member);
    list_remove(&member->link);
    group->member_count--;
    group->bytes -= member->bytes;
    slice_free(member->id);
    slice_free(member->instance);
    slice_free(member->client_id);
    slice_free(member->client_host);
    slice_free(member->assignment);
    free(member->protocols);
    free(member);
}

enum err member_rename(struct member *member, struct slice id)
{
    struct table *by_id = &member->group->by_id;
    struct slice copy = slice_copy(id);
    if (copy.data == NULL || !table_reserve(by_id)) {
        slice_free(copy);
        return ERR_NO_MEMORY;
    }
    table_take(by_id, member->hash, member);
    slice_free(member->id);
    member->id = copy;
    member->hash = id_hash(copy);
    table_put(by_id, member->hash, member);
    return ERR_NONE;
}

/* ---- All of them ---- */

static bool all_know(const struct group *group, struct slice protocol)
{
    list_each(node, &group->members)
    {
        if (member_protocol(list_entry(node, struct member, link), protocol) == NULL)
            return false;
    }
    return true;
}

bool group_supports(const struct group *group, const struct group_request *request)
{
    if (request->protocol_type.len == 0 || request->protocol_count == 0)
        return false;
    if (group->member_count == 0)
        return true;
    if (!slice_equal(group->protocol_type, request->protocol_type))
        return false;
    for (uint32_t i = 0; i < request->protocol_count; i++) {
        if (all_know(group, request->protocols[i].name))
            return true;
    }
    return false;
}

struct slice group_choose_protocol(const struct group *group)
{
    assert(!list_empty(&group->members));
    const struct member *first = list_entry(group->members.next, struct member, link);
    bool known[GROUP_PROTOCOLS_MAX];
    uint32_t votes[GROUP_PROTOCOLS_MAX] = {0};
    for (uint32_t i = 0; i < first->protocol_count; i++)
        known[i] = all_know(group, first->protocols[i].name);
    list_each(node, &group->members)
    {
        const struct member *member = list_entry(node, struct member, link);
        bool voted = false;
        for (uint32_t i = 0; i < member->protocol_count && !voted; i++) {
            for (uint32_t k = 0; k < first->protocol_count && !voted; k++) {
                voted =
                    known[k] && slice_equal(first->protocols[k].name, member->protocols[i].name);
                votes[k] += voted;
            }
        }
    }
    uint32_t best = 0;
    for (uint32_t i = 1; i < first->protocol_count; i++) {
        if (votes[i] > votes[best])
            best = i;
    }
    return first->protocols[best].name;
}

/* Consumers' metadata begins with a version and the list of topics. */
static bool subscribes(struct slice metadata, struct slice topic)
{
    struct reader reader = reader_over(metadata);
    reader_i16(&reader);
    for (int32_t count = reader_i32(&reader); count > 0 && !reader.failed; count--) {
        int16_t len = reader_i16(&reader);
        struct slice name = reader_slice(&reader, len > 0 ? (size_t)len : 0);
        if (!reader.failed && slice_equal(name, topic))
            return true;
    }
    return false;
}

bool group_subscribes(const struct group *group, struct slice topic)
{
    list_each(node, &group->members)
    {
        const struct member *member = list_entry(node, struct member, link);
        for (uint32_t i = 0; i < member->protocol_count; i++) {
            if (subscribes(member->protocols[i].metadata, topic))
                return true;
        }
    }
    return false;
}
