"""What an offer said, as one text for the store, and back."""

from __future__ import annotations

import json

from forwarder.rooms.room import Peer


def peer_text(peer: Peer | None) -> str:
    """Empty for a participant that did not join by an offer."""
    if peer is None:
        return ""
    return json.dumps([peer.way, peer.ufrag, peer.extensions, peer.mids, peer.follow, peer.nack])


def peer_of(text: str) -> Peer | None:
    """ValueError: it is no text of `peer_text`."""
    if not text:
        return None
    way, ufrag, extensions, mids, follow, nack = json.loads(text)
    pairs = tuple((str(kind), str(mid)) for kind, mid in mids)
    return Peer(way, ufrag, tuple(extensions), pairs, follow, nack)
