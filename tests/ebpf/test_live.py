"""On a veth pair in namespaces: native attach, pins, adoption, foreign programs, AF_XDP."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from forwarder.dataplane import bpf, steering_abi
from forwarder.dataplane.steering import (
    Flow,
    ForeignXdpProgram,
    Rates,
    Steering,
    SteeringError,
    ensure_bpffs,
)
from forwarder.table import Tuple5

from .conftest import MEDIA, ROOT, STUN, Loader
from .netns_env import (
    CLIENT4,
    CLIENT6,
    NODE4,
    NODE6,
    PATIENCE_S,
    Pair,
    compile_foreign,
    pair,
    waiting,
)
from .xsk import Xsk

PORT = 4433
FAMILIES = ((CLIENT4, NODE4), (CLIENT6, NODE6))


@pytest.fixture
def netns(bpffs: Path) -> Iterator[Pair]:
    with pair() as made:
        yield made


@pytest.fixture
def node(netns: Pair, load: Loader) -> Iterator[Steering]:
    """Loaded and attached in native mode to the node's interface, listening on its addresses."""
    with netns.at_node():
        steering = load()
        for ip in (NODE4, NODE6):
            steering.add_listen(ip, PORT)
        assert steering.attach(netns.node_if, "native").mode == "native"
        yield steering


def moved(steering: Steering, before: dict[str, int]) -> dict[str, int]:
    after = steering.verdicts()
    keep = ("pass_not_ip", "pass_not_udp", "pass_complex")  # ARP, neighbour discovery
    return {k: after[k] - before[k] for k in after if after[k] != before[k] and k not in keep}


@pytest.mark.parametrize(("client", "local"), FAMILIES)
def test_real_datagrams(netns: Pair, node: Steering, client: str, local: str) -> None:
    slow = netns.udp(netns.node, local, PORT)
    other = netns.udp(netns.node, local, PORT + 1)
    sender = netns.udp(netns.client, client)
    before = node.verdicts()
    for data, port in ((MEDIA, PORT), (b"\x05", PORT), (MEDIA, PORT + 1), (STUN, PORT)):
        sender.sendto(data, (local, port))
    assert slow.recv(2048) == STUN  # the last one sent: all verdicts are in
    assert other.recv(2048) == MEDIA
    assert waiting(slow) == []
    wanted = {"drop_unknown_flow": 1, "drop_bad_class": 1, "pass_not_ours": 1, "pass_stun": 1}
    assert moved(node, before) == wanted


@pytest.mark.parametrize(("client", "local"), FAMILIES)
def test_known_media_reaches_the_af_xdp_socket_and_falls_back(
    netns: Pair, node: Steering, client: str, local: str
) -> None:
    ifindex = socket.if_nametoindex(netns.node_if)
    media_socket = netns.udp(netns.node, local, PORT)
    sender = netns.udp(netns.client, client)
    remote_port = sender.getsockname()[1]
    node.set_flow(Tuple5(client, remote_port, local, PORT), Flow(1, 0))
    base = 7
    node.set_port_base(ifindex, base)
    xsk = Xsk(ifindex)
    try:
        key = steering_abi.U32.pack(base)
        bpf.update(node.xsks_fd, key, steering_abi.U32.pack(xsk.sock.fileno()))
        before = node.verdicts()
        sender.sendto(MEDIA, (local, PORT))
        data = xsk.receive(PATIENCE_S)
        assert data is not None and data.endswith(MEDIA)
        assert moved(node, before) == {"redirect_media": 1}
        assert waiting(media_socket) == []
        bpf.delete(node.xsks_fd, key)
        sender.sendto(MEDIA, (local, PORT))
        assert media_socket.recv(2048) == MEDIA
        assert moved(node, before) == {"redirect_media": 1, "pass_no_xsk": 1}
    finally:
        xsk.close()


