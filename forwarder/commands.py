"""The commands that change the forwarding table: one frozen value for each change.

See enum vc_cmd_type in c_helpers/include/vcfwd/abi.h.  `rooms.diff` computes them,
`dataplane.encode` turns them into records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from forwarder.table import HeaderTemplate, Leg, Route, Source


@dataclass(frozen=True)
class LegSet:
    """Create or change a leg.  The same key_id keeps keys, indices and replay windows."""

    leg: Leg


@dataclass(frozen=True)
class LegHeader:
    """Give a leg its prebuilt header."""

    leg: int
    template: HeaderTemplate


@dataclass(frozen=True)
class LegRate:
    """Set a leg's pacing rate, bits a second; 0: unpaced."""

    leg: int
    rate_bps: int


@dataclass(frozen=True)
class LegRemove:
    leg: int


@dataclass(frozen=True)
class SourceSet:
    """`resume`: the id had this very stream before; what it was bound to and received goes on."""

    source: Source
    resume: bool = False


@dataclass(frozen=True)
class SourceRemove:
    source: int


@dataclass(frozen=True)
class RouteSet:
    """Create a route, or change its source, label or `paused` (which becomes a route_filter)."""

    route: Route


@dataclass(frozen=True)
class RouteFilter:
    """Limit a route.  `paused` drops everything; on resume its gate waits for a key frame."""

    route: int
    paused: bool = False
    max_spatial: int = 0xFF
    max_temporal: int = 0xFF


@dataclass(frozen=True)
class RouteRemove:
    route: int


@dataclass(frozen=True)
class KeyframeRequest:
    """Ask the sender of a source for a key frame (merged: at most one each 300 ms)."""

    source: int


@dataclass(frozen=True)
class Begin:
    """The replayed table is complete: receive (ends VC_SETUP_HOLD)."""


Command: TypeAlias = (
    LegSet
    | LegHeader
    | LegRate
    | LegRemove
    | SourceSet
    | SourceRemove
    | RouteSet
    | RouteFilter
    | RouteRemove
    | KeyframeRequest
    | Begin
)
