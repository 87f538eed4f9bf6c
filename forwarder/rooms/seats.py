"""Who belongs into which pair of a viewer's slots, and who is heard without a picture.

Law: decides, changes nothing but `viewer.seats`.  A seat is a pair of tracks of one publisher; it
stays in its pair while it is there.  Publishers come in the order in which they joined, each with
its first pair of tracks; what else they publish comes after all of them.  A viewer that asked for
a page sees those, in that order.  One with a single pair (WHEP) sees the participant that it asked
for, or whoever speaks.  Slots for sound alone are for the loudest who have no seat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from forwarder.ids import ParticipantId
from forwarder.rooms.admission import PAIRS_MAX
from forwarder.rooms.room import SOUND_ONLY, Participant, Room, Seat, Slot, Track
from forwarder.rtp.codecs import Kind

SOUND_HOLD_S = 1.0
"""A slot for sound alone changes its voice at most this often."""
FREE_PAIRS = 2
"""A viewer with fewer free pairs is asked to offer more."""
GROW_PAIRS = 4
"""How many more than are needed now."""


class Cast:
    """The publishers of a room and their tracks, looked up once for all viewers."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.speaker = room.speaker
        self.by_seat: dict[Seat, dict[Kind, Track]] = {}
        self.sounds: list[Track] = []
        for who in room.participants.values():
            if not who.keyed or not who.tracks or not who.role.may_publish:
                continue
            kinds = {kind: [t for t in who.tracks.values() if t.kind is kind] for kind in Kind}
            self.sounds += kinds[Kind.AUDIO]
            for number, pair in enumerate(zip_longest(kinds[Kind.AUDIO], kinds[Kind.VIDEO])):
                found = {t.kind: t for t in pair if t is not None}
                self.by_seat[(who.id, number)] = found
        # In the order in which they are given; sorting is stable: the order of joining.
        self.seats = sorted(self.by_seat, key=lambda seat: seat[1])
        loud = room.voices.loudest if room.voices is not None else ()
        heard = [t for name in loud if (t := room.tracks.get(name)) is not None]
        self.loud = [track for track in heard if track.shown and track.publisher.keyed]


@dataclass
class Wanted:
    """`tracks`: for each slot of the viewer, in their order; None: nothing."""

    tracks: list[Track | None] = field(default_factory=list)
    needs: int = 0
    """Pairs that the viewer should offer; 0: it has enough."""
    again: bool = False
    """A voice waits for its turn: ask again soon."""


def arrange(cast: Cast, viewer: Participant, now: float) -> Wanted:
    """What should be in the viewer's slots; notes who sits where."""
    pairs = sorted({slot.spec.pair for slot in viewer.slots} - {SOUND_ONLY})
    others = [seat for seat in cast.seats if seat[0] != viewer.id]
    if viewer.peer is not None and viewer.peer.way == "SEND":
        return _one(cast, viewer, others)
    if viewer.page is not None:
        viewer.seats = _paged(cast, viewer.page, pairs, others)
    else:
        viewer.seats = _kept(cast, viewer, pairs, others)
    wanted = Wanted(needs=_needs(cast.room, viewer, len(pairs), others))
    for slot in viewer.slots:
        seat = viewer.seats.get(slot.spec.pair)
        track = cast.by_seat[seat].get(slot.spec.kind) if seat in cast.by_seat else None
        wanted.tracks.append(None if track is None or _direct(viewer, track) else track)
    _sounds(cast, viewer, wanted, now)
    return wanted


def _one(cast: Cast, viewer: Participant, others: Sequence[Seat]) -> Wanted:
    """For a viewer with a single pair.  Where who speaks has no picture, the last one stays."""
    viewer.seats = _followed(cast, viewer, others)
    pinned = viewer.peer is not None and viewer.peer.follow != ""
    wanted = Wanted()
    for slot in viewer.slots:
        seat = viewer.seats.get(0)
        track = cast.by_seat[seat].get(slot.spec.kind) if seat is not None else None
        if track is None and not pinned:
            old = slot.subscription.track if slot.subscription is not None else slot.missed
            shown = [cast.by_seat[s].get(slot.spec.kind) for s in others]
            track = old if old in shown else next((t for t in shown if t is not None), None)
        wanted.tracks.append(None if track is None or _direct(viewer, track) else track)
    return wanted


