"""application/trickle-ice-sdpfrag (RFC 8840 section 9): candidates that trickle, and ICE restarts.

The node is ICE-lite and learns addresses from checks, so a client's candidates, `.local` and TCP
ones among them, are counted and not used.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import sdp_transform

from forwarder.signaling.sdp.model import Candidate
from forwarder.signaling.sdp.parse import ICE_CHARS, bad, exact_attributes, text_of
from forwarder.signaling.sdp.render import candidate_items

CANDIDATES_MAX = 256


@dataclass(frozen=True)
class Fragment:
    """`ufrag` empty: the fragment names none."""

    ufrag: str
    password: str = field(repr=False)
    candidates: int
    ended: bool


def parse_fragment(data: bytes) -> Fragment:
    """Raises ProtocolError with a sentence."""
    lines = text_of(data, "the fragment").splitlines()
    if not any(lines):
        raise bad("the fragment is empty")
    for line in lines:
        if line and not line.startswith(("a=", "m=", "c=", "v=", "o=", "s=", "t=", "b=")):
            raise bad("the fragment has a line that is no SDP")
    found = exact_attributes(lines)
    ufrag = found["ice-ufrag"][0] if found["ice-ufrag"] else ""
    password = found["ice-pwd"][0] if found["ice-pwd"] else ""
    if bool(ufrag) != bool(password):
        raise bad("ice-ufrag and ice-pwd go together")
    if ufrag and not (4 <= len(ufrag) <= 256 and ICE_CHARS.fullmatch(ufrag)):
        raise bad("ice-ufrag is not 4 to 256 ice-chars (RFC 8839 section 5.4)")
    candidates = sum(line.startswith("a=candidate:") for line in lines)
    ended = any(line.strip() == "a=end-of-candidates" for line in lines)
    if candidates > CANDIDATES_MAX:
        raise bad(f"the fragment has more than {CANDIDATES_MAX} candidates")
    if not ufrag and not candidates and not ended:
        raise bad("the fragment has neither candidates nor credentials")
    return Fragment(ufrag, password, candidates, ended)


def render_fragment(
    ufrag: str, password: str, mids: tuple[tuple[str, str], ...], candidates: tuple[Candidate, ...]
) -> str:
    """What answers an ICE restart (RFC 9725 section 4.3.2); `mids`: (kind, mid) of each m-line."""
    kind, mid = mids[0] if mids else ("audio", "")
    section = {
        "type": kind,
        "port": 9,
        "protocol": "UDP/TLS/RTP/SAVPF",
        "payloads": "0",
        "rtp": [],
        "fmtp": [],
        "mid": mid,
        "iceUfrag": ufrag,
        "icePwd": password,
        "candidates": candidate_items(candidates),
        "endOfCandidates": "end-of-candidates",
    }
    text = str(sdp_transform.write({"media": [section]}))
    body = [line for line in text.splitlines() if line[:2] in ("m=", "a=")]
    head = ["a=ice-lite"]
    bundled = " ".join(m for _, m in mids if m)
    if bundled:
        head.append(f"a=group:BUNDLE {bundled}")
    return "\r\n".join([*head, *body, ""])
