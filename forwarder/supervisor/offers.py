"""Between the words of SDP (signaling/sdp) and those of the rooms.  Pure.

Law: nothing of an offer is kept but what the rooms hold; `remembered` makes of that what a later
offer is compared with.  So a supervisor that was started anew takes re-offers as the old one did.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection
from dataclasses import replace

from forwarder.errors import ErrorCode, ProtocolError
from forwarder.rooms.room import LayerSpec, Participant, Peer, Slot, SlotSpec, TrackSpec
from forwarder.signaling import sdp
from forwarder.signaling.sdp import Way
from forwarder.signaling.sdp.model import Fingerprint
from forwarder.table import Ext, extensions

BOTH = "BOTH"  # Peer.way of a session: it may send and receive
RESOURCE_BYTES = 24


def resource_id(participant: Participant) -> str:
    """The unguessable part of a session's URL; the same after a restart of the supervisor."""
    return base64.urlsafe_b64encode(_digest(b"webrtc session ", participant)).decode()


def session_id(participant: Participant) -> int:
    """Of the o= line (RFC 8866 section 5.2): the same in all answers to one participant."""
    return int.from_bytes(_digest(b"sdp session ", participant)[:8], "big") >> 2


def _digest(label: bytes, participant: Participant) -> bytes:
    return hashlib.sha256(label + participant.resume.encode()).digest()[:RESOURCE_BYTES]


def peer_of(
    made: sdp.Negotiation, way: str, follow: str = "", layer: str = "", certificate: str = ""
) -> Peer:
    """What the rooms keep of an offer beside its tracks and slots."""
    return Peer(
        way=way,
        ufrag=made.ufrag,
        rx_ext=extensions(made.rx_extensions),
        tx_ext=extensions(made.tx_extensions),
        mids=tuple((item.kind.value, item.media.mid) for item in made.accepted),
        follow=follow,
        nack=made.nack,
        nack_audio=made.nack_audio,
        feedback=made.feedback,
        layer=layer,
        certificate=certificate,
    )


def track_spec(item: sdp.Accepted, made: sdp.Negotiation, taken: Collection[str]) -> TrackSpec:
    """What an m-line publishes; `taken`: labels that the participant's tracks have."""
    chosen = item.formats[0]
    single = item.layers[0] if len(item.layers) == 1 else None
    named = Ext.MID in made.rx_extensions or all(one.ssrc is not None for one in item.layers)
    label = item.kind.value
    return TrackSpec(
        label=f"{label}-{item.media.mid or item.media.index}" if label in taken else label,
        kind=item.kind,
        codec=chosen.codec,
        pt=chosen.format.pt,
        clock_hz=chosen.format.clock_hz,
        ssrc=single.ssrc if single is not None else None,
        mid=item.media.mid if named else "",
        rtx_pt=chosen.rtx.pt if chosen.rtx is not None else None,
        red_pt=chosen.red.pt if chosen.red is not None else None,
        layers=tuple(LayerSpec(one.rid, one.ssrc, one.rtx_ssrc) for one in item.layers),
    )


def track_specs(made: sdp.Negotiation, taken: Collection[str] = ()) -> list[TrackSpec]:
    """Everything that the node receives, with labels of their own."""
    labels = set(taken)
    found = []
    for item in made.receive:
        found.append(track_spec(item, made, labels))
        labels.add(found[-1].label)
    return found


def slot_spec(item: sdp.Accepted) -> SlotSpec:
    """The place that an m-line gives."""
    return SlotSpec(
        kind=item.kind,
        mid=item.media.mid,
        pts=tuple((chosen.codec, chosen.format.pt) for chosen in item.formats),
        rtx_pts=tuple((c.codec, c.rtx.pt) for c in item.formats if c.rtx is not None),
        pair=item.pair,
        red_pt=next((c.red.pt for c in item.formats if c.red is not None), None),
    )


def stream(slot: Slot) -> sdp.Stream:
    """What the answer says of a slot: the two of a pair are one MediaStream."""
    spec = slot.spec
    name = f"pair{spec.pair}" if spec.pair >= 0 else f"sound{spec.mid}"
    track = f"{spec.kind.value}{spec.mid}"
    return sdp.Stream(slot.out_ssrc, slot.owner.cname, name, track, rtx_ssrc=slot.rtx_ssrc)


