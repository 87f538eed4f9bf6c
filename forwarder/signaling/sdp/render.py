"""Negotiation + the node's side -> the text of the answer."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import sdp_transform

from forwarder.rtp.codecs import Codec
from forwarder.signaling.sdp.model import (
    Accepted,
    Candidate,
    Format,
    HeaderExtension,
    Local,
    Media,
    Negotiation,
    Stream,
    Way,
)

FEEDBACK = {
    Way.RECEIVE: ("transport-cc", "nack", "nack pli", "ccm fir"),
    Way.SEND: ("goog-remb", "nack", "nack pli", "ccm fir"),
}
"""What the worker sends, and what it reads; each is taken where it was offered."""
PRIORITY_STEP = 256
HOST_PRIORITY = 126 << 24 | 255  # RFC 8445 section 5.1.2.1, component 1
NAMES = {Codec.OPUS: "opus"}
ANSWERS = {"sendrecv": "sendrecv", "sendonly": "recvonly", "recvonly": "sendonly"}


def render(negotiation: Negotiation, local: Local) -> str:
    """The answer: ICE-lite, setup:passive, m-lines in the order of the offer."""
    bundled = [
        m.mid
        for m in negotiation.offer.media
        if m.mid and (negotiation.section(m.index) is not None or _rests(negotiation, m))
    ]
    session: dict[str, Any] = {
        "version": 0,
        "origin": {
            "username": "-",
            "sessionId": local.session_id,
            "sessionVersion": negotiation.version,
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
    if negotiation.send:
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
        section |= {"port": 0, "payloads": media.payloads, "direction": "inactive"}
        return section | (_resting(media, local) if _rests(negotiation, media) else {})
    section |= {
        "port": 9,
        "payloads": " ".join(str(f.pt) for f in _payloads(accepted)),
        "direction": accepted.way.value,
        **_transport(local),
        "ext": [_extension(item) for item in accepted.extensions],
        **_formats(accepted),
    }
    if media.rtcp_rsize:
        section["rtcpRsize"] = "rtcp-rsize"
    if media.allow_mixed and not negotiation.offer.allow_mixed:
        section["extmapAllowMixed"] = "extmap-allow-mixed"
    # All use the first's, but aiortc with one transport for many m-lines looks at the last.
    section["candidates"] = candidate_items(local.candidates)
    section["endOfCandidates"] = "end-of-candidates"
    taken = {layer.rid for layer in accepted.layers if layer.rid}
    if taken:
        rids = [rid for rid in media.simulcast if rid in taken]
        section["rids"] = [{"id": rid, "direction": "recv"} for rid in rids]
        section["simulcast"] = {"dir1": "recv", "list1": ";".join(rids)}
    stream = local.streams.get(media.mid)
    if stream is not None:
        section |= _stream(stream)
    return section


def _transport(local: Local) -> dict[str, Any]:
    return {
        "rtcpMux": "rtcp-mux",
        "iceUfrag": local.ufrag,
        "icePwd": local.password,
        "fingerprint": {"type": "sha-256", "hash": local.fingerprint},
        "setup": "passive",
    }


def _rests(negotiation: Negotiation, media: Media) -> bool:
    """An m-line of a further offer that the client keeps without using it: a port of 0 would stop
    it for good (RFC 8829 section 5.10)."""
    return (
        negotiation.version > 1
        and media.live
        and media.direction == "inactive"
        and media.mid in negotiation.offer.bundle
        and bool(media.formats)
    )


def _resting(media: Media, local: Local) -> dict[str, Any]:
    rtp: list[dict[str, Any]] = []
    for item in media.formats:
        entry: dict[str, Any] = {"payload": item.pt, "codec": item.name, "rate": item.clock_hz}
        rtp.append(entry | ({"encoding": item.channels} if item.channels > 1 else {}))
    payloads = " ".join(str(item.pt) for item in media.formats)
    return _transport(local) | {"port": 9, "payloads": payloads, "rtp": rtp}


def _stream(stream: Stream) -> dict[str, Any]:
    msid = f"{stream.stream} {stream.track}"
    ssrcs = [s for s in (stream.ssrc, stream.rtx_ssrc) if s is not None]
    section: dict[str, Any] = {"msid": msid}
    section["ssrcs"] = [
        {"id": ssrc, "attribute": name, "value": value}
        for ssrc in ssrcs
        for name, value in (("cname", stream.cname), ("msid", msid))
    ]
    if len(ssrcs) > 1:
        section["ssrcGroups"] = [{"semantics": "FID", "ssrcs": " ".join(map(str, ssrcs))}]
    return section


def _extension(item: HeaderExtension) -> dict[str, Any]:
    """Its direction, where one was offered, seen from this side."""
    entry: dict[str, Any] = {"value": item.id, "uri": item.uri}
    if item.direction:
        entry["direction"] = ANSWERS[item.direction]
    return entry


def _payloads(accepted: Accepted) -> list[Format]:
    """Codecs and what belongs to them, resends last, as browsers write them."""
    items = [f for chosen in accepted.formats for f in chosen.all]
    return list(dict.fromkeys(items))


def _formats(accepted: Accepted) -> dict[str, Any]:
    rtp, fmtp, feedback = [], [], []
    plain = {chosen.format: chosen.codec for chosen in accepted.formats}
    for item in _payloads(accepted):
        entry: dict[str, Any] = {"payload": item.pt, "rate": item.clock_hz}
        codec = plain.get(item)
        entry["codec"] = NAMES.get(codec, codec.value.upper()) if codec else item.name
        if item.channels > 1:
            entry["encoding"] = item.channels
        rtp.append(entry)
        if item.config:
            fmtp.append({"payload": item.pt, "config": item.config})
        if codec:
            feedback += _feedback(item, accepted)
    section: dict[str, Any] = {"rtp": rtp, "fmtp": fmtp}
    if feedback:
        section["rtcpFb"] = feedback
    return section


def _feedback(item: Format, accepted: Accepted) -> list[dict[str, Any]]:
    wanted = set(FEEDBACK[accepted.way])
    if not accepted.transport_cc:
        wanted.discard("transport-cc")
    if not accepted.remb:
        wanted.discard("goog-remb")
    found = []
    for word in FEEDBACK[accepted.way]:
        if word in wanted and word in item.feedback:
            kind, _, subtype = word.partition(" ")
            entry = {"payload": item.pt, "type": kind}
            found.append(entry | {"subtype": subtype} if subtype else entry)
    return found
