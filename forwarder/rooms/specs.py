"""What participants ask for: tracks as their publishers offer them, slots as viewers do."""

from __future__ import annotations

from dataclasses import dataclass

from forwarder.rtp.codecs import Codec, Kind
from forwarder.table import NO_EXTENSIONS


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One encoding of a track.  `ssrc` None: not signalled, bound by its label or payload type;
    `rtx_ssrc`: of the stream that repairs it (RFC 4588), None: not signalled or none."""

    rid: str = ""
    ssrc: int | None = None
    rtx_ssrc: int | None = None


@dataclass(frozen=True, slots=True)
class TrackSpec:
    """A track as its publisher offers it; `label` is the publisher's own name for it.

    `ssrc` None: not signalled; the worker binds the stream that carries `mid`, or where that is
    empty the one of payload type `pt`.  `rtx_pt`: lost packets come again with this payload type.
    `red_pt`: what has this payload type is RED (RFC 2198), for receivers that take it.
    `layers`, low to high; without any it is the one stream of `ssrc`.
    """

    label: str
    kind: Kind
    codec: Codec
    pt: int
    clock_hz: int
    ssrc: int | None
    mid: str = ""
    rtx_pt: int | None = None
    layers: tuple[LayerSpec, ...] = ()
    red_pt: int | None = None

    @property
    def encodings(self) -> tuple[LayerSpec, ...]:
        """What is sent, low to high: at least one."""
        return self.layers or (LayerSpec("", self.ssrc),)

    @property
    def ssrcs(self) -> list[int]:
        """Every signalled SSRC, those of repair included."""
        found = [ssrc for layer in self.encodings for ssrc in (layer.ssrc, layer.rtx_ssrc)]
        return [ssrc for ssrc in found if ssrc is not None]


@dataclass(frozen=True, slots=True)
class Peer:
    """What the offer of a participant that joined by SDP said, and which certificate it was
    answered, as far as it matters later."""

    way: str  # "RECEIVE" (WHIP), "SEND" (WHEP) or "BOTH" (a session)
    ufrag: str  # the client's; another one means that it restarts ICE
    rx_ext: tuple[int, ...] = NO_EXTENSIONS  # a leg's map (table.Ext) of what the client sends
    tx_ext: tuple[int, ...] = NO_EXTENSIONS  # and of what it is sent
    mids: tuple[tuple[str, str], ...] = ()  # (kind, mid) of each m-line that is live
    follow: str = ""  # the participant that a viewer asked for
    nack: bool = False  # it repairs video that is asked for again (RFC 4585)
    nack_audio: bool = False  # audio too
    feedback: bool = False  # it wants transport-wide feedback about what it sends
    layer: str = ""  # the layer that a viewer asked for: "low", "high", a rid, an index; "": auto
    certificate: str = ""  # fingerprint of the node's, in its handshake; "": not known


@dataclass(frozen=True, slots=True)
class SlotSpec:
    """A place for one track, as a viewer offers it; `pts`: its payload type for each codec,
    `rtx_pts`: that of the resends of each codec, `red_pt` that of RED.  Slots of one publisher
    share a `pair`; -1: it is for sound alone."""

    kind: Kind
    mid: str
    pts: tuple[tuple[Codec, int], ...]
    rtx_pts: tuple[tuple[Codec, int], ...] = ()
    pair: int = 0
    red_pt: int | None = None

    @property
    def repairs(self) -> bool:
        """Whether the slot has an RTX stream: an identity must serve each codec or none."""
        return bool(self.pts) and dict(self.rtx_pts).keys() >= dict(self.pts).keys()


SOUND_ONLY = -1
"""The pair of slots for sound alone."""
