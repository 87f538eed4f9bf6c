"""What vcfwd knows of network drivers: drivers.toml, read once.

A driver that is not in it gets the careful answers: no zero-copy, and every change of its rings
or queues taken for a reset of its link.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from forwarder.host.facts import Facts, Nic

FILE = Path(__file__).with_name("drivers.toml")


@dataclass(frozen=True)
class Driver:
    """A row of drivers.toml; see there."""

    name: str
    native: str = ""
    zerocopy: str = ""
    allowed: bool = False
    why_not: str = "the driver is not in vcfwd's table"
    ntuple: bool = False
    resets: tuple[str, ...] = ("channels", "rings", "xdp", "features")
    outage: str = "several seconds"
    mtu: int = 1500
    channels: str = "combined"
    source: str = ""


@dataclass(frozen=True)
class Drivers:
    table: dict[str, Driver]

    def of(self, name: str) -> Driver:
        return self.table.get(name) or Driver(name)

    def resets(self, nic: Nic, what: str) -> bool:
        return what in self.of(nic.driver).resets

    def outage(self, nic: str, facts: Facts) -> str:
        there = facts.nics.get(nic)
        row = self.of(there.driver if there else "")
        return f"resets the link: it is gone for {row.outage}"

    def quote(self, nic: Nic, release: tuple[int, int]) -> str:
        """A sentence on what the driver can do on this kernel."""
        row = self.of(nic.driver)
        if nic.driver not in self.table:
            return f"{nic.name}: driver {nic.driver or '(none)'} is not in vcfwd's table"
        native = since(row.native, release)
        zero = since(row.zerocopy, release)
        copies = "zero-copy from " + row.zerocopy if row.zerocopy else "no zero-copy"
        if zero and not row.allowed:
            copies = f"zero-copy is not allowed: {row.why_not}"
        elif zero:
            copies = "zero-copy is allowed"
        mtu = f", MTU at most {row.mtu}" if row.mtu else ""
        way = "native XDP" if native else f"no native XDP before {row.native}"
        return f"{nic.name}: driver {nic.driver}: {way}{mtu}; {copies}"


def since(version: str, release: tuple[int, int]) -> bool:
    """Whether the kernel is as new as that; empty: no kernel is."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return match is not None and release >= (int(match[1]), int(match[2]))


@cache
def load() -> Drivers:
    rows: dict[str, dict[str, Any]] = tomllib.loads(FILE.read_text())
    table = {}
    for name, row in rows.items():
        resets = tuple(row.pop("resets"))
        table[name] = Driver(name, resets=resets, **row)
    return Drivers(table)
