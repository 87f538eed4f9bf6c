/* SPDX-License-Identifier: MIT */
/* Transport-wide feedback: messages read by a decoder of their own, written from the draft
   (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1) and not from the writer. */
#include "world.h"

#include "check.h"
#include "twcc.h"

#define NUMBERS 20000u

static struct world world;

struct message {
    uint16_t base, cnt;
    uint8_t counter;
    uint32_t reference; /* 64 ms */
    struct {
        uint8_t got;
        int64_t ticks; /* 250 us, since the reference */
    } packets[65536];
};

static struct message message;

/* 0, or -1: not a message. */
static int decode(const uint8_t *p, uint32_t sz)
{
    uint32_t at = 20, k = 0;
    int64_t ticks = 0;

    memset(&message, 0, sizeof message);
    if (sz < 20 || sz % 4 || p[0] != 0x8f || p[1] != 205 || (p[2] << 8 | p[3]) != (int)sz / 4 - 1)
        return -1;
    message.base = (uint16_t)(p[12] << 8 | p[13]);
    message.cnt = (uint16_t)(p[14] << 8 | p[15]);
    message.reference = (uint32_t)p[16] << 16 | (uint32_t)p[17] << 8 | p[18];
    message.counter = p[19];
    while (k < message.cnt) {
        uint32_t chunk;

        if (at + 2 > sz)
            return -1;
        chunk = (uint32_t)p[at] << 8 | p[at + 1];
        at += 2;
        if (!(chunk & 0x8000)) {
            for (uint32_t i = chunk & 0x1fff; i > 0 && k < message.cnt; i--)
                message.packets[k++].got = chunk >> 13 & 3;
        } else if (!(chunk & 0x4000)) {
            for (int i = 13; i >= 0 && k < message.cnt; i--)
                message.packets[k++].got = chunk >> i & 1;
        } else {
            for (int i = 12; i >= 0 && k < message.cnt; i -= 2)
                message.packets[k++].got = chunk >> i & 3;
        }
    }
    for (k = 0; k < message.cnt; k++) {
        if (message.packets[k].got == 3 || at + message.packets[k].got > sz)
            return -1;
        if (message.packets[k].got == 1)
            ticks += p[at];
        else if (message.packets[k].got == 2)
            ticks += (int16_t)(p[at] << 8 | p[at + 1]);
        at += message.packets[k].got;
        message.packets[k].ticks = ticks;
    }
    return sz - at < 4 ? 0 : -1;
}

static void test_bytes(void)
{
    static const uint8_t expected[] = {
        0x8f, 205, 0, 6, 0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xfe, 0, 4, 0, 0, 3, 0, /* 192 ms */
        0xd8, 0x40, /* two bits each: small, large, lost, small */
        4, 0x02, 0x58, 0, 0, 0,
    };
    struct vc_twcc twcc = { .media_ssrc = 2 };
    uint8_t data[VC_TWCC_MAX];

    vc_twcc_put(&twcc, 65534, 193000000);                /* 192 ms + 4 ticks */
    vc_twcc_put(&twcc, 65535, 193000000 + 600 * 250000); /* 600 ticks on: two bytes */
    vc_twcc_put(&twcc, 1, 193000000 + 600 * 250000);
    CHECK_EQ(vc_twcc_build(&twcc, 1, data), sizeof expected);
    CHECK(!memcmp(data, expected, sizeof expected));
    CHECK(!decode(data, 28));
    CHECK_EQ(message.base, 65534);
    CHECK_EQ(message.cnt, 4);
    CHECK_EQ(message.reference, 3);
    CHECK_EQ(vc_twcc_build(&twcc, 1, data), 0);
}

static uint64_t arrival[NUMBERS], told[NUMBERS]; /* ns; 0: lost */

static void take_message(struct vc_twcc *twcc, uint32_t first, uint8_t *counter)
{
    uint8_t data[VC_TWCC_MAX];
    uint32_t sz;

    while ((sz = vc_twcc_build(twcc, 1, data))) {
        CHECK(sz <= VC_TWCC_MAX);
        CHECK(!decode(data, sz));
        CHECK_EQ(message.counter, *counter);
        ++*counter;
        for (uint32_t k = 0; k < message.cnt; k++) {
            uint32_t number = (uint16_t)(message.base + k - first) % 65536;

            VC_ASSERT(number < NUMBERS);
            if (!message.packets[k].got) {
                CHECK(!told[number]);
                continue;
            }
            told[number] = 1 + (uint64_t)(((int64_t)message.reference << 8) +
                                          message.packets[k].ticks);
            CHECK_EQ(told[number], 1 + arrival[number] / VC_TWCC_TICK_NS);
        }
    }
}

