"""Idle states: a worker's core does not sleep deeper than it can wake in a few microseconds.

`vcfwd tune watch` also holds /dev/cpu_dma_latency, which ends by itself with it; these steps are
for the workers' cores alone and last without it.
"""

from __future__ import annotations

from forwarder.host.stage import Site, Stage, Step

WAKE_US_MAX = 2
"""Microseconds: C1 wakes in 1-2, C6 in 100 and more."""


class Cstates(Stage):
    name = "cstates"
    why = f"a state that takes more than {WAKE_US_MAX} us to leave delays the next packet"

    def plan(self, site: Site) -> list[Step]:
        found: list[Step] = []
        for cpu in site.layout.cpus:
            here = f"/sys/devices/system/cpu/cpu{cpu}/cpuidle"
            for state in site.host.names(here):
                latency = site.host.read(f"{here}/{state}/latency") or "0"
                if latency.isdecimal() and int(latency) > WAKE_US_MAX:
                    found += self.steps(site, f"text:{here}/{state}/disable", "1")
        return self.found(found, "no core has an idle state that is slow to leave")


STAGE = Cstates()
