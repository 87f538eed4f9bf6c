"""Slots of a session: seats, pages, growth, sound without a picture; never a new offer."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from rooms_kit import SeededSecrets, audio, join, make_rooms, simulcast, video
from test_rooms_browsers import KEYS, World

from forwarder.commands import RouteRemove, RouteSet
from forwarder.errors import ErrorCode, Refused
from forwarder.rooms import events
from forwarder.rooms.admission import PAIRS_MAX, SOUNDS_MAX
from forwarder.rooms.core import Rooms
from forwarder.rooms.roles import Role
from forwarder.rooms.room import SOUND_ONLY, Participant, Peer, SlotSpec, SlotState, TrackSpec
from forwarder.rooms.snapshot import restore, snapshot
from forwarder.rooms.speakers import PAUSE_S
from forwarder.rtp.codecs import Codec, Kind

OPUS = ((Codec.OPUS, 111),)
VIDEO = ((Codec.VP8, 96), (Codec.H264, 98))
RTX = ((Codec.VP8, 97), (Codec.H264, 99))


def pair(number: int) -> list[SlotSpec]:
    return [
        SlotSpec(Kind.AUDIO, f"a{number}", OPUS, (), number),
        SlotSpec(Kind.VIDEO, f"v{number}", VIDEO, RTX, number),
    ]


def places(pairs: int, sounds: int = 0) -> list[SlotSpec]:
    found = [spec for number in range(pairs) for spec in pair(number)]
    return found + [SlotSpec(Kind.AUDIO, f"s{i}", OPUS, (), SOUND_ONLY) for i in range(sounds)]


@pytest.fixture
def rooms() -> Rooms:
    made = make_rooms()
    made.create_room("r", now=0.0)
    return made


def session(
    rooms: Rooms, pairs: int = 3, sounds: int = 0, tracks: tuple[TrackSpec, ...] = (), **extra
) -> Participant:
    who = rooms.join_peer(
        "r",
        name="s",
        role=Role.ACTIVE,
        peer=Peer("BOTH", "theirs", **extra),
        tracks=tracks,
        places=places(pairs, sounds),
        now=rooms.state.now,
    )
    rooms.set_keys(who.id, KEYS)
    return who


def whep(rooms: Rooms, where: list[SlotSpec], follow: str = "") -> Participant:
    """A viewer by WHEP, of whoever speaks or of one participant."""
    who = rooms.join_peer(
        "r",
        name="v",
        role=Role.PASSIVE,
        peer=Peer("SEND", "u", follow=follow),
        places=where,
        now=0.0,
    )
    rooms.set_keys(who.id, KEYS)
    return who


def talker(rooms: Rooms, number: int, *, sound_only: bool = False) -> Participant:
    who = join(rooms)
    rooms.publish(who.id, [audio(2 * number)] if sound_only else tracks_of(number))
    return who


def tracks_of(number: int) -> list[TrackSpec]:
    return [audio(2 * number), video(2 * number + 1)]


def shown(viewer: Participant) -> dict[str, str | None]:
    """By mid: whose track is there."""
    return {
        s.spec.mid: s.subscription.track.publisher.id if s.subscription else None
        for s in viewer.slots
    }


def pictures(viewer: Participant) -> list[str | None]:
    return [who for mid, who in shown(viewer).items() if mid.startswith("v")]


def voices(viewer: Participant) -> set[str | None]:
    return {who for mid, who in shown(viewer).items() if mid.startswith("s")}


def speak(rooms: Rooms, loud: dict[str, int], start: float, seconds: float) -> None:
    """Levels of participants' first sound, each 100 ms; the node fills slots as it goes."""
    for step in range(1, round(seconds * 10) + 1):
        now = start + step / 10
        levels = [
            (t.source, loud.get(t.publisher.id, 127), now)
            for t in rooms.state.tracks.values()
            if t.kind is Kind.AUDIO
        ]
        rooms.on_levels(levels, now)
        rooms.fill_slots(now)


