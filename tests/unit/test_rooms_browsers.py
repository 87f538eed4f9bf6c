"""Participants that join by an offer: no table before keys, slots with one identity for ever."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from rooms_kit import Broken, Plane, SeededSecrets, audio, join, make_rooms, tuple5, video

from forwarder import table
from forwarder.commands import RouteRemove, SourceSet
from forwarder.errors import ErrorCode, Refused
from forwarder.ice.dtls import SrtpKeys
from forwarder.rooms import events
from forwarder.rooms.core import Rooms
from forwarder.rooms.diff import Told, diff_dirty, release_gone
from forwarder.rooms.plan import plan
from forwarder.rooms.roles import Role
from forwarder.rooms.room import ParticipantState, Peer, SlotSpec, SlotState, TrackSpec
from forwarder.rooms.snapshot import restore, snapshot
from forwarder.rtp.codecs import Codec, Kind
from forwarder.rtp.suites import Suite
from forwarder.table import Ext, extensions

EXTENSIONS = extensions({Ext.MID: 4, Ext.AUDIO_LEVEL: 1})
KEYS = SrtpKeys(Suite.SHA1, b"r" * 16, b"r" * 14, b"t" * 16, b"t" * 14)
MIDS = (("audio", "0"), ("video", "1"))
PLACES = (
    SlotSpec(Kind.AUDIO, "0", ((Codec.OPUS, 111),)),
    SlotSpec(Kind.VIDEO, "1", ((Codec.VP8, 100), (Codec.H264, 98))),
)


def sound(mid: str = "0", ssrc: int | None = None) -> TrackSpec:
    return TrackSpec("audio", Kind.AUDIO, Codec.OPUS, 109, 48000, ssrc, mid)


def picture(mid: str = "1", codec: Codec = Codec.VP8, ssrc: int | None = None) -> TrackSpec:
    return TrackSpec("video", Kind.VIDEO, codec, 120, 90000, ssrc, mid)


def publish(rooms: Rooms, *tracks: TrackSpec, keyed: bool = True, now: float = 0.0):
    peer = Peer("RECEIVE", "theirs", EXTENSIONS, EXTENSIONS, nack=True)
    who = rooms.join_peer(
        "r", name="p", role=Role.ACTIVE, peer=peer, tracks=tracks or (sound(), picture()), now=now
    )
    if keyed:
        rooms.set_keys(who.id, KEYS)
    return who


def view(rooms: Rooms, follow: str = "", keyed: bool = True, now: float = 0.0):
    peer = Peer("SEND", "theirs", EXTENSIONS, EXTENSIONS, MIDS, follow)
    who = rooms.join_peer("r", name="v", role=Role.PASSIVE, peer=peer, places=PLACES, now=now)
    if keyed:
        rooms.set_keys(who.id, KEYS)
    return who


@pytest.fixture
def rooms() -> Rooms:
    made = make_rooms()
    made.create_room("r", now=0.0)
    return made


class World:
    """Rooms with a data plane that follows them."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms, self.told, self.plane = rooms, Told(), Plane()
        self.commands: list = []
        self.refused: list = []

    def settle(self) -> None:
        """Rounds until nothing was refused: the second attempt at the latest."""
        self.round()
        if self.refused:
            self.round()
        assert not self.refused

    def round(self) -> None:
        self.rooms.fill_slots()
        dirty = self.rooms.drain_dirty()
        self.commands = diff_dirty(self.told, self.rooms, dirty)
        self.refused = []
        for command in self.commands:
            try:
                self.plane.apply(command)
            except Broken as status:
                self.refused.append((command, str(status)))
            else:
                self.told.apply(command)
        want = plan(self.rooms)
        release_gone(self.told, self.rooms, dirty)
        assert {status for _, status in self.refused} <= {"in_use"}
        if not self.refused:
            assert want == self.plane.table


def test_nothing_is_in_the_table_before_the_keys(rooms: Rooms) -> None:
    world = World(rooms)
    source, seen = publish(rooms, keyed=False), view(rooms, keyed=False)
    world.round()
    assert not plan(rooms).legs
    rooms.set_keys(source.id, KEYS)
    world.round()
    assert set(world.plane.legs) == {source.leg}
    assert len(world.plane.sources) == 2
    assert not world.plane.routes
    rooms.set_keys(seen.id, KEYS)
    world.round()
    leg = world.plane.legs[seen.leg]
    assert (leg.suite, leg.rx_key, leg.tx_salt) == (table.Suite(1), b"r" * 16, b"t" * 14)
    assert leg.rx_ext == leg.tx_ext == EXTENSIONS
    assert (leg.nack, world.plane.legs[source.leg].nack) == (False, True)
    routes = {r.mid: r for r in world.plane.routes.values()}
    assert {mid: r.pt for mid, r in routes.items()} == {"0": 111, "1": 100}
    assert routes["1"].gated
    assert not routes["0"].gated


