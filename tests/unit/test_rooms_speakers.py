"""Who speaks: hysteresis, pauses, order of the loud ones."""

from __future__ import annotations

import itertools
import random

import pytest
from rooms_kit import audio, join, make_rooms, video

from forwarder.ids import TrackId
from forwarder.rooms import events
from forwarder.rooms.speakers import FLOOR, HOLD_S, LOUDEST_MAX, PAUSE_S, STALE_S, Voices

A, B, C = TrackId("a"), TrackId("b"), TrackId("c")
SPEECH, WHISPER, SILENT = 20, 45, 127


class Talk:
    """Levels each 100 ms, and who was dominant when."""

    def __init__(self) -> None:
        self.voices, self.now = Voices(), 0.0
        self.dominant: list[TrackId | None] = []

    def say(self, seconds: float, **levels: int) -> None:
        for _ in range(round(seconds * 10)):
            self.now = round(self.now + 0.1, 6)
            for name, level in levels.items():
                self.voices.hear(TrackId(name), level, self.now)
            self.voices.judge(self.now)
            self.dominant.append(self.voices.dominant)

    @property
    def changes(self) -> int:
        return sum(a != b for a, b in zip(self.dominant, self.dominant[1:], strict=False))


def test_the_first_to_speak_is_dominant_at_once() -> None:
    talk = Talk()
    talk.say(0.3, a=SPEECH, b=SILENT)
    assert talk.voices.dominant == A
    assert talk.voices.loudest == (A,)


def test_silence_and_noise_are_nobody() -> None:
    talk = Talk()
    talk.say(3, a=SILENT, b=FLOOR, c=FLOOR - 5)
    assert talk.voices.dominant is None
    assert talk.voices.loudest == ()


def test_a_cough_moves_nobody() -> None:
    talk = Talk()
    talk.say(5, a=SPEECH, b=SILENT)
    talk.say(0.2, a=SPEECH, b=5)
    talk.say(5, a=SPEECH, b=SILENT)
    assert set(talk.dominant[2:]) == {A}


def test_a_pause_between_words_moves_nobody() -> None:
    talk = Talk()
    for _ in range(10):
        talk.say(1.0, a=SPEECH, b=WHISPER)
        talk.say(0.4, a=SILENT, b=WHISPER)
    assert set(talk.dominant[2:]) == {A}


def test_who_takes_over_is_dominant_soon() -> None:
    talk = Talk()
    talk.say(4, a=SPEECH, b=SILENT)
    talk.say(2, a=SILENT, b=SPEECH)
    assert talk.voices.dominant == B
    assert talk.voices.loudest[0] == B
    assert talk.changes <= 2


def test_two_who_are_equally_loud_do_not_alternate() -> None:
    rng, talk = random.Random(3), Talk()
    for _ in range(200):
        talk.say(0.1, a=SPEECH + rng.randrange(-4, 5), b=SPEECH + rng.randrange(-4, 5))
    assert len(set(talk.dominant[5:])) == 1


def test_changes_keep_their_distance() -> None:
    talk = Talk()
    for turn in range(60):
        loud = "abc"[turn % 3]
        talk.say(0.5, **{name: SPEECH if name == loud else SILENT for name in "abc"})
    at = [i / 10 for i in range(1, len(talk.dominant)) if talk.dominant[i] != talk.dominant[i - 1]]
    assert all(b - a >= HOLD_S - 1e-9 for a, b in itertools.pairwise(at))


def test_one_who_is_muted_falls_silent() -> None:
    talk = Talk()
    talk.say(3, a=SPEECH, b=WHISPER)
    talk.say(STALE_S + PAUSE_S + 1, b=WHISPER)
    assert A not in talk.voices.loudest
    assert talk.voices.dominant == B


def test_one_who_left_is_forgotten() -> None:
    talk = Talk()
    talk.say(1, a=SPEECH, b=30)
    assert talk.voices.forget(A)
    assert (talk.voices.dominant, talk.voices.loudest) == (None, (B,))
    talk.say(0.2, b=30)
    assert talk.voices.dominant == B
    assert not talk.voices.forget(C)


def test_the_order_is_bounded_and_stable() -> None:
    rng, talk = random.Random(1), Talk()
    names = [f"t{i:03}" for i in range(LOUDEST_MAX + 20)]
    talk.say(1, **{name: 10 + i % 5 for i, name in enumerate(names)})
    first = talk.voices.loudest
    assert len(first) == LOUDEST_MAX
    for _ in range(30):
        talk.say(0.1, **{name: 12 + rng.randrange(-2, 3) for name in names})
    assert talk.voices.loudest == first


def test_windows_that_go_back_are_ignored() -> None:
    voices = Voices()
    voices.hear(A, SPEECH, 1.0)
    voices.hear(A, SPEECH, 1.2)
    for _ in range(50):
        voices.hear(A, SILENT, 1.1)
    assert not voices.forget(B)
    voices.judge(1.2)
    assert voices.dominant == A


# ---- in rooms ------------------------------------------------------------------------------------


@pytest.fixture
def rooms():
    rooms = make_rooms()
    for name in "rs":
        rooms.create_room(name, now=0.0)
    return rooms


def test_only_rooms_that_were_loud_keep_anything(rooms) -> None:
    a = join(rooms, "r")
    b = join(rooms, "s")
    sounds = {who.id: rooms.publish(who.id, [audio(1), video(2)]) for who in (a, b)}
    for step in range(1, 10):
        levels = [
            (sounds[a.id][0].source, SPEECH, step / 10),
            (sounds[a.id][1].source, SPEECH, step / 10),  # a picture has no level
            (sounds[b.id][0].source, SILENT, step / 10),
        ]
        rooms.on_levels(levels, step / 10)
    assert rooms.state.rooms["r"].speaker == a.id
    assert rooms.state.rooms["s"].voices is None
    told = [e for e in rooms.drain_events() if isinstance(e, events.SpeakerChanged)]
    assert told == [events.SpeakerChanged("r", a.id)]
    rooms.mute(a.id, sounds[a.id][0].id, True)
    rooms.on_levels([(sounds[a.id][0].source, 0, 2.0)], 2.0)
    rooms.leave(a.id, "bye", 3.0)
    told = [e for e in rooms.drain_events() if isinstance(e, events.SpeakerChanged)]
    assert told == [events.SpeakerChanged("r", None)]