def local(me: Participant, fingerprint: str, candidates: tuple[sdp.Candidate, ...]) -> sdp.Local:
    """The node's side of an answer to this participant.

    `fingerprint`: of the node's certificate now.  One whose handshake was made with an earlier one
    is told that one for ever: by another it would begin a handshake anew (RFC 8842 section 3.1),
    which nobody here expects.
    """
    return sdp.Local(
        ufrag=me.ufrag,
        password=me.password,
        fingerprint=(me.peer.certificate if me.peer is not None else "") or fingerprint,
        candidates=candidates,
        session_id=session_id(me),
        streams={slot.spec.mid: stream(slot) for slot in me.slots},
    )


def check_session(made: sdp.Negotiation) -> None:
    """Raises ProtocolError: a later offer could not say which track it means."""
    named = Ext.MID in made.rx_extensions
    for item in made.receive:
        if not item.media.mid or not (named or all(one.ssrc for one in item.layers)):
            raise ProtocolError(
                ErrorCode.BAD_MESSAGE,
                f"m-line {item.media.index + 1} needs a=mid, and either a=extmap for "
                "urn:ietf:params:rtp-hdrext:sdes:mid or its a=ssrc",
            )


# ---- offers after the first ------------------------------------------------------------------


def remembered(
    me: Participant, fresh: sdp.Negotiation, fingerprint: Fingerprint | None, version: int
) -> sdp.Negotiation:
    """What was agreed on with this participant, in the lines of its new offer.

    `fresh`: the new offer taken as if it were the first; `fingerprint` None: not known (an earlier
    supervisor saw it).  ProtocolError: a place of it is gone.
    """
    pairs = {slot.spec.mid: slot.spec.pair for slot in me.slots}
    sent = {track.spec.mid for track in me.tracks.values()} - begun_anew(me, fresh)
    old = [
        replace(item, pair=pairs.get(item.media.mid, item.pair))
        for item in fresh.accepted
        if item.media.mid in (pairs if item.way is Way.SEND else sent)
    ]
    if missing := set(pairs) - {item.media.mid for item in old if item.way is Way.SEND}:
        raise _changed(f"mid {min(missing)} was a place and is none any more")
    return replace(
        fresh,
        accepted=tuple(old),
        fingerprint=fingerprint or fresh.fingerprint,
        version=version,
    )


def begun_anew(me: Participant, made: sdp.Negotiation) -> frozenset[str]:
    """Mids of tracks whose streams are others in this offer, signalled ones, and nothing else: a
    sender that was taken out and put in again before anybody was told.  The old track ends."""
    tracks = {track.spec.mid: track.spec for track in me.tracks.values()}
    found = set()
    for item in made.receive:
        old = tracks.get(item.media.mid)
        if old is None:
            continue
        new = replace(track_spec(item, made, ()), label=old.label)
        same = replace(new, ssrc=old.ssrc, layers=old.layers) == old
        if same and old.ssrcs and new.ssrcs and not set(old.ssrcs) & set(new.ssrcs):
            found.add(old.mid)
    return frozenset(found)


def check_kept(me: Participant, made: sdp.Negotiation) -> None:
    """Raises ProtocolError where the new offer changes what is in use."""
    peer = me.peer
    assert peer is not None
    places = {slot.spec.mid: slot.spec for slot in me.slots}
    anew = begun_anew(me, made)
    published = {t.spec.mid: t.spec for t in me.tracks.values()}
    tracks = {mid: spec for mid, spec in published.items() if mid not in anew}
    for item in made.accepted:
        mid = item.media.mid
        if item.way is Way.SEND and mid and mid in published:
            raise _changed(f"mid {mid} is a track of yours, and cannot become a place at once")
        if item.way is Way.SEND:
            same = mid not in places or slot_spec(item) == places[mid]
        else:
            old = tracks.get(mid)
            same = old is None or replace(track_spec(item, made, ()), label=old.label) == old
        if not same:
            raise _changed(f"mid {mid} has other payload types or streams than before")
    now = peer_of(made, peer.way)
    ended = not published.keys() <= {item.media.mid for item in made.receive}
    for before, after, fewer in (
        (peer.rx_ext, now.rx_ext, ended),  # a line that ends takes along what only it had
        (peer.tx_ext, now.tx_ext, False),
    ):
        if any(a not in (0, b) and (b or not fewer) for a, b in zip(before, after, strict=True)):
            raise _changed("header extensions have other ids than before")


def _changed(sentence: str) -> ProtocolError:
    return ProtocolError(ErrorCode.BAD_MESSAGE, f"a further offer changes nothing old: {sentence}")
