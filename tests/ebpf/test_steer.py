"""BPF_PROG_TEST_RUN: verdict, bytes and counters of the steering program for each kind of frame."""

from __future__ import annotations

import struct

import pytest

from forwarder.dataplane import bpf
from forwarder.dataplane.steering import Flow
from forwarder.table import Tuple5

from . import packets
from .conftest import (
    CLIENT4,
    CLIENT6,
    CLIENT_PORT,
    FAMILIES,
    LOOPBACK,
    MEDIA,
    NODE4,
    NODE6,
    NODE_PORT,
    STUN,
    XDP_DROP,
    XDP_PASS,
    Harness,
    ours,
)
from .packets import ETH_IPV4, ETH_IPV6, ETH_QINQ, ETH_VLAN, eth, ipv4, ipv6, udp


def class_of(first: int) -> str:
    """RFC 7983 section 7 and RFC 9443 section 3, written out a second time on purpose."""
    for low, high, name in (
        (0, 3, "stun"),
        (20, 63, "dtls"),
        (64, 127, "quic"),
        (128, 191, "media"),
        (192, 255, "quic"),
    ):
        if low <= first <= high:
            return name
    return "none"


@pytest.mark.parametrize(("client", "node"), FAMILIES)
@pytest.mark.parametrize("known", [False, True])
def test_every_first_byte(harness: Harness, client: str, node: str, known: bool) -> None:
    if known:
        flow = Tuple5(client, CLIENT_PORT, node, NODE_PORT)
        harness.steering.set_flow(flow, Flow(leg=1, worker=0))
    for first in range(256):
        name = class_of(first)
        if name == "none":
            verdict, label = XDP_DROP, "drop_bad_class"
        elif name != "media":
            verdict, label = XDP_PASS, f"pass_{name}"
        elif known:
            verdict, label = XDP_PASS, "pass_no_xsk"
        else:
            verdict, label = XDP_DROP, "drop_unknown_flow"
        harness.expect(ours(client, node, bytes([first]) + b"rest"), verdict, label)


@pytest.mark.parametrize(("client", "node"), FAMILIES)
def test_empty_datagram_and_one_byte(harness: Harness, client: str, node: str) -> None:
    harness.expect(ours(client, node, b""), XDP_DROP, "drop_bad_class")
    harness.expect(ours(client, node, b"\x80"), XDP_DROP, "drop_unknown_flow")
    harness.expect(ours(client, node, b"\x00"), XDP_PASS, "pass_stun")


@pytest.mark.parametrize(("client", "node"), FAMILIES)
def test_every_destination_port(harness: Harness, client: str, node: str) -> None:
    data = bytearray(ours(client, node, MEDIA))
    at = data.index(struct.pack("!HH", CLIENT_PORT, NODE_PORT)) + 2
    dropped = []
    before = harness.steering.verdicts()
    for port in range(65536):
        struct.pack_into("!H", data, at, port)
        verdict, out = bpf.test_run(harness.steering._prog_fd, bytes(data), LOOPBACK)
        assert out == data
        if verdict != XDP_PASS:
            dropped.append((port, verdict))
    assert dropped == [(NODE_PORT, XDP_DROP)]
    after = harness.steering.verdicts()
    assert after["pass_not_ours"] - before["pass_not_ours"] == 65535
    assert after["drop_unknown_flow"] - before["drop_unknown_flow"] == 1
    assert sum(after.values()) - sum(before.values()) == 65536


def test_every_ethertype(harness: Harness) -> None:
    body = ipv4(CLIENT4, NODE4, udp(CLIENT4, NODE4, CLIENT_PORT, NODE_PORT, MEDIA))
    before = harness.steering.verdicts()
    answers = {proto: harness.run(eth(proto, body)) for proto in range(65536)}
    assert {proto for proto, verdict in answers.items() if verdict != XDP_PASS} == {ETH_IPV4}
    after = harness.steering.verdicts()
    moved = {label: after[label] - before[label] for label in after if after[label] - before[label]}
    # IPv6 with an IPv4 header inside is no IPv6; a VLAN tag here would be 0x4500, its ethertype
    # the datagram's length.
    assert moved == {"pass_not_ip": 65535, "drop_unknown_flow": 1}


