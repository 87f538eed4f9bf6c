"""SDP offers and answers: the client always offers, the server always answers (RFC 3264, RFC 8829).

    text -> parse_offer -> negotiate(terms) -> Negotiation -> render(local facts) -> text

`negotiate` with what was agreed on before answers a re-offer; `changes` tells what it brought.

Pure: no sockets, no clock, no rooms.  The wire text is read and written by `sdp_transform`.
"""

from forwarder.signaling.sdp.fragment import Fragment, parse_fragment, render_fragment
from forwarder.signaling.sdp.model import (
    SESSION,
    WHEP,
    WHIP,
    Accepted,
    Candidate,
    Chosen,
    Format,
    Layer,
    Local,
    Media,
    Negotiation,
    Offer,
    Stream,
    Terms,
    Way,
)
from forwarder.signaling.sdp.negotiate import negotiate
from forwarder.signaling.sdp.parse import parse_offer
from forwarder.signaling.sdp.render import render
from forwarder.signaling.sdp.renew import Changes, changes

__all__ = [
    "SESSION",
    "WHEP",
    "WHIP",
    "Accepted",
    "Candidate",
    "Changes",
    "Chosen",
    "Format",
    "Fragment",
    "Layer",
    "Local",
    "Media",
    "Negotiation",
    "Offer",
    "Stream",
    "Terms",
    "Way",
    "changes",
    "negotiate",
    "parse_fragment",
    "parse_offer",
    "render",
    "render_fragment",
]
