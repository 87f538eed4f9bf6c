"""Transparent huge pages: never made behind a worker's back."""

from __future__ import annotations

from forwarder.host.stage import Site, Stage, Step

_FILE = "/sys/kernel/mm/transparent_hugepage/enabled"


class Thp(Stage):
    name = "thp"
    why = "the kernel stops a process to make huge pages of its memory, and walks it to find some"

    def plan(self, site: Site) -> list[Step]:
        return self.found(
            list(self.steps(site, f"choice:{_FILE}", "never")), "the kernel makes no huge pages"
        )


STAGE = Thp()
