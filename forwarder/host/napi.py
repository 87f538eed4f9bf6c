"""NAPI deferral: with busy polling the worker drives the queue, and its interrupts are held off.

Without busy polling a deferred queue would only wait: both are zero then.  The sysfs files set
every NAPI of the interface; per NAPI (netdev netlink, Linux 6.13) is for NICs shared with others.
"""

from __future__ import annotations

from forwarder.host.stage import Site, Stage, Step

DEFER, FLUSH_NS = 100, 200_000
"""Empty polls before interrupts come back, and the time between them (LWN 997491)."""


class Napi(Stage):
    name = "napi"
    why = "a polled queue needs no interrupts, a queue that is not polled must not wait for them"
    capability = "CAP_NET_ADMIN"
    after_attach = True

    def plan(self, site: Site) -> list[Step]:
        found: list[Step] = []
        polled = site.wishes.busy_poll
        for nic in self.each_nic(site):
            here = f"text:/sys/class/net/{nic.name}"
            found += self.steps(site, f"{here}/napi_defer_hard_irqs", str(DEFER if polled else 0))
            found += self.steps(site, f"{here}/gro_flush_timeout", str(FLUSH_NS if polled else 0))
        return self.found(found, self.nothing(site, "has no NAPI deferral (Linux 5.7)"))


STAGE = Napi()
