"""io_xsk over veth with native XDP: from kernel sockets into the C backend and back."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from nets import entered, ip, namespaces

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "build/netns/tool_xsk_echo"
SOURCES = ["tests/c/tool_xsk_echo.c"] + [
    f"c_helpers/src/{name}.c"
    for name in ("io_xsk", "xsk_slots", "xsk_tx", "xsk_port", "net", "numa")
]
FRAMES = 1024
SOL_PACKET, PACKET_AUXDATA, ETH_P_ALL = 263, 8, 3
LIMIT_S = 20.0  # how long anything may take before a test fails

pytestmark = pytest.mark.root


def wait_for(what: str, ready: Callable[[], bool]) -> None:
    """Asks until the answer is yes; each question is itself a round trip to the tool."""
    end = time.monotonic() + LIMIT_S
    while not ready():
        assert time.monotonic() < end, f"not within {LIMIT_S} s: {what}"


@dataclass
class Face:
    """One veth, `number` 0 or 1, between the namespaces; the tool tags with `vlan` if not 0."""

    number: int
    vlan: int = 0

    @property
    def name(self) -> str:
        return f"v{self.number}"

    def mac(self, tool: bool) -> str:
        return f"02:00:00:00:0{self.number}:{'02' if tool else '01'}"

    def ip4(self, tool: bool) -> str:
        return f"10.79.{self.number}.{2 if tool else 1}"

    def ip6(self, tool: bool) -> str:
        return f"fd79:a{self.number}::{2 if tool else 1}"

    def argument(self) -> str:
        parts = (
            self.name,
            self.mac(True),
            self.mac(False),
            self.vlan,
            self.ip4(True),
            self.ip6(True),
        )
        return ",".join(str(part) for part in parts)


@dataclass
class World:
    """The two namespaces and the tool, once it runs."""

    client: str
    node: str
    faces: list[Face]
    tool: subprocess.Popen[str] | None = None
    sockets: list[socket.socket] = field(default_factory=list)

    def connect(self, face: Face) -> None:
        """Creates the veth and everything on the client's end of it (the tool answers no ARP)."""
        ip("link", "add", face.name, "index", str(20 + face.number), "address", face.mac(True),
           "type", "veth", "peer", "name", face.name, "address", face.mac(False),
           "netns", self.client, netns=self.node)  # fmt: skip
        for netns in (self.client, self.node):
            features = ["tx", "off", "txvlan", "off", "rxvlan", "off"]
            command = ["ip", "netns", "exec", netns, "ethtool", "-K", face.name, *features]
            subprocess.run(command, check=True, capture_output=True)
            ip("link", "set", face.name, "up", netns=netns)
        self.address(face)

    def address(self, face: Face) -> None:
        """Addresses and neighbours of the client's end; taking the link down clears some."""

        def carries() -> bool:  # until then its queue throws everything away
            link = ip("link", "show", face.name, netns=self.client)
            return "qdisc noqueue" in link and "state UP" in link

        wait_for(f"{face.name} is up", carries)
        for address, bits, peer in (
            (face.ip4(False), 24, face.ip4(True)),
            (face.ip6(False), 64, face.ip6(True)),
        ):
            nodad = ["nodad"] if ":" in address else []
            ip("addr", "replace", f"{address}/{bits}", "dev", face.name, *nodad,
               netns=self.client)  # fmt: skip
            ip("neigh", "replace", peer, "lladdr", face.mac(True), "dev", face.name,
               netns=self.client)  # fmt: skip

    def start(self, busy_poll: bool) -> None:
        frames = f"{FRAMES}{'b' if busy_poll else ''}"
        self.tool = subprocess.Popen(
            ["ip", "netns", "exec", self.node, str(TOOL), frames]
            + [face.argument() for face in self.faces],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.tool.stdout
        assert self.tool.stdout.readline() == "ready\n"

    def tell(self, line: str) -> None:
        assert self.tool and self.tool.stdin
        self.tool.stdin.write(line + "\n")
        self.tool.stdin.flush()

    def counts(self) -> dict[str, int]:
        """The backend's counts, after everything that was told before; its laws are checked."""
        self.tell("counts")
        assert self.tool and self.tool.stdout
        counts: dict[str, int] = json.loads(self.tool.stdout.readline())
        frames = counts["frames_free"] + counts["frames_rx"] + counts["frames_tx"]
        assert frames == counts["frames_total"] == FRAMES
        assert counts["tx_sent"] + counts["tx_errors"] <= counts["committed"]
        return counts

    def stop(self) -> None:
        for sock in self.sockets:
            sock.close()
        if self.tool:
            assert self.tool.stdin and self.tool.stdout
            self.tool.stdin.close()
            assert self.tool.wait(LIMIT_S) == 0
            self.tool.stdout.close()

    def socket(self, family: socket.AddressFamily) -> socket.socket:
        with entered(self.client):
            sock = socket.socket(family, socket.SOCK_DGRAM)
        self.sockets.append(sock)
        sock.settimeout(LIMIT_S)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 0))
        return sock

    def checksum_errors(self) -> int:
        """UDP checksum errors that the client's kernel has seen, both families."""
        errors = 0
        read = ["ip", "netns", "exec", self.client, "cat", "/proc/net/snmp", "/proc/net/snmp6"]
        text = subprocess.run(read, check=True, capture_output=True, text=True).stdout
        names, values = (line.split() for line in text.splitlines() if line.startswith("Udp: "))
        errors += int(values[names.index("InCsumErrors")])
        errors += sum(int(x.split()[1]) for x in text.splitlines() if "Udp6InCsumErrors" in x)
        return errors


