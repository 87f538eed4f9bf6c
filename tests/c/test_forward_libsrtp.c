/* SPDX-License-Identifier: MIT */
/* libsrtp2 on both sides of a node: it seals what comes in and opens what goes out, over a wrap of
   the incoming sequence numbers. */
#include "world.h"

#include "rtcp.h"
#include "srtp_oracle.h"

void test_forward_libsrtp(uint32_t suite, unsigned *good, unsigned *bad);

static srtp_t open_session(uint32_t suite, const uint8_t *key, const uint8_t *salt, int inbound)
{
    uint8_t master[30];
    srtp_policy_t policy = oracle_policy(suite, master);
    srtp_t session = NULL;

    memcpy(master, key, 16);
    memcpy(master + 16, salt, 14);
    policy.ssrc.type = inbound ? ssrc_any_inbound : ssrc_any_outbound;
    VC_ASSERT(srtp_create(&session, &policy) == srtp_err_status_ok);
    return session;
}

static void open_all(struct world *world, srtp_t *receivers, unsigned *good, unsigned *bad)
{
    const struct vc_io_mem_packet *packet;
    uint8_t data[2048];

    while ((packet = vc_io_mem_take(world->io[0]))) {
        srtp_t session = memcmp(&packet->tuple, &world->parties[1].tuple, sizeof packet->tuple) ?
                             receivers[1] : receivers[0];
        int sz = (int)packet->sz, rtcp = vc_rtp_is_rtcp(packet->data);

        memcpy(data, packet->data, packet->sz);
        if (!memcmp(&packet->tuple, &world->parties[0].tuple, sizeof packet->tuple))
            continue; /* reports for the sender */
        if ((rtcp ? srtp_unprotect_rtcp(session, data, &sz) :
                    srtp_unprotect(session, data, &sz)) == srtp_err_status_ok)
            (*good)++;
        else
            (*bad)++;
    }
}

static void send_packet(struct world *world, srtp_t session, uint32_t i)
{
    uint8_t data[400] = { 0x80, 111 };
    int sz = 212;

    vc_store_be16(data + 2, (uint16_t)(65400 + i));
    vc_store_be32(data + 4, i * 960);
    vc_store_be32(data + 8, 0xa0);
    VC_ASSERT(srtp_protect(session, data, &sz) == srtp_err_status_ok);
    world_put(world, 0, 0, data, (uint32_t)sz);
}

static void send_report(struct world *world, srtp_t session)
{
    uint8_t data[VC_RTCP_MAX + 64];
    struct vc_rtcp_writer writer = { data, 0, VC_RTCP_MAX };
    struct vc_rtcp_sr sr = { 1, 2, 3, 4 };
    int sz;

    VC_ASSERT(!vc_rtcp_write_sr(&writer, 0xa0, &sr, NULL, 0));
    sz = (int)writer.sz;
    VC_ASSERT(srtp_protect_rtcp(session, data, &sz) == srtp_err_status_ok);
    world_put(world, 0, 0, data, (uint32_t)sz);
}

void test_forward_libsrtp(uint32_t suite, unsigned *good, unsigned *bad)
{
    static struct world world;
    struct vc_command route;
    srtp_t sender, receivers[2];

    VC_ASSERT(srtp_init() == srtp_err_status_ok);
    world_init(&world, 1);
    world_start(&world);
    for (uint32_t leg = 0; leg < 3; leg++)
        world_leg(&world, leg, 0, suite);
    world_source(&world, 0, 0, 0xa0, 0);
    for (uint32_t leg = 1; leg < 3; leg++) {
        route = world_route_command(&world, leg, leg, 0, 0x100 + leg, 0);
        route.u.route_set.seq_start = 32600;
        VC_ASSERT(world_command(&world, 0, route) == VC_STATUS_OK);
        receivers[leg - 1] = open_session(suite, world.parties[leg].down_key,
                                          world.parties[leg].down_salt, 1);
    }
    sender = open_session(suite, world.parties[0].up_key, world.parties[0].up_salt, 0);
    for (uint32_t i = 0; i < 500; i++) {
        send_packet(&world, sender, i);
        world_pass(&world, 20 * WORLD_MS);
        open_all(&world, receivers, good, bad);
    }
    send_report(&world, sender);
    world_step(&world);
    open_all(&world, receivers, good, bad);
    srtp_dealloc(sender);
    for (int i = 0; i < 2; i++)
        srtp_dealloc(receivers[i]);
    srtp_shutdown();
    world_fini(&world);
}
