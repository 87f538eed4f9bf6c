/* SPDX-License-Identifier: MIT */
/* When the program gives up waiting for a supervisor: its own loop, with a poll and a clock that
   are made up. */
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

static int made_up_poll(struct pollfd *polls, nfds_t cnt, int timeout_ms);
#define poll made_up_poll
#define vc_clock_ns made_up_clock_ns
#define main vcfwd_dataplane_main
#include "../../c_helpers/src/main.c"
#undef main

#include "check.h"

#define NEVER 100000
#define S UINT64_C(1000000000)

static struct {
    uint64_t now_ns;
    int longest_ms;      /* that it waits for something to happen */
    unsigned turn, left; /* left: the turn in which the supervisor goes */
} run;

uint64_t made_up_clock_ns(void)
{
    return run.now_ns;
}

/* Nothing happens for as long as it may take, but for what the run holds. */
static int made_up_poll(struct pollfd *polls, nfds_t cnt, int timeout_ms)
{
    run.turn++;
    run.now_ns += (uint64_t)timeout_ms * (S / 1000);
    if (timeout_ms > run.longest_ms)
        run.longest_ms = timeout_ms;
    for (nfds_t i = 0; i < cnt; i++)
        polls[i].revents = 0;
    if (run.turn == NEVER)
        polls[0].revents = POLLIN; /* SIGTERM */
    if (run.turn == run.left)
        polls[2].revents = POLLIN;
    return 0;
}

/* So many seconds until it ends; `sentence`: whether it says that nobody came. */
static uint64_t lives_s(struct daemon *d, int *sentence)
{
    FILE *real = stderr;
    char *said = NULL;
    size_t size;
    int status;

    run.turn = 0;
    run.now_ns = d->alone_ns = 12345 * S;
    d->signal_fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    d->listen_fd = -1;
    stderr = open_memstream(&said, &size);
    status = serve(d);
    fclose(stderr);
    stderr = real;
    CHECK_EQ(status, 0);
    *sentence = strstr(said, "no supervisor came back: ending") != NULL;
    free(said);
    close(d->signal_fd);
    return (run.now_ns - 12345 * S) / S;
}

static void before_any_set_up(void)
{
    struct daemon d = { .connection = -1 };
    int sentence;

    CHECK_EQ(lives_s(&d, &sentence), 180 + 1);
    CHECK(sentence);
    CHECK(run.longest_ms <= 1000);
}

static void a_supervisor_that_only_looked(void)
{
    struct daemon d = { .connection = -1 };
    int ends[2], sentence;

    CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    close(ends[1]);
    d.connection = ends[0];
    run.left = 400; /* longer than it would wait for one */
    CHECK_EQ(lives_s(&d, &sentence), 400 + 180 + 1);
    CHECK(sentence);
    CHECK_EQ(d.connection, -1);
    run.left = 0;
}

static void after_the_set_up_it_is_told(void)
{
    struct daemon d = { .connection = -1, .running = 1 };
    int sentence;

    d.held.setup.orphan_s = 7;
    CHECK_EQ(lives_s(&d, &sentence), 7 + 1);
    CHECK(sentence);
    d.held.setup.orphan_s = 0; /* for ever, which is not how it is before */
    lives_s(&d, &sentence);
    CHECK_EQ(run.turn, NEVER);
    CHECK(!sentence);
}

static void with_a_supervisor_it_stays(void)
{
    struct daemon d = { .connection = 1000000 }; /* nothing is ever read from it */
    int sentence;

    lives_s(&d, &sentence);
    CHECK_EQ(run.turn, NEVER);
    CHECK(!sentence);
}

int main(void)
{
    before_any_set_up();
    a_supervisor_that_only_looked();
    after_the_set_up_it_is_told();
    with_a_supervisor_it_stays();
    return check_report();
}
