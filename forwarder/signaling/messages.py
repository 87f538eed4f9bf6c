"""The messages of the join protocol, version 1.

On the control stream of the WebTransport session (the first bidirectional stream, opened by the
client) each message is a 4-byte big-endian length and that many bytes of UTF-8 JSON: one object
with `type`, and `id` on requests.  The answer to a request carries its id in `re`; a message
without `re` was not asked for.  At most MESSAGE_MAX bytes a message of a client; a node's may be
longer (framing.SERVER_MESSAGE_MAX), for a welcome lists everybody in the room.

The client speaks first: `join`.  Unknown types and fields are answered by `error` and the session
goes on.  Binary values are base64 (standard alphabet, padded).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from forwarder.errors import ErrorCode
from forwarder.rooms.roles import Role
from forwarder.rtp.codecs import Codec, Kind
from forwarder.rtp.suites import Suite

VERSION = 1
MESSAGE_MAX = 64 * 1024  # bytes
TRACKS_MAX = 16  # tracks in one publish, and tracks that one participant may publish
LABEL_MAX = 64  # characters of names and labels
DATA_MAX = 16 * 1024  # characters of a data message

Label = Annotated[str, Field(min_length=1, max_length=LABEL_MAX)]
RequestId = Annotated[int, Field(ge=0, lt=2**31)]
SsrcField = Annotated[int, Field(ge=1, lt=2**32)]
PayloadType = Annotated[int, Field(ge=0, le=127)]


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


# ---- client -> server ----------------------------------------------------------------------


class Join(Message):
    """First message of a session.  With `resume` the old participant and leg are taken up again."""

    type: Literal["join"] = "join"
    id: RequestId
    v: int
    client: Annotated[str, Field(max_length=128)] = ""
    resume: Annotated[str, Field(max_length=256)] | None = None
    suites: Annotated[list[Suite], Field(min_length=1, max_length=4)] = [Suite.GCM, Suite.SHA1]


class TrackOffer(Message):
    """A track that the client will send; `label` is the client's own name for it."""

    label: Label
    kind: Kind
    codec: Codec
    pt: PayloadType
    clock_hz: Annotated[int, Field(ge=8000, le=192000)]
    ssrc: SsrcField


class Publish(Message):
    type: Literal["publish"] = "publish"
    id: RequestId
    tracks: Annotated[list[TrackOffer], Field(min_length=1, max_length=TRACKS_MAX)]


class Unpublish(Message):
    type: Literal["unpublish"] = "unpublish"
    id: RequestId
    track_ids: Annotated[list[Label], Field(min_length=1, max_length=TRACKS_MAX)]


class Subscribe(Message):
    """To the named tracks; with `auto` also to every track published from now on."""

    type: Literal["subscribe"] = "subscribe"
    id: RequestId
    track_ids: Annotated[list[Label], Field(max_length=256)] = []
    auto: bool = False


class Unsubscribe(Message):
    type: Literal["unsubscribe"] = "unsubscribe"
    id: RequestId
    track_ids: Annotated[list[Label], Field(min_length=1, max_length=256)]


class KeyframeRequest(Message):
    type: Literal["keyframe"] = "keyframe"
    id: RequestId
    track_id: Label


class Mute(Message):
    type: Literal["mute"] = "mute"
    id: RequestId
    track_id: Label
    muted: bool


class Data(Message):
    """Text to everybody in the room, or to the named participants."""

    type: Literal["data"] = "data"
    id: RequestId
    payload: Annotated[str, Field(max_length=DATA_MAX)]
    to: Annotated[list[Label], Field(max_length=64)] | None = None


class Ping(Message):
    type: Literal["ping"] = "ping"
    id: RequestId


class Leave(Message):
    type: Literal["leave"] = "leave"
    id: RequestId


ClientMessage = Annotated[
    Join
    | Publish
    | Unpublish
    | Subscribe
    | Unsubscribe
    | KeyframeRequest
    | Mute
    | Data
    | Ping
    | Leave,
    Field(discriminator="type"),
]

# ---- server -> client ----------------------------------------------------------------------


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


class Welcome(Message):
    type: Literal["welcome"] = "welcome"
    re: int
    v: int = VERSION
    room_id: str
    participant_id: str
    role: Role
    resume: str
    resumed: bool
    participants: list[ParticipantInfo]
    tracks: list[TrackInfo]
    media: MediaOffer


class PublishedTrack(Message):
    label: str
    track_id: str


class Published(Message):
    type: Literal["published"] = "published"
    re: int
    tracks: list[PublishedTrack]


class SubscriptionInfo(Message):
    """What the client will receive for a track."""

    track_id: str
    participant_id: str
    kind: Kind
    codec: Codec
    ssrc: int
    pt: int
    clock_hz: int


class Subscribed(Message):
    """Answer to subscribe, or (without `re`) what an `auto` subscriber was given.

    After a resume it is sent once with everything that the leg already receives."""

    type: Literal["subscribed"] = "subscribed"
    re: int | None = None
    subscriptions: list[SubscriptionInfo]


class Unsubscribed(Message):
    type: Literal["unsubscribed"] = "unsubscribed"
    re: int | None = None
    track_ids: list[str]


class Ok(Message):
    """Answer to requests that have nothing else to say."""

    type: Literal["ok"] = "ok"
    re: int


class Pong(Message):
    type: Literal["pong"] = "pong"
    re: int


class ParticipantJoined(Message):
    type: Literal["participant_joined"] = "participant_joined"
    participant: ParticipantInfo


class ParticipantLeft(Message):
    type: Literal["participant_left"] = "participant_left"
    participant_id: str
    reason: str


class TrackPublished(Message):
    type: Literal["track_published"] = "track_published"
    track: TrackInfo


class TrackUnpublished(Message):
    type: Literal["track_unpublished"] = "track_unpublished"
    track_id: str


class TrackMuted(Message):
    type: Literal["track_muted"] = "track_muted"
    track_id: str
    muted: bool


class LegState(Message):
    """live: the node has validated the client's address and its table is in force."""

    type: Literal["leg"] = "leg"
    state: Literal["live", "lost"]


class DataReceived(Message):
    type: Literal["data_received"] = "data_received"
    participant_id: str
    payload: str


class Error(Message):
    type: Literal["error"] = "error"
    re: int | None = None
    code: ErrorCode
    message: str


class Closing(Message):
    """The session ends after this message."""

    type: Literal["closing"] = "closing"
    code: ErrorCode | None = None
    reason: str


ServerMessage = Annotated[
    Welcome
    | Published
    | Subscribed
    | Unsubscribed
    | Ok
    | Pong
    | ParticipantJoined
    | ParticipantLeft
    | TrackPublished
    | TrackUnpublished
    | TrackMuted
    | LegState
    | DataReceived
    | Error
    | Closing,
    Field(discriminator="type"),
]
