"""Channels: one queue for each worker of the NIC.

With more queues than workers, RSS sends traffic to queues that nobody serves past the kernel.  A
driver refuses to drop a queue that its RSS table still names, so the table shrinks first (and is
journaled as what it was).
"""

from __future__ import annotations

from forwarder.host.facts import Nic
from forwarder.host.stage import RESETS, SAFE, Site, Stage, Step


class Channels(Stage):
    name = "channels"
    why = "a queue that no worker serves takes its share of the traffic to the kernel"
    capability = "CAP_NET_ADMIN"

    def plan(self, site: Site) -> list[Step]:
        found = [step for nic in self.each_nic(site) for step in self._of(site, nic)]
        return self.found(found, self.nothing(site, "lets nobody set its channels", "channels"))

    def _of(self, site: Site, nic: Nic) -> list[Step]:
        have, fields = nic.ethtool.get("channels", {}), _fields(nic)
        wanted = queues(site, nic)
        risk = RESETS if site.drivers.resets(nic, "channels") else SAFE
        found: list[Step] = []
        table = nic.ethtool.get("rss", {}).get("table", [])
        if max(table, default=0) >= wanted and not (risk == RESETS and nic.name in site.guarded):
            why = "the RSS table must not name a queue that goes away"
            found += self.steps(site, f"ethtool:{nic.name}:rss.table", f"equal {wanted}", why)
        for name in fields:
            most = have[f"{name}_max"]
            key = f"ethtool:{nic.name}:channels.{name}_count"
            found += self.steps(site, key, str(min(wanted, most)), risk=risk)
        return found


def _fields(nic: Nic) -> list[str]:
    """What its driver lets be set."""
    have = nic.ethtool.get("channels", {})
    fields = [f for f in ("combined", "rx", "tx") if have.get(f"{f}_max", 0) > 0]
    return ["combined"] if "combined" in fields else fields


def queues(site: Site, nic: Nic) -> int:
    """How many queues a NIC shall have: as many as workers, as far as it can."""
    return max(1, min(len(site.layout.of(nic.name)), nic.queues_max))


def settled(site: Site, nic: Nic) -> int:
    """How many it will have: those it has now where its channels may not be touched, or cannot."""
    kept = nic.name in site.guarded and site.drivers.resets(nic, "channels")
    return nic.queues if kept or not _fields(nic) else queues(site, nic)


STAGE = Channels()
