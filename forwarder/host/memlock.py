"""Memory that may be locked: AF_XDP packet memory counts against it."""

from __future__ import annotations

from forwarder.host.stage import PERSISTENT, Site, Stage, Step

UNIT = "/etc/systemd/system/vcfwd-dataplane.service.d/60-vcfwd-memlock.conf"
LIMITS = "/etc/security/limits.d/60-vcfwd.conf"


class Memlock(Stage):
    name = "memlock"
    why = "packet memory of AF_XDP is locked memory: without the limit the bind fails"
    capability = "CAP_DAC_OVERRIDE"

    def plan(self, site: Site) -> list[Step]:
        if site.facts.systemd:
            key, text = f"file:{UNIT}", "[Service]\nLimitMEMLOCK=infinity"
        else:
            key, text = f"file:{LIMITS}", "vcfwd - memlock unlimited\nroot - memlock unlimited"
        return list(self.steps(site, key, text, lifetime=PERSISTENT))


STAGE = Memlock()
