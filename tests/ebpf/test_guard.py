"""The guard: floods are refused, clients behind one address are not, flows are policed."""

from __future__ import annotations

import struct
import time

import pytest

from forwarder.dataplane import bpf, steering_abi
from forwarder.dataplane.steering import Flow, Rates
from forwarder.table import Tuple5

from .conftest import (
    CLIENT4,
    CLIENT6,
    CLIENT_PORT,
    FAMILIES,
    MEDIA,
    NODE4,
    NODE6,
    NODE_PORT,
    STUN,
    XDP_DROP,
    XDP_PASS,
    Harness,
    Loader,
    Spare,
    ours,
)
from .packets import frame

CLIENTS = 1000
NAT, FLOODER = "203.0.113.9", "198.51.100.66"

# One token a second: what comes back by itself is what `spare` tells.
STILL = Rates(
    flow_bytes_per_s=1,
    flow_burst_bytes=262_144,
    flow_packets_per_s=1,
    flow_burst_packets=100,
    control_packets_per_s=1,
    control_burst_packets=30,
    admitted_packets_per_s=1,
    admitted_burst_packets=20,
    prefix_packets_per_s=1,
    prefix_burst_packets=10,
)


@pytest.fixture
def still(load: Loader) -> Harness:
    return Harness(load(STILL))


def test_1000_clients_behind_one_address_beside_a_flood(harness: Harness) -> None:
    """With default rates, first sight included: every client gets its STUN check through."""
    flood = frame(FLOODER, NODE4, 1, NODE_PORT, STUN)
    sent = 20_000
    passed = harness.burst(flood, sent)
    dropped = harness.steering.verdicts()["drop_prefix_rate"]
    assert dropped == sent - passed > 0
    assert passed >= Rates().prefix_burst_packets
    clients = [frame(NAT, NODE4, 10_000 + i, NODE_PORT, STUN) for i in range(CLIENTS)]
    assert all(harness.run(data) == XDP_PASS for data in clients)
    assert harness.steering.verdicts()["drop_prefix_rate"] == dropped


def test_admitted_clients_do_not_pay_for_their_prefix(still: Harness, spare: Spare) -> None:
    """The flood comes from the very prefix of the admitted clients."""
    for i in range(CLIENTS):
        still.steering.admit(Tuple5(NAT, 10_000 + i, NODE4, NODE_PORT))
    flood = frame(NAT, NODE4, 9, NODE_PORT, STUN)
    assert 10 <= still.burst(flood, 500) <= 10 + spare()
    for i in range(CLIENTS):
        assert still.burst(frame(NAT, NODE4, 10_000 + i, NODE_PORT, STUN), 5) == 5
    loud = frame(NAT, NODE4, 10_000, NODE_PORT, STUN)
    assert 15 <= still.burst(loud, 100) <= 15 + spare()  # 5 of its 20 are spent
    assert still.steering.verdicts()["drop_control_rate"] >= 100 - 15 - spare()
    assert still.steering.dismiss(Tuple5(NAT, 10_001, NODE4, NODE_PORT))
    quiet = frame(NAT, NODE4, 10_001, NODE_PORT, STUN)
    before = still.steering.verdicts()["drop_prefix_rate"]
    passed = still.burst(quiet, 40)
    assert passed <= spare()  # of the 15 that it has left itself it may use none
    assert still.steering.verdicts()["drop_prefix_rate"] - before == 40 - passed


@pytest.mark.parametrize(
    ("one", "same", "other", "node"),
    [
        ("203.0.113.1", "203.0.113.254", "203.0.112.1", NODE4),
        ("2001:db8:aa:1100::1", "2001:db8:aa:11ff:f::1", "2001:db8:aa:1200::1", NODE6),
    ],
)
def test_prefix_width(
    still: Harness, spare: Spare, one: str, same: str, other: str, node: str
) -> None:
    """IPv4 /24, IPv6 /56: neighbours share a bucket, the next prefix has its own."""
    assert 10 <= still.burst(ours(one, node, STUN), 40) <= 10 + spare()
    assert still.burst(ours(same, node, STUN), 40) <= spare()
    assert 10 <= still.burst(ours(other, node, STUN), 40) <= 10 + spare()


@pytest.mark.parametrize(("client", "node"), FAMILIES)
def test_classes_have_buckets_of_their_own(
    still: Harness, spare: Spare, client: str, node: str
) -> None:
    for first in (0, 20, 64):  # STUN, DTLS, QUIC
        data = ours(client, node, bytes([first]) * 30)
        assert 10 <= still.burst(data, 40) <= 10 + spare()
    assert still.burst(ours(client, node, b"\xc0" * 30), 40) <= spare()  # QUIC again: long header


def test_control_of_a_known_flow_is_charged_to_the_flow(still: Harness, spare: Spare) -> None:
    still.steering.set_flow(Tuple5(CLIENT4, CLIENT_PORT, NODE4, NODE_PORT), Flow(1, 0))
    assert 30 <= still.burst(ours(CLIENT4, NODE4, STUN), 60) <= 30 + spare()
    assert still.steering.verdicts()["drop_control_rate"] >= 30 - spare()
    neighbour = frame(CLIENT4, NODE4, 1, NODE_PORT, STUN)
    assert still.burst(neighbour, 10) == 10  # the prefix has paid nothing
    still.expect(ours(CLIENT4, NODE4, MEDIA), XDP_PASS, "pass_no_xsk")  # nor has the media


