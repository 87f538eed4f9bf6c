"""How starting a data plane came out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Started:
    """How start() came out: `adopted` when a living data plane was found."""

    adopted: bool
    pid: int