def test_a_socket_of_another_queue_does_not_swallow_the_packet(netns: Pair, node: Steering) -> None:
    """The kernel would drop what is redirected to it, so the program passes instead."""
    ifindex = socket.if_nametoindex(netns.node_if)
    media_socket = netns.udp(netns.node, NODE4, PORT)
    sender = netns.udp(netns.client, CLIENT4)
    node.set_flow(Tuple5(CLIENT4, sender.getsockname()[1], NODE4, PORT), Flow(1, 0))
    node.set_port_base(ifindex, 0)
    xsk = Xsk(ifindex, queue=1)
    try:
        key = steering_abi.U32.pack(0)  # where the socket of queue 0 belongs
        bpf.update(node.xsks_fd, key, steering_abi.U32.pack(xsk.sock.fileno()))
        sender.sendto(MEDIA, (NODE4, PORT))
        assert media_socket.recv(2048) == MEDIA
        assert node.verdicts()["pass_no_xsk"] == 1
    finally:
        xsk.close()


ATTACH_AND_EXIT = """
import sys
from pathlib import Path
from forwarder.dataplane.steering import Flow, Steering
from forwarder.table import Tuple5
steering = Steering.load(Path(sys.argv[1]))
steering.set_flow(Tuple5("10.0.0.1", 1, "10.0.0.2", 2), Flow(3, 4))
print(steering.attach(sys.argv[2]).mode, steering.loaded)
"""


def attach_in_another_process(netns: Pair, pin_dir: Path) -> str:
    with netns.at_node():
        return subprocess.run(
            (sys.executable, "-c", ATTACH_AND_EXIT, str(pin_dir), netns.node_if),
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
        ).stdout.strip()


def test_what_is_pinned_outlives_its_process(netns: Pair, pin_dir: Path, load: Loader) -> None:
    assert attach_in_another_process(netns, pin_dir) == "native fresh"
    with netns.at_node():
        there = bpf.xdp_read(socket.if_nametoindex(netns.node_if))
        assert there.mode == "native" and there.name == "vc_steer"
        adopted = Steering.adopt(pin_dir)
        assert adopted.loaded == "kept"
        assert adopted.flows() == {Tuple5("10.0.0.1", 1, "10.0.0.2", 2): Flow(3, 4)}
        result = adopted.attach(netns.node_if)
        assert (result.mode, result.why) == ("native", "attached already, kept")
        assert bpf.xdp_read(result.ifindex) == there
        assert adopted.detach(netns.node_if) and not adopted.detach(netns.node_if)
        assert bpf.xdp_read(result.ifindex).prog_id == 0
        adopted.unload()
    assert list(pin_dir.iterdir()) == []


def link_of(pin_dir: Path, ifindex: int) -> bpf.LinkState:
    fd = bpf.get(pin_dir / f"link_{ifindex}")
    assert fd is not None
    try:
        return bpf.link_read(fd)
    finally:
        os.close(fd)


def test_changed_rates_replace_the_program_behind_the_link(
    netns: Pair, pin_dir: Path, load: Loader
) -> None:
    attach_in_another_process(netns, pin_dir)
    with netns.at_node():
        ifindex = socket.if_nametoindex(netns.node_if)
        before = link_of(pin_dir, ifindex)
        adopted = load(Rates(prefix_packets_per_s=5000))
        after = link_of(pin_dir, ifindex)
        assert adopted.loaded == "program_replaced"
        assert after.link_id == before.link_id and after.prog_id != before.prog_id
        assert bpf.xdp_read(ifindex).prog_id == after.prog_id
        assert len(adopted.flows()) == 1


def test_another_abi_replaces_the_maps_too(netns: Pair, pin_dir: Path, load: Loader) -> None:
    attach_in_another_process(netns, pin_dir)
    with netns.at_node():
        ifindex = socket.if_nametoindex(netns.node_if)
        before = link_of(pin_dir, ifindex)
        fd = bpf.get(pin_dir / "map_meta")
        assert fd is not None
        other = steering_abi.META.pack(steering_abi.ABI_VERSION + 1, 0, bytes(32))
        bpf.update(fd, steering_abi.U32.pack(0), other)
        os.close(fd)
        adopted = load()
        after = link_of(pin_dir, ifindex)
        assert adopted.loaded == "maps_replaced" and adopted.flows() == {}
        assert after.link_id == before.link_id and after.prog_id != before.prog_id
        # The program now counts in the new maps.
        adopted.add_listen(NODE4, PORT)
        slow = netns.udp(netns.node, NODE4, PORT)
        netns.udp(netns.client, CLIENT4).sendto(STUN, (NODE4, PORT))
        assert slow.recv(2048) == STUN
        assert adopted.verdicts()["pass_stun"] == 1


