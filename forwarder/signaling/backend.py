"""What signaling asks of the supervisor: the `Backend` protocol.

Signaling knows bytes, messages, tokens and sessions; the backend knows rooms, legs and keys.
The supervisor implements `Backend`; tests implement it in memory.  Every method may raise
CodedError (Refused, TokenError, ...): its code and sentence go to the client as they are, so they
must be fit for a stranger's eyes.  Any other exception is logged and answered by `internal`.

Everything runs on one event loop.  A session's requests reach the backend one at a time and in
order; those of different sessions interleave at each await.

The life of a session:

    join() or resume() returns -> `welcome` is written -> session_opened()     (one loop step: no
        event of the room can fall in between, and nothing overtakes the welcome)
    publish(), subscribe(), ...                                     while the session is open
    session_lost()     the connection ended without `leave`, the participant may resume
    leave()            the client said so; session_lost() is not called

A session that resumes a participant whose old session is still open replaces it: the old one is
sent `closing` and ends, without session_lost().
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from forwarder.errors import ErrorCode
from forwarder.ids import ParticipantId, RoomId
from forwarder.rooms.roles import Role
from forwarder.rtp.codecs import Codec
from forwarder.signaling.messages import (
    Answer,
    Data,
    Join,
    KeyframeRequest,
    LayerWish,
    Mute,
    Offer,
    ParticipantInfo,
    Publish,
    Published,
    ServerMessage,
    Subscribe,
    Subscribed,
    TrackInfo,
    Unpublish,
    Unsubscribe,
    Unsubscribed,
    View,
    Welcome,
)
from forwarder.signaling.sdp.model import Way
from forwarder.signaling.tokens import Claims

Address = tuple[str, int]  # IP address without brackets or scope, UDP port


class RoomInfo(BaseModel):
    """A room, as the HTTP API lists it."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(description="Room id; also the call id")
    created_at: float = Field(description="Seconds since 1970-01-01 UTC")
    active: int = Field(description="Participants that may publish (hosts included)")
    passive: int = Field(description="Participants that may not publish")
    max_active: int
    max_passive: int
    track_count: int = Field(description="Published tracks")
    codecs: list[str] = Field(default=[], description="Video codecs, best first")


class SlotInfo(BaseModel):
    """A viewer's place for one track."""

    model_config = ConfigDict(frozen=True)

    participant_id: str = Field(description="The viewer")
    mid: str
    kind: str
    state: str = Field(description='"waiting", "playing" or "codec_unsupported"')
    track_id: str | None = Field(description="What is in it")


class RoomDetail(RoomInfo):
    """A room with what is in it (participants in the role backstage included)."""

    participants: list[ParticipantInfo]
    tracks: list[TrackInfo]
    slots: list[SlotInfo] = []


@dataclass(frozen=True)
class Answered:
    """A session that an offer opened."""

    resource: str
    etag: str
    sdp: str


@dataclass(frozen=True)
class Patched:
    """`sdp` None: nothing to tell; else the fragment that answers an ICE restart."""

    etag: str
    sdp: str | None


class WebRtc(Protocol):
    """WHIP and WHEP, as the HTTP API needs them (supervisor/browsers.py).  CodedErrors as below."""

    async def offer(
        self, way: Way, claims: Claims, data: bytes, follow: str = "", layer: str = ""
    ) -> Answered: ...

    async def patch(self, way: Way, room_id: RoomId, resource: str, data: bytes) -> Patched: ...

    def etag(self, way: Way, room_id: RoomId, resource: str) -> str: ...

    async def leave(self, way: Way, room_id: RoomId, resource: str) -> None: ...


class Session(Protocol):
    """An open session, as the backend sees it.  Methods never block and never raise."""

    @property
    def remote(self) -> Address:
        """Where the client's QUIC connection comes from (its media may come from elsewhere)."""

    @property
    def local(self) -> Address:
        """The node's address that the client reached."""

    def push(self, message: ServerMessage) -> None:
        """Sends a message that nobody asked for.  After the end of the session: nothing."""

    def close(self, reason: str, code: ErrorCode | None = None) -> None:
        """Sends `closing` and ends the session; session_lost() is not called for it."""


class Backend(Protocol):
    """The supervisor, as signaling sees it."""

    # ---- sessions ---------------------------------------------------------------------------

    async def join(self, claims: Claims, message: Join, session: Session) -> Welcome:
        """A new participant with a leg and keys; `session` is for its addresses only."""

    async def resume(self, message: Join, session: Session) -> Welcome:
        """The participant of `message.resume` on its old leg; RESUME_INVALID if there is none."""

    def session_opened(self, participant_id: ParticipantId, session: Session) -> None:
        """The welcome is written; from now on `session.push` reaches the client."""

    def session_lost(self, participant_id: ParticipantId) -> None:
        """The connection ended; hold the leg for the grace period.  Must not raise."""

    async def leave(self, participant_id: ParticipantId, reason: str) -> None:
        """The participant leaves for good."""

    # ---- requests of a joined participant ---------------------------------------------------

    async def publish(self, participant_id: ParticipantId, message: Publish) -> Published: ...

    async def unpublish(self, participant_id: ParticipantId, message: Unpublish) -> None: ...

    async def subscribe(self, participant_id: ParticipantId, message: Subscribe) -> Subscribed: ...

    async def unsubscribe(
        self, participant_id: ParticipantId, message: Unsubscribe
    ) -> Unsubscribed: ...

    async def keyframe(self, participant_id: ParticipantId, message: KeyframeRequest) -> None: ...

    async def mute(self, participant_id: ParticipantId, message: Mute) -> None: ...

    async def data(self, participant_id: ParticipantId, message: Data) -> None: ...

    async def offer(self, participant_id: ParticipantId, message: Offer) -> Answer:
        """Of one that joined by an offer; all of it is taken, or nothing changes."""

    async def view(self, participant_id: ParticipantId, message: View) -> None: ...

    async def layer(self, participant_id: ParticipantId, message: LayerWish) -> None: ...

    # ---- the HTTP API -----------------------------------------------------------------------

    async def create_room(
        self,
        room_id: RoomId | None,
        *,
        max_active: int | None,
        max_passive: int | None,
        codecs: tuple[Codec, ...] | None = None,
    ) -> RoomInfo:
        """ROOM_EXISTS if the id is taken; without an id one is made up.  `codecs`: video codecs,
        best first."""

    async def list_rooms(self) -> list[RoomInfo]: ...

    async def show_room(self, room_id: RoomId) -> RoomDetail:
        """NO_SUCH_ROOM if there is none."""

    def has_room(self, room_id: RoomId) -> bool:
        """Whether the room is open (cheap: no listing)."""

    async def set_role(
        self, room_id: RoomId, participant_id: ParticipantId, role: Role
    ) -> ParticipantInfo:
        """Until the participant leaves.  When it returns, nothing is forwarded of one that may
        publish no more.  NO_SUCH_ROOM, NO_SUCH_PARTICIPANT, ROOM_FULL."""

    async def close_room(self, room_id: RoomId, reason: str) -> None:
        """NO_SUCH_ROOM if there is none.  The room's sessions are closed."""

    async def status(self) -> dict[str, Any]:
        """The node's state as JSON values: what `vcfwd status --json` prints."""
