"""The client: a session over QUIC, a leg over UDP, and what holds them together.

States, as a caller sees them: inside `async with` the client has joined and has keys; `live` is
set when the node has validated its address.  The session may be lost and come back by itself
(`resumed` counts), while the leg goes on; only when the node no longer knows the resume secret
does the client join anew, with new keys (`rejoined` counts).

Errors: SessionRefused when the node says no, SessionLost when it does not answer, ClientError for
a request that was refused (`code` says why).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Self

from pydantic import BaseModel

from forwarder.client import rtcp, rtp
from forwarder.client.control import ClientError, Control
from forwarder.client.decode import Decoded, Decoder
from forwarder.client.frames import FramePublisher
from forwarder.client.inbox import Inbox
from forwarder.client.media import Media
from forwarder.client.publish import FilePublisher, LocalTrack
from forwarder.client.quic import SessionLost, Target, parse_hash
from forwarder.client.subscribe import DecodeMode, RemoteTrack
from forwarder.errors import ErrorCode
from forwarder.rooms.roles import Role
from forwarder.rtp.codecs import Codec
from forwarder.rtp.suites import Suite
from forwarder.signaling import messages as wire

REPORT_S = 1.0
REQUEST_TRACKS = 256  # tracks that one subscribe may name


class Client:
    """One participant.  Use as `async with Client(url, token, ...) as client:`.

    url: https://HOST:PORT.  cert_hash: SHA-256 of the node's certificate (hex or bytes);
    without it the host's certification authorities decide, or `ca_file`; `insecure` takes any
    certificate.  bind_address: local IP address of session and media.
    on_packet(track, packet, arrival_ns): each RTP packet received, before anything else.
    on_sent(track, seq, timestamp, payload, when_ns): each RTP packet sent.
    on_message(message): each message of the node that was not asked for.
    on_frame(track, frame): each decoded frame, on the event loop.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        cert_hash: str | bytes | None = None,
        ca_file: str | None = None,
        insecure: bool = False,
        bind_address: str | None = None,
        name: str = "vcfwd-python",
        suites: Iterable[Suite] = (Suite.GCM, Suite.SHA1),
        decode: DecodeMode = DecodeMode.ALL,
        seed: int | None = None,
        on_packet: Callable[[RemoteTrack, rtp.RtpPacket, int], None] | None = None,
        on_sent: Callable[[LocalTrack, int, int, bytes, int], None] | None = None,
        on_message: Callable[[BaseModel], None] | None = None,
        on_frame: Callable[[RemoteTrack, Any], None] | None = None,
    ) -> None:
        digest = parse_hash(cert_hash) if isinstance(cert_hash, str) else cert_hash
        self._target = Target(url, digest, ca_file, insecure, bind_address)
        self._mode = decode
        self.on_sent, self.on_message, self.on_frame = on_sent, on_message, on_frame
        self._rng = random.Random(seed)
        self._rtcp_ssrc = self._rng.randrange(1, 1 << 32)
        self._closing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._decoder = Decoder(self._decoded)
        self.inbox = Inbox(self._new_track, on_packet)
        self._auto = False
        self._publishers: list[FilePublisher] = []
        self._framers: list[FramePublisher] = []
        self.media = Media(on_rtp=self.inbox.packet, on_rtcp=self._rtcp, bind_address=bind_address)
        self.control = Control(
            self._target,
            token,
            name=name,
            suites=suites,
            on_message=self._message,
            on_back=self._welcome_back,
            on_welcome=self._welcome,
        )
        self.welcome: wire.Welcome | None = None
        self.tracks = self.inbox.tracks  # received, by track id
        self.room_tracks: dict[str, wire.TrackInfo] = {}  # of the others, known to be published
        self.local_tracks: dict[int, LocalTrack] = {}  # sent, by SSRC
        self.role: Role | None = None  # the token's, until the node changes it
        self.live = asyncio.Event()
        self.started_at = 0.0  # monotonic: first packet with a token in hand
        self.joined_at = 0.0  # monotonic: keys
        self.resumed = 0
        self.rejoined = 0

    # ---- life -------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self.started_at = time.monotonic()
        welcome = await self.control.join()
        self.joined_at = time.monotonic()
        self.media.start(self._leg(welcome), self._target.host)
        self._spawn(self.control.keep())
        self._spawn(self._report())
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Leaves the room, stops sending and receiving, ends the decoder.  Can be repeated."""
        if self._closing:
            return
        self._closing = True
        for publisher in self._publishers:
            publisher.stop()
        for framer in self._framers:
            framer.close()
        await self.control.leave()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.control.close()
        self.media.stop()
        for track in self.tracks.values():
            track.finish()
        await asyncio.to_thread(self._decoder.close)

    def _spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # ---- what a caller asks -----------------------------------------------------------------

    async def publish_file(
        self,
        path: str,
        *,
        video: bool = True,
        audio: bool = True,
        size: tuple[int, int] = (1280, 720),
        fps: int = 30,
        bitrate: int = 2_500_000,
        audio_bitrate: int = 64_000,
        loop: bool = True,
        seed: int | None = None,
        label: str = "",
        start: asyncio.Event | None = None,
    ) -> FilePublisher:
        """Publishes the tracks of a file, encoded live; sends once the leg is live and `start`
        (when given) is set.  bitrate in bits a second.  Returns what `stop()` ends."""
        publisher = FilePublisher(
            path,
            video=video,
            audio=audio,
            size=size,
            fps=fps,
            bitrate=bitrate,
            audio_bitrate=audio_bitrate,
            loop=loop,
            rng=self._rng if seed is None else random.Random(seed),
            label=label,
        )
        await publisher.prepare()
        await self.publish(publisher.tracks)
        self._publishers.append(publisher)

        async def run() -> None:
            await self.live.wait()
            if start is not None:
                await start.wait()
            await publisher.run(self.media, self.on_sent)

        publisher.task = self._spawn(run())
        return publisher

    async def publish_frames(
        self,
        codec: Codec,
        *,
        label: str,
        size: tuple[int, int] = (1280, 720),
        fps: int = 30,
        bitrate: int | None = None,
    ) -> FramePublisher:
        """Publishes one track of frames that the caller makes and gives to `send()`; returns
        once the leg is live."""
        publisher = FramePublisher(
            codec,
            self.media,
            self._rng,
            label=label,
            size=size,
            fps=fps,
            bitrate=bitrate or (64_000 if codec is Codec.OPUS else 2_500_000),
            on_sent=self.on_sent,
        )
        self._framers.append(publisher)
        await self.publish([publisher.track])
        await self.live.wait()
        return publisher

    async def unpublish(self, tracks: Iterable[LocalTrack]) -> None:
        """Takes tracks back; stop sending on them first."""
        ended = list(tracks)
        ids = [track.track_id for track in ended]
        await self.control.request(wire.Unpublish, track_ids=ids)
        for track in ended:
            self.local_tracks.pop(track.ssrc, None)

    async def publish(self, tracks: list[LocalTrack]) -> None:
        """Tells the node what will be sent; afterwards `track.send(client.media, ...)` sends."""
        offers = [track.offer for track in tracks]
        answer = await self.control.request(wire.Publish, tracks=offers)
        ids = {entry.label: entry.track_id for entry in answer.tracks}
        for track in tracks:
            track.track_id = ids[track.label]
            self.local_tracks[track.ssrc] = track

    async def subscribe(
        self, track_ids: Iterable[str] = (), *, auto: bool = False
    ) -> list[RemoteTrack]:
        """To the named tracks; with `auto` to all of the room, now and later."""
        self._auto |= auto
        wanted = dict.fromkeys(track_ids)
        tracks = await self._subscribe(wanted, auto)
        while auto and (missed := self.room_tracks.keys() - self.tracks.keys()):
            # Published before the node knew of `auto`: these must be named.
            tracks += await self._subscribe(sorted(missed), auto)
        return tracks

    async def _subscribe(self, track_ids: Iterable[str], auto: bool) -> list[RemoteTrack]:
        wanted, given = list(track_ids), []
        for at in range(0, max(1, len(wanted)), REQUEST_TRACKS):
            some = wanted[at : at + REQUEST_TRACKS]
            answer = await self.control.request(wire.Subscribe, track_ids=some, auto=auto)
            given += [self.inbox.subscribed(info) for info in answer.subscriptions]
        for track_id in set(wanted) - {track.info.track_id for track in given}:
            self.room_tracks.pop(track_id, None)  # gone meanwhile, or our own
        return given

    async def unsubscribe(self, track_ids: Iterable[str]) -> None:
        answer = await self.control.request(wire.Unsubscribe, track_ids=list(track_ids))
        self.inbox.unsubscribed(answer.track_ids)

    async def request_keyframe(self, track: RemoteTrack) -> None:
        """By the control stream; `send_pli` is the quicker way."""
        await self.control.request(wire.KeyframeRequest, track_id=track.info.track_id)

    async def mute(self, track: LocalTrack, muted: bool) -> None:
        await self.control.request(wire.Mute, track_id=track.track_id, muted=muted)

    async def send_data(self, payload: str, to: list[str] | None = None) -> None:
        """Text to everybody in the room, or to the named participants."""
        await self.control.request(wire.Data, payload=payload, to=to)

    def send_pli(self, track: RemoteTrack) -> None:
        """Asks for a key frame by RTCP."""
        self.media.send_rtcp(
            rtcp.receiver_report(self._rtcp_ssrc, [])
            + self._description()
            + rtcp.picture_loss(self._rtcp_ssrc, track.info.ssrc)
        )

    def lose_session(self) -> None:
        """Drops the QUIC connection as a changed network does; it comes back by itself."""
        self.control.abandon()

    def _welcome(self, welcome: wire.Welcome) -> None:
        self.welcome = welcome
        self._be(welcome.role)
        me = welcome.participant_id
        self.room_tracks = {t.id: t for t in welcome.tracks if t.participant_id != me}

    def _be(self, role: Role) -> None:
        """While it may not publish nothing is sent, for nobody would get it; then it goes on."""
        self.role = role
        self.media.may_send = role.may_publish

    @staticmethod
    def _leg(welcome: wire.Welcome) -> wire.MediaOffer:
        """Its keys and addresses: every join without an SDP offer is given them."""
        if welcome.media is None:
            raise ClientError(ErrorCode.BAD_MESSAGE, "the node's welcome has no media in it")
        return welcome.media

    async def _welcome_back(self, welcome: wire.Welcome) -> None:
        same = self.media.renew(self._leg(welcome))
        if welcome.resumed and same:
            self.resumed += 1
            return
        self.rejoined += 1
        self.live.clear()
        with contextlib.suppress(ClientError, SessionLost, TimeoutError):
            if self.local_tracks:
                await self.publish(list(self.local_tracks.values()))
            if self._auto or self.tracks:
                known = self.room_tracks.keys()
                await self.subscribe(known if self._auto else known & self.tracks, auto=self._auto)

    # ---- messages of the node ---------------------------------------------------------------

    def _message(self, message: BaseModel) -> None:
        if isinstance(message, wire.Subscribed):
            for info in message.subscriptions:
                self.inbox.subscribed(info)
        elif isinstance(message, wire.Unsubscribed):
            self.inbox.unsubscribed(message.track_ids)
        elif isinstance(message, wire.TrackPublished):
            if self.welcome is None or message.track.participant_id != self.welcome.participant_id:
                self.room_tracks[message.track.id] = message.track
        elif isinstance(message, wire.TrackUnpublished):
            self.room_tracks.pop(message.track_id, None)
        elif isinstance(message, wire.RoleChanged):
            if self.welcome is not None and message.participant_id == self.welcome.participant_id:
                self._be(message.role)
        elif isinstance(message, wire.LegState):
            if message.state == "live":
                self.live.set()
            else:
                self.live.clear()
        if self.on_message is not None:
            self.on_message(message)

    def _new_track(self, info: wire.SubscriptionInfo) -> RemoteTrack:
        return RemoteTrack(info, self._decoder, self._mode, self.send_pli)

    # ---- media ------------------------------------------------------------------------------

    def _rtcp(self, items: list[rtcp.Item], arrival_ns: int) -> None:
        for item in items:
            if isinstance(item, rtcp.KeyframeWanted):
                local = self.local_tracks.get(item.media_ssrc)
                if local is not None:
                    local.want_keyframe()
            elif isinstance(item, rtcp.SenderReport):
                remote = self.inbox.by_ssrc.get(item.ssrc)
                if remote is not None:
                    remote.statistics.sender_report(item, arrival_ns)

    def _decoded(self, decoded: Decoded, frame: Any) -> None:
        """On the decoder's thread."""
        if self._loop is not None and not self._closing:
            with contextlib.suppress(RuntimeError):  # the loop has just ended
                self._loop.call_soon_threadsafe(self._frame, decoded, frame)

    def _frame(self, decoded: Decoded, frame: Any) -> None:
        for track in self.tracks.values():
            if track.decoded is decoded:
                track.give_frame(frame)
                if self.on_frame is not None:
                    self.on_frame(track, frame)

    def _description(self) -> bytes:
        return rtcp.source_description(self._rtcp_ssrc, self._cname)

    @property
    def _cname(self) -> str:
        media = self.welcome.media if self.welcome is not None else None
        return media.cname if media is not None else ""

    async def _report(self) -> None:
        """A sender report for each track, and receiver reports, each REPORT_S."""
        while True:
            await asyncio.sleep(REPORT_S)
            for local in list(self.local_tracks.values()):
                if report := local.report():
                    self.media.send_rtcp(report + rtcp.source_description(local.ssrc, self._cname))
            now_ns = time.monotonic_ns()
            blocks = [
                block
                for track in self.inbox.by_ssrc.values()
                if (block := track.statistics.block(track.info.ssrc, now_ns)) is not None
            ]
            for start in range(0, len(blocks), rtcp.BLOCKS_MAX):
                self.media.send_rtcp(
                    rtcp.receiver_report(self._rtcp_ssrc, blocks[start : start + rtcp.BLOCKS_MAX])
                    + self._description()
                )
