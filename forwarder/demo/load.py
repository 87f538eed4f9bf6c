"""A loaded node for profiling: one publisher to ten receivers, and joins that never end.

    python -m forwarder.demo.load        (needs root: network namespaces)

It speaks the protocol of forwarder/telemetry/flame/load.py: one JSON line `ready` with the run
directory of its node once media flows, then it goes on until its stdin ends; its last line is
`summary`.  The node is one of its own, in namespaces of its own; whatever else runs on this
machine is left alone.

The packets come from the performance rig's generator (1:10, 1200 bytes, GCM), at a rate at which
the node's one worker runs for about half of the time.  The generator is of a checkout; where there
is none, VCFWD_GENERATOR names it, or a sentence says so.  The receivers are deaf: their sockets
fill up and the kernel drops what comes, so that the load is the node's work and not theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import time
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

from forwarder.client.bot import emit_json
from forwarder.demo.children import Child
from forwarder.demo.load_client import RATE, RATE_MAX
from forwarder.demo.namespaces import Bpffs, Host, Lab
from forwarder.demo.node import Node
from forwarder.errors import HostError, VcfwdError
from forwarder.rooms.roles import Role
from forwarder.telemetry.top import threads

RECEIVERS = 10
PORT = 4433
READY_S = 30.0
QUIT_S = 15.0
MEASURE_S = 0.5
STEPS = 2  # a batch grows with the rate, so the first guess is too low
TARGET_SHARE = 0.5  # of the worker's time
GUARD = """
[guard]
flow_packets_per_s = 1000000
flow_bytes_per_s = 10000000000
flow_burst_packets = 100000
flow_burst_bytes = 100000000
[pacing]
start_rate = 1000000000
"""  # the limits are for one human's streams, not for these
# A profile of a process that is restarted is of no use, and a busy machine may starve a worker.
DATAPLANE = "[dataplane]\nvideo_slots = 8192\nwatchdog_ms = 10000"


async def _stdin_ends() -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def readable() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin.fileno())
            ended.set()

    loop.add_reader(sys.stdin.fileno(), readable)
    await ended.wait()


def find_generator() -> str:
    """VCFWD_GENERATOR, else that of the checkout; HostError with what to do when there is none."""
    named = os.environ.get("VCFWD_GENERATOR")
    place = Path(named or Path(__file__).resolve().parents[2] / "build/perf/generator")
    if os.access(place, os.X_OK):
        return str(place)
    raise HostError(
        f"there is no load generator at {place}: run `make` in a checkout of vcfwd, and "
        "use that one, or name its build/perf/generator in VCFWD_GENERATOR; without --load this "
        "host's own node is sampled"
    )


async def _child(made: AsyncExitStack, node: Node, host: Host, gate: str, part: str) -> Child:
    """One of the two parts of forwarder/demo/load_client.py on `host`."""
    role = Role.ACTIVE if part == "publish" else Role.PASSIVE
    order = {
        "part": part,
        "url": node.url(gate),
        "cert_hash": node.cert_hash,
        "token": node.token(part, role),
        "receivers": RECEIVERS,
        "generator": find_generator(),
    }
    command = [sys.executable, "-m", "forwarder.demo.load_client"]
    log = node.base / f"load-{part}.log"
    child = await Child.start(part, host, command, log, {"VCFWD_LOAD": json.dumps(order)})
    made.push_async_callback(child.end)
    return child


async def _send(publish: Child, rate: int) -> None:
    publish.tell(str(rate))
    await publish.wait_for("sending", READY_S, lambda event: event["rate"] == rate)


async def _flows(node: Node) -> None:
    """Waits until copies leave."""
    async with asyncio.timeout(READY_S):
        while not (await node.status())["counters"]["transmitted"]:
            await asyncio.sleep(MEASURE_S / 10)


async def _half_a_core(node: Node, publish: Child) -> int:
    """Finds the rate at which the worker runs for half of the time, and leaves it so."""
    (pid,) = node.dataplane_pids()
    rate = RATE
    await _send(publish, rate)
    await _flows(node)
    for _ in range(STEPS):
        before, began = threads(pid), time.monotonic()
        await asyncio.sleep(MEASURE_S)
        after, ended = threads(pid), time.monotonic()
        ran_s = sum(now.ran_ns - before[i].ran_ns for i, now in after.items() if i in before) / 1e9
        share = max(ran_s / (ended - began), 0.01)
        rate = min(RATE_MAX, max(1, round(rate * TARGET_SHARE / share)))
        await _send(publish, rate)
    return rate


async def _load(lab: Lab, node: Node) -> dict[str, Any]:
    async with AsyncExitStack() as made:
        made.push_async_callback(node.clean_up)
        await node.start()
        await node.create_room(2)
        publish = await _child(made, node, lab.pub, lab.fwd_addresses[0], "publish")
        await publish.wait_for("published", READY_S)
        audience = await _child(made, node, lab.sub, lab.fwd_addresses[1], "audience")
        await audience.wait_for("live", READY_S)
        rate = await _half_a_core(node, publish)
        before = (await node.status())["counters"]
        emit_json({"event": "ready", "run_dir": str(node.run_dir)})
        await _stdin_ends()
        after = (await node.status())["counters"]
        summary: dict[str, Any] = {
            "event": "summary",
            "rate": rate,
            "packets_in": after["rx"] - before["rx"],
            "packets_out": after["transmitted"] - before["transmitted"],
        }
        for child in (publish, audience):
            child.hang_up()
            summary |= await child.wait_for("summary", QUIT_S)
        await node.stop()
        return summary | {"event": "summary"}


def _widen(config: Path) -> None:
    """Limits in the demo's configuration that a load may come near."""
    text = config.read_text().replace("[dataplane]", DATAPLANE, 1)
    config.write_text(text + GUARD)


def main() -> int:
    """Exit status 0 when the load ran until it was told to end."""
    if os.geteuid() != 0:
        print("the load needs root: it makes network namespaces", file=sys.stderr)
        return 1
    base = Path(f"/run/vcfwd-load-{os.getpid()}")
    try:
        find_generator()  # before anything is made for nothing
        with ExitStack() as made:
            base.mkdir(mode=0o700)
            made.callback(shutil.rmtree, base, ignore_errors=True)
            lab = made.enter_context(Lab(prefix="vcload"))
            node = Node(lab.fwd, base, lab.fwd_addresses, lab.interfaces, "auto", 1, PORT)
            node.prepare()
            _widen(base / "demo.toml")
            made.enter_context(Bpffs(node.run_dir / "bpf"))
            with contextlib.suppress(KeyboardInterrupt):
                emit_json(asyncio.run(_load(lab, node)))
    except (VcfwdError, OSError) as error:
        print(f"load: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
