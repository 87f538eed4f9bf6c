"""Which remote track a received packet belongs to.

Packets may come before the node's word of their SSRC: a few are kept until it does.
"""

from __future__ import annotations

from collections.abc import Callable

from forwarder.client import rtp
from forwarder.client.subscribe import RemoteTrack
from forwarder.signaling.messages import SubscriptionInfo

EARLY_MAX = 1024  # packets kept of SSRCs that no subscription has named yet


class Inbox:
    """`on_packet(track, packet, arrival_ns)` sees each packet before its track does."""

    def __init__(
        self,
        new_track: Callable[[SubscriptionInfo], RemoteTrack],
        on_packet: Callable[[RemoteTrack, rtp.RtpPacket, int], None] | None,
    ) -> None:
        self._new_track = new_track
        self._on_packet = on_packet
        self._early: list[tuple[rtp.RtpPacket, int]] = []
        self.tracks: dict[str, RemoteTrack] = {}  # by track id; those that ended too
        self.by_ssrc: dict[int, RemoteTrack] = {}
        self.unknown_ssrc = 0

    def subscribed(self, info: SubscriptionInfo) -> RemoteTrack:
        """The track, new or with another SSRC; what came early for it is delivered."""
        track = self.tracks.get(info.track_id)
        if track is None:
            track = self.tracks[info.track_id] = self._new_track(info)
        else:
            self.by_ssrc.pop(track.info.ssrc, None)
            track.renew(info)
        self.by_ssrc[info.ssrc] = track
        early, self._early = self._early, []
        for packet, arrival_ns in early:
            self.packet(packet, arrival_ns)
        return track

    def unsubscribed(self, track_ids: list[str]) -> None:
        """Packets still on their way are of unknown SSRC from now on."""
        for track_id in track_ids:
            track = self.tracks.get(track_id)
            if track is not None:
                self.by_ssrc.pop(track.info.ssrc, None)

    def packet(self, packet: rtp.RtpPacket, arrival_ns: int) -> None:
        """A verified packet."""
        track = self.by_ssrc.get(packet.ssrc)
        if track is not None:
            if self._on_packet is not None:
                self._on_packet(track, packet, arrival_ns)
            track.receive(packet, arrival_ns)
        elif len(self._early) < EARLY_MAX:
            self._early.append((packet, arrival_ns))
        else:
            self.unknown_ssrc += 1
