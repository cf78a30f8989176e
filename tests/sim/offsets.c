/* Committed offsets: values that only grow, so that what is fetched tells which commit it was. An
 * older one than the last that was acknowledged must not come back, unless its outcome was never
 * known; one that was not sent must not be seen at all. */
#include "clients_inside.h"

#include "alloc.h"

#include <stdlib.h>
#include <string.h>

void commits_begin(struct commits *commits)
{
    memset(commits, 0, sizeof *commits);
    commits->sent = 1;
}

int64_t commits_send(struct commits *commits)
{
    return commits->sent < COMMITS_MAX ? commits->sent++ : -1;
}

void commits_acked(struct commits *commits, int64_t value)
{
    commits->states[value] = COMMIT_ACKED;
    if (commits->least < value)
        commits->least = value;
}

void commits_check(struct world *world, const struct commits *commits, const char *whose,
                   int64_t value)
{
    world_tell(world, "%s has committed offset %lld", whose, (long long)value);
    if (value < 0) {
        if (commits->least > 0)
            world_wrong(world, "%s: offset %lld was committed and there is none", whose,
                        (long long)commits->least);
    } else if (value == 0 || value >= commits->sent) {
        world_wrong(world, "%s: offset %lld, which nobody committed", whose, (long long)value);
    } else if (value < commits->least && commits->states[value] == COMMIT_ACKED) {
        world_wrong(world, "%s: offset %lld was committed, but it is %lld again", whose,
                    (long long)commits->least, (long long)value);
    }
}

void offsets_ask(struct probe *probe, uint64_t tag, enum group_op op, const char *group,
                 const char *member, int32_t generation, uint32_t partition, int64_t value)
{
    alloc_hold();
    struct parts *parts = parts_create(1 << 16);
    struct group_request *request = arena_alloc(&parts->arena, sizeof *request);
    struct group_offset *offset = arena_alloc(&parts->arena, sizeof *offset);
    alloc_release();
    *offset = (struct group_offset){
        .topic = slice_of("plain"), .partition = partition, .offset = value, .leader_epoch = -1};
    *request = (struct group_request){.op = op,
                                      .group = slice_of(group),
                                      .member = slice_of(member),
                                      .generation = generation,
                                      .offsets = offset,
                                      .offset_count = 1};
    parts->root = request;
    struct command command = {.type = COMMAND_GROUP,
                              .asker = {.tag = tag},
                              .object = group_object(request->group),
                              .parts = parts};
    conn_command(probe->conn, &command);
}
