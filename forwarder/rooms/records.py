"""Rooms as flat records, for the store; see snapshot.py for the way back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from forwarder.rooms.core import Rooms
from forwarder.rooms.peers import peer_text
from forwarder.rooms.room import Participant, Room, Slot, Subscription, Track
from forwarder.rtp.codecs import VIDEO_ORDER, Codec


@dataclass(frozen=True)
class RoomRecord:
    id: str
    created_at: float
    max_active: int
    max_passive: int
    codecs: str = " ".join(VIDEO_ORDER)


@dataclass(frozen=True)
class ParticipantRecord:
    """`key_id` in hexadecimal (64 bits, unsigned); `tuples`: one 5-tuple a line, its four parts
    separated by blanks; `peer` as JSON, empty where it did not join by SDP; `view`: who is in
    which pair of slots, and the page that it asked for, as JSON."""

    leg: int
    id: str
    room_id: str
    name: str
    role: str
    worker: int
    key_id: str
    suite: str
    rx_key: bytes = field(repr=False)
    rx_salt: bytes = field(repr=False)
    tx_key: bytes = field(repr=False)
    tx_salt: bytes = field(repr=False)
    ufrag: str
    password: str = field(repr=False)
    resume: str = field(repr=False)
    rtcp_ssrc: int
    cname: str
    auto: int
    leg_state: str
    tuples: str
    nominated: int | None
    keyed: int
    peer: str
    rate_bps: int
    view: str


@dataclass(frozen=True)
class TrackRecord:
    """`source`: the first of its sources; `layers` as JSON: source, rid, SSRC and the SSRC of its
    repair of each."""

    source: int
    id: str
    leg: int
    label: str
    kind: str
    codec: str
    pt: int
    clock_hz: int
    ssrc: int | None
    mid: str
    muted: int
    rtx_pt: int | None
    layers: str
    red_pt: int | None


@dataclass(frozen=True)
class SubscriptionRecord:
    route: int
    leg: int
    source: int
    out_ssrc: int
    seq_start: int
    ts_offset: int
    paused: int


@dataclass(frozen=True)
class SlotRecord:
    """`pts`, `rtx_pts`: a codec and its payload type a line; `source`: of the layer that is shown,
    None: it has no track; `layer_limit`: the highest layer that is wanted."""

    route: int
    leg: int
    kind: str
    mid: str
    pts: str
    out_ssrc: int
    seq_start: int
    ts_offset: int
    source: int | None
    rtx_pts: str
    pair: int
    rtx_ssrc: int | None
    rtx_seq_start: int
    layer_limit: int | None
    paused: int
    red_pt: int | None


@dataclass(frozen=True)
class SsrcRecord:
    """Where the walk through the outgoing SSRCs is."""

    multiplier: int
    offset: int
    counter: int


@dataclass(frozen=True)
class Snapshot:
    rooms: tuple[RoomRecord, ...] = ()
    ssrcs: SsrcRecord | None = None
    participants: tuple[ParticipantRecord, ...] = ()
    tracks: tuple[TrackRecord, ...] = ()
    subscriptions: tuple[SubscriptionRecord, ...] = ()
    slots: tuple[SlotRecord, ...] = ()


def room_record(r: Room) -> RoomRecord:
    return RoomRecord(r.id, r.created_at, r.max_active, r.max_passive, " ".join(r.codecs))


def participant_record(p: Participant) -> ParticipantRecord:
    return ParticipantRecord(
        leg=p.leg,
        id=p.id,
        room_id=p.room_id,
        name=p.name,
        role=p.role.value,
        worker=p.worker,
        key_id=f"{p.key_id:016x}",
        suite=p.suite.value,
        rx_key=p.rx_key,
        rx_salt=p.rx_salt,
        tx_key=p.tx_key,
        tx_salt=p.tx_salt,
        ufrag=p.ufrag,
        password=p.password,
        resume=p.resume,
        rtcp_ssrc=p.rtcp_ssrc,
        cname=p.cname,
        auto=int(p.auto),
        leg_state=p.leg_state.value,
        tuples="\n".join(
            f"{t.remote_ip} {t.remote_port} {t.local_ip} {t.local_port}" for t in p.tuples
        ),
        nominated=p.nominated,
        keyed=int(p.keyed),
        peer=peer_text(p.peer),
        rate_bps=p.rate_bps,
        view=_view_text(p),
    )


def track_record(t: Track) -> TrackRecord:
    s = t.spec
    return TrackRecord(
        source=t.record,
        id=t.id,
        leg=t.publisher.leg,
        label=s.label,
        kind=s.kind.value,
        codec=s.codec.value,
        pt=s.pt,
        clock_hz=s.clock_hz,
        ssrc=s.ssrc,
        mid=s.mid,
        muted=int(t.muted),
        rtx_pt=s.rtx_pt,
        red_pt=s.red_pt,
        layers=json.dumps([(x.source, x.spec.rid, x.spec.ssrc, x.spec.rtx_ssrc) for x in t.layers]),
    )


def subscription_record(s: Subscription) -> SubscriptionRecord:
    return SubscriptionRecord(
        s.route,
        s.subscriber.leg,
        s.source,
        s.out_ssrc,
        s.seq_start,
        s.ts_offset,
        int(s.paused),
    )


def slot_record(s: Slot) -> SlotRecord:
    return SlotRecord(
        route=s.route,
        leg=s.owner.leg,
        kind=s.spec.kind.value,
        mid=s.spec.mid,
        pts=_pts_text(s.spec.pts),
        out_ssrc=s.out_ssrc,
        seq_start=s.seq_start,
        ts_offset=s.ts_offset,
        source=s.subscription.source if s.subscription is not None else None,
        rtx_pts=_pts_text(s.spec.rtx_pts),
        pair=s.spec.pair,
        rtx_ssrc=s.rtx_ssrc,
        rtx_seq_start=s.rtx_seq_start,
        layer_limit=s.limit,
        red_pt=s.spec.red_pt,
        paused=int(s.subscription is not None and s.subscription.paused),
    )


def _pts_text(pts: Iterable[tuple[Codec, int]]) -> str:
    return "\n".join(f"{codec.value} {pt}" for codec, pt in pts)


def _view_text(p: Participant) -> str:
    if not p.seats and p.page is None:
        return ""
    return json.dumps([p.page, [(pair, *seat) for pair, seat in p.seats.items()]])


def ssrc_record(rooms: Rooms) -> SsrcRecord:
    walk = rooms.state.ssrcs
    return SsrcRecord(walk.multiplier, walk.offset, walk.counter)
