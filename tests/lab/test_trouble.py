"""A call while the network or the NIC misbehaves: it goes on, and everything is counted."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from forwarder.demo.run import find_clip
from tests.lab.machine import Machine
from tests.lab.outside import Outside, node_address
from tests.lab.report import reading, say
from tests.lab.service import CONFIG, PORT, Call, Result, Service, call, check
from tests.lab.tuning import INSTALLED

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

ROUTER = "10.88.0.254"  # the second NIC's address beside vcfwd's
FAR = 9  # the network of the hosts behind the router
NETEM = "delay 20ms 5ms 25% loss 3% duplicate 2% corrupt 15% reorder 5% 50%"
LOSSY = 1000  # packets through it: one flipped bit in twenty says where it belongs

AT_WORK = "at-work"
WORKERS = 2

DOWN_S = 2  # a link is
PAUSE_MAX_MS = 30_000
"""After so long without media its receivers' consent would be gone, and they would join anew."""
ON_THE_WAY_NS = 1_000_000_000
"""So long before a trouble a packet may have left that meets it."""


@pytest.fixture(scope="module")
def at_work(machine: Machine) -> Service:
    """vcfwd on NIC 0 with a room, zero-copy, one queue for each worker.  Kept in a snapshot: its
    start takes a minute on an emulated processor."""
    machine.restore(INSTALLED)
    service = Service(machine, [0], WORKERS)
    service.configure()
    machine.ssh(f"ethtool -L {service.names[0]} combined {WORKERS}")
    service.start()
    service.create_room()
    machine.save(AT_WORK)
    return service


@pytest.fixture
def service(at_work: Service) -> Service:
    at_work.node.restore(AT_WORK)
    return at_work


@pytest.fixture
def hosts(service: Service) -> Iterator[Outside]:
    outside = Outside(service.node, 0, 0)
    outside.open()
    yield outside
    outside.close()


@dataclass
class Disturbed:
    """A call, and when it was disturbed: from the trouble until media had flowed again, in ns."""

    outcome: Result
    spans: list[tuple[int, int]]

    @property
    def lost(self) -> tuple[int, int]:
        """Packets that never arrived: of those sent in a span, of the others."""
        within = total = 0
        for each in self.outcome.accounts:
            total += each.lost
            for first, length in each.lost_runs:
                for sent in each.sent_ns[first : first + length]:
                    within += any(
                        began - ON_THE_WAY_NS <= sent <= ended for began, ended in self.spans
                    )
        return within, total - within


async def disturbed(
    service: Service,
    outside: Outside,
    folder: Path,
    *trouble: Callable[[], object],
    more: int = 150,
    after: Callable[[Call], Any] | None = None,
) -> Disturbed:
    """A call in which each trouble is followed by media that flows again, `more` packets of it."""
    spans = []
    async with call(service, outside, find_clip(None), folder) as running:
        await running.wait_flowing()
        for happen in trouble:
            began = time.monotonic_ns()
            await asyncio.to_thread(happen)
            await running.wait_flowing(more)
            spans.append((began, time.monotonic_ns()))
        if after is not None:
            await after(running)
        return Disturbed(await running.end(), spans)


def told(name: str, found: Disturbed, status: dict[str, Any]) -> int:
    """Says the gap and the counters, and keeps them; what was lost beside the trouble is counted.

    How many packets are, of those that the node took in."""
    outcome, (within, beside) = found.outcome, found.lost
    drops = {k: n for part in ("drops", "copy_drops") for k, n in status[part].items() if n}
    verdicts = {k: n for k, n in status["steering"]["verdicts"].items() if n}
    say(
        f"{name}: longest pause {outcome.pause_ms:.0f} ms, {outcome.received} of "
        f"{outcome.expected} packets, lost then {within} and beside it {beside}, drops {drops}, "
        f"steering {verdicts}"
    )
    runs = [[length for _, length in each.lost_runs] for each in outcome.accounts]
    kept = {"pause_ms": outcome.pause_ms, "lost_runs": runs, "status": status}
    reading(f"{name}.json", json.dumps(kept, indent=1))
    assert beside <= sum(drops.values())
    assert outcome.pause_ms < PAUSE_MAX_MS
    return sum(drops.values())


def past_the_kernel(service: Service) -> Callable[[Call], Any]:
    """Media does not only flow again, but by AF_XDP and nothing else."""

    async def look(running: Call) -> None:
        before = await asyncio.to_thread(service.status)
        await running.wait_flowing(100)
        after = await asyncio.to_thread(service.status)
        assert after["counters"]["rx"] > before["counters"]["rx"]
        for name in ("rx_socket", "tx_socket"):
            assert after["counters"][name] == before["counters"][name], name
        assert after["path"] == "xdp-zerocopy"
        assert after["dataplane"]["pid"] == before["dataplane"]["pid"]
        assert after["dataplane"]["restarts"] == 0

    return look


