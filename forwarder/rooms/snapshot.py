"""Everything that must survive a restart of the supervisor, as flat records, and the way back.

Law: restore(snapshot(rooms)) plans to the identical table.  After a restore everybody is away and
has the whole grace period to resume.  Records that do not fit any more (smaller tables, another
address, a room that is gone) are left out, each with a sentence; their clients join anew.

What is not in a snapshot: ids that the data plane still holds for objects that are gone.  Call
`Rooms.observed` with a dump before anything else takes ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from forwarder.ids import LegId, ParticipantId, RoomId, RouteId, SourceId, Ssrc, TrackId
from forwarder.rooms.admission import Limits
from forwarder.rooms.allocate import Secrets, SsrcSequence
from forwarder.rooms.core import Rooms
from forwarder.rooms.peers import peer_of
from forwarder.rooms.records import (
    ParticipantRecord,
    SlotRecord,
    Snapshot,
    SubscriptionRecord,
    TrackRecord,
    participant_record,
    room_record,
    slot_record,
    ssrc_record,
    subscription_record,
    track_record,
)
from forwarder.rooms.roles import Role
from forwarder.rooms.room import (
    Layer,
    LayerSpec,
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
        with _left_out(faults, f"room {made.id}"):
            codecs = tuple(map(Codec, made.codecs.split()))
            state.add_room(
                Room(RoomId(made.id), made.created_at, made.max_active, made.max_passive, codecs)
            )
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
        rate_bps=p.rate_bps,
        **_view(p.view),
    )


def _view(text: str) -> dict[str, Any]:
    if not text:
        return {}
    page, seats = json.loads(text)
    return {
        "page": None if page is None else tuple(map(ParticipantId, page)),
        "seats": {pair: (ParticipantId(who), number) for pair, who, number in seats},
    }


def _track(state: State, t: TrackRecord, limits: Limits) -> Track:
    publisher, kind = state.by_leg.get(t.leg), Kind(t.kind)
    if publisher is None:
        raise _Unfit("its publisher is left out")
    layers = [
        Layer(index, SourceId(source), LayerSpec(rid, ssrc, rtx_ssrc))
        for index, (source, rid, ssrc, rtx_ssrc) in enumerate(json.loads(t.layers))
    ]
    for layer in layers:
        source = layer.source
        _need(0 <= source < limits.sources_max, f"source {source} is not below its limit")
    _need(state.histories[kind] >= len(layers), f"there is no {kind} history left")
    return Track(
        id=TrackId(t.id),
        room_id=publisher.room_id,
        publisher=publisher,
        spec=TrackSpec(
            t.label,
            kind,
            Codec(t.codec),
            t.pt,
            t.clock_hz,
            t.ssrc,
            t.mid,
            t.rtx_pt,
            tuple(layer.spec for layer in layers),
            t.red_pt,
        ),
        layers=layers,
        muted=bool(t.muted),
        again=not publisher.role.may_publish,
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
        layer=track.layer_of(r.source).index,
        paused=bool(r.paused),
    )


def _pts(text: str) -> tuple[tuple[Codec, int], ...]:
    pairs = (line.split(" ") for line in text.splitlines())
    return tuple((Codec(name), int(pt)) for name, pt in pairs)


def _slot(state: State, r: SlotRecord, limits: Limits) -> None:
    owner = state.by_leg.get(r.leg)
    if owner is None:
        raise _Unfit("its viewer is left out")
    _need(0 <= r.route < limits.routes_max, f"route {r.route} is not below its limit")
    slot = Slot(
        spec=SlotSpec(Kind(r.kind), r.mid, _pts(r.pts), _pts(r.rtx_pts), r.pair, r.red_pt),
        owner=owner,
        route=RouteId(r.route),
        out_ssrc=Ssrc(r.out_ssrc),
        seq_start=r.seq_start,
        ts_offset=r.ts_offset,
        rtx_ssrc=None if r.rtx_ssrc is None else Ssrc(r.rtx_ssrc),
        rtx_seq_start=r.rtx_seq_start,
        limit=r.layer_limit,
    )
    state.add_slot(slot)
    if r.source is None or (track := state.by_source.get(r.source)) is None:
        return
    shown = put(state, slot, track, track.layer_of(r.source).index)
    shown.paused = bool(r.paused)