def test_sources_are_bound_by_ssrc_mid_or_payload_type(rooms: Rooms) -> None:
    who = publish(rooms, sound(ssrc=7), picture(mid=""))
    by_kind = {t.kind: plan(rooms).sources[t.source] for t in who.tracks.values()}
    assert (by_kind[Kind.AUDIO].ssrc, by_kind[Kind.AUDIO].mid) == (7, "")
    assert (by_kind[Kind.VIDEO].ssrc, by_kind[Kind.VIDEO].by_pt) == (None, True)
    other = publish(rooms, picture(mid="v1"))
    (track,) = other.tracks.values()
    source = plan(rooms).sources[track.source]
    assert (source.ssrc, source.mid, source.by_pt) == (None, "v1", False)


def test_a_slot_keeps_its_identity_over_publishers(rooms: Rooms) -> None:
    world = World(rooms)
    seen = view(rooms)
    world.round()
    assert [s.state for s in seen.slots] == [SlotState.WAITING] * 2
    identities = set()
    for _ in range(3):
        source = publish(rooms)
        world.round()
        assert [s.state for s in seen.slots] == [SlotState.PLAYING] * 2
        identities.add(
            frozenset(
                (r.id, r.out_ssrc, r.seq_start, r.ts_offset) for r in world.plane.routes.values()
            )
        )
        rooms.leave(source.id, "bye", 0.0)
        world.round()
        assert not world.plane.routes
    assert len(identities) == 1
    rooms.leave(seen.id, "bye", 0.0)
    world.round()
    assert rooms.state.routes.used == 0
    assert not rooms.state.routes.draining


def test_a_slot_has_the_next_publisher_in_the_round_in_which_the_old_one_goes(rooms: Rooms) -> None:
    """A worker refuses to remove a source that a gated route still reads, so the route of the
    picture comes back; that of the sound is switched."""
    world = World(rooms)
    seen, first, second = view(rooms), publish(rooms), publish(rooms)
    world.round()
    assert {s.subscription.track.publisher for s in seen.slots} == {first}
    rooms.leave(first.id, "bye", 0.0)
    world.round()
    assert {s.subscription.track.publisher for s in seen.slots} == {second}
    assert len(world.plane.routes) == 2
    picture_route = next(s.route for s in seen.slots if s.spec.kind is Kind.VIDEO)
    assert [c.route for c in world.commands if isinstance(c, RouteRemove)] == [picture_route]


def test_a_viewer_follows_the_first_with_tracks_or_the_one_it_asked_for(rooms: Rooms) -> None:
    world = World(rooms)
    publish(rooms, keyed=False)
    second, third = publish(rooms), publish(rooms)
    seen, pinned = view(rooms), view(rooms, follow=third.id)
    world.round()
    assert {s.subscription.track.publisher for s in seen.slots} == {second}
    assert {s.subscription.track.publisher for s in pinned.slots} == {third}
    rooms.leave(third.id, "bye", 0.0)
    world.round()
    world.round()
    assert [s.state for s in pinned.slots] == [SlotState.WAITING] * 2


def test_a_codec_that_the_viewer_cannot_decode_is_told(rooms: Rooms) -> None:
    seen = view(rooms)
    publish(rooms, sound(), picture(codec=Codec.AV1))
    rooms.drain_events()
    rooms.fill_slots()
    assert [s.state for s in seen.slots] == [SlotState.PLAYING, SlotState.CODEC_UNSUPPORTED]
    (refused,) = [e for e in rooms.drain_events() if isinstance(e, events.SubscriptionRefused)]
    assert (refused.participant_id, refused.code) == (seen.id, ErrorCode.CODEC_UNSUPPORTED)
    rooms.state.refill.add(seen.room_id)
    rooms.fill_slots()
    assert not rooms.drain_events()  # told once
    shown = rooms.show_room("r").slots
    assert [(s.mid, s.state.value) for s in shown] == [("0", "playing"), ("1", "codec_unsupported")]


def test_native_participants_and_browsers_share_a_room(rooms: Rooms) -> None:
    world = World(rooms)
    native = join(rooms)
    rooms.publish(native.id, [audio(1), video(2)])
    source, seen = publish(rooms), view(rooms)
    rooms.subscribe(native.id, [t.id for t in source.tracks.values()])
    world.round()
    assert len(world.plane.routes) == 4
    assert {s.subscription.track.publisher for s in seen.slots} == {native}


