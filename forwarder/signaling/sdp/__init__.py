"""SDP offers and answers: the client always offers, the server always answers (RFC 3264, RFC 8829).

    text -> parse_offer -> negotiate(direction) -> Negotiation -> render(local facts) -> text

Pure: no sockets, no clock, no rooms.  The wire text is read and written by `sdp_transform`.
"""

from forwarder.signaling.sdp.fragment import Fragment, parse_fragment, render_fragment
from forwarder.signaling.sdp.model import (
    CODEC_ORDER,
    Accepted,
    Candidate,
    Local,
    Media,
    Negotiation,
    Offer,
    Stream,
    Way,
)
from forwarder.signaling.sdp.negotiate import negotiate
from forwarder.signaling.sdp.parse import parse_offer
from forwarder.signaling.sdp.render import render

__all__ = [
    "CODEC_ORDER",
    "Accepted",
    "Candidate",
    "Fragment",
    "Local",
    "Media",
    "Negotiation",
    "Offer",
    "Stream",
    "Way",
    "negotiate",
    "parse_fragment",
    "parse_offer",
    "render",
    "render_fragment",
]
