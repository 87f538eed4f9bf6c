"""Which layer of each video a leg is sent, by what its receiver says of the way.

Law: pure; times are seconds of one clock, rates bits a second.  Down at once: when the receiver's
reports tell of heavy loss, or its estimate (REMB) falls below what is sent; of a way that was never
seen full that takes two words, for a receiver whose machine stood still for a moment says the same
once, and its next word is a higher one.  Up only by a trial: a step, watched for TRIAL_S; the next
one TRIAL_EVERY_S later, twice as late after each failure.
Sound is never touched.  A video is paused only when even the lowest layers are far too much, and
that for PAUSE_AFTER_S: a receiver's first estimate, and the loss of a few packets, are too rough to
take a picture away.

Why trials: an estimate of what is received never exceeds about 1.5 times what is sent, so it can
tell that there is too little room, never how much more there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PAUSED = -1
TRIAL_EVERY_S = 10.0
TRIAL_EVERY_MAX_S = 160.0
TRIAL_S = 8.0
"""A step up that is taken back within this time has failed."""
SETTLE_S = 1.5
"""After a step down the queues on the way drain: reports of that time are about the past.  So they
are after a wish for other layers: an estimate follows what came, and that was less, say."""
ESTIMATE_S = 15.0
"""An estimate that is older says nothing."""
SHORT = 0.85
"""An estimate below this share of what is sent: the way is full.  A receiver's estimate of a full
way is 0.85 of what came through (draft-ietf-rmcat-gcc-02 section 5.5)."""
FIRST = 0.5
"""The first estimate is what came in while its sender may still have begun: it speaks of a full way
below this share of what is sent, and is watched below SHORT."""
FALL = 0.95
"""An estimate below this share of its highest has fallen."""
WATCH_S = 3.0
WATCH_GROWTH = 1.08
"""An estimate that lags behind what is sent must grow by this in WATCH_S (a receiver raises it by
8 % a second where there is room; section 5.5)."""
DOUBT_S = 1.0
DOUBT_GROWTH = 1.01
"""One that speaks of a full way for the first time must grow by this in DOUBT_S.  In a jam it stays
what it is, or falls; on a free way it grows by 8 % a second, or near the rate of its last fall by a
packet each 0.3 s (section 5.5): 2 % a second at 1.5 Mb/s."""
LOSS_HEAVY = 0.12
"""Smoothed loss that means too much is sent; 5 % of random loss stays far below it."""
LOSS_WEIGHT = 0.4
"""Of the newest report."""
PAUSE_BELOW = 0.6
"""Lowest layers are sent while the way carries this share of them."""
PAUSE_AFTER_S = 3.0
"""So long it must carry less before one is paused."""
AUDIO_BPS = 40_000
"""Of a sound whose rate is not measured yet."""
PACE_FACTOR = 1.5
"""A leg may be sent more than the estimate, so that key frames do not wait."""
PACE_MIN_BPS = 300_000
PACE_FREE_MIN_BPS = 2_000_000
"""While no way was seen full: an estimate of a still picture is small, and says nothing of room.
And for SETTLE_S after a step: it begins with a key frame, which is many times the average."""
PACE_CHANGE = 0.15
"""A smaller change of the pacing rate is not worth a command."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A video of a leg: `rates` of its layers, low to high (0: not sent now; None: not measured);
    `top`: the highest layer that is wanted; `at`: the layer that is sent now, or PAUSED."""

    rates: tuple[int | None, ...]
    top: int
    at: int

    def rungs(self) -> list[int]:
        """The layers that can be chosen, low to high; at least one."""
        wanted = range(min(self.top, len(self.rates) - 1) + 1)
        alive = [i for i in wanted if self.rates[i] != 0]
        return alive or [max(wanted, default=0)]

    def cost(self, layer: int) -> int:
        return 0 if layer == PAUSED else self.rates[layer] or 0


class Estimate:
    """What the receiver of a leg says that it can receive, and whether that means a full way.

    An estimate never exceeds about 1.5 times what came through, and grows by 8 % a second at most,
    so it may lag behind what is sent: while it grows that is no sign.  A fall is one.  It covers
    what has a send time alone (Chromium: video), so it is compared with the videos' rates.
    """

    __slots__ = ("_doubted", "_peak", "_since", "_started", "at", "bps")

    def __init__(self) -> None:
        self.bps = 0
        self.at = float("-inf")
        self._peak = 0.0
        self._since: float | None = None
        """Since when it lags; `_started`: what it was then."""
        self._started = 0
        self._doubted = False
        """It is watched because it spoke of a full way once."""

    def on(self, bps: int, now: float) -> None:
        if self.known(now) is None:
            self._watch_anew(float("inf"))  # the first word
        self.bps, self.at = bps, now

    def known(self, now: float) -> int | None:
        return self.bps if now - self.at <= ESTIMATE_S else None

    def rebase(self) -> None:
        """What is sent was changed: from here on it is watched anew."""
        self._watch_anew(float(self.bps))

    def full(self, sent: int, sure: bool, now: float) -> bool:
        """The way carries less than what is sent of videos; `sure`: one word tells that."""
        if self.known(now) is None or self.bps >= SHORT * sent:
            self.rebase()
            return False
        first = self._peak == float("inf")
        if self.bps < (FIRST * sent if first else FALL * self._peak):
            if sure:
                return True
            if not self._doubted:
                self._doubted, self._since, self._started = True, now, self.bps
        self._peak = float(self.bps) if first else max(self._peak, self.bps)
        if self._since is None:
            self._since, self._started = now, self.bps
        wait, growth = (DOUBT_S, DOUBT_GROWTH) if self._doubted else (WATCH_S, WATCH_GROWTH)
        if self.at - self._since < wait:
            return False
        if self.bps < growth * self._started:
            return True
        if self._doubted:
            self.rebase()
        self._since, self._started = now, self.bps
        return False

    def _watch_anew(self, peak: float) -> None:
        self._peak, self._since, self._doubted = peak, None, False


class Ladder:
    """The choice of one leg."""

    __slots__ = (
        "_audio",
        "_before",
        "_budget",
        "_every",
        "_left",
        "_loss",
        "_lowered",
        "_newest",
        "_raised",
        "_starved_since",
        "_trial_at",
        "_wished",
        "_wishes",
        "estimate",
    )

    def __init__(self, now: float) -> None:
        self.estimate = Estimate()
        self._audio = 0
        self._budget: float | None = None
        """What the way is believed to carry; None: everything."""
        self._every = TRIAL_EVERY_S
        self._trial_at = now + TRIAL_EVERY_S
        self._raised: float | None = now  # the best at first is a trial too
        self._before = float("inf")
        """What was sent before the trial."""
        self._lowered = self._wished = float("-inf")
        self._left = 0
        """What was sent before the step down."""
        self._wishes: list[int] | None = None
        self._loss = 0.0
        self._newest = 0.0
        self._starved_since: float | None = None

    # ---- what the receiver says -----------------------------------------------------------------

    def on_estimate(self, bps: int, now: float) -> None:
        """0 is no estimate."""
        if bps > 0:
            self.estimate.on(bps, now)

    def on_loss(self, fraction: float, now: float) -> None:
        """Of one video since the report before, 0..1."""
        if now - self._lowered >= SETTLE_S:
            self._loss += (fraction - self._loss) * LOSS_WEIGHT
            self._newest = fraction

    # ---- the choice -----------------------------------------------------------------------------

    @property
    def limited(self) -> bool:
        return self._budget is not None

    def deadline(self) -> float | None:
        """When to choose again though nothing was heard; None: never."""
        if self._raised is not None:
            return self._raised + TRIAL_S
        return self._trial_at if self._budget is not None else None

    def choose(self, streams: Sequence[Stream], audio_bps: int, now: float) -> list[int]:
        """The layer of each stream, first come first served; PAUSED: nothing of it."""
        self._audio = audio_bps
        self._note_wishes([s.top for s in streams], now)
        sent = audio_bps + sum(s.cost(s.at) for s in streams)
        full = self._full(sent, now)
        if self._starved(sent, full, now):
            return self._pause(streams, sent, now)
        if full and any(s.at > s.rungs()[0] for s in streams):
            return self._lower(streams, sent, now)
        if self._raised is not None and now - self._raised >= TRIAL_S:
            self._raised, self._every = None, TRIAL_EVERY_S  # the trial was a success
        if self._budget is None:
            return _allot(streams, audio_bps, None)
        self._budget = max(self._budget, sent)
        if full:
            self._trial_at = max(self._trial_at, now + SETTLE_S)
        if now >= self._trial_at and self._raised is None:
            return self._raise(streams, sent, now)
        return _kept(streams, _allot(streams, audio_bps, self._budget))

    def pace(self, streams: Sequence[Stream], most: int, now: float) -> int:
        """What the leg should be paced at; 0: as a leg without an estimate.

        After a step the layer before goes on until the other one's key frame is there, which must
        not wait behind it: the pace follows later."""
        if not self.estimate.bps and self._budget is None:
            return 0
        sent = self._audio + sum(s.cost(s.at) for s in streams)
        if now - self._lowered < SETTLE_S:
            sent = max(sent, self._left)
        rate = max(self.estimate.bps + self._audio, sent * 1.25) * PACE_FACTOR
        stepped = max(self._lowered, float("-inf") if self._raised is None else self._raised)
        free = self._budget is None or now - stepped < SETTLE_S
        least = PACE_FREE_MIN_BPS if free else PACE_MIN_BPS
        return min(most, max(least, int(rate)))

    def _note_wishes(self, wishes: list[int], now: float) -> None:
        if self._wishes is not None and wishes != self._wishes:
            self._wished = now
        self._wishes = wishes
        if now - self._wished < SETTLE_S:
            self.estimate.rebase()

    def _full(self, sent: int, now: float) -> bool:
        if now - max(self._lowered, self._wished) < SETTLE_S:
            return False
        full = self.estimate.full(sent - self._audio, self.limited, now)
        return full or self._loss >= LOSS_HEAVY

    def _starved(self, sent: int, full: bool, now: float) -> bool:
        """For PAUSE_AFTER_S the way has carried less than PAUSE_BELOW of the videos."""
        told = self.estimate.known(now)
        short = told is not None and told < SHORT * PAUSE_BELOW * (sent - self._audio)
        if not full or not (short or self._loss > 1.0 - PAUSE_BELOW):
            self._starved_since = None
            return False
        if self._starved_since is None:
            self._starved_since = now
        return now - self._starved_since >= PAUSE_AFTER_S

    def _lower(self, streams: Sequence[Stream], sent: int, now: float) -> list[int]:
        """Lower layers; what is sent goes on being sent."""
        chosen = self._pause(streams, sent, now)
        return [
            max(layer, s.rungs()[0]) if s.at != PAUSED else layer
            for s, layer in zip(streams, chosen, strict=True)
        ]

    def _pause(self, streams: Sequence[Stream], sent: int, now: float) -> list[int]:
        """As much as the way carries, be it nothing."""
        carried = sent * (1.0 - max(self._loss, self._newest))
        estimate = self.estimate.known(now)
        if self._raised is not None and self._before < sent:
            carried = self._before  # that much it carried until now
        elif estimate is not None and estimate < SHORT * (sent - self._audio):
            carried = min(carried, estimate + self._audio)
        failed = self._raised is not None
        self._every = min(2 * self._every, TRIAL_EVERY_MAX_S) if failed else TRIAL_EVERY_S
        self._trial_at, self._lowered, self._raised = now + self._every, now, None
        self._left = sent
        self._budget, self._loss, self._newest = carried, 0.0, 0.0
        self._starved_since = None
        self.estimate.rebase()
        chosen = _allot(streams, self._audio, carried)
        if chosen == [s.at for s in streams] and any(s.at > s.rungs()[0] for s in streams):
            self._budget = sent - 1  # at least one step
            chosen = _allot(streams, self._audio, self._budget)
        return chosen

    def _raise(self, streams: Sequence[Stream], sent: int, now: float) -> list[int]:
        cost = _next_step(streams)
        if cost is None:
            self._budget = None  # everything is as it is wanted
            return [s.at for s in streams]
        self._before = sent
        told = (self.estimate.known(now) or 0) + self._audio
        self._budget = max(float(told), sent + cost, self._budget or 0)
        self._raised, self._trial_at = now, now + self._every
        self.estimate.rebase()
        return _allot(streams, self._audio, self._budget)


def _next_step(streams: Sequence[Stream]) -> int | None:
    """What the smallest step up costs: of the lowest stream, the first among equals."""
    steps = []
    for place, stream in enumerate(streams):
        rungs = stream.rungs()
        above = [i for i in rungs if i > stream.at]
        if above:
            cost = stream.cost(above[0]) - stream.cost(stream.at)
            steps.append((rungs.index(above[0]), place, max(cost, 0)))
    return min(steps)[2] if steps else None


def _allot(streams: Sequence[Stream], audio_bps: int, budget: float | None) -> list[int]:
    """The lowest of all first, then a step for each in turn, as far as the budget goes."""
    ladders = [s.rungs() for s in streams]
    if budget is None:
        return [rungs[-1] for rungs in ladders]
    chosen, cost = [PAUSED] * len(streams), float(audio_bps)
    for place, (stream, rungs) in enumerate(zip(streams, ladders, strict=True)):
        lowest = stream.cost(rungs[0])
        if (cost + lowest) * (PAUSE_BELOW if place == 0 else 1.0) <= budget:
            chosen[place], cost = rungs[0], cost + lowest
    for step in range(1, max(map(len, ladders), default=0)):
        for place, (stream, rungs) in enumerate(zip(streams, ladders, strict=True)):
            if step < len(rungs) and chosen[place] == rungs[step - 1]:
                more = stream.cost(rungs[step]) - stream.cost(rungs[step - 1])
                if cost + more <= budget:
                    chosen[place], cost = rungs[step], cost + more
    return chosen


def _kept(streams: Sequence[Stream], allotted: list[int]) -> list[int]:
    """A stream whose layer is still there keeps it: rates that drift are no reason to switch."""
    return [
        stream.at if stream.at in stream.rungs() else layer
        for stream, layer in zip(streams, allotted, strict=True)
    ]
