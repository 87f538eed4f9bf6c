"""Offloads that merge datagrams before XDP sees them are off; so is the stripping of VLAN tags
where packets come tagged (XDP does not see a stripped tag).  GRO stays: TCP likes it, and XDP
comes before it.
"""

from __future__ import annotations

from forwarder.host.stage import RESETS, SAFE, Site, Stage, Step

MERGING = ("rx-lro", "rx-gro-hw", "rx-udp-gro-forwarding", "rx-gro-list", "tx-gre-segmentation")
TAGS = ("rx-vlan-hw-parse", "tx-vlan-hw-insert")


class Offloads(Stage):
    name = "offloads"
    why = "datagrams that were merged before XDP are not datagrams any more"
    capability = "CAP_NET_ADMIN"

    def plan(self, site: Site) -> list[Step]:
        found: list[Step] = []
        for nic in self.each_nic(site):
            have = nic.ethtool.get("features", {})
            risk = RESETS if site.drivers.resets(nic, "features") else SAFE
            tags = TAGS if nic.name in site.vlan_parents else ()
            for name in (*MERGING, *tags):
                if not have.get(name, {"fixed": True})["fixed"]:
                    why = "XDP does not see a stripped VLAN tag" if name in TAGS else ""
                    key = f"ethtool:{nic.name}:features.{name}"
                    found += self.steps(site, key, "off", why, risk=risk)
        none = self.nothing(site, "merges nothing that could be switched off", "features")
        return self.found(found, none)


STAGE = Offloads()
