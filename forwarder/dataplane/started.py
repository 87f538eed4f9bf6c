"""How starting a data plane came out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Started:
    """How start() came out: `adopted` when a living data plane was found; `changed` says
    "running N, installed M" when it is of another version than the one on disk."""

    adopted: bool
    pid: int
    changed: str = ""
