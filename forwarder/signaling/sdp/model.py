"""What an offer says, and what was made of it: frozen values without any text handling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from forwarder.rtp.codecs import VIDEO_ORDER, Codec, Kind
from forwarder.table import Ext

EXTENSION_URIS: Mapping[str, Ext] = {
    "urn:ietf:params:rtp-hdrext:sdes:mid": Ext.MID,  # RFC 9143
    "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id": Ext.RID,  # RFC 8852
    "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id": Ext.RRID,
    "urn:ietf:params:rtp-hdrext:ssrc-audio-level": Ext.AUDIO_LEVEL,  # RFC 6464
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time": Ext.ABS_SEND_TIME,
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01": Ext.TRANSPORT_CC,
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension": (
        Ext.DEPENDENCY
    ),
    "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay": Ext.PLAYOUT_DELAY,
}
"""Header extensions that can be answered; all others are left out."""


class Way(StrEnum):
    """What the node does with the media of an m-line, as its answer says it."""

    RECEIVE = "recvonly"
    SEND = "sendonly"


@dataclass(frozen=True)
class Terms:
    """What a kind of join may have.

    `receive`, `send`: most m-lines of each kind that the node receives, and sends; `send_audio`:
    most audio m-lines that it sends besides, for sound without a picture.  `order`: the codecs of
    the room, best first.
    """

    receive: int
    send: int
    send_audio: int = 0
    order: tuple[Codec, ...] = VIDEO_ORDER


WHIP = Terms(receive=1, send=0)
WHEP = Terms(receive=0, send=1)
SESSION = Terms(receive=2, send=25, send_audio=3)


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
class HeaderExtension:
    """An extmap line (RFC 8285 section 5); `direction` empty where it has none."""

    id: int
    uri: str
    direction: str = ""


@dataclass(frozen=True)
class Rid:
    """A stream that the client would send (RFC 8851); `pts` empty: in every format."""

    id: str
    pts: tuple[int, ...] = ()
    pixels: int = 0
    """max-width x max-height, 0 where the line does not limit both."""


@dataclass(frozen=True)
class Group:
    """An ssrc-group (RFC 5576): FID is a stream and its resends, SIM the layers, low to high."""

    semantics: str
    ssrcs: tuple[int, ...]


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
    extensions: tuple[HeaderExtension, ...] = ()
    ssrcs: tuple[int, ...] = ()
    groups: tuple[Group, ...] = ()
    stream: str = ""
    """The first word of msid."""
    rids: tuple[Rid, ...] = ()
    simulcast: tuple[str, ...] = ()
    """The rids that the client would send at once, in the order of the offer."""
    allow_mixed: bool = False
    bundle_only: bool = False
    rtcp_mux: bool = False
    rtcp_rsize: bool = False
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
class Chosen:
    """A format that is answered, with its repair and its redundant form where both ends can."""

    codec: Codec
    format: Format
    rtx: Format | None = None
    red: Format | None = None
    red_first: bool = False
    """It was offered before the plain form."""

    @property
    def all(self) -> tuple[Format, ...]:
        """In the order of the answer: the first one is sent.  That is the redundant form where the
        client offered it so, as a page does that prefers it; browsers by themselves do not."""
        best = (self.red, self.format) if self.red_first else (self.format, self.red)
        return tuple(f for f in (*best, self.rtx) if f is not None)


@dataclass(frozen=True)
class Layer:
    """One encoding of a track that the node receives.  `rid` empty: the stream has none."""

    rid: str = ""
    ssrc: int | None = None
    rtx_ssrc: int | None = None


@dataclass(frozen=True)
class Accepted:
    """An m-line that is answered with a live port.

    `formats`: what is answered, best first; one where the node receives, every one that the viewer
    can decode where it sends.  `layers`: where the node receives, low to high, at least one.
    `pair`: where it sends, the number of the picture with its sound, -1: sound alone.
    """

    media: Media
    kind: Kind
    way: Way
    formats: tuple[Chosen, ...]
    layers: tuple[Layer, ...] = ()
    pair: int = -1
    extensions: tuple[HeaderExtension, ...] = ()
    """Those of the offer that are answered."""

    @property
    def mid(self) -> str:
        return self.media.mid

    @property
    def transport_cc(self) -> bool:
        """Transport-wide feedback was agreed on."""
        return self.way is Way.RECEIVE and self._extends(Ext.TRANSPORT_CC)

    @property
    def remb(self) -> bool:
        """The client tells what it could receive, which it learns from the times of sending."""
        return self.way is Way.SEND and self._extends(Ext.ABS_SEND_TIME)

    def _extends(self, kind: Ext) -> bool:
        return any(EXTENSION_URIS[item.uri] is kind for item in self.extensions)


@dataclass(frozen=True)
class Negotiation:
    """Everything that follows from the offer alone; ids of extensions as offered."""

    offer: Offer
    accepted: tuple[Accepted, ...]
    """In the order of the m-lines."""
    rx_extensions: Mapping[Ext, int]
    """On what the node receives."""
    tx_extensions: Mapping[Ext, int]
    """On what the node sends."""
    ufrag: str
    """The client's."""
    fingerprint: Fingerprint
    version: int = 1
    """Of the session's descriptions: one more with each re-offer."""

    @property
    def receive(self) -> tuple[Accepted, ...]:
        return tuple(a for a in self.accepted if a.way is Way.RECEIVE)

    @property
    def send(self) -> tuple[Accepted, ...]:
        return tuple(a for a in self.accepted if a.way is Way.SEND)

    @property
    def nack(self) -> bool:
        """The node may ask for video again."""
        return self._nack(Kind.VIDEO)

    @property
    def nack_audio(self) -> bool:
        """The node may ask for audio again."""
        return self._nack(Kind.AUDIO)

    @property
    def feedback(self) -> bool:
        """The node has to tell when each packet came."""
        return any(a.transport_cc for a in self.accepted)

    def _nack(self, kind: Kind) -> bool:
        return any("nack" in a.formats[0].format.feedback for a in self.receive if a.kind is kind)

    def section(self, index: int) -> Accepted | None:
        return next((a for a in self.accepted if a.media.index == index), None)


@dataclass(frozen=True)
class Candidate:
    """A host candidate of the node: its one UDP port on one address."""

    address: str
    port: int


@dataclass(frozen=True)
class Stream:
    """What the node sends in one m-line; `rtx_ssrc` where resends have a stream of their own."""

    ssrc: int
    cname: str
    stream: str
    track: str
    rtx_ssrc: int | None = None


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
