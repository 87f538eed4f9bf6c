/* SPDX-License-Identifier: MIT */
/* A receiver that costs the relay next to nothing, and what it saw.

     receiver --if IF --port-base P [--ports N] [--min-size BYTES]
         [--times FILE [--stamp-ports N] [--records N] [--spacing-bps R] [--buckets] [--ring-mb N]
          [--keys FILE --sample-every N]]

   Attaches receiver.bpf.c (native XDP) to an interface: RTP to ports P .. P + N - 1 is counted and
   dropped, all else passes.  With --times (rig.h; the generator makes it) departures are stamped
   and measured between "measure" and "finish"; with --keys every N-th packet is opened, checked
   for authenticity and compared.  On veth the program runs inside the sender's transmit, so a stamp
   is the departure.  Says "ready" on standard error when set up.  Commands are lines on standard
   input, each answered by one line of JSON:
     count     packets and bytes so far, and when
     measure   forget what was measured; stamps count from now on (the times file is mapped anew)
     finish    stop stamping; the numbers (measure.h)
     ports     count of each port
   End of input ends it.  The program is detached when the process ends, in whatever way.  Polls
   its rings every 2 ms.  One thread. */
#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "measure.h"
#include "receiver.skel.h"
#include "verify.h"

#define PORTS_MAX 4096u

struct options {
    const char *interface, *times, *keys;
    unsigned port_base, ports, stamp_ports, min_size, ring_mb, sample_every;
    unsigned long long records;
    double spacing_bps;
    int buckets;
};

struct receiver {
    struct options o;
    struct receiver_bpf *bpf;
    struct ring_buffer *ring;
    struct measure *measure;
    struct verify *verify;
    struct times_header *times;
    size_t times_sz;
};

static _Noreturn void fail(const char *what, const char *detail)
{
    fprintf(stderr, "receiver: %s: %s\n", what, detail);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- set-up ------------------------------------------------------------------------------ */

static int on_stamp(void *context, void *data, size_t size)
{
    struct receiver *r = context;

    (void)size;
    if (r->times)
        measure_stamp(r->measure, r->times, data);
    return 0;
}

static int on_sample(void *context, void *data, size_t size)
{
    struct receiver *r = context;

    (void)size;
    if (r->times && r->verify)
        verify_sample(r->verify, r->times, data);
    return 0;
}

static void load(struct receiver *r)
{
    struct receiver_bpf *bpf = receiver_bpf__open();

    if (!bpf)
        fail("receiver.bpf", "cannot be opened");
    bpf->rodata->port_base = r->o.port_base;
    bpf->rodata->port_count = r->o.ports;
    bpf->rodata->stamp_ports = r->o.stamp_ports;
    bpf->rodata->min_payload = r->o.min_size;
    bpf->rodata->sample_every = r->o.keys ? r->o.sample_every : 0;
    if (bpf_map__set_max_entries(bpf->maps.counts, r->o.ports) ||
        bpf_map__set_max_entries(bpf->maps.stamps, r->o.times ? r->o.ring_mb << 20 : 4096) ||
        receiver_bpf__load(bpf))
        fail("receiver.bpf: cannot be loaded", strerror(errno));
    r->bpf = bpf;
    r->ring = ring_buffer__new(bpf_map__fd(bpf->maps.stamps), on_stamp, r, NULL);
    if (!r->ring || ring_buffer__add(r->ring, bpf_map__fd(bpf->maps.samples), on_sample, r))
        fail("ring buffers", strerror(errno));
}

static void attach(const struct receiver *r)
{
    LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = XDP_FLAGS_DRV_MODE);
    unsigned ifindex = if_nametoindex(r->o.interface);
    int fd = ifindex ? bpf_link_create(bpf_program__fd(r->bpf->progs.receiver), (int)ifindex, BPF_XDP, &opts) : -1;

    if (!ifindex)
        fail(r->o.interface, "no such interface here");
    if (fd < 0)
        fail("cannot attach in native mode", strerror(errno));
}

