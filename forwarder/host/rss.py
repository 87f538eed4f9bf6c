"""RSS: the table spreads over the workers' queues, and UDP is hashed with its ports.

Without the ports all media of one address lands on one queue: measured on igb.
"""

from __future__ import annotations

from forwarder.host.channels import queues, settled
from forwarder.host.stage import Site, Stage, Step


class Rss(Stage):
    name = "rss"
    why = "without the ports in the hash all media from one address lands on one queue"
    capability = "CAP_NET_ADMIN"

    def plan(self, site: Site) -> list[Step]:
        found: list[Step] = []
        for nic in self.each_nic(site):
            kept = nic.name in site.guarded
            count = settled(site, nic) if kept else queues(site, nic)
            if nic.queues_max > 1:
                for family in nic.ethtool.get("hash", {}):
                    found += self.steps(site, f"ethtool:{nic.name}:hash.{family}", "sdfn")
            if nic.ethtool.get("rss", {}).get("table"):
                why = f"the table spreads over the {count} queues that have a worker"
                key = f"ethtool:{nic.name}:rss.table"
                found += self.steps(site, key, f"equal {count}", why)
        return self.found(found, self.nothing(site, "has no RSS that can be set"))


STAGE = Rss()
