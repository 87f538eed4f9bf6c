"""Which m-line that the node sends in is whose: pictures with their sound, and sound alone.

The k-th video line and the k-th audio line are a pair; audio lines beyond the video lines are for
sound alone.  A re-offer leaves every old line where it is, and new ones go on from there.
"""

from __future__ import annotations

from collections.abc import Sequence

from forwarder.rtp.codecs import Kind
from forwarder.signaling.sdp.model import Negotiation, Terms

ALONE = -1


class Places:
    """Numbers the lines of one offer."""

    def __init__(self, terms: Terms, previous: Negotiation | None) -> None:
        self._terms = terms
        self._pairs: dict[tuple[str, Kind], int] = {}
        if previous is not None:
            self._pairs = {(a.mid, a.kind): a.pair for a in previous.send}

    def offer(self, lines: Sequence[tuple[str, Kind]]) -> None:
        """All lines, in order, that could be sent in."""
        offered = dict.fromkeys(lines)
        self._pairs = {key: pair for key, pair in self._pairs.items() if key in offered}
        fresh = [key for key in offered if key not in self._pairs]
        for key in (key for key in fresh if key[1] is Kind.VIDEO):
            self._take(key, range(self._terms.send))
        # Where no sound goes without a picture, a line of sound is a place of its own.
        all_pairs = not self._terms.send_audio
        pictures = self._numbers(Kind.VIDEO)
        pairs = [n for n in range(self._terms.send) if all_pairs or n in pictures]
        for key in (key for key in fresh if key[1] is Kind.AUDIO):
            if not self._take(key, pairs) and self._alone() < self._terms.send_audio:
                self._pairs[key] = ALONE

    def of(self, mid: str, kind: Kind) -> int | None:
        """The number of its pair, ALONE, or None: there is no place left."""
        return self._pairs.get((mid, kind))

    def _take(self, key: tuple[str, Kind], pairs: Sequence[int]) -> bool:
        taken = self._numbers(key[1])
        free = next((n for n in pairs if n not in taken), None)
        if free is not None:
            self._pairs[key] = free
        return free is not None

    def _numbers(self, kind: Kind) -> set[int]:
        return {pair for (_, k), pair in self._pairs.items() if k is kind}

    def _alone(self) -> int:
        return sum(pair == ALONE for pair in self._pairs.values())
