/* SPDX-License-Identifier: MIT */
/* Sends SRTP over UDP at a steady rate or as video frames: many flows, one SSRC each.

     generator (--dst-ip A --dst-port P[,P..] | --fd N) (--rate PPS | --frames FPS --per-frame K
         [--key-every N --key-packets M]) [--flows F] [--src-port BASE] [--reuse-port]
         [--size BYTES] [--seconds S] [--ssrc N] [--index N] [--payload-type N] [--tick-us T]
         [--batch N] [--suite gcm|sha1 --keys FILE] [--times FILE] [--h264]

   --rate: all flows together, in turn; what is due is sent, up to --batch packets of a flow in one
   sendmmsg.  --frames: each flow sends FPS frames a second, the packets of a frame back to back, one
   system call each, the flows spread over the frame interval; every N-th frame, the first
   included, has M packets; a frame's last packet has the marker.  Flow f sends from port BASE + f
   with SSRC ssrc + f, and starts at SRTP index `index`.  --size is the RTP packet before sealing:
   header, send time and index (struct probe of rig.h), pattern.  --keys: a line "key salt" in
   hexadecimal for each flow, at least; 16 and 12 bytes (sha1: 14).  --times: the file of rig.h.
   --tick-us T wakes only every T us: fewer wake-ups, small bursts.  --fd: all flows send from this
   connected socket, which somebody else opened and reads.  --h264: each packet begins as a picture
   of its own (RFC 6184), every 256th of a flow a key frame, in place of send time and index.

   It sleeps until each departure and never spins; what is late is sent at once, so that a rate
   beyond its ceiling shows as fewer packets a second.  Ends after --seconds or on SIGINT or SIGTERM
   with one line of JSON.  It does not receive, resend or imitate a codec's sizes.  One thread. */
#include "generator.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base.h"
#include "crypto.h"
#include "rig.h"

#define RTP_HEADER 12u
#define RTP_CLOCK 90000.0
#define SLOTS_FEW 65536u /* of a flow's times, with up to 8 flows */
#define SLOTS_MANY 8192u
#define FULL_WAIT_MS 10 /* for room in a socket that does not block */
#define KEY_EACH 256u   /* of --h264 */

struct flow {
    int fd;
    uint64_t index;
    struct vc_crypto_key key;
};

struct generator {
    struct options o;
    struct flow *flows;
    struct vc_crypto *crypto;
    struct times_header *times;
    struct times_entry *entries;
    uint64_t start_ns, tick_ns, sent, errors, late_max, late_sum, late_cnt;
    uint32_t pending, pending_flow; /* packets of one flow that wait for their system call */
    uint8_t clear[BATCH_MAX][2048], sealed[BATCH_MAX][2048];
    struct vc_crypto_item items[BATCH_MAX];
};

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
}

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- set-up ------------------------------------------------------------------------------ */

static int open_flow(const struct options *o, uint32_t f)
{
    struct sockaddr_in from = { .sin_family = AF_INET };
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = o->dst_ip,
                              .sin_port = htons(o->dst_ports[o->dst_port_cnt == 1 ? 0 : f]) };
    int fd, one = 1;

    if (o->fd)
        return o->fd;
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (o->src_port_base)
        from.sin_port = htons((uint16_t)(o->src_port_base + f));
    if (fd >= 0 && o->reuse_port)
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    if (fd < 0 || bind(fd, (struct sockaddr *)&from, sizeof from) ||
        connect(fd, (struct sockaddr *)&to, sizeof to))
        generator_fail("socket of a flow", strerror(errno));
    return fd;
}

static void hex(const char *text, uint8_t *to, size_t most)
{
    size_t n = strlen(text) / 2;

    if (n > most)
        generator_fail("--keys", "a key or salt is too long");
    for (size_t i = 0; i < n; i++) {
        unsigned byte;

        if (sscanf(text + 2 * i, "%2x", &byte) != 1)
            generator_fail("--keys", "not hexadecimal");
        to[i] = (uint8_t)byte;
    }
}

static void read_keys(struct generator *g)
{
    FILE *file = fopen(g->o.keys, "r");
    char key[65], salt[65];

    if (!file)
        generator_fail(g->o.keys, strerror(errno));
    g->crypto = vc_crypto_new(VC_CRYPTO_AUTO);
    if (!g->crypto)
        generator_fail("SRTP engine", "not available on this CPU");
    for (uint32_t f = 0; f < g->o.flows; f++) {
        uint8_t raw[16] = { 0 }, raw_salt[14] = { 0 };

        if (fscanf(file, "%64s %64s", key, salt) != 2)
            generator_fail(g->o.keys, "a line for each flow is needed");
        hex(key, raw, sizeof raw);
        hex(salt, raw_salt, sizeof raw_salt);
        if (vc_crypto_key_init(g->crypto, &g->flows[f].key, g->o.suite, raw, raw_salt))
            generator_fail("SRTP keys", "refused by the engine");
    }
    fclose(file);
}

