"""Sysctls: what disturbs a core that polls, and buffers that are too small.

`least`: a larger value stays.  Sources: tuned's network-latency and cpu-partitioning profiles;
SCHED_FIFO with the default sched_rt_runtime_us stands still 50 ms in each second (measured); from
Linux 6.12 the same 50 ms are the fair server's, which only debugfs can switch off: where `fifo` is
asked for by name, for it is the kernel's last help for who starves on a worker's core.
"""

from __future__ import annotations

from collections.abc import Iterator

from forwarder.host import settings
from forwarder.host.root import Unreadable
from forwarder.host.stage import Site, Stage, Step

VALUES = (
    ("kernel/numa_balancing", 0, False, "page migration stops a worker for milliseconds"),
    ("kernel/timer_migration", 0, False, "timers of idle cores must not come to a worker's"),
    ("kernel/nmi_watchdog", 0, False, "the watchdog interrupts every core"),
    ("vm/stat_interval", 10, True, "the kernel's statistics visit every core each second"),
    ("net/core/bpf_jit_enable", 1, True, "interpreted XDP is several times slower"),
    ("net/core/rmem_max", 4 << 20, True, "the socket path asks for buffers of 4 MiB"),
    ("net/core/wmem_max", 4 << 20, True, "the socket path asks for buffers of 4 MiB"),
    ("net/core/netdev_max_backlog", 10_000, True, "packets for the kernel queue up in bursts"),
)
POLLING = (
    ("net/core/busy_read", 50, True, "sockets of a polled queue poll too"),
    ("net/core/busy_poll", 50, True, "sockets of a polled queue poll too"),
)
FIFO = ("kernel/sched_rt_runtime_us", -1, False, "a FIFO worker stands still 50 ms each second")
FAIR_SERVER = "/sys/kernel/debug/sched/fair_server"
FAIR_SERVER_SINCE = (6, 12)


class Sysctls(Stage):
    name = "sysctls"
    why = "the kernel's defaults are for throughput on cores that everybody shares"

    def plan(self, site: Site) -> list[Step]:
        found: list[Step] = []
        polling = POLLING if site.wishes.busy_poll else ()
        fifo = (FIFO,) if site.wishes.fifo else ()
        for name, value, least, why in (*VALUES, *polling, *fifo):
            key = f"text:/proc/sys/{name}"
            now = settings.read(site.host, key) or ""
            enough = least and now.lstrip("-").isdecimal() and int(now) >= value
            found += self.steps(site, key, now if enough else str(value), why)
        if site.wishes.fifo_asked and site.facts.release >= FAIR_SERVER_SINCE:
            found += self._fair_server(site)
        return self.found(found, "the kernel shows none of our sysctls")

    def _fair_server(self, site: Site) -> Iterator[Step]:
        """Of each worker's core, where debugfs is mounted and shows it: a locked-down kernel lists
        the files and gives none to anybody."""
        try:
            shown = bool(site.host.names(FAIR_SERVER))
        except Unreadable:
            shown = False  # root may know
        for cpu in site.layout.cpus:
            key = f"text:{FAIR_SERVER}/cpu{cpu}/runtime"
            for step in self.steps(site, key, "0", FIFO[3]):
                if step.current is not None or not shown:
                    yield step


STAGE = Sysctls()
