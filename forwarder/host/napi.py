"""NAPI deferral: with busy polling the worker drives the queue, and its interrupts are held off.

Without busy polling a deferred queue would only wait: both are zero then.  Since Linux 6.13 the
values belong to a NAPI: only those of queues that a worker serves are set, where the driver says
which they are.  Before, the files of sysfs set every NAPI of the interface.
"""

from __future__ import annotations

import itertools

from forwarder.host.stage import Site, Stage, Step

DEFER, FLUSH_NS = 100, 200_000
"""Empty polls before interrupts come back, and the time between them (LWN 997491)."""
PER_NAPI = (6, 13)
"""The first kernel on which both belong to a NAPI."""


class Napi(Stage):
    name = "napi"
    why = "a polled queue needs no interrupts, a queue that is not polled must not wait for them"
    capability = "CAP_NET_ADMIN"
    after_attach = True

    def plan(self, site: Site) -> list[Step]:
        found: list[Step] = []
        polled = site.wishes.busy_poll
        values = {"defer_hard_irqs": DEFER, "gro_flush_timeout": FLUSH_NS}
        for nic in self.each_nic(site):
            queues = range(len(site.layout.of(nic.name)))
            if site.facts.release >= PER_NAPI and nic.ethtool.get("napi"):
                for queue, name in itertools.product(queues, values):
                    key = f"ethtool:{nic.name}:napi.{queue}.{name}"
                    found += self.steps(site, key, str(values[name] if polled else 0))
                continue
            here = f"text:/sys/class/net/{nic.name}"
            found += self.steps(site, f"{here}/napi_defer_hard_irqs", str(DEFER if polled else 0))
            found += self.steps(site, f"{here}/gro_flush_timeout", str(FLUSH_NS if polled else 0))
        return self.found(found, self.nothing(site, "has no NAPI deferral (Linux 5.7)"))


STAGE = Napi()
