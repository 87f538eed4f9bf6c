/* SPDX-License-Identifier: MIT */
/* Changes of source on a living route, as their receiver sees them: sequence numbers, timestamps
   against the sender's clock, ids of frames, sender reports, requests. */
#include <srtp2/srtp.h>

#include "test_switch.h"

#include "check.h"
#include "switch.h"

/* What another process would go on with. */
static void check_stored(void)
{
    const struct vc_route *route = &world.node->routes[1];
    const struct vc_tx_index *store = route->store;
    struct vc_ids offset = vc_rewrite_offset(&route->rewrite);

    CHECK(!memcmp(&store->id_offset, &offset, sizeof offset));
    CHECK(!memcmp(&store->ids, &route->rewrite.highest, sizeof store->ids));
    CHECK_EQ(store->source, route->feeds[0].source);
    CHECK_EQ(store->highest, route->numbering.highest_out);
    CHECK_EQ(store->ts_offset, route->ts_offset);
}

/* Twenty changes between two layers. */
static void test_layers(uint32_t worker_cnt, enum vc_codec codec, enum form low, enum form high,
                        int dependency)
{
    uint32_t asked;

    stage_open(worker_cnt, codec, low, high, dependency);
    stage_run(100);
    CHECK(video.frames > 1 && sound.frames > 1);
    asked = plis[0] + plis[1];
    for (uint32_t i = 1; i <= 20; i++) {
        CHECK_EQ(stage_switch(i % 2), VC_STATUS_OK);
        stage_run(310 + i * 7);
        CHECK_EQ(video.from, i % 2);
        CHECK(plis[0] + plis[1] - asked <= i);
    }
    CHECK_EQ(video.changes, 20);
    CHECK_EQ(video.reports_at_change, 20);
    CHECK(video.clock_error_max < 90); /* 1 ms */
    CHECK(video.report_error_max < 90);
    CHECK(sound.clock_error_max < 48 && sound.report_error_max < 48);
    CHECK(video.frames > 200 && sound.frames > 300);
    check_stored();
    stage_close();
}

/* Packets of a frame come one by one, and a change falls into the middle: the old frame is let
   through to its end, and the new one begins with its first packet. */
static void test_whole_frames(uint32_t worker_cnt)
{
    stage_open(worker_cnt, VC_CODEC_VP8, FORM_15, FORM_15, 0);
    encoders[0].apart_ns = 12 * WORLD_MS;
    encoders[1].apart_ns = 5 * WORLD_MS;
    stage_run(100);
    for (uint32_t i = 1; i <= 20; i++) {
        CHECK_EQ(stage_switch(i % 2), VC_STATUS_OK);
        stage_run(400 + i * 7);
        CHECK_EQ(video.from, i % 2);
    }
    CHECK_EQ(video.changes, 20);
    CHECK_EQ(video.halves, 0);
    CHECK(video.clock_error_max < 90);
    stage_close();
}

/* The end of the old frame never comes: it is given up, by the next one or by time. */
static void test_no_end(uint32_t worker_cnt, int next)
{
    uint32_t waited = 0;

    stage_open(worker_cnt, VC_CODEC_VP8, FORM_15, FORM_15, 0);
    encoders[0].apart_ns = 12 * WORLD_MS;
    stage_run(700);
    CHECK_EQ(stage_switch(1), VC_STATUS_OK);
    while (!world.node->routes[1].found_ns && waited++ < 100)
        stage_run(1);
    CHECK(encoders[0].part > 0);
    encoders[0].loses_end = next;
    encoders[0].silent = !next;
    CHECK_EQ(video.changes, 0);
    for (waited = 0; !video.changes && waited < 200; waited++)
        stage_run(1);
    CHECK(waited < (next ? 34 : VC_CUT_WAIT_NS / WORLD_MS + 34));
    CHECK_EQ(video.halves, 1);
    stage_run(100);
    CHECK_EQ(video.from, 1);
    CHECK_EQ(video.halves, 1);
    stage_close();
}

