"""Interrupts of the NICs: on the housekeeping cores of their node, or on the workers' own cores.

A driver may manage its interrupts itself: the kernel then answers EIO, which is said and is no
failure (isolcpus=managed_irq keeps them off at boot).  XDP attach, a link flap and a change of
channels put a pinned one back: measured on igb.
"""

from __future__ import annotations

import errno

from forwarder.host import cpulist, settings, vectors
from forwarder.host.channels import settled
from forwarder.host.facts import Nic
from forwarder.host.root import Host
from forwarder.host.stage import NotApplicable, Site, Stage, Step
from forwarder.host.vectors import Vector


class Managed(OSError):
    """The driver manages this interrupt: nobody else may move it."""


class Irq(Stage):
    name = "irq"
    why = "an interrupt on a worker's core stops the worker"
    capability = "CAP_SYS_ADMIN"
    after_attach = True

    def plan(self, site: Site) -> list[Step]:
        found: list[Step] = []
        for nic in self.each_nic(site):
            for vector in nic.vectors or vectors.read(site.host, nic.name):  # or: needs root
                if vector.of_queue and vector.queue >= settled(site, nic):
                    continue  # goes with its channel
                key = f"irq:{nic.name}:{vector.role}:{vector.queue}"
                found += self.steps(site, key, cpulist.show((_home(site, nic, vector),)))
        down = [nic.name for nic in site.nics if not nic.up]
        if down and not found:
            raise NotApplicable(
                f"{down[0]} is down, and its driver asks for interrupts when it comes up: "
                f"ip link set {down[0]} up, then apply again"
            )
        return self.found(found, self.nothing(site, "has no interrupts of its own"))

    def init(self, host: Host, step: Step) -> None:
        try:
            settings.write(host, step.key, step.wanted)
        except OSError as error:
            if error.errno == errno.EIO:
                raise Managed(
                    errno.EIO,
                    f"{step.key}: the driver manages this interrupt itself; "
                    "isolcpus=managed_irq (stage boot) keeps it off the workers",
                ) from error
            raise


def _home(site: Site, nic: Nic, vector: Vector) -> int:
    workers = site.layout.of(nic.name)
    if vector.of_queue and site.wishes.interrupts == "worker":
        return workers[vector.queue % len(workers)].cpu
    house = site.layout.house_on(workers[0].node, site.facts)
    return house[max(vector.queue, 0) % len(house)]


STAGE = Irq()
