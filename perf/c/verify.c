/* SPDX-License-Identifier: MIT */
#include "verify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base.h"
#include "crypto.h"

#define PORTS 65536u
#define RTP_HEADER 12u

struct verify {
    struct vc_crypto *crypto;
    struct vc_crypto_key *keys[PORTS];
    struct verify_counts counts;
};

static int hex(const char *text, uint8_t *to, size_t most)
{
    size_t n = strlen(text) / 2;

    for (size_t i = 0; i < n && i < most; i++) {
        unsigned byte;

        if (sscanf(text + 2 * i, "%2x", &byte) != 1)
            return -1;
        to[i] = (uint8_t)byte;
    }
    return n > most ? -1 : 0;
}

static int add_key(struct verify *v, unsigned port, const char *suite, const char *key, const char *salt)
{
    uint8_t raw[16] = { 0 }, raw_salt[14] = { 0 };
    enum vc_srtp_suite kind = !strcmp(suite, "gcm")  ? VC_SRTP_AEAD_AES_128_GCM :
                              !strcmp(suite, "sha1") ? VC_SRTP_AES_CM_128_HMAC_SHA1_80 : VC_SRTP_NONE;

    if (port >= PORTS || v->keys[port] || hex(key, raw, sizeof raw) || hex(salt, raw_salt, sizeof raw_salt))
        return -1;
    v->keys[port] = aligned_alloc(64, sizeof *v->keys[port]);
    return v->keys[port] ? vc_crypto_key_init(v->crypto, v->keys[port], kind, raw, raw_salt) : -1;
}

struct verify *verify_new(const char *path, const char **why)
{
    struct verify *v = calloc(1, sizeof *v);
    FILE *file = fopen(path, "r");
    char suite[9], key[65], salt[65];
    unsigned port;

    *why = "cannot open the key file";
    if (!v || !file)
        goto fail;
    *why = "the SRTP engine is not available on this CPU";
    v->crypto = vc_crypto_new(VC_CRYPTO_AUTO);
    if (!v->crypto)
        goto fail;
    *why = "a line of the key file is no \"port suite key salt\", or its port is there twice";
    while (fscanf(file, "%u %8s %64s %64s", &port, suite, key, salt) == 4)
        if (add_key(v, port, suite, key, salt))
            goto fail;
    fclose(file);
    return v;
fail:
    if (file)
        fclose(file);
    if (v)
        verify_delete(v);
    return NULL;
}

void verify_delete(struct verify *v)
{
    for (unsigned port = 0; port < PORTS; port++)
        free(v->keys[port]);
    if (v->crypto)
        vc_crypto_delete(v->crypto);
    free(v);
}

static int is_what_was_sent(const uint8_t *rtp, uint32_t size, const struct times_entry *e)
{
    struct probe probe;

    if (size < RTP_HEADER + sizeof probe)
        return 0;
    memcpy(&probe, rtp + RTP_HEADER, sizeof probe);
    if (probe.send_ns != e->send_ns || probe.sequence != e->index)
        return 0;
    for (uint32_t j = RTP_HEADER + sizeof probe; j < size; j++)
        if (rtp[j] != (uint8_t)j)
            return 0;
    return 1;
}

void verify_sample(struct verify *v, const struct times_header *times, const struct sample *sample)
{
    const struct times_entry *entries = (const struct times_entry *)(times + 1);
    uint16_t sequence = vc_load_be16(sample->data + 2);
    uint32_t flow = vc_load_be32(sample->data + 8) - times->ssrc_base;
    uint8_t clear[SAMPLE_MAX + VC_CRYPTO_TAG_MAX];
    struct vc_crypto_item item = { .key = v->keys[sample->port], .src = sample->data, .dst = clear,
                                   .src_sz = sample->length, .hdr_sz = RTP_HEADER };
    struct times_entry e;

    if (!item.key || flow >= times->flows) {
        v->counts.not_authentic++; /* nothing of this kind was due at this port */
        return;
    }
    e = entries[(size_t)flow * times->slots + (sequence & (times->slots - 1))];
    if ((uint16_t)e.index != sequence || e.rtp_time != vc_load_be32(sample->data + 4)) {
        v->counts.unmatched++;
        return;
    }
    item.index = e.index;
    if (vc_crypto_open_rtp(v->crypto, &item, 1) != 1)
        v->counts.not_authentic++;
    else if (!is_what_was_sent(clear, item.dst_sz, &e))
        v->counts.wrong_payload++;
    else
        v->counts.good++;
}

struct verify_counts verify_counts(const struct verify *v)
{
    return v->counts;
}
