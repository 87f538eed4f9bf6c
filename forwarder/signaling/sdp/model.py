"""What an offer says, and what was made of it: frozen values without any text handling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from forwarder.rtp.codecs import Codec, Kind
from forwarder.table import Ext

CODEC_ORDER: tuple[Codec, ...] = (Codec.VP8, Codec.H264, Codec.VP9, Codec.AV1)
"""Video codecs of a room, best first: what a publisher is answered with."""

EXTENSION_URIS: Mapping[str, Ext] = {
    "urn:ietf:params:rtp-hdrext:sdes:mid": Ext.MID,  # RFC 9143
    "urn:ietf:params:rtp-hdrext:ssrc-audio-level": Ext.AUDIO_LEVEL,  # RFC 6464
}
"""Header extensions that are answered.  Others, transport-wide numbers and abs-send-time first of
all, promise feedback that the worker does not give yet."""


class Way(StrEnum):
    """What the node does with the media of an offer."""

    RECEIVE = "recvonly"  # WHIP
    SEND = "sendonly"  # WHEP


@dataclass(frozen=True)
class Format:
    """One payload type of an m-line; `name` in lower case, `config` the fmtp text as offered."""

    pt: int
    name: str
    clock_hz: int
    channels: int = 1
    config: str = ""
    feedback: tuple[str, ...] = ()

    def parameter(self, name: str) -> str | None:
        """A parameter of the fmtp line, in lower case."""
        for item in self.config.split(";"):
            key, _, value = item.strip().partition("=")
            if key.lower() == name:
                return value.strip().lower()
        return None


@dataclass(frozen=True)
class Fingerprint:
    """RFC 8122; `value` in upper case with colons."""

    algorithm: str
    value: str


@dataclass(frozen=True)
class Media:
    """One m-line as offered; session-level ICE and DTLS attributes are already filled in."""

    index: int
    kind: str
    protocol: str
    port: int
    payloads: str = ""
    mid: str = ""
    direction: str = "sendrecv"
    formats: tuple[Format, ...] = ()
    extensions: tuple[tuple[int, str], ...] = ()
    ssrcs: tuple[int, ...] = ()
    groups: tuple[tuple[int, ...], ...] = ()
    """FID groups (RFC 5576): the stream and its resends."""
    stream: str = ""
    """The first word of msid."""
    rids: tuple[str, ...] = ()
    simulcast: bool = False
    bundle_only: bool = False
    rtcp_mux: bool = False
    setup: str = ""
    ufrag: str = ""
    password: str = field(default="", repr=False)
    fingerprints: tuple[Fingerprint, ...] = ()

    @property
    def live(self) -> bool:
        """Port 0 refuses an m-line, except with bundle-only (RFC 9143 section 6)."""
        return self.port != 0 or self.bundle_only


@dataclass(frozen=True)
class Offer:
    media: tuple[Media, ...]
    bundle: tuple[str, ...] = ()
    """The mids of the first BUNDLE group."""
    allow_mixed: bool = False


@dataclass(frozen=True)
class Accepted:
    """An m-line that is answered with a live port.

    `formats`: the answered payload types, best first; one where the node receives, every one that
    the viewer can decode where it sends.  `ssrc`: the stream's, where the offer tells it.
    """

    media: Media
    kind: Kind
    formats: tuple[tuple[Codec, Format], ...]
    ssrc: int | None = None


@dataclass(frozen=True)
class Negotiation:
    """Everything that follows from the offer alone."""

    offer: Offer
    way: Way
    accepted: tuple[Accepted, ...]
    extensions: Mapping[Ext, int]
    """Ids as offered; the same for both directions of the leg."""
    ufrag: str
    """The client's."""
    fingerprint: Fingerprint

    @property
    def nack(self) -> bool:
        """The node may ask for video again."""
        return self.way is Way.RECEIVE and any(
            "nack" in a.formats[0][1].feedback for a in self.accepted if a.kind is Kind.VIDEO
        )

    def section(self, index: int) -> Accepted | None:
        return next((a for a in self.accepted if a.media.index == index), None)


@dataclass(frozen=True)
class Candidate:
    """A host candidate of the node: its one UDP port on one address."""

    address: str
    port: int


@dataclass(frozen=True)
class Stream:
    """What the node sends in one m-line."""

    ssrc: int
    cname: str
    stream: str
    track: str


@dataclass(frozen=True)
class Local:
    """The node's side of an answer."""

    ufrag: str
    password: str = field(repr=False)
    fingerprint: str  # sha-256, upper case with colons
    candidates: tuple[Candidate, ...]
    session_id: int
    streams: Mapping[str, Stream] = field(default_factory=dict)
    """By mid, where the node sends."""
