"""How a status looks: what matters is there, zeros are not, nothing unknown is hidden."""

from __future__ import annotations

import json
from typing import Any

import pytest

from forwarder.cli import output

STATUS: dict[str, Any] = {
    "node": "one",
    "version": "0.1.0",
    "pid": 7,
    "uptime_s": 3725.5,
    "url": "https://127.0.0.1:4433",
    "path": "xdp-native",
    "why": "in0: the driver has no zero-copy",
    "selector": True,
    "interfaces": [{"name": "in0", "path": "xdp-native"}],
    "rooms": {"count": 2, "participants": 5, "active": 2, "passive": 3, "away": 0},
    "legs": {"count": 5, "live": 4, "unresolved": {"3": "no route to 192.0.2.9"}},
    "rates": {
        "rx_packets_per_s": 1000.0,
        "rx_bits_per_s": 2_500_000.0,
        "tx_packets_per_s": 12_345.6,
        "tx_bits_per_s": 12_500_000_000.0,
    },
    "counters": {"rx": 10},
    "drops": {"unknown_flow": 12_345, "replayed": 0},
    "copy_drops": {"queue_limit": 3, "gate_closed": 0},
    "workers": [
        {"counters": {"rx": 4, "consumed": 0}, "drops": {}, "copy_drops": {}},
        {"counters": {"rx": 6, "consumed": 0}, "drops": {}, "copy_drops": {}},
    ],
    "balanced": True,
    "imbalance": "",
    "memory": {
        "pools": {"legs": {"count": 5, "bytes": 30_720}, "sources": {"count": 0, "bytes": 0}},
        "supervisor_rss_mb": 88.5,
        "dataplane_rss_mb": 45.0,
    },
    "quic": {"quic_datagrams": 99, "quic_malformed": 0},
    "dataplane": {
        "pid": 80008,
        "restarts": 1,
        "last_gap_ms": 41.5,
        "crypto": "ipsec-mb",
        "scheduler": "fifo 2",
        "scheduler_why": "it is allowed",
    },
    "brand_new": {"inner": {"value": 77}},
}


def lines(capsys: pytest.CaptureFixture[str], status: dict[str, Any]) -> list[str]:
    output.emit_status(status)
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_what_matters(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    shown = lines(capsys, STATUS)
    for line in (
        "node one, version 0.1.0",
        "up 1 h 2 min",
        "data path xdp-native",
        "why in0: the driver has no zero-copy",
        "interfaces in0 (xdp-native)",
        "rooms 2, participants 5, active 2, passive 3",
        "legs 5, live 4, unresolved 3 no route to 192.0.2.9",
        "in 1,000 packets/s, 2.5 Mb/s",
        "out 12,346 packets/s, 12.5 Gb/s",
        "workers run fifo 2: it is allowed",
        "data plane pid 80008, restarts 1, last gap ms 41.5, crypto ipsec-mb",
        "balanced yes",
        "packet received unknown flow 12,345",
        "copy to be sent queue limit 3",
        "rx 4 6",
        "legs 5 30.0 KiB",
        "supervisor resident 88.5 MiB",
        "quic_datagrams 99",
        "inner.value 77",
    ):
        assert line in shown, (line, shown)
    text = "\n".join(shown)
    for zero in ("replayed", "gate closed", "consumed", "quic_malformed", "away"):
        assert zero not in text


def test_an_imbalance_is_loud(capsys: pytest.CaptureFixture[str]) -> None:
    shown = lines(capsys, {**STATUS, "balanced": False, "imbalance": "rx 10, accounted 9"})
    assert "balanced NO: rx 10, accounted 9" in shown


def test_a_quiet_node(capsys: pytest.CaptureFixture[str]) -> None:
    shown = lines(capsys, {"node": "", "path": "udp", "drops": {"replayed": 0}, "rooms": {}})
    assert shown == [
        "node -, version ?",
        "up 0 s",
        "data path udp",
        "rooms none",
        "",
        "drops: none",
    ]


@pytest.mark.parametrize("part", [None, [], {}, 0, "", [1, 2], {"a": None}, True])
def test_parts_of_any_shape(capsys: pytest.CaptureFixture[str], part: Any) -> None:
    """A newer node may tell what this command line does not know."""
    shown = lines(capsys, {"path": "udp", "future": part})
    assert "data path udp" in shown


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit_json({**STATUS, "name": "grüße"})
    assert json.loads(capsys.readouterr().out) == {**STATUS, "name": "grüße"}


@pytest.mark.parametrize(
    ("function", "value", "wanted"),
    [
        (output.bits, 999.0, "999 b/s"),
        (output.bits, 1000.0, "1.0 kb/s"),
        (output.size, 1023, "1,023 B"),
        (output.size, 2**30, "1.0 GiB"),
        (output.duration, 59.9, "59 s"),
        (output.duration, 60.0, "1 min 0 s"),
        (output.duration, 90_000.0, "1 d 1 h"),
        (output.text, None, "-"),
        (output.text, True, "yes"),
        (output.text, 1234567, "1,234,567"),
        (output.text, 0.5, "0.5"),
        (output.text, 1234.5, "1,234"),
    ],
)
def test_numbers(function: Any, value: Any, wanted: str) -> None:
    assert function(value) == wanted