def test_publishers_come_in_their_order_and_keep_their_places(rooms: Rooms) -> None:
    world = World(rooms)
    me = session(rooms, pairs=3, tracks=(simulcast("l", "h"),))
    a, b, c, d = (talker(rooms, n) for n in range(1, 5))
    world.settle()
    assert pictures(me) == [a.id, b.id, c.id]
    rooms.leave(b.id, "bye", 0.0)
    world.settle()
    assert pictures(me) == [a.id, d.id, c.id]
    rooms.leave(a.id, "bye", 0.0)
    world.settle()
    assert pictures(me) == [None, d.id, c.id]
    late = talker(rooms, 9)
    world.settle()
    assert pictures(me) == [late.id, d.id, c.id]
    assert me.id not in shown(me).values()


def test_a_page_is_a_switch_of_routes_and_nothing_else(rooms: Rooms) -> None:
    world = World(rooms)
    me = session(rooms, pairs=2)
    people = [talker(rooms, n) for n in range(1, 6)]
    world.settle()
    identities = {r.id: (r.out_ssrc, r.seq_start, r.rtx_ssrc) for r in world.plane.routes.values()}
    assert len(identities) == 4
    for page in ([people[3], people[2]], [people[2], people[3]], [people[4], people[0]]):
        rooms.set_view(me.id, [p.id for p in page])
        world.round()
        assert pictures(me) == [p.id for p in page]
        assert all(isinstance(c, RouteSet) for c in world.commands), world.commands
        assert identities == {
            r.id: (r.out_ssrc, r.seq_start, r.rtx_ssrc) for r in world.plane.routes.values()
        }
    rooms.set_view(me.id, ["nobody", people[1].id])
    world.round()
    assert pictures(me) == [None, people[1].id]
    rooms.set_view(me.id, None)
    world.round()
    assert set(pictures(me)) == {people[1].id, people[0].id}


def test_a_view_is_checked(rooms: Rooms) -> None:
    me = session(rooms)
    for names, code in (
        ([str(i) for i in range(PAIRS_MAX + 1)], ErrorCode.LIMIT),
        (["a", "a"], ErrorCode.BAD_MESSAGE),
    ):
        with pytest.raises(Refused) as refused:
            rooms.set_view(me.id, names)
        assert refused.value.code is code
    assert me.page is None


def test_a_second_pair_of_tracks_comes_after_everybodys_first(rooms: Rooms) -> None:
    world = World(rooms)
    me = session(rooms, pairs=3)
    a = talker(rooms, 1)
    rooms.publish(a.id, [video(50, "screen")])
    b = talker(rooms, 2)
    world.settle()
    assert pictures(me) == [a.id, b.id, a.id]
    assert shown(me)["a2"] is None
    rooms.set_view(me.id, [a.id])
    world.round()
    assert pictures(me) == [a.id, a.id, None]


def test_a_switched_source_that_goes_is_let_go_of(rooms: Rooms) -> None:
    """The model of the data plane holds what a route read before until the route is removed: the
    worst case of a switch that waits for a key frame."""
    world = World(rooms)
    me = session(rooms, pairs=1)
    a, b = talker(rooms, 1), talker(rooms, 2)
    world.settle()
    rooms.set_view(me.id, [b.id])
    world.round()
    rooms.leave(a.id, "bye", 0.0)
    world.round()
    assert [type(c).__name__ for c, _ in world.refused] == ["SourceRemove", "LegRemove"]
    assert rooms.state.legs.draining == {a.leg}
    world.round()
    assert world.refused == []
    again = [type(c) for c in world.commands if isinstance(c, RouteRemove | RouteSet)]
    assert again == [RouteRemove, RouteSet]
    assert pictures(me) == [b.id]
    assert not rooms.state.legs.draining
    assert not rooms.state.sources.draining
    world.round()
    assert world.commands == []


def test_slots_are_announced_as_they_change(rooms: Rooms) -> None:
    me = session(rooms, pairs=1)
    rooms.drain_events()
    a = talker(rooms, 1)
    rooms.fill_slots()
    told = [e for e in rooms.drain_events() if isinstance(e, events.SlotChanged)]
    assert [(e.mid, e.pair, e.state, e.publisher_id) for e in told] == [
        ("a0", 0, SlotState.PLAYING, a.id),
        ("v0", 0, SlotState.PLAYING, a.id),
    ]
    assert list(rooms.recipients(told[0])) == [me.id]
    rooms.fill_slots()
    rooms.state.refill.add("r")
    rooms.fill_slots()
    assert rooms.drain_events() == []
    rooms.leave(a.id, "bye", 0.0)
    rooms.fill_slots()
    told = [e for e in rooms.drain_events() if isinstance(e, events.SlotChanged)]
    assert [(e.mid, e.state, e.track_id) for e in told] == [
        ("a0", SlotState.WAITING, None),
        ("v0", SlotState.WAITING, None),
    ]


