/* SPDX-License-Identifier: MIT */
/* The ids of frames by which decoders see order and loss, read and written where they lie: in the
   payload descriptors of VP8 (RFC 7741 section 4.2: PictureID, TL0PICIDX, KEYIDX) and VP9 (RFC 9628
   section 4.2: PictureID, TL0PICIDX), and in the Dependency Descriptor (AV1 RTP specification,
   appendix A.8.1: frame_number, the last two of its three mandatory bytes).

   Pure.  What is written has the size of what was there: a PictureID of 7 bits stays one of 7, an
   absent id stays absent.  A descriptor that ends before its ids do has none.  Never touches
   anything past sz. */
#ifndef VC_DESCRIPTOR_H
#define VC_DESCRIPTOR_H

#include <stdint.h>

#include "vcfwd/abi.h"

#define VC_DESCRIPTOR_SZ 8u /* so many bytes of a payload hold all its ids */

/* vc_descriptor_read adds the ids of a clear payload to `ids` (value and VC_ID_* in has). */
void vc_descriptor_read(enum vc_codec codec, const uint8_t *payload, uint32_t sz,
                        struct vc_ids *ids);
/* vc_descriptor_write puts those of `ids` that the payload has in their places. */
void vc_descriptor_write(enum vc_codec codec, uint8_t *payload, uint32_t sz,
                         const struct vc_ids *ids);

/* The same for the data of a Dependency Descriptor element. */
void vc_dependency_read(const uint8_t *data, uint32_t sz, struct vc_ids *ids);
void vc_dependency_write(uint8_t *data, uint32_t sz, const struct vc_ids *ids);

#endif
