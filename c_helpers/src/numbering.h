/* SPDX-License-Identifier: MIT */
/* Numbering of a route: out index = in index + offset, on 48-bit SRTP indices (ROC||SEQ).

   A packet that is missing upstream stays missing downstream, and a late one fills its own
   number.  Only deliberate drops move the offset: vc_numbering_skip for one packet,
   vc_numbering_suspend for a stretch (what follows continues without a hole).  The last
   VC_NUMBERING_RECORDS changes are remembered as (from in index, offset), so that a late packet gets the
   offset of its own stretch; one older than the records, or of a suspended stretch, has no
   number.

   Pure: no clock, no memory beside the struct. */
#ifndef VC_NUMBERING_H
#define VC_NUMBERING_H

#include <stdint.h>

#define VC_NUMBERING_RECORDS 16u

enum vc_number {
    VC_NUMBER_OK,
    VC_NUMBER_NONE, /* no number is left for it */
    VC_NUMBER_USED, /* its number may have left before a restart */
};

struct vc_numbering {
    struct {
        uint64_t from; /* in index */
        int64_t offset;
    } records[VC_NUMBERING_RECORDS]; /* ascending */
    uint32_t cnt;
    uint8_t started, suspended;
    uint8_t pad[2];
    uint64_t highest_in, highest_out;
    uint64_t floor;   /* out indices below belong to an earlier life */
    uint64_t sent[2]; /* the 128 out indices up to highest_out */
};

/* Begins (or, on a new source, goes on) with out for in. */
void vc_numbering_start(struct vc_numbering *numbering, uint64_t in, uint64_t out);
/* Continues an earlier life of which only the highest out index and the offset are known. */
void vc_numbering_restore(struct vc_numbering *numbering, uint64_t highest_out, int64_t offset);
/* Takes the number of a packet that is about to be sent.  One in index is taken once: the replay
   window at ingress accepts it once. */
enum vc_number vc_numbering_take(struct vc_numbering *numbering, uint64_t in, uint64_t *out);
/* The number that a packet took or would take now, without taking it. */
enum vc_number vc_numbering_find(const struct vc_numbering *numbering, uint64_t in, uint64_t *out);
/* One packet is dropped on purpose. */
void vc_numbering_skip(struct vc_numbering *numbering, uint64_t in);
/* Everything is dropped on purpose until the next take of a higher in index. */
void vc_numbering_suspend(struct vc_numbering *numbering);
/* The newest offset. */
int64_t vc_numbering_offset(const struct vc_numbering *numbering);

#endif
