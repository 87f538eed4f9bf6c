/* SPDX-License-Identifier: MIT */
/* vcfwd-dataplane: arguments, signals and the control socket; the work is in the worker threads.

     vcfwd-dataplane --run-dir DIR [--control-fd N]
     vcfwd-dataplane --version

   The main thread listens on DIR/dataplane.sock, and takes N, when given, as a connection that
   is already there.  One supervisor at a time: a new connection replaces the old one.  SETUP
   starts the workers; every descriptor it brought is kept and given back on GET, so that a
   supervisor that comes back finds sockets and memory as they were.  DIR/dataplane.version names
   the build that serves: another one's supervisor reads before it connects whether they fit.

   Exit status: 0 after SHUTDOWN, SIGTERM (SIGINT too, unless this process leads a session of its
   own: then a terminal's Ctrl-C is the supervisor's matter), or orphan_s without a supervisor;
   1 when the set-up failed, with a sentence to the supervisor and on stderr. */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "../../ebpf/abi.h"
#include "plane.h"
#include "privilege.h"

#define ORPHAN_UNSET_S 180 /* before any SETUP: started beside a supervisor, which may be slow */
#define VERSION_FILE "dataplane.version"

#ifndef VC_VERSION
#define VC_VERSION "unknown"
#endif

#ifdef VC_FAULTS
extern volatile int vc_fault_hang_worker;
#endif

struct daemon {
    int listen_fd, signal_fd, connection; /* connection: or -1 */
    uint64_t alone_ns;                    /* since when there is no connection */
    struct vc_held held;
    struct vc_plane plane;
    int running;
};

static int complain(const char *sentence)
{
    fprintf(stderr, "vcfwd-dataplane: %s\n", sentence);
    return 1;
}

/* Two lines: the build, and what it must agree on with a supervisor (dataplane/contract.py). */
static int print_version(FILE *file)
{
    return fprintf(file, "version %s\ncontract abi%u-%016llx-steer%u\n", VC_VERSION, VC_ABI_VERSION,
                   (unsigned long long)vc_layout_hash(), VC_STEER_ABI_VERSION) < 0;
}

/* In the run directory, which is the working directory.  A whole file or none. */
static void write_version(void)
{
    FILE *file = fopen(VERSION_FILE ".part", "w");
    int bad;

    if (!file)
        return;
    bad = print_version(file);
    if (fclose(file) == 0 && !bad)
        rename(VERSION_FILE ".part", VERSION_FILE);
}

static int open_signals(void)
{
    sigset_t set;

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    if (getsid(0) == getpid())
        signal(SIGINT, SIG_IGN);
    else
        sigaddset(&set, SIGINT);
#ifdef VC_FAULTS
    sigaddset(&set, SIGUSR1);
#endif
    if (pthread_sigmask(SIG_BLOCK, &set, NULL)) /* threads inherit it */
        return -1;
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void drop_connection(struct daemon *d)
{
    if (d->connection >= 0)
        close(d->connection);
    d->connection = -1;
    d->alone_ns = vc_clock_ns();
}

/* Returns 1 when the process shall end. */
static int on_signal(struct daemon *d)
{
    struct signalfd_siginfo info;

    if (read(d->signal_fd, &info, sizeof info) != sizeof info)
        return 0;
#ifdef VC_FAULTS
    if (info.ssi_signo == SIGUSR1) { /* sigqueue's value names the worker; kill(1) gives 0 */
        vc_fault_hang_worker = info.ssi_int;
        return 0;
    }
#endif
    return 1;
}

static void on_connect(struct daemon *d)
{
    int fd = vc_control_accept(d->listen_fd);

    if (fd < 0)
        return;
    drop_connection(d);
    d->connection = fd;
}

/* Returns -1 to go on, or the exit status. */
static int on_setup(struct daemon *d)
{
    const char *why = vc_plane_start(&d->plane, &d->held);

    if (why) {
        vc_control_send_error(d->connection, why);
        return complain(why);
    }
    d->running = 1;
    fprintf(stderr, "vcfwd-dataplane: %u worker%s, %u interface%s, %s\n", d->held.setup.worker_cnt,
            d->held.setup.worker_cnt == 1 ? "" : "s", d->held.setup.interface_cnt,
            d->held.setup.interface_cnt == 1 ? "" : "s", d->plane.ready.crypto);
    if (vc_control_send_ready(d->connection, &d->plane.ready))
        drop_connection(d);
    return -1;
}

/* Returns -1 to go on, or the exit status. */
static int on_message(struct daemon *d)
{
    const char *why = NULL;
    int type = vc_control_recv(d->connection, &d->held, &why);

    switch (type) {
    case VC_CTL_SETUP:
        return on_setup(d);
    case VC_CTL_GET:
        if (vc_control_send_state(d->connection, d->running ? &d->held : NULL) ||
            (d->running && vc_control_send_ready(d->connection, &d->plane.ready)))
            drop_connection(d);
        return -1;
    case VC_CTL_SHUTDOWN:
        return 0;
    case 0:
        drop_connection(d);
        return -1;
    default: /* a supervisor's mistake must not end a living data plane */
        vc_control_send_error(d->connection, why ? why : "unknown control message");
        return -1;
    }
}

static int serve(struct daemon *d)
{
    for (;;) {
        struct pollfd polls[3] = { { d->signal_fd, POLLIN, 0 }, { d->listen_fd, POLLIN, 0 },
                                   { d->connection, POLLIN, 0 } };
        uint64_t limit_s = d->running ? d->held.setup.orphan_s : ORPHAN_UNSET_S;
        int status = -1;

        if (poll(polls, 3, 1000) < 0 && errno != EINTR)
            return complain("poll failed");
        if (polls[0].revents && on_signal(d))
            return 0;
        if (polls[1].revents)
            on_connect(d);
        else if (polls[2].revents)
            status = on_message(d);
        if (status >= 0)
            return status;
        if (d->connection < 0 && limit_s && vc_clock_ns() - d->alone_ns > limit_s * 1000000000u) {
            complain("no supervisor came back: ending");
            return 0;
        }
    }
}

int main(int argc, char **argv)
{
    static const struct option options[] = { { "run-dir", required_argument, NULL, 'r' },
                                             { "control-fd", required_argument, NULL, 'c' },
                                             { "version", no_argument, NULL, 'v' },
                                             { 0 } };
    static struct daemon d = { .connection = -1 };
    const char *run_dir = NULL, *why;
    int option, status;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'r')
            run_dir = optarg;
        else if (option == 'c')
            d.connection = atoi(optarg);
        else if (option == 'v')
            return print_version(stdout);
        else
            return 1;
    }
    if (!run_dir || optind != argc)
        return complain("usage: vcfwd-dataplane --run-dir DIR [--control-fd N]");
    vc_privilege_start();
    d.signal_fd = open_signals();
    if (d.signal_fd < 0)
        return complain("cannot take signals");
    d.listen_fd = vc_control_listen(run_dir, &why);
    if (d.listen_fd < 0) {
        if (d.connection >= 0)
            vc_control_send_error(d.connection, why);
        return complain(why);
    }
    write_version();
    d.alone_ns = vc_clock_ns();
    status = serve(&d);
    if (d.running && vc_plane_stop(&d.plane))
        complain("a worker hangs: ending without it");
    unlink(VC_CTL_SOCKET);
    fflush(NULL);
    /* Descriptors and memory are the kernel's to take back; a hung thread must not hold us. */
    _exit(status);
}
