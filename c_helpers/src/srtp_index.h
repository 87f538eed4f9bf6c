/* SPDX-License-Identifier: MIT */
/* The pure index arithmetic goes here; struct vc_rx_index (1024) and struct vc_rtcp_index (128) are
   defined in vcfwd/abi.h, because they lie in the index store that outlives the process. */
#ifndef VC_SRTP_INDEX_H
#define VC_SRTP_INDEX_H
#include "vcfwd/abi.h"
#endif
