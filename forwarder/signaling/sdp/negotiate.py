"""Offer -> what is accepted of it.  The same for WHIP, WHEP and session join.

Always: the node answers, is the DTLS server, multiplexes RTCP, bundles; ids of extensions and
payload types stay as offered.  What is not named here is left out of the answer, which refuses it.

In the description of a client that both publishes and views, its sendrecv lines are received; it
does not get media back on them.
"""

from __future__ import annotations

from collections.abc import Sequence

from forwarder.errors import ErrorCode, ProtocolError
from forwarder.rtp.codecs import Codec, Kind
from forwarder.signaling.sdp.layers import layers_of
from forwarder.signaling.sdp.model import (
    EXTENSION_URIS,
    Accepted,
    Chosen,
    Fingerprint,
    Format,
    HeaderExtension,
    Layer,
    Media,
    Negotiation,
    Offer,
    Terms,
    Way,
)
from forwarder.signaling.sdp.pairs import Places
from forwarder.signaling.sdp.parse import bad
from forwarder.signaling.sdp.renew import check_renewed
from forwarder.table import Ext

PROTOCOLS = ("UDP/TLS/RTP/SAVPF", "RTP/SAVPF", "UDP/TLS/RTP/SAVP", "TCP/TLS/RTP/SAVPF")
"""RFC 8829 section 5.1.2: all of them mean the same."""
RTCP_PTS = range(64, 96)  # RFC 5761 section 4
H264_PROFILES = ("42e0", "4200", "4d00", "6400")
"""Constrained baseline first: every browser decodes it."""
HASHES = ("sha-256", "sha-384", "sha-512")
KINDS = {"audio": Kind.AUDIO, "video": Kind.VIDEO}
DIRECTIONS = {Way.RECEIVE: ("sendrecv", "sendonly"), Way.SEND: ("sendrecv", "recvonly")}
EXTENSIONS = {
    Way.RECEIVE: frozenset(
        {
            Ext.MID,
            Ext.RID,
            Ext.RRID,
            Ext.AUDIO_LEVEL,
            Ext.TRANSPORT_CC,
            Ext.DEPENDENCY,
            Ext.PLAYOUT_DELAY,
        }
    ),
    Way.SEND: frozenset(
        {Ext.MID, Ext.AUDIO_LEVEL, Ext.ABS_SEND_TIME, Ext.DEPENDENCY, Ext.PLAYOUT_DELAY}
    ),
}
"""Towards viewers no transport-wide numbers: they would have the viewer's side send feedback that
nobody reads, and no REMB."""
EXTENSION_WAYS = {Way.RECEIVE: ("", "sendrecv", "sendonly"), Way.SEND: ("", "sendrecv", "recvonly")}
ONE_BYTE_MAX = 14
"""Greatest extension id of the one-byte form (RFC 8285 section 4.2)."""


def unacceptable(sentence: str) -> ProtocolError:
    """The SDP is well formed, but there is nothing to agree on."""
    return ProtocolError(ErrorCode.CODEC_UNSUPPORTED, f"the offer cannot be accepted: {sentence}")


def negotiate(offer: Offer, terms: Terms, previous: Negotiation | None = None) -> Negotiation:
    """Raises ProtocolError: BAD_MESSAGE, or CODEC_UNSUPPORTED where nothing is in common.

    `previous`: what was agreed on with this client so far; then the offer may add m-lines and end
    those that the node receives, and changes nothing else.
    """
    accepted = _accept(offer, terms, previous)
    if not accepted:
        raise unacceptable(_wishes(terms))
    first = _transport(offer, accepted)
    made = Negotiation(
        offer=offer,
        accepted=tuple(accepted),
        rx_extensions=_extensions(accepted, Way.RECEIVE),
        tx_extensions=_extensions(accepted, Way.SEND),
        ufrag=first.ufrag,
        fingerprint=_fingerprint(first),
        version=previous.version + 1 if previous is not None else 1,
    )
    _check_bundle(made)
    if previous is not None:
        check_renewed(made, previous)
    return made


def _accept(offer: Offer, terms: Terms, previous: Negotiation | None) -> list[Accepted]:
    fit: list[tuple[Media, Kind, Way, list[Chosen]]] = []
    for media in offer.media:
        kind = KINDS.get(media.kind)
        way = _way(media, terms, previous)
        if kind is None or way is None:
            continue
        formats = _choose(media, kind, terms)
        if formats:
            fit.append((media, kind, way, formats))
    places = Places(terms, previous)
    places.offer([(media.mid, kind) for media, kind, way, _ in fit if way is Way.SEND])
    received = dict.fromkeys(Kind, 0)
    accepted = []
    for media, kind, way, formats in fit:
        if way is Way.SEND:
            pair = places.of(media.mid, kind)
            if pair is not None:
                extensions = _answered(media, way, formats[0], ())
                accepted.append(
                    Accepted(media, kind, way, tuple(formats), pair=pair, extensions=extensions)
                )
        elif received[kind] < terms.receive:
            received[kind] += 1
            layers = layers_of(media, formats[0])
            extensions = _answered(media, way, formats[0], layers)
            accepted.append(
                Accepted(media, kind, way, (formats[0],), layers, extensions=extensions)
            )
    return accepted


def _way(media: Media, terms: Terms, previous: Negotiation | None) -> Way | None:
    if not media.live or media.protocol not in PROTOCOLS:
        return None
    before = previous.section(media.index) if previous is not None else None
    if before is not None and media.direction in DIRECTIONS[before.way]:
        return before.way
    if terms.receive and media.direction in DIRECTIONS[Way.RECEIVE]:
        return Way.RECEIVE
    if terms.send and media.direction in DIRECTIONS[Way.SEND]:
        return Way.SEND
    return None


