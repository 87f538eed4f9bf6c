/* SPDX-License-Identifier: MIT */
/* SRTP and SRTCP transforms in bursts.

   A vc_crypto is one engine: it owns scratch memory for bursts and is used by
   one thread (each worker has its own).  A vc_crypto_key is the expanded
   session keys of one direction of one leg, derived once from the master key
   and salt (RFC 3711 section 4.3; key derivation rate 0).  Keys are plain
   memory owned by the caller; any engine of the same backend may use them.

   Two backends stand behind this interface, chosen at vc_crypto_new:
   intel-ipsec-mb (crypto_imb.c, the default where the CPU has AES-NI) and
   OpenSSL EVP (crypto_evp.c, any CPU).

   The engine is a pure transform: it knows no roll-over counters, replay
   windows or streams.  The caller passes the packet index; nonce and AAD are
   built here (RFC 7714 sections 8 and 9; RFC 3711 sections 4.1 and 4.2).
   Out of place by design: the cipher is the copy.  In place works too: dst == src,
   or src == dst + hdr_sz where the header comes from `hdr`.  No other overlap.

   SRTCP accepts an authentic packet with the E flag clear (RFC 3711 section 3.4) and
   always seals with it set.

   No allocation after new (key_init included), no system calls, no clock.  One exception is
   OpenSSL's own: 3.0 takes and frees a 96-byte context for each SHA-1, so EVP with CM does.
   Limits: VC_CRYPTO_BURST items a call (more aborts); packets up to VC_CRYPTO_MAX_SZ
   bytes, header included; RTP index below 2^48, RTCP index below 2^31.  An item outside
   them, or shorter than its suite allows, gets ok = 0 and dst is not touched. */
#ifndef VC_CRYPTO_H
#define VC_CRYPTO_H

#include <stddef.h>
#include <stdint.h>

#define VC_CRYPTO_BURST 64
#define VC_CRYPTO_MAX_SZ 2048
#define VC_CRYPTO_TAG_MAX 16       /* bytes a sealed RTP packet may grow by */
#define VC_CRYPTO_RTCP_GROW_MAX 20 /* tag and the 4-byte E||index word */

/* DTLS-SRTP protection profile numbers (RFC 5764 section 4.1.2, RFC 7714 section 14.2) */
enum vc_srtp_suite {
    VC_SRTP_NONE = 0,
    VC_SRTP_AES_CM_128_HMAC_SHA1_80 = 0x0001,
    VC_SRTP_AEAD_AES_128_GCM = 0x0007,
};

enum vc_crypto_backend { VC_CRYPTO_AUTO = 0, VC_CRYPTO_IMB = 1, VC_CRYPTO_EVP = 2 };

struct vc_crypto; /* opaque engine */

/* Expanded session keys of one direction: SRTP and SRTCP.  Opaque bytes so that
   tables can hold it by value; 64-byte aligned.  Two of these a leg.  1280 bytes are the
   AES-GCM key of ipsec-mb with its powers of H, 64 the rest: the SRTCP key of GCM is kept
   raw and expanded at use (RTCP is rare), or the size would double. */
#define VC_CRYPTO_KEY_SZ 1344
struct vc_crypto_key {
    _Alignas(64) uint8_t opaque[VC_CRYPTO_KEY_SZ];
};

struct vc_crypto_item {
    const struct vc_crypto_key *key;
    const uint8_t *src; /* seal: the clear packet; open: the protected one */
    uint8_t *dst;       /* holds src_sz + VC_CRYPTO_TAG_MAX (RTCP: VC_CRYPTO_RTCP_GROW_MAX) */
    uint32_t src_sz;    /* bytes */
    uint32_t hdr_sz;    /* RTP: header incl. CSRC and extension, not encrypted, authenticated.
                           RTCP: ignored (always 8) */
    uint64_t index; /* RTP: 48-bit ROC||SEQ; RTCP: 31-bit SRTCP index (open: read from the packet by
                       the engine) */
    uint32_t dst_sz; /* out: bytes written */
    uint32_t ok;     /* out: 1 sealed or authentic, 0 not (dst content is then undefined) */
    /* seal only, when src's header is not the header to send: hdr != NULL gives the outgoing
       header (hdr_sz bytes, written to dst and used as AAD) and src is then the payload alone
       (src_sz = payload bytes).  NULL: src starts with its header. */
    const uint8_t *hdr;
};

/* vc_crypto_new returns an engine or NULL when the backend is not available here
   (AUTO falls back from IMB to EVP). */
struct vc_crypto *vc_crypto_new(enum vc_crypto_backend backend);
void vc_crypto_delete(struct vc_crypto *crypto);
const char *
vc_crypto_backend_name(const struct vc_crypto *crypto); /* "ipsec-mb avx512", "openssl 3.0.x" ... */

/* vc_crypto_key_init derives and expands session keys.  master_key: 16 bytes; master_salt: 14
   bytes for CM, 12 for GCM (the caller's buffer always has 14).  Returns 0, or -1 for an unknown
   suite. */
int vc_crypto_key_init(struct vc_crypto *crypto, struct vc_crypto_key *key,
                       enum vc_srtp_suite suite, const uint8_t master_key[16],
                       const uint8_t master_salt[14]);
void vc_crypto_key_wipe(struct vc_crypto_key *key);
enum vc_srtp_suite vc_crypto_key_suite(const struct vc_crypto_key *key);

/* Bursts.  n <= VC_CRYPTO_BURST; items may mix suites and keys.  Each item's `ok` and `dst_sz`
   are set; returns the number of items with ok = 1.  src of different items may be the same
   packet (fan-out). */
uint32_t vc_crypto_seal_rtp(struct vc_crypto *crypto, struct vc_crypto_item *items, uint32_t n);
uint32_t vc_crypto_open_rtp(struct vc_crypto *crypto, struct vc_crypto_item *items, uint32_t n);
uint32_t vc_crypto_seal_rtcp(struct vc_crypto *crypto, struct vc_crypto_item *items, uint32_t n);
/* open_rtcp also writes item->index = the index found in the packet, whether or not it is
 * authentic. */
uint32_t vc_crypto_open_rtcp(struct vc_crypto *crypto, struct vc_crypto_item *items, uint32_t n);

/* Bytes that a sealed packet of this suite is longer than the clear one. */
uint32_t vc_srtp_tag_sz(enum vc_srtp_suite suite);   /* GCM 16, CM+SHA1-80 10 */
uint32_t vc_srtcp_grow_sz(enum vc_srtp_suite suite); /* GCM 20, CM+SHA1-80 14 */

#endif