@contextlib.contextmanager
def world(faces: list[Face], busy_poll: bool = False) -> Iterator[World]:
    prefix = f"vcxsk{os.getpid()}"
    w = World(f"{prefix}c", f"{prefix}n", faces)
    with namespaces(w.client, w.node):
        try:
            for face in faces:
                w.connect(face)
            w.start(busy_poll)
            yield w
            w.stop()
        finally:
            if w.tool and w.tool.poll() is None:
                w.tool.kill()
                w.tool.wait()


@pytest.fixture(scope="module", autouse=True)
def tool() -> None:
    compiler = shutil.which("gcc")
    assert compiler, "gcc is needed to build the tool"
    TOOL.parent.mkdir(parents=True, exist_ok=True)
    flags = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O1", "-g"]
    flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    include = ["-Ic_helpers/include", "-Ic_helpers/src"]
    command = [compiler, *flags, *include, *SOURCES, "-o", str(TOOL)]
    subprocess.run(command, cwd=ROOT, check=True)


def echo(w: World, face: Face, family: socket.AddressFamily, count: int) -> None:
    """Sends `count` datagrams of all sizes, 32 at a time, and wants each one back as it was."""
    sock = w.socket(family)
    to = (face.ip6(True) if family == socket.AF_INET6 else face.ip4(True), 4433)
    for first in range(0, count, 32):
        sent = []
        for i in range(first, min(first + 32, count)):
            size = (0, 1, 17, 1200, 1201, 1400)[i % 6] if i % 3 else i % 1400
            sent.append((i.to_bytes(4, "big") * 351)[:size])
            sock.sendto(sent[-1], to)
        back = [sock.recvfrom(2048) for _ in sent]
        assert [data for data, _ in back] == sent
        assert {(addr[0], addr[1]) for _, addr in back} == {to}


FAMILIES = (socket.AF_INET, socket.AF_INET6)


