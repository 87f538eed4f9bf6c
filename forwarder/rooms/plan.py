"""rooms -> the forwarding table that the data plane should hold.

Law: pure; the same rooms give the same table, in the same process or after a restart.  Everybody
in a room has a leg, live or not, and routes to it, so that media flows with the first packet after
the ICE check; a leg without a nominated address is sent nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from forwarder import table
from forwarder.rooms.core import Rooms
from forwarder.rooms.room import Layer, Participant, Peer, Room, Slot, Subscription, Track
from forwarder.rooms.state import Dirty, State
from forwarder.rtp.codecs import Codec, Kind
from forwarder.table import Leg, Queue, Route, Source, Table

CODECS = {
    Codec.OPUS: table.Codec.OPAQUE,
    Codec.H264: table.Codec.H264,
    Codec.VP8: table.Codec.VP8,
    Codec.VP9: table.Codec.VP9,
    Codec.AV1: table.Codec.AV1,
}
_NATIVE = Peer("", "")
"""A native client agreed on nothing by an offer."""
QUEUES = {Kind.AUDIO: Queue.AUDIO, Kind.VIDEO: Queue.VIDEO}


def plan_leg(participant: Participant, rate_bps: int) -> Leg:
    p = participant
    said = p.peer if p.peer is not None else _NATIVE
    return Leg(
        id=p.leg,
        worker=p.worker,
        key_id=p.key_id,
        suite=table.Suite(p.suite.profile),
        rx_key=p.rx_key,
        rx_salt=p.rx_salt,
        tx_key=p.tx_key,
        tx_salt=p.tx_salt,
        local=p.local,
        tuples=p.tuples,
        nominated=p.nominated,
        rate_bps=p.rate_bps or rate_bps,
        rtcp_ssrc=p.rtcp_ssrc,
        rx_ext=said.rx_ext,
        tx_ext=said.tx_ext,
        cname=p.cname,
        nack=said.nack,
        nack_audio=said.nack_audio,
        feedback=said.feedback and said.rx_ext[table.Ext.TRANSPORT_CC] != 0,
    )


def plan_source(track: Track, layer: Layer) -> Source:
    spec, one = track.spec, layer.spec
    mid, rid = (spec.mid, one.rid) if one.ssrc is None else ("", "")
    return Source(
        id=layer.source,
        leg=track.publisher.leg,
        ssrc=one.ssrc,
        mid=mid,
        rid=rid,
        by_pt=one.ssrc is None and not mid and not rid,
        clock_hz=spec.clock_hz,
        pt=spec.pt,
        queue=QUEUES[spec.kind],
        codec=CODECS[spec.codec],
        rtx_ssrc=one.rtx_ssrc,
        rtx_pt=spec.rtx_pt,
        red_pt=spec.red_pt,
        resume=track.again,
    )


def plan_route(subscription: Subscription) -> Route:
    track, slot = subscription.track, subscription.slot
    codec = track.spec.codec
    pt = slot.pt(codec) if slot is not None else track.spec.pt
    return Route(
        id=subscription.route,
        leg=subscription.subscriber.leg,
        source=subscription.source,
        source_worker=track.publisher.worker,
        out_ssrc=subscription.out_ssrc,
        ts_offset=subscription.ts_offset,
        seq_start=subscription.seq_start,
        pt=track.spec.pt if pt is None else pt,
        mid=slot.spec.mid if slot is not None else "",
        gated=track.kind is Kind.VIDEO,
        paused=track.muted or subscription.paused,
        rtx_ssrc=slot.rtx_ssrc if slot is not None else None,
        rtx_pt=slot.rtx_pt(codec) if slot is not None else None,
        rtx_seq_start=slot.rtx_seq_start if slot is not None else 0,
        red_pt=_red_pt(track, slot),
    )


def _red_pt(track: Track, slot: Slot | None) -> int | None:
    """As what RED leaves.  Its blocks say the payload type of what they hold, and leave as they
    came: to a receiver that knows it by another one, the worker sends the plain sound."""
    spec = track.spec
    if slot is None or spec.red_pt is None or slot.pt(spec.codec) != spec.pt:
        return None
    return slot.spec.red_pt


def _layers(tracks: Iterable[Track]) -> Iterator[tuple[Track, Layer]]:
    return ((track, layer) for track in tracks for layer in track.layers)


def _plan(
    participants: Iterable[Participant],
    layers: Iterable[tuple[Track, Layer]],
    subscriptions: Iterable[Subscription],
    state: State,
) -> Table:
    """A leg that has no keys yet is not there, nor is a source that is let go of, nor is what would
    need them."""
    rate_bps, parting = state.limits.start_rate, state.parting
    return Table(
        legs={p.leg: plan_leg(p, rate_bps) for p in participants if p.keyed},
        sources={
            layer.source: plan_source(track, layer)
            for track, layer in layers
            if track.publisher.keyed and layer.source not in parting
        },
        routes={
            s.route: plan_route(s)
            for s in subscriptions
            if s.subscriber.keyed and s.track.publisher.keyed and s.source not in parting
        },
    )


def plan(rooms: Rooms) -> Table:
    """The whole node: what a data plane that starts empty is told."""
    state = rooms.state
    return _plan(
        state.participants.values(),
        _layers(state.tracks.values()),
        state.by_route.values(),
        state,
    )


def plan_room(rooms: Rooms, room: Room) -> Table:
    """One room: it shares nothing with the others."""
    tracks = room.tracks.values()
    return _plan(
        room.participants.values(),
        _layers(tracks),
        (s for t in tracks for s in t.subscriptions.values()),
        rooms.state,
    )


def plan_dirty(rooms: Rooms, dirty: Dirty) -> Table:
    """What is there now under the ids that changed: work in proportion to the change."""
    state = rooms.state
    return _plan(
        (state.by_leg[i] for i in dirty.legs if i in state.by_leg),
        (
            (track, track.layer_of(i))
            for i in dirty.sources
            if (track := state.by_source.get(i)) is not None
        ),
        (state.by_route[i] for i in dirty.routes if i in state.by_route),
        state,
    )
