"""Unbound kernel work runs on the housekeeping cores.  Before isolation: a cpuset partition changes
this mask too, so what it was must be journaled first.
"""

from __future__ import annotations

from forwarder.host import cpulist
from forwarder.host.stage import Site, Stage, Step

_HERE = "/sys/devices/virtual/workqueue"


class Workqueues(Stage):
    name = "workqueues"
    why = "kernel work that may run anywhere must not run on a worker's core"

    def plan(self, site: Site) -> list[Step]:
        house = cpulist.show(site.layout.housekeeping)
        found = list(self.steps(site, f"mask:{_HERE}/cpumask", house))
        found += self.steps(site, f"mask:{_HERE}/writeback/cpumask", house)
        return self.found(found, "the kernel shows no workqueue mask")


STAGE = Workqueues()
