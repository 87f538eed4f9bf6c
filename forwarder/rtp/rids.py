"""Names that senders usually give to the layers of a picture (RFC 8851 says nothing of them)."""

from __future__ import annotations

from collections.abc import Sequence

NAMES = (
    ("q", "h", "f"),
    ("l", "m", "h"),
    ("lo", "mid", "hi"),
    ("low", "mid", "high"),
    ("low", "medium", "high"),
    ("low", "med", "high"),
)
"""Low to high."""


def usual_order(rids: Sequence[str]) -> list[int] | None:
    """The places of these rids, low to high; None: they say nothing of size."""
    for names in NAMES:
        if all(rid.lower() in names for rid in rids):
            return sorted(range(len(rids)), key=lambda i: names.index(rids[i].lower()))
    return None