static void map_times(struct receiver *r)
{
    int fd = open(r->o.times, O_RDONLY | O_CLOEXEC);
    struct stat st;

    if (r->times)
        munmap(r->times, r->times_sz);
    r->times = NULL;
    if (fd < 0 || fstat(fd, &st) || (size_t)st.st_size < sizeof *r->times)
        fail(r->o.times, "no times file: start the generator first");
    r->times_sz = (size_t)st.st_size;
    r->times = mmap(NULL, r->times_sz, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    close(fd);
    if (r->times == MAP_FAILED || r->times->magic != TIMES_MAGIC ||
        r->times_sz < sizeof *r->times + (size_t)r->times->flows * r->times->slots * sizeof(struct times_entry))
        fail(r->o.times, "is no times file");
}

/* ---- answers ----------------------------------------------------------------------------- */

static struct port_count port_count(const struct receiver *r, uint32_t port)
{
    int cpus = libbpf_num_possible_cpus();
    struct port_count each[cpus], sum = { 0 };

    if (bpf_map_lookup_elem(bpf_map__fd(r->bpf->maps.counts), &port, each))
        fail("counters", strerror(errno));
    for (int i = 0; i < cpus; i++) {
        sum.packets += each[i].packets;
        sum.bytes += each[i].bytes;
    }
    return sum;
}

static uint64_t lost_stamps(const struct receiver *r)
{
    int cpus = libbpf_num_possible_cpus();
    uint64_t each[cpus], sum = 0;
    uint32_t key = 0;

    if (bpf_map_lookup_elem(bpf_map__fd(r->bpf->maps.lost), &key, each))
        fail("counters", strerror(errno));
    for (int i = 0; i < cpus; i++)
        sum += each[i];
    return sum;
}

static void answer_count(const struct receiver *r)
{
    struct port_count total = { 0 };
    uint64_t at_ns = now_ns();

    for (uint32_t i = 0; i < r->o.ports; i++) {
        struct port_count each = port_count(r, i);

        total.packets += each.packets;
        total.bytes += each.bytes;
    }
    printf("{\"at_ns\":%llu,\"packets\":%llu,\"bytes\":%llu}\n", (unsigned long long)at_ns,
           (unsigned long long)total.packets, (unsigned long long)total.bytes);
}

static void answer_ports(const struct receiver *r)
{
    printf("{\"ports\":[");
    for (uint32_t i = 0; i < r->o.ports; i++)
        printf("%s%llu", i ? "," : "", (unsigned long long)port_count(r, i).packets);
    printf("]}\n");
}

static void answer_finish(struct receiver *r)
{
    struct verify_counts checked = { 0 };

    r->bpf->bss->stamping = 0;
    nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL); /* programs that still run */
    ring_buffer__consume(r->ring);
    measure_finish(r->measure);
    if (r->verify)
        checked = verify_counts(r->verify);
    printf("{\"lost_stamps\":%llu,\"verified\":%llu,\"not_authentic\":%llu,\"wrong_payload\":%llu,"
           "\"verify_unmatched\":%llu,\"measured\":",
           (unsigned long long)lost_stamps(r), (unsigned long long)checked.good,
           (unsigned long long)checked.not_authentic, (unsigned long long)checked.wrong_payload,
           (unsigned long long)checked.unmatched);
    measure_print(r->measure, stdout, r->o.buckets);
    printf("}\n");
}

static void answer(struct receiver *r, const char *line)
{
    if (!strcmp(line, "count")) {
        answer_count(r);
    } else if (!strcmp(line, "ports")) {
        answer_ports(r);
    } else if (r->measure && !strcmp(line, "measure")) {
        ring_buffer__consume(r->ring);
        map_times(r);
        measure_reset(r->measure);
        r->bpf->bss->stamping = 1;
        printf("{}\n");
    } else if (r->measure && !strcmp(line, "finish")) {
        answer_finish(r);
    } else {
        fail("unknown command", line);
    }
    fflush(stdout);
}

