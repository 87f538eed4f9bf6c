"""Ring sizes: deep enough for a burst while a worker sends, small enough for the cache."""

from __future__ import annotations

from forwarder.host.stage import RESETS, SAFE, Site, Stage, Step

WANTED = 2048
"""Descriptors (notes: 1-2 k); what lies between half of it and itself stays."""


class Rings(Stage):
    name = "rings"
    why = "a short ring drops the burst of a key frame; a very deep one leaves the cache"
    capability = "CAP_NET_ADMIN"

    def plan(self, site: Site) -> list[Step]:
        found: list[Step] = []
        for nic in self.each_nic(site):
            have = nic.ethtool.get("rings", {})
            risk = RESETS if site.drivers.resets(nic, "rings") else SAFE
            for way in ("rx", "tx"):
                most, now = have.get(f"{way}_max", 0), have.get(way, 0)
                if most <= 0:
                    continue
                wanted = now if WANTED // 2 <= now <= WANTED else min(WANTED, most)
                found += self.steps(site, f"ethtool:{nic.name}:rings.{way}", str(wanted), risk=risk)
        return self.found(found, self.nothing(site, "has no rings that can be set", "rings"))


STAGE = Rings()
