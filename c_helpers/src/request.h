/* SPDX-License-Identifier: MIT */
/* Requests for key frames, from whoever misses one, to the source's sender.

   They are timers of the worker that owns the source, which is how they are merged; one source is
   asked at most once in VC_KEYFRAME_THROTTLE_NS. */
#ifndef VC_REQUEST_H
#define VC_REQUEST_H

#include "node.h"

/* Asks the owner of the source for a key frame.  Never sends at once: vc_request_timers does. */
void vc_request_keyframe(struct vc_worker *w, uint32_t source);
/* Sends what is due; returns how many. */
uint32_t vc_request_timers(struct vc_worker *w);

#endif
