"""The lab's books, without a browser: what is counted, and what is a fault."""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from forwarder.demo.browser import capture
from forwarder.demo.browser.machine import idle_share, unread
from forwarder.demo.browser.options import BrowserOptions
from forwarder.demo.browser.pace import Seen
from forwarder.demo.browser.result import Evidence, conclude, frames_lost
from forwarder.demo.namespaces import Host


def rtp(**more: Any) -> list[dict[str, Any]]:
    return [{"kind": "video", "codec": "video/VP8", **more}, {"kind": "audio", **more}]


def connection(streams: list[dict[str, Any]]) -> dict[str, Any]:
    transport = {"srtpCipher": "SRTP_AEAD_AES_128_GCM"}
    return {"state": "connected", "transport": transport, "rtp": streams}


def browser(me: int, other: int) -> Seen:
    frames = list(range(1, 101))
    sent = [(6000 * number, number) for number in frames]
    seen = [((rtp + 5) % 2**32, number) for rtp, number in sent]
    incoming = rtp(packetsReceived=200, packetsLost=0, totalAudioEnergy=0.5, freezeCount=0)
    incoming[0].update(framesDecoded=100, frameWidth=320, frameHeight=180)
    snapshot = {
        "publish": connection(rtp(packetsSent=200)),
        "encoded": sent,
        "painted": 101,
        "due": 101,
        "pause_ms": 90.0,
        "session": {"restarts": 0},
        "views": [
            {
                "from": other,
                "wrong": 0,
                "wrong_seen": [],
                "rendered": seen,
                "decoded": frames,
                "unread": [],
                "each_decoded": True,
                "received": [],
                "state": "playing",
                "statistics": connection(incoming),
            }
        ],
    }
    return Seen(me, "chromium", "1", snapshot, [10.0])


def status(routed: int, stun: int) -> dict[str, Any]:
    zero = dict.fromkeys(("consumed", "queued", "rx_socket", "xsk_rx_dropped"), 0)
    return {
        "path": "xdp-native",
        "counters": {
            **zero,
            "rx": routed,
            "rx_xsk": routed,
            "routed": routed,
            "copies": routed,
            "transmitted": routed,
        },
        "drops": {"replayed": 0},
        "copy_drops": {},
        "balanced": True,
        "imbalance": "",
        "steering": {
            "verdicts": {"redirect_media": routed, "drop_unknown_flow": 3, "pass_stun": 9},
            "select_verdicts": {},
        },
        "slow_path": {"stun": stun, "dtls": 4},
        "dataplane": {"restarts": 1},
    }


def evidence() -> Evidence:
    return Evidence(
        BrowserOptions(seconds=5),
        [browser(1, 2), browser(2, 1)],
        before=status(0, 0),
        media=status(800, 10),
        after=status(800, 12),
        kernel_udp_datagrams=12,
        node_exit=0,
        node_log="the end",
        delete_statuses=[200, 200],
    )


def test_a_good_call_has_no_fault() -> None:
    outcome = conclude(evidence())
    assert outcome.faults == []
    assert outcome.report["accounting_balanced"] is True
    assert outcome.report["drops"] == {"drop_unknown_flow": 3}
    good = evidence()
    good.after["copy_drops"] = {"stale": 2, "late": 0}
    assert conclude(good).report["drops"] == {"drop_unknown_flow": 3, "copy_stale": 2}
    assert outcome.report["kernel_udp_explained"] == {"stun": 12, "dtls": 0, "quic": 0}
    assert (outcome.report["media_packets_in"], outcome.report["join_ms"]) == (800, [10.0, 10.0])


def view(good: Evidence) -> Any:
    return good.browsers[0].snapshot["views"][0]


def decode(view: Any, *numbers: int) -> None:
    """The viewer decoded these frames and no others."""
    view["decoded"] = list(numbers)
    view["statistics"]["rtp"][0]["framesDecoded"] = len(numbers)