/* Reads what is there; 0 at the end of input. */
static int serve_input(struct receiver *r)
{
    static char buffer[256];
    static size_t used;
    ssize_t n = read(STDIN_FILENO, buffer + used, sizeof buffer - 1 - used);
    char *end;

    if (n <= 0)
        return 0;
    used += (size_t)n;
    buffer[used] = 0;
    while ((end = strchr(buffer, '\n'))) {
        *end = 0;
        answer(r, buffer);
        used -= (size_t)(end + 1 - buffer);
        memmove(buffer, end + 1, used + 1);
    }
    return used < sizeof buffer - 1;
}

/* ---- options ----------------------------------------------------------------------------- */

static unsigned number(const char *what, const char *text, unsigned low, unsigned high)
{
    char *end;
    unsigned long value;

    errno = 0;
    value = strtoul(text, &end, 10);
    if (errno || end == text || *end || text[0] == '-' || value < low || value > high)
        fail(what, "not a number in its range");
    return (unsigned)value;
}

static void parse(struct options *o, int argc, char **argv)
{
    static const struct option known[] = {
        { "if", 1, 0, 'i' },          { "port-base", 1, 0, 'p' }, { "ports", 1, 0, 'n' },
        { "min-size", 1, 0, 'm' },    { "times", 1, 0, 't' },     { "stamp-ports", 1, 0, 's' },
        { "records", 1, 0, 'r' },     { "spacing-bps", 1, 0, 'b' }, { "buckets", 0, 0, 'B' },
        { "ring-mb", 1, 0, 'R' },     { "keys", 1, 0, 'k' },      { "sample-every", 1, 0, 'e' },
        { 0, 0, 0, 0 },
    };
    int c;

    while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (c) {
        case 'i': o->interface = optarg; break;
        case 'p': o->port_base = number("--port-base", optarg, 1, 65535); break;
        case 'n': o->ports = number("--ports", optarg, 1, PORTS_MAX); break;
        case 'm': o->min_size = number("--min-size", optarg, 28, 65507); break;
        case 't': o->times = optarg; break;
        case 's': o->stamp_ports = number("--stamp-ports", optarg, 1, PORTS_MAX); break;
        case 'r': o->records = number("--records", optarg, 1, 50000000); break;
        case 'b': o->spacing_bps = atof(optarg); break;
        case 'B': o->buckets = 1; break;
        case 'R': o->ring_mb = number("--ring-mb", optarg, 1, 1024); break;
        case 'k': o->keys = optarg; break;
        case 'e': o->sample_every = number("--sample-every", optarg, 1, 100000000); break;
        default: fail("options", "see the head of perf/c/receiver.c");
        }
    }
    if (!o->interface || !o->port_base || o->port_base + o->ports > 65536 || optind != argc)
        fail("options", "--if and --port-base are needed, ports below 65536, and no other arguments");
    if (o->ring_mb & (o->ring_mb - 1))
        fail("--ring-mb", "a power of two");
}

int main(int argc, char **argv)
{
    static struct receiver r = { .o = { .ports = 256, .min_size = 100, .ring_mb = 16, .records = 2000000,
                                        .stamp_ports = PORTS_MAX, .sample_every = 997 } };
    const char *why;

    parse(&r.o, argc, argv);
    if (r.o.times && !(r.measure = measure_new(r.o.records, r.o.spacing_bps)))
        fail("memory", "not enough for --records");
    if (r.o.keys && !(r.verify = verify_new(r.o.keys, &why)))
        fail(r.o.keys, why);
    load(&r);
    attach(&r);
    prctl(PR_SET_TIMERSLACK, 50000);
    fputs("ready\n", stderr);
    for (int open = 1; open;) {
        struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };

        if (poll(&input, 1, r.o.times ? 2 : 1000) > 0)
            open = serve_input(&r);
        if (r.o.times) /* the program wakes nobody */
            ring_buffer__consume(r.ring);
    }
    return 0;
}
