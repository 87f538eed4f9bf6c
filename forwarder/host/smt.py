"""SMT: the sibling of a worker's core stays idle: by the choice of cores, nothing is written."""

from __future__ import annotations

from forwarder.host import cpulist
from forwarder.host.stage import NotApplicable, Site, Stage, State, Step, Verdict


class Smt(Stage):
    name = "smt"
    why = "a busy sibling takes half of a worker's core"

    def plan(self, site: Site) -> list[Step]:
        raise NotApplicable("nothing to set: the choice of cores leaves siblings idle")

    def check(self, site: Site) -> Verdict:
        cpus = site.layout.cpus
        cores = {cpu.number: cpu.siblings for cpu in site.facts.cpus}
        if all(len(siblings) == 1 for siblings in cores.values()):
            return Verdict(self.name, State.NOT_APPLICABLE, "no core has a sibling here")
        shared = [c for c in cpus if set(cores[c]) & {*cpus, *site.layout.housekeeping} - {c}]
        if shared:
            return Verdict(
                self.name,
                State.PARTLY,
                f"the worker on core {cpulist.show(shared)} shares its core with others: "
                "give the host more cores, or fewer workers",
            )
        idle = cpulist.show(site.layout.idle)
        return Verdict(self.name, State.OK, f"core {idle} stays idle beside the workers")


STAGE = Smt()