def test_flow_packets_are_policed(still: Harness, spare: Spare) -> None:
    for client, node in FAMILIES:
        still.steering.set_flow(Tuple5(client, CLIENT_PORT, node, NODE_PORT), Flow(1, 0))
    assert 100 <= still.burst(ours(CLIENT4, NODE4, MEDIA), 300) <= 100 + spare()
    assert still.steering.verdicts()["drop_flow_rate"] >= 200 - spare()
    assert still.burst(ours(CLIENT6, NODE6, MEDIA), 100) == 100  # another flow, another bucket


def test_flow_bytes_are_policed(load: Loader) -> None:
    harness = Harness(load(Rates(flow_bytes_per_s=1, flow_burst_bytes=262_144)))
    harness.steering.set_flow(Tuple5(CLIENT4, CLIENT_PORT, NODE4, NODE_PORT), Flow(1, 0))
    whole, rest = divmod(262_144, 1200)
    assert harness.burst(ours(CLIENT4, NODE4, b"\x80" * 1200), whole + 50) == whole
    still_fits = ours(CLIENT4, NODE4, b"\x80" * rest)
    harness.expect(still_fits, XDP_PASS, "pass_no_xsk")
    harness.expect(still_fits, XDP_DROP, "drop_flow_rate")


def test_a_key_frame_passes_at_once(harness: Harness) -> None:
    harness.steering.set_flow(Tuple5(CLIENT4, CLIENT_PORT, NODE4, NODE_PORT), Flow(1, 0))
    packets = 262_144 // 1200 + 1
    assert harness.burst(ours(CLIENT4, NODE4, b"\x80" * 1200), packets) == packets


def test_flow_limits_beat_the_defaults(harness: Harness) -> None:
    """The flow's own rate refills; the depth stays the program's."""
    key = Tuple5(CLIENT4, CLIENT_PORT, NODE4, NODE_PORT)
    harness.steering.set_flow(key, Flow(1, 0, bytes_per_s=1200, packets_per_s=10))
    harness.run(ours(CLIENT4, NODE4, MEDIA))
    began = time.monotonic()
    set_media_bucket(harness, key, seconds_ago=2.0, byte_tokens=0, packet_tokens=0)
    # Two seconds at 1200 bytes and 10 packets a second, and what this has taken.
    passed = harness.burst(ours(CLIENT4, NODE4, b"\x80" * 120), 40)
    assert 20 <= passed <= 20 + 10 * (time.monotonic() - began) + 1


def test_refill_stops_at_the_depth(still: Harness) -> None:
    key = Tuple5(CLIENT4, CLIENT_PORT, NODE4, NODE_PORT)
    still.steering.set_flow(key, Flow(1, 0, bytes_per_s=1 << 30, packets_per_s=1_000_000_000))
    still.run(ours(CLIENT4, NODE4, MEDIA))
    set_media_bucket(still, key, seconds_ago=3600, byte_tokens=0, packet_tokens=0)
    still.run(ours(CLIENT4, NODE4, MEDIA))
    _, byte_tokens, packet_tokens = media_bucket(still, key)
    assert byte_tokens == STILL.flow_burst_bytes - len(MEDIA)
    assert packet_tokens == (STILL.flow_burst_packets - 1) * 1000


def test_changing_a_flow_keeps_its_buckets(still: Harness, spare: Spare) -> None:
    key = Tuple5(CLIENT4, CLIENT_PORT, NODE4, NODE_PORT)
    still.steering.set_flow(key, Flow(1, 0))
    assert still.burst(ours(CLIENT4, NODE4, MEDIA), 100) == 100
    still.steering.set_flow(key, Flow(2, 1))
    assert still.burst(ours(CLIENT4, NODE4, MEDIA), 100) <= spare()
    assert still.steering.flows() == {key: Flow(2, 1)}


@pytest.mark.parametrize(
    "bad",
    [
        {"flow_burst_bytes": 262_143},
        {"prefix_burst_packets": 0},
        {"flow_burst_packets": 2_000_001},
        {"flow_packets_per_s": 1 << 32},
        {"flow_bytes_per_s": 0},
    ],
)
def test_rates_that_make_no_sense_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Rates(**bad)


MEDIA_BUCKET = struct.Struct("=QQII")


def media_bucket(harness: Harness, key: Tuple5) -> tuple[int, int, int]:
    fd = harness.steering.map_fds()["flows"]
    raw = bpf.lookup(fd, steering_abi.pack_flow_key(key), steering_abi.FLOW_BYTES)
    assert raw is not None
    last_ns, byte_tokens, packet_tokens, _ = MEDIA_BUCKET.unpack_from(
        raw, steering_abi.FLOW_HEAD.size
    )
    return last_ns, byte_tokens, packet_tokens


def set_media_bucket(
    harness: Harness, key: Tuple5, *, seconds_ago: float, byte_tokens: int, packet_tokens: int
) -> None:
    fd = harness.steering.map_fds()["flows"]
    raw = bpf.lookup(fd, steering_abi.pack_flow_key(key), steering_abi.FLOW_BYTES)
    assert raw is not None
    changed = bytearray(raw)
    last_ns = max(1, time.monotonic_ns() - int(seconds_ago * 1e9))
    bucket = (last_ns, byte_tokens, packet_tokens, 0)
    MEDIA_BUCKET.pack_into(changed, steering_abi.FLOW_HEAD.size, *bucket)
    bpf.update(fd, steering_abi.pack_flow_key(key), bytes(changed))
