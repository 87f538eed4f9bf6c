"""The eBPF selector on real sockets: on loopback alone, and behind the steering program."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from forwarder.dataplane import bpf
from forwarder.dataplane.steering import Flow, Rates, Steering, SteeringError
from forwarder.table import Tuple5

from .conftest import MEDIA, STUN, Loader, Spare
from .netns_env import CLIENT4, CLIENT6, NODE4, NODE6, Pair, compile_program, pair, waiting

PORT = 4433
WORKERS = 2
FAMILIES = ((CLIENT4, NODE4), (CLIENT6, NODE6))

BURST = 10
STILL = Rates(
    prefix_packets_per_s=1,
    prefix_burst_packets=BURST,
    flow_packets_per_s=1,
    flow_burst_packets=BURST,
    control_packets_per_s=1,
    control_burst_packets=BURST,
)
SOCKET_BURST = 2 * BURST  # guard.h: the socket path's buckets are twice as deep


@pytest.fixture
def netns(bpffs: Path) -> Iterator[Pair]:
    with pair() as made:
        yield made


def open_group(netns: Pair, ip: str) -> list[socket.socket]:
    return [netns.udp(netns.node, ip, PORT, shared=True) for _ in range(1 + WORKERS)]


def moved(steering: Steering, before: dict[str, int]) -> dict[str, int]:
    after = steering.select_verdicts()
    return {k: after[k] - before[k] for k in after if after[k] != before[k]}


def flow_of(sender: socket.socket, local: str) -> Tuple5:
    ip, port = sender.getsockname()[:2]
    return Tuple5(ip, port, local, PORT)


@pytest.mark.parametrize(("client", "local"), FAMILIES)
def test_every_first_byte(netns: Pair, load: Loader, client: str, local: str) -> None:
    steering = load()
    slow, *media = open_group(netns, local)
    assert set(steering.select_verdicts().values()) == {0}
    steering.attach_selector([slow, *media])
    sender = netns.udp(netns.client, client)
    steering.set_flow(flow_of(sender, local), Flow(1, worker=1))
    dropped = 0
    for first in range(256):
        data = bytes([first]) + b"rest"
        sender.sendto(data, (local, PORT))
        if 4 <= first <= 19:
            dropped += 1
        elif 128 <= first <= 191:
            assert media[1].recv(64) == data
        else:
            assert slow.recv(64) == data
    sender.sendto(b"", (local, PORT))
    sender.sendto(STUN, (local, PORT))
    assert slow.recv(64) == STUN
    assert moved(steering, dict.fromkeys(steering.select_verdicts(), 0)) == {
        "pass_stun": 4 + 1,
        "pass_dtls": 44,
        "pass_quic": 128,
        "select_media": 64,
        "drop_bad_class": 16 + 1,
    }
    assert dropped == 16
    assert all(waiting(sock) == [] for sock in (slow, *media))


def test_media_follows_the_flow_table(netns: Pair, load: Loader) -> None:
    steering = load()
    slow, *media = open_group(netns, NODE4)
    steering.attach_selector([slow, *media])
    before = steering.select_verdicts()
    sender = netns.udp(netns.client, CLIENT4)
    sender.sendto(MEDIA, (NODE4, PORT))
    for worker in (0, 1, 0):
        steering.set_flow(flow_of(sender, NODE4), Flow(1, worker))
        sender.sendto(MEDIA, (NODE4, PORT))
        assert media[worker].recv(64) == MEDIA
    steering.set_flow(flow_of(sender, NODE4), Flow(1, worker=9))
    sender.sendto(MEDIA, (NODE4, PORT))
    sender.sendto(STUN, (NODE4, PORT))
    assert slow.recv(64) == STUN
    assert moved(steering, before) == {
        "drop_unknown_flow": 1,
        "select_media": 3,
        "drop_no_socket": 1,
        "pass_stun": 1,
    }
    assert all(waiting(sock) == [] for sock in (slow, *media))


def test_the_guard_is_at_work_on_the_socket_path(netns: Pair, load: Loader, spare: Spare) -> None:
    steering = load(STILL)
    slow, *media = open_group(netns, NODE4)
    steering.attach_selector([slow, *media])
    flood, client = (netns.udp(netns.client, CLIENT4) for _ in range(2))
    steering.admit(flow_of(client, NODE4))
    for _ in range(100):
        flood.sendto(STUN, (NODE4, PORT))
    client.sendto(b"\x00client", (NODE4, PORT))
    got = [slow.recv(64)]
    while got[-1] != b"\x00client":
        got.append(slow.recv(64))
    assert SOCKET_BURST <= len(got) - 1 <= SOCKET_BURST + spare()
    assert steering.select_verdicts()["drop_prefix_rate"] == 100 - (len(got) - 1)


@pytest.mark.parametrize("known", [False, True])
def test_what_xdp_passed_is_not_charged_twice(netns: Pair, load: Loader, known: bool) -> None:
    """Exactly one burst of control and one of media gets through both programs."""
    with netns.at_node():
        steering = load(STILL)
        steering.add_listen(NODE4, PORT)
        assert steering.attach(netns.node_if).mode == "native"
    slow, *media = open_group(netns, NODE4)
    steering.attach_selector([slow, *media])
    sender = netns.udp(netns.client, CLIENT4)
    if known:
        steering.set_flow(flow_of(sender, NODE4), Flow(1, worker=0))
    for data in (STUN, MEDIA):
        for _ in range(BURST):
            sender.sendto(data, (NODE4, PORT))
    assert [slow.recv(64) for _ in range(BURST)] == [STUN] * BURST
    if known:
        assert [media[0].recv(64) for _ in range(BURST)] == [MEDIA] * BURST
        assert steering.verdicts()["pass_no_xsk"] == BURST
        assert steering.select_verdicts()["select_media"] == BURST
    assert steering.verdicts()["pass_stun"] == steering.select_verdicts()["pass_stun"] == BURST


def test_what_xdp_does_not_parse_is_guarded_by_the_selector(
    netns: Pair, load: Loader, spare: Spare
) -> None:
    """IP options and fragments go past the steering program, not past the guard."""
    with netns.at_node():
        steering = load(STILL)
        steering.add_listen(NODE4, PORT)
        steering.attach(netns.node_if)
    slow, *media = open_group(netns, NODE4)
    steering.attach_selector([slow, *media])
    sender = netns.udp(netns.client, CLIENT4)
    before = steering.verdicts()
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x01" * 4)
    for _ in range(50):
        sender.sendto(STUN, (NODE4, PORT))
    for _ in range(10):
        sender.sendto(MEDIA, (NODE4, PORT))
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"")
    sender.sendto(b"\xc0" * 5000, (NODE4, PORT))  # in fragments, its class not spent yet
    assert slow.recv(8192) == STUN
    while slow.recv(8192) != b"\xc0" * 5000:
        pass
    after, selected = steering.verdicts(), steering.select_verdicts()
    assert after["pass_complex"] - before["pass_complex"] >= 50 + 10 + 3
    assert SOCKET_BURST <= selected["pass_stun"] <= SOCKET_BURST + spare()
    assert selected["drop_prefix_rate"] == 50 - selected["pass_stun"]
    assert selected["drop_unknown_flow"] == 10
    assert selected["pass_quic"] == 1


def test_a_group_is_adopted_in_place(netns: Pair, load: Loader) -> None:
    """A second supervisor attaches again to the living sockets; then a worker's socket is new."""
    first = load()
    slow, *media = open_group(netns, NODE4)
    first.attach_selector([slow, *media])
    sender = netns.udp(netns.client, CLIENT4)
    first.set_flow(flow_of(sender, NODE4), Flow(1, worker=1))
    first.close()
    second = load()
    assert second.loaded == "kept"
    sender.sendto(MEDIA, (NODE4, PORT))  # between the two, the group goes on by itself
    assert media[1].recv(64) == MEDIA
    second.attach_selector([slow, *media])
    sender.sendto(MEDIA, (NODE4, PORT))
    assert media[1].recv(64) == MEDIA
    media[1].close()
    media[1] = netns.udp(netns.node, NODE4, PORT, shared=True)
    second.attach_selector([slow, *media])
    sender.sendto(MEDIA, (NODE4, PORT))
    assert media[1].recv(64) == MEDIA
    assert second.select_verdicts()["select_media"] == 3


