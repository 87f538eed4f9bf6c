/* SPDX-License-Identifier: MIT */
/* Every reason why a packet or a copy is not forwarded: one list, from which counters,
   labels, `vcfwd status` and the metrics derive.  Add a line, return it in one place, test it.

   Received packets obey   rx = routed + consumed + sum(VC_DROPS)
   Outgoing copies obey    copies = transmitted + sum(VC_COPY_DROPS) + queued
   X(NAME, label, what) */
#ifndef VCFWD_DROP_H
#define VCFWD_DROP_H

/* clang-format off */
#define VC_DROPS(X) \
    X(MALFORMED,       "malformed",        "not a UDP datagram to us, or its lengths lie") \
    X(UNKNOWN_FLOW,    "unknown_flow",     "no leg has this 5-tuple") \
    X(BAD_CLASS,       "bad_class",        "not RTP or RTCP by its first byte") \
    X(RTP_TRUNCATED,   "rtp_truncated",    "RTP header, extension or tag cut short") \
    X(RTP_VERSION,     "rtp_version",      "RTP version is not 2") \
    X(UNKNOWN_SSRC,    "unknown_ssrc",     "no source of the leg has this SSRC, and none could be bound") \
    X(REPLAYED,        "replayed",         "SRTP index already seen or older than the window (RFC 3711)") \
    X(AUTH_FAILED,     "auth_failed",      "SRTP tag does not verify") \
    X(HISTORY_FULL,    "history_full",     "the history's oldest slot is still too young to be reused") \
    X(TOO_LONG,        "too_long",         "longer than a slot of the source's size class") \
    X(RTCP_TRUNCATED,  "rtcp_truncated",   "SRTCP cut short or not a compound we understand") \
    X(RTCP_REPLAYED,   "rtcp_replayed",    "SRTCP index already seen") \
    X(RTCP_AUTH_FAILED,"rtcp_auth_failed", "SRTCP tag does not verify") \
    X(HANDOFF_FULL,    "handoff_full",     "the ring to the worker that holds this leg is full") \
    X(LEG_NO_KEYS,     "leg_no_keys",      "the leg has no keys yet")

#define VC_COPY_DROPS(X) \
    X(GATE,            "gate",             "the route waits for a key frame") \
    X(FILTER,          "filter",           "the route's filter, or RED with nothing for its receiver") \
    X(STALE,           "stale",            "the history slot was reused before the copy left") \
    X(QUEUE_LIMIT,     "queue_limit",      "older than the queue's limit, or the queue was full") \
    X(NUMBERING,       "numbering",        "a late packet that no number is left for") \
    X(INDEX_USED,      "index_used",       "its SRTP index may have left before a restart") \
    X(NO_PATH,         "no_path",          "no header template and no media socket for the leg") \
    X(TX_FULL,         "tx_full",          "no transmit frame or ring entry") \
    X(TX_ERROR,        "tx_error",         "the kernel refused the packet") \
    X(PADDING,         "padding",          "nothing but padding") \
    X(PAYLOAD_TYPE,    "payload_type",     "of a payload type that was not agreed on for its source") \
    X(REMOVED,         "removed",          "its route or source was removed while it was queued")
/* clang-format on */

enum vc_drop {
#define VC_X(name, label, what) VC_DROP_##name,
    VC_DROPS(VC_X)
#undef VC_X
    VC_DROP_COUNT
};

enum vc_copy_drop {
#define VC_X(name, label, what) VC_COPY_DROP_##name,
    VC_COPY_DROPS(VC_X)
#undef VC_X
    VC_COPY_DROP_COUNT
};

#endif
