"""A participant without a person: what `vcfwd bot` runs and the demo starts by the dozen.

It speaks JSON lines on stdout (`event` in each), and with `stdin` it is led by words on stdin,
one a line: `join`, `start` (send), `stop` (stop sending), `quit`.  Its last line is the summary.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forwarder.client import garbage
from forwarder.client.join import Client
from forwarder.client.packetlog import PacketLog
from forwarder.client.publish import FilePublisher, LocalTrack
from forwarder.client.rtp import RtpPacket
from forwarder.client.subscribe import DecodeMode, RemoteTrack
from forwarder.rtp.codecs import Kind
from forwarder.rtp.suites import Suite

PROGRESS_S = 0.5
QUIT_GRACE_S = 3.0


@dataclass
class BotOptions:
    url: str
    token: str
    cert_hash: str | None = None
    ca_file: str | None = None
    insecure: bool = False
    bind_address: str | None = None
    name: str = "bot"
    suites: tuple[Suite, ...] = (Suite.GCM, Suite.SHA1)
    publish: str | None = None  # a file
    subscribe: bool = False
    size: tuple[int, int] = (1280, 720)
    fps: int = 30
    bitrate: int = 2_500_000
    audio_bitrate: int = 64_000
    decode: DecodeMode = DecodeMode.ALL
    seconds: float | None = None  # from the join
    seed: int | None = None
    log_packets: Path | None = None
    png: Path | None = None
    garbage: int = 0  # malformed datagrams a second from the media socket
    stdin: bool = False
    emit: Callable[[dict[str, Any]], None] = field(default=lambda event: None)


class Bot:
    """One run; `run()` returns the summary."""

    def __init__(self, options: BotOptions) -> None:
        self._options = options
        self._quit = asyncio.Event()
        self._start = asyncio.Event()
        self._join = asyncio.Event()
        self._log = PacketLog(options.log_packets) if options.log_packets else None
        self._typed = b""
        self._stopping: asyncio.Future[None] | None = None
        self._received = 0
        self._tracks_told = 0
        self._publisher: FilePublisher | None = None
        self._first_frame_ms: float | None = None
        self._reported: tuple[int, int] = (0, 0)
        self._client = Client(
            options.url,
            options.token,
            cert_hash=options.cert_hash,
            ca_file=options.ca_file,
            insecure=options.insecure,
            bind_address=options.bind_address,
            name=options.name,
            suites=options.suites,
            decode=options.decode,
            seed=options.seed,
            on_packet=self._on_packet,
            on_sent=self._on_sent,
        )

    async def run(self) -> dict[str, Any]:
        """Raises what joining raises; SIGINT and SIGTERM end it like `quit`."""
        options = self._options
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._quit.set)
        if options.stdin:
            loop.add_reader(sys.stdin.fileno(), self._command)
        else:
            self._join.set()
            self._start.set()
        options.emit({"event": "ready"})
        try:
            await self._first(self._join)
            if not self._quit.is_set():
                await self._participate()
        finally:
            if options.stdin:
                loop.remove_reader(sys.stdin.fileno())
            drops = self._client.media.socket_drops()
            await self._client.close()
            if self._log is not None:
                self._log.close()
        if options.png is not None:
            await asyncio.to_thread(self._picture, options.png)
        return self._summary(drops)

    async def _first(self, event: asyncio.Event) -> None:
        """Waits for the event or the end."""
        waits = [asyncio.ensure_future(e.wait()) for e in (event, self._quit)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _participate(self) -> None:
        options, client = self._options, self._client
        await client.__aenter__()
        assert client.welcome is not None
        join_ms = (client.joined_at - client.started_at) * 1000
        options.emit(
            {
                "event": "joined",
                "join_ms": round(join_ms, 1),
                "participant": client.welcome.participant_id,
                "room": client.welcome.room_id,
            }
        )
        if options.subscribe:
            client.on_message = lambda message: self._tracks()
            await client.subscribe(auto=True)
            self._tracks()
        if options.publish:
            self._publisher = await client.publish_file(
                options.publish,
                size=options.size,
                fps=options.fps,
                bitrate=options.bitrate,
                audio_bitrate=options.audio_bitrate,
                start=self._start,
            )
        await self._first(client.live)
        if client.live.is_set():
            options.emit({"event": "live", "tracks": self._local()})
        noise = asyncio.ensure_future(self._garbage()) if options.garbage else None
        end = None if options.seconds is None else time.monotonic() + options.seconds
        while not self._quit.is_set():
            left = PROGRESS_S if end is None else min(PROGRESS_S, end - time.monotonic())
            if left <= 0 or client.control.closed_by_node is not None:
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._quit.wait()
            self._progress()
            self._publishing()
        if noise is not None:
            noise.cancel()
        await self._stop_sending()

    def _command(self) -> None:
        data = os.read(sys.stdin.fileno(), 4096)
        if not data:  # whoever led us is gone
            self._quit.set()
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            return
        *lines, self._typed = (self._typed + data).split(b"\n")
        for line in lines:
            word = line.decode(errors="replace").strip()
            if word == "stop":
                self._stopping = asyncio.ensure_future(self._stop_sending())
            elif word in (events := {"join": self._join, "start": self._start, "quit": self._quit}):
                events[word].set()
            else:
                self._options.emit({"event": "error", "message": f"unknown command {word!r}"})

    def _publishing(self) -> None:
        """An error of the encoder or the socket ends the bot, with its reason."""
        task = self._publisher.task if self._publisher is not None else None
        if task is not None and task.done() and not task.cancelled():
            task.result()

    async def _stop_sending(self) -> None:
        if self._publisher is None:
            return
        self._publisher.stop()
        if self._publisher.task is not None and self._start.is_set():
            await asyncio.wait((self._publisher.task,), timeout=QUIT_GRACE_S)
        if self._log is not None:
            self._log.flush()
        self._options.emit({"event": "stopped", "tracks": self._local()})

    async def _garbage(self) -> None:
        noise = garbage.media(self._options.seed or 0)
        while True:
            await asyncio.sleep(1 / self._options.garbage)
            self._client.media.send_raw(next(noise))

    # ---- what is seen -----------------------------------------------------------------------

    def _on_packet(self, track: RemoteTrack, packet: RtpPacket, arrival_ns: int) -> None:
        self._received += 1
        if self._log is not None:
            self._log.add(
                track.info.track_id,
                packet.seq,
                packet.timestamp,
                packet.ssrc,
                packet.payload,
                arrival_ns,
            )

    def _on_sent(
        self, track: LocalTrack, seq: int, timestamp: int, payload: bytes, when_ns: int
    ) -> None:
        if self._log is not None:
            self._log.add(track.track_id, seq, timestamp, track.ssrc, payload, when_ns)

    def _tracks(self) -> None:
        if len(self._client.tracks) != self._tracks_told:
            self._tracks_told = len(self._client.tracks)
            self._options.emit({"event": "subscribed", "tracks": self._tracks_told})

    def _progress(self) -> None:
        client = self._client
        if self._log is not None:
            self._log.flush()
        back = (client.resumed, client.rejoined)
        if back != self._reported:
            self._reported = back
            self._options.emit({"event": "back", "resumed": back[0], "rejoined": back[1]})
        if self._first_frame_ms is None and (first := self._first_frame()) is not None:
            self._first_frame_ms = first
            self._options.emit({"event": "first_frame", "first_frame_ms": first})
        self._options.emit(
            {
                "event": "progress",
                "sent": sum(track.packets for track in client.local_tracks.values()),
                "received": self._received,
                "frames": sum(track.decoded.frames for track in client.tracks.values()),
            }
        )

    def _first_frame(self) -> float | None:
        """Milliseconds from the first packet with a token to the first picture (or, where only
        sound is received, the first sound)."""
        tracks = self._client.tracks.values()
        video = [track for track in tracks if track.info.kind is Kind.VIDEO]
        times = [t.decoded.first_at for t in (video or tracks) if t.decoded.first_at]
        return round((min(times) - self._client.started_at) * 1000, 1) if times else None

    def _picture(self, path: Path) -> None:
        for track in self._client.tracks.values():
            if track.decoded.first_picture is not None:
                track.decoded.first_picture.to_image().save(path, "PNG")
                return

    def _local(self) -> list[dict[str, Any]]:
        return [
            {
                "track_id": track.track_id,
                "label": track.label,
                "kind": str(track.codec.kind),
                "ssrc": track.ssrc,
                "packets": track.packets,
                "octets": track.octets,
                "keyframe_requests": track.keyframe_requests,
                "refused": track.refused,
            }
            for track in self._client.local_tracks.values()
        ]

    def _summary(self, drops: int) -> dict[str, Any]:
        client = self._client
        joined = client.joined_at > 0
        remote = [
            {
                "track_id": track.info.track_id,
                "participant_id": track.info.participant_id,
                "kind": str(track.info.kind),
                "packets": track.packets_received,
                "octets": track.octets_received,
                "gaps": track.gaps,
                "frames": track.decoded.frames,
                "decode_errors": track.decoded.errors,
                "decode_dropped": track.decoded.dropped,
            }
            for track in client.tracks.values()
        ]
        return {
            "event": "summary",
            "name": self._options.name,
            "participant": client.welcome.participant_id if client.welcome else None,
            "join_ms": round((client.joined_at - client.started_at) * 1000, 1) if joined else None,
            "first_frame_ms": self._first_frame(),
            "sent": self._local(),
            "received": remote,
            "video_frames_decoded": _frames(client, Kind.VIDEO),
            "audio_frames_decoded": _frames(client, Kind.AUDIO),
            "socket_drops": drops,
            "srtp_failures": dict(client.media.srtp.failures) if client.media.srtp else {},
            "malformed": client.media.malformed,
            "unknown_ssrc": client.inbox.unknown_ssrc,
            "resumed": client.resumed,
            "rejoined": client.rejoined,
            "sessions_lost": client.control.lost,
            "bad_messages": client.control.bad_messages,
            "closed_by_node": client.control.closed_by_node,
        }


def _frames(client: Client, kind: Kind) -> int:
    return sum(t.decoded.frames for t in client.tracks.values() if t.info.kind is kind)


def emit_json(event: dict[str, Any]) -> None:
    """One line on stdout; a closed pipe is no reason to fail."""
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(event), flush=True)