@pytest.mark.parametrize("busy_poll", [False, True])
def test_all_come_back(busy_poll: bool) -> None:
    face = Face(0)
    with world([face], busy_poll) as w:
        for family in FAMILIES:
            echo(w, face, family, 500)
        wait_for("sent", lambda: w.counts()["tx_sent"] == 1000)
        counts = w.counts()
        assert counts["rx_packets"] == counts["committed"] == 1000
        assert counts["tx_errors"] == counts["refused"] == 0
        assert counts["xsk_rx_dropped"] == counts["xsk_fill_empty"] == counts["xsk_tx_invalid"] == 0
        assert counts["zerocopy"] == 0
        assert w.checksum_errors() == 0
        # at rest: half of the frames wait for packets, none is lost in a ring
        wait_for("completions", lambda: w.counts()["frames_tx"] == 0)
        assert w.counts()["frames_rx"] == FRAMES // 2


def ones_sum(data: bytes) -> int:
    """Internet checksum of data, not inverted; 0xffff when data contains its own checksum."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.parametrize("family", FAMILIES)
def test_vlan(family: socket.AddressFamily) -> None:
    """Tagged frames, written and read raw: this way the kernel needs no VLAN devices."""
    face = Face(0, 42)
    version6 = family == socket.AF_INET6
    here, there = (
        socket.inet_pton(family, face.ip6(tool) if version6 else face.ip4(tool))
        for tool in (False, True)
    )
    macs = bytes.fromhex((face.mac(True) + face.mac(False)).replace(":", ""))
    with world([face]) as w, entered(w.client):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        w.sockets.append(wire)
        wire.bind((face.name, ETH_P_ALL))
        wire.settimeout(LIMIT_S)
        wire.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        for size in (0, 1, 18, 19, 1200):
            udp = struct.pack("!4H", 5555, 4433, 8 + size, 0) + bytes(range(256)) * 5
            udp = udp[: 8 + size]
            if version6:
                head = struct.pack("!IHBB", 6 << 28, len(udp), 17, 64)
            else:
                head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
            tag = struct.pack("!HHH", 0x8100, 42, 0x86DD if version6 else 0x0800)
            wire.send(macs + tag + head + here + there + udp)
            while True:  # not our own frames, nor other noise
                frame, ancillary, _, _ = wire.recvmsg(2048, 256)
                if frame[6:12] == macs[:6]:
                    break
            _, _, _, _, _, tci, _ = struct.unpack("IIIHHHH", ancillary[0][2])
            assert tci == 42
            assert frame[:6] == macs[6:]
            packet = frame[14:]
            addresses = packet[8:40] if version6 else packet[12:20]
            datagram = packet[40:] if version6 else packet[20:]
            assert addresses == there + here
            assert datagram[:6] == struct.pack("!3H", 4433, 5555, 8 + size)
            assert datagram[8:] == udp[8:]
            pseudo = addresses + struct.pack("!HH", 17, len(datagram))
            assert ones_sum(pseudo + datagram) == 0xFFFF
            assert version6 or ones_sum(packet[:20]) == 0xFFFF
            traffic_class = (packet[0] & 15) << 4 | packet[1] >> 4 if version6 else packet[1]
            assert traffic_class == 46 << 2


def test_two_interfaces_share_the_frames() -> None:
    faces = [Face(0), Face(1)]
    with world(faces) as w:
        for _ in range(3):
            for face in faces:
                for family in FAMILIES:
                    echo(w, face, family, 100)
        wait_for("sent", lambda: w.counts()["tx_sent"] == 1200)
        assert w.counts()["tx_errors"] == 0
        assert w.checksum_errors() == 0


def test_what_does_not_parse_is_counted() -> None:
    face = Face(0)
    with world([face]) as w, entered(w.client):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        w.sockets.append(wire)
        wire.bind((face.name, 0))
        before = w.counts()["malformed"]
        for i in range(700):  # more than there are receive frames: each is given back at once
            wire.send(bytes(12) + b"\x08\x00\x46" + bytes([i % 256]) * 60)
            if i % 50 == 49:
                wait_for("seen", lambda: w.counts()["malformed"] >= before + i + 1)  # noqa: B023
        assert w.counts()["rx_packets"] == 0
        echo(w, face, socket.AF_INET, 50)
        assert w.counts()["xsk_fill_empty"] == 0


def test_interface_down_and_up() -> None:
    face = Face(0)
    with world([face]) as w:
        echo(w, face, socket.AF_INET, 20)
        ip("link", "set", face.name, "down", netns=w.node)
        w.tell("send 100")  # ENETDOWN
        wait_for("counted", lambda: w.counts()["tx_errors"] == 100)
        ip("link", "set", face.name, "up", netns=w.node)
        echo_until_back(w, face)
        for family in FAMILIES:
            echo(w, face, family, 100)
        assert w.checksum_errors() == 0


def test_carrier_lost_and_back() -> None:
    face = Face(0)
    with world([face]) as w:
        echo(w, face, socket.AF_INET, 20)
        sent = w.counts()["tx_sent"]
        ip("link", "set", face.name, "down", netns=w.client)
        for _ in range(20):  # more than the ring holds
            w.tell("send 100")  # EBUSY: the kernel drops each
        wait_for("counted", lambda: w.counts()["tx_errors"] == 2000)
        assert w.counts()["tx_sent"] == sent
        ip("link", "set", face.name, "up", netns=w.client)
        w.address(face)
        echo_until_back(w, face)
        for family in FAMILIES:
            echo(w, face, family, 100)


def test_interface_made_anew() -> None:
    faces = [Face(0), Face(1)]
    with world(faces) as w:
        echo(w, faces[0], socket.AF_INET, 20)
        ip("link", "del", faces[0].name, netns=w.node)
        w.tell("send 100")
        wait_for("counted", lambda: w.counts()["tx_errors"] == 100)
        echo(w, faces[1], socket.AF_INET, 50)  # the other port goes on
        w.connect(faces[0])
        w.tell("attach")
        echo_until_back(w, faces[0])
        for face in faces:
            for family in FAMILIES:
                echo(w, face, family, 100)


def echo_until_back(w: World, face: Face) -> None:
    """Knocks until an answer comes, then lets stragglers pass."""
    sock = w.socket(socket.AF_INET)
    sock.settimeout(0.05)
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        with contextlib.suppress(TimeoutError, OSError):
            sock.sendto(b"knock", (face.ip4(True), 4433))
            assert sock.recv(100)
            return
    pytest.fail(f"{face.name} did not come back within {LIMIT_S} s: {w.counts()}")


def test_flood_is_accounted() -> None:
    """More than the rings hold, without waiting: what is lost is counted, the rest comes back."""
    face = Face(0)
    with world([face]) as w:
        sock = w.socket(socket.AF_INET)
        for i in range(5000):
            sock.sendto(i.to_bytes(4, "big") * 50, (face.ip4(True), 4433))

        echo_until_back(w, face)  # packets keep their order: now the flood is through

        def settled() -> bool:
            c = w.counts()
            return c["tx_sent"] + c["tx_errors"] == c["committed"] and c["frames_tx"] == 0

        wait_for("settled", settled)
        counts = w.counts()
        assert counts["committed"] + counts["refused"] == counts["rx_packets"]
        sock.setblocking(False)
        back = 0
        with contextlib.suppress(BlockingIOError):
            while sock.recv(2048):
                back += 1
        assert 0 < back <= counts["tx_sent"]
        echo(w, face, socket.AF_INET, 100)


def test_a_refusal_is_a_sentence() -> None:
    face = Face(0)
    with world([face]) as w:
        for frames, name, sentence in (
            ("64", face.name, "AF_XDP on all interfaces: frames is too small"),
            ("1024", face.name, f"AF_XDP on {face.name}: cannot bind to the queue"),  # it is held
            ("1024", "nowhere", "AF_XDP on nowhere: cannot bind to the queue"),
        ):
            argument = face.argument().replace(f"{face.name},", f"{name},", 1)
            refused = subprocess.run(
                ["ip", "netns", "exec", w.node, str(TOOL), frames, argument],
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                check=False,
                stdin=subprocess.DEVNULL,
            )
            assert refused.returncode == 1
            assert refused.stdout.startswith(sentence)
        echo(w, face, socket.AF_INET, 50)  # the holder was not disturbed