static void map_times(struct generator *g)
{
    uint32_t slots = g->o.flows <= 8 ? SLOTS_FEW : SLOTS_MANY;
    size_t size = sizeof *g->times + (size_t)g->o.flows * slots * sizeof *g->entries;
    int fd = open(g->o.times, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0 || ftruncate(fd, (off_t)size))
        generator_fail(g->o.times, strerror(errno));
    g->times = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    close(fd);
    if (g->times == MAP_FAILED)
        generator_fail(g->o.times, strerror(errno));
    *g->times = (struct times_header){ TIMES_MAGIC, g->o.flows, slots, g->o.ssrc, { 0 } };
    g->entries = (struct times_entry *)(g->times + 1);
}

/* ---- sending ----------------------------------------------------------------------------- */

static void transmit(struct generator *g, uint8_t (*from)[2048], const uint32_t *sizes)
{
    struct mmsghdr messages[BATCH_MAX];
    struct iovec iov[BATCH_MAX];
    int fd = g->flows[g->pending_flow].fd;
    uint32_t at = 0;

    for (uint32_t i = 0; i < g->pending; i++) {
        iov[i] = (struct iovec){ from[i], sizes[i] };
        messages[i] = (struct mmsghdr){ .msg_hdr = { .msg_iov = &iov[i], .msg_iovlen = 1 } };
    }
    for (int tries = 0; at < g->pending && tries < 8; tries++) {
        int n = sendmmsg(fd, messages + at, g->pending - at, 0);

        /* ECONNREFUSED is about an earlier packet, by ICMP; this one was not tried */
        if (n > 0)
            at += (uint32_t)n;
        else if (errno == EAGAIN)
            poll(&(struct pollfd){ .fd = fd, .events = POLLOUT }, 1, FULL_WAIT_MS);
        else if (errno != ECONNREFUSED && errno != EINTR)
            break;
    }
    g->sent += at;
    g->errors += g->pending - at;
}

static void flush(struct generator *g)
{
    uint32_t sizes[BATCH_MAX];

    if (!g->pending)
        return;
    for (uint32_t i = 0; i < g->pending; i++)
        sizes[i] = g->o.size;
    if (g->crypto) {
        if (vc_crypto_seal_rtp(g->crypto, g->items, g->pending) != g->pending)
            generator_fail("SRTP", "the engine refused a packet");
        for (uint32_t i = 0; i < g->pending; i++)
            sizes[i] = g->items[i].dst_sz;
    }
    transmit(g, g->crypto ? g->sealed : g->clear, sizes);
    g->pending = 0;
}

struct frame {
    uint64_t ns;
    uint32_t rtp_time;
    uint16_t packets;
};

/* Makes the flow's next packet; it leaves when the batch is full or another flow comes. */
static void add_packet(struct generator *g, uint32_t f, struct frame *frame, int marker)
{
    struct flow *flow = &g->flows[f];
    struct probe probe = { .send_ns = now_ns(), .sequence = flow->index };
    uint8_t *p;

    if (g->pending && (g->pending_flow != f || g->pending == g->o.batch))
        flush(g);
    g->pending_flow = f;
    p = g->clear[g->pending];
    p[0] = 0x80;
    p[1] = (uint8_t)(g->o.type | (marker ? 0x80 : 0));
    vc_store_be16(p + 2, (uint16_t)flow->index);
    vc_store_be32(p + 4, frame->rtp_time);
    vc_store_be32(p + 8, g->o.ssrc + f);
    if (g->o.h264) /* NAL type 5 or 1, first_mb_in_slice 0: a picture starts */
        vc_store_be16(p + RTP_HEADER, flow->index % KEY_EACH ? 0x419a : 0x6588);
    else
        memcpy(p + RTP_HEADER, &probe, sizeof probe);
    g->items[g->pending] = (struct vc_crypto_item){ .key = &flow->key, .src = p, .dst = g->sealed[g->pending],
                                                    .src_sz = g->o.size, .hdr_sz = RTP_HEADER, .index = flow->index };
    if (!frame->ns)
        frame->ns = probe.send_ns;
    if (g->times) {
        struct times_entry *e =
            &g->entries[(size_t)f * g->times->slots + (flow->index & (g->times->slots - 1))];

        *e = (struct times_entry){ probe.send_ns, frame->ns, flow->index, frame->rtp_time, frame->packets, 0 };
    }
    flow->index++;
    g->pending++;
}

