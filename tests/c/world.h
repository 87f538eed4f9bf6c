/* SPDX-License-Identifier: MIT */
/* A node of one or more workers on io_mem with remote parties around it, for the tests and the
   fuzzers of the forwarding core.  Time is a field; after each step every law is audited. */
#ifndef WORLD_H
#define WORLD_H

#include "io_mem.h"
#include "node.h"

#define WORLD_WORKERS 2
#define WORLD_LEGS 16
#define WORLD_GOT 8192
#define WORLD_MS 1000000ull

struct world_party { /* the far end of a leg */
    struct vc_tuple tuple;
    struct vc_crypto_key up, down; /* to the node, from the node */
    uint8_t up_key[16], down_key[16], up_salt[14], down_salt[14];
    uint64_t key_id;
    uint32_t suite, owner, rtcp_index;
    struct vc_rx_index streams[8]; /* what it receives, by SSRC */
    uint32_t stream_cnt;
};

struct world_got { /* a packet that a party received and opened */
    uint64_t index;
    uint32_t leg, ssrc, timestamp, sz;
    uint8_t rtcp, pt, marker, dscp;
    uint8_t data[1600]; /* clear packet */
    uint32_t header_sz;
};

struct world {
    struct vc_ctl_setup setup;
    struct vc_node *node;
    struct vc_worker *workers[WORLD_WORKERS];
    struct vc_io *io[WORLD_WORKERS];
    void *index_store, *shm[WORLD_WORKERS];
    struct vc_crypto *crypto;
    struct world_party parties[WORLD_LEGS];
    struct world_got *got;
    uint32_t got_cnt, bad_cnt; /* bad: what left and could not be opened */
    uint32_t audits;
    uint32_t packets; /* that io_mem holds in each direction; a power of two */
    uint64_t now_ns, commands;
    struct vc_event events[64]; /* the last ones, APPLIED left out */
    uint32_t event_cnt;
};

/* Defaults that suit most tests; change world->setup before world_start. */
void world_init(struct world *world, uint32_t workers);
void world_start(struct world *world);
/* The process ends and another begins: the index store stays. */
void world_restart(struct world *world);
void world_fini(struct world *world);

/* One duty cycle of each worker, then an audit. */
void world_step(struct world *world);
/* Time passes, then a step. */
void world_pass(struct world *world, uint64_t ns);
/* Takes what left from all workers and opens it. */
void world_take(struct world *world);
/* Forgets what was received. */
void world_forget(struct world *world);

enum vc_status world_command(struct world *world, uint32_t worker, struct vc_command command);
/* Builds a leg command for the party (keys made from leg and generation on the first call). */
struct vc_command world_leg_command(struct world *world, uint32_t leg, uint32_t suite);
/* leg_set at every worker; dies unless applied. */
void world_leg(struct world *world, uint32_t leg, uint32_t owner, uint32_t suite);
struct vc_command world_source_command(uint32_t source, uint32_t leg, uint32_t ssrc, int video);
struct vc_command world_route_command(struct world *world, uint32_t route, uint32_t leg,
                                      uint32_t source, uint32_t out_ssrc, int gated);
/* These die unless applied. */
void world_source(struct world *world, uint32_t source, uint32_t leg, uint32_t ssrc, int video);
void world_route(struct world *world, uint32_t route, uint32_t leg, uint32_t source,
                 uint32_t out_ssrc, int gated);

struct world_rtp {
    uint64_t index;
    uint32_t ssrc, timestamp, payload_sz;
    uint8_t pt, marker, key; /* key: the payload starts an H.264 key frame */
    uint8_t vp8;             /* or a VP8 one, behind a descriptor with ids made from the index */
    uint8_t mid[VC_LABEL_SZ]; /* extension 1, when mid[0] */
};

/* Seals a packet as the party sends it; returns its size. */
uint32_t world_seal(struct world *world, uint32_t leg, const struct world_rtp *rtp, uint8_t *out);
/* The same, put where the leg's owner receives. */
void world_send(struct world *world, uint32_t leg, const struct world_rtp *rtp);
void world_send_rtcp(struct world *world, uint32_t leg, const uint8_t *clear, uint32_t sz);
void world_put(struct world *world, uint32_t worker, uint32_t leg, const void *data, uint32_t sz);

/* Packets of this SSRC received on this leg. */
uint32_t world_count(const struct world *world, uint32_t leg, uint32_t ssrc);
/* Takes what left; how much of all that the parties were ever sent, RTP and RTCP, could not be opened
   or had the index of another packet of its stream. */
uint32_t world_twice(struct world *world);
const struct world_got *world_last(const struct world *world, uint32_t leg, uint32_t ssrc);
const struct vc_counters *world_counters(const struct world *world, uint32_t worker);

#endif