def test_nothing_to_adopt(pin_dir: Path) -> None:
    with pytest.raises(SteeringError, match="nothing to adopt"):
        Steering.adopt(pin_dir)


def test_an_interface_that_was_made_anew_is_attached_anew(netns: Pair, node: Steering) -> None:
    ifindex = socket.if_nametoindex(netns.node_if)
    netns.remove_link()
    assert node.attached() == {}
    assert not (node.pin_dir / f"link_{ifindex}").exists()
    netns.add_link()
    assert node.attach(netns.node_if).mode == "native"
    assert list(node.attached().values()) == ["native"]
    netns.remove_link()
    node.unload()
    assert list(node.pin_dir.iterdir()) == []


@pytest.mark.parametrize("how", ["link", "netlink"])
def test_a_foreign_program_survives_and_is_named(
    netns: Pair, load: Loader, how: str, tmp_path: Path
) -> None:
    built = compile_foreign(tmp_path)
    with netns.at_node():
        ifindex = socket.if_nametoindex(netns.node_if)
        link_fd = -1
        with bpf.BpfObject(built) as foreign:
            if how == "link":
                foreign.load()
                link_fd = bpf.link_xdp(foreign.prog_fd, ifindex, generic=False)
            else:
                command = ("ip", "link", "set", "dev", netns.node_if, "xdpdrv", "object")
                subprocess.run((*command, str(built), "section", "xdp"), check=True)
        there = bpf.xdp_read(ifindex)
        assert there.name == "somebody_else"
        steering = load()
        for mode in ("auto", "native", "generic"):
            with pytest.raises(ForeignXdpProgram) as caught:
                steering.attach(netns.node_if, mode)
            message = str(caught.value)
            assert "somebody_else" in message and str(there.prog_id) in message
            assert "bpftool prog show" in message and netns.node_if in message
            assert caught.value.prog_id == there.prog_id
        assert not steering.detach(netns.node_if)
        assert [path.usable for path in steering.probe(netns.node_if)] == [False] * 3
        assert all("somebody_else" in path.why for path in steering.probe(netns.node_if))
        steering.unload()
        assert bpf.xdp_read(ifindex) == there
        if link_fd >= 0:
            os.close(link_fd)


def test_modes(netns: Pair, load: Loader) -> None:
    with netns.at_node():
        steering = load()
        assert steering.attach(netns.node_if, "generic").mode == "generic"
        assert steering.attach(netns.node_if, "native").mode == "native"
        assert steering.attach(netns.node_if, "auto").mode == "native"
        loopback = steering.attach("lo")
        assert loopback.mode == "generic" and "native XDP was refused" in loopback.why
        assert steering.detach("lo")
        with pytest.raises(SteeringError, match="use mode generic or auto"):
            steering.attach("lo", "native")
        with pytest.raises(SteeringError, match="no such interface"):
            steering.attach("nowhere")
        assert steering.attached() == {socket.if_nametoindex(netns.node_if): "native"}


def test_probe_attaches_nothing_and_knows_veth(netns: Pair, load: Loader) -> None:
    with netns.at_node():
        steering = load()
        zero, native, generic = steering.probe(netns.node_if)
        assert (zero.usable, native.usable, generic.usable) == (False, True, True)
        assert "veth has no zero-copy" in zero.why
        assert "loopback" in steering.probe("lo")[1].why
        assert bpf.xdp_read(socket.if_nametoindex(netns.node_if)).prog_id == 0
        steering.attach(netns.node_if)
        assert steering.probe(netns.node_if)[1].usable  # our own program is not foreign


def test_a_bpffs_that_load_mounted_goes_with_unload(tmp_path: Path) -> None:
    steering = Steering.load(tmp_path / "pins")
    assert bpf.is_bpffs(tmp_path / "pins")
    steering.unload()
    assert not bpf.is_bpffs(tmp_path / "pins")


def test_a_bpffs_of_somebody_else_stays(tmp_path: Path) -> None:
    assert ensure_bpffs(tmp_path / "pins") and not ensure_bpffs(tmp_path / "pins")
    try:
        Steering.load(tmp_path / "pins").unload()
        assert bpf.is_bpffs(tmp_path / "pins")
    finally:
        bpf.unmount_bpffs(tmp_path / "pins")
