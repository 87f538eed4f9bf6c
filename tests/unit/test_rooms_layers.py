"""The choice of layers against a model of a narrow link and of a browser's estimate (REMB)."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field, replace

import pytest
from rooms_kit import audio, join, make_rooms, simulcast, video
from test_rooms_browsers import KEYS

from forwarder.errors import Refused
from forwarder.rooms.choosing import wanted_layer
from forwarder.rooms.layers import (
    PACE_FREE_MIN_BPS,
    PACE_MIN_BPS,
    PAUSED,
    SETTLE_S,
    TRIAL_EVERY_MAX_S,
    TRIAL_EVERY_S,
    Ladder,
    Stream,
)
from forwarder.rooms.plan import plan
from forwarder.rooms.roles import Role
from forwarder.rooms.room import Participant, Peer, SlotSpec
from forwarder.rtp.codecs import Codec, Kind

AUDIO = 40_000
LOW, HIGH = 150_000, 1_500_000
STEP_S = 0.1
QUEUE_BITS = 70_000
"""Of the narrow link: 100 ms at 700 kb/s."""


@dataclass
class Link:
    """A link of `capacity` with a queue; its receiver reports each second: loss, and an estimate
    as in draft-ietf-rmcat-gcc-02 section 5.5: 8 % a second up, never above 1.5 times what comes;
    0.85 of it when the queue grows."""

    capacity: float
    queue: float = 0.0
    estimate: float = 0.0
    sent: float = 0.0
    lost: float = 0.0
    received: float = 0.0
    seconds: int = 0
    overused: bool = False

    def pass_on(self, bps: float) -> None:
        bits = bps * STEP_S
        before = self.queue
        room = self.capacity * STEP_S + QUEUE_BITS - self.queue
        taken = min(bits, room)
        self.queue = max(0.0, self.queue + taken - self.capacity * STEP_S)
        self.overused = self.overused or self.queue > before + 1000
        self.sent += bits
        self.lost += bits - taken
        self.received += min(before + taken, self.capacity * STEP_S)

    def report(self) -> tuple[float, float | None]:
        """(loss, estimate) of the last second; no estimate in the first five without a jam."""
        loss = self.lost / self.sent if self.sent else 0.0
        through = self.received
        self.seconds += 1
        if self.overused:
            self.estimate = min(0.85 * through, self.estimate or through)
        elif self.estimate:
            self.estimate = max(self.estimate, min(1.08 * self.estimate, 1.5 * through + 10_000))
        elif self.seconds >= 5:
            self.estimate = through
        self.sent = self.lost = self.received = 0.0
        self.overused = False
        return loss, self.estimate or None


@dataclass
class Run:
    """A leg with its streams behind a link, second by second."""

    link: Link
    streams: list[Stream]
    ladder: Ladder = field(default_factory=lambda: Ladder(0.0))
    now: float = 0.0
    history: list[list[int]] = field(default_factory=list)

    def choose(self) -> None:
        chosen = self.ladder.choose(self.streams, AUDIO, self.now)
        self.streams = [replace(s, at=at) for s, at in zip(self.streams, chosen, strict=True)]

    def seconds(self, count: int) -> list[list[int]]:
        """The layers at the end of each."""
        begin = len(self.history)
        for _ in range(count):
            for _ in range(round(1 / STEP_S)):
                self.now = round(self.now + STEP_S, 6)
                self.link.pass_on(AUDIO + sum(s.cost(s.at) for s in self.streams))
                deadline = self.ladder.deadline()
                if deadline is not None and deadline <= self.now:
                    self.choose()
            loss, estimate = self.link.report()
            self.ladder.on_loss(loss, self.now)
            if estimate is not None:
                self.ladder.on_estimate(round(estimate), self.now)
            self.choose()
            self.history.append([s.at for s in self.streams])
        return self.history[begin:]


def camera(*rates: int, at: int | None = None) -> Stream:
    top = len(rates) - 1
    return Stream(rates, top, top if at is None else at)


def steps_down(history: list[list[int]]) -> int:
    return sum(a > b for (a, *_), (b, *_) in itertools.pairwise(history))


def test_the_weak_link_of_the_story() -> None:
    """700 kb/s, the top layer is 1.5 Mb/s: low soon, and at most one attempt in any 30 s."""
    run = Run(Link(700_000), [camera(LOW, HIGH)])
    first = run.seconds(5)
    assert first[-1] == [0]
    assert steps_down([[1], *first]) == 1
    later = run.seconds(300)
    ups = [i for i, (a, b) in enumerate(itertools.pairwise(later)) if b > a]
    assert ups, "it never tried again"
    for start in range(len(later) - 30):
        assert steps_down(later[start : start + 31]) <= 1
    gaps = [b - a for a, b in itertools.pairwise(ups)]
    assert gaps == sorted(gaps)
    assert gaps[-1] >= 2 * gaps[0]
    high = sum(at == 1 for (at,) in later)
    assert high <= 0.05 * len(later)


def test_others_keep_the_top_layer() -> None:
    run = Run(Link(20_000_000), [camera(LOW, HIGH)])
    assert set(map(tuple, run.seconds(120))) == {(1,)}
    assert not run.ladder.limited


def test_random_loss_of_five_percent_moves_nobody() -> None:
    rng = random.Random(5)
    ladder, stream = Ladder(0.0), camera(LOW, HIGH)
    for second in range(1, 600):
        packets = 40
        lost = sum(rng.random() < 0.05 for _ in range(packets))
        ladder.on_loss(lost / packets, float(second))
        ladder.on_estimate(1_600_000, float(second))
        assert ladder.choose([stream], AUDIO, float(second)) == [1]


def test_a_link_that_recovers_gets_the_top_layer_back() -> None:
    run = Run(Link(700_000), [camera(LOW, HIGH)])
    run.seconds(8)
    assert run.streams[0].at == 0
    run.link.capacity = 8_000_000
    waited = run.seconds(60)
    assert waited[-1] == [1]
    first = next(i for i, at in enumerate(waited) if at == [1])
    assert all(at == [1] for at in waited[first:])
    assert first <= 3 * TRIAL_EVERY_S
    run.seconds(30)
    assert not run.ladder.limited


def test_a_middle_layer_that_fits_is_found() -> None:
    run = Run(Link(1_000_000), [camera(LOW, 500_000, HIGH)])
    history = run.seconds(120)
    assert history[5] in ([0], [1])
    assert sum(at == [1] for at in history[20:]) > 0.8 * len(history[20:])


def test_many_videos_lose_the_last_ones_first() -> None:
    run = Run(Link(1_200_000), [camera(LOW, HIGH) for _ in range(4)])
    run.seconds(20)
    assert [s.at for s in run.streams] == [0, 0, 0, 0]
    narrow = Run(Link(350_000), [camera(LOW, HIGH) for _ in range(4)])
    narrow.seconds(30)
    at = [s.at for s in narrow.streams]
    assert at[0] == 0
    assert PAUSED in at
    assert at == sorted(at, reverse=True)


def test_a_paused_video_comes_back_by_a_trial() -> None:
    run = Run(Link(60_000), [camera(LOW)])
    run.seconds(10)
    assert run.streams[0].at == PAUSED
    run.link.capacity = 5_000_000
    run.seconds(100)
    assert run.streams[0].at == 0


def test_a_single_layer_that_nearly_fits_is_not_paused() -> None:
    run = Run(Link(1_300_000), [camera(HIGH)])
    assert all(at == [0] for at in run.seconds(60))


def test_a_full_queue_without_loss_is_a_failure_too() -> None:
    """A deep queue: nothing is lost, and the estimate does not grow."""
    ladder, stream = Ladder(0.0), camera(LOW, HIGH)
    for now in (19.0, 20.0):
        assert stream.at == 1
        ladder.on_estimate(400_000, now)
        stream = replace(stream, at=ladder.choose([stream], AUDIO, now)[0])
    assert stream.at == 0
    ups = downs = 0
    for second in range(21, 240):
        ladder.on_estimate(305_000 if stream.at else 295_000, float(second))
        at = ladder.choose([stream], AUDIO, float(second))[0]
        ups, downs = ups + (at > stream.at), downs + (at < stream.at)
        stream = replace(stream, at=at)
    assert stream.at == 0
    assert 1 <= ups == downs <= 5


def test_the_interval_has_a_bound() -> None:
    ladder, stream = Ladder(0.0), camera(LOW, HIGH)
    times, now = [], 0.0
    for _ in range(12):
        ladder.on_loss(0.9, now + 2)
        stream = replace(stream, at=ladder.choose([stream], AUDIO, now + 2)[0])
        assert stream.at == 0
        due = ladder.deadline()
        assert due is not None
        times.append(due - now - 2)
        now = due
        stream = replace(stream, at=ladder.choose([stream], AUDIO, now)[0])
        assert stream.at == 1
    assert times[:4] == [20.0, 40.0, 80.0, 160.0]
    assert max(times) == TRIAL_EVERY_MAX_S


def test_layers_that_are_not_sent_are_not_chosen() -> None:
    ladder = Ladder(0.0)
    dead = Stream((LOW, 500_000, 0), 2, 2)
    assert ladder.choose([dead], AUDIO, 1.0) == [1]
    capped = Stream((LOW, 500_000, HIGH), 0, 2)
    assert ladder.choose([capped], AUDIO, 1.0) == [0]
    silent = Stream((0, 0), 1, 0)
    assert ladder.choose([silent], AUDIO, 1.0) == [1]


def test_the_pace_follows_the_estimate_with_headroom() -> None:
    ladder, stream = Ladder(0.0), camera(LOW, HIGH)
    ladder.choose([stream], AUDIO, 0.0)
    assert ladder.pace([stream], 20_000_000, 1.0) == 0
    ladder.on_estimate(3_000_000, 1.0)
    assert ladder.pace([stream], 20_000_000, 1.0) == round(1.5 * (3_000_000 + AUDIO))
    assert ladder.pace([stream], 2_000_000, 1.0) == 2_000_000
    ladder.on_estimate(50_000, 1.0)
    low = replace(stream, at=0)
    assert ladder.pace([low], 20_000_000, 1.0) == PACE_FREE_MIN_BPS  # nothing says that it is full
    ladder.on_loss(0.5, 1.0)
    assert ladder.choose([stream], AUDIO, 1.0) == [0]
    # The higher layer goes on until the lower one's key frame, which must not wait behind it.
    assert ladder.pace([low], 20_000_000, 1.0) == round(1.25 * 1.5 * (HIGH + AUDIO))
    later = 1.0 + SETTLE_S
    assert ladder.pace([low], 20_000_000, later) == round(1.25 * 1.5 * (LOW + AUDIO))
    assert ladder.pace([replace(stream, at=PAUSED)], 20_000_000, later) == PACE_MIN_BPS


def test_a_step_of_small_layers_is_paced_for_its_key_frames() -> None:
    """A key frame is many times the average: at 1.9 times that of 115 kb/s it takes half a second,
    which was seen as a picture that stands still."""
    ladder, high = Ladder(0.0), camera(65_000, 115_000)
    low = replace(high, at=0)
    ladder.on_estimate(40_000, 4.0)
    ladder.on_loss(0.5, 4.0)
    assert ladder.choose([high], AUDIO, 4.0) == [0]
    for now, rate in ((4.0, PACE_FREE_MIN_BPS), (4.0 + SETTLE_S, PACE_MIN_BPS)):
        assert ladder.pace([low], 20_000_000, now) == rate
    due = ladder.deadline()
    assert due is not None
    assert ladder.choose([low], AUDIO, due) == [1]
    for now, rate in ((due, PACE_FREE_MIN_BPS), (due + SETTLE_S, PACE_MIN_BPS)):
        assert ladder.pace([high], 20_000_000, now) == rate


def test_many_voices_are_not_held_against_an_estimate_of_videos() -> None:
    ladder = Ladder(0.0)
    for second in range(1, 30):
        ladder.on_estimate(HIGH, float(second))
        assert ladder.choose([camera(LOW, HIGH)], 25 * AUDIO, float(second)) == [1]


def test_a_picture_after_a_long_talk_is_not_paused() -> None:
    ladder, now = Ladder(0.0), 0.0
    for second in range(1, 30):
        now = float(second)
        ladder.on_estimate(70_000, now)
        assert ladder.choose([], AUDIO, now) == []
    fresh = Stream((None, None), 1, PAUSED)
    assert ladder.choose([fresh], AUDIO, now) == [1]
    for step in range(1, 40):
        ladder.on_estimate(round(70_000 * 1.08**step), now + step)
        assert ladder.choose([camera(LOW, HIGH)], AUDIO, now + step) == [1]


def test_a_trickle_is_not_judged() -> None:
    """As measured with Chromium at 5 % loss: a still picture, and an estimate without its sound."""
    ladder = Ladder(0.0)
    for second in range(1, 30):
        ladder.on_loss(0.2, float(second))
        ladder.on_estimate(27_000 if second % 2 else 21_000, float(second))
        assert ladder.choose([camera(35_000)], AUDIO, float(second)) == [0]


def test_the_first_estimate_of_a_small_call_pauses_nobody() -> None:
    """As measured in a call of six Chromium on a wide link: a first estimate of 0.65 times what
    is sent, which then grows."""
    ladder = Ladder(0.0)
    streams = [camera(rate) for rate in (35_804, 30_000, 30_564, 35_658, 40_157)]
    for step, bps in enumerate((110_960, 117_010, 122_415, 131_000, 138_000, 146_000)):
        ladder.on_estimate(bps, 5.0 + 0.6 * step)
        assert ladder.choose(streams, 5 * AUDIO, 5.0 + 0.6 * step) == [0] * 5


def test_small_pictures_at_five_percent_loss_are_not_paused() -> None:
    """15 packets a report: by chance some tell of 30 %."""
    rng, worst = random.Random(5), 0.0
    for layers in ((35_000,), (35_000, 60_000)):
        ladder, stream = Ladder(0.0), camera(*layers)
        for second in range(1, 600):
            loss = sum(rng.random() < 0.05 for _ in range(15)) / 15
            worst = max(worst, loss)
            ladder.on_loss(loss, float(second))
            at = ladder.choose([stream], AUDIO, float(second))[0]
            assert at != PAUSED
            stream = replace(stream, at=at)
    assert worst > 0.25


def test_a_slow_link_of_small_pictures_is_protected() -> None:
    """Below any rate: where less than the half comes through there is no picture to be had."""
    run = Run(Link(55_000), [camera(35_000), camera(35_000)])
    run.seconds(20)
    assert [s.at for s in run.streams] == [0, PAUSED]


# ---- in rooms ------------------------------------------------------------------------------------


def call(kind: str = "layers"):
    rooms = make_rooms()
    rooms.create_room("r", now=0.0)
    a, b, c = (join(rooms) for _ in range(3))
    picture = simulcast("l", "h") if kind == "layers" else video(2)
    tracks = rooms.publish(a.id, [audio(1), picture])
    for viewer in (b, c):
        rooms.subscribe(viewer.id, [t.id for t in tracks])
    rates = dict(zip([x.source for x in tracks[1].layers], (LOW, HIGH), strict=False))
    rooms.on_bitrates(rates.items(), 0.5)
    rooms.drain_dirty()
    return rooms, tracks[1], b, c


def at(viewer: Participant, track) -> int:
    subscription = viewer.subscriptions[track.id]
    return PAUSED if subscription.paused else subscription.layer


def test_a_leg_is_lowered_alone_and_at_once() -> None:
    rooms, track, weak, strong = call()
    route = weak.subscriptions[track.id].route
    rooms.on_feedback(route, 0.5, 2.0)
    assert (at(weak, track), at(strong, track)) == (0, 1)
    assert rooms.drain_dirty().routes == {route}
    assert plan(rooms).routes[route].source == track.layers[0].source
    due = rooms.next_deadline()
    assert due == 22.0
    rooms.tick(due)
    assert at(weak, track) == 1
    rooms.on_feedback(route, 0.5, due + 1)
    assert (at(weak, track), rooms.next_deadline()) == (0, due + 1 + 40)


def test_an_estimate_lowers_and_paces() -> None:
    rooms, track, weak, strong = call()
    rooms.on_estimate(weak.leg, 600_000, 5.0)
    rooms.on_estimate(weak.leg, 600_000, 6.0)
    rooms.on_estimate(strong.leg, 2_000_000, 6.0)
    assert (at(weak, track), at(strong, track)) == (0, 1)
    legs = plan(rooms).legs
    assert legs[weak.leg].rate_bps == round(1.25 * 1.5 * (HIGH + AUDIO))
    assert legs[strong.leg].rate_bps == round(1.5 * (2_000_000 + AUDIO))
    rooms.drain_dirty()
    rooms.on_estimate(strong.leg, 2_010_000, 7.0)
    assert not rooms.drain_dirty()
    rooms.on_estimate(weak.leg, 600_000, 6.0 + SETTLE_S)
    assert plan(rooms).legs[weak.leg].rate_bps == round(1.5 * (600_000 + AUDIO))


def test_estimates_that_lie_harm_nobody_else() -> None:
    """REMB of nothing is no estimate; of next to nothing, or of more than there is, the liar gets
    what it asked for, within the limits of pacing, and the others what they had."""
    rooms, track, liar, honest = call()
    rooms.on_estimate(liar.leg, 0, 6.0)
    assert not rooms.drain_dirty()
    assert at(liar, track) == 1
    for second, bps in enumerate((10**10, 1, 10**10, *[1] * 12), 7):
        rooms.on_estimate(liar.leg, bps, float(second))
        rate = plan(rooms).legs[liar.leg].rate_bps
        assert PACE_MIN_BPS <= rate <= rooms.state.limits.start_rate
    assert at(liar, track) == PAUSED  # for seconds it said nothing else
    assert at(honest, track) == 1
    assert plan(rooms).legs[honest.leg].rate_bps == plan(call()[0]).legs[honest.leg].rate_bps
    rooms.on_estimate(liar.leg, 10**10, 60.0)
    rooms.tick(300.0)
    assert at(liar, track) != PAUSED


def test_sound_is_never_paused() -> None:
    rooms, track, weak, _ = call("single")
    rooms.on_estimate(weak.leg, 10_000, 10.0)
    route = weak.subscriptions[track.id].route
    rooms.on_feedback(route, 1.0, 12.0)
    assert at(weak, track) == 0  # one report says too little
    for second in (13.0, 14.0, 15.0):
        rooms.on_feedback(route, 1.0, second)
    assert at(weak, track) == PAUSED
    paused = {r.source: r.paused for r in plan(rooms).routes.values() if r.leg == weak.leg}
    assert [paused[track.source], sum(paused.values())] == [True, 1]


def test_a_layer_that_ends_is_left_and_taken_up_again() -> None:
    rooms, track, b, c = call()
    low, high = (layer.source for layer in track.layers)
    rooms.on_bitrates([(low, LOW), (high, 0)], 2.0)
    assert at(b, track) == 1  # once is not for ever
    rooms.on_bitrates([(low, LOW), (high, 0)], 3.0)
    assert (at(b, track), at(c, track)) == (0, 0)
    rooms.on_bitrates([(low, LOW), (high, HIGH)], 4.0)
    assert (at(b, track), at(c, track)) == (1, 1)
    rooms.on_bitrates([(low, 0), (high, 0)], 5.0)
    rooms.on_bitrates([(low, 0), (high, 0)], 6.0)
    assert (at(b, track), at(c, track)) == (1, 1)


def test_what_comes_to_a_narrow_leg_begins_low() -> None:
    rooms, track, weak, strong = call()
    rooms.on_estimate(weak.leg, 450_000, 5.0)
    rooms.on_estimate(weak.leg, 450_000, 6.0)
    assert at(weak, track) == 0
    for viewer in (weak, strong):
        rooms.subscribe(viewer.id, [], auto=True)
    (more,) = rooms.publish(track.publisher.id, [simulcast("l", "h", label="screen", mid="2")])
    assert (at(weak, more), at(strong, more)) == (1, 1)  # nobody knows what it takes
    rooms.on_bitrates(zip([x.source for x in more.layers], (LOW, HIGH), strict=True), 7.0)
    rooms.unsubscribe(weak.id, [more.id])
    rooms.subscribe(weak.id, [more.id])
    assert at(weak, more) == 0


def test_a_viewer_may_ask_for_a_layer() -> None:
    rooms, track, b, _ = call()
    subscription = b.subscriptions[track.id]
    for asked, layer in (
        ("low", 0),
        ("high", 1),
        ("l", 0),
        ("h", 1),
        ("0", 0),
        ("7", 1),
        ("", 1),
        ("9" * 5000, 1),
        ("none", 1),
    ):
        b.peer = Peer("SEND", "u", layer=asked)
        assert wanted_layer(b, None, track) == layer, asked
    viewer = rooms.join_peer(
        "r",
        name="v",
        role=Role.PASSIVE,
        peer=Peer("SEND", "u", layer="low"),
        places=[SlotSpec(Kind.VIDEO, "0", ((Codec.VP8, 96),))],
        now=1.0,
    )
    rooms.set_keys(viewer.id, KEYS)
    rooms.fill_slots(1.0)
    assert at(viewer, track) == 0
    rooms.set_layer(viewer.id, "0", 1)
    assert at(viewer, track) == 1
    rooms.drain_dirty()
    rooms.set_layer(viewer.id, "0", 0)
    assert at(viewer, track) == 0
    assert rooms.drain_dirty().routes == {viewer.slots[0].route}
    for mid, layer in (("x", 0), ("0", 9), ("0", -1)):
        with pytest.raises(Refused):
            rooms.set_layer(viewer.id, mid, layer)
    assert subscription.layer == 1


@pytest.mark.parametrize("source", [77, 10**9])
def test_words_about_what_is_gone_are_no_fault(source: int) -> None:
    rooms, *_ = call()
    rooms.on_bitrates([(source, 5)], 1.0)
    rooms.on_levels([(source, 5, 1.0)], 1.0)
    rooms.on_estimate(source, 5, 1.0)
    rooms.on_feedback(source, 1.0, 1.0)
    assert not rooms.drain_dirty()
