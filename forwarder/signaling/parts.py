"""Values that messages of the join protocol carry (messages.py)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from forwarder.rooms.roles import Role
from forwarder.rtp.codecs import Codec, Kind
from forwarder.rtp.suites import Suite


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ParticipantInfo(Message):
    id: str
    name: str
    role: Role


class TrackInfo(Message):
    id: str
    participant_id: str
    label: str
    kind: Kind
    codec: Codec
    muted: bool = False


class MediaOffer(Message):
    """Where and how media goes.  Keys are base64 of key || salt (GCM 16 + 12 bytes, CM 16 + 14).

    The client proves its address by a STUN binding request from its media socket with USERNAME
    `ufrag:<anything>`, MESSAGE-INTEGRITY keyed by `password`, and USE-CANDIDATE (RFC 8445), and
    repeats it at least every 15 s (consent, RFC 7675).
    """

    addresses: list[tuple[str, int]]  # IP, UDP port; all lead to this node
    ufrag: str
    password: str
    suite: Suite
    send_key: str  # client -> node
    receive_key: str  # node -> client
    rtcp_ssrc: int  # SSRC of the node's own RTCP
    cname: str


class SlotInfo(Message):
    """A slot of a browser.  `pair`: with the audio or video of the same number, -1 for a voice
    without a picture.  codec_unsupported: there is a track, and the browser cannot decode it."""

    mid: str
    pair: int
    kind: Kind
    state: Literal["waiting", "playing", "codec_unsupported"]
    track_id: str | None = None
    participant_id: str | None = None  # who publishes it


class IceServer(Message):
    """A TURN server of the operator's, in the form of RTCIceServer."""

    urls: list[str]
    username: str = ""
    credential: str = ""


class PublishedTrack(Message):
    label: str
    track_id: str


class SubscriptionInfo(Message):
    """What the client will receive for a track."""

    track_id: str
    participant_id: str
    kind: Kind
    codec: Codec
    ssrc: int
    pt: int
    clock_hz: int
