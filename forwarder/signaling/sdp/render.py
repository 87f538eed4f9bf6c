"""Negotiation + the node's side -> the text of the answer."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import sdp_transform

from forwarder.rtp.codecs import Codec
from forwarder.signaling.sdp.model import (
    EXTENSION_URIS,
    Accepted,
    Candidate,
    Format,
    Local,
    Media,
    Negotiation,
    Way,
)

FEEDBACK = {
    Way.RECEIVE: ("nack", "nack pli", "ccm fir"),
    Way.SEND: ("nack pli", "ccm fir"),
}
"""What the worker sends, and what it answers; each is taken where it was offered."""
PRIORITY_STEP = 256
HOST_PRIORITY = 126 << 24 | 255  # RFC 8445 section 5.1.2.1, component 1
NAMES = {Codec.OPUS: "opus"}


def render(negotiation: Negotiation, local: Local) -> str:
    """The answer: ICE-lite, setup:passive, m-lines in the order of the offer."""
    bundled = [a.media.mid for a in negotiation.accepted if a.media.mid]
    session: dict[str, Any] = {
        "version": 0,
        "origin": {
            "username": "-",
            "sessionId": local.session_id,
            "sessionVersion": 1,
            "netType": "IN",
            "ipVer": 4,
            "address": "127.0.0.1",
        },
        "name": "-",
        "timing": {"start": 0, "stop": 0},
        "icelite": "ice-lite",
        "media": [_section(negotiation, media, local) for media in negotiation.offer.media],
    }
    if bundled:
        session["groups"] = [{"type": "BUNDLE", "mids": " ".join(bundled)}]
    if negotiation.offer.allow_mixed:
        session["extmapAllowMixed"] = "extmap-allow-mixed"
    if negotiation.way is Way.SEND:
        session["msidSemantic"] = {"semantic": "WMS", "token": "*"}
    return str(sdp_transform.write(session))


def candidate_items(candidates: tuple[Candidate, ...]) -> list[dict[str, Any]]:
    """Host candidates, the first address with the highest priority."""
    return [
        {
            "foundation": str(n + 1),
            "component": 1,
            "protocol": "udp",
            "priority": HOST_PRIORITY | (65535 - n * PRIORITY_STEP) << 8,
            "ip": str(ip_address(item.address)),
            "port": item.port,
            "type": "host",
        }
        for n, item in enumerate(candidates)
    ]


def _section(negotiation: Negotiation, media: Media, local: Local) -> dict[str, Any]:
    accepted = negotiation.section(media.index)
    section: dict[str, Any] = {
        "type": media.kind,
        "protocol": media.protocol,
        "connection": {"version": 4, "ip": "0.0.0.0"},
        "rtp": [],
        "fmtp": [],
    }
    if media.mid:
        section["mid"] = media.mid
    if accepted is None:
        return section | {"port": 0, "payloads": media.payloads, "direction": "inactive"}
    section |= {
        "port": 9,
        "payloads": " ".join(str(f.pt) for _, f in accepted.formats),
        "direction": negotiation.way.value,
        "rtcpMux": "rtcp-mux",
        "rtcpRsize": "rtcp-rsize",
        "iceUfrag": local.ufrag,
        "icePwd": local.password,
        "fingerprint": {"type": "sha-256", "hash": local.fingerprint},
        "setup": "passive",
        "ext": [
            {"value": negotiation.extensions[kind], "uri": uri}
            for uri, kind in EXTENSION_URIS.items()
            if any(offered == uri for _, offered in media.extensions)
        ],
        **_formats(accepted, negotiation.way),
    }
    if accepted is negotiation.accepted[0]:
        section["candidates"] = candidate_items(local.candidates)
        section["endOfCandidates"] = "end-of-candidates"
    stream = local.streams.get(media.mid)
    if stream is not None:
        section["msid"] = f"{stream.stream} {stream.track}"
        section["ssrcs"] = [
            {"id": stream.ssrc, "attribute": "cname", "value": stream.cname},
            {"id": stream.ssrc, "attribute": "msid", "value": f"{stream.stream} {stream.track}"},
        ]
    return section


def _formats(accepted: Accepted, way: Way) -> dict[str, Any]:
    rtp, fmtp, feedback = [], [], []
    for codec, item in accepted.formats:
        entry: dict[str, Any] = {"payload": item.pt, "rate": item.clock_hz}
        entry["codec"] = NAMES.get(codec, codec.value.upper())
        if item.channels > 1:
            entry["encoding"] = item.channels
        rtp.append(entry)
        if item.config:
            fmtp.append({"payload": item.pt, "config": item.config})
        feedback += _feedback(item, way)
    section: dict[str, Any] = {"rtp": rtp, "fmtp": fmtp}
    if feedback:
        section["rtcpFb"] = feedback
    return section


def _feedback(item: Format, way: Way) -> list[dict[str, Any]]:
    found = []
    for wanted in FEEDBACK[way]:
        if wanted in item.feedback:
            kind, _, subtype = wanted.partition(" ")
            entry = {"payload": item.pt, "type": kind}
            found.append(entry | {"subtype": subtype} if subtype else entry)
    return found
