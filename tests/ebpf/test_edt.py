"""The egress program that stamps departure times: by BPF_PROG_TEST_RUN, and attached to a veth.

Frames want to leave a second from now or later (`BASE`), so that times are exact: the clock of the
test run never passes them.
"""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from forwarder.dataplane import bpf, pacing_edt
from forwarder.dataplane.pacing_edt import EdtError, EdtPacer
from forwarder.net import qdiscs

from . import packets
from .conftest import CLIENT4, CLIENT6, CLIENT_PORT, NODE4, NODE6, NODE_PORT, ROOT
from .netns_env import CLIENT4 as LIVE_CLIENT4
from .netns_env import Pair, inside, pair

OK, SHOT = 0, 2  # TC_ACT_OK, TC_ACT_SHOT
MS = 1_000_000
FAMILIES = ((NODE4, CLIENT4), (NODE6, CLIENT6))
RATE = 1_000_000  # bytes a second: a frame of 1000 bytes each millisecond


def out(
    node: str, client: str, size: int = 1000, port: int = CLIENT_PORT, **other: object
) -> bytes:
    """A frame of `size` bytes from the node to a client."""
    headers = 14 + (20 if ":" not in node else 40) + 8 + 4 * len(other.get("vlans", ()))  # type: ignore[arg-type]
    made = packets.frame(node, client, NODE_PORT, port, bytes(size - headers), **other)  # type: ignore[arg-type]
    assert len(made) == size
    return made


@pytest.fixture
def pacer(bpffs: Path) -> Iterator[EdtPacer]:
    with EdtPacer() as made:
        yield made


@pytest.fixture
def netns(bpffs: Path) -> Iterator[Pair]:
    with pair() as made:
        yield made


@pytest.fixture
def base() -> int:
    return time.monotonic_ns() + 60_000 * MS


def departures(pacer: EdtPacer, frames: list[bytes], at: int) -> list[int]:
    """When each leaves, as ns after `at`, at which all of them want to; -1: dropped."""
    left = []
    for frame in frames:
        action, tstamp = bpf.test_run_tc(pacer.prog_fd, frame, at)
        left.append(-1 if action == SHOT else tstamp - at)
    return left


def moved(pacer: EdtPacer, before: dict[str, int]) -> dict[str, int]:
    return {k: v - before[k] for k, v in pacer.outcomes().items() if v != before[k]}


