"""Header bytes, VLAN unwrapping and probe limits of the netlink mirror; no kernel needed."""

from __future__ import annotations

import pytest

from forwarder.net.header import build_header
from forwarder.net.links import Link
from forwarder.net.mirror import Mirror
from forwarder.net.neighbours import PROBE_BURST, PROBE_HOST_S, Prober

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
