"""aiortc as a browser with a session: WebRTC media, the join protocol over WebTransport."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from typing import Any, Self

import pytest

pytest.importorskip("aiortc", reason="aiortc (extra `dev`) is not installed")

from aiortc import (
    MediaStreamTrack,
    RTCBundlePolicy,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.mediastreams import AudioStreamTrack
from node_kit import Site, until
from pydantic import BaseModel
from webrtc_kit import Picture

from forwarder.client.control import Control
from forwarder.client.quic import Target, parse_hash
from forwarder.rooms.roles import Role
from forwarder.rtp.suites import Suite
from forwarder.signaling import messages as m


class Page:
    """What a room page does: one peer connection, one session.  As a context it ends both.

    `brightness`: of the picture that it sends; None: it sends nothing.  `pairs`, `sounds`: its
    slots.  `seen`: brightness of each picture by the mid of its slot; `heard`: frames of sound.
    """

    def __init__(
        self,
        site: Site,
        name: str,
        role: Role = Role.ACTIVE,
        *,
        brightness: int | None = None,
        pairs: int = 2,
        sounds: int = 0,
        codecs: tuple[str, ...] = (),
        room: str = "r",
    ) -> None:
        # By its default, aiortc forgets all but the first m-line of a kind when it bundles.
        self.pc = RTCPeerConnection(
            RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)
        )
        self._codecs = [f"video/{name}" for name in codecs]
        if brightness is not None:
            self.add(AudioStreamTrack())
            self.add(Picture(brightness))
        self.grow(pairs)
        for _ in range(sounds):
            self.pc.addTransceiver("audio", direction="recvonly")
        self.control = Control(
            Target(site.url(), parse_hash(site.cert_hash)),
            site.token(name, role, room),
            name=name,
            suites=list(Suite),
            on_message=self._message,
            on_back=self._back,
        )
        self.welcome: m.Welcome | None = None
        self.welcomes: list[m.Welcome] = []
        self.slots: dict[str, m.SlotInfo] = {}
        self.told: list[BaseModel] = []
        self.seen: dict[str, list[int]] = defaultdict(list)
        self.heard: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self.pc.on("track", lambda track: self._spawn(self._take(track)))

    def add(self, track: MediaStreamTrack) -> Any:
        return self.pc.addTransceiver(track, direction="sendonly")

    def grow(self, pairs: int) -> None:
        """More slots; the next offer tells of them."""
        for kind in ("audio", "video") * pairs:
            transceiver = self.pc.addTransceiver(kind, direction="recvonly")
            if kind == "video" and self._codecs:
                known = RTCRtpSender.getCapabilities("video").codecs
                wanted = [c for c in known if c.mimeType in self._codecs]
                transceiver.setCodecPreferences(wanted)

    # ---- life -------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        assert self.welcome is not None
        return self.welcome.participant_id

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def connect(self, client: object = None) -> None:
        """Joins, by its own session."""
        await self.join()

    async def offer(self) -> str:
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return str(self.pc.localDescription.sdp)

    async def answered(self, text: str) -> None:
        await self.pc.setRemoteDescription(RTCSessionDescription(text, "answer"))

    async def join(self) -> m.Welcome:
        welcome = await self.control.join(await self.offer())
        self._welcomed(welcome)
        assert welcome.answer is not None
        await self.answered(welcome.answer)
        self._spawn(self.control.keep())
        return welcome

    async def offer_again(self) -> str:
        answer = await self.control.request(m.Offer, sdp=await self.offer())
        await self.answered(answer.sdp)
        return str(answer.sdp)

    async def close(self, *, leave: bool = True) -> None:
        if leave:
            await self.control.leave()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.control.close()
        await self.pc.close()

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- what comes -------------------------------------------------------------------------

    def _welcomed(self, welcome: m.Welcome) -> None:
        self.welcome = welcome
        self.welcomes.append(welcome)
        self.slots = {slot.mid: slot for slot in welcome.slots}
        if len(self.welcomes) == 1:  # what came after it may have been read before
            self.slots.update({slot.mid: slot for slot in self.of(m.SlotChanged)})

    async def _back(self, welcome: m.Welcome) -> None:
        self._welcomed(welcome)

    def _message(self, message: BaseModel) -> None:
        self.told.append(message)
        if isinstance(message, m.SlotChanged):
            self.slots[message.mid] = message

    def of(self, kind: type[BaseModel]) -> list[Any]:
        """The messages of one kind that came unasked."""
        return [message for message in self.told if isinstance(message, kind)]

    async def _take(self, track: Any) -> None:
        (mid,) = [t.mid for t in self.pc.getTransceivers() if t.receiver.track is track]
        with contextlib.suppress(Exception):  # the track's end
            while True:
                frame = await track.recv()
                if track.kind == "audio":
                    self.heard[mid] += 1
                else:
                    self.seen[mid].append(int(frame.to_ndarray(format="gray").mean()))

    # ---- what a test waits for ----------------------------------------------------------------

    def slot_of(self, who: str, kind: str = "video") -> m.SlotInfo | None:
        """The slot that shows a participant now."""
        for slot in self.slots.values():
            if (slot.participant_id, slot.kind, slot.state) == (who, kind, "playing"):
                return slot
        return None

    async def shows(self, who: str) -> m.SlotInfo:
        """Until it is told which slot is the participant's."""
        found: m.SlotInfo = await until(lambda: self.slot_of(who), f"{who} has a slot")
        return found

    async def sees(self, mid: str, brightness: int, frames: int = 5) -> None:
        """Until so many further pictures of this brightness came in this slot."""
        start = len(self.seen[mid])

        def enough() -> bool:
            return sum(abs(b - brightness) < 20 for b in self.seen[mid][start:]) >= frames

        await until(enough, f"brightness {brightness} in {mid} (last: {self.seen[mid][-3:]})")

    async def hears(self, mid: str, frames: int = 20) -> None:
        start = self.heard[mid]
        await until(lambda: self.heard[mid] >= start + frames, f"sound in {mid}")
