/* A simulated connection, seen from neither end. It joins a client and a connection of a shard;
 * each direction is a queue of packets, each with an event that delivers the oldest one. It lives
 * as long as one of its ends is held or an event is scheduled. */
#ifndef WEIR_IO_SIM_LINK_H
#define WEIR_IO_SIM_LINK_H

#include "io/sim_world.h"

struct sim_packet {
    struct sim_packet *next;
    size_t len;
    uint8_t data[];
};

/* One direction. */
struct sim_pipe {
    struct sim_packet *first, *last;
    size_t bytes;       /* in packets that their receiver has not taken */
    int64_t last_at_us; /* when the youngest packet arrives */
    bool ending;        /* the sender has closed: an event tells the receiver after the packets */
};

enum sim_server_state { SERVER_NOT_YET, SERVER_OPEN, SERVER_CLOSING, SERVER_GONE };

struct sim_link {
    struct net_conn conn; /* stays first: the shard's end */
    struct sim *sim;
    struct sim_machine *machine;
    struct sim_shard *shard; /* NULL until accepted */
    const struct net_handler *handler;
    enum sim_server_state state;
    enum err err;
    bool paused, show;
    bool waiting; /* packets have arrived while it was paused */
    bool ended;   /* and after them the client's end */
    bool flush;
    struct inq in;
    struct outq out;
    struct list dirty; /* of the shard */

    const struct sim_client_handler *client_handler; /* NULL: the client is gone */
    void *client_user;
    bool client_paused;

    struct sim_pipe to_server, to_client;
    uint16_t port;
    bool broken;   /* nothing is delivered any more */
    uint32_t refs; /* server's end, client's end, events */
    struct list all;
};

/* Drops the packets. */
void sim_pipe_clear(struct sim_pipe *pipe);

/* Takes the oldest packet off; it must be there. The caller frees it. */
struct sim_packet *sim_pipe_take(struct sim_pipe *pipe);

void sim_link_unref(struct sim_link *link);
void sim_link_free(struct sim_link *link); /* when the world ends */

/* Schedules run(link). The event holds the link: run must end with sim_link_unref. */
void sim_link_event(struct sim_link *link, int64_t at_us, void (*run)(void *ctx));

/* Of len bytes, how many travel together. */
size_t sim_packet_len(struct sim *sim, size_t len);
struct sim_packet *sim_packet_make(size_t len);

/* Puts a packet on its way; run(link) is called when it arrives. */
void sim_packet_send(struct sim_link *link, struct sim_pipe *pipe, struct sim_packet *packet,
                     void (*run)(void *ctx));

/* The connection breaks for both. */
void sim_link_break(struct sim_link *link);

/* io/sim_client.c: events of the client's end. */
void sim_client_packet_run(void *ctx);

/* The client hears that the connection has ended, after what is under way to it. */
void sim_client_end(struct sim_link *link);

/* io/sim_net.c: events of the shard's end. */
void sim_server_accept_run(void *ctx);
void sim_server_packet_run(void *ctx);
void sim_server_end_run(void *ctx);

/* The client has taken bytes: more of the output that waits can be sent. */
void sim_server_room(struct sim_link *link);

#endif
