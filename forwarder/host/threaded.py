"""Threaded NAPI is off: a kernel thread between NIC and worker is one more wake-up."""

from __future__ import annotations

from forwarder.host.stage import Site, Stage, Step


class Threaded(Stage):
    name = "threaded"
    why = "a kernel thread between the NIC and the worker is one more wake-up"
    capability = "CAP_NET_ADMIN"
    after_attach = True

    def plan(self, site: Site) -> list[Step]:
        found: list[Step] = []
        for nic in self.each_nic(site):
            found += self.steps(site, f"text:/sys/class/net/{nic.name}/threaded", "0")
        return self.found(found, self.nothing(site, "has no threaded NAPI (Linux 5.12)"))


STAGE = Threaded()
