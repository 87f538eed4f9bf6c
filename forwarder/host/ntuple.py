"""Rules that send our UDP port to the one queue that has a worker.

Only where a NIC keeps more queues than its single worker serves (its channels may not be touched,
or are fixed): with several workers one rule would put all traffic on one of them.
"""

from __future__ import annotations

from forwarder.host.channels import settled
from forwarder.host.facts import Nic
from forwarder.host.stage import RESETS, SAFE, NotApplicable, Site, Stage, Step


class Ntuple(Stage):
    name = "ntuple"
    why = "the NIC keeps more queues than workers: a rule brings our port to the worker's queue"
    capability = "CAP_NET_ADMIN"

    def plan(self, site: Site) -> list[Step]:
        found: list[Step] = []
        kept: list[Nic] = []
        for nic in self.each_nic(site):
            feature = nic.ethtool.get("features", {}).get("rx-ntuple-filter", {"fixed": True})
            if feature["fixed"] or not site.drivers.of(nic.driver).ntuple:
                continue
            if len(site.layout.of(nic.name)) != 1 or settled(site, nic) == 1:
                continue
            risk = RESETS if site.drivers.resets(nic, "ntuple") else SAFE
            if risk == RESETS and nic.name in site.guarded and not feature["on"]:
                kept.append(nic)
                continue
            key = f"ethtool:{nic.name}:features.rx-ntuple-filter"
            found += self.steps(site, key, "on", risk=risk)
            found += self.steps(site, f"ethtool:{nic.name}:rules.{site.wishes.port}", "0")
        if kept and not found:
            raise NotApplicable(self.nothing(site, "takes no rules", "ntuple"))
        if not found:
            raise NotApplicable("RSS over one queue for each worker needs no rules")
        return found


STAGE = Ntuple()
