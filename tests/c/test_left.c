/* SPDX-License-Identifier: MIT */
/* An SSRC that comes back to its leg, to whatever source: its roll-over counter goes on, and nothing
   of it can be played again (RFC 3711 section 3.3.1).  Bound by label or signalled, media and RTX,
   after a move, after the death of the process; not with other keys, and not without end. */
#include "left.h"
#include "world.h"

#include "check.h"

#define LABEL "snd1"
#define OTHER "snd2"
#define ROLLED 65560u /* an index whose roll-over counter is 1 */

static struct world world;

static struct vc_command by_label(uint32_t id, const char *mid)
{
    struct vc_command set = world_source_command(id, 1, 0, 0);

    set.u.source_set.flags = VC_SOURCE_BY_LABEL;
    set.u.source_set.rtx_pt = 97;
    memcpy(set.u.source_set.mid, mid, strlen(mid));
    return set;
}

static struct vc_command signalled(uint32_t id, uint32_t ssrc, uint32_t rtx_ssrc)
{
    struct vc_command set = world_source_command(id, 1, ssrc, 0);

    set.u.source_set.rtx_pt = rtx_ssrc ? 97 : 0;
    set.u.source_set.rtx_ssrc = rtx_ssrc;
    return set;
}

static void apply(struct vc_command command)
{
    CHECK_EQ(world_command(&world, 0, command), VC_STATUS_OK);
}

static void ends(uint32_t id)
{
    apply((struct vc_command){ .type = VC_CMD_SOURCE_REMOVE, .u.id.id = id });
}

static void send(uint64_t index, uint32_t ssrc, const char *mid)
{
    struct world_rtp rtp = { .index = index, .ssrc = ssrc, .payload_sz = 40, .pt = 111 };

    memcpy(rtp.mid, mid, strlen(mid));
    world_send(&world, 1, &rtp);
    world_step(&world);
}

static void repair(uint64_t index, uint32_t ssrc)
{
    struct world_rtp rtp = { .index = index, .ssrc = ssrc, .payload_sz = 40, .pt = 97 };

    memcpy(rtp.mid, LABEL, 4);
    world_send(&world, 1, &rtp);
    world_step(&world);
}

static void sends(uint64_t first, uint64_t end, uint32_t ssrc, const char *mid)
{
    for (uint64_t i = first; i < end; i++)
        send(i, ssrc, mid);
}

static uint64_t routed(void)
{
    return world_counters(&world, 0)->routed;
}

static uint64_t drops(enum vc_drop reason)
{
    return world_counters(&world, 0)->drops[reason];
}

static void leg(void)
{
    world_leg(&world, 1, 0, VC_SRTP_AEAD_AES_128_GCM);
}

static void open_call(void)
{
    world_init(&world, 1);
    world_start(&world);
    leg();
}

static void another_process(uint32_t flags)
{
    world.setup.flags = flags;
    world_restart(&world);
    leg();
    apply((struct vc_command){ .type = VC_CMD_NOP });
}

static uint32_t ssrc_of(uint32_t id)
{
    return world.node->sources[id].bound ? world.node->sources[id].ssrc : 0;
}

/* After SSRC 0xa1 ended at ROLLED: what is new comes to this source, what is old does not. */
static void goes_on(uint32_t id, const char *mid)
{
    uint64_t before = routed(), replayed = drops(VC_DROP_REPLAYED);

    send(ROLLED - 1, 0xa1, mid);
    send(65530, 0xa1, mid); /* of the counter's first round */
    CHECK_EQ(drops(VC_DROP_REPLAYED), replayed + 2);
    send(ROLLED + 1, 0xa1, mid);
    CHECK_EQ(ssrc_of(id), 0xa1);
    send(ROLLED + 1, 0xa1, mid);
    send(ROLLED - 1, 0xa1, mid);
    CHECK_EQ(drops(VC_DROP_REPLAYED), replayed + 4);
    CHECK_EQ(routed(), before + 1);
    CHECK_EQ(world.node->sources[id].highest, ROLLED + 1);
    CHECK_EQ(drops(VC_DROP_AUTH_FAILED), 0);
}

/* set: what it comes back as, under an id that was another's meanwhile or under a fresh one. */
static void test_comes_back(struct vc_command first, struct vc_command set, const char *mid)
{
    open_call();
    apply(first);
    sends(65500, ROLLED, 0xa1, mid);
    CHECK_EQ(routed(), 60);
    ends(first.u.source_set.source);
    apply(signalled(first.u.source_set.source, 0xbb, 0)); /* its place is another's */
    send(1, 0xbb, "");
    apply(set);
    goes_on(set.u.source_set.source, mid);
    world_fini(&world);
}

/* The same for the stream of its repairs. */
static void test_repairs(int by_ssrc)
{
    open_call();
    apply(by_ssrc ? signalled(5, 0xa1, 0xa2) : by_label(5, LABEL));
    send(1, 0xa1, LABEL);
    for (uint64_t i = 65500; i < ROLLED; i++)
        repair(i, 0xa2);
    CHECK_EQ(world_counters(&world, 0)->rtx_rx, 60);
    ends(5);
    apply(by_ssrc ? signalled(6, 0xa1, 0xa2) : by_label(6, LABEL));
    send(2, 0xa1, LABEL);
    repair(ROLLED - 1, 0xa2);
    repair(65530, 0xa2);
    CHECK_EQ(drops(VC_DROP_REPLAYED), 2);
    repair(ROLLED, 0xa2);
    repair(ROLLED, 0xa2);
    repair(ROLLED - 1, 0xa2);
    CHECK_EQ(world_counters(&world, 0)->rtx_rx, 61);
    CHECK_EQ(drops(VC_DROP_REPLAYED), 4);
    CHECK_EQ(drops(VC_DROP_AUTH_FAILED), 0);
    CHECK_EQ(world.node->sources[6].rtx_ssrc, 0xa2);
    world_fini(&world);
}

