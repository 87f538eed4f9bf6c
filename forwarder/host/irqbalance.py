"""irqbalance, where it runs, is told to leave the workers' cores alone: in its file."""

from __future__ import annotations

import re

from forwarder.host import cpulist
from forwarder.host.stage import PERSISTENT, NotApplicable, Site, Stage, Step

FILE = "/etc/default/irqbalance"
_LINE = re.compile(r"^\s*#?\s*IRQBALANCE_BANNED_CPULIST=.*$", re.M)


class Irqbalance(Stage):
    name = "irqbalance"
    why = "irqbalance moves interrupts back onto the workers' cores within ten seconds"
    capability = "CAP_DAC_OVERRIDE"

    def plan(self, site: Site) -> list[Step]:
        if not site.host.running(frozenset({"irqbalance"})):
            raise NotApplicable("irqbalance does not run here")
        old = site.host.read(FILE) or ""
        cpus = cpulist.show((*site.layout.cpus, *site.layout.idle))
        line = f'IRQBALANCE_BANNED_CPULIST="{cpus}"'
        text = _LINE.sub(line, old, count=1) if _LINE.search(old) else f"{old}\n{line}".strip()
        why = f"{self.why}; then: systemctl restart irqbalance"
        return list(self.steps(site, f"file:{FILE}", text, why, lifetime=PERSISTENT))


STAGE = Irqbalance()
