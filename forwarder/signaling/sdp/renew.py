"""A re-offer against what was agreed on before (RFC 3264 section 8, RFC 8829 section 5.2.2).

Law: an m-line that is sent in never changes while its client is there, so nobody has to be told
SDP when the place shows somebody else.  One that the node receives may end.  New ones may come.
"""

from __future__ import annotations

from dataclasses import dataclass

from forwarder.signaling.sdp.model import Accepted, Negotiation, Way
from forwarder.signaling.sdp.parse import bad


@dataclass(frozen=True)
class Changes:
    """What a re-offer brought, each in the order of the m-lines."""

    receive: tuple[Accepted, ...]
    """New lines of tracks that the client publishes."""
    send: tuple[Accepted, ...]
    """New places."""
    ended: tuple[Accepted, ...]
    """Lines, as they were, on which the client publishes no more."""


def changes(made: Negotiation, previous: Negotiation) -> Changes:
    """What differs; `made` is what `negotiate` gave for `previous`."""
    old = {a.media.index for a in previous.accepted}
    now = {a.media.index for a in made.accepted}
    return Changes(
        receive=tuple(a for a in made.receive if a.media.index not in old),
        send=tuple(a for a in made.send if a.media.index not in old),
        ended=tuple(a for a in previous.receive if a.media.index not in now),
    )


def check_renewed(made: Negotiation, previous: Negotiation) -> None:
    """Raises ProtocolError where something old has changed."""
    if len(made.offer.media) < len(previous.offer.media):
        raise bad("a new offer keeps the m-lines of the one before, and this has fewer")
    if made.fingerprint != previous.fingerprint:
        raise bad("a new offer keeps the fingerprint: for another one, join again")
    for old in previous.accepted:
        _check_line(old, made)


def _check_line(old: Accepted, made: Negotiation) -> None:
    media = made.offer.media[old.media.index]
    where = f"m-line {media.index + 1} (mid {old.mid})"
    if media.mid != old.mid or media.kind != old.media.kind:
        raise bad(f"{where} has become {media.kind} of mid {media.mid}; it stays what it was")
    new = made.section(media.index)
    if new is None:
        if old.way is Way.RECEIVE and (not media.live or media.direction in ("inactive",)):
            return
        raise bad(f"{where} can no more be {old.way}; it stays as it was")
    if new.way is not old.way:
        raise bad(f"{where} was {old.way} in the answer and cannot be {new.way}")
    if _payload_types(new) != _payload_types(old):
        raise bad(f"{where} has other payload types or codecs than before")
    if set(new.extensions) != set(old.extensions):
        raise bad(f"{where} has other header extensions than before")
    if new.layers != old.layers:
        raise bad(f"{where} has other streams (rid, ssrc) than before")


def _payload_types(item: Accepted) -> list[tuple[str, tuple[int, ...]]]:
    return [(c.codec.value, tuple(f.pt for f in c.all)) for c in item.formats]
