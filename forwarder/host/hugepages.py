"""Huge pages on each node that has workers, enough for their packet memory."""

from __future__ import annotations

from forwarder.host import settings
from forwarder.host.stage import Site, Stage, Step

PAGE = 2 << 20


class Hugepages(Stage):
    name = "hugepages"
    why = "packet memory in huge pages misses the TLB less; each node has its own"

    def plan(self, site: Site) -> list[Step]:
        found: list[Step] = []
        for node in sorted({worker.node for worker in site.layout.workers}):
            count = sum(worker.node == node for worker in site.layout.workers)
            pages = -(-count * site.wishes.packet_bytes // PAGE)
            here = f"/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB"
            key = f"text:{here}/nr_hugepages"
            now = settings.read(site.host, key) or ""
            enough = now.isdecimal() and int(now) >= pages
            found += self.steps(site, key, now if enough else str(pages))
        return self.found(found, "the kernel has no huge pages of 2 MiB on the workers' nodes")


STAGE = Hugepages()
