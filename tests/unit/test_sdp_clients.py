"""What the offers of real clients are answered, for each kind of join, and re-offers.

tests/unit/sdp/README.md tells where the offers are from.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import sdp_transform
from test_sdp import LOCAL, offer

from forwarder.errors import ErrorCode, ProtocolError
from forwarder.rtp.codecs import Codec, Kind
from forwarder.signaling.sdp import (
    SESSION,
    WHEP,
    WHIP,
    Layer,
    Negotiation,
    Stream,
    Terms,
    Way,
    changes,
    negotiate,
    parse_offer,
    render,
)
from forwarder.table import Ext

RECEIVED = {
    "chromium-publish": ([111, 63, 96, 97], True, True),
    "chromium-simulcast": ([111, 63, 96, 97], True, True),
    "firefox-publish": ([109, 120, 124], True, True),
    "firefox-simulcast": ([109, 120, 124], True, True),
    "safari-macos": ([111, 63, 107, 108], True, True),
    "gstreamer-publish": ([96, 97], False, False),
    "simple-whip-client-publish": ([96, 97], False, False),
    "aiortc-publish": ([96, 97, 98], True, False),
}
SENT = {
    "chromium-view": [111, 63, 96, 97, 108, 109, 98, 99, 45, 46],
    "firefox-view": [109, 120, 124, 121, 125, 99, 100],
    "safari-macos": [111, 63, 107, 108, 98, 99, 109, 114],
    "safari-ios": [111, 100, 101, 98, 99],
    "gstreamer-view": [97, 98, 96, 99],
    "aiortc-view": [96, 97, 98, 101, 102],
}


def made_of(name: str, terms: Terms) -> Negotiation:
    return negotiate(parse_offer(offer(name)), terms)


def answered(made: Negotiation) -> list[int]:
    """The payload types of the answer's live lines."""
    answer = sdp_transform.parse(render(made, LOCAL))
    live = [m for m in answer["media"] if m["port"]]
    return [int(word) for m in live for word in str(m["payloads"]).split()]


@pytest.mark.parametrize("name", RECEIVED)
def test_what_publishes_by_whip(name: str) -> None:
    pts, nack, feedback = RECEIVED[name]
    made = made_of(name, WHIP)
    assert {a.kind for a in made.accepted} == {Kind.AUDIO, Kind.VIDEO}
    assert {a.way for a in made.accepted} == {Way.RECEIVE}
    assert (answered(made), made.nack, made.feedback) == (pts, nack, feedback)
    assert "goog-remb" not in render(made, LOCAL)


@pytest.mark.parametrize("name", SENT)
def test_what_views_by_whep(name: str) -> None:
    made = made_of(name, WHEP)
    assert [(a.kind, a.pair) for a in made.accepted] == [(Kind.AUDIO, 0), (Kind.VIDEO, 0)]
    assert answered(made) == SENT[name]
    text = render(made, LOCAL)
    assert "transport" not in text
    assert (Ext.ABS_SEND_TIME in made.tx_extensions) == ("goog-remb" in text)


@pytest.mark.parametrize("name", ["chromium-simulcast", "firefox-simulcast"])
def test_three_layers(name: str) -> None:
    made = made_of(name, WHIP)
    audio, video = made.accepted
    assert len(audio.layers) == 1
    assert video.layers == (Layer("q"), Layer("h"), Layer("f"))
    assert {Ext.MID, Ext.RID, Ext.RRID, Ext.DEPENDENCY} <= set(made.rx_extensions)
    assert "a=simulcast:recv q;h;f\r\n" in render(made, LOCAL)


def test_directions_of_extensions_are_answered_from_this_side() -> None:
    made = made_of("firefox-simulcast", WHIP)
    text = render(made, LOCAL)
    assert "a=extmap:9/recvonly urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n" in text
    assert Ext.PLAYOUT_DELAY not in made.rx_extensions  # Firefox would only receive it
    assert made_of("firefox-view", WHEP).tx_extensions[Ext.PLAYOUT_DELAY] == 6
    assert text.count("a=extmap-allow-mixed\r\n") == 2  # it offers it for each line


def test_ids_of_two_bytes_are_sent_only_where_forms_may_mix() -> None:
    text = offer("firefox-view").replace(b"a=extmap:3 ", b"a=extmap:33 ")
    plain = text.replace(b"a=extmap-allow-mixed\r\n", b"")
    assert negotiate(parse_offer(text), WHEP).tx_extensions[Ext.MID] == 33
    assert Ext.MID not in negotiate(parse_offer(plain), WHEP).tx_extensions