def test_a_slot_that_cannot_be_decoded_says_so(rooms: Rooms) -> None:
    world = World(rooms)
    me = session(rooms, pairs=1)
    other = session(rooms, tracks=(TrackSpec("v", Kind.VIDEO, Codec.AV1, 45, 90000, None, "0"),))
    world.settle()
    picture = next(s for s in me.slots if s.spec.kind is Kind.VIDEO)
    assert picture.state is SlotState.CODEC_UNSUPPORTED
    told = [e for e in rooms.drain_events() if isinstance(e, events.SlotChanged)]
    assert [(e.state, e.publisher_id) for e in told if e.mid == "v0"] == [
        (SlotState.CODEC_UNSUPPORTED, other.id)
    ]
    rooms.leave(other.id, "bye", 0.0)
    world.settle()
    assert picture.state is SlotState.WAITING


# ---- growth --------------------------------------------------------------------------------------


def asked(rooms: Rooms) -> list[int]:
    return [e.pairs for e in rooms.drain_events() if isinstance(e, events.NeedsSlots)]


def test_growth_is_asked_for_ahead_of_need_and_once(rooms: Rooms) -> None:
    me = session(rooms, pairs=4)
    found = []
    for number in range(1, 8):
        talker(rooms, number)
        rooms.fill_slots()
        found.append(asked(rooms))
    assert found[:3] == [[], [], [7]]
    assert found[3:6] == [[8], [9], [10]]
    new = rooms.grow(me.id, [spec for n in range(4, 11) for spec in pair(n)])
    rooms.fill_slots()
    assert len(new) == 14
    assert len([who for who in pictures(me) if who]) == 7
    assert asked(rooms) == []


def test_who_was_not_heard_is_asked_again(rooms: Rooms) -> None:
    talker(rooms, 1)
    me = session(rooms, pairs=1)
    rooms.fill_slots()
    assert asked(rooms) == [5]
    rooms.ask_again(me.id)
    rooms.fill_slots()
    assert asked(rooms) == [5]
    rooms.fill_slots()
    assert asked(rooms) == []


def test_a_page_asks_for_what_it_names_and_no_more(rooms: Rooms) -> None:
    me = session(rooms, pairs=2)
    people = [talker(rooms, n) for n in range(1, 5)]
    rooms.set_view(me.id, [p.id for p in people[:2]])
    rooms.fill_slots()
    assert asked(rooms) == []
    rooms.set_view(me.id, [p.id for p in people])
    rooms.fill_slots()
    assert asked(rooms) == [4]
    rooms.grow(me.id, pair(2) + pair(3))
    rooms.fill_slots()
    assert pictures(me) == [p.id for p in people]
    assert asked(rooms) == []


def test_growth_ends_at_the_limit_and_at_the_size_of_the_room(rooms: Rooms) -> None:
    rooms.create_room("small", max_active=3, now=0.0)
    me = rooms.join_peer(
        "small", name="s", role=Role.ACTIVE, peer=Peer("BOTH", "u"), places=places(2), now=0.0
    )
    rooms.set_keys(me.id, KEYS)
    for number in (1, 2):
        rooms.publish(join(rooms, "small").id, tracks_of(number))
        rooms.fill_slots()
    assert asked(rooms) == []
    big = session(rooms, pairs=PAIRS_MAX, sounds=SOUNDS_MAX)
    for spec in (pair(PAIRS_MAX), [SlotSpec(Kind.AUDIO, "x", OPUS, (), SOUND_ONLY)]):
        with pytest.raises(Refused) as refused:
            rooms.grow(big.id, spec)
        assert refused.value.code is ErrorCode.LIMIT
    for spec in (
        [SlotSpec(Kind.VIDEO, "new", VIDEO, (), 0)],
        [SlotSpec(Kind.VIDEO, "new", VIDEO, (), SOUND_ONLY)],
        [SlotSpec(Kind.AUDIO, "a0", OPUS, (), 77)],
    ):
        with pytest.raises(Refused):
            rooms.grow(big.id, spec)
    assert len(big.slots) == 2 * PAIRS_MAX + SOUNDS_MAX