# What a slow machine causes too.
UNSTEADY = {
    "only 1 of 75 frames",
    "frames_lost 97",
    "freezes 1",
    "packets_lost 2",
    "2 restarted ICE 4 times",
}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda e: view(e).update(wrong=1, wrong_seen=["x"]), "a wrong code"),
        (lambda e: view(e).update(rendered=[[6005, 1]]), "only 1 of 75 frames"),
        (lambda e: decode(view(e), 1, 3, 100), "frames_lost 97"),
        (lambda e: view(e).update(rendered=[[6005, 999]] * 80), "only 0 of 80 frames that were"),
        (lambda e: view(e)["rendered"].append((7777, 101)), "only 100 of 101 frames that were"),
        (lambda e: view(e)["statistics"].update(state="failed"), "lost a connection"),
        (lambda e: e.browsers[1].snapshot["session"].update(restarts=4), "2 restarted ICE 4 times"),
        (lambda e: view(e)["statistics"]["rtp"][0].update(freezeCount=1), "freezes 1"),
        (lambda e: view(e)["statistics"]["rtp"][0].update(codec="video/AV1"), "codec is av1"),
        (lambda e: view(e)["statistics"]["rtp"][1].update(totalAudioEnergy=0), "no audio_energy"),
        (lambda e: view(e)["statistics"]["rtp"][1].update(packetsLost=2), "packets_lost 2"),
        (lambda e: view(e)["statistics"]["rtp"][1].update(packetsReceived=900), "received 1500"),
        (lambda e: e.browsers[0].snapshot.update(views=[]), "1 pairs, not 2"),
        (lambda e: e.delete_statuses.append(404), "DELETE was answered [404]"),
        (lambda e: setattr(e, "node_exit", 1), "exit status 1"),
        (lambda e: setattr(e, "kernel_udp_datagrams", 13), "kernel = explained: 13 is not 12"),
        (lambda e: e.after["counters"].update(rx_socket=5), "kernel's way: 5"),
        (lambda e: e.after["counters"].update(rx=801), "routed + consumed + dropped"),
        (lambda e: e.after["counters"].update(queued=1), "transmitted + queued"),
        (lambda e: e.after["steering"]["verdicts"].update(redirect_media=801), "steered"),
        (lambda e: e.after.update(balanced=False, imbalance="x"), "own books: x"),
        (lambda e: e.after["dataplane"].update(restarts=2), "was restarted (1): the end"),
        (lambda e: e.media["counters"].update(routed=1000), "routed 1000, but"),
    ],
)
def test_each_fault_is_told_and_few_are_excused(damage: Any, words: str) -> None:
    bad = copy.deepcopy(evidence())
    damage(bad)
    outcome = conclude(bad)
    assert any(words in fault for fault in outcome.faults), outcome.faults
    excused = words in UNSTEADY
    assert any(words in fault for fault in outcome.unsteady) == excused
    assert (outcome.broken == []) == excused


def test_layers_skip_frames_each_by_itself() -> None:
    """What the shown one's encoder left out is told, and no fault; what is lost on the way is."""
    good = evidence()
    good.options = replace(good.options, simulcast_by=2)
    decode(view(good), 1, 3, 100)
    outcome = conclude(good)
    assert outcome.faults == []
    assert outcome.report["pairs"][0]["frames_lost"] == 97
    view(good)["rendered"].append((7777, 101))  # of the other layer
    assert conclude(good).faults == []
    view(good).update(rendered=[(7777, 999)] * 80)
    assert any("only 0 of 80 frames" in fault for fault in conclude(good).faults)
    view(good)["statistics"]["rtp"][1].update(packetsLost=2)
    assert any("packets_lost 2" in fault for fault in conclude(good).faults)
    view(good)["statistics"]["rtp"][0].update(freezeCount=1)
    assert any("freezes 1" in fault for fault in conclude(good).faults)