/* The source went to another SSRC before it ended: neither's past can be played to the next one. */
static void test_moved_before(void)
{
    open_call();
    apply(by_label(5, LABEL));
    sends(65500, ROLLED, 0xa1, LABEL);
    sends(7, 10, 0xa2, LABEL);
    ends(5);
    apply(by_label(6, LABEL));
    send(ROLLED - 1, 0xa1, LABEL);
    send(9, 0xa2, LABEL);
    CHECK_EQ(ssrc_of(6), 0);
    CHECK_EQ(drops(VC_DROP_REPLAYED), 2);
    send(10, 0xa2, LABEL);
    CHECK_EQ(ssrc_of(6), 0xa2);
    world_fini(&world);
}

/* An id that had the SSRC once, and has it again after another id had it: what it knows is older. */
static void test_older_record(void)
{
    open_call();
    apply(signalled(5, 0xa1, 0));
    send(65530, 0xa1, "");
    ends(5);
    apply(signalled(6, 0xa1, 0));
    sends(65531, ROLLED, 0xa1, "");
    ends(6);
    apply(signalled(5, 0xa1, 0));
    goes_on(5, "");
    world_fini(&world);
}

/* The process ends while the stream has: the leg remembers.  Its old place is another's. */
static void test_another_process(void)
{
    open_call();
    apply(by_label(5, LABEL));
    sends(65500, ROLLED, 0xa1, LABEL);
    ends(5);
    another_process(0);
    apply(by_label(5, OTHER));
    CHECK_EQ(ssrc_of(5), 0);
    apply(by_label(6, LABEL));
    goes_on(6, LABEL);
    send(1, 0xb1, OTHER);
    CHECK_EQ(ssrc_of(5), 0xb1);
    world_fini(&world);
}

/* The stream ends while there is no process: nobody removed its source. */
static void test_ends_between(void)
{
    open_call();
    apply(by_label(5, LABEL));
    sends(65500, ROLLED, 0xa1, LABEL);
    repair(1, 0xa2);
    another_process(VC_SETUP_HOLD);
    apply(signalled(5, 0xbb, 0));
    apply(by_label(6, LABEL));
    goes_on(6, LABEL);
    repair(1, 0xa2);
    CHECK_EQ(world_counters(&world, 0)->rtx_rx, 0);
    repair(2, 0xa2);
    CHECK_EQ(world_counters(&world, 0)->rtx_rx, 1);
    world_fini(&world);
}

/* Where the source comes back as it was, its window is the one that it had. */
static void test_whole_window(void)
{
    open_call();
    apply(signalled(5, 0xa1, 0));
    sends(65500, ROLLED, 0xa1, "");
    send(ROLLED + 1, 0xa1, "");
    another_process(VC_SETUP_HOLD);
    apply(signalled(5, 0xa1, 0));
    send(ROLLED, 0xa1, ""); /* it was late, and is the first time here */
    CHECK_EQ(routed(), 1);
    send(ROLLED + 1, 0xa1, "");
    CHECK_EQ(drops(VC_DROP_REPLAYED), 1);
    world_fini(&world);
}

/* Other keys: every SSRC begins anew. */
static void test_other_keys(void)
{
    open_call();
    apply(signalled(5, 0xa1, 0));
    sends(65500, ROLLED, 0xa1, "");
    ends(5);
    world.parties[1].key_id = 5000;
    world_leg(&world, 1, 0, VC_SRTP_AES_CM_128_HMAC_SHA1_80);
    apply(signalled(6, 0xa1, 0));
    send(60000, 0xa1, "");
    CHECK_EQ(routed(), 61);
    world_fini(&world);
}

/* So many are remembered; then the one that ended longest ago is forgotten, wherever it lies. */
static void test_places(void)
{
    const struct vc_leg_index *store;

    open_call();
    store = &world.node->leg_store[1];
    for (uint32_t ssrc = 1; ssrc <= VC_LEG_LEFT; ssrc++) {
        apply(signalled(5, ssrc, 0));
        send(10, ssrc, "");
        ends(5);
    }
    apply(signalled(5, 1, 0)); /* the oldest is here again, and the newest when it has ended */
    send(11, 1, "");
    ends(5);
    for (uint32_t ssrc = 1; ssrc <= VC_LEG_LEFT; ssrc++)
        CHECK_EQ(vc_left_find(store, ssrc)->highest, ssrc == 1 ? 11 : 10);
    apply(signalled(5, 0xa1, 0));
    send(3, 0xa1, "");
    ends(5);
    CHECK(!vc_left_find(store, 2));
    CHECK(vc_left_find(store, 1) && vc_left_find(store, 3));
    CHECK_EQ(vc_left_find(store, 0xa1)->highest, 3);
    apply(signalled(5, 0xa2, 0)); /* nothing came of it */
    ends(5);
    CHECK(!vc_left_find(store, 0xa2));
    CHECK(vc_left_find(store, 3) != NULL);
    world_fini(&world);
}

int main(void)
{
    test_comes_back(by_label(5, LABEL), by_label(6, LABEL), LABEL);
    test_comes_back(signalled(5, 0xa1, 0), signalled(6, 0xa1, 0), "");
    test_comes_back(by_label(5, LABEL), signalled(6, 0xa1, 0), LABEL);
    test_comes_back(signalled(5, 0xa1, 0), by_label(6, LABEL), LABEL);
    test_repairs(0);
    test_repairs(1);
    test_moved_before();
    test_older_record();
    test_another_process();
    test_ends_between();
    test_whole_window();
    test_other_keys();
    test_places();
    return check_report();
}
