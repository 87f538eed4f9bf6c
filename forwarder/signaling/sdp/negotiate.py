"""Offer -> what is accepted of it.  The same for WHIP, WHEP and session join.

Always: the node answers, is the DTLS server, multiplexes RTCP, bundles; ids of extensions and
payload types stay as offered.  What is not named here is left out of the answer, which refuses it:
RTX, RED, FEC, simulcast (an answer without it makes the client send one layer; RFC 8853
section 5.3.2), transport-wide feedback, REMB.
"""

from __future__ import annotations

from collections.abc import Sequence

from forwarder.errors import ErrorCode, ProtocolError
from forwarder.rtp.codecs import Codec, Kind
from forwarder.signaling.sdp.model import (
    CODEC_ORDER,
    EXTENSION_URIS,
    Accepted,
    Fingerprint,
    Format,
    Media,
    Negotiation,
    Offer,
    Way,
)
from forwarder.signaling.sdp.parse import bad
from forwarder.table import Ext

EACH_MAX = 1
"""m-lines of a kind that are accepted: one audio and one video.  Session join will take more."""
PROTOCOLS = ("UDP/TLS/RTP/SAVPF", "RTP/SAVPF", "UDP/TLS/RTP/SAVP", "TCP/TLS/RTP/SAVPF")
"""RFC 8829 section 5.1.2: all of them mean the same."""
RTCP_PTS = range(64, 96)  # RFC 5761 section 4
H264_PROFILES = ("42e0", "4200", "4d00", "6400")
"""Constrained baseline first: every browser decodes it."""
HASHES = ("sha-256", "sha-384", "sha-512")
KINDS = {"audio": Kind.AUDIO, "video": Kind.VIDEO}
SENDERS = {Way.RECEIVE: ("sendrecv", "sendonly"), Way.SEND: ("sendrecv", "recvonly")}


def unacceptable(sentence: str) -> ProtocolError:
    """The SDP is well formed, but there is nothing to agree on."""
    return ProtocolError(ErrorCode.CODEC_UNSUPPORTED, f"the offer cannot be accepted: {sentence}")


def negotiate(
    offer: Offer, way: Way, order: Sequence[Codec] = CODEC_ORDER, each_max: int = EACH_MAX
) -> Negotiation:
    """Raises ProtocolError: BAD_MESSAGE, or CODEC_UNSUPPORTED where nothing is in common."""
    accepted: list[Accepted] = []
    for media in offer.media:
        kind = KINDS.get(media.kind)
        if kind is None or not _wanted(media, way):
            continue
        if sum(a.kind is kind for a in accepted) >= each_max:
            continue
        formats = _choose(media, kind, order)
        if formats:
            chosen = formats[:1] if way is Way.RECEIVE else formats
            accepted.append(Accepted(media, kind, tuple(chosen), _ssrc(media, way)))
    if not accepted:
        names = ", ".join(codec.value for codec in (Codec.OPUS, *order))
        raise unacceptable(
            f"no m-line is {' or '.join(SENDERS[way])} with a codec of this room ({names}; "
            "H264 with packetization-mode=1)"
        )
    _check_transport(offer, accepted)
    first = accepted[0].media
    return Negotiation(
        offer=offer,
        way=way,
        accepted=tuple(accepted),
        extensions=_extensions(accepted),
        ufrag=first.ufrag,
        fingerprint=_fingerprint(first),
    )


def _wanted(media: Media, way: Way) -> bool:
    return media.live and media.protocol in PROTOCOLS and media.direction in SENDERS[way]


def _check_transport(offer: Offer, accepted: Sequence[Accepted]) -> None:
    for item in accepted:
        media = item.media
        if not media.rtcp_mux:
            raise bad(f"m-line {media.index + 1} has no a=rtcp-mux, which is needed")
        if not media.ufrag or not media.password:
            raise bad(f"m-line {media.index + 1} has no ICE credentials")
        if media.setup not in ("actpass", "active"):
            raise bad(f"a=setup:{media.setup} leaves no DTLS role: offer actpass")
    if len(accepted) > 1:
        missing = [a.media.mid for a in accepted if a.media.mid not in offer.bundle]
        if missing:
            raise bad("its m-lines are not in one BUNDLE group, which is needed")


def _fingerprint(media: Media) -> Fingerprint:
    for algorithm in HASHES:
        for item in media.fingerprints:
            if item.algorithm == algorithm:
                return item
    raise bad(f"there is no a=fingerprint by {' or '.join(HASHES)}")


def _choose(media: Media, kind: Kind, order: Sequence[Codec]) -> list[tuple[Codec, Format]]:
    wanted = (Codec.OPUS,) if kind is Kind.AUDIO else tuple(order)
    found = []
    for codec in wanted:
        fitting = [f for f in media.formats if f.pt not in RTCP_PTS and _is(f, codec)]
        if fitting:
            found.append((codec, min(fitting, key=lambda f: _rank(f, codec))))
    return found


def _is(item: Format, codec: Codec) -> bool:
    if codec is Codec.OPUS:
        return (item.name, item.clock_hz, item.channels) == ("opus", 48_000, 2)
    if item.name != codec.value or item.clock_hz != 90_000:
        return False
    if codec is Codec.H264:
        return item.parameter("packetization-mode") == "1"
    if codec is Codec.VP9:
        return item.parameter("profile-id") in (None, "0")
    if codec is Codec.AV1:
        return item.parameter("profile") in (None, "0")
    return True


def _rank(item: Format, codec: Codec) -> int:
    """Lower is better; among equals the first offered wins."""
    if codec is not Codec.H264:
        return 0
    profile = (item.parameter("profile-level-id") or "42e0")[:4]
    return H264_PROFILES.index(profile) if profile in H264_PROFILES else len(H264_PROFILES)


def _ssrc(media: Media, way: Way) -> int | None:
    """The one stream's SSRC, where the offer tells it without a doubt; resends are not it."""
    if way is Way.SEND or media.simulcast or media.rids:
        return None
    resends = {group[1] for group in media.groups}
    own = [ssrc for ssrc in media.ssrcs if ssrc not in resends]
    return own[0] if len(own) == 1 else None


def _extensions(accepted: Sequence[Accepted]) -> dict[Ext, int]:
    """One id means one thing on the whole BUNDLE (RFC 9143 section 11)."""
    by_id: dict[int, str] = {}
    found: dict[Ext, int] = {}
    for item in accepted:
        for number, uri in item.media.extensions:
            if by_id.setdefault(number, uri) != uri:
                raise bad(f"extmap id {number} means two things on one BUNDLE")
            kind = EXTENSION_URIS.get(uri)
            if kind is not None:
                found.setdefault(kind, number)
    return found
