"""plan: what the data plane should hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rooms_kit import audio, join, make_rooms, simulcast, tuple5, video

from forwarder import table
from forwarder.rooms.plan import CODECS, QUEUES, plan, plan_dirty, plan_room
from forwarder.rooms.roles import Role
from forwarder.rooms.room import Peer, SlotSpec
from forwarder.rtp.codecs import Codec, Kind
from forwarder.table import EMPTY, Queue


@pytest.fixture
def rooms():
    rooms = make_rooms(workers=2, start_rate=5)
    rooms.create_room("r", now=0.0)
    return rooms


def test_no_rooms_no_table():
    assert plan(make_rooms()) == EMPTY


def test_a_call(rooms):
    a, b = join(rooms), join(rooms, role=Role.PASSIVE)
    sound, picture = rooms.publish(a.id, [audio(1), video(2)])
    rooms.subscribe(b.id, [sound.id, picture.id])
    want = plan(rooms)
    assert set(want.legs) == {a.leg, b.leg}
    leg = want.legs[b.leg]
    assert (leg.tuples, leg.nominated, leg.worker, leg.rate_bps) == ((), None, 1, 5)
    assert (leg.key_id, leg.suite) == (b.key_id, table.Suite.AEAD_AES_128_GCM)
    assert (leg.rx_key, leg.tx_salt, leg.cname) == (b.rx_key, b.tx_salt, b.cname)
    source = want.sources[picture.source]
    assert (source.leg, source.ssrc, source.pt, source.clock_hz) == (a.leg, 2, 96, 90000)
    assert (source.queue, source.codec) == (Queue.VIDEO, table.Codec.H264)
    assert want.sources[sound.source].queue is Queue.AUDIO
    by_source = {r.source: r for r in want.routes.values()}
    route = by_source[picture.source]
    assert (route.leg, route.source_worker, route.pt) == (b.leg, 0, 96)
    assert route.gated and not by_source[sound.source].gated
    assert route.out_ssrc == b.subscriptions[picture.id].out_ssrc


def test_validated_addresses_are_part_of_the_leg(rooms):
    a = join(rooms)
    rooms.set_tuples(a.id, [tuple5(9), tuple5(10)], 1)
    leg = plan(rooms).legs[a.leg]
    assert leg.tuples == (tuple5(9), tuple5(10)) and leg.nominated == 1


def test_every_codec_and_kind_has_a_place():
    assert set(CODECS) == set(Codec)
    assert set(QUEUES) == set(Kind)


def test_rooms_add_up_to_the_node(rooms):
    rooms.create_room("s", now=0.0)
    for room_id in "rs":
        a, b = join(rooms, room_id), join(rooms, room_id)
        (track,) = rooms.publish(a.id, [audio(1)])
        rooms.subscribe(b.id, [track.id])
    whole = plan(rooms)
    parts = [plan_room(rooms, rooms.state.rooms[r]) for r in "rs"]
    for name in ("legs", "sources", "routes"):
        one, two = (dict(getattr(part, name)) for part in parts)
        assert not set(one) & set(two)
        assert one | two == getattr(whole, name)


def test_dirty_part(rooms):
    a, b = join(rooms), join(rooms)
    (track,) = rooms.publish(a.id, [audio(1)])
    dirty = rooms.drain_dirty()
    assert dirty and dirty.rooms == {"r"}
    assert plan_dirty(rooms, dirty) == plan(rooms)
    assert not rooms.drain_dirty()
    rooms.subscribe(b.id, [track.id])
    part = plan_dirty(rooms, rooms.drain_dirty())
    assert (len(part.legs), len(part.sources), len(part.routes)) == (0, 0, 1)


def test_each_layer_is_a_source(rooms):
    a, b = join(rooms), join(rooms)
    (track,) = rooms.publish(a.id, [simulcast("l", "m", "h")])
    want = plan(rooms)
    found = [want.sources[layer.source] for layer in track.layers]
    assert [(s.mid, s.rid, s.ssrc, s.by_pt) for s in found] == [
        ("1", "l", None, False),
        ("1", "m", None, False),
        ("1", "h", None, False),
    ]
    assert {s.rtx_pt for s in found} == {97} and {s.rtx_ssrc for s in found} == {None}
    assert track.source == found[-1].id
    (subscription,) = rooms.subscribe(b.id, [track.id])
    assert plan(rooms).routes[subscription.route].source == found[-1].id
    subscription.layer = 0
    assert plan(rooms).routes[subscription.route].source == found[0].id


def test_signalled_layers_need_no_label(rooms):
    a = join(rooms)
    (track,) = rooms.publish(a.id, [simulcast("l", "h", ssrc=50)])
    found = [plan(rooms).sources[layer.source] for layer in track.layers]
    assert [(s.ssrc, s.rtx_ssrc, s.mid, s.rid) for s in found] == [
        (50, 51, "", ""),
        (52, 53, "", ""),
    ]


def test_a_slot_has_an_rtx_stream_if_every_codec_of_it_has(rooms):
    rooms.create_room("s", now=0.0)
    pts = ((Codec.VP8, 100), (Codec.H264, 102))
    rtx = ((Codec.VP8, 101), (Codec.H264, 103))
    a = join(rooms)
    rooms.publish(a.id, [simulcast("l", "h")])
    whole = SlotSpec(Kind.VIDEO, "0", pts, rtx)
    partial = SlotSpec(Kind.VIDEO, "1", pts, rtx[:1])
    found = []
    for spec in (whole, partial):
        viewer = rooms.join_peer(
            "r", name="v", role=Role.PASSIVE, peer=Peer("SEND", "u"), places=[spec], now=0.0
        )
        viewer.keyed = True
        rooms.fill_slots()
        found.append(plan(rooms).routes[viewer.slots[0].route])
    assert (found[0].pt, found[0].rtx_pt) == (100, 101)
    assert found[0].rtx_ssrc not in (None, found[0].out_ssrc, found[1].out_ssrc)
    assert (found[1].pt, found[1].rtx_pt, found[1].rtx_ssrc) == (100, None, None)


@pytest.mark.parametrize(
    ("published", "viewed", "left_as"),
    [
        ((111, 63), (111, 63), 63),
        ((111, 63), (111, 45), 45),
        ((111, 63), (111, None), None),
        ((111, None), (111, 63), None),
        ((111, 63), (109, 45), None),  # its blocks would be of another codec there
    ],
)
def test_red_passes_where_both_mean_the_same_by_it(rooms, published, viewed, left_as):
    a = join(rooms)
    (track,) = rooms.publish(a.id, [replace(audio(1), pt=published[0], red_pt=published[1])])
    place = SlotSpec(Kind.AUDIO, "0", ((Codec.OPUS, viewed[0]),), red_pt=viewed[1])
    viewer = rooms.join_peer(
        "r", name="v", role=Role.PASSIVE, peer=Peer("SEND", "u"), places=[place], now=0.0
    )
    viewer.keyed = True
    rooms.fill_slots()
    want = plan(rooms)
    assert want.sources[track.source].red_pt == published[1]
    route = want.routes[viewer.slots[0].route]
    assert (route.pt, route.red_pt) == (viewed[0], left_as)