@pytest.mark.parametrize("name", ["chromium-session", "firefox-session"])
def test_a_session_of_nine_pairs_and_three_for_sound(name: str) -> None:
    made = made_of(name, SESSION)
    assert [a.media.index for a in made.receive] == [0, 1]
    assert made.receive[1].layers == (Layer("q"), Layer("h"), Layer("f"))
    slots = [(a.kind, a.pair) for a in made.send]
    pairs = [(kind, n) for n in range(9) for kind in (Kind.AUDIO, Kind.VIDEO)]
    assert slots == pairs + [(Kind.AUDIO, -1)] * 3
    assert Ext.TRANSPORT_CC in made.rx_extensions
    assert Ext.TRANSPORT_CC not in made.tx_extensions
    assert Ext.ABS_SEND_TIME in made.tx_extensions
    streams = {
        a.mid: Stream(1000 + n, "c", f"pair{a.pair}", f"track{n}", 2000 + n)
        for n, a in enumerate(made.send)
    }
    answer = sdp_transform.parse(render(made, replace(LOCAL, streams=streams)))
    sections = answer["media"]
    assert [m["direction"] for m in sections] == ["recvonly"] * 2 + ["sendonly"] * 21
    assert [m["msid"] for m in sections[2:6]] == [
        "pair0 track0",
        "pair0 track1",
        "pair1 track2",
        "pair1 track3",
    ]
    assert sections[3]["ssrcGroups"] == [{"semantics": "FID", "ssrcs": "1001 2001"}]
    assert len({s["id"] for m in sections[2:] for s in m["ssrcs"]}) == 42
    assert all(m["candidates"] == sections[0]["candidates"] for m in sections)


def test_a_session_has_no_more_than_its_terms() -> None:
    few = replace(SESSION, send=4, send_audio=1)
    made = made_of("chromium-session", few)
    assert [a.pair for a in made.send if a.kind is Kind.VIDEO] == [0, 1, 2, 3]
    assert [a.pair for a in made.send if a.kind is Kind.AUDIO] == [0, 1, 2, 3, -1]
    answer = sdp_transform.parse(render(made, LOCAL))
    assert [m["port"] for m in answer["media"]].count(0) == 12


def test_25_pairs_are_the_most() -> None:
    """More are refused, line by line; whether they come at once or by growth."""
    text = with_pairs(offer("chromium-session").decode(), 18)
    at_once = negotiate(parse_offer(text.encode()), SESSION)
    grown = negotiate(parse_offer(text.encode()), SESSION, made_of("chromium-session", SESSION))
    for made in (at_once, grown):
        pairs = {a.pair for a in made.send if a.kind is Kind.VIDEO}
        assert pairs == set(range(25))
        assert sum(a.pair == -1 for a in made.send) == 3
        ports = [m["port"] for m in sdp_transform.parse(render(made, LOCAL))["media"]]
        assert ports.count(0) == len(ports) - len(made.accepted) > 0


def test_sound_alone_may_be_viewed() -> None:
    text = offer("chromium-view").decode()
    alone = text[: text.index("m=video")].replace("BUNDLE 0 1", "BUNDLE 0")
    assert [a.pair for a in negotiate(parse_offer(alone.encode()), WHEP).accepted] == [0]
    assert [a.pair for a in negotiate(parse_offer(alone.encode()), SESSION).accepted] == [-1]


def test_bundled_lines_may_leave_the_transport_to_the_first() -> None:
    text = offer("gstreamer-publish").decode()
    first, second = text.split("m=audio", 1)
    bare = "\r\n".join(
        line
        for line in second.split("\r\n")
        if not line.startswith(("a=ice", "a=setup", "a=finger", "a=rtcp-mux"))
    )
    made = negotiate(parse_offer(f"{first}m=audio{bare}".encode()), WHIP)
    assert [a.mid for a in made.accepted] == ["video0", "audio1"]


def test_one_payload_type_is_one_codec_on_a_bundle() -> None:
    text = offer("aiortc-publish").replace(b"SAVPF 96 9", b"SAVPF 97 9").replace(b":96 ", b":97 ")
    with pytest.raises(ProtocolError, match="payload type 97 means two things"):
        negotiate(parse_offer(text), WHIP)


def test_red_is_answered_after_the_plain_form() -> None:
    made = negotiate(parse_offer(offer("chromium-publish")), WHIP)
    (opus,) = made.accepted[0].formats
    assert opus.codec is Codec.OPUS
    assert opus.red is not None
    assert answered(made)[:2] == [111, 63]
    assert "a=fmtp:63 111/111\r\n" in render(made, LOCAL)


def test_red_is_answered_first_where_it_is_offered_first() -> None:
    """The first one of an answer is what a browser sends."""
    text = offer("chromium-publish").replace(b"SAVPF 111 63 ", b"SAVPF 63 111 ")
    made = negotiate(parse_offer(text), WHIP)
    assert made.accepted[0].formats[0].codec is Codec.OPUS
    assert answered(made)[:2] == [63, 111]


# ---- re-offers ------------------------------------------------------------------------------


