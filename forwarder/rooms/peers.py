"""What an offer said, as one text for the store, and back."""

from __future__ import annotations

import json
from dataclasses import asdict

from forwarder.rooms.room import Peer


def peer_text(peer: Peer | None) -> str:
    """Empty for a participant that did not join by an offer."""
    if peer is None:
        return ""
    return json.dumps(asdict(peer))


def peer_of(text: str) -> Peer | None:
    """ValueError: it is no text of `peer_text`."""
    if not text:
        return None
    said = json.loads(text)
    try:
        said["mids"] = tuple((str(kind), str(mid)) for kind, mid in said["mids"])
        return Peer(**said | {name: tuple(said[name]) for name in ("rx_ext", "tx_ext")})
    except (KeyError, TypeError) as error:
        raise ValueError(f"what its offer said cannot be read: {error}") from error