def _wishes(terms: Terms) -> str:
    wanted = dict.fromkeys(
        direction
        for way, most in ((Way.RECEIVE, terms.receive), (Way.SEND, terms.send))
        for direction in DIRECTIONS[way]
        if most
    )
    names = ", ".join(codec.value for codec in (Codec.OPUS, *terms.order))
    return (
        f"no m-line is {' or '.join(wanted)} with a codec of this room ({names}; "
        "H264 with packetization-mode=1)"
    )


def _transport(offer: Offer, accepted: Sequence[Accepted]) -> Media:
    """The m-line whose transport all use: the others of its BUNDLE may leave it out (RFC 9143
    section 7.1.3)."""
    bundled = [m for mid in offer.bundle[:1] for m in offer.media if m.mid == mid]
    medias = [item.media for item in accepted]
    first = next((m for m in [medias[0], *bundled, *medias] if m.ufrag), medias[0])
    if len(accepted) > 1 and any(media.mid not in offer.bundle for media in medias):
        raise bad("its m-lines are not in one BUNDLE group, which is needed")
    for media in (first, *medias):
        where = f"m-line {media.index + 1}"
        muxed = media.rtcp_mux or media.kind not in KINDS  # data has no RTCP
        if not muxed and (media is first or not media.bundle_only):
            raise bad(f"{where} has no a=rtcp-mux, which is needed")
        if media is first or media.ufrag or media.password:
            if not media.ufrag or not media.password:
                raise bad(f"{where} has no ICE credentials")
            if media.setup not in ("actpass", "active"):
                raise bad(f"a=setup:{media.setup} leaves no DTLS role: offer actpass")
    return first


def _fingerprint(media: Media) -> Fingerprint:
    for algorithm in HASHES:
        for item in media.fingerprints:
            if item.algorithm == algorithm:
                return item
    raise bad(f"there is no a=fingerprint by {' or '.join(HASHES)}")


def _choose(media: Media, kind: Kind, terms: Terms) -> list[Chosen]:
    wanted = (Codec.OPUS,) if kind is Kind.AUDIO else terms.order
    found = []
    for codec in dict.fromkeys(wanted):
        fitting = [f for f in media.formats if f.pt not in RTCP_PTS and _is(f, codec)]
        if fitting:
            best = min(fitting, key=lambda f: _rank(f, codec))
            red = _redundant(media, best)
            first = red is not None and media.formats.index(red) < media.formats.index(best)
            found.append(Chosen(codec, best, _resent(media, best), red, first))
    return found


def _resent(media: Media, item: Format) -> Format | None:
    for other in media.formats:
        if (
            (other.name, other.clock_hz) == ("rtx", item.clock_hz)
            and other.parameter("apt") == str(item.pt)
            and other.pt not in RTCP_PTS
            and other.pt != 0
        ):
            return other
    return None


def _redundant(media: Media, item: Format) -> Format | None:
    for other in media.formats:
        if (
            (other.name, other.clock_hz, other.channels) == ("red", item.clock_hz, item.channels)
            and set(other.config.strip().split("/")) == {str(item.pt)}
            and other.pt not in RTCP_PTS
        ):
            return other
    return None


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


def _answered(
    media: Media, way: Way, best: Chosen, layers: Sequence[Layer]
) -> tuple[HeaderExtension, ...]:
    wanted = set(EXTENSIONS[way])
    if not any(layer.rid for layer in layers):
        wanted -= {Ext.RID, Ext.RRID}
    if best.rtx is None:
        wanted.discard(Ext.RRID)
    if "transport-cc" not in best.format.feedback:
        wanted.discard(Ext.TRANSPORT_CC)
    found: dict[Ext, HeaderExtension] = {}
    for item in media.extensions:
        kind = EXTENSION_URIS.get(item.uri)
        if kind not in wanted or item.direction not in EXTENSION_WAYS[way]:
            continue
        if way is Way.SEND and item.id > ONE_BYTE_MAX and not media.allow_mixed:
            continue  # packets of both forms would mix in one stream (RFC 8285 section 4.1.2)
        found.setdefault(kind, item)
    return tuple(found.values())


def _extensions(accepted: Sequence[Accepted], way: Way) -> dict[Ext, int]:
    found: dict[Ext, int] = {}
    for item in accepted:
        for extension in item.extensions if item.way is way else ():
            kind = EXTENSION_URIS[extension.uri]
            if found.setdefault(kind, extension.id) != extension.id:
                raise bad(f"extmap {extension.uri} has two ids on one BUNDLE")
    return found


def _check_bundle(made: Negotiation) -> None:
    """One number means one thing on the whole BUNDLE (RFC 9143 sections 9.1 and 11)."""
    uris: dict[int, str] = {}
    formats: dict[int, tuple[str, int, int, str]] = {}
    for item in made.accepted:
        for extension in item.media.extensions:
            if uris.setdefault(extension.id, extension.uri) != extension.uri:
                raise bad(f"extmap id {extension.id} means two things on one BUNDLE")
        for f in (f for chosen in item.formats for f in chosen.all):
            what = (f.name, f.clock_hz, f.channels, f.config)
            if formats.setdefault(f.pt, what) != what:
                raise bad(f"payload type {f.pt} means two things on one BUNDLE")
