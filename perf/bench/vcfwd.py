"""vcfwd-dataplane as a relay: the process, the steering program and the table; no supervisor.

Sizes, limits and times are those of the shipped configuration (configs/default.toml) except where
a case needs larger tables, and except the guard's rates, which stand in the way of one flow that is
to fill a core: its counters are checked to be silent instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from forwarder.commands import Command
from forwarder.dataplane.commands import CommandClient
from forwarder.dataplane.control import Control
from forwarder.dataplane.process import DataPlane
from forwarder.dataplane.setup import Interface, Local, Setup, SetupFlags
from forwarder.dataplane.spawn import find_binary
from forwarder.dataplane.steering import Flow, Rates, Steering, ensure_bpffs
from forwarder.dataplane.tally import Snapshot, imbalance
from forwarder.table import Tuple5
from perf.bench import classes, keys
from perf.bench.lab import (
    PORT,
    PORT_BASE,
    SOURCE_PORT,
    Lab,
    PerfError,
    entered,
)
from perf.bench.relay import Case, Relay
from perf.bench.table import FanOut, Meeting, Port, mac

T = TypeVar("T")
RATES = Rates(
    flow_bytes_per_s=1 << 34, flow_burst_bytes=1 << 30, flow_packets_per_s=10_000_000,
    flow_burst_packets=2_000_000,
)  # fmt: skip
AUTO = "auto"


class BenchPlane(DataPlane):
    """Stays in the rig's session: the meter's SCHED_IDLE gives way only within its autogroup.

    No watchdog: a worker that a busy machine holds up is a result, not a reason to start anew.
    """

    async def _watch(self) -> None:
        await self._ended.wait()
        for lost in list(self.on_lost):
            lost()

    async def _reach(self) -> Control:
        original = subprocess.Popen

        def popen(*args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
            return original(*args, **{**kwargs, "start_new_session": False})

        subprocess.Popen = popen  # type: ignore[assignment,misc]
        try:
            return await super()._reach()
        finally:
            subprocess.Popen = original  # type: ignore[misc]


def power_of_two(n: int) -> int:
    return 1 << max(0, n - 1).bit_length()


@dataclass(frozen=True)
class Path_:
    """How packets travel: AF_XDP or sockets, and whether a backlog of one leg is merged."""

    xsk: bool
    gso: bool = False


class Vcfwd(Relay):
    """`paced`: each leg's rate follows what is offered, at PACE_FACTOR of its share."""

    sealed_in = True
    path: ClassVar[Path_]
    paced: ClassVar[bool] = True
    PACE_FACTOR: ClassVar[float] = 2.0

    def __init__(self, lab: Lab, case: Case, *, members: int = 0, **setup: Any) -> None:
        super().__init__(lab, case)
        self._members, self._setup = members, setup
        self._stack = contextlib.ExitStack()
        self._loop = asyncio.new_event_loop()
        self.far_ip = ""
        """Receivers one hop behind the `sub` host instead of on it."""
        self._first_legs = 0

    # ---- life -------------------------------------------------------------------------------

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    def _ports(self) -> tuple[Port, Port]:
        n = self.lab.names
        into = Port(0, mac(n["in_mac"]), mac(n["pub_mac"]), n["in_ip"], n["pub_ip"], PORT)
        far = self.far_ip or n["sub_ip"]
        out = Port(1, mac(n["out_mac"]), mac(n["sub_mac"]), n["out_ip"], far, PORT)
        return into, out

    def plan(self) -> FanOut | Meeting:
        into, out = self._ports()
        c, xsk = self.case, self.path.xsk
        if self._members:
            return Meeting(c.suite, self._members, c.workers, into, SOURCE_PORT, xsk)
        return FanOut(
            c.suite, c.publishers, c.copies, c.workers, into, out, SOURCE_PORT, PORT_BASE, xsk
        )

    def start(self) -> None:
        find_binary()
        try:
            with entered(self.lab.netns("fwd")):
                self._start()
        except BaseException:
            self._stack.close()
            raise

    def _start(self) -> None:
        pins = Path(f"/run/{self.lab.prefix}-bpf")
        ensure_bpffs(pins)
        self._stack.callback(_unmount, pins)
        self.steering = Steering.load(pins / "steering", RATES)
        self._stack.callback(self.steering.unload)
        run_dir = self.lab.folder / "run"
        shutil.rmtree(run_dir, ignore_errors=True)
        interfaces = self._attach()
        n = self.lab.names
        for ip in (n["in_ip"], n["out_ip"]):
            self.steering.add_listen(ip, PORT)
        self.plane = BenchPlane(
            run_dir, on_group=lambda group: self.steering.attach_selector(group.sockets)
        )
        self._loop = asyncio.new_event_loop()
        self._stack.callback(self._loop.close)
        xsks = self.steering.xsks_fd if interfaces else None
        self.wait(self.plane.start(self.setup(interfaces), xsks_map=xsks))
        self._stack.callback(lambda: self.wait(self.plane.shutdown()))
        self.client = self.wait(self._connect())
        self._stack.callback(self.client.close)
        self.fill(self.plan())

    async def _connect(self) -> CommandClient:
        return CommandClient(self.plane)

    def _attach(self) -> tuple[Interface, ...]:
        if not self.path.xsk:
            return ()
        found = []
        for i, name in enumerate((self.lab.names["in_if"], self.lab.names["out_if"])):
            attached = self.steering.attach(name, "native")
            self.steering.set_port_base(attached.ifindex, 64 * i)
            found.append(Interface(name, attached.ifindex, 64 * i))
        return tuple(found)

    def setup(self, interfaces: tuple[Interface, ...]) -> Setup:
        n, c = self.lab.names, self.case
        legs = self._members or c.publishers + c.receivers
        routes = 2 * self._members * self._members or c.receivers
        values: dict[str, Any] = {
            "workers": c.workers,
            "cpus": classes.CORES[: c.workers],
            "scheduler": self.scheduling.scheduler,
            "priority": self.scheduling.priority,
            "legs_max": max(1024, power_of_two(legs)),
            "routes_max": max(8192, power_of_two(routes)),
            "flags": SetupFlags.UDP_GSO if self.path.gso else SetupFlags.NONE,
        }
        local = (Local(n["in_ip"], PORT), Local(n["out_ip"], PORT))
        return Setup(locals=local, interfaces=interfaces, **{**values, **self._setup})

    def stop(self) -> dict[str, Any]:
        fault = self.fault()
        snapshot = self.plane.counters()
        counters = {**snapshot.counters, **snapshot.drops, **snapshot.copy_drops}
        self._stack.close()
        if fault:
            raise PerfError(f"{self.name}: {fault}")
        return counters

    # ---- table ------------------------------------------------------------------------------

    def fill(self, plan: FanOut | Meeting) -> None:
        """Flows into the steering map, everything else through the command ring."""
        self.table = plan
        self._first_legs = plan.publishers if isinstance(plan, FanOut) else plan.members
        for i, (each, _, _) in enumerate(plan.legs()):
            if i >= self._first_legs:
                break
            t = each.tuples[0]
            five = Tuple5(t.remote_ip, t.remote_port, t.local_ip, t.local_port)
            self.steering.set_flow(five, Flow(each.id, each.worker))
        self.apply(plan.commands())

    def apply(self, commands: list[Command]) -> None:
        self.wait(self.client.apply(commands))

    def offered(self, rate: float) -> None:
        if self.paced:
            share = rate / self.case.publishers * self.case.sealed_bytes * 8
            self.apply(self.table.rates(int(self.PACE_FACTOR * share)))

    def set_rate(self, rate_bps: int) -> None:
        """The pacing rate of every receiving leg, bits a second; 0: unpaced."""
        self.apply(self.table.rates(rate_bps))

    def key_file(self) -> Path | None:
        pairs = ((self.base + r, self.case.publishers + r) for r in range(self.case.receivers))
        path = self.lab.folder / f"receiver-{self.case.suite}-{self.case.receivers}.keys"
        return path if path.exists() else keys.receiver_file(path, self.case.suite, pairs)

    # ---- what it says -----------------------------------------------------------------------

    def counters(self) -> Snapshot:
        return self.plane.counters()

    def fault(self) -> str | None:
        """A broken conservation law, or a guard that took part in the measurement."""
        problem = imbalance(self.plane.counters())
        return f"the books do not balance: {problem}" if problem else None

    def cpu_s(self) -> float:
        """CPU time of the data plane process so far, seconds (user and system)."""
        fields = Path(f"/proc/{self.plane.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def threads(self) -> list[int]:
        found = []
        for task in Path(f"/proc/{self.plane.pid}/task").iterdir():
            if (task / "comm").read_text().startswith("vcfwd-w"):
                found.append(int(task.name))
        return found


def _unmount(pins: Path) -> None:
    subprocess.run(["umount", str(pins)], check=False, capture_output=True)
    with contextlib.suppress(OSError):
        pins.rmdir()


class Xsk(Vcfwd):
    name, path = "vcfwd", Path_(xsk=True)


class XskUnpaced(Xsk):
    name, paced = "vcfwd unpaced", False


class Sockets(Vcfwd):
    name, path = "vcfwd on sockets", Path_(xsk=False)


class SocketsUnpaced(Sockets):
    name, paced = "vcfwd on sockets, unpaced", False


class SocketsGso(Vcfwd):
    name, path, paced = "vcfwd on sockets, GSO, unpaced", Path_(xsk=False, gso=True), False
