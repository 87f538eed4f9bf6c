"""What vcfwd knows of network drivers: the rows of host/drivers.toml, read once.

One table for everybody: the probe of the data paths (is zero-copy allowed?), `doctor`, and the
plan of `vcfwd tune` (what resets a link?).  A driver that is not in it gets the careful answers:
no zero-copy, and every change of its rings or queues taken for a reset of its link.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

FILE = Path(__file__).resolve().parents[1] / "host" / "drivers.toml"


@dataclass(frozen=True)
class Driver:
    """A row of drivers.toml; see there."""

    name: str
    native: str = ""
    zerocopy: str = ""
    trusted: str = ""
    why_not: str = "the driver is not in vcfwd's table"
    ntuple: bool = False
    resets: tuple[str, ...] = ("channels", "rings", "xdp", "features", "ntuple")
    outage: str = "several seconds"
    mtu: int = 1500
    channels: str = "combined"
    source: str = ""


def since(version: str, release: tuple[int, int]) -> bool:
    """Whether the kernel is as new as that; empty: no kernel is."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return match is not None and release >= (int(match[1]), int(match[2]))


def why_no_zerocopy(name: str, release: tuple[int, int]) -> str:
    """Why zero-copy of a driver is not on the allow-list on this kernel; empty: it is."""
    row = load().get(name)
    if row is None:
        return f"the driver {name} is not on the list of those whose zero-copy is known to be safe"
    if not row.trusted:
        return f"zero-copy of the driver {name} is not allowed: {row.why_not}"
    if not since(row.trusted, release):
        return f"the zero-copy of the driver {name} is trusted from Linux {row.trusted} on"
    return ""


@cache
def load() -> Mapping[str, Driver]:
    """Name of a driver -> its row."""
    rows = tomllib.loads(FILE.read_text())
    table = {name: Driver(name, **{**row, "resets": tuple(row["resets"])}) for name, row in
             rows.items()}  # fmt: skip
    return MappingProxyType(table)
