"""rid, simulcast and ssrc-group lines -> the layers of a track.

An offer does not say which of its rids is the best: RFC 8853 section 5.2 orders by preference, the
API of browsers by size with the smallest first, and their users as they like.  So limits on the
picture decide, then the usual names, then the order of the offer, smallest first; and where none
of the first two told, the rooms look at what comes (rooms/ranking.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from forwarder.rtp.rids import usual_order
from forwarder.signaling.sdp.model import Chosen, Group, Layer, Media, Rid

LAYERS_MAX = 3
"""Layers of a track; the worker binds 8 streams of a leg, which is 2 such tracks and 2 of audio."""
RID = re.compile(r"[A-Za-z0-9_-]+")  # RFC 8851 section 10


def read_rids(values: Sequence[str]) -> tuple[Rid, ...]:
    """From the values of rid lines; only what the client would send."""
    found: dict[str, Rid] = {}
    for value in values:
        words = value.split(None, 2)
        if len(words) < 2 or words[1] != "send" or not RID.fullmatch(words[0]):
            continue
        limits = dict(
            item.strip().partition("=")[::2] for item in (words[2:] or [""])[0].split(";")
        )
        pts = [_number(word) for word in limits.get("pt", "").split(",") if word]
        width, height = (_number(limits.get(f"max-{n}", "")) for n in ("width", "height"))
        rid = Rid(words[0], tuple(pts), width * height if width > 0 and height > 0 else 0)
        found.setdefault(rid.id, rid)
    return tuple(found.values())


def _number(word: str) -> int:
    word = word.strip()
    return int(word) if word.isascii() and word.isdigit() and len(word) <= 6 else -1


def read_simulcast(values: Sequence[str]) -> tuple[str, ...]:
    """The rids of the send list: of each stream the first alternative, paused or not.

    RFC 8853: `send h;~m,l recv x`; before it, `send rid=h;m paused=m`.
    """
    words = values[0].split() if values else []
    for direction, streams in pairwise(words):
        if direction == "send" and not streams.startswith("pt="):
            first = (s.split(",")[0].lstrip("~") for s in streams.removeprefix("rid=").split(";"))
            return tuple(dict.fromkeys(rid for rid in first if RID.fullmatch(rid)))
    return ()


def layers_of(media: Media, chosen: Chosen) -> tuple[Layer, ...]:
    """Low to high; one where there is no simulcast that both ends can."""
    several = _by_rid(media, chosen) or _by_group(media, chosen)
    if several and media.kind == "video":
        return several
    if media.simulcast or _group(media, "SIM") is not None:
        return (Layer(),)
    derived = {s for g in media.groups if g.semantics in ("FID", "FEC-FR") for s in g.ssrcs[1:]}
    own = [ssrc for ssrc in media.ssrcs if ssrc not in derived]
    if len(own) != 1:
        return (Layer(),)
    return (Layer("", own[0], _resends(media, chosen, own[0])),)


def _by_rid(media: Media, chosen: Chosen) -> tuple[Layer, ...]:
    known = {rid.id: rid for rid in media.rids}
    usable = [
        known[rid]
        for rid in media.simulcast
        if rid in known and (not known[rid].pts or chosen.format.pt in known[rid].pts)
    ]
    if len(usable) < 2:
        return ()
    return tuple(Layer(rid.id) for rid in _sorted(usable)[-LAYERS_MAX:])


def _sorted(rids: list[Rid]) -> list[Rid]:
    if all(rid.pixels for rid in rids):
        return sorted(rids, key=lambda rid: rid.pixels)
    order = usual_order([rid.id for rid in rids])
    return rids if order is None else [rids[i] for i in order]


def _by_group(media: Media, chosen: Chosen) -> tuple[Layer, ...]:
    group = _group(media, "SIM")
    if group is None or media.simulcast:
        return ()
    own = group.ssrcs[-LAYERS_MAX:]
    return tuple(Layer("", ssrc, _resends(media, chosen, ssrc)) for ssrc in own)


def _group(media: Media, semantics: str) -> Group | None:
    return next((g for g in media.groups if g.semantics == semantics and len(g.ssrcs) > 1), None)


def _resends(media: Media, chosen: Chosen, ssrc: int) -> int | None:
    if chosen.rtx is None:
        return None
    for group in media.groups:
        if group.semantics == "FID" and len(group.ssrcs) == 2 and group.ssrcs[0] == ssrc:
            return group.ssrcs[1]
    return None
