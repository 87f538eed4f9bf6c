"""XPS and RPS: a worker's transmit queue is its own, received packets stay where they came in."""

from __future__ import annotations

from forwarder.host import cpulist
from forwarder.host.channels import settled
from forwarder.host.stage import Site, Stage, Step


class Xps(Stage):
    name = "xps"
    why = "a transmit queue that others use as well makes the worker wait for its lock"
    capability = "CAP_NET_ADMIN"
    after_attach = True

    def plan(self, site: Site) -> list[Step]:
        found: list[Step] = []
        for nic in self.each_nic(site):
            here = f"mask:/sys/class/net/{nic.name}/queues"
            workers = site.layout.of(nic.name)
            count = settled(site, nic)
            for queue in range(count):
                house = site.layout.house_on(workers[0].node, site.facts)
                cpus = (workers[queue].cpu,) if queue < len(workers) else house
                if count > 1:  # one queue has nothing to choose from
                    key = f"{here}/tx-{queue}/xps_cpus"
                    found += self.steps(site, key, cpulist.show(cpus))
                why = "RPS would carry packets to other cores"
                found += self.steps(site, f"{here}/rx-{queue}/rps_cpus", "", why)
        return self.found(found, self.nothing(site, "has no XPS and no RPS"))


STAGE = Xps()