def test_a_join_that_is_refused_changes_nothing(rooms: Rooms) -> None:
    native = join(rooms)
    rooms.publish(native.id, [audio(7)])
    rooms.drain_events()
    rooms.drain_dirty()
    with pytest.raises(Refused) as refused:
        publish(rooms, sound(ssrc=7))
    assert refused.value.code is ErrorCode.SSRC_IN_USE
    with pytest.raises(Refused) as refused:
        rooms.join_peer(
            "r",
            name="p",
            role=Role.PASSIVE,
            peer=Peer("RECEIVE", "u", EXTENSIONS, EXTENSIONS),
            tracks=[sound()],
            now=0.0,
        )
    assert refused.value.code is ErrorCode.FORBIDDEN
    assert [p.id for p in rooms.participants()] == [native.id]
    assert not rooms.drain_events()
    assert rooms.state.legs.used == 1


def test_ice_restarts_and_returns(rooms: Rooms) -> None:
    who = publish(rooms)
    old = (who.ufrag, who.password)
    rooms.restart_ice(who.id, replace(who.peer, ufrag="another"))
    assert (who.ufrag, who.password) != old
    assert rooms.participant_by_ufrag(old[0]) is None
    assert rooms.participant_by_ufrag(who.ufrag) is who
    rooms.session_lost(who.id, 1.0)
    rooms.returned(who.id)
    assert who.state is ParticipantState.JOINED
    rooms.tick(1000.0)
    assert rooms.has_room("r")
    assert list(rooms.participants()) == [who]


def test_a_restart_of_the_supervisor_keeps_calls_and_drops_handshakes(rooms: Rooms) -> None:
    source, seen = publish(rooms), view(rooms)
    idle = view(rooms, follow="nobody")
    half = publish(rooms, keyed=False)
    rooms.set_tuples(seen.id, [tuple5(5)], 0)
    rooms.fill_slots()
    again, faults = restore(snapshot(rooms), rooms.state.limits, SeededSecrets(3), 10.0)
    assert [f for f in faults if half.id in f]
    rooms.leave(half.id, "", 0.0)
    assert plan(again) == plan(rooms)
    restored = again.participant(seen.id)
    assert restored.peer == seen.peer
    assert [(s.spec, s.route, s.out_ssrc) for s in restored.slots] == [
        (s.spec, s.route, s.out_ssrc) for s in seen.slots
    ]
    world = World(again)
    have = plan(again)
    world.told = Told.of(have)
    world.plane = Plane(dict(have.legs), dict(have.sources), dict(have.routes))
    again.leave(source.id, "bye", 10.0)
    fresh = publish(again, now=10.0)
    world.round()
    world.round()
    # The slots of the restored viewer take what is new; the other one waits for somebody else.
    assert {r.id for r in world.plane.routes.values()} == {s.route for s in seen.slots}
    assert {r.source for r in world.plane.routes.values()} == {
        t.source for t in fresh.tracks.values()
    }
    assert idle.id in {p.id for p in again.participants()}


@pytest.mark.parametrize("seed", range(25))
def test_random_calls_never_break_the_data_plane(seed: int) -> None:
    rng = random.Random(seed)
    rooms = make_rooms(seed, workers=2, legs_max=8, routes_max=12, sources_max=8)
    rooms.create_room("r", now=0.0)
    world = World(rooms)
    sources: dict[int, tuple] = {}
    for step in range(120):
        people = list(rooms.participants())
        try:
            match rng.randrange(8):
                case 0:
                    codec = rng.choice([Codec.VP8, Codec.H264, Codec.AV1])
                    publish(rooms, sound(), picture(codec=codec), keyed=rng.random() < 0.5)
                case 1:
                    view(rooms, keyed=rng.random() < 0.5)
                case 2:
                    rooms.publish(join(rooms).id, [audio(step + 1)])
                case 3 | 4 if people:
                    rooms.leave(rng.choice(people).id, "bye", 0.0)
                case 5 if people:
                    who = rng.choice(people)
                    if not who.keyed:
                        rooms.set_keys(who.id, KEYS)
                case 6 if people:
                    who = rng.choice(people)
                    rooms.unpublish(who.id, [t for t in who.tracks if rng.random() < 0.5])
        except Refused:
            pass
        if rng.random() < 0.5:
            world.round()
            for command in world.commands:
                if isinstance(command, SourceSet):
                    sources[command.source.id] = (command.source.mid, command.source.ssrc)
    assert sources
