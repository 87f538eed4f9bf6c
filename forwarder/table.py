"""The forwarding table as values: legs, sources, routes.

Law: nothing here does I/O, reads a clock or knows cffi.  `rooms` computes a Table, `diff` turns
two tables into commands, `dataplane` encodes commands into the records of
c_helpers/include/vcfwd/abi.h.  All ids are indices chosen by the supervisor, unique on the node
and below the tables' sizes; an id may be used again once its remove was answered.

Every object has a `digest`: 64 bits of BLAKE2b over its fields, the same in every process and
every run.  The data plane stores it and returns it by dump, so that a supervisor that comes back
learns what is there without reading keys back.  Keys are not part of a digest: `key_id` names a
pair of master keys on this node for ever.  Keys never appear in a repr.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import IntEnum
from functools import cached_property
from hashlib import blake2b
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any

LEG_TUPLES_MAX = 4
"""Validated 5-tuples of a leg (VC_LEG_TUPLES)."""
LABEL_MAX = 16
"""Bytes of a mid, rid or CNAME (VC_LABEL_SZ)."""
KEY_SZ = 16
"""Bytes of an SRTP master key (AES-128; RFC 3711 section 8.2)."""
SALT_SZ = 14
"""Bytes of an SRTP master salt; AEAD_AES_128_GCM uses the first 12 (RFC 7714 section 12)."""
SEQ_START_MAX = 1 << 15
"""A route's first sequence number is below this, so that no early loss hides a wrap
(RFC 3711 section 3.3.1)."""


class Suite(IntEnum):
    """SRTP protection profiles by their DTLS-SRTP numbers (RFC 5764 section 4.1.2, RFC 7714
    section 14.2); NONE: the leg has no keys yet and passes nothing."""

    NONE = 0
    AES_CM_128_HMAC_SHA1_80 = 0x0001
    AEAD_AES_128_GCM = 0x0007


class Codec(IntEnum):
    """What a worker must know to find key frames in clear payloads (enum vc_codec)."""

    OPAQUE = 0
    H264 = 1
    VP8 = 2
    VP9 = 3
    AV1 = 4


class Queue(IntEnum):
    """Class of a source's packets, highest first (enum vc_queue)."""

    AUDIO = 0
    RESEND = 1
    VIDEO = 2
    REPAIR = 3
    PADDING = 4


class Ext(IntEnum):
    """Kinds of RTP header extensions (RFC 8285) by their place in a leg's maps (enum vc_ext)."""

    MID = 0
    RID = 1
    RRID = 2
    AUDIO_LEVEL = 3
    ABS_SEND_TIME = 4
    TRANSPORT_CC = 5
    DEPENDENCY = 6
    PLAYOUT_DELAY = 7


NO_EXTENSIONS: tuple[int, ...] = (0,) * len(Ext)


def extensions(ids: Mapping[Ext, int]) -> tuple[int, ...]:
    """A leg's extension map from the ids that its peer uses (1..255; RFC 8285)."""
    return tuple(ids.get(kind, 0) for kind in Ext)


def _plain(value: Any) -> Any:
    """A value whose repr is the same in every process: what a digest is made of."""
    if isinstance(value, IntEnum):
        return int(value)
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    if isinstance(value, Tuple5):
        return (value.remote_ip, value.remote_port, value.local_ip, value.local_port)
    return value


class _Digested:
    """Adds `digest` to a frozen dataclass: BLAKE2b over its fields marked as such."""

    @cached_property
    def digest(self) -> int:
        """64 bits that differ when any field but the keys differs; never 0."""
        named = [
            (f.name, _plain(getattr(self, f.name)))
            for f in fields(self)  # type: ignore[arg-type]
            if f.metadata.get("digest", True)
        ]
        raw = repr((type(self).__name__, named)).encode()
        return int.from_bytes(blake2b(raw, digest_size=8).digest(), "little") or 1


def _secret() -> Any:
    return field(repr=False, metadata={"digest": False})


def _check(ok: bool, what: str) -> None:
    if not ok:
        raise ValueError(what)


def _check_id(name: str, value: int) -> None:
    _check(0 <= value < 0xFFFFFFFF, f"{name} id {value} is not in 0..2^32-2")


