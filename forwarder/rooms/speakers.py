"""Who speaks: the dominant voice of a room, and the loud ones in order.

Law: pure; `now` and `at` are seconds of one clock that never goes back.  Audio levels (RFC 6464:
0 loudest .. 127 silent, in -dBov) come in for windows of about 100 ms.  A voice takes over only
when it was clearly louder for a while, and not too soon after the last change, so that a cough
or an echo moves nobody.  A room where nobody was ever loud keeps no state.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp

from forwarder.ids import TrackId

FLOOR = 60
"""Level at and below which there is silence, -dBov."""
SPEAKING_DB = 10.0
"""Above the floor, smoothed: somebody speaks."""
MARGIN_DB = 6.0
"""How much louder one must be than another to pass it."""
RISE_S, FALL_S = 0.15, 0.6
"""Time constants of the smoothing."""
WINDOW_MAX_S = 1.0
"""A longer gap between two windows counts as this long."""
STALE_S = 1.0
"""Without a window for so long there is silence: muted, or no packets."""
PAUSE_S = 2.0
"""Who paused for less still speaks."""
VOICE_KEPT_S = 5.0
"""Silence after which a voice is forgotten for certain: it has faded, and its pause is over."""
SUSTAIN_S = 0.4
"""A challenger must lead for so long."""
HOLD_S = 1.5
"""Between two changes of the dominant voice."""
LOUDEST_MAX = 32
"""Voices that are ranked: more than any viewer has slots for, so that some always lack one."""


@dataclass(slots=True)
class _Voice:
    loud: float
    at: float
    spoke: float


class Voices:
    """The voices of one room.  `dominant` and `loudest` are what was judged last."""

    __slots__ = ("_challenged", "_challenger", "_since", "_voices", "dominant", "loudest")

    def __init__(self) -> None:
        self._voices: dict[TrackId, _Voice] = {}
        self._since = float("-inf")
        self._challenger: TrackId | None = None
        self._challenged = 0.0
        self.dominant: TrackId | None = None
        self.loudest: tuple[TrackId, ...] = ()

    def __bool__(self) -> bool:
        return bool(self._voices) or self.dominant is not None

    def hear(self, track_id: TrackId, level: int, at: float) -> None:
        """A window of a track that ended at `at`."""
        heard = float(max(0, FLOOR - level))
        voice = self._voices.get(track_id)
        if voice is None:
            if heard:
                self._voices[track_id] = _Voice(heard * _step(0.1, RISE_S), at, float("-inf"))
            return
        passed = at - voice.at
        if passed <= 0:
            return
        constant = RISE_S if heard > voice.loud else FALL_S
        voice.loud += (heard - voice.loud) * _step(min(passed, WINDOW_MAX_S), constant)
        voice.at = at
        if voice.loud >= SPEAKING_DB:
            voice.spoke = at

    def forget(self, track_id: TrackId) -> bool:
        """The track ended.  True: `dominant` or `loudest` is another now."""
        self._voices.pop(track_id, None)
        if self._challenger == track_id:
            self._challenger = None
        gone = self.dominant == track_id or track_id in self.loudest
        if self.dominant == track_id:
            self.dominant, self._since = None, float("-inf")
        self.loudest = tuple(t for t in self.loudest if t != track_id)
        return gone

    def judge(self, now: float) -> bool:
        """True: `dominant` or `loudest` is another now."""
        before = (self.dominant, self.loudest)
        for track_id, voice in list(self._voices.items()):
            if now - voice.at > STALE_S:
                voice.loud = 0.0
            if voice.loud < 1.0 and now - voice.spoke > PAUSE_S:
                del self._voices[track_id]
        self.loudest = self._rank(now)
        self._lead(now)
        return before != (self.dominant, self.loudest)

    def _rank(self, now: float) -> tuple[TrackId, ...]:
        """Those who speak, in the order they had; who is clearly louder passes."""
        voices = self._voices
        speaking = {t for t, v in voices.items() if now - v.spoke <= PAUSE_S}
        order = [t for t in self.loudest if t in speaking]
        new = speaking.difference(order)
        order += sorted(new, key=lambda t: (-voices[t].loud, t))
        for end in range(1, len(order)):
            at = end
            while at and voices[order[at]].loud > voices[order[at - 1]].loud + MARGIN_DB:
                order[at - 1], order[at] = order[at], order[at - 1]
                at -= 1
        return tuple(order[:LOUDEST_MAX])

    def _lead(self, now: float) -> None:
        first = self.loudest[0] if self.loudest else None
        if first is None or first == self.dominant:
            self._challenger = None
            return
        if self.dominant is None:
            self.dominant, self._since, self._challenger = first, now, None
            return
        if self._challenger != first:
            self._challenger, self._challenged = first, now
        if now - self._challenged >= SUSTAIN_S and now - self._since >= HOLD_S:
            self.dominant, self._since, self._challenger = first, now, None


def _step(passed: float, constant: float) -> float:
    return 1.0 - exp(-passed / constant)
