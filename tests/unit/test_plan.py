"""plan: what the data plane should hold."""

from __future__ import annotations

import pytest
from rooms_kit import audio, join, make_rooms, tuple5, video

from forwarder import table
from forwarder.rooms.plan import CODECS, QUEUES, plan, plan_dirty, plan_room
from forwarder.rooms.roles import Role
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
