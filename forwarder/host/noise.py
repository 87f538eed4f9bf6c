"""Small things that stop a core: the console's cursor and messages, polling for memory errors."""

from __future__ import annotations

from collections.abc import Iterator

from forwarder.host import settings
from forwarder.host.root import Host, Unreadable
from forwarder.host.stage import Site, Stage, Step

_MCE = "/sys/devices/system/machinecheck"
_CURSOR = "text:/sys/class/graphics/fbcon/cursor_blink"
_PRINTK = "text:/proc/sys/kernel/printk"
CONSOLE_LEVEL = 4
"""Messages of this level and above (warnings, notices) stay off the console; errors come."""


class Noise(Stage):
    name = "noise"
    why = "timers that visit every core visit the workers' too"

    def plan(self, site: Site) -> list[Step]:
        why = "the cursor's timer draws on any core"
        found = list(self.steps(site, _CURSOR, "0", why))
        for cpu in site.layout.cpus:
            why = "polling for corrected errors stops the worker (errors still raise interrupts)"
            found += self.steps(site, f"text:{_MCE}/machinecheck{cpu}/ignore_ce", "1", why)
        found += self._console(site)
        return self.found(found, "there is no console and no machine check here")

    def later(self, host: Host, key: str, value: str) -> bool:
        """A cursor that may blink again shows 1 only while the timer of its next blink is pending:
        not while one is drawn, nor on a blank screen (Linux, drivers/video/fbdev/core/fbcon.c,
        show_cursor_blink)."""
        return key == _CURSOR and value == "1"

    def _console(self, site: Site) -> Iterator[Step]:
        """Four numbers, of which the first is the console's level; a lower one stays."""
        try:
            words = (settings.read(site.host, _PRINTK) or "").split()
        except Unreadable:
            return
        if not words or not words[0].isdecimal():
            return
        level = min(int(words[0]), CONSOLE_LEVEL)
        why = "a core that has something to print draws it on the console itself"
        yield from self.steps(site, _PRINTK, " ".join([str(level), *words[1:]]), why)


STAGE = Noise()
