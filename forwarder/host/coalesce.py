"""Interrupt coalescing: a packet waits for no others.  Moot while a worker polls the queue."""

from __future__ import annotations

from forwarder.host.stage import Site, Stage, Step

USECS_MAX = 8
"""Microseconds that a packet may wait in the NIC."""


class Coalesce(Stage):
    name = "coalesce"
    why = "adaptive coalescing holds packets back while it learns: jitter"
    capability = "CAP_NET_ADMIN"

    def plan(self, site: Site) -> list[Step]:
        found: list[Step] = []
        for nic in self.each_nic(site):
            have = nic.ethtool.get("coalesce", {})
            for name in ("use_adaptive_rx", "use_adaptive_tx"):
                if name in have:
                    found += self.steps(site, f"ethtool:{nic.name}:coalesce.{name}", "0")
            if "rx_usecs" in have:
                wanted = min(have["rx_usecs"], USECS_MAX)
                why = f"a packet waits at most {USECS_MAX} us in the NIC"
                key = f"ethtool:{nic.name}:coalesce.rx_usecs"
                found += self.steps(site, key, str(wanted), why)
        return self.found(found, self.nothing(site, "has no coalescing that can be set"))


STAGE = Coalesce()
