"""Everything that must survive a restart of the supervisor, as flat records, and the way back.

Law: restore(snapshot(rooms)) plans to the identical table.  After a restore everybody is away and
has the whole grace period to resume.  Records that do not fit any more (smaller tables, another
address, a room that is gone) are left out, each with a sentence; their clients join anew.

What is not in a snapshot: ids that the data plane still holds for objects that are gone.  Call
`Rooms.observed` with a dump before anything else takes ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from forwarder.ids import LegId, ParticipantId, RoomId, RouteId, SourceId, Ssrc, TrackId
from forwarder.rooms.admission import Limits
from forwarder.rooms.allocate import Secrets, SsrcSequence
from forwarder.rooms.core import Rooms
from forwarder.rooms.peers import peer_of, peer_text
from forwarder.rooms.roles import Role
from forwarder.rooms.room import (
    LegState,
    Participant,
    ParticipantState,
    Room,
    RoomState,
    Slot,
    SlotSpec,
    Subscription,
    Track,
    TrackSpec,
)
from forwarder.rooms.slots import put
from forwarder.rooms.state import State
from forwarder.rtp.codecs import Codec, Kind
from forwarder.rtp.suites import Suite
from forwarder.table import Tuple5


@dataclass(frozen=True)
class RoomRecord:
    id: str
    created_at: float
    max_active: int
    max_passive: int


@dataclass(frozen=True)
class ParticipantRecord:
    """`key_id` in hexadecimal (64 bits, unsigned); `tuples`: one 5-tuple a line, its four parts
    separated by blanks; `peer` as JSON, empty where it did not join by SDP."""

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


@dataclass(frozen=True)
class TrackRecord:
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


@dataclass(frozen=True)
class SubscriptionRecord:
    route: int
    leg: int
    source: int
    out_ssrc: int
    seq_start: int
    ts_offset: int


@dataclass(frozen=True)
class SlotRecord:
    """`pts`: a codec and its payload type a line; `source` None: it has no track."""

    route: int
    leg: int
    kind: str
    mid: str
    pts: str
    out_ssrc: int
    seq_start: int
    ts_offset: int
    source: int | None


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


# ---- there -----------------------------------------------------------------------------------


def room_record(r: Room) -> RoomRecord:
    return RoomRecord(r.id, r.created_at, r.max_active, r.max_passive)


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
    )


def track_record(t: Track) -> TrackRecord:
    s = t.spec
    return TrackRecord(
        source=t.source,
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
    )


def subscription_record(s: Subscription) -> SubscriptionRecord:
    return SubscriptionRecord(
        s.route, s.subscriber.leg, s.track.source, s.out_ssrc, s.seq_start, s.ts_offset
    )


def slot_record(s: Slot) -> SlotRecord:
    return SlotRecord(
        route=s.route,
        leg=s.owner.leg,
        kind=s.spec.kind.value,
        mid=s.spec.mid,
        pts="\n".join(f"{codec.value} {pt}" for codec, pt in s.spec.pts),
        out_ssrc=s.out_ssrc,
        seq_start=s.seq_start,
        ts_offset=s.ts_offset,
        source=s.subscription.track.source if s.subscription is not None else None,
    )


def ssrc_record(rooms: Rooms) -> SsrcRecord:
    walk = rooms.state.ssrcs
    return SsrcRecord(walk.multiplier, walk.offset, walk.counter)


def snapshot(rooms: Rooms) -> Snapshot:
    """All of it.  The store writes what changed only, by the same records."""
    state = rooms.state
    return Snapshot(
        tuple(map(room_record, state.rooms.values())),
        ssrc_record(rooms),
        tuple(map(participant_record, state.participants.values())),
        tuple(map(track_record, state.tracks.values())),
        tuple(subscription_record(s) for s in state.by_route.values() if s.slot is None),
        tuple(map(slot_record, state.slots.values())),
    )


# ---- and back --------------------------------------------------------------------------------


def restore(
    taken: Snapshot, limits: Limits, secrets: Secrets, now: float
) -> tuple[Rooms, list[str]]:
    """The rooms, and a sentence for each record that was left out."""
    rooms = Rooms(limits, secrets)
    state = rooms.state
    faults: list[str] = []
    if taken.ssrcs is not None:
        s = taken.ssrcs
        state.ssrcs = SsrcSequence(s.multiplier, s.offset, s.counter)
    for made in taken.rooms:
        state.add_room(Room(RoomId(made.id), made.created_at, made.max_active, made.max_passive))
    for p in taken.participants:
        with _left_out(faults, f"participant {p.id}"):
            state.add_participant(_participant(state, p, limits))
    for t in taken.tracks:
        with _left_out(faults, f"track {t.id}"):
            state.add_track(_track(state, t, limits))
    for r in taken.subscriptions:
        with _left_out(faults, f"route {r.route}"):
            state.add_subscription(_subscription(state, r, limits))
    for place in taken.slots:
        with _left_out(faults, f"slot {place.route}"):
            _slot(state, place, limits)
    state.legs.adopt(state.by_leg)
    state.sources.adopt(state.by_source)
    state.routes.adopt([*state.by_route, *state.slots])
    for participant in state.participants.values():
        state.away[participant.id] = now + limits.resume_grace_s
    for room in state.rooms.values():
        if room.participants:
            room.state = RoomState.OCCUPIED
        elif limits.empty_ttl_s > 0:
            state.empty[room.id] = now + limits.empty_ttl_s
    state.drain_dirty()
    return rooms, faults


class _Unfit(Exception):
    """A record that cannot be restored; the sentence says why."""


@contextmanager
def _left_out(faults: list[str], what: str) -> Iterator[None]:
    try:
        yield
    except (_Unfit, ValueError) as error:
        faults.append(f"{what} is left out: {error}")


def _need(ok: bool, why: str) -> None:
    if not ok:
        raise _Unfit(why)


def _tuples(text: str) -> tuple[Tuple5, ...]:
    found = []
    for line in text.splitlines():
        remote_ip, remote_port, local_ip, local_port = line.split(" ")
        found.append(Tuple5(remote_ip, int(remote_port), local_ip, int(local_port)))
    return tuple(found)


def _participant(state: State, p: ParticipantRecord, limits: Limits) -> Participant:
    tuples, nominated = _tuples(p.tuples), p.nominated
    leg_state, local = LegState(p.leg_state), 0
    _need(RoomId(p.room_id) in state.rooms, f"there is no room {p.room_id}")
    _need(p.keyed == 1, "its handshake was not finished")
    _need(0 <= p.leg < limits.legs_max, f"leg {p.leg} is not below dataplane.legs_max")
    _need(0 <= p.worker < limits.workers, f"there is no worker {p.worker} any more")
    _need(p.leg not in state.by_leg, f"leg {p.leg} belongs to another")
    _need(not any(t in state.by_tuple for t in tuples), "another has its 5-tuple")
    if nominated is not None:
        address = tuples[nominated].local_ip
        _need(address in limits.addresses, f"{address} is not an address of this node any more")
        local = limits.addresses.index(address)
    return Participant(
        id=ParticipantId(p.id),
        room_id=RoomId(p.room_id),
        name=p.name,
        role=Role(p.role),
        leg=LegId(p.leg),
        worker=p.worker,
        key_id=int(p.key_id, 16),
        suite=Suite(p.suite),
        rx_key=p.rx_key,
        rx_salt=p.rx_salt,
        tx_key=p.tx_key,
        tx_salt=p.tx_salt,
        ufrag=p.ufrag,
        password=p.password,
        resume=p.resume,
        rtcp_ssrc=Ssrc(p.rtcp_ssrc),
        cname=p.cname,
        state=ParticipantState.AWAY,
        auto=bool(p.auto),
        leg_state=leg_state,
        tuples=tuples,
        nominated=nominated,
        local=local,
        peer=peer_of(p.peer),
    )


def _track(state: State, t: TrackRecord, limits: Limits) -> Track:
    publisher, kind = state.by_leg.get(t.leg), Kind(t.kind)
    if publisher is None:
        raise _Unfit("its publisher is left out")
    _need(0 <= t.source < limits.sources_max, f"source {t.source} is not below its limit")
    _need(state.histories[kind] > 0, f"there is no {kind} history left")
    return Track(
        id=TrackId(t.id),
        room_id=publisher.room_id,
        publisher=publisher,
        spec=TrackSpec(t.label, kind, Codec(t.codec), t.pt, t.clock_hz, t.ssrc, t.mid),
        source=SourceId(t.source),
        muted=bool(t.muted),
    )


def _subscription(state: State, r: SubscriptionRecord, limits: Limits) -> Subscription:
    track, subscriber = state.by_source.get(r.source), state.by_leg.get(r.leg)
    if track is None or subscriber is None:
        raise _Unfit("its track or its subscriber is left out")
    _need(0 <= r.route < limits.routes_max, f"route {r.route} is not below its limit")
    return Subscription(
        track=track,
        subscriber=subscriber,
        route=RouteId(r.route),
        out_ssrc=Ssrc(r.out_ssrc),
        seq_start=r.seq_start,
        ts_offset=r.ts_offset,
    )


def _slot(state: State, r: SlotRecord, limits: Limits) -> None:
    owner = state.by_leg.get(r.leg)
    if owner is None:
        raise _Unfit("its viewer is left out")
    _need(0 <= r.route < limits.routes_max, f"route {r.route} is not below its limit")
    pairs = (line.split(" ") for line in r.pts.splitlines())
    slot = Slot(
        spec=SlotSpec(Kind(r.kind), r.mid, tuple((Codec(name), int(pt)) for name, pt in pairs)),
        owner=owner,
        route=RouteId(r.route),
        out_ssrc=Ssrc(r.out_ssrc),
        seq_start=r.seq_start,
        ts_offset=r.ts_offset,
    )
    state.add_slot(slot)
    track = state.by_source.get(r.source) if r.source is not None else None
    if track is not None:
        put(state, slot, track)