@pytest.mark.parametrize("end", ["carrier", "interface"])
def test_a_link_that_goes_and_comes_back(
    service: Service, hosts: Outside, tmp_path: Path, end: str
) -> None:
    """`carrier`: the far end of the cable; `interface`: `ip link set down` on the node."""
    node, name = service.node, service.names[0]

    def flap() -> None:
        if end == "carrier":
            node.monitor("set_link t0 off")
            try:
                node.ssh(f"sleep {DOWN_S}")
            finally:
                node.monitor("set_link t0 on")
        else:
            node.ssh(f"ip link set {name} down; sleep {DOWN_S}; ip link set {name} up")

    found = asyncio.run(disturbed(service, hosts, tmp_path, flap, after=past_the_kernel(service)))
    told(f"link-{end}", found, service.status())
    check(service, found.outcome, complete=False)
    # There was an outage.  What arrived meanwhile need not be lost: the cable's end keeps it.
    assert found.outcome.pause_ms > DOWN_S * 1000


def test_queues_that_change_their_number(service: Service, hosts: Outside, tmp_path: Path) -> None:
    """Two workers, and for a while four queues: what comes by the others takes the sockets."""
    node, name = service.node, service.names[0]

    def queues(count: int) -> Callable[[], None]:
        def change() -> None:
            node.ssh(f"ethtool -L {name} combined {count}")
            now = node.ssh(f"ethtool -l {name}").split("Current")[1]
            assert re.search(rf"Combined:\s+{count}$", now, re.M), now

        return change

    def refused() -> None:
        """The kernel takes no queue away that a zero-copy socket is bound to."""
        said = node.ssh(f"ethtool -L {name} combined 1 2>&1; echo status $?")
        assert "status 0" not in said, said

    found = asyncio.run(
        disturbed(
            service,
            hosts,
            tmp_path,
            queues(4),
            queues(2),
            refused,
            after=past_the_kernel(service),
        )
    )
    told("queues", found, service.status())
    check(service, found.outcome, complete=False)


HEADER_FAULTS = (
    "drop_unknown_flow", "drop_bad_class", "pass_complex", "pass_truncated", "pass_not_ours",
    "malformed", "unknown_flow", "bad_class", "rtp_version", "rtp_truncated", "rtcp_truncated",
    "unknown_ssrc",
)  # fmt: skip


def faults(status: dict[str, Any]) -> dict[str, int]:
    """What a damaged or doubled packet can be counted as."""
    found = {**status["drops"], **status["steering"]["verdicts"]}
    return {name: found[name] for name in (*HEADER_FAULTS, "auth_failed", "replayed")}


def test_a_lossy_way(service: Service, tmp_path: Path) -> None:
    """Client -> NIC 1, a router of the node's own -> netem -> NIC 0 with vcfwd, and back."""
    node, second = service.node, service.names[1]
    outside = Outside(node, 0, 0, far=FAR)
    outside.open(both_taps=True)
    try:
        node.ssh(
            f"""
            ip netns add router
            ip link set {second} netns router
            ip -n router addr add {ROUTER}/24 dev {second}
            ip -n router addr add 10.88.{FAR}.1/24 dev {second}
            ip -n router link set {second} up
            ip netns exec router sysctl -qw net.ipv4.ip_forward=1 \
                net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.{second}.send_redirects=0
            ip route replace 10.88.{FAR}.0/24 via {ROUTER}
            """
        )
        for host in (outside.pub, outside.sub):
            outside.route(host, f"{node_address(0)}/32", f"10.88.{FAR}.1")
        before = {}

        def damage() -> None:
            before.update(faults(service.status()))
            node.ssh(f"ip netns exec router tc qdisc replace dev {second} root netem {NETEM}")

        found = asyncio.run(disturbed(service, outside, tmp_path, damage, more=LOSSY))
        said = node.ssh(f"ip netns exec router tc -s qdisc show dev {second}")
        reading("netem.txt", said)
        assert "netem" in said
        reading("netem.json", json.dumps(service.status(), indent=1))
        status = check(service, found.outcome, complete=False)
        more = {name: count - before[name] for name, count in faults(status).items()}
        say(f"netem: { ({name: count for name, count in more.items() if count}) }")
        assert more["auth_failed"] > 0  # a bit of the payload, or of the header under the tag
        assert sum(more[name] for name in HEADER_FAULTS) > 0  # a bit that says where it belongs
        assert more["replayed"] > 0  # what netem sent twice
        assert 0 < found.outcome.received < found.outcome.expected
    finally:
        outside.close()


# ---- departure times -----------------------------------------------------------------------------

PYTHON = "/opt/vcfwd/bin/python -I"  # of the package, with its libraries
RATE = 60_000  # bytes a second of frames: over the small stream's, so that nothing waits for long
STAMPED = 50