# ---- sound ---------------------------------------------------------------------------------------


def test_the_three_loudest_without_a_seat_are_heard(rooms: Rooms) -> None:
    world = World(rooms)
    me = session(rooms, pairs=1, sounds=3)
    people = [talker(rooms, n, sound_only=n > 1) for n in range(1, 9)]
    world.settle()
    assert pictures(me) == [people[0].id]
    assert voices(me) == {p.id for p in people[1:4]}  # nobody spoke yet
    loud = {people[0].id: 20, people[5].id: 25, people[6].id: 25, people[7].id: 25}
    speak(rooms, loud, 0.0, 3.0)
    world.settle()
    assert voices(me) == {p.id for p in people[5:8]}
    assert pictures(me) == [people[0].id]
    before = dict(shown(me))
    speak(rooms, {people[2].id: 15, **loud}, 3.0, 0.4)
    assert sum(before[mid] != who for mid, who in shown(me).items()) <= 1
    speak(rooms, {people[2].id: 15, **loud}, 3.4, 3.0)
    world.settle()
    assert people[2].id in voices(me)
    heard = list(voices(me))
    assert len(set(heard)) == 3 and None not in heard


def test_a_sound_slot_changes_at_most_once_a_second(rooms: Rooms) -> None:
    me = session(rooms, pairs=0, sounds=1)
    people = [talker(rooms, n, sound_only=True) for n in range(1, 4)]
    rooms.fill_slots(0.0)
    changes: list[float] = []
    have = shown(me)["s0"]
    rng = random.Random(4)
    for step in range(300):
        loud = {rng.choice(people).id: 10}
        speak(rooms, loud, step / 10, 0.1)
        if shown(me)["s0"] != have:
            have = shown(me)["s0"]
            changes.append((step + 1) / 10)
    assert changes
    assert all(b - a >= 1.0 - 1e-9 for a, b in pairwise(changes))


def test_nobody_is_heard_twice(rooms: Rooms) -> None:
    world = World(rooms)
    me = session(rooms, pairs=1, sounds=2)
    a, b = talker(rooms, 1), talker(rooms, 2)
    world.settle()
    assert shown(me) == {"a0": a.id, "v0": a.id, "s0": b.id, "s1": None}
    rooms.set_view(me.id, [b.id])
    world.round()
    assert shown(me) == {"a0": b.id, "v0": b.id, "s0": a.id, "s1": None}


def test_a_whep_viewer_follows_who_speaks(rooms: Rooms) -> None:
    world = World(rooms)
    a, b = talker(rooms, 1), talker(rooms, 2)
    viewers = {follow: whep(rooms, places(1), follow) for follow in ("", a.id)}
    world.settle()
    assert set(shown(viewers[""]).values()) == {a.id}
    rooms.drain_events()
    speak(rooms, {b.id: 20}, 0.0, 1.0)
    told = [e for e in rooms.drain_events() if isinstance(e, events.SpeakerChanged)]
    assert [e.participant_id for e in told] == [b.id]
    assert set(rooms.recipients(told[0])) == {p.id for p in rooms.participants()}
    world.round()
    assert not [c for c in world.commands if isinstance(c, RouteRemove)]
    assert set(shown(viewers[""]).values()) == {b.id}
    assert set(shown(viewers[a.id]).values()) == {a.id}
    speak(rooms, {}, 1.0, PAUSE_S + 3)
    assert set(shown(viewers[""]).values()) == {b.id}  # silence moves nobody
    rooms.leave(b.id, "bye", 9.0)
    told = [e for e in rooms.drain_events() if isinstance(e, events.SpeakerChanged)]
    assert [e.participant_id for e in told] == [None]
    world.settle()
    assert set(shown(viewers[""]).values()) == {a.id}


def test_the_last_picture_stays_while_a_voice_without_one_speaks(rooms: Rooms) -> None:
    world = World(rooms)
    a, b = talker(rooms, 1), talker(rooms, 2, sound_only=True)
    viewer = whep(rooms, places(1))
    speak(rooms, {b.id: 20}, 0.0, 1.0)
    world.settle()
    assert shown(viewer) == {"a0": b.id, "v0": a.id}
    rooms.leave(a.id, "bye", 2.0)
    world.settle()
    assert shown(viewer) == {"a0": b.id, "v0": None}