def _direct(viewer: Participant, track: Track) -> bool:
    """It has the track without a slot already."""
    found = viewer.subscriptions.get(track.id)
    return found is not None and found.slot is None


def _kept(
    cast: Cast, viewer: Participant, pairs: Sequence[int], others: Sequence[Seat]
) -> dict[int, Seat]:
    seats = {p: s for p, s in viewer.seats.items() if s in cast.by_seat and p in pairs}
    taken = set(seats.values())
    coming = (seat for seat in others if seat not in taken)
    for pair in pairs:
        if pair not in seats:
            seat = next(coming, None)
            if seat is None:
                break
            seats[pair] = seat
    return seats


def _paged(
    cast: Cast, page: Sequence[ParticipantId], pairs: Sequence[int], others: Sequence[Seat]
) -> dict[int, Seat]:
    """One who publishes nothing yet keeps its place free."""
    seats: dict[int, Seat] = dict(zip(pairs, ((who, 0) for who in page), strict=False))
    more = (seat for seat in others if seat[1] > 0 and seat[0] in page)
    seats.update(zip(pairs[len(page) :], more, strict=False))
    return {pair: seat for pair, seat in seats.items() if seat in others}


def _followed(cast: Cast, viewer: Participant, others: Sequence[Seat]) -> dict[int, Seat]:
    asked = viewer.peer.follow if viewer.peer is not None else ""
    seats = dict.fromkeys(seat for seat in others if seat[1] == 0)
    now = next(iter(viewer.seats.values()), None)
    chosen: Seat | None
    if asked:
        chosen = (ParticipantId(asked), 0)
    elif cast.speaker is not None and (cast.speaker, 0) in seats:
        chosen = (cast.speaker, 0)
    else:
        chosen = now if now in seats else next(iter(seats), None)
    return {0: chosen} if chosen is not None and chosen in seats else {}


def _needs(room: Room, viewer: Participant, pairs: int, others: Sequence[Seat]) -> int:
    """Only a session can offer again.  Growth is asked for ahead of need."""
    if viewer.peer is None or viewer.peer.way != "BOTH" or pairs >= PAIRS_MAX:
        return 0
    if viewer.page is not None:
        return len(viewer.page) if len(viewer.page) > pairs else 0
    shown = len(others)
    may_come = max(room.max_active - int(viewer.role.may_publish), len(others))
    if pairs - shown >= FREE_PAIRS or pairs >= may_come:
        return 0
    return min(PAIRS_MAX, may_come, shown + GROW_PAIRS)


def _sounds(cast: Cast, viewer: Participant, wanted: Wanted, now: float) -> None:
    slots = [(i, s) for i, s in enumerate(viewer.slots) if s.spec.pair == SOUND_ONLY]
    if not slots:
        return
    seated = {id(track) for track in wanted.tracks if track is not None}

    def unseated(track: Track) -> bool:
        mine = track.publisher is viewer or _direct(viewer, track)
        return id(track) not in seated and not mine

    loud = [track for track in cast.loud if unseated(track)][: len(slots)]
    given: dict[int, Track] = {}
    for i, slot in slots:  # whoever is heard stays
        track = slot.subscription.track if slot.subscription is not None else slot.missed
        here = track is not None and track.id in cast.room.tracks and track.shown
        if track is not None and here and unseated(track):
            given[i] = track
    heard = {track.id for track in given.values()}
    coming = [track for track in loud if track.id not in heard]
    quiet = {t.id for t in given.values()} - {t.id for t in loud}
    for i, slot in slots:
        if not coming:
            break
        if i not in given:
            given[i] = coming.pop(0)
        elif given[i].id in quiet:
            if now - slot.changed_at >= SOUND_HOLD_S:
                given[i] = coming.pop(0)
            else:
                wanted.again = True
    _spread(cast, slots, given, unseated)
    for i, track in given.items():
        wanted.tracks[i] = track


def _spread(
    cast: Cast,
    slots: Sequence[tuple[int, Slot]],
    given: dict[int, Track],
    unseated: Callable[[Track], bool],
) -> None:
    """What is free goes to those who may speak next, so that no first word is lost."""
    heard = {track.id for track in given.values()}
    rest = (track for track in cast.sounds if track.id not in heard and unseated(track))
    for i, _ in slots:
        if i not in given:
            track = next(rest, None)
            if track is None:
                return
            given[i] = track