/* Changes that come faster than an encoder minds requests: each still costs one. */
static void test_hasty(uint32_t worker_cnt)
{
    uint32_t asked;

    stage_open(worker_cnt, VC_CODEC_VP8, FORM_15, FORM_15, 1);
    stage_run(700);
    asked = stage_asked();
    for (uint32_t i = 1; i <= 10; i++) {
        uint32_t waited = 0;

        CHECK_EQ(stage_switch(i % 2), VC_STATUS_OK);
        for (; video.from != i % 2 && waited < 500; waited += 10)
            stage_run(10);
        CHECK_EQ(video.from, i % 2);
        CHECK(stage_asked() - asked <= i);
    }
    CHECK_EQ(video.changes, 10);
    stage_close();
}

static void open_vp8(uint32_t workers)
{
    stage_open(workers, VC_CODEC_VP8, FORM_15, FORM_15, 1);
    stage_run(200);
}

/* No report of the new source yet: nobody is asked for anything, the old one goes on. */
static void test_waits_for_reports(uint32_t workers)
{
    uint32_t asked, frames;

    stage_open(workers, VC_CODEC_VP8, FORM_15, FORM_15, 1);
    encoders[1].reports = 0;
    stage_run(200);
    asked = stage_asked();
    CHECK_EQ(stage_switch(1), VC_STATUS_OK);
    encoders[1].wants_key = 1; /* one that nobody asked for changes nothing */
    frames = video.frames;
    stage_run(1500);
    CHECK_EQ(stage_asked(), asked);
    CHECK_EQ(video.changes, 0);
    CHECK(video.frames > frames + 40);
    encoders[1].reports = 1;
    stage_run(100);
    CHECK_EQ(stage_asked(), asked + 1);
    CHECK_EQ(video.changes, 1);
    CHECK_EQ(video.from, 1);
    CHECK(video.clock_error_max < 90);
    stage_close();
}

static void test_never_a_report(uint32_t workers)
{
    uint32_t asked;

    stage_open(workers, VC_CODEC_VP8, FORM_15, FORM_15, 0);
    encoders[0].reports = encoders[1].reports = 0;
    stage_run(200);
    asked = stage_asked();
    CHECK_EQ(stage_switch(1), VC_STATUS_OK);
    stage_run(VC_ALIGN_WAIT_NS / WORLD_MS - 20);
    CHECK_EQ(video.changes, 0);
    CHECK_EQ(stage_asked(), asked);
    video.unaligned = 1;
    stage_run(150);
    CHECK_EQ(video.changes, 1);
    CHECK_EQ(video.reports, 0);
    CHECK_EQ(stage_asked(), asked + 1);
    stage_close();
}

/* The latest choice counts, the old source goes on meanwhile, and going back takes nothing. */
static void test_minds_changed(uint32_t workers)
{
    uint32_t asked, frames;

    open_vp8(workers);
    stage_run(700); /* what is in the histories is too old */
    asked = stage_asked();
    encoders[1].silent = 1;
    CHECK_EQ(stage_switch(1), VC_STATUS_OK);
    stage_run(100);
    frames = video.frames;
    CHECK_EQ(stage_switch(STRANGER), VC_STATUS_OK);
    CHECK_EQ(stage_switch(1), VC_STATUS_OK);
    CHECK_EQ(stage_switch(0), VC_STATUS_OK);
    encoders[1].silent = 0;
    encoders[1].next_ns = world.now_ns;
    stage_run(300);
    CHECK_EQ(video.changes, 0);
    CHECK(video.frames >= frames + 8);
    CHECK(plis[0] + plis[1] <= 2 + asked); /* 1 was asked each time that it was chosen, or merged */
    CHECK_EQ(stage_switch(1), VC_STATUS_OK);
    CHECK_EQ(stage_switch(STRANGER), VC_STATUS_OK);
    video.unaligned = 1;
    stage_run(300);
    CHECK_EQ(video.changes, 1);
    CHECK_EQ(video.from, STRANGER);
    CHECK_EQ(world_command(&world, 0, (struct vc_command){ .type = VC_CMD_SOURCE_REMOVE,
                                                           .u.id.id = 1 }), VC_STATUS_OK);
    stage_close();
}