@pytest.mark.parametrize(("node", "client"), FAMILIES)
@pytest.mark.parametrize("vlans", [(), (packets.ETH_VLAN,), (packets.ETH_QINQ, packets.ETH_VLAN)])
def test_packets_of_a_flow_are_spaced_by_their_size(
    pacer: EdtPacer, base: int, node: str, client: str, vlans: tuple[int, ...]
) -> None:
    pacer.set_rate((client, CLIENT_PORT), NODE_PORT, RATE)
    sizes = (1000, 500, 250, 1000)
    frames = [out(node, client, size, vlans=vlans) for size in sizes]
    assert departures(pacer, frames, base) == [0, 1 * MS, 1 * MS + MS // 2, 1 * MS + 3 * MS // 4]
    assert moved(pacer, dict.fromkeys(pacing_edt.OUTCOMES, 0)) == {"at_once": 1, "stamped": 3}


def test_after_a_pause_a_flow_leaves_at_once_and_nothing_is_saved_up(
    pacer: EdtPacer, base: int
) -> None:
    pacer.set_rate((CLIENT4, CLIENT_PORT), NODE_PORT, RATE)
    frames = [out(NODE4, CLIENT4)] * 3
    assert departures(pacer, frames, base) == [0, MS, 2 * MS]
    assert departures(pacer, frames, base + 1000 * MS) == [0, MS, 2 * MS]


def test_a_burst_leaves_at_once_and_is_paid_for(pacer: EdtPacer, base: int) -> None:
    pacer.set_rate((CLIENT4, CLIENT_PORT), NODE_PORT, RATE, burst_ns=3 * MS)
    frames = [out(NODE4, CLIENT4)] * 7
    assert departures(pacer, frames, base) == [0, 0, 0, 0, 1 * MS, 2 * MS, 3 * MS]
    # The long-term rate is kept: 4 ms later the debt is paid, but no new burst is there.
    assert departures(pacer, frames[:3], base + 4 * MS) == [0, 1 * MS, 2 * MS]


def test_flows_do_not_wait_for_each_other(pacer: EdtPacer, base: int) -> None:
    for port, rate in ((1, RATE), (2, RATE // 2)):
        pacer.set_rate((CLIENT4, port), NODE_PORT, rate)
    pacer.set_rate((CLIENT6, 1), NODE_PORT, RATE)
    frames = [
        frame
        for _ in range(3)
        for frame in (
            out(NODE4, CLIENT4, port=1),
            out(NODE4, CLIENT4, port=2),
            out(NODE6, CLIENT6, port=1),
        )
    ]
    left = departures(pacer, frames, base)
    assert left[0::3] == left[2::3] == [0, MS, 2 * MS]
    assert left[1::3] == [0, 2 * MS, 4 * MS]


def test_a_senders_own_time_is_a_lower_bound(pacer: EdtPacer, base: int) -> None:
    pacer.set_rate((CLIENT4, CLIENT_PORT), NODE_PORT, RATE)
    frame = out(NODE4, CLIENT4)
    assert bpf.test_run_tc(pacer.prog_fd, frame, base) == (OK, base)
    assert bpf.test_run_tc(pacer.prog_fd, frame, base + 5 * MS) == (OK, base + 5 * MS)
    assert bpf.test_run_tc(pacer.prog_fd, frame, base) == (OK, base + 6 * MS)


def test_without_a_time_of_its_own_a_packet_counts_from_now(pacer: EdtPacer) -> None:
    pacer.set_rate((CLIENT4, CLIENT_PORT), NODE_PORT, RATE // 1000)  # a second for each frame
    frame = out(NODE4, CLIENT4)
    slow = 200  # bytes: 0.2 s, within the horizon
    before = time.monotonic_ns()
    assert bpf.test_run_tc(pacer.prog_fd, out(NODE4, CLIENT4, slow), 0) == (OK, 0)
    after = time.monotonic_ns()
    action, tstamp = bpf.test_run_tc(pacer.prog_fd, frame, 0)
    if action == OK and tstamp:  # unless this machine stood still for a fifth of a second
        assert before + 200 * MS <= tstamp <= after + 200 * MS


def test_beyond_the_horizon_is_dropped_and_takes_no_room(pacer: EdtPacer, base: int) -> None:
    pacer.set_rate((CLIENT4, CLIENT_PORT), NODE_PORT, RATE // 100)  # 100 ms each
    frame = out(NODE4, CLIENT4)
    before = pacer.outcomes()
    assert departures(pacer, [frame] * 6, base) == [0, 100 * MS, 200 * MS, -1, -1, -1]
    assert moved(pacer, before) == {"at_once": 1, "stamped": 2, "beyond": 3}
    assert departures(pacer, [frame], base + 100 * MS) == [200 * MS]
    with EdtPacer(horizon_ns=50 * MS) as narrow:
        narrow.set_rate((CLIENT4, CLIENT_PORT), NODE_PORT, RATE // 100)
        assert departures(narrow, [frame] * 2, base) == [0, -1]


def test_a_new_rate_holds_from_the_next_packet(pacer: EdtPacer, base: int) -> None:
    flow = ((CLIENT4, CLIENT_PORT), NODE_PORT)
    frame = out(NODE4, CLIENT4)
    pacer.set_rate(*flow, RATE)
    assert departures(pacer, [frame] * 2, base) == [0, MS]
    pacer.set_rate(*flow, RATE * 10)
    assert departures(pacer, [frame] * 3, base) == [2 * MS, 2 * MS + MS // 10, 2 * MS + MS // 5]
    assert pacer.remove(*flow) is True
    assert departures(pacer, [frame] * 2, base) == [0, 0]
    assert pacer.remove(*flow) is False


@pytest.mark.parametrize(
    "frame",
    [
        out(NODE4, CLIENT4, port=CLIENT_PORT + 1),
        out(NODE4, "198.51.100.8"),
        packets.frame(NODE4, CLIENT4, NODE_PORT + 1, CLIENT_PORT, bytes(50)),
        packets.frame(CLIENT4, NODE4, CLIENT_PORT, NODE_PORT, bytes(50)),  # the other way
        packets.eth(packets.ETH_ARP, bytes(46)),
        packets.eth(packets.ETH_IPV4, packets.ipv4(NODE4, CLIENT4, bytes(40), proto=packets.TCP)),
        packets.eth(packets.ETH_IPV4, packets.ipv4(NODE4, CLIENT4, bytes(40), fragment=0x2000)),
        packets.eth(packets.ETH_IPV4, packets.ipv4(NODE4, CLIENT4, bytes(40), fragment=0x00B9)),
        packets.eth(packets.ETH_IPV6, packets.ipv6(NODE6, CLIENT6, bytes(40), proto=44)),
        packets.eth(packets.ETH_IPV4, packets.ipv4(NODE4, CLIENT4, b"", options=b"")),
        packets.eth(packets.ETH_IPV4, bytes(20)),
        packets.eth(packets.ETH_IPV6, bytes(40)),
        packets.eth(packets.ETH_IPV4, packets.ipv4(NODE4, CLIENT4, bytes(7))),
        packets.eth(packets.ETH_VLAN, bytes(2)),
        packets.eth(packets.ETH_ARP, b""),
    ],
    ids=lambda frame: f"{len(frame)}",
)
def test_what_is_not_of_a_paced_flow_is_untouched(pacer: EdtPacer, base: int, frame: bytes) -> None:
    for client in (CLIENT4, CLIENT6):
        pacer.set_rate((client, CLIENT_PORT), NODE_PORT, 1)
    before = pacer.outcomes()
    for at in (base, base, 0):
        assert bpf.test_run_tc(pacer.prog_fd, frame, at) == (OK, at)
    assert moved(pacer, before) == {"passed": 3}


def test_a_mapped_address_does_not_alias_an_ipv4_flow(pacer: EdtPacer, base: int) -> None:
    pacer.set_rate((CLIENT4, CLIENT_PORT), NODE_PORT, RATE)
    alias = packets.frame(NODE6, f"::ffff:{CLIENT4}", NODE_PORT, CLIENT_PORT, bytes(99))
    assert departures(pacer, [alias] * 3, base) == [0, 0, 0]


def test_outcomes_are_those_of_the_header() -> None:
    text = (ROOT / "ebpf" / "edt.h").read_text()
    assert tuple(re.findall(r'X\([A-Z_]+, "(\w+)"', text)) == pacing_edt.OUTCOMES


@pytest.mark.parametrize(
    ("remote", "rate", "burst"),
    [
        (("198.51.100.7", 70000), 1, 0),
        (("nowhere", 1), 1, 0),
        (("198.51.100.7", 1), 0, 0),
        (("198.51.100.7", 1), pacing_edt.RATE_MAX + 1, 0),
        (("198.51.100.7", 1), 1, -1),
        (("198.51.100.7", 1), 1, pacing_edt.BURST_MAX_NS + 1),
    ],
)
def test_what_cannot_be_paced_is_refused(
    pacer: EdtPacer, remote: tuple[str, int], rate: int, burst: int
) -> None:
    with pytest.raises(EdtError):
        pacer.set_rate(remote, NODE_PORT, rate, burst)


def test_an_object_that_is_not_there_or_another_is_refused(bpffs: Path, tmp_path: Path) -> None:
    with pytest.raises(EdtError, match="make -C ebpf"):
        EdtPacer(tmp_path / "edt.bpf.o")
    with pytest.raises(EdtError, match="another version"):
        EdtPacer(ROOT / "build" / "ebpf" / "steer.bpf.o")
    (tmp_path / "edt.bpf.o").write_bytes(b"no object")
    with pytest.raises(EdtError):
        EdtPacer(tmp_path / "edt.bpf.o")


# ---- interfaces ----------------------------------------------------------------------------------


def test_only_disciplines_that_send_count() -> None:
    root, clsact = qdiscs.ROOT, qdiscs.CLSACT
    assert qdiscs.leaves([(root, "fq")]) == ("fq",)
    assert qdiscs.leaves([(root, "fq"), (clsact, "clsact")]) == ("fq",)
    assert qdiscs.leaves([(root, "mq"), (0x80010001, "fq"), (0x80010002, "fq")]) == ("fq",)
    assert qdiscs.leaves([(root, "mq"), (0x80010001, "fq"), (0x80010002, "sfq")]) == ("fq", "sfq")
    assert qdiscs.leaves([(root, "htb"), (0x10001, "fq")]) == ("htb",)
    assert qdiscs.leaves([]) == ()


def test_it_is_for_interfaces_with_fq_only(pacer: EdtPacer, netns: Pair) -> None:
    name = netns.node_if
    with inside(netns.path(netns.node)):
        assert pacing_edt.why_not("nowhere0") == "there is no interface nowhere0"
        reason = pacing_edt.why_not(name)
        assert reason is not None and f"{name} sends by noqueue, not by fq" in reason
        with pytest.raises(EdtError, match="not by fq"):
            pacer.attach(name)
        assert not pacer.attached(name) and pacing_edt.detach(name) is False
        words = ("tc", "qdisc", "replace", "dev", name, "root", "fq")
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return  # a kernel without fq: the sentence above is all there is to it
        assert pacing_edt.why_not(name) is None
        pacer.attach(name)
        assert pacer.attached(name) and pacing_edt.detach(name)


def test_at_the_egress_of_an_interface_it_sees_what_is_sent(pacer: EdtPacer, netns: Pair) -> None:
    """Without fq the stamps are not kept; that they are made shows that it is in the way."""
    name = netns.node_if
    with inside(netns.path(netns.node)):
        pacer.attach(name, even_without_fq=True)
        pacer.attach(name, even_without_fq=True)  # in its own place
        assert pacer.attached(name)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("0.0.0.0", 0))
            pacer.set_rate((LIVE_CLIENT4, 9), sock.getsockname()[1], 1000)  # 142 ms each
            before, began = pacer.outcomes(), time.monotonic()
            for _ in range(4):
                sock.sendto(bytes(100), (LIVE_CLIENT4, 9))
            sent, took = moved(pacer, before), time.monotonic() - began
        assert sum(sent.get(name, 0) for name in ("at_once", "stamped", "beyond")) == 4, sent
        # The first, and one for each 142 ms that the machine stood still between two.
        assert 1 <= sent.get("at_once", 0) <= 1 + took / 0.142, sent
        with EdtPacer() as other:
            assert not other.attached(name)
            other.attach(name, even_without_fq=True)  # a restarted supervisor takes the place
            assert other.attached(name) and not pacer.attached(name)
        assert pacing_edt.detach(name) is True
        assert pacing_edt.detach(name) is False
