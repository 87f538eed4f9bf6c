/* SPDX-License-Identifier: MIT */
#include "leg.h"

#include "node.h"

struct vc_source *vc_leg_source(const struct vc_worker *w, const struct vc_leg *leg, uint32_t ssrc)
{
    for (uint32_t at = leg->sources; at != VC_NONE; at = w->node->sources[at].next)
        if (w->node->sources[at].bound && w->node->sources[at].ssrc == ssrc)
            return &w->node->sources[at];
    return NULL;
}

struct vc_source *vc_leg_rtx_source(const struct vc_worker *w, const struct vc_leg *leg,
                                    uint32_t ssrc)
{
    for (uint32_t at = leg->sources; at != VC_NONE; at = w->node->sources[at].next)
        if (w->node->sources[at].rtx_bound && w->node->sources[at].rtx_ssrc == ssrc)
            return &w->node->sources[at];
    return NULL;
}

enum vc_status vc_leg_owned(const struct vc_worker *w, uint32_t id)
{
    if (id >= w->node->config.setup.legs_max)
        return VC_STATUS_BAD_ID;
    if (w->peers[id].owner == VC_NONE)
        return VC_STATUS_NO_LEG;
    return w->peers[id].owner == w->id ? VC_STATUS_OK : VC_STATUS_NOT_OWNER;
}