/* Of another sender: by the time that passed here; the reports then tell of its clock. */
static void test_stranger(uint32_t workers)
{
    open_vp8(workers);
    for (uint32_t i = 1; i <= 20; i++) {
        uint32_t asked = stage_asked();

        stage_run(700);
        video.unaligned = 1;
        CHECK_EQ(stage_switch(i % 2 ? STRANGER : 0), VC_STATUS_OK);
        stage_run(100);
        CHECK_EQ(video.changes, i);
        CHECK_EQ(video.reports_at_change, i);
        CHECK_EQ(stage_asked(), asked + 1);
        CHECK(video.report_error_max < 90 && video.clock_error_max < 90);
    }
    CHECK_EQ(stage_switch(STRANGER), VC_STATUS_OK); /* a key frame is at hand: no request */
    video.unaligned = 1;
    stage_run(100);
    stage_close();
}

/* Sound changes at once, aligned where that is known. */
static void test_sound(uint32_t workers)
{
    open_vp8(workers);
    for (uint32_t i = 1; i <= 20; i++) {
        uint32_t source = i % 2 ? SOUND_2 : SOUND, packets = sound.packets;

        CHECK_EQ(stage_route(world_route_command(&world, 2, 1, source, OUT_SOUND, 0)),
                 VC_STATUS_OK);
        stage_run(25);
        CHECK(sound.packets > packets);
        CHECK_EQ(sound.changes, i);
        stage_run(35);
    }
    CHECK(sound.clock_error_max < 48 && sound.report_error_max < 48);
    stage_close();
}

/* A gate that was closed, by a pause: no hole in the numbers and the ids. */
static void test_gate(uint32_t workers)
{
    struct vc_command filter = { .type = VC_CMD_ROUTE_FILTER, .u.route_filter.route = 1 };

    open_vp8(workers);
    for (uint32_t i = 1; i <= 8; i++) { /* more than stretches are remembered */
        filter.u.route_filter.paused = 1;
        CHECK_EQ(stage_route(filter), VC_STATUS_OK);
        stage_run(200);
        filter.u.route_filter.paused = 0;
        CHECK_EQ(stage_route(filter), VC_STATUS_OK);
        stage_run(400 + i);
    }
    filter.u.route_filter.paused = 1; /* a change that waits is done: nobody sees the old one */
    CHECK_EQ(stage_switch(1), VC_STATUS_OK);
    CHECK_EQ(stage_route(filter), VC_STATUS_OK);
    stage_run(50);
    filter.u.route_filter.paused = 0;
    CHECK_EQ(stage_route(filter), VC_STATUS_OK);
    stage_run(400);
    CHECK_EQ(video.from, 1);
    CHECK(video.frames > 80);
    CHECK(video.clock_error_max < 90);
    stage_close();
}

/* Removed and set again, with the same source and with another: the next number follows. */
static void test_set_again(uint32_t workers)
{
    open_vp8(workers);
    for (uint32_t i = 1; i <= 6; i++) {
        uint32_t frames = video.frames;

        stage_run(600);
        CHECK_EQ(stage_route((struct vc_command){ .type = VC_CMD_ROUTE_REMOVE, .u.id.id = 1 }),
                 VC_STATUS_OK);
        stage_run(100);
        video.unaligned = 1;
        encoders[i % 2].wants_key = 1;
        CHECK_EQ(stage_switch(i % 2), VC_STATUS_OK);
        stage_run(100);
        CHECK(video.frames > frames);
        CHECK_EQ(video.from, i % 2);
    }
    CHECK_EQ(video.changes, 6);
    stage_close();
}

/* After the death of the process: nothing twice, no id for two frames, time goes on. */
static void test_restart(uint32_t workers)
{
    stage_open(workers, VC_CODEC_VP8, FORM_15, FORM_15, 1);
    stage_run(500);
    for (uint32_t i = 1; i <= 6; i++) {
        uint32_t frames = video.frames;

        CHECK_EQ(stage_switch(i % 2), VC_STATUS_OK);
        stage_run(i % 3 ? 400 : 3);
        world_restart(&world);
        video.lax = sound.lax = 1;
        if (i > 3) { /* another source than before */
            video.unaligned = video.from != (i + 1) % 2;
            stage_table((i + 1) % 2);
        } else {
            video.unaligned = video.from != i % 2;
            stage_table(i % 2);
        }
        stage_run(1000);
        CHECK(video.frames > frames + 20);
    }
    CHECK(video.clock_error_max < 90);
    stage_close();
}