KINDS = {
    "ipv4": ours(CLIENT4, NODE4, MEDIA),
    "ipv6": ours(CLIENT6, NODE6, MEDIA),
    "ipv4 in a VLAN": ours(CLIENT4, NODE4, MEDIA, (ETH_VLAN,)),
    "ipv6 in a VLAN": ours(CLIENT6, NODE6, MEDIA, (ETH_QINQ,)),
    "ipv4 in two VLANs": ours(CLIENT4, NODE4, MEDIA, (ETH_QINQ, ETH_VLAN)),
    "ipv6 in two VLANs": ours(CLIENT6, NODE6, MEDIA, (ETH_VLAN, ETH_VLAN)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_at_every_length(harness: Harness, kind: str) -> None:
    data = KINDS[kind]
    for size in range(14, len(data)):  # the kernel's test run takes no less than an Ethernet header
        harness.expect(data[:size], XDP_PASS, "pass_truncated")
    harness.expect(data, XDP_DROP, "drop_unknown_flow")
    harness.expect(data + bytes(18), XDP_DROP, "drop_unknown_flow")  # Ethernet pads


def datagram4(payload: bytes = MEDIA) -> bytes:
    return udp(CLIENT4, NODE4, CLIENT_PORT, NODE_PORT, payload)


def datagram6(payload: bytes = MEDIA) -> bytes:
    return udp(CLIENT6, NODE6, CLIENT_PORT, NODE_PORT, payload)


def v4(fragment: int = 0, options: bytes = b"", proto: int = packets.UDP) -> bytes:
    body = datagram4()
    return eth(
        ETH_IPV4, ipv4(CLIENT4, NODE4, body, fragment=fragment, options=options, proto=proto)
    )


def patched(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


PLAIN4, PLAIN6 = KINDS["ipv4"], KINDS["ipv6"]
IP_AT = 14
UDP4_AT, UDP6_AT = IP_AT + 20, IP_AT + 40

CASES = {
    "do not fragment": (v4(0x4000), XDP_DROP, "drop_unknown_flow"),
    "first fragment": (v4(0x2000), XDP_PASS, "pass_complex"),
    "middle fragment": (v4(0x2010), XDP_PASS, "pass_complex"),
    "last fragment": (v4(0x0010), XDP_PASS, "pass_complex"),
    "IPv4 options": (v4(options=b"\x01" * 4), XDP_PASS, "pass_complex"),
    "all the options there can be": (v4(options=b"\x01" * 40), XDP_PASS, "pass_complex"),
    "header length below 5": (patched(PLAIN4, IP_AT, b"\x44"), XDP_PASS, "pass_complex"),
    "TCP": (v4(proto=packets.TCP), XDP_PASS, "pass_not_udp"),
    "ICMP with options": (v4(options=b"\x01" * 4, proto=1), XDP_PASS, "pass_not_udp"),
    "version 5 in an IPv4 frame": (patched(PLAIN4, IP_AT, b"\x55"), XDP_PASS, "pass_not_ip"),
    "version 4 in an IPv6 frame": (patched(PLAIN6, IP_AT, b"\x40"), XDP_PASS, "pass_not_ip"),
    "IPv4 total length below its header": (
        patched(PLAIN4, IP_AT + 2, b"\0\x13"),
        XDP_PASS,
        "pass_truncated",
    ),
    "IPv4 total length beyond the frame": (
        patched(PLAIN4, IP_AT + 2, struct.pack("!H", len(PLAIN4) - IP_AT + 1)),
        XDP_PASS,
        "pass_truncated",
    ),
    "IPv6 payload length 0": (patched(PLAIN6, IP_AT + 4, b"\0\0"), XDP_PASS, "pass_truncated"),
    "UDP length below its header": (
        patched(PLAIN4, UDP4_AT + 4, b"\0\x07"),
        XDP_PASS,
        "pass_truncated",
    ),
    "UDP length beyond the packet": (
        patched(PLAIN4, UDP4_AT + 4, struct.pack("!H", 9 + len(MEDIA))),
        XDP_PASS,
        "pass_truncated",
    ),
    "UDP length 0 on IPv6": (patched(PLAIN6, UDP6_AT + 4, b"\0\0"), XDP_PASS, "pass_truncated"),
    "UDP shorter than its packet": (
        patched(PLAIN4, UDP4_AT + 4, b"\0\x09"),
        XDP_DROP,
        "drop_unknown_flow",
    ),
    "IPv6 TCP": (
        eth(ETH_IPV6, ipv6(CLIENT6, NODE6, datagram6(), proto=packets.TCP)),
        XDP_PASS,
        "pass_not_udp",
    ),
    "mapped source in IPv6": (
        eth(ETH_IPV6, ipv6(f"::ffff:{CLIENT4}", NODE6, datagram6())),
        XDP_PASS,
        "pass_not_ours",
    ),
    "mapped target in IPv6": (
        eth(ETH_IPV6, ipv6(CLIENT6, f"::ffff:{NODE4}", datagram6())),
        XDP_PASS,
        "pass_not_ours",
    ),
    "another local address": (ours(CLIENT4, "192.0.2.2", MEDIA), XDP_PASS, "pass_not_ours"),
    "ARP": (eth(packets.ETH_ARP, bytes(28)), XDP_PASS, "pass_not_ip"),
    "LLDP": (eth(0x88CC, bytes(46)), XDP_PASS, "pass_not_ip"),
    "802.3 length": (eth(46, bytes(46)), XDP_PASS, "pass_not_ip"),
    **{
        f"IPv6 extension header {number}": (
            eth(
                ETH_IPV6,
                ipv6(CLIENT6, NODE6, bytes([17, 0]) + bytes(6) + datagram6(), proto=number),
            ),
            XDP_PASS,
            "pass_complex",
        )
        for number in packets.IPV6_EXTENSIONS
    },
    **{
        f"{len(tags)} VLAN tags, {client}": (
            ours(client, node, STUN, tags),
            XDP_PASS,
            "pass_stun" if len(tags) < 3 else "pass_not_ip",
        )
        for tags in ((), (ETH_VLAN,), (ETH_QINQ, ETH_VLAN), (ETH_QINQ, ETH_VLAN, ETH_VLAN))
        for client, node in FAMILIES
    },
}


@pytest.mark.parametrize("case", CASES)
def test_case(harness: Harness, case: str) -> None:
    data, verdict, label = CASES[case]
    harness.expect(data, verdict, label)


def test_with_no_table_all_passes(load: object) -> None:
    """vcfwd loaded and nothing configured behaves as if vcfwd were absent."""
    steering = load()  # type: ignore[operator]
    for data in (*KINDS.values(), *(data for data, _, _ in CASES.values())):
        assert bpf.test_run(steering._prog_fd, data, LOOPBACK) == (XDP_PASS, data)


def test_flow_is_its_whole_5_tuple(harness: Harness) -> None:
    flow = Tuple5(CLIENT4, CLIENT_PORT, NODE4, NODE_PORT)
    harness.steering.set_flow(flow, Flow(1, 0))
    harness.expect(PLAIN4, XDP_PASS, "pass_no_xsk")
    other_port = packets.frame(CLIENT4, NODE4, CLIENT_PORT + 1, NODE_PORT, MEDIA)
    harness.expect(other_port, XDP_DROP, "drop_unknown_flow")
    harness.expect(ours("198.51.100.8", NODE4, MEDIA), XDP_DROP, "drop_unknown_flow")
    assert harness.steering.del_flow(flow)
    harness.expect(PLAIN4, XDP_DROP, "drop_unknown_flow")
    assert not harness.steering.del_flow(flow)


def test_tables_read_back(harness: Harness) -> None:
    steering = harness.steering
    wanted = {
        Tuple5(CLIENT4, 1, NODE4, NODE_PORT): Flow(1, 0),
        Tuple5(CLIENT6, 65535, NODE6, NODE_PORT): Flow(4_000_000_000, 15, 1 << 39, 7),
    }
    for key, flow in wanted.items():
        steering.set_flow(key, flow)
    assert steering.flows() == wanted
    assert steering.del_listen(NODE4, NODE_PORT) and not steering.del_listen(NODE4, NODE_PORT)
    harness.expect(PLAIN4, XDP_PASS, "pass_not_ours")