def test_two_addresses_are_two_groups(netns: Pair, load: Loader) -> None:
    steering = load()
    groups = {local: open_group(netns, local) for _, local in FAMILIES}
    for group in groups.values():
        steering.attach_selector(group)
    for client, local in FAMILIES:
        sender = netns.udp(netns.client, client)
        steering.set_flow(flow_of(sender, local), Flow(1, worker=0))
        sender.sendto(MEDIA, (local, PORT))
        assert groups[local][1].recv(64) == MEDIA
    assert steering.select_verdicts()["select_media"] == 2


def test_errors_say_what_to_do(netns: Pair, load: Loader, pin_dir: Path, bpffs: Path) -> None:
    steering = load()
    alone = [netns.udp(netns.node, NODE4, PORT + 1) for _ in range(1)]
    with pytest.raises(SteeringError, match="2 to 17"):
        steering.attach_selector(alone)
    plain = [netns.udp(netns.node, NODE4, PORT + n) for n in (2, 3)]
    with pytest.raises(SteeringError, match="SO_REUSEPORT"):
        steering.attach_selector(plain)
    group = open_group(netns, NODE4)
    steering.attach_selector(group)
    os.unlink(next(pin_dir.glob("group_*")))
    with pytest.raises(SteeringError, match="bind it anew"):
        steering.attach_selector(group)


def test_a_refused_program_shows_the_verifier_log(bpffs: Path, tmp_path: Path) -> None:
    """The whole log, not its first line: the refused instruction is in it."""
    built = compile_program(
        tmp_path,
        "refused",
        """
        #include <linux/bpf.h>
        #include <bpf/bpf_helpers.h>
        char LICENSE[] SEC("license") = "Dual MIT/GPL";
        SEC("xdp") int refused(struct xdp_md *ctx)
        {
            return *(volatile char *)(long)ctx->data; /* no bounds check */
        }
        """,
    )
    with bpf.BpfObject(built) as refused, pytest.raises(bpf.BpfError) as caught:
        refused.load()
    assert "invalid access to packet" in caught.value.log
    assert str(built) in str(caught.value)
