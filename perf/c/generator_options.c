/* SPDX-License-Identifier: MIT */
#include "generator.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crypto.h"

_Noreturn void generator_fail(const char *what, const char *detail)
{
    fprintf(stderr, "generator: %s: %s\n", what, detail);
    exit(1);
}

static uint64_t number(const char *what, const char *text, uint64_t low, uint64_t high)
{
    char *end;
    unsigned long long value;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno || end == text || *end || text[0] == '-' || value < low || value > high)
        generator_fail(what, "not a number in its range");
    return value;
}

static double positive(const char *what, const char *text)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end || !(value > 0 && value < 1e9))
        generator_fail(what, "not a positive number");
    return value;
}

static void ports(struct options *o, char *list)
{
    for (char *at = strtok(list, ","); at; at = strtok(NULL, ",")) {
        if (o->dst_port_cnt == FLOWS_MAX)
            generator_fail("--dst-port", "too many ports");
        o->dst_ports[o->dst_port_cnt++] = (uint16_t)number("--dst-port", at, 1, 65535);
    }
}

static uint32_t suite(const char *name)
{
    if (!strcmp(name, "gcm"))
        return VC_SRTP_AEAD_AES_128_GCM;
    if (!strcmp(name, "sha1"))
        return VC_SRTP_AES_CM_128_HMAC_SHA1_80;
    if (strcmp(name, "none"))
        generator_fail("--suite", "gcm, sha1 or none");
    return VC_SRTP_NONE;
}

static void check(const struct options *o, int stray)
{
    if (stray || (o->fd ? o->dst_port_cnt || o->dst_ip : !o->dst_ip || !o->dst_port_cnt))
        generator_fail("options", "either --dst-ip and --dst-port, or --fd; no other arguments");
    if (!(o->rate > 0) == !(o->fps > 0 && o->per_frame))
        generator_fail("options", "either --rate, or --frames and --per-frame");
    if (!o->key_every != !o->key_packets)
        generator_fail("options", "--key-every and --key-packets go together");
    if (!o->fd && o->dst_port_cnt != 1 && o->dst_port_cnt != o->flows)
        generator_fail("--dst-port", "one port, or one for each flow");
    if (o->src_port_base && o->src_port_base + o->flows > 65536)
        generator_fail("--src-port", "beyond 65535");
    if ((o->suite != VC_SRTP_NONE) != (o->keys != NULL))
        generator_fail("options", "--suite and --keys go together");
}

void generator_options(struct options *o, int argc, char **argv)
{
    static const struct option known[] = {
        { "dst-ip", 1, 0, 'd' },      { "dst-port", 1, 0, 'p' },   { "rate", 1, 0, 'r' },
        { "frames", 1, 0, 'f' },      { "per-frame", 1, 0, 'k' },  { "key-every", 1, 0, 'e' },
        { "key-packets", 1, 0, 'K' }, { "flows", 1, 0, 'F' },      { "src-port", 1, 0, 's' },
        { "size", 1, 0, 'z' },        { "seconds", 1, 0, 't' },    { "ssrc", 1, 0, 'S' },
        { "index", 1, 0, 'i' },       { "payload-type", 1, 0, 'y' }, { "tick-us", 1, 0, 'u' },
        { "batch", 1, 0, 'b' },       { "suite", 1, 0, 'c' },      { "keys", 1, 0, 'C' },
        { "times", 1, 0, 'T' },       { "reuse-port", 0, 0, 'R' },
        { "fd", 1, 0, 'D' },          { "h264", 0, 0, 'H' },       { 0, 0, 0, 0 },
    };
    int c;

    while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (c) {
        case 'd':
            if (inet_pton(AF_INET, optarg, &o->dst_ip) != 1)
                generator_fail("--dst-ip", "not an IPv4 address");
            break;
        case 'p': ports(o, optarg); break;
        case 'r': o->rate = positive("--rate", optarg); break;
        case 'f': o->fps = positive("--frames", optarg); break;
        case 'k': o->per_frame = (uint32_t)number("--per-frame", optarg, 1, 60000); break;
        case 'e': o->key_every = (uint32_t)number("--key-every", optarg, 1, 1000000); break;
        case 'K': o->key_packets = (uint32_t)number("--key-packets", optarg, 1, 60000); break;
        case 'F': o->flows = (uint32_t)number("--flows", optarg, 1, FLOWS_MAX); break;
        case 's': o->src_port_base = (uint32_t)number("--src-port", optarg, 1, 65535); break;
        case 'z': o->size = (uint32_t)number("--size", optarg, SIZE_MIN, SIZE_MAX_); break;
        case 't': o->seconds = positive("--seconds", optarg); break;
        case 'S': o->ssrc = (uint32_t)number("--ssrc", optarg, 1, UINT32_MAX); break;
        case 'i': o->index = number("--index", optarg, 0, (1ull << 48) - 1); break;
        case 'y': o->type = (uint32_t)number("--payload-type", optarg, 0, 127); break;
        case 'u': o->tick_us = (uint32_t)number("--tick-us", optarg, 1, 1000000); break;
        case 'b': o->batch = (uint32_t)number("--batch", optarg, 1, BATCH_MAX); break;
        case 'c': o->suite = suite(optarg); break;
        case 'C': o->keys = optarg; break;
        case 'T': o->times = optarg; break;
        case 'R': o->reuse_port = 1; break;
        case 'D': o->fd = (int)number("--fd", optarg, 1, 65535); break;
        case 'H': o->h264 = 1; break;
        default: generator_fail("options", "see the head of perf/c/generator.c");
        }
    }
    check(o, optind != argc);
}