/* A source's id is given to another stream after the route let go of it, and then the process dies:
   the numbers that were known for that id are not those of the stream. */
static void test_id_given_anew(int removed)
{
    struct vc_command end = { .type = VC_CMD_SOURCE_REMOVE, .u.id.id = 0 };
    uint32_t frames;

    open_vp8(1);
    if (removed) {
        CHECK_EQ(stage_route((struct vc_command){ .type = VC_CMD_ROUTE_REMOVE, .u.id.id = 1 }),
                 VC_STATUS_OK);
    } else {
        encoders[1].wants_key = 1;
        CHECK_EQ(stage_switch(1), VC_STATUS_OK);
        for (int i = 0; i < 100 && world.node->routes[1].feeds[0].source == 0; i++)
            stage_run(1);
    }
    CHECK_EQ(stage_route(end), VC_STATUS_OK);
    encoders[0].ssrc += 0x100;
    encoders[0].index = 7;
    CHECK_EQ(stage_route(world_source_command(0, 0, encoders[0].ssrc, 1)), VC_STATUS_OK);
    stage_run(100);
    world_restart(&world);
    frames = video.frames;
    video.lax = sound.lax = 1;
    video.unaligned = 1;
    video.from = 99;
    stage_table(0);
    stage_run(500);
    CHECK(video.frames > frames + 10);
    stage_close();
}

/* Both encode a picture at once: its second coming is a tick ahead, and it is taken back. */
static void test_same_picture(void)
{
    stage_open(1, VC_CODEC_H264, FORM_NONE, FORM_NONE, 0);
    stage_run(500);
    for (uint32_t i = 1; i <= 60; i++) {
        CHECK_EQ(stage_switch(i % 2), VC_STATUS_OK);
        stage_run(410);
        CHECK_EQ(video.from, i % 2);
    }
    CHECK(video.clock_error_max < 30);
    stage_close();
}

/* Reports that are wrong by some ms: a key frame of the picture that has just left seems older, and
   is taken all the same. */
static void test_inexact(int64_t error_ms)
{
    uint32_t asked;

    stage_open(1, VC_CODEC_VP8, FORM_15, FORM_15, 0);
    encoders[1].report_lie_ns = (uint64_t)error_ms * WORLD_MS;
    stage_run(700);
    asked = stage_asked();
    for (uint32_t i = 1; i <= 20; i++) {
        CHECK_EQ(stage_switch(i % 2), VC_STATUS_OK);
        stage_run(410);
        CHECK_EQ(video.from, i % 2);
        CHECK(stage_asked() - asked <= i);
    }
    CHECK_EQ(video.changes, 20);
    CHECK(video.clock_error_max < 90 * 9);
    stage_close();
}

/* One layer's packets come 80 ms after the other's: its key frames are older than what has left.  They
   are taken at the first request; three frames later the clock is the sender's, and the reports tell
   of it all the while. */
static void test_late(uint32_t worker_cnt)
{
    uint32_t asked, repeated;
    uint16_t first;

    stage_open(worker_cnt, VC_CODEC_VP8, FORM_15, FORM_15, 0);
    encoders[1].delay_ns = encoders[0].delay_ns + 80 * WORLD_MS;
    stage_run(700);
    asked = stage_asked();
    for (uint32_t i = 1; i <= 20; i++) {
        CHECK_EQ(stage_switch(i % 2), VC_STATUS_OK);
        stage_run(500 + i * 7);
        CHECK_EQ(video.from, i % 2);
        CHECK(stage_asked() - asked <= i);
    }
    CHECK_EQ(video.changes, 20);
    CHECK(video.clock_error_max < 90 * 82);
    CHECK(video.frames_off <= 10 * 2);
    CHECK(video.report_error_max < 90);
    CHECK_EQ(stage_switch(1), VC_STATUS_OK);
    while (video.changes < 21)
        stage_run(1);
    first = video.seq;
    stage_run(100);
    repeated = resent;
    stage_nack(first); /* what left too late comes again as it was */
    CHECK_EQ(resent, repeated + 1);
    CHECK(world.node->routes[1].late);
    stage_run(94000); /* 2^23 ticks, when nobody asks for it any more */
    CHECK(!world.node->routes[1].late);
    CHECK(video.frames_off <= 11 * 2);
    stage_close();
}

