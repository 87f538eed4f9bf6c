/* SPDX-License-Identifier: MIT */
#include "timeline.h"

uint32_t vc_timeline_ticks(int64_t ntp, uint32_t clock_hz)
{
    uint64_t seconds = (uint64_t)ntp >> 32, fraction = (uint64_t)ntp & 0xffffffffu;

    /* modulo 2^32, so a negative number of seconds comes out right as well */
    return (uint32_t)(seconds * clock_hz + ((fraction * clock_hz + 0x80000000u) >> 32));
}

uint32_t vc_timeline_offset(const struct vc_sender_report *from, uint32_t from_offset,
                            const struct vc_sender_report *to, uint32_t clock_hz)
{
    uint32_t passed = vc_timeline_ticks((int64_t)(to->ntp - from->ntp), clock_hz);

    return from->rtp_timestamp + from_offset + passed - to->rtp_timestamp;
}

uint32_t vc_timeline_after(uint32_t last, uint64_t passed_ns, uint32_t clock_hz)
{
    return last + (uint32_t)(passed_ns / 1000u * clock_hz / 1000000u);
}
