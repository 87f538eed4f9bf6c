/* SPDX-License-Identifier: MIT */
/* How a route rewrites the ids of frames (descriptor.h): out id = in id + offset, in the width of
   each, constant over a stretch.

   A stretch begins with the first packet after a change of source, or after something was dropped
   on purpose; its first frame gets the id after the highest that left, so that a decoder sees no
   hole and no repetition.  The offset of an id is fixed by the first packet of the stretch that has
   it, and never changes then: a resend finds the stretch by its out index and comes out the same.
   The last VC_REWRITE_STRETCHES of one source are remembered.

   A route whose first source goes on for ever changes nothing (all offsets are 0).

   Pure: no clock, no memory beside the struct. */
#ifndef VC_REWRITE_H
#define VC_REWRITE_H

#include <stdint.h>

#include "vcfwd/abi.h"

#define VC_REWRITE_STRETCHES 4u

struct vc_rewrite {
    struct vc_ids highest; /* that may have left; has: those that any packet had */
    uint8_t cnt;
    uint8_t changed; /* the newest stretch is not what it was when somebody cleared this */
    uint8_t codec;   /* of the packets that left last, enum vc_codec */
    uint8_t pad[5];
    struct {
        uint64_t from;        /* out index */
        struct vc_ids offset; /* has: those that are fixed */
    } stretches[VC_REWRITE_STRETCHES]; /* ascending */
};

/* A stretch begins at this out index. */
void vc_rewrite_begin(struct vc_rewrite *rewrite, uint64_t out);
/* The same, of another source: what left before cannot be made again. */
void vc_rewrite_switch(struct vc_rewrite *rewrite, uint64_t out);
/* Out indices begin anew from here, with the frames as they were. */
void vc_rewrite_renumber(struct vc_rewrite *rewrite, uint64_t out);

/* vc_rewrite_map makes in ids the out ids of the packet with this out index.  first: it leaves for
   the first time.  1: some change, 0: none does, -1: its stretch is not known any more. */
int vc_rewrite_map(struct vc_rewrite *rewrite, uint64_t out, struct vc_ids *ids, int first);

/* The newest stretch's offsets. */
struct vc_ids vc_rewrite_offset(const struct vc_rewrite *rewrite);
/* Goes on from an earlier life: the highest ids that may have left and, where the frames go on as
   they were, their offsets (NULL: another source follows). */
void vc_rewrite_restore(struct vc_rewrite *rewrite, const struct vc_ids *highest,
                        const struct vc_ids *offset);

#endif