/* A sender that lies about its clock by an hour is not believed; by a second it is, forwards. */
static void test_lies(void)
{
    open_vp8(1);
    encoders[1].reports = 0;
    encoders[1].report_lie_ns = 3600000000000ull;
    encoders[1].reports = 1;
    encoders[1].report_ns = 0;
    stage_run(10);
    CHECK_EQ(stage_switch(1), VC_STATUS_OK);
    video.unaligned = 1;
    stage_run(4000);
    CHECK_EQ(video.changes, 1);
    stage_close();
}

/* The payload type belongs to the source, and changes with it. */
static void test_types(void)
{
    struct vc_command route;

    open_vp8(1);
    stage_run(700);
    encoders[1].silent = 1;
    route = world_route_command(&world, 1, 1, 1, OUT_VIDEO, 1);
    route.u.route_set.pt = 120;
    CHECK_EQ(stage_route(route), VC_STATUS_OK);
    stage_run(100);
    CHECK_EQ(video.pt, 101);
    encoders[1].silent = 0;
    encoders[1].next_ns = world.now_ns;
    stage_run(100);
    CHECK_EQ(video.from, 1);
    CHECK_EQ(video.pt, 120);
    stage_close();
}

/* What left before a change is not sent again; what left after it is, as it was (the tap of
   test_resend holds that they are the same bytes). */
static void test_resends(void)
{
    const struct vc_counters *c;
    uint16_t before;
    uint64_t gone;

    open_vp8(1);
    c = world_counters(&world, 0);
    before = video.seq;
    stage_nack(before);
    CHECK_EQ(c->resent_plain, 1);
    CHECK_EQ(stage_switch(1), VC_STATUS_OK);
    stage_run(300);
    CHECK_EQ(video.from, 1);
    gone = c->resend_gone;
    stage_nack(before);
    CHECK_EQ(c->resend_gone, gone + 1);
    stage_nack(video.seq);
    CHECK_EQ(c->resent_plain, 2);
    CHECK_EQ(resent, 2);
    stage_close();
}

int main(void)
{
    VC_ASSERT(srtp_init() == srtp_err_status_ok);
    for (uint32_t n = 1; n <= 2; n++) {
        test_layers(n, VC_CODEC_VP8, FORM_15, FORM_15, 0);
        test_layers(n, VC_CODEC_VP8, FORM_7, FORM_7, 0);
        test_layers(n, VC_CODEC_VP8, FORM_15, FORM_7, 1);
        test_layers(n, VC_CODEC_VP8, FORM_NONE, FORM_NONE, 0);
        test_layers(n, VC_CODEC_VP9, FORM_15, FORM_15, 0);
        test_layers(n, VC_CODEC_VP9, FORM_7, FORM_15, 1);
        test_layers(n, VC_CODEC_H264, FORM_NONE, FORM_NONE, 0);
        test_layers(n, VC_CODEC_AV1, FORM_NONE, FORM_NONE, 1);
        test_whole_frames(n);
        test_no_end(n, 0);
        test_no_end(n, 1);
        test_late(n);
        test_hasty(n);
        test_waits_for_reports(n);
        test_never_a_report(n);
        test_minds_changed(n);
        test_stranger(n);
        test_sound(n);
        test_gate(n);
        test_set_again(n);
        test_restart(n);
    }
    test_id_given_anew(0);
    test_id_given_anew(1);
    test_same_picture();
    test_inexact(4);
    test_inexact(-4);
    test_lies();
    test_types();
    test_resends();
    stage_tally(&check_passed, &check_failed);
    srtp_shutdown();
    return check_report();
}
