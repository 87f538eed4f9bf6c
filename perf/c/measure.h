/* SPDX-License-Identifier: MIT */
/* What a run of stamps says: one-way delay, PDV, IPDV, departure spacing, jitter, frames, loss.

   A stream is one SSRC at one destination port.  Definitions:
     delay   departure (stamp) less the packet's send time
     pdv     delay less the least delay of the stream in the run (RFC 5481 section 4.2)
     ipdv    |delay - delay of the packet before it in sequence| (RFC 3393)
     ipd     |gap between two consecutive packets of one frame - their gap in the even schedule|,
             where the even schedule sends the frame at `spacing_bps`: 8 * length / spacing_bps
     jitter  RFC 3550 section 6.4.1 at the end of the run, 90 kHz clock, mean over the streams
     frame   completion: last packet's departure less the first packet's send time, of frames of
             which every packet came
   All memory is taken by measure_new.  One thread. */
#ifndef VC_PERF_MEASURE_H
#define VC_PERF_MEASURE_H

#include <stdint.h>
#include <stdio.h>

#include "histogram.h"
#include "rig.h"

struct record { /* 48 bytes */
    uint64_t arrival_ns, send_ns, frame_ns, index;
    uint32_t rtp_time;
    uint16_t port, flow, length, frame_packets;
};

struct measure {
    struct record *records;
    uint64_t cnt, max, overflow, unmatched, lost, reordered, duplicates;
    uint64_t frames, frames_whole, first_ns, last_ns;
    uint64_t streams;
    double jitter_us, spacing_bps;
    struct histogram delay, pdv, ipdv, ipd, gap, frame;
};

/* NULL on lack of memory. */
struct measure *measure_new(uint64_t records_max, double spacing_bps);
void measure_delete(struct measure *m);
void measure_reset(struct measure *m);
/* Matches a stamp with the times file; counts what cannot be matched or kept. */
void measure_stamp(struct measure *m, const struct times_header *times, const struct stamp *stamp);
/* Sorts the records into streams and fills the histograms; once, before measure_print. */
void measure_finish(struct measure *m);
/* One JSON object; times in microseconds. */
void measure_print(const struct measure *m, FILE *to, int buckets);

#endif
