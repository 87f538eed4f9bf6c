"""The text of an offer -> Offer.  Garbage is a Refused with a sentence, never another exception.

sdp_transform makes numbers of whatever looks like one ("1e5", "007"), which changes the value of
free text, and knows not all forms of rid, simulcast, ssrc-group and extmap.  These, and mid,
ice-ufrag, ice-pwd, msid and fingerprint, are read here from their lines as they are written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import sdp_transform

from forwarder.errors import ErrorCode, ProtocolError
from forwarder.signaling.framing import excerpt
from forwarder.signaling.sdp.layers import read_rids, read_simulcast
from forwarder.signaling.sdp.model import (
    Fingerprint,
    Format,
    Group,
    HeaderExtension,
    Media,
    Offer,
    Rid,
)
from forwarder.table import LABEL_MAX

OFFER_MAX = 256 * 1024  # bytes of a description: 25 pairs of a Chromium are 160 KB
LINE_MAX = 4096  # characters of a line
LINES_MAX = 8000
MEDIA_MAX = 64  # m-lines
ITEMS_MAX = 128  # payload types, extensions, SSRCs, groups of an m-line each

ICE_CHARS = re.compile(r"[A-Za-z0-9+/]+")
TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+")
HASH = re.compile(r"[0-9A-F]{2}(:[0-9A-F]{2}){15,63}")
ENCRYPTED = "urn:ietf:params:rtp-hdrext:encrypt"  # RFC 6904
EXACT = (
    "mid",
    "ice-ufrag",
    "ice-pwd",
    "msid",
    "fingerprint",
    "rid",
    "simulcast",
    "ssrc-group",
    "extmap",
)
DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")
READ = {
    *("rtpmap", "fmtp", "rtcp-fb", "ssrc", "setup", "group", "rtcp-mux", "rtcp-rsize"),
    *("bundle-only", "extmap-allow-mixed"),
    *DIRECTIONS,
}
"""The attributes that sdp_transform reads for us; it spends time on others, so it gets none."""


def bad(sentence: str) -> ProtocolError:
    return ProtocolError(ErrorCode.BAD_MESSAGE, f"the SDP cannot be used: {sentence}")


def text_of(data: bytes, what: str = "the SDP") -> str:
    """The text of a body that keeps the limits."""
    if len(data) > OFFER_MAX:
        raise ProtocolError(ErrorCode.TOO_LARGE, f"{what} has more than {OFFER_MAX} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise bad("it is not UTF-8") from None
    lines = text.splitlines()
    if len(lines) > LINES_MAX:
        raise bad(f"it has more than {LINES_MAX} lines")
    if any(len(line) > LINE_MAX for line in lines):
        raise bad(f"a line has more than {LINE_MAX} characters")
    return text


def exact_attributes(lines: Iterable[str]) -> dict[str, list[str]]:
    """The values of the attributes that must not be touched, as they are written."""
    found: dict[str, list[str]] = {name: [] for name in EXACT}
    for line in lines:
        name, _, value = line.removeprefix("a=").partition(":")
        if line.startswith("a=") and name in found and len(found[name]) <= ITEMS_MAX:
            found[name].append(value.strip())
    return found


def parse_offer(data: bytes) -> Offer:
    """Raises ProtocolError: BAD_MESSAGE with a sentence, or TOO_LARGE."""
    text = text_of(data)
    lines = text.splitlines()
    if not lines or lines[0].strip() != "v=0":
        raise bad("its first line is not v=0")
    sections: list[list[str]] = [[]]
    for line in lines:
        if line.startswith("m="):
            sections.append([])
        sections[-1].append(line)
    if not 1 < len(sections) <= MEDIA_MAX + 1:
        raise bad(f"it has {len(sections) - 1} m-lines; 1 to {MEDIA_MAX} can be answered")
    try:
        raw = sdp_transform.parse("\n".join(line for line in lines if _read(line)))
    except Exception as error:  # it indexes and converts without looking
        raise bad(f"it is malformed ({type(error).__name__})") from None
    session = exact_attributes(sections[0])
    media = tuple(
        _media(
            index,
            section,
            exact_attributes(own),
            session,
            str(raw.get("setup", "")),
            "extmapAllowMixed" in raw,
        )
        for index, (section, own) in enumerate(zip(raw["media"], sections[1:], strict=True))
    )
    mids = [m.mid for m in media if m.mid]
    if len(set(mids)) != len(mids):
        raise bad("two m-lines have the same mid")
    return Offer(media, _bundle(raw), "extmapAllowMixed" in raw)


def _read(line: str) -> bool:
    return not line.startswith("a=") or line[2:].partition(":")[0] in READ


def _media(
    index: int,
    raw: dict[str, Any],
    own: dict[str, list[str]],
    session: dict[str, list[str]],
    setup: str,
    allow_mixed: bool,
) -> Media:
    if "type" not in raw:
        raise bad(f"m-line {index + 1} is malformed")
    mid = _first(own["mid"])
    if mid and not TOKEN.fullmatch(mid):
        raise bad(f"mid {excerpt(mid)} is no token")
    if len(mid) > LABEL_MAX:
        raise bad(f"mid {excerpt(mid)} has more than {LABEL_MAX} characters")
    if any(len(values) > ITEMS_MAX for values in own.values()):
        raise bad(f"m-line {index + 1} has more than {ITEMS_MAX} lines of one kind")
    for name in ("ssrcs", "rtp", "fmtp", "rtcpFb"):
        limit = 8 * ITEMS_MAX if name in ("ssrcs", "rtcpFb") else ITEMS_MAX
        if len(raw.get(name, ())) > limit:
            raise bad(f"m-line {index + 1} has more than {limit} lines of one kind ({name})")
    direction = str(raw.get("direction", "sendrecv"))
    ufrag = _first(own["ice-ufrag"] or session["ice-ufrag"])
    password = _first(own["ice-pwd"] or session["ice-pwd"])
    if ufrag and not (4 <= len(ufrag) <= 256 and ICE_CHARS.fullmatch(ufrag)):
        raise bad("ice-ufrag is not 4 to 256 ice-chars (RFC 8839 section 5.4)")
    return Media(
        index=index,
        kind=str(raw["type"]),
        protocol=str(raw.get("protocol", "")),
        port=raw["port"] if isinstance(raw.get("port"), int) else -1,
        payloads=str(raw.get("payloads", "")),
        mid=mid,
        direction=direction if direction in DIRECTIONS else "inactive",
        formats=_formats(raw),
        extensions=_extensions(own["extmap"]),
        ssrcs=_ssrcs(raw),
        groups=_groups(own["ssrc-group"]),
        stream=_first(own["msid"]).split(" ")[0],
        rids=_rids(own["rid"]),
        simulcast=read_simulcast(own["simulcast"]),
        allow_mixed=allow_mixed or "extmapAllowMixed" in raw,
        bundle_only="bundleOnly" in raw,
        rtcp_mux="rtcpMux" in raw,
        rtcp_rsize="rtcpRsize" in raw,
        setup=str(raw.get("setup", setup)),
        ufrag=ufrag,
        password=password,
        fingerprints=_fingerprints(own["fingerprint"] or session["fingerprint"]),
    )


def _first(values: list[str]) -> str:
    return values[0] if values else ""


def _number(value: Any, low: int, high: int) -> int | None:
    ok = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    return value if ok else None


def _formats(raw: dict[str, Any]) -> tuple[Format, ...]:
    """In the order of the m-line; a payload type that is described twice is taken once."""
    configs = {f.get("payload"): str(f.get("config", "")) for f in raw["fmtp"]}
    described = {m.get("payload"): m for m in reversed(raw["rtp"])}
    feedback: dict[Any, list[str]] = {}
    for item in raw.get("rtcpFb", ()):
        parts = [str(item.get("type", "")), str(item.get("subtype", ""))]
        feedback.setdefault(item.get("payload"), []).append(" ".join(filter(None, parts)))
    found = []
    for word in dict.fromkeys(str(raw.get("payloads", "")).split()[:ITEMS_MAX]):
        if not word.isascii() or not word.isdigit() or len(word) > 3:
            continue
        pt = int(word)
        item = described.get(pt)
        if item is None or pt > 127:
            continue
        clock_hz = _number(item.get("rate"), 1, 1_000_000)
        if clock_hz is None:
            continue
        found.append(
            Format(
                pt,
                str(item.get("codec", "")).lower(),
                clock_hz,
                _number(item.get("encoding"), 1, 255) or 1,
                configs.get(pt, ""),
                tuple(feedback.get(pt, []) + feedback.get("*", [])),
            )
        )
    return tuple(found)


def _rids(values: list[str]) -> tuple[Rid, ...]:
    rids = read_rids(values)
    for rid in rids:
        if len(rid.id) > LABEL_MAX:
            raise bad(f"rid {excerpt(rid.id)} has more than {LABEL_MAX} characters")
    return rids


def _extensions(values: list[str]) -> tuple[HeaderExtension, ...]:
    """RFC 8285 section 8: `id[/direction] uri [attributes]`."""
    found = []
    for value in values:
        words = value.split()
        number, _, direction = (words or [""])[0].partition("/")
        if len(words) < 2 or words[1] == ENCRYPTED or not number.isascii() or len(number) > 3:
            continue
        if number.isdigit() and 1 <= int(number) <= 255 and int(number) != 15:  # 15 is reserved
            found.append(HeaderExtension(int(number), words[1], direction))
    return tuple(found)


def _ssrcs(raw: dict[str, Any]) -> tuple[int, ...]:
    ids = (_number(item.get("id"), 1, 0xFFFFFFFF) for item in raw.get("ssrcs", ()))
    return tuple(dict.fromkeys(i for i in ids if i is not None))


def _groups(values: list[str]) -> tuple[Group, ...]:
    found = []
    for value in values:
        semantics, *words = value.split()[: 1 + ITEMS_MAX] or [""]
        ids = [int(w) for w in words if w.isascii() and w.isdigit() and len(w) <= 10]
        if ids and len(ids) == len(words) and all(0 < i <= 0xFFFFFFFF for i in ids):
            found.append(Group(semantics, tuple(dict.fromkeys(ids))))
    return tuple(found)


def _fingerprints(values: list[str]) -> tuple[Fingerprint, ...]:
    found = []
    for value in values:
        algorithm, _, digest = value.partition(" ")
        digest = digest.strip().upper()
        if HASH.fullmatch(digest):
            found.append(Fingerprint(algorithm.lower(), digest))
    return tuple(found)


def _bundle(raw: dict[str, Any]) -> tuple[str, ...]:
    for group in raw.get("groups", ()):
        if group.get("type") == "BUNDLE":
            return tuple(str(group.get("mids", "")).split())
    return ()
