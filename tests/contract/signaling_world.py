"""A node's signaling on loopback, with rooms in memory, and a WebTransport client on aioquic.

MemoryBackend keeps real state: rooms, participants, tracks, subscriptions, resume secrets.  The
client is aioquic's own HTTP/3 code, so that the server is tested by bytes that it did not make.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3 import events as h3
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent, StreamDataReceived

from forwarder.clock import SystemClock
from forwarder.errors import ErrorCode, Refused
from forwarder.ids import ParticipantId, RoomId
from forwarder.rooms.roles import Role
from forwarder.rtp.codecs import Codec
from forwarder.rtp.suites import Suite
from forwarder.signaling import messages as m
from forwarder.signaling.backend import RoomDetail, RoomInfo, Session
from forwarder.signaling.certs import Certificate, development
from forwarder.signaling.framing import SERVER_MESSAGE_MAX, FrameDecoder, decode_server
from forwarder.signaling.hub import Hub
from forwarder.signaling.server import QuicServer
from forwarder.signaling.tokens import Claims, SigningKey, Tokens

SECRET = b"0123456789abcdef0123456789abcdef"
PATIENCE_S = 20.0  # seconds until a test that waits for an event gives up


@dataclass
class Person:
    id: ParticipantId
    room: str
    name: str
    role: Role
    secret: str
    session: Session | None = None
    tracks: dict[str, m.TrackInfo] = field(default_factory=dict)
    auto: bool = False


@dataclass
class Room:
    id: str
    max_active: int
    max_passive: int
    codecs: list[str] = field(default_factory=list)
    people: dict[ParticipantId, Person] = field(default_factory=dict)


class MemoryBackend:
    """Rooms in a dictionary.  `log` holds what the sessions did, in order."""

    def __init__(self) -> None:
        self.rooms: dict[str, Room] = {}
        self.people: dict[ParticipantId, Person] = {}
        self.log: list[str] = []
        self.changed = asyncio.Condition()
        self.gate: asyncio.Event | None = None  # when set, join waits for it
        self._ids = itertools.count(1)

    def seat(self, room: str, name: str, role: Role) -> Person:
        """Somebody in a room, without a session; the name is the id."""
        person = Person(ParticipantId(name), room, name, role, secrets.token_urlsafe(24))
        self.rooms[room].people[person.id] = self.people[person.id] = person
        return person

    async def wait_log(self, entry: str) -> None:
        async with asyncio.timeout(PATIENCE_S), self.changed:
            await self.changed.wait_for(lambda: entry in self.log)

    async def join(self, claims: Claims, message: m.Join, session: Session) -> m.Welcome:
        if self.gate is not None:
            await self.gate.wait()
        room = self._room(claims.room_id)
        active = [p for p in room.people.values() if p.role.may_publish]
        if claims.role.may_publish and len(active) >= room.max_active:
            raise Refused(ErrorCode.ROOM_FULL, f"room {room.id} has its {room.max_active} active")
        pid = ParticipantId(f"p{next(self._ids)}")
        person = Person(pid, room.id, claims.name, claims.role, secrets.token_urlsafe(24))
        room.people[pid] = self.people[pid] = person
        return self._welcome(person, message, resumed=False)

    async def resume(self, message: m.Join, session: Session) -> m.Welcome:
        for person in self.people.values():
            if message.resume == person.secret:
                return self._welcome(person, message, resumed=True)
        raise Refused(ErrorCode.RESUME_INVALID, "nobody here has this resume secret; join anew")

    def session_opened(self, participant_id: ParticipantId, session: Session) -> None:
        person = self.people[participant_id]
        fresh, person.session = person.session is None, session
        self._note(f"opened {participant_id}")
        if fresh:
            info = m.ParticipantInfo(id=person.id, name=person.name, role=person.role)
            self._tell(person, m.ParticipantJoined(participant=info))

    def session_lost(self, participant_id: ParticipantId) -> None:
        self._note(f"lost {participant_id}")

    async def leave(self, participant_id: ParticipantId, reason: str) -> None:
        person = self.people.pop(participant_id)
        del self.rooms[person.room].people[participant_id]
        self._tell(person, m.ParticipantLeft(participant_id=participant_id, reason=reason))
        self._note(f"left {participant_id}")

    async def publish(self, participant_id: ParticipantId, message: m.Publish) -> m.Published:
        person = self.people[participant_id]
        if not person.role.may_publish:
            raise Refused(ErrorCode.FORBIDDEN, f"the role {person.role} may not publish")
        published = []
        for offer in message.tracks:
            track = m.TrackInfo(
                id=f"t{next(self._ids)}",
                participant_id=participant_id,
                label=offer.label,
                kind=offer.kind,
                codec=offer.codec,
            )
            person.tracks[track.id] = track
            published.append(m.PublishedTrack(label=offer.label, track_id=track.id))
            self._tell(person, m.TrackPublished(track=track))
        return m.Published(re=message.id, tracks=published)

    async def unpublish(self, participant_id: ParticipantId, message: m.Unpublish) -> None:
        person = self.people[participant_id]
        for track_id in message.track_ids:
            if person.tracks.pop(track_id, None) is None:
                raise Refused(ErrorCode.NO_SUCH_TRACK, f"you publish no track {track_id}")
            self._tell(person, m.TrackUnpublished(track_id=track_id))

    async def subscribe(self, participant_id: ParticipantId, message: m.Subscribe) -> m.Subscribed:
        person = self.people[participant_id]
        person.auto = message.auto
        room = self.rooms[person.room]
        tracks = {t.id: t for p in room.people.values() for t in p.tracks.values()}
        unknown = [track_id for track_id in message.track_ids if track_id not in tracks]
        if unknown:
            raise Refused(ErrorCode.NO_SUCH_TRACK, f"no track {unknown[0]} in the room")
        return m.Subscribed(
            re=message.id,
            subscriptions=[
                m.SubscriptionInfo(
                    track_id=track_id,
                    participant_id=tracks[track_id].participant_id,
                    kind=tracks[track_id].kind,
                    codec=tracks[track_id].codec,
                    ssrc=1000 + index,
                    pt=96,
                    clock_hz=90_000,
                )
                for index, track_id in enumerate(message.track_ids)
            ],
        )

    async def unsubscribe(
        self, participant_id: ParticipantId, message: m.Unsubscribe
    ) -> m.Unsubscribed:
        return m.Unsubscribed(re=message.id, track_ids=list(message.track_ids))

    async def keyframe(self, participant_id: ParticipantId, message: m.KeyframeRequest) -> None:
        raise RuntimeError("a fault of the backend itself, with a /secret/path in it")

    async def mute(self, participant_id: ParticipantId, message: m.Mute) -> None:
        track = m.TrackMuted(track_id=message.track_id, muted=message.muted)
        self._tell(self.people[participant_id], track)

    async def data(self, participant_id: ParticipantId, message: m.Data) -> None:
        received = m.DataReceived(participant_id=participant_id, payload=message.payload)
        self._tell(self.people[participant_id], received)

    async def offer(self, participant_id: ParticipantId, message: m.Offer) -> m.Answer:
        return m.Answer(re=message.id, sdp=message.sdp)

    async def view(self, participant_id: ParticipantId, message: m.View) -> None:
        self._note(f"view {participant_id} {message.participants}")

    async def layer(self, participant_id: ParticipantId, message: m.LayerWish) -> None:
        self._note(f"layer {participant_id} {message.mid} {message.layer}")

    async def create_room(
        self,
        room_id: RoomId | None,
        *,
        max_active: int | None,
        max_passive: int | None,
        codecs: tuple[Codec, ...] | None = None,
    ) -> RoomInfo:
        name = room_id or RoomId(f"room-{next(self._ids)}")
        if name in self.rooms:
            raise Refused(ErrorCode.ROOM_EXISTS, f"room {name} exists")
        self.rooms[name] = Room(
            name,
            50 if max_active is None else max_active,
            max_passive or 1000,
            [codec.value for codec in codecs or ()],
        )
        return await self.show_room(name)

    async def list_rooms(self) -> list[RoomInfo]:
        return [await self.show_room(RoomId(name)) for name in self.rooms]

    async def show_room(self, room_id: RoomId) -> RoomDetail:
        room = self._room(room_id)
        people = room.people.values()
        tracks = [track for person in people for track in person.tracks.values()]
        return RoomDetail(
            id=room.id,
            created_at=1_700_000_000.0,
            active=sum(person.role.may_publish for person in people),
            passive=sum(not person.role.may_publish for person in people),
            max_active=room.max_active,
            max_passive=room.max_passive,
            track_count=len(tracks),
            codecs=room.codecs,
            participants=[
                m.ParticipantInfo(id=person.id, name=person.name, role=person.role)
                for person in people
            ],
            tracks=tracks,
        )

    async def set_role(
        self, room_id: RoomId, participant_id: ParticipantId, role: Role
    ) -> m.ParticipantInfo:
        room = self._room(room_id)
        person = room.people.get(participant_id)
        if person is None:
            raise Refused(ErrorCode.NO_SUCH_PARTICIPANT, f"nobody {participant_id} in {room_id}")
        active = [p for p in room.people.values() if p.role.may_publish and p is not person]
        if role.may_publish and len(active) >= room.max_active:
            raise Refused(ErrorCode.ROOM_FULL, f"room {room.id} has its {room.max_active} active")
        person.role = role
        told = m.RoleChanged(participant_id=person.id, role=role)
        self._tell(person, told)
        if person.session is not None:
            person.session.push(told)
        return m.ParticipantInfo(id=person.id, name=person.name, role=role)

    def has_room(self, room_id: RoomId) -> bool:
        return room_id in self.rooms

    async def close_room(self, room_id: RoomId, reason: str) -> None:
        room = self._room(room_id)
        del self.rooms[room_id]
        for person in room.people.values():
            del self.people[person.id]
            if person.session is not None:
                person.session.close(reason)

    async def status(self) -> dict[str, Any]:
        return {"path": "udp", "rooms": len(self.rooms), "participants": len(self.people)}

    def _room(self, room_id: str) -> Room:
        if room_id not in self.rooms:
            raise Refused(ErrorCode.NO_SUCH_ROOM, f"no room {room_id} here")
        return self.rooms[room_id]

    def _welcome(self, person: Person, message: m.Join, *, resumed: bool) -> m.Welcome:
        room = self.rooms[person.room]
        return m.Welcome(
            re=message.id,
            room_id=room.id,
            participant_id=person.id,
            role=person.role,
            resume=person.secret,
            resumed=resumed,
            participants=[
                m.ParticipantInfo(id=other.id, name=other.name, role=other.role)
                for other in room.people.values()
                if other is not person
            ],
            tracks=[t for other in room.people.values() for t in other.tracks.values()],
            media=m.MediaOffer(
                addresses=[("127.0.0.1", 4433)],
                ufrag="ufragufrag",
                password="passwordpasswordpassword",
                suite=Suite.GCM,
                send_key="a2V5",
                receive_key="a2V5",
                rtcp_ssrc=1,
                cname="vcfwd",
            ),
        )

    def _tell(self, sender: Person, message: m.ServerMessage) -> None:
        for person in self.rooms[sender.room].people.values():
            if person is not sender and person.session is not None:
                person.session.push(message)

    def _note(self, entry: str) -> None:
        self.log.append(entry)

        async def wake() -> None:
            async with self.changed:
                self.changed.notify_all()

        # The condition needs a coroutine; the task is awaited by whoever waits for the entry.
        self._waker = asyncio.get_running_loop().create_task(wake())


class Udp(asyncio.DatagramProtocol):
    """The supervisor's slow socket, in small."""

    def __init__(self) -> None:
        self.server: QuicServer | None = None
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if self.server is not None:
            self.server.datagram_received(data, addr)

    def send(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.sendto(data, addr)


@dataclass
class World:
    backend: MemoryBackend
    tokens: Tokens
    hub: Hub
    server: QuicServer
    certificate: Certificate
    host: str
    port: int
    validated: list[Any]
    closed: list[Any]

    def token(self, room: str = "standup", *, role: Role = Role.ACTIVE, name: str = "Ada") -> str:
        return self.tokens.create_join(RoomId(room), role=role, name=name)[0]

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        configuration = QuicConfiguration(
            alpn_protocols=H3_ALPN,
            is_client=True,
            server_name="localhost",
            max_datagram_frame_size=1200,
            cafile=str(self.certificate.cert_file),
            verify_mode=ssl.CERT_REQUIRED,
        )
        async with connect(
            self.host, self.port, configuration=configuration, create_protocol=Client
        ) as client:
            assert isinstance(client, Client)
            yield client

    @asynccontextmanager
    async def session(self, token: str | None = None, **kwargs: Any) -> AsyncIterator[Client]:
        """A client with a session, not joined yet."""
        async with self.client() as client:
            target = f"/v1/join?token={token}" if token is not None else "/v1/join"
            status, body = await client.open_session(target, **kwargs)
            assert status == 200, body
            yield client


@asynccontextmanager
async def world(
    tmp_path: Path, *, app: Any = None, host: str = "127.0.0.1", **options: Any
) -> AsyncIterator[World]:
    backend = MemoryBackend()
    await backend.create_room(RoomId("standup"), max_active=3, max_passive=5)
    tokens = Tokens([SigningKey("k1", SECRET)], clock=SystemClock())
    hub = Hub(backend, max_sessions=options.pop("max_sessions", 100))
    certificate = development(tmp_path, [host], clock=SystemClock())
    loop = asyncio.get_running_loop()
    transport, udp = await loop.create_datagram_endpoint(Udp, local_addr=(host, 0))
    port = transport.get_extra_info("sockname")[1]
    validated: list[Any] = []
    closed: list[Any] = []
    server = QuicServer(
        hub=hub,
        tokens=tokens,
        certificate=certificate,
        local=(host, port),
        send=udp.send,
        app=app,
        on_validated=validated.append,
        on_closed=closed.append,
        **options,
    )
    udp.server = server
    try:
        yield World(backend, tokens, hub, server, certificate, host, port, validated, closed)
    finally:
        hub.close_all("the test is over")
        server.close()
        await hub.wait_idle()
        transport.close()


class Client(QuicConnectionProtocol):
    """WebTransport and HTTP/3 client."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.h3 = H3Connection(self._quic, enable_webtransport=True)
        self.responses: dict[int, tuple[int, bytearray, asyncio.Event]] = {}
        self.headers: dict[int, dict[bytes, bytes]] = {}
        self.accepted = asyncio.Event()
        self.messages: asyncio.Queue[m.ServerMessage | None] = asyncio.Queue()
        self.gone = asyncio.Event()
        self.session_closed = asyncio.Event()
        self.connect_stream: int | None = None
        self.control: int | None = None
        self._decoder = FrameDecoder(SERVER_MESSAGE_MAX)
        self._ids = itertools.count(1)

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ConnectionTerminated):
            self.gone.set()
            self.messages.put_nowait(None)
            for _, _, done in self.responses.values():
                done.set()
        if isinstance(event, StreamDataReceived) and event.stream_id == self.control:
            # The node's half of a stream that the client opened begins with no stream header,
            # and aioquic's client looks for one.
            self._control_data(event.data, event.end_stream)
            return
        for h3_event in self.h3.handle_event(event):
            self._h3_event(h3_event)

    def _control_data(self, data: bytes, ended: bool) -> None:
        for frame in self._decoder.feed(data):
            assert isinstance(frame, bytes)
            self.messages.put_nowait(decode_server(frame))
        if ended:
            self.messages.put_nowait(None)

    def _h3_event(self, event: h3.H3Event) -> None:
        if isinstance(event, h3.HeadersReceived):
            status = int(dict(event.headers)[b":status"])
            done = self.responses.get(event.stream_id, (0, b"", asyncio.Event()))[2]
            self.headers[event.stream_id] = dict(event.headers)
            self.responses[event.stream_id] = (status, bytearray(), done)
            if event.stream_id == self.connect_stream and status == 200:
                self.accepted.set()
            if event.stream_ended:
                done.set()
        elif isinstance(event, h3.DataReceived):
            self.responses[event.stream_id][1].extend(event.data)
            if event.stream_ended:
                self.responses[event.stream_id][2].set()
                if event.stream_id == self.connect_stream:
                    self.session_closed.set()

    async def request(
        self, method: str, path: str, *, body: bytes | None = None, token: str | None = None
    ) -> tuple[int, bytes]:
        stream_id = self._quic.get_next_available_stream_id()
        headers = self._request_headers(method, path)
        headers.append((b"content-type", b"application/json"))
        if token is not None:
            headers.append((b"authorization", f"Bearer {token}".encode()))
        self.responses[stream_id] = (0, bytearray(), asyncio.Event())
        self.h3.send_headers(stream_id, headers, end_stream=body is None)
        if body is not None:
            self.h3.send_data(stream_id, body, end_stream=True)
        self.transmit()
        return await self.response(stream_id)

    async def response(self, stream_id: int) -> tuple[int, bytes]:
        async with asyncio.timeout(PATIENCE_S):
            await self.responses[stream_id][2].wait()
        status, data, _ = self.responses[stream_id]
        return status, bytes(data)

    async def open_session(self, target: str, **headers: str) -> tuple[int, dict[str, Any]]:
        """200 and an open control stream, or the refusal."""
        stream_id = self._quic.get_next_available_stream_id()
        self.connect_stream = stream_id
        fields = self._request_headers("CONNECT", target)
        fields.append((b":protocol", headers.pop("protocol", "webtransport").encode()))
        fields += [(name.encode(), value.encode()) for name, value in headers.items()]
        self.responses[stream_id] = (0, bytearray(), asyncio.Event())
        self.h3.send_headers(stream_id, fields)
        self.transmit()
        refused = asyncio.create_task(self.responses[stream_id][2].wait())
        accepted = asyncio.create_task(self.accepted.wait())
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait({refused, accepted}, return_when=asyncio.FIRST_COMPLETED)
        refused.cancel()
        accepted.cancel()
        status, body, _ = self.responses[stream_id]
        if status == 200:
            self.control = self.h3.create_webtransport_stream(stream_id)
        return status, json.loads(body) if body else {}

    def write(self, data: bytes) -> None:
        """Raw bytes on the control stream."""
        assert self.control is not None
        self._quic.send_stream_data(self.control, data)
        self.transmit()

    def tell(self, **fields: Any) -> int:
        """Sends a message; returns its id."""
        request_id = fields.setdefault("id", next(self._ids))
        body = json.dumps(fields).encode()
        self.write(len(body).to_bytes(4, "big") + body)
        return int(request_id)

    async def ask(self, **fields: Any) -> m.ServerMessage:
        """Sends a request and returns its answer; other messages before it are dropped."""
        request_id = self.tell(**fields)
        while True:
            message = await self.next()
            if getattr(message, "re", None) == request_id:
                return message

    async def next(self, kind: str | None = None) -> m.ServerMessage:
        """The next message, of that type where one is given."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                message = await self.messages.get()
                assert message is not None, "the session ended"
                if kind is None or message.type == kind:
                    return message

    async def join(self, **fields: Any) -> m.Welcome:
        welcome = await self.ask(type="join", v=1, **fields)
        assert isinstance(welcome, m.Welcome), welcome
        return welcome

    def _request_headers(self, method: str, path: str) -> list[tuple[bytes, bytes]]:
        return [
            (b":method", method.encode()),
            (b":scheme", b"https"),
            (b":authority", b"localhost"),
            (b":path", path.encode()),
        ]