/* Every packet that came is told of with its time, whatever the order, losses and pauses. */
static void test_random(uint64_t seed, uint32_t loss, uint32_t late, uint64_t spread_ns)
{
    struct vc_twcc twcc = { 0 };
    uint32_t first = check_random(&seed) % 65536, lost = 0, missing = 0;
    uint64_t now = 77000000000ull;
    uint8_t counter = 0;

    memset(arrival, 0, sizeof arrival);
    memset(told, 0, sizeof told);
    for (uint32_t n = 0; n < NUMBERS; n++) {
        uint32_t number = n;

        now += check_random(&seed) % spread_ns;
        if (n && check_random(&seed) % 100 < late && n > 30)
            number = n - check_random(&seed) % 30; /* one that was passed over, or came already */
        else if (n && check_random(&seed) % 100 < loss)
            continue;
        if (!arrival[number])
            arrival[number] = now;
        if (vc_twcc_put(&twcc, (uint16_t)(first + number), now) || check_random(&seed) % 40 == 0)
            take_message(&twcc, first, &counter);
    }
    take_message(&twcc, first, &counter);
    for (uint32_t n = 0; n < NUMBERS; n++) {
        lost += !arrival[n];
        missing += arrival[n] && !told[n];
    }
    CHECK_EQ(missing, 0);
    CHECK(!loss || lost > 0);
}

static void test_jump(void)
{
    struct vc_twcc twcc = { 0 };
    uint8_t data[VC_TWCC_MAX];

    vc_twcc_put(&twcc, 10, 1000000000);
    vc_twcc_put(&twcc, 9000, 1000000000); /* over more than the window: anew */
    CHECK(vc_twcc_build(&twcc, 1, data) > 0);
    CHECK(!decode(data, 24));
    CHECK_EQ(message.base, 9000);
    CHECK_EQ(message.cnt, 1);
    vc_twcc_put(&twcc, 8000, 1000000000); /* too old */
    CHECK_EQ(vc_twcc_build(&twcc, 1, data), 0);
    for (uint16_t i = 0; i < VC_TWCC_WINDOW; i++) /* near and far in turn: the largest message */
        vc_twcc_put(&twcc, (uint16_t)(9001 + i), 2000000000 + (i % 2) * 1000000000ull);
    CHECK(vc_twcc_build(&twcc, 1, data) <= VC_TWCC_MAX);
}

/* ---- through a worker -------------------------------------------------------------------- */

static void send(uint64_t index, uint32_t ssrc, uint16_t number)
{
    uint8_t clear[200] = { 0x90, 96 }, sealed[300];
    struct vc_crypto_item item = { .key = &world.parties[0].up, .src = clear, .dst = sealed,
                                   .src_sz = 120, .hdr_sz = 20, .index = index };

    vc_store_be16(clear + 2, (uint16_t)index);
    vc_store_be32(clear + 8, ssrc);
    vc_store_be16(clear + 12, 0xbede);
    vc_store_be16(clear + 14, 1);
    clear[16] = 3 << 4 | 1;
    vc_store_be16(clear + 17, number);
    CHECK_EQ(vc_crypto_seal_rtp(world.crypto, &item, 1), 1);
    world_put(&world, 0, 0, sealed, item.dst_sz);
    world_step(&world);
}

/* Decodes the last message that leg 0 was sent; returns how many there were. */
static uint32_t messages(void)
{
    uint32_t cnt = 0;

    world_take(&world);
    for (uint32_t i = 0; i < world.got_cnt; i++) {
        const struct world_got *got = &world.got[i];

        for (uint32_t at = 0; got->rtcp && got->leg == 0 && at < got->sz;) {
            uint32_t sz = 4u * (vc_load_be16(got->data + at + 2) + 1u);

            if (got->data[at + 1] == 205) {
                CHECK(!decode(got->data + at, sz));
                CHECK_EQ(vc_load_be32(got->data + at + 4), 0x7000);
                cnt++;
            }
            at += sz;
        }
    }
    world_forget(&world);
    return cnt;
}