def with_pairs(text: str, new: int) -> str:
    """A session offer with more pairs at its end, as a page that grows makes it."""
    head, *sections = text.split("m=")
    audio, video = (f"m={s}" for s in sections[2:4])
    mids = [str(len(sections) + n) for n in range(2 * new)]
    more = [
        section.replace(f"a=mid:{old}\r\n", f"a=mid:{mid}\r\n")
        for mid, (old, section) in zip(mids, [("2", audio), ("3", video)] * new, strict=True)
    ]
    bundle = head.split("a=group:BUNDLE ")[1].split("\r\n")[0]
    return text.replace(bundle, f"{bundle} {' '.join(mids)}", 1) + "".join(more)


@pytest.mark.parametrize("name", ["chromium-session", "firefox-session"])
def test_a_pool_grows_and_nothing_old_moves(name: str) -> None:
    before = made_of(name, SESSION)
    text = with_pairs(offer(name).decode(), 16)
    made = negotiate(parse_offer(text.encode()), SESSION, before)
    assert made.accepted[: len(before.accepted)] == before.accepted
    found = changes(made, before)
    assert (found.receive, found.ended) == ((), ())
    pairs = [(kind, n) for n in range(9, 25) for kind in (Kind.AUDIO, Kind.VIDEO)]
    assert [(a.kind, a.pair) for a in found.send] == pairs
    assert f" {made.version} IN IP4" in render(made, LOCAL).split("\r\n")[1]
    assert made.version == 2
    again = negotiate(parse_offer(text.encode()), SESSION, made)
    assert (again.accepted, again.version) == (made.accepted, 3)


def test_a_track_ends_and_another_comes() -> None:
    text = offer("chromium-session").decode()
    before = negotiate(parse_offer(text.encode()), SESSION)
    head, *sections = text.split("m=")
    video = sections[1]
    ended = video.replace("a=sendonly", "a=inactive")
    bundle = head.split("a=group:BUNDLE ")[1].split("\r\n")[0]
    after = (
        text.replace(bundle, f"{bundle} 23", 1).replace(video, ended, 1)
        + "m="
        + video.replace("a=mid:1\r\n", "a=mid:23\r\n")
    )
    made = negotiate(parse_offer(after.encode()), SESSION, before)
    found = changes(made, before)
    assert [a.mid for a in found.ended] == ["1"]
    assert [a.mid for a in found.receive] == ["23"]
    assert made.send == before.send


def swapped(text: str) -> str:
    head, *sections = text.split("m=")
    sections[0], sections[2] = sections[2], sections[0]
    return "m=".join([head, *sections])


CHANGED = {
    "fewer": lambda text: text[: text.rindex("m=audio")],
    "has become": swapped,
    "cannot be recvonly": lambda text: _third(text, "a=recvonly", "a=sendonly"),
    "can no more": lambda text: _third(text, "a=recvonly", "a=inactive"),
    "payload types": lambda text: text.replace(" 111 ", " 112 ").replace(":111 ", ":112 "),
    "header extensions": lambda text: text.replace("a=extmap:4 ", "a=extmap:200 "),
    "other streams": lambda text: text.replace("send q;h;f", "send q;f"),
    "fingerprint": lambda text: text.replace("fingerprint:sha-256", "fingerprint:sha-384"),
}


def _third(text: str, old: str, new: str) -> str:
    head, *sections = text.split("m=")
    sections[2] = sections[2].replace(old, new)
    return "m=".join([head, *sections])


@pytest.mark.parametrize("why", CHANGED)
def test_what_was_agreed_on_does_not_change(why: str) -> None:
    text = offer("chromium-session").decode()
    before = negotiate(parse_offer(text.encode()), SESSION)
    changed = CHANGED[why](text)
    assert changed != text
    with pytest.raises(ProtocolError, match=why) as refused:
        negotiate(parse_offer(changed.encode()), SESSION, before)
    assert refused.value.code is ErrorCode.BAD_MESSAGE


def test_a_line_that_rests_may_be_used_again() -> None:
    """A port of 0 in the answer would stop it for good (RFC 8829 section 5.10)."""
    text = offer("chromium-session").decode()
    made = negotiate(parse_offer(text.encode()), SESSION)
    video = text.split("m=")[2]
    resting = text.replace(video, video.replace("a=sendonly", "a=inactive"), 1)
    again = negotiate(parse_offer(resting.encode()), SESSION, made)
    assert [a.mid for a in again.receive] == ["0"]
    answer = sdp_transform.parse(render(again, LOCAL))
    section = answer["media"][1]
    assert (section["port"], section["direction"], section["setup"]) == (9, "inactive", "passive")
    assert section["payloads"] == sdp_transform.parse(text)["media"][1]["payloads"]
    assert answer["groups"] == sdp_transform.parse(text)["groups"]
    once_more = negotiate(parse_offer(text.encode()), SESSION, again)
    assert [a.mid for a in once_more.receive] == ["0", "1"]
