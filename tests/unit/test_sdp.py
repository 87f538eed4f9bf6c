"""Offers of browsers and their answers; garbage; trickle fragments.

tests/unit/sdp holds the offers of real clients; its README tells where they are from.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import sdp_transform
from aiortc.sdp import SessionDescription

from forwarder.errors import ErrorCode, ProtocolError
from forwarder.rtp.codecs import Codec, Kind
from forwarder.signaling.sdp import (
    WHEP,
    WHIP,
    Candidate,
    Layer,
    Local,
    Stream,
    negotiate,
    parse_fragment,
    parse_offer,
    render,
    render_fragment,
)
from forwarder.signaling.sdp.parse import ITEMS_MAX, LINE_MAX, LINES_MAX, MEDIA_MAX, OFFER_MAX
from forwarder.table import Ext

FIXTURES = Path(__file__).parent / "sdp"
CHROMIUM, FIREFOX, SAFARI = "chromium-publish", "firefox-publish", "safari-view"
LOCAL = Local(
    "ufragOfNode",
    "passwordOfTheNode0123456789",
    ":".join(["AB"] * 32),
    (Candidate("192.0.2.1", 4433), Candidate("2001:db8::1", 4433)),
    7,
    {"0": Stream(1001, "cname", "s", "a"), "1": Stream(1002, "cname", "s", "v")},
)


def offer(name: str) -> bytes:
    text = (FIXTURES / f"{name}.sdp").read_text()
    return text.replace("\n", "\r\n").encode()


def changed(name: str, old: str, new: str, count: int = -1) -> bytes:
    text = offer(name).decode()
    assert old in text
    return text.replace(old, new, count).encode()


def test_chromium_publishes_vp8_and_opus() -> None:
    made = negotiate(parse_offer(offer(CHROMIUM)), WHIP)
    audio, video = made.accepted
    assert [(c.codec, c.format.pt) for c in audio.formats] == [(Codec.OPUS, 111)]
    assert [(c.codec, c.format.pt) for c in video.formats] == [(Codec.VP8, 96)]
    assert audio.layers == (Layer("", 3416634437),)
    assert video.layers == (Layer("", 475420236, 274111449),)
    assert made.rx_extensions == {
        Ext.MID: 4,
        Ext.AUDIO_LEVEL: 1,
        Ext.TRANSPORT_CC: 3,
        Ext.PLAYOUT_DELAY: 5,
    }
    assert (made.tx_extensions, made.feedback) == ({}, True)
    assert made.ufrag == "wPRo"
    text = render(made, LOCAL)
    answer = sdp_transform.parse(text)
    assert answer["icelite"] == "ice-lite"
    assert answer["groups"] == [{"type": "BUNDLE", "mids": "0 1"}]
    for section in answer["media"]:
        assert (section["setup"], section["direction"]) == ("passive", "recvonly")
        assert section["rtcpMux"]
    fed = [(f["type"], f.get("subtype")) for f in answer["media"][1]["rtcpFb"]]
    assert fed == [("transport-cc", None), ("nack", None), ("nack", "pli"), ("ccm", "fir")]
    assert (made.nack, made.nack_audio) == (True, False)
    assert (video.formats[0].rtx or video.formats[0].format).pt == 97
    assert "a=rtpmap:97 rtx/90000\r\n" in text
    assert "a=fmtp:97 apt=96\r\n" in text
    assert "m=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\n" in text  # RED after the plain form
    for absent in ("goog-remb", "abs-send-time", "simulcast", "rtp-stream-id"):
        assert absent not in text


def test_the_answer_is_read_alike_by_another_implementation() -> None:
    read = SessionDescription.parse(render(negotiate(parse_offer(offer(CHROMIUM)), WHIP), LOCAL))
    audio, video = read.media
    assert (audio.ice.usernameFragment, audio.ice.iceLite) == ("ufragOfNode", True)
    assert [(c.ip, c.port, c.type) for c in audio.ice_candidates] == [
        ("192.0.2.1", 4433, "host"),
        ("2001:db8::1", 4433, "host"),
    ]
    assert video.dtls.role == "server"
    assert [c.mimeType for c in video.rtp.codecs] == ["video/VP8", "video/rtx"]


def test_the_codec_order_of_the_room_decides() -> None:
    """VP8, then H.264, unless the room has another."""
    parsed = parse_offer(offer(CHROMIUM))
    for lost, codec in (("none", Codec.VP8), ("VP8/", Codec.H264), ("(VP8|H264)/", Codec.VP9)):
        text = re.sub(f"a=rtpmap:[0-9]+ {lost}.*\r\n", "", offer(CHROMIUM).decode())
        assert negotiate(parse_offer(text.encode()), WHIP).accepted[1].formats[0].codec is codec
    for order, pt in (
        ((Codec.H264, Codec.VP8), 108),
        ((Codec.VP9,), 98),
        ((Codec.AV1, Codec.VP8), 45),
    ):
        made = negotiate(parsed, replace(WHIP, order=order))
        assert made.accepted[1].formats[0].format.pt == pt


def test_h264_needs_packetization_mode_1() -> None:
    only_mode_0 = changed(CHROMIUM, "packetization-mode=1", "packetization-mode=0")
    made = negotiate(parse_offer(only_mode_0), replace(WHIP, order=(Codec.H264,)))
    assert [a.kind for a in made.accepted] == [Kind.AUDIO]


def test_firefox_bundle_only_is_live_and_application_is_refused() -> None:
    made = negotiate(parse_offer(offer(FIREFOX)), WHIP)
    assert [a.media.mid for a in made.accepted] == ["0", "1"]
    assert made.fingerprint.value.startswith("21:B2")
    assert made.ufrag == "76dbd94a"
    answer = sdp_transform.parse(render(made, LOCAL))
    assert [m["port"] for m in answer["media"]] == [9, 9, 0]
    assert answer["groups"][0]["mids"] == "0 1"
    assert str(answer["media"][2]["payloads"]) == "webrtc-datachannel"


@pytest.mark.parametrize("bare", [False, True])
def test_data_that_comes_first_is_refused_all_the_same(bare: bool) -> None:
    """A page that opened its data channel before its tracks: the line that tags the BUNDLE is
    refused, and the transport of the others, who may leave it out (`bare`), is known by it."""
    head, audio, video, data = offer(FIREFOX).decode().split("m=")
    data = data.replace("application 0 ", "application 9 ").replace("a=bundle-only\r\n", "")
    if bare:
        own = "a=(ice|setup|fingerprint|rtcp-mux)[^\r]*\r\n"
        audio = audio.replace("audio 9 ", "audio 0 ") + "a=bundle-only\r\n"
        audio, video = (re.sub(own, "", section) for section in (audio, video))
    head = head.replace("BUNDLE 0 1 2", "BUNDLE 2 0 1")
    made = negotiate(parse_offer("m=".join([head, data, audio, video]).encode()), WHIP)
    assert (made.ufrag, [a.media.mid for a in made.accepted]) == ("76dbd94a", ["0", "1"])
    answer = sdp_transform.parse(render(made, LOCAL))
    assert [m["port"] for m in answer["media"]] == [0, 9, 9]
    assert answer["groups"][0]["mids"] == "0 1"
    assert "iceUfrag" in answer["media"][1]


def test_safari_views_with_payload_types_of_its_own() -> None:
    made = negotiate(parse_offer(offer(SAFARI)), WHEP)
    formats = [(c.codec, c.format.pt) for c in made.accepted[1].formats]
    assert formats == [(Codec.VP8, 100), (Codec.H264, 98)]
    assert made.ufrag == "1e10"  # looks like a number, and is none
    answer = sdp_transform.parse(render(made, LOCAL))
    video = answer["media"][1]
    assert (video["direction"], video["payloads"]) == ("sendonly", "100 101 98 99")
    assert not made.nack  # the node is sent nothing that it could ask for again
    assert {f["type"] for f in video["rtcpFb"]} <= {"nack", "ccm", "goog-remb"}
    assert {(s["id"], s["attribute"]) for s in video["ssrcs"]} == {(1002, "cname"), (1002, "msid")}


RIDS = "a=rid:h send\r\na=rid:m send pt=98\r\na=rid:l send\r\na=simulcast:send h;m;~l"
LAYERS = [
    (RIDS, ["l", "h"], "h;l"),  # m would come in VP9 only
    ("a=rid:q send\r\na=rid:f send\r\na=simulcast: send rid=f;q paused=q", ["q", "f"], "f;q"),
    ("a=rid:0 send\r\na=rid:007 send\r\na=simulcast:send 0,007;007", ["0", "007"], "0;007"),
    (
        "a=rid:a send max-width=640;max-height=360\r\na=rid:b send max-width=320;max-height=180"
        "\r\na=simulcast:send a;b",
        ["b", "a"],
        "a;b",
    ),
]


@pytest.mark.parametrize(("lines", "rids", "answered"), LAYERS)
def test_layers_are_known_low_to_high(lines: str, rids: list[str], answered: str) -> None:
    text = changed(CHROMIUM, "a=ssrc-group:FID", f"{lines}\r\na=ssrc-group:FID")
    made = negotiate(parse_offer(text), WHIP)
    assert made.accepted[1].layers == tuple(Layer(rid) for rid in rids)
    assert (made.rx_extensions[Ext.RID], made.rx_extensions[Ext.RRID]) == (10, 11)
    answer = render(made, LOCAL)
    assert f"a=simulcast:recv {answered}\r\n" in answer
    assert all(f"a=rid:{rid} recv\r\n" in answer for rid in rids)


def test_layers_by_ssrc() -> None:
    groups = "a=ssrc-group:SIM 475420236 77\r\na=ssrc-group:FID 77 78\r\na=ssrc:77 cname:x"
    text = changed(CHROMIUM, "a=ssrc-group:FID 4", f"{groups}\r\na=ssrc-group:FID 4")
    made = negotiate(parse_offer(text), WHIP)
    assert made.accepted[1].layers == (Layer("", 475420236, 274111449), Layer("", 77, 78))


def test_a_second_video_is_refused_by_port_0() -> None:
    text = offer(CHROMIUM).decode()
    video = text[text.index("m=video") :]
    more = text.replace("BUNDLE 0 1", "BUNDLE 0 1 2") + video.replace("mid:1", "mid:2")
    answer = sdp_transform.parse(render(negotiate(parse_offer(more.encode()), WHIP), LOCAL))
    assert [m["port"] for m in answer["media"]] == [9, 9, 0]
    assert answer["groups"][0]["mids"] == "0 1"


UNUSABLE = [
    ("a=rtcp-mux\r\n", "", "rtcp-mux"),
    ("a=setup:actpass", "a=setup:passive", "DTLS role"),
    ("a=group:BUNDLE 0 1\r\n", "", "BUNDLE"),
    ("a=ice-ufrag:wPRo\r\n", "", "ICE credentials"),
    ("a=ice-ufrag:wPRo", "a=ice-ufrag:X!", "ice-chars"),
    ("a=fingerprint:sha-256", "a=fingerprint:md5", "fingerprint"),
    ("a=mid:1", "a=mid:0", "same mid"),
    ("a=mid:1", "a=mid:abcdefghijklmnopq", "more than 16"),
    ("a=extmap:14 urn:ietf:params:rtp-hdrext:toffset", "a=extmap:1 urn:x", "two things"),
    ("v=0\r\n", "", "v=0"),
    ("m=video 9 UDP/TLS/RTP/SAVPF", "m=video UDP", "malformed"),
]


@pytest.mark.parametrize(("old", "new", "why"), UNUSABLE)
def test_what_cannot_be_used_is_told(old: str, new: str, why: str) -> None:
    with pytest.raises(ProtocolError, match=why) as refused:
        negotiate(parse_offer(changed(CHROMIUM, old, new)), WHIP)
    assert refused.value.code is ErrorCode.BAD_MESSAGE


@pytest.mark.parametrize("name", [CHROMIUM, FIREFOX])
def test_a_publisher_cannot_view_with_its_offer(name: str) -> None:
    with pytest.raises(ProtocolError, match="recvonly") as refused:
        negotiate(parse_offer(offer(name)), WHEP)
    assert refused.value.code is ErrorCode.CODEC_UNSUPPORTED


AUDIO = b"m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n"
GARBAGE = [
    (b"", "first line"),
    (b"\xff\xfe", "UTF-8"),
    (b"v=0", "0 m-lines"),
    (b"v=0\r\n" + AUDIO * (MEDIA_MAX + 1), f"1 to {MEDIA_MAX} can be answered"),
    (b"v=0\r\n" + AUDIO + b"a=extmap:1 u\r\n" * (ITEMS_MAX + 1), "lines of one kind"),
    (b"v=0\r\n" + AUDIO + b"a=rtpmap:1 x/1\r\n" * (ITEMS_MAX + 1), r"of one kind \(rtp\)"),
    (b"v=0\r\n" + AUDIO + b"a=ssrc:1 x\r\n" * (8 * ITEMS_MAX + 1), r"of one kind \(ssrcs\)"),
    (b"v=0\r\n" + AUDIO + b"a=rtcp-fb:1 x\r\n" * (8 * ITEMS_MAX + 1), r"of one kind \(rtcpFb\)"),
    (b"v=0\r\na=" + b"x" * LINE_MAX, f"more than {LINE_MAX} characters"),
    (b"v=0\r\n" + b"a=x\r\n" * LINES_MAX, f"more than {LINES_MAX} lines"),
    (b"v=0\r\n" + b"a" * OFFER_MAX, f"more than {OFFER_MAX} bytes"),
]


@pytest.mark.parametrize(("data", "why"), GARBAGE)
def test_garbage_is_refused(data: bytes, why: str) -> None:
    """Each limit by its own sentence."""
    with pytest.raises(ProtocolError, match=why) as refused:
        negotiate(parse_offer(data), WHIP)
    large = len(data) > OFFER_MAX
    assert refused.value.code is (ErrorCode.TOO_LARGE if large else ErrorCode.BAD_MESSAGE)


def test_what_is_not_in_an_offer_costs_nothing() -> None:
    """As much as the limits allow, of attributes that nobody reads: not looked at by the parser
    that makes numbers of everything."""
    line = b"a=candidate:1 1 udp 2113937151 192.0.2.9 50000 typ host generation 0\r\n"
    text = offer(CHROMIUM).replace(b"a=mid:0\r\n", b"a=mid:0\r\n" + 3000 * line)
    assert len(text) < OFFER_MAX
    plain, full = (negotiate(parse_offer(data), WHIP) for data in (offer(CHROMIUM), text))
    assert render(full, LOCAL) == render(plain, LOCAL)


def test_fragments() -> None:
    text = (
        "a=ice-ufrag:1e10\r\na=ice-pwd:0123456789012345678901\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n"
        "a=candidate:1 1 udp 1 198.51.100.1 5000 typ host\r\n"
        "a=candidate:2 1 tcp 1 x.local 9 typ host tcptype active\r\na=end-of-candidates\r\n"
    )
    found = parse_fragment(text.encode())
    assert (found.ufrag, found.candidates, found.ended) == ("1e10", 2, True)
    assert parse_fragment(b"a=candidate:1 1 udp 1 192.0.2.9 5 typ host\r\n").ufrag == ""
    for bad in (b"", b"\r\n", b"a=ice-ufrag:abcd", b"a=x", b"hello", b"\xff"):
        with pytest.raises(ProtocolError):
            parse_fragment(bad)


def test_a_restart_is_answered_with_credentials_and_candidates() -> None:
    text = render_fragment("newU", "newP", (("audio", "0"), ("video", "1")), LOCAL.candidates)
    assert text.startswith("a=ice-lite\r\na=group:BUNDLE 0 1\r\nm=audio 9 ")
    assert "a=ice-ufrag:newU\r\na=ice-pwd:newP\r\n" in text
    assert "192.0.2.1 4433 typ host" in text