static void test_worker(void)
{
    struct vc_command set;

    world_init(&world, 1);
    world_start(&world);
    world_leg(&world, 0, 0, VC_SRTP_AEAD_AES_128_GCM);
    set = world_leg_command(&world, 0, VC_SRTP_AEAD_AES_128_GCM);
    set.u.leg_set.rx_ext[VC_EXT_TRANSPORT_CC] = 3;
    world_source(&world, 0, 0, 0xa0, 0);
    world_source(&world, 1, 0, 0xb0, 1);
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_OK);
    send(1, 0xa0, 4000);
    world_pass(&world, 100 * WORLD_MS);
    CHECK_EQ(messages(), 0); /* not agreed */
    set.u.leg_set.flags = VC_LEG_FEEDBACK;
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_OK);
    send(2, 0xa0, 4001);
    world_pass(&world, 10 * WORLD_MS);
    send(1, 0xb0, 4002);
    send(2, 0xb0, 4004);
    world_pass(&world, 39 * WORLD_MS);
    CHECK_EQ(messages(), 0);
    world_pass(&world, WORLD_MS);
    CHECK_EQ(messages(), 1);
    CHECK_EQ(message.base, 4001);
    CHECK_EQ(message.cnt, 4);
    CHECK(message.packets[0].got && message.packets[1].got && !message.packets[2].got);
    CHECK_EQ(message.packets[1].ticks - message.packets[0].ticks, 40);
    CHECK_EQ(world_counters(&world, 0)->feedback_tx, 1);
    world_pass(&world, 200 * WORLD_MS); /* nothing came: nothing to tell */
    CHECK_EQ(messages(), 0);
    for (uint64_t i = 0; i < 250; i++)
        send(10 + i, 0xb0, (uint16_t)(4005 + i));
    CHECK_EQ(messages(), 1); /* did not wait until the window is full */
    send(2, 0xb0, 9); /* a replay: not authentic, not told of */
    world_pass(&world, 60 * WORLD_MS);
    CHECK_EQ(messages(), 1);
    CHECK_EQ(message.base + message.cnt, 4005 + 250);
    CHECK(vc_pacer_next_due(&world.workers[0]->feedbacks) == UINT64_MAX);
    CHECK_EQ(world.bad_cnt, 0);
    world_fini(&world);
}

/* While packets come, a message each 50 to 100 ms, whatever their rate. */
static void test_interval(uint64_t gap_ms)
{
    struct vc_command set;
    uint64_t last_ns = 0, index = 0;
    uint32_t told = 0;

    world_init(&world, 1);
    world_start(&world);
    world_leg(&world, 0, 0, VC_SRTP_AEAD_AES_128_GCM);
    set = world_leg_command(&world, 0, VC_SRTP_AEAD_AES_128_GCM);
    set.u.leg_set.rx_ext[VC_EXT_TRANSPORT_CC] = 3;
    set.u.leg_set.flags = VC_LEG_FEEDBACK;
    CHECK_EQ(world_command(&world, 0, set), VC_STATUS_OK);
    world_source(&world, 0, 0, 0xb0, 1);
    for (uint64_t ms = 0; ms < 3000; ms++) {
        uint32_t cnt;

        if (ms % gap_ms == 0) {
            index++;
            send(index, 0xb0, (uint16_t)index);
        }
        world_pass(&world, WORLD_MS);
        cnt = messages();
        if (!cnt)
            continue;
        CHECK_EQ(cnt, 1);
        CHECK(!last_ns || world.now_ns - last_ns >= 50 * WORLD_MS);
        CHECK(!last_ns || world.now_ns - last_ns <= 100 * WORLD_MS);
        last_ns = world.now_ns;
        told += message.cnt;
    }
    CHECK(told > index - 100 / gap_ms && told <= index);
    CHECK_EQ(world_counters(&world, 0)->drops[VC_DROP_HISTORY_FULL], 0);
    world_fini(&world);
}

int main(void)
{
    test_interval(5);
    test_interval(20);
    test_interval(33);
    test_bytes();
    for (uint64_t seed = 1; seed < 5; seed++) {
        test_random(seed, 0, 0, 1000000);
        test_random(seed, 5, 2, 5000000);
        test_random(seed, 50, 10, 50000000);
        test_random(seed, 10, 5, 20000000000ull); /* deltas beyond two bytes */
    }
    test_jump();
    test_worker();
    return check_report();
}
