"""Identifiers, as types of their own so that one is never taken for another."""

from __future__ import annotations

from typing import NewType

RoomId = NewType("RoomId", str)  # also the call id; [A-Za-z0-9_-]{1,64}
ParticipantId = NewType("ParticipantId", str)
TrackId = NewType("TrackId", str)
LegId = NewType("LegId", int)  # index into the data plane's leg table
SourceId = NewType("SourceId", int)
RouteId = NewType("RouteId", int)
Ssrc = NewType("Ssrc", int)  # 32 bits, never 0
