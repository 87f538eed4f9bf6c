"""Header bytes, VLAN unwrapping and probe limits of the netlink mirror; no kernel needed."""

from __future__ import annotations

import pytest

from forwarder.net import mirror as mirrors
from forwarder.net.header import build_header
from forwarder.net.links import Link
from forwarder.net.mirror import GIVE_UP_S, Mirror
from forwarder.net.neighbours import (
    NUD_REACHABLE,
    NUD_STALE,
    PROBE_BURST,
    PROBE_HOST_S,
    Neighbour,
    Prober,
)

A, B = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")


@pytest.mark.parametrize(
    ("vlan", "local", "remote", "expected"),
    [
        (
            None,
            ("192.0.2.1", 4433),
            ("192.0.2.2", 5000),
            "020000000002 020000000001 0800"
            "45000000 00004000 40110000 c0000201 c0000202"
            "1151 1388 0000 0000",
        ),
        (
            5,
            ("192.0.2.1", 4433),
            ("192.0.2.2", 5000),
            "020000000002 020000000001 8100 0005 0800"
            "45000000 00004000 40110000 c0000201 c0000202"
            "1151 1388 0000 0000",
        ),
        (
            None,
            ("2001:db8::1", 1),
            ("2001:db8::2", 2),
            "020000000002 020000000001 86dd"
            "60000000 0000 11 40 20010db8000000000000000000000001 20010db8000000000000000000000002"
            "0001 0002 0000 0000",
        ),
    ],
)
def test_header_bytes(vlan, local, remote, expected):
    l3_off, header = build_header(A, B, vlan, local, remote)
    assert header == bytes.fromhex(expected)
    assert l3_off == (14 if vlan is None else 18)


def test_a_vlan_interface_is_carried_by_its_parent():
    mirror = Mirror(["eth0"])
    parent = Link(2, "eth0", A, True, True)
    tagged = Link(7, "eth0.5", B, True, True, parent=2, vlan=5)
    mirror._links = {2: parent, 7: tagged}
    assert mirror._bearer(tagged) == (parent, 5)
    assert mirror._bearer(parent) == (parent, None)


def test_probes_are_limited_for_each_host_and_in_all():
    prober = Prober()
    try:
        assert prober.probe((1, "127.0.0.1"), 100.0)
        assert not prober.probe((1, "127.0.0.1"), 100.0 + PROBE_HOST_S / 2)
        assert prober.probe((1, "127.0.0.1"), 100.0 + PROBE_HOST_S)
        sent = sum(prober.probe((1, f"127.0.1.{i}"), 200.0) for i in range(PROBE_BURST + 10))
        assert sent == PROBE_BURST
    finally:
        prober.close()


def test_who_is_probed_again():
    """Silent ones until nobody asks any more, stale ones now and then, living ones never."""
    mirror = Mirror()
    silent, stale, alive = (1, "192.0.2.1"), (1, "192.0.2.2"), (1, "192.0.2.3")
    mirror._neighbours = {
        stale: Neighbour(stale, A, NUD_STALE),
        alive: Neighbour(alive, A, NUD_REACHABLE),
    }
    mirror._asked = dict.fromkeys((silent, stale, alive), 100.0)
    mirror._turn = 1
    assert mirror._to_probe(100.5) == [silent]
    assert mirror._to_probe(100.0 + GIVE_UP_S) == []
    mirror._turn = 0
    assert mirror._to_probe(100.0 + GIVE_UP_S) == [stale]


def test_watched_next_hops_are_limited(monkeypatch):
    monkeypatch.setattr(mirrors, "WATCHED_MAX", 3)
    mirror = Mirror()
    for i in range(5):
        mirror._watch((1, f"192.0.2.{i}"), None)
    assert [hop[1] for hop in mirror._watched] == ["192.0.2.2", "192.0.2.3", "192.0.2.4"]
    assert mirror._asked.keys() == mirror._watched.keys()
