"""What a worker tells by itself, as frozen values (past tense: it happened)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Bound:
    """An SSRC was bound to a source by its label or payload type."""

    leg: int
    source: int
    ssrc: int


@dataclass(frozen=True)
class SourceActive:
    """The first authentic packet of a source arrived."""

    source: int


@dataclass(frozen=True)
class SourceEnded:
    """RTCP BYE for a source (RFC 3550 section 6.6)."""

    leg: int
    source: int
    ssrc: int


@dataclass(frozen=True)
class FeedbackReceived:
    """A receiver report about a route (RFC 3550 section 6.4.1): `fraction_lost` 0..1 since the
    report before, `jitter` in RTP clock units, `rtt_us` microseconds, None: not known."""

    route: int
    fraction_lost: float
    cumulative_lost: int
    jitter: int
    highest_seq: int
    rtt_us: int | None


@dataclass(frozen=True)
class EstimateReceived:
    """The peer of a leg says how much it can receive, bits a second (REMB,
    draft-alvestrand-rmcat-remb-03)."""

    leg: int
    bitrate_bps: int


Event: TypeAlias = Bound | SourceActive | SourceEnded | FeedbackReceived | EstimateReceived