def test_lost_frames_are_counted_between_the_first_and_the_last_decoded() -> None:
    start, offset = 2**32 - 7000, 12345

    def at(*numbers: int, shift: int = 0) -> list[tuple[int, int]]:
        return [((start + 6000 * n + shift) % 2**32, n) for n in numbers]

    sent = at(1, 2, 3, 4, 5, 6)
    assert frames_lost(sent, at(2, 3, 5, shift=offset), [2, 3, 5], [], 3) == 1
    assert frames_lost(sent, at(2, 5, shift=offset), [2, 3, 4, 5], [], 4) == 0
    assert frames_lost(sent, at(2, 3, 4, shift=offset), [2, 3, 4], [], 3) == 0
    # Decoded, and its code was not legible; decoded, and given to nobody.
    there = [rtp for rtp, _ in at(1, 3, shift=offset)]
    assert frames_lost(sent, at(2, 5, shift=offset), [2, 4, 5], there, 5) == 0
    assert frames_lost(sent, at(2, 5, shift=offset), [2, 5], there, 4) == 1
    assert frames_lost(sent, at(2, 5, shift=offset), [2, 5], there, 5) == 0
    # A browser that tells only what arrived whole, and how many frames it decoded.
    arrived = [rtp for rtp, _ in at(2, 3, 4, 5, 6, shift=offset)]
    assert frames_lost(sent, at(2, 5, shift=offset), [2, 5], arrived, 5) == 0
    assert frames_lost(sent, at(2, 5, shift=offset), [2, 5], arrived, 3) == 1
    assert frames_lost(sent, at(2, 5, shift=offset), [2, 5], arrived[:2], 3) == 1
    assert frames_lost(sent, [], [], [], 0) is None
    assert frames_lost([], at(2, 3), [2, 3], [], 2) is None
    assert frames_lost(sent, at(20, 30), [20, 30], [], 2) is None
    # Guesses that are off, as on a busy machine: 1, 3, 4 and 6 were encoded, not 2, 3, 4, 5.
    guessed = [(rtp, n) for (rtp, _), n in zip(at(1, 3, 4, 6), (2, 3, 4, 5), strict=True)]
    assert frames_lost(guessed, at(1, 3, 6, shift=offset), [1, 3, 4, 6], [], 4) == 0
    assert frames_lost(guessed, at(1, 3, 6, shift=offset), [1, 3, 6], [], 3) == 1


def test_the_share_of_idle_time() -> None:
    def stat(*ticks: int) -> str:
        return f"cpu  {' '.join(str(n) for n in ticks)} 0 0\ncpu0 9 9 9 9 9 9 9 9 0 0\n"

    # user nice system idle iowait irq softirq steal
    began = stat(1, 2, 3, 4, 5, 6, 7, 8)
    assert idle_share(began, stat(5, 2, 5, 5, 6, 6, 7, 8)) == 0.25
    assert idle_share(began, began) == 1.0


def test_captures_are_merged_in_order_of_time(tmp_path: Path) -> None:
    def record(ns: int, data: bytes) -> bytes:
        return capture._RECORD.pack(5, ns, len(data), len(data)) + data

    one, other, both = (tmp_path / name for name in ("one", "other", "both"))
    one.write_bytes(capture._HEADER + record(1, b"a") + record(3, b"ccc"))
    other.write_bytes(capture._HEADER + record(2, b"bb") + record(4, b"dddd")[:-1])
    assert capture.merge([one, other], both) == 3
    assert both.read_bytes() == (
        capture._HEADER + record(1, b"a") + record(2, b"bb") + record(3, b"ccc")
    )


@pytest.mark.root
def test_a_capture_sees_the_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "lo.pcap"
    monkeypatch.setattr(sys, "stdin", (tmp_path / "empty").open("w+"))
    capture.main("lo", str(file))
    ready, summary = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert ready == {"event": "ready"}
    assert summary["missed"] == 0
    assert capture.merge([file], tmp_path / "again") == summary["packets"]


def test_unread_datagrams_are_seen() -> None:
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        assert unread(Host("", "127.0.0.1"), port) == 0
        sock.sendto(b"x" * 100, ("127.0.0.1", port))
        assert unread(Host("", "127.0.0.1"), port) > 0