def _check_label(name: str, value: str) -> None:
    size = len(value.encode())
    _check(size <= LABEL_MAX, f"{name} {value!r} is {size} bytes long; at most {LABEL_MAX}")


@dataclass(frozen=True, slots=True)
class Tuple5:
    """A 5-tuple as the node sees it; addresses are normalised (IPv4-mapped IPv6 becomes IPv4)."""

    remote_ip: str
    remote_port: int
    local_ip: str
    local_port: int

    def __post_init__(self) -> None:
        for name in ("remote_ip", "local_ip"):
            address = ip_address(getattr(self, name))
            mapped = getattr(address, "ipv4_mapped", None)
            object.__setattr__(self, name, str(mapped or address))
        for name in ("remote_port", "local_port"):
            port = getattr(self, name)
            _check(0 < port < 65536, f"{name} {port} is not in 1..65535")


@dataclass(frozen=True)
class Leg(_Digested):
    """One secured association with one remote party.  A leg belongs to the worker `worker`.

    `local` is the index of the local address whose media socket sends; `nominated` an index into
    `tuples` or None (nothing is sent); `rate_bps` the pacing rate in bits a second, 0: unpaced.
    What the peer has agreed to receive: `nack` (RFC 4585) for lost video, `nack_audio` for audio,
    `feedback`: transport-wide feedback, for which `rx_ext` must map TRANSPORT_CC.
    """

    id: int
    worker: int
    key_id: int
    suite: Suite
    rx_key: bytes = _secret()
    rx_salt: bytes = _secret()
    tx_key: bytes = _secret()
    tx_salt: bytes = _secret()
    local: int = 0
    tuples: tuple[Tuple5, ...] = ()
    nominated: int | None = None
    rate_bps: int = 0
    rtcp_ssrc: int = 0
    dscp_audio: int = 46
    dscp_video: int = 34
    rx_ext: tuple[int, ...] = NO_EXTENSIONS
    tx_ext: tuple[int, ...] = NO_EXTENSIONS
    cname: str = ""
    nack: bool = False
    nack_audio: bool = False
    feedback: bool = False

    def __post_init__(self) -> None:
        _check_id("leg", self.id)
        _check(self.key_id != 0, f"leg {self.id}: key_id must not be 0")
        _check(len(self.tuples) <= LEG_TUPLES_MAX, f"leg {self.id}: too many 5-tuples")
        _check(
            self.nominated is None or 0 <= self.nominated < len(self.tuples),
            f"leg {self.id}: nominated {self.nominated} is not one of its 5-tuples",
        )
        for name, size in (("rx_key", KEY_SZ), ("tx_key", KEY_SZ)):
            _check(len(getattr(self, name)) == size, f"leg {self.id}: {name} is not {size} bytes")
        for name in ("rx_salt", "tx_salt"):
            _check(
                len(getattr(self, name)) in (12, SALT_SZ),
                f"leg {self.id}: {name} is neither 12 nor {SALT_SZ} bytes",
            )
        for name in ("rx_ext", "tx_ext"):
            ids = getattr(self, name)
            _check(
                len(ids) == len(Ext) and all(0 <= i < 256 for i in ids),
                f"leg {self.id}: {name} needs {len(Ext)} ids in 0..255",
            )
        _check(
            not self.feedback or self.rx_ext[Ext.TRANSPORT_CC] != 0,
            f"leg {self.id}: feedback needs an id for TRANSPORT_CC in rx_ext",
        )
        _check_label("cname", self.cname)


