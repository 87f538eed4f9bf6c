"""What the table of drivers (net/drivers.py) says of a NIC of this host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from forwarder.host.facts import Facts, Nic
from forwarder.net import drivers
from forwarder.net.drivers import Driver, since


@dataclass(frozen=True)
class Drivers:
    table: Mapping[str, Driver]

    def of(self, name: str) -> Driver:
        return self.table.get(name) or Driver(name)

    def resets(self, nic: Nic, what: str) -> bool:
        return what in self.of(nic.driver).resets

    def outage(self, nic: str, facts: Facts) -> str:
        there = facts.nics.get(nic)
        row = self.of(there.driver if there else "")
        return f"resets the link: it is gone for {row.outage}"

    def quote(self, nic: Nic, release: tuple[int, int]) -> str:
        """The driver's row in a sentence, as it counts on this kernel."""
        row = self.of(nic.driver)
        if nic.driver not in self.table:
            return f"{nic.name}: driver {nic.driver or '(none)'} is not in vcfwd's table"
        way = "native XDP" if since(row.native, release) else f"no native XDP before {row.native}"
        if row.mtu:
            way += f", MTU at most {row.mtu}"
        reset = f"{', '.join(row.resets) or 'nothing'} resets the link"
        return "; ".join(
            (
                f"{nic.name}: driver {nic.driver}: {way}",
                _zerocopy(row, release),
                f"{'rules' if row.ntuple else 'no rules'} for ports",
                f"channels {row.channels}",
                f"{reset} ({row.outage})" if row.resets else reset,
                f"source: {row.source}",
            )
        )


def _zerocopy(row: Driver, release: tuple[int, int]) -> str:
    if not row.zerocopy:
        return f"no zero-copy: {row.why_not}"
    if not since(row.zerocopy, release):
        return f"zero-copy from {row.zerocopy}"
    refusal = drivers.why_no_zerocopy(row.name, release)
    return refusal or "zero-copy is allowed"


def load() -> Drivers:
    return Drivers(drivers.load())
