"""The messages of the join protocol, version 1.

On the control stream of the WebTransport session (the first bidirectional stream, opened by the
client) each message is a 4-byte big-endian length and that many bytes of UTF-8 JSON: one object
with `type`, and `id` on requests.  The answer to a request carries its id in `re`; a message
without `re` was not asked for.  At most MESSAGE_MAX bytes a message of a client; a node's may be
longer (framing.SERVER_MESSAGE_MAX), for a welcome lists everybody in the room.

The client speaks first: `join`.  Unknown types and fields are answered by `error` and the session
goes on.  Binary values are base64 (standard alphabet, padded).

Two kinds of clients:

    native    `join` without `offer`; `welcome.media` says where and with which keys; then
              `publish`, `subscribe`, `unsubscribe`, `unpublish`
    browser   `join` with `offer`, an SDP offer (RFC 8866; every m-line, no trickling needed);
              `welcome.answer` is the answer.  What it sends (sendonly, sendrecv) is published;
              its recvonly m-lines are its *slots*: video k and audio k, in the order of m-lines,
              are pair k, audio beyond the number of videos is for voices without a pair.
              `slot` tells what is in a slot from now on: no SDP is needed when somebody joins,
              leaves, or when the page of the grid turns (`view`).  `grow` asks for an `offer` with
              more pairs, ahead of need; an `offer` may also add or end a track or restart ICE.

Both: `keyframe`, `mute`, `data`, `ping`, `leave`.  `role` tells of a role that changed, its own
too: one that may publish no more is not forwarded, whatever it sends; once it may again, the tracks
that it had are there again, and others come by `publish` or by a further `offer`.  After a lost
connection `join` with `resume` (and without `offer`) takes the participant up again on its living
leg: `welcome.answer` is then absent, a peer connection goes on as it is.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from forwarder.errors import ErrorCode
from forwarder.rooms.roles import Role
from forwarder.rtp.codecs import Codec, Kind
from forwarder.rtp.suites import Suite
from forwarder.signaling import parts

IceServer = parts.IceServer
MediaOffer = parts.MediaOffer
Message = parts.Message
ParticipantInfo = parts.ParticipantInfo
PublishedTrack = parts.PublishedTrack
SlotInfo = parts.SlotInfo
SubscriptionInfo = parts.SubscriptionInfo
TrackInfo = parts.TrackInfo

VERSION = 1
MESSAGE_MAX = 256 * 1024  # bytes: a browser's offer with 25 pairs and its line ends as JSON
TRACKS_MAX = 16  # tracks in one publish, and tracks that one participant may publish
LABEL_MAX = 64  # characters of names and labels
DATA_MAX = 16 * 1024  # characters of a data message
SDP_MAX = MESSAGE_MAX - 4096  # characters of an offer
VIEW_MAX = 64  # participants on a page of the grid

Label = Annotated[str, Field(min_length=1, max_length=LABEL_MAX)]
RequestId = Annotated[int, Field(ge=0, lt=2**31)]
SsrcField = Annotated[int, Field(ge=1, lt=2**32)]
PayloadType = Annotated[int, Field(ge=0, le=127)]
Sdp = Annotated[str, Field(max_length=SDP_MAX)]


# ---- client -> server ----------------------------------------------------------------------


class Join(Message):
    """First message of a session.  With `resume` the old participant and leg are taken up again;
    with `offer` the media is WebRTC's, and `suites` counts for nothing."""

    type: Literal["join"] = "join"
    id: RequestId
    v: int
    client: Annotated[str, Field(max_length=128)] = ""
    resume: Annotated[str, Field(max_length=256)] | None = None
    suites: Annotated[list[Suite], Field(min_length=1, max_length=4)] = Field(
        default_factory=lambda: [Suite.GCM, Suite.SHA1]
    )
    offer: Sdp | None = None


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
    track_ids: Annotated[list[Label], Field(max_length=256)] = Field(default_factory=list)
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


class Offer(Message):
    """Of a browser that has joined: its peer connection's offer anew.  Lines keep their index, mid
    and payload types; new ones follow them.  Answered by `answer`."""

    type: Literal["offer"] = "offer"
    id: RequestId
    sdp: Sdp


class View(Message):
    """Whom a browser shows, in the order of its pairs; left out: whoever comes first."""

    type: Literal["view"] = "view"
    id: RequestId
    participants: Annotated[list[Label], Field(max_length=VIEW_MAX)] | None = None


class LayerWish(Message):
    """The layer of a slot, 0 the lowest, as an upper bound; "auto": what the network allows."""

    type: Literal["layer"] = "layer"
    id: RequestId
    mid: Annotated[str, Field(max_length=16)]
    layer: Literal["auto"] | Annotated[int, Field(ge=0, le=7)]


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
    | Offer
    | View
    | LayerWish
    | Ping
    | Leave,
    Field(discriminator="type"),
]

# ---- server -> client ----------------------------------------------------------------------


class Welcome(Message):
    """`media` for a native client; `answer` (not after a resume) and `slots` for a browser."""

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
    media: MediaOffer | None = None
    answer: str | None = None
    slots: list[SlotInfo] = Field(default_factory=list)
    ice_servers: list[IceServer] = Field(default_factory=list)


class Answer(Message):
    """To `offer`."""

    type: Literal["answer"] = "answer"
    re: int
    sdp: str


class Published(Message):
    type: Literal["published"] = "published"
    re: int
    tracks: list[PublishedTrack]


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


class RoleChanged(Message):
    """Of the participant itself, or of another one; who goes backstage is told of as one that left,
    who comes from there as one that joined."""

    type: Literal["role"] = "role"
    participant_id: str
    role: Role


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


class SlotChanged(SlotInfo):
    """What is in a slot from now on."""

    type: Literal["slot"] = "slot"


class SpeakerChanged(Message):
    """Who speaks; left out: nobody."""

    type: Literal["speaker"] = "speaker"
    participant_id: str | None = None


class Grow(Message):
    """Somebody may soon find no free pair: offer with `pairs` pairs, please."""

    type: Literal["grow"] = "grow"
    pairs: int


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
    | RoleChanged
    | TrackPublished
    | TrackUnpublished
    | TrackMuted
    | LegState
    | DataReceived
    | Answer
    | SlotChanged
    | SpeakerChanged
    | Grow
    | Error
    | Closing,
    Field(discriminator="type"),
]
