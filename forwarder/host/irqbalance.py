"""irqbalance, where it runs, is told to leave the workers' cores alone: in its file."""

from __future__ import annotations

import re

from forwarder.host import cpulist, settings
from forwarder.host.root import UNENDED
from forwarder.host.stage import PERSISTENT, NotApplicable, Site, Stage, Step

FILE = "/etc/default/irqbalance"
_SET = re.compile(r"^[ \t]*IRQBALANCE_BANNED_CPULIST=.*$", re.M)
_EXAMPLE = re.compile(r"^[ \t]*#[ \t]*IRQBALANCE_BANNED_CPULIST=.*$", re.M)


class Irqbalance(Stage):
    name = "irqbalance"
    why = "irqbalance moves interrupts back onto the workers' cores within ten seconds"
    capability = "CAP_DAC_OVERRIDE"

    def plan(self, site: Site) -> list[Step]:
        if not site.host.running(frozenset({"irqbalance"})):
            raise NotApplicable("irqbalance does not run here")
        key = f"file:{FILE}"
        old = settings.read(site.host, key) or settings.ABSENT
        cpus = cpulist.show((*site.layout.cpus, *site.layout.idle))
        line = f'IRQBALANCE_BANNED_CPULIST="{cpus}"'
        text = _with(line, "" if old == settings.ABSENT else old.removesuffix(UNENDED))
        why = f"{self.why}; then: systemctl restart irqbalance"
        return list(self.steps(site, key, text, why, lifetime=PERSISTENT))


def _with(line: str, text: str) -> str:
    """The text with that line: for the last one that sets it, as that one counts; else for the
    first example; else at the end.  Whatever else it says stays."""
    found = [*_SET.finditer(text)][-1:] or [*_EXAMPLE.finditer(text)][:1]
    if not found:
        return f"{text}\n{line}" if text else line
    return f"{text[: found[0].start()]}{line}{text[found[0].end() :]}"


STAGE = Irqbalance()