/* Sleeps until a departure is due (or until the tick behind it) and notes the lateness. */
static void wait_for(struct generator *g, uint64_t due_ns)
{
    uint64_t now = now_ns(), late;

    if (g->tick_ns)
        due_ns = g->start_ns + (due_ns - g->start_ns + g->tick_ns - 1) / g->tick_ns * g->tick_ns;
    if (now < due_ns) {
        struct timespec t = { (time_t)(due_ns / 1000000000u), (long)(due_ns % 1000000000u) };

        flush(g);
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
        now = now_ns();
    }
    late = now > due_ns ? now - due_ns : 0;
    g->late_sum += late;
    g->late_cnt++;
    if (late > g->late_max)
        g->late_max = late;
}

static int finished(const struct generator *g, uint64_t due_ns)
{
    return stopped || (g->o.seconds > 0 && due_ns >= g->start_ns + (uint64_t)(g->o.seconds * 1e9)) ||
           (g->o.seconds > 0 && now_ns() >= g->start_ns + (uint64_t)(g->o.seconds * 1.5e9));
}

static void run_rate(struct generator *g)
{
    double interval = 1e9 / g->o.rate;

    for (uint64_t n = 0;; n++) {
        uint64_t due_ns = g->start_ns + (uint64_t)((double)n * interval);
        struct frame frame = { 0, (uint32_t)((double)n * interval * RTP_CLOCK / 1e9), 1 };

        if (finished(g, due_ns))
            return;
        wait_for(g, due_ns);
        add_packet(g, (uint32_t)(n % g->o.flows), &frame, 1);
    }
}

static void run_frames(struct generator *g)
{
    double interval = 1e9 / g->o.fps;

    for (uint64_t n = 0;; n++) { /* n counts the frames of all flows */
        uint64_t number = n / g->o.flows;
        uint64_t due_ns = g->start_ns + (uint64_t)((double)n * interval / g->o.flows);
        uint32_t packets = g->o.key_every && number % g->o.key_every == 0 ? g->o.key_packets : g->o.per_frame;
        struct frame frame = { 0, (uint32_t)llround((double)number * RTP_CLOCK / g->o.fps), (uint16_t)packets };

        if (finished(g, due_ns))
            return;
        wait_for(g, due_ns);
        for (uint32_t i = 0; i < packets && !stopped; i++) {
            add_packet(g, (uint32_t)(n % g->o.flows), &frame, i + 1 == packets);
            flush(g);
        }
    }
}

static void print_result(const struct generator *g, double seconds)
{
    uint64_t next = 0;

    for (uint32_t f = 0; f < g->o.flows; f++)
        if (g->flows[f].index > next)
            next = g->flows[f].index;
    printf("{\"tool\":\"generator\",\"sent\":%llu,\"errors\":%llu,\"seconds\":%.6f,\"pps\":%.1f,\"size\":%u,"
           "\"flows\":%u,\"next_index\":%llu,\"late_mean_us\":%.1f,\"late_max_us\":%.1f}\n",
           (unsigned long long)g->sent, (unsigned long long)g->errors, seconds, (double)g->sent / seconds, g->o.size,
           g->o.flows, (unsigned long long)next,
           g->late_cnt ? (double)g->late_sum / (double)g->late_cnt / 1e3 : 0.0, (double)g->late_max / 1e3);
}

int main(int argc, char **argv)
{
    static struct generator g = { .o = { .flows = 1, .size = 1200, .ssrc = 0x10000, .type = 96, .batch = 16 } };
    struct sigaction action = { .sa_handler = on_signal };

    generator_options(&g.o, argc, argv);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    prctl(PR_SET_TIMERSLACK, 1);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    g.flows = aligned_alloc(64, g.o.flows * sizeof *g.flows);
    if (!g.flows)
        generator_fail("memory", "not enough");
    memset(g.flows, 0, g.o.flows * sizeof *g.flows);
    for (uint32_t i = 0; i < BATCH_MAX; i++)
        for (uint32_t j = 0; j < g.o.size; j++)
            g.clear[i][j] = (uint8_t)j;
    for (uint32_t f = 0; f < g.o.flows; f++) {
        g.flows[f].fd = open_flow(&g.o, f);
        g.flows[f].index = g.o.index;
    }
    if (g.o.keys)
        read_keys(&g);
    if (g.o.times)
        map_times(&g);
    g.tick_ns = g.o.tick_us * 1000ull;
    g.start_ns = now_ns();
    if (g.o.fps > 0)
        run_frames(&g);
    else
        run_rate(&g);
    flush(&g);
    print_result(&g, (double)(now_ns() - g.start_ns) / 1e9);
    return 0;
}
