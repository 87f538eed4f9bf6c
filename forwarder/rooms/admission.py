"""Limits, and the sentence that is shown when one is hit.

Law: a check raises Refused or returns; it changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from forwarder.config import ROOM_ACTIVE_MAX, ROOM_PASSIVE_MAX, Config
from forwarder.errors import ErrorCode, Refused
from forwarder.rooms.roles import Role
from forwarder.rooms.room import Participant, Room, TrackSpec
from forwarder.rtp.codecs import Codec, Kind
from forwarder.rtp.suites import Suite

TRACKS_MAX = 16
"""Tracks that one participant may publish."""
LAYERS_MAX = 3
"""Layers of one track."""
PAIRS_MAX = 25
"""Pairs of slots, for sound and picture of a publisher, of one viewer."""
SOUNDS_MAX = 3
"""Slots for sound alone of one viewer."""
SUBSCRIPTIONS_MAX = 1024
"""Tracks that one participant may receive."""

NAME_MAX = 64
"""Characters of a participant's name or a track's label."""

_ROOM_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

CLOCK_HZ = {Codec.OPUS: 48_000}
"""RTP clock by codec (RFC 7587 section 4.1); every video codec here has VIDEO_CLOCK_HZ."""
VIDEO_CLOCK_HZ = 90_000
"""RFC 6184 section 8.1, RFC 7741 section 4.1, RFC 9628, AV1 RTP."""
RTCP_PT = range(64, 96)
"""Payload types that look like RTCP on a shared port (RFC 5761 section 4)."""


@dataclass(frozen=True)
class Limits:
    """What the rooms must know of the configuration; units as in configs/default.toml."""

    max_rooms: int = 5000
    max_active: int = 50
    max_passive: int = 1000
    empty_ttl_s: float = 300
    resume_grace_s: float = 30
    workers: int = 1
    legs_max: int = 4096
    sources_max: int = 4096
    routes_max: int = 65536
    history_audio: int = 256
    history_video: int = 128
    start_rate: int = 20_000_000
    addresses: tuple[str, ...] = ("127.0.0.1", "::1")

    @classmethod
    def of(cls, config: Config) -> Limits:
        rooms, dataplane = config.rooms, config.dataplane
        return cls(
            max_rooms=rooms.max_rooms,
            max_active=rooms.max_active,
            max_passive=rooms.max_passive,
            empty_ttl_s=rooms.empty_ttl_s,
            resume_grace_s=rooms.resume_grace_s,
            workers=dataplane.workers,
            legs_max=dataplane.legs_max,
            sources_max=dataplane.sources_max,
            routes_max=dataplane.routes_max,
            history_audio=dataplane.history_audio,
            history_video=dataplane.history_video,
            start_rate=config.pacing.start_rate,
            addresses=tuple(str(ip_address(a)) for a in config.network.addresses),
        )


def check_room_id(room_id: str) -> None:
    if not _ROOM_ID.fullmatch(room_id):
        raise Refused(
            ErrorCode.BAD_MESSAGE,
            f"room id {room_id[:80]!r} must be 1 to 64 characters of A-Z a-z 0-9 _ -",
        )


def check_text(what: str, text: str) -> None:
    """Names are stored and sent on to others."""
    if len(text) > NAME_MAX or any("\ud800" <= char <= "\udfff" for char in text):
        raise Refused(
            ErrorCode.BAD_MESSAGE, f"{what} must be at most {NAME_MAX} characters of Unicode"
        )


def check_room_limits(max_active: int, max_passive: int) -> None:
    for name, value, low, high in (
        ("max_active", max_active, 1, ROOM_ACTIVE_MAX),
        ("max_passive", max_passive, 0, ROOM_PASSIVE_MAX),
    ):
        if not low <= value <= high:
            raise Refused(ErrorCode.BAD_MESSAGE, f"{name} is {value}; it must be {low} to {high}")


def check_codecs(codecs: Sequence[Codec]) -> None:
    names = ", ".join(codec.value for codec in Codec if codec.kind is Kind.VIDEO)
    if not codecs or len(set(codecs)) != len(codecs) or Codec.OPUS in codecs:
        raise Refused(
            ErrorCode.BAD_MESSAGE, f"codecs must be one or more of {names}, each once, best first"
        )


def check_new_room(count: int, limits: Limits) -> None:
    if count >= limits.max_rooms:
        raise Refused(
            ErrorCode.LIMIT,
            f"this node has {count} rooms, its limit: close some, or raise rooms.max_rooms",
        )


def check_open(shut: str) -> None:
    """`shut`: why nobody new is admitted to the node."""
    if shut:
        raise Refused(ErrorCode.UNAVAILABLE, shut)


def check_join(room: Room, role: Role) -> None:
    """A host counts as active, backstage as passive."""
    if role.may_publish and room.active >= room.max_active:
        raise Refused(
            ErrorCode.ROOM_FULL,
            f"room {room.id} has {room.active} active participants, its limit: join as passive, "
            "or wait until somebody leaves",
        )
    if not role.may_publish and room.passive >= room.max_passive:
        raise Refused(
            ErrorCode.ROOM_FULL,
            f"room {room.id} has {room.passive} passive participants, its limit: wait until "
            "somebody leaves",
        )


def check_role(room: Room, have: Role, role: Role) -> None:
    """Of somebody who is here.  One who changes side needs a place there."""
    if role.may_publish == have.may_publish:
        return
    if role.may_publish and room.active >= room.max_active:
        raise Refused(
            ErrorCode.ROOM_FULL,
            f"room {room.id} has {room.active} active participants, its limit: make one of them "
            "passive first",
        )
    if not role.may_publish and room.passive >= room.max_passive:
        raise Refused(
            ErrorCode.ROOM_FULL,
            f"room {room.id} has {room.passive} passive participants, its limit: wait until "
            "one of them leaves",
        )


def choose_suite(offered: Sequence[Suite]) -> Suite:
    """The best that both sides know: AEAD_AES_128_GCM, else AES_CM_128_HMAC_SHA1_80."""
    for suite in (Suite.GCM, Suite.SHA1):
        if suite in offered:
            return suite
    names = ", ".join(suite.value for suite in Suite)
    raise Refused(ErrorCode.BAD_MESSAGE, f"no SRTP suite in common: offer one of {names}")


def _check_spec(spec: TrackSpec) -> None:
    check_text("a track's label", spec.label)
    if spec.codec.kind is not spec.kind:
        raise Refused(
            ErrorCode.CODEC_UNSUPPORTED,
            f"track {spec.label!r}: {spec.codec} is not {spec.kind}",
        )
    clock_hz = CLOCK_HZ.get(spec.codec, VIDEO_CLOCK_HZ)
    if spec.clock_hz != clock_hz:
        raise Refused(
            ErrorCode.CODEC_UNSUPPORTED,
            f"track {spec.label!r}: the RTP clock of {spec.codec} is {clock_hz} Hz, "
            f"not {spec.clock_hz}",
        )
    if not 0 <= spec.pt < 128 or spec.pt in RTCP_PT:
        raise Refused(
            ErrorCode.BAD_MESSAGE,
            f"track {spec.label!r}: payload type {spec.pt} cannot share a port with RTCP: "
            "use 0 to 63 or 96 to 127",
        )
    if spec.rtx_pt is not None and (
        not 0 < spec.rtx_pt < 128 or spec.rtx_pt in RTCP_PT or spec.rtx_pt == spec.pt
    ):
        raise Refused(
            ErrorCode.BAD_MESSAGE,
            f"track {spec.label!r}: payload type {spec.rtx_pt} cannot be that of its resends",
        )
    _check_layers(spec)


def _check_layers(spec: TrackSpec) -> None:
    layers = spec.encodings
    if len(layers) > LAYERS_MAX:
        raise Refused(
            ErrorCode.LIMIT,
            f"track {spec.label!r}: a track may have {LAYERS_MAX} layers, not {len(layers)}",
        )
    if len(layers) > 1 and spec.kind is not Kind.VIDEO:
        raise Refused(ErrorCode.BAD_MESSAGE, f"track {spec.label!r}: only video has layers")
    for ssrc in spec.ssrcs:
        if not 0 < ssrc < 1 << 32:
            raise Refused(ErrorCode.BAD_MESSAGE, f"track {spec.label!r}: bad SSRC {ssrc}")
    if spec.rtx_pt is None and any(layer.rtx_ssrc is not None for layer in layers):
        raise Refused(
            ErrorCode.BAD_MESSAGE, f"track {spec.label!r}: resends need a payload type (rtx_pt)"
        )
    unnamed = [layer for layer in layers if layer.ssrc is None and not layer.rid]
    if len(layers) > 1 and (unnamed or len({layer.rid for layer in layers}) != len(layers)):
        raise Refused(
            ErrorCode.BAD_MESSAGE,
            f"track {spec.label!r}: its layers cannot be told apart: give each a rid of its own",
        )


def check_publish(room: Room, publisher: Participant, specs: Sequence[TrackSpec]) -> None:
    """All tracks or none: raises for the first that cannot be."""
    if not publisher.role.may_publish:
        raise Refused(
            ErrorCode.FORBIDDEN,
            f"the role {publisher.role} may not publish: ask for a token with the role active",
        )
    if len(publisher.tracks) + len(specs) > TRACKS_MAX:
        raise Refused(
            ErrorCode.LIMIT,
            f"a participant may publish {TRACKS_MAX} tracks: unpublish some first",
        )
    labels = {track.spec.label for track in publisher.tracks.values()}
    own: set[int] = {s.out_ssrc for s in publisher.subscriptions.values()} | {publisher.rtcp_ssrc}
    for slot in publisher.slots:
        own |= {slot.out_ssrc, slot.rtx_ssrc or slot.out_ssrc}
    ssrcs: Collection[int] = room.ssrcs
    for spec in specs:
        _check_spec(spec)
        if spec.label in labels:
            raise Refused(
                ErrorCode.BAD_MESSAGE, f"track {spec.label!r}: you have a track of this label"
            )
        for ssrc in spec.ssrcs:
            if ssrc in ssrcs or ssrc in own:
                raise Refused(
                    ErrorCode.SSRC_IN_USE,
                    f"track {spec.label!r}: SSRC {ssrc} is in use in this room: "
                    "choose another at random",
                )
            own.add(ssrc)
        labels.add(spec.label)
