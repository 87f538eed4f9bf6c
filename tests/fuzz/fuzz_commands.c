/* SPDX-License-Identifier: MIT */
/* Commands: whatever the supervisor's ring holds, each command is answered, refused ones change
   no table, and every law holds after each.  Ids and enums are brought near their ranges, or
   nearly everything would be refused at the first check. */
#include "world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t sz);

static struct world world;

static uint32_t near(const uint8_t **data, size_t *sz, uint32_t range)
{
    uint32_t value = *sz ? **data : 0;

    if (*sz) {
        (*data)++;
        (*sz)--;
    }
    return value == 255 ? 0xffffffff : value % (range + 2);
}

static struct vc_command read_command(const uint8_t **data, size_t *sz)
{
    struct vc_command command = { .type = near(data, sz, VC_CMD_COUNT) };
    size_t n = *sz < 40 ? *sz : 40;
    uint32_t leg = near(data, sz, 4), source = near(data, sz, 5), route = near(data, sz, 6);

    switch (command.type) {
    case VC_CMD_LEG_SET:
        command = world_leg_command(&world, leg % WORLD_LEGS, leg % 2 ? 7 : 1);
        command.u.leg_set.leg = leg;
        command.u.leg_set.key_id = near(data, sz, 5);
        command.u.leg_set.suite = near(data, sz, 8);
        command.u.leg_set.tuple_cnt = near(data, sz, 4);
        command.u.leg_set.nominated = near(data, sz, 3);
        command.u.leg_set.rate_bps = near(data, sz, 200) * 10000;
        command.u.leg_set.tuples[1].remote_port_be = (uint16_t)near(data, sz, 9);
        break;
    case VC_CMD_SOURCE_SET:
        command = world_source_command(source, leg, near(data, sz, 5), source & 1);
        command.u.source_set.flags = near(data, sz, 7);
        command.u.source_set.codec = (uint8_t)near(data, sz, 5);
        break;
    case VC_CMD_ROUTE_SET:
        command = world_route_command(&world, route, leg, source % 5, near(data, sz, 5), source & 1);
        command.u.route_set.source = source;
        command.u.route_set.seq_start = (uint16_t)(near(data, sz, 254) << 7);
        break;
    default: /* as the bytes come */
        command.u.id.id = near(data, sz, 6);
        memcpy(command.u.bytes + 4, *data, n < *sz ? n : *sz);
        *data += n < *sz ? n : *sz;
        *sz -= n < *sz ? n : *sz;
    }
    return command;
}

/* A little media between the commands, so that queues are not empty. */
static void send_some(uint8_t dice)
{
    struct world_rtp rtp = { .index = dice, .ssrc = dice % 6, .payload_sz = 60, .pt = 111, .key = 1 };

    if (world.parties[dice % 4].suite != VC_SRTP_NONE && world.parties[dice % 4].key_id)
        world_send(&world, dice % 4, &rtp);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t sz)
{
    world_init(&world, 1);
    world.packets = 128;
    world.setup.legs_max = 4;
    world.setup.sources_max = 5;
    world.setup.routes_max = 6;
    world.setup.history_audio = world.setup.history_video = 2;
    world_start(&world);
    for (int i = 0; sz && i < 100; i++) {
        struct vc_command command = read_command(&data, &sz);
        struct vc_counters before = world_counters(&world, 0)[0];
        enum vc_status status = world_command(&world, 0, command);

        if (status != VC_STATUS_OK)
            VC_ASSERT(world_counters(&world, 0)->routes == before.routes &&
                      world_counters(&world, 0)->sources == before.sources &&
                      world_counters(&world, 0)->legs == before.legs);
        send_some((uint8_t)near(&data, &sz, 253));
        world_pass(&world, near(&data, &sz, 200) * WORLD_MS);
        while (vc_io_mem_take(world.io[0]))
            ;
    }
    world_fini(&world);
    return 0;
}
