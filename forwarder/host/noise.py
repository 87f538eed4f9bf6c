"""Small things that wake every core: the console's cursor, polling for corrected memory errors."""

from __future__ import annotations

from forwarder.host.stage import Site, Stage, Step

_MCE = "/sys/devices/system/machinecheck"


class Noise(Stage):
    name = "noise"
    why = "timers that visit every core visit the workers' too"

    def plan(self, site: Site) -> list[Step]:
        why = "the cursor's timer draws on any core"
        found = list(self.steps(site, "text:/sys/class/graphics/fbcon/cursor_blink", "0", why))
        for cpu in site.layout.cpus:
            why = "polling for corrected errors stops the worker (errors still raise interrupts)"
            found += self.steps(site, f"text:{_MCE}/machinecheck{cpu}/ignore_ce", "1", why)
        return self.found(found, "there is no console cursor and no machine check here")


STAGE = Noise()