_PACED = f"""
import json, sys, time
from forwarder.dataplane import pacing_edt
nic, host, *ports = sys.argv[1:]
with pacing_edt.EdtPacer() as pacer:
    for port in ports:
        pacer.set_rate((host, int(port)), {PORT}, {RATE})
    pacer.attach(nic)
    end = time.monotonic() + 90
    while pacer.outcomes()["stamped"] < {STAMPED} and time.monotonic() < end:
        time.sleep(0.2)
    found = pacer.outcomes()
pacing_edt.detach(nic)
print(json.dumps(found))
"""
"""On the node: the egress program paces the flows to these ports for a while."""


def throttled(node: Machine, name: str) -> int:
    """How often fq held a flow back until the time of its next packet."""
    said = node.ssh(f"tc -s qdisc show dev {name}")
    reading("fq.txt", said)
    counted = re.search(r"^ *gc .* throttled (\d+)", said, re.M)
    assert counted, said
    return int(counted[1])


def test_departures_timed_by_fq(one_nic: Outside, tmp_path: Path) -> None:
    """The socket path where the interface's qdisc is fq: the workers say when a packet may leave,
    and the egress program holds flows to a rate; neither loses a packet."""
    node = one_nic.machine
    service = Service(node, [0], 1)
    service.configure()
    name = service.names[0]
    node.ssh(f"sed -i 's/^\\[network\\]$/&\\npath = \"udp\"/' {CONFIG}")
    node.ssh(f"tc qdisc replace dev {name} root fq")
    service.start()
    service.create_room()
    outcomes: dict[str, int] = {}

    def pace() -> None:
        sockets = subprocess.run(
            one_nic.sub.command("ss", "-uanH"), capture_output=True, text=True, check=True
        ).stdout
        ports = [line.split()[3].rpartition(":")[2] for line in sockets.splitlines()]
        said = node.ssh(
            f"{PYTHON} - {name} {one_nic.sub.address} {' '.join(ports)}", data=_PACED.encode()
        )
        outcomes.update(json.loads(said))

    found = asyncio.run(disturbed(service, one_nic, tmp_path, pace))
    held = throttled(node, name)
    say(f"fq: the egress program {outcomes}, held back {held} times")
    status = check(service, found.outcome, complete=False)
    assert sum(found.lost) <= told("fq", found, status)  # none by the egress program, or by fq
    assert status["path"] == "udp"
    assert "departures timed by fq" in status["why"]
    assert outcomes["stamped"] >= STAMPED and outcomes["beyond"] == 0
    assert held > 0


BURST = 80  # packets; fq takes 100 of a flow
BURST_RATE = 10_420  # bytes a second: ten packets
FRAME = 14 + 20 + 8 + 1000

_BURST = f"""
import json, socket, sys
from forwarder.dataplane import pacing_edt
nic, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
with pacing_edt.EdtPacer(horizon_ns=9_500_000_000) as pacer:
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    out.bind(("{node_address(0)}", {PORT}))
    out.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    pacer.set_rate((host, port), {PORT}, {BURST_RATE})
    pacer.attach(nic)
    for number in range({BURST}):
        out.sendto(bytes([number]) * 1000, (host, port))
    print(json.dumps(pacer.outcomes()))
pacing_edt.detach(nic)
"""
"""On the node: a burst, whose packets the egress program tells to leave at a rate."""

_ARRIVALS = f"""
import json, socket, time
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
here.bind(("", 0))
here.settimeout(60)
print(here.getsockname()[1], flush=True)
print(json.dumps([(here.recv(2000)[0], time.monotonic()) for _ in range({BURST})]))
"""


def test_a_burst_leaves_at_the_rate_of_the_egress_program(one_nic: Outside) -> None:
    node = one_nic.machine
    service = Service(node, [0], 1)
    service.configure()
    name = service.names[0]
    node.ssh(f"tc qdisc replace dev {name} root fq; ping -c 1 -w 30 {one_nic.sub.address}")
    with subprocess.Popen(
        one_nic.sub.command(sys.executable, "-c", _ARRIVALS), stdout=subprocess.PIPE, text=True
    ) as receiver:
        try:
            assert receiver.stdout is not None
            port = receiver.stdout.readline().strip()
            said = node.ssh(f"{PYTHON} - {name} {one_nic.sub.address} {port}", data=_BURST.encode())
            arrivals = json.loads(receiver.communicate(timeout=90)[0])
        finally:
            receiver.kill()
    outcomes = json.loads(said)
    held = throttled(node, name)
    span_s = arrivals[-1][1] - arrivals[0][1]
    rated_s = (BURST - 1) * FRAME / BURST_RATE
    said = f"edt: a burst of {BURST} took {span_s:.1f} s, {rated_s:.1f} s by its rate"
    say(f"{said}; {outcomes}, held {held} times")
    assert [number for number, _ in arrivals] == list(range(BURST))
    assert outcomes["stamped"] >= BURST - 1 and outcomes["beyond"] == 0
    assert held > BURST // 2  # what comes to its turn late is not held
    assert span_s > rated_s / 2  # whatever this machine does meanwhile, it is no burst any more
