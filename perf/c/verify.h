/* SPDX-License-Identifier: MIT */
/* Opens sampled datagrams and compares them with what the generator sent.  One thread. */
#ifndef VC_PERF_VERIFY_H
#define VC_PERF_VERIFY_H

#include <stdint.h>

#include "rig.h"

struct verify;

/* `path`: a line "port suite key salt" for each destination port, suite gcm or sha1, the rest in
   hexadecimal.  NULL with a sentence in *why. */
struct verify *verify_new(const char *path, const char **why);
void verify_delete(struct verify *v);
/* The sample's index comes from the times file, so that the roll-over counter is known. */
void verify_sample(struct verify *v, const struct times_header *times, const struct sample *sample);

struct verify_counts {
    uint64_t good;
    uint64_t not_authentic, wrong_payload; /* faults */
    uint64_t unmatched;                    /* the times file has gone on: not judged */
};
struct verify_counts verify_counts(const struct verify *v);

#endif