@dataclass(frozen=True)
class Source(_Digested):
    """One incoming RTP stream of a leg: signalled by `ssrc`, or bound by the worker at the first
    authenticated packet with this (mid, rid), or of this payload type (`by_pt`).

    `queue` is AUDIO or VIDEO: class and history size class; `clock_hz` the RTP clock.
    `rtx_pt`: its sender repairs it by an RTX stream (RFC 4588) of this payload type; `rtx_ssrc` is
    that stream's SSRC, None: bound by `rtx_pt` and, where there are labels, (mid, repaired-rid).
    `red_pt`: packets of this payload type are RED (RFC 2198), for routes that take it.
    """

    id: int
    leg: int
    ssrc: int | None = None
    mid: str = ""
    rid: str = ""
    by_pt: bool = False
    clock_hz: int = 90000
    pt: int = 96
    queue: Queue = Queue.VIDEO
    codec: Codec = Codec.OPAQUE
    rtx_ssrc: int | None = None
    rtx_pt: int | None = None
    red_pt: int | None = None
    resume: bool = field(default=False, compare=False, metadata={"digest": False})
    """Where it has to be set: the id had this very stream before (commands.SourceSet)."""

    def __post_init__(self) -> None:
        _check_id("source", self.id)
        _check_id("leg", self.leg)
        _check_label("mid", self.mid)
        _check_label("rid", self.rid)
        _check(
            self.ssrc is not None or self.mid != "" or self.rid != "" or self.by_pt,
            f"source {self.id}: needs an SSRC, a label or by_pt",
        )
        _check(self.queue in (Queue.AUDIO, Queue.VIDEO), f"source {self.id}: audio or video only")
        _check(
            self.rtx_pt is None or 0 < self.rtx_pt < 128,
            f"source {self.id}: rtx_pt {self.rtx_pt} is not in 1..127",
        )
        _check(
            self.red_pt is None or (0 < self.red_pt < 128 and self.red_pt != self.pt),
            f"source {self.id}: red_pt {self.red_pt} is not in 1..127 or is pt itself",
        )
        _check(
            self.rtx_ssrc is None or (self.rtx_pt is not None and 0 < self.rtx_ssrc <= 0xFFFFFFFF),
            f"source {self.id}: rtx_ssrc needs an rtx_pt and must not be 0",
        )


@dataclass(frozen=True)
class Route(_Digested):
    """An outgoing stream of a leg.  Its identity (leg, out_ssrc, seq_start, ts_offset) never
    changes while it lives; its source may.

    `out_ssrc` was never used before with this leg's key_id; out timestamp = in timestamp +
    `ts_offset` (mod 2^32); `gated`: opens at a key frame; `mid` is sent when the leg maps it.
    `rtx_ssrc` (never used before either), `rtx_pt`, `rtx_seq_start`: the RTX stream (RFC 4588) on
    which lost packets are sent again; None: only as the very bytes that left before.
    `red_pt`: as what RED (RFC 2198) leaves; None: its receiver takes none, it gets the plain sound.
    """

    id: int
    leg: int
    source: int
    source_worker: int
    out_ssrc: int
    ts_offset: int = 0
    seq_start: int = 0
    pt: int = 96
    gated: bool = True
    mid: str = ""
    paused: bool = False
    rtx_ssrc: int | None = None
    rtx_pt: int | None = None
    rtx_seq_start: int = 0
    red_pt: int | None = None

    def __post_init__(self) -> None:
        for name in ("id", "leg", "source"):
            _check_id("route" if name == "id" else name, getattr(self, name))
        _check(
            0 <= self.seq_start < SEQ_START_MAX,
            f"route {self.id}: seq_start {self.seq_start} is not below {SEQ_START_MAX}",
        )
        _check(
            0 <= self.rtx_seq_start < SEQ_START_MAX,
            f"route {self.id}: rtx_seq_start {self.rtx_seq_start} is not below {SEQ_START_MAX}",
        )
        _check(
            (self.rtx_ssrc is None) == (self.rtx_pt is None)
            and 0 < (self.rtx_ssrc or 1) <= 0xFFFFFFFF
            and 0 < (self.rtx_pt or 1) < 128,
            f"route {self.id}: rtx_ssrc and rtx_pt go together, neither is 0",
        )
        _check(
            self.red_pt is None or 0 < self.red_pt < 128,
            f"route {self.id}: red_pt {self.red_pt} is not in 1..127",
        )
        _check_label("mid", self.mid)


def _empty() -> Any:
    return field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Table:
    """Everything that the data plane should hold, by id.  Do not change the mappings."""

    legs: Mapping[int, Leg] = _empty()
    sources: Mapping[int, Source] = _empty()
    routes: Mapping[int, Route] = _empty()


EMPTY = Table()


@dataclass(frozen=True)
class HeaderTemplate:
    """The Ethernet .. UDP header of a leg as it goes on the wire except lengths and checksums.

    `interface` is the index in the set-up list of XDP interfaces; None: the egress interface is
    not in it and the leg sends through its media socket (`header` is then empty).
    `generation` is the netlink mirror's.
    """

    ifindex: int
    interface: int | None
    l3_off: int
    header: bytes
    generation: int