def test_a_viewer_of_sound_alone_follows_too(rooms: Rooms) -> None:
    world = World(rooms)
    a, b = talker(rooms, 1), talker(rooms, 2)
    heard = [whep(rooms, places(0, 1), follow) for follow in ("", b.id)]
    world.settle()
    assert [shown(v)["s0"] for v in heard] == [a.id, b.id]


def test_one_voice_that_waits_is_not_forgotten_for_another_viewer(rooms: Rooms) -> None:
    """Two viewers, one of which must wait for its turn while the other one is served."""
    first = session(rooms, pairs=0, sounds=1)
    people = [talker(rooms, n, sound_only=True) for n in range(1, 4)]
    rooms.fill_slots(5.0)
    speak(rooms, {people[1].id: 10}, 5.0, 0.5)
    assert shown(first)["s0"] == people[0].id  # changed less than a second ago
    second = session(rooms, pairs=0, sounds=1)
    rooms.fill_slots(5.6)
    assert shown(second)["s0"] == people[1].id
    rooms.fill_slots(6.1)
    assert shown(first)["s0"] == people[1].id


# ---- restart -------------------------------------------------------------------------------------


def test_seats_and_pages_survive_a_restart(rooms: Rooms) -> None:
    world = World(rooms)
    me, paged = session(rooms, pairs=2, sounds=1), session(rooms, pairs=2)
    a, b, c = (talker(rooms, n) for n in range(1, 4))
    rooms.set_view(paged.id, [c.id, b.id])
    world.settle()
    rooms.leave(a.id, "bye", 0.0)
    world.settle()
    again, faults = restore(snapshot(rooms), rooms.state.limits, SeededSecrets(3), 10.0)
    assert faults == []
    assert snapshot(again) == snapshot(rooms)
    again.state.refill.update(again.state.rooms)
    again.fill_slots(10.0)
    for who in (me, paged):
        assert shown(again.participant(who.id)) == shown(who)
    assert again.participant(paged.id).page == (c.id, b.id)


@pytest.mark.parametrize("seed", range(20))
def test_random_views_never_break_the_data_plane(seed: int) -> None:
    rng = random.Random(seed)
    rooms = make_rooms(seed, workers=2)
    rooms.create_room("r", max_active=12, now=0.0)
    world, now = World(rooms), 0.0
    for step in range(150):
        now += rng.random() * 0.5
        people = list(rooms.participants())
        sessions = [p for p in people if p.peer is not None]
        try:
            match rng.randrange(9):
                case 0:
                    own = (simulcast("l", "h"),) if rng.random() < 0.5 else ()
                    session(rooms, rng.randrange(4), rng.randrange(3), own)
                case 1 | 2:
                    talker(rooms, 10 + step, sound_only=rng.random() < 0.5)
                case 3 if people:
                    rooms.leave(rng.choice(people).id, "bye", now)
                case 4 if sessions:
                    page = rng.sample([p.id for p in people], min(len(people), 3))
                    rooms.set_view(rng.choice(sessions).id, rng.choice([None, page]), now)
                case 5 if sessions:
                    who = rng.choice(sessions)
                    free = len({s.spec.pair for s in who.slots} - {SOUND_ONLY})
                    rooms.grow(who.id, pair(free))
                case 6:
                    loud = {rng.choice(people).id: 20} if people else {}
                    speak(rooms, loud, now, 0.3)
                    now += 0.3
                case 7 if sessions:
                    who = rng.choice(sessions)
                    rooms.on_estimate(who.leg, rng.choice([100_000, 600_000, 5_000_000]), now)
                case 8:
                    rates = [(s, rng.choice([0, 150_000, 900_000])) for s in rooms.state.by_source]
                    rooms.on_bitrates(rates, now)
                    rooms.tick(now)
        except Refused:
            pass
        if rng.random() < 0.6:
            world.settle()
            for who in rooms.participants():
                tracks = [s.subscription.track for s in who.slots if s.subscription]
                assert len(tracks) == len(set(map(id, tracks)))
                assert all(t.publisher is not who for t in tracks)
            again, faults = restore(snapshot(rooms), rooms.state.limits, SeededSecrets(3), now)
            assert faults == []
            assert snapshot(again) == snapshot(rooms)
