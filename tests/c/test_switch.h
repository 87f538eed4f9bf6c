/* SPDX-License-Identifier: MIT */
/* A stage for changes of source: encoders that answer requests for key frames and report their
   clocks, a node, and a receiver that is libsrtp and counts.  Time goes on by stage_run alone. */
#ifndef TEST_SWITCH_H
#define TEST_SWITCH_H

#include "world.h"

#define ENCODERS 5u /* 0, 1: one picture twice; 2, 4: sound; all of one sender; 3: of another */
#define SOUND 2u
#define STRANGER 3u
#define SOUND_2 4u
#define OUT_VIDEO 0x101u
#define OUT_SOUND 0x102u

enum form { FORM_15, FORM_7, FORM_NONE }; /* of a picture id */

struct encoder {
    enum vc_codec codec;
    enum form form;
    uint32_t leg, ssrc, clock_hz, base; /* base: timestamp at time 0 */
    uint64_t delay_ns;                  /* from capture to here */
    uint64_t apart_ns;                  /* the packets of a frame */
    uint64_t next_ns, index, report_ns; /* next_ns: of capture */
    uint16_t picture, frame;
    uint8_t tl0, key, tid;
    uint32_t part; /* of the frame, the next to be sent; and whether it is a key frame */
    int is_key;
    int wants_key, silent, reports;
    int loses_end; /* of this frame */
    uint64_t report_lie_ns; /* added to what its reports say of the time */
    uint32_t keys;
};

struct watcher { /* what came of one outgoing stream */
    int begun;
    int lax;      /* one jump of numbers is allowed, by LAX at most */
    int unaligned; /* the next change is to another clock */
    uint16_t seq;
    uint8_t pt;
    uint32_t timestamp, frames, packets, reports, base; /* base: out timestamp at origin_ns */
    uint32_t parts, halves; /* packets of the newest frame; frames that were not whole */
    uint64_t capture_ns, origin_ns, arrival_ns;
    struct vc_ids ids;
    uint16_t picture;   /* in 15 bits, whatever the last form was */
    uint8_t from;       /* the encoder of the last frame */
    uint32_t changes;   /* of it */
    uint32_t reports_at_change; /* how many of them had a report in their cycle */
    int64_t clock_error_max, report_error_max; /* ticks */
    uint32_t frames_off; /* by more than 45 ms */
};

extern struct world world;
extern struct encoder encoders[ENCODERS];
extern struct watcher video, sound;
extern uint32_t plis[ENCODERS], resent; /* resent: video that came again, byte for byte */

/* One worker, or two: then the senders belong to the first and the receiver to the second. */
void stage_open(uint32_t workers, enum vc_codec codec, enum form low, enum form high,
                int dependency);
void stage_close(void);
void stage_run(uint32_t ms);
/* The whole table; which source the outgoing video reads. */
void stage_table(uint32_t source);
enum vc_status stage_switch(uint32_t source);
enum vc_status stage_route(struct vc_command command);
/* The receiver asks for a number again. */
void stage_nack(uint16_t number);
/* Requests for key frames that the senders got. */
uint32_t stage_asked(void);
/* What was checked on the way. */
void stage_tally(unsigned *good, unsigned *bad);

#endif
