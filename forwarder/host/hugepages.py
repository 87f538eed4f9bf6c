"""Huge pages on each node that has workers, enough for their packet memory."""

from __future__ import annotations

import re

from forwarder.host import settings
from forwarder.host.root import Host
from forwarder.host.stage import Site, Stage, Step
from forwarder.net.drivers import why_no_zerocopy

PAGE = 2 << 20
FRAME, FRAME_ZEROCOPY = 2048, 4096
"""Bytes of a frame of packet memory (c_helpers/src/umem.h): a NIC that writes into it itself takes
whole pages."""


SHARE = 2
"""Of a node's memory at most one part in so many."""


def _memory(host: Host, node: int) -> int | None:
    """Bytes of a node; None: it does not say."""
    text = host.read(f"/sys/devices/system/node/node{node}/meminfo") or ""
    match = re.search(r"MemTotal:\s+(\d+) kB", text)
    return int(match[1]) << 10 if match else None


class Hugepages(Stage):
    name = "hugepages"
    why = "packet memory in huge pages misses the TLB less; each node has its own"

    def plan(self, site: Site) -> list[Step]:
        found: list[Step] = []
        direct = any(not why_no_zerocopy(nic.driver, site.facts.release) for nic in site.nics)
        memory = site.wishes.packet_frames * (FRAME_ZEROCOPY if direct else FRAME)
        short: list[str] = []
        for node in sorted({worker.node for worker in site.layout.workers}):
            count = sum(worker.node == node for worker in site.layout.workers)
            pages = count * -(-memory // PAGE)
            here = f"/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB"
            key = f"text:{here}/nr_hugepages"
            now = settings.read(site.host, key) or ""
            enough = now.isdecimal() and int(now) >= pages
            there = _memory(site.host, node)
            if not enough and there is not None and pages * PAGE > there // SHARE:
                size = f"{pages * PAGE >> 20} MiB of the {there >> 20} MiB of node {node}"
                short.append(f"huge pages would take {size}: lower dataplane.frames")
                continue
            found += self.steps(site, key, now if enough else str(pages))
        none = "the kernel has no huge pages of 2 MiB on the workers' nodes"
        return self.found(found, "; ".join(short) or none)

    def later(self, host: Host, key: str, value: str) -> bool:
        """Pages in use are surplus from then on: they go when the data plane that has them ends
        (Linux, Documentation/admin-guide/mm/hugetlbpage.rst)."""
        folder = settings.split(key)[1].rpartition("/")[0]
        files = ("nr_hugepages", "surplus_hugepages")
        now, surplus = (host.read(f"{folder}/{name}") or "" for name in files)
        if not (now.isdecimal() and surplus.isdecimal() and value.isdecimal()):
            return False
        return int(now) - int(surplus) <= int(value)


STAGE = Hugepages()
