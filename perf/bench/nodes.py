"""A whole node, `vcfwd up`, in the lab's fwd namespace: rooms, createRoom and joins.

Requests come over TLS from the pub namespace on one connection that is kept, as a service's would;
joins are the Python client's, from the first packet with a token in hand to keys.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import time
from collections.abc import Sequence
from typing import Any

from forwarder.client.join import Client
from forwarder.demo.namespaces import Bpffs, Host
from forwarder.demo.node import Node
from forwarder.rooms.roles import Role
from perf.bench import stats
from perf.bench.lab import Lab, PerfError, entered, say
from perf.bench.processes import cpu_s, resident

PORT = 4433


class Service:
    """Somebody who creates rooms over HTTPS."""

    def __init__(self, host: str, token: str) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._connection = http.client.HTTPSConnection(host, PORT, timeout=10, context=context)
        self._headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}

    def create(self, room: str) -> float:
        """Creates a room; seconds from the request to the answer."""
        body = json.dumps({"id": room})
        began = time.perf_counter()
        self._connection.request("POST", "/v1/rooms", body, self._headers)
        answer = self._connection.getresponse()
        said = answer.read()
        took = time.perf_counter() - began
        if answer.status != 201:
            raise PerfError(f"creating room {room}: {answer.status} {said[:200]!r}")
        return took

    def delete(self, room: str) -> None:
        self._connection.request("DELETE", f"/v1/rooms/{room}", headers=self._headers)
        self._connection.getresponse().read()

    def close(self) -> None:
        self._connection.close()


async def join_s(lab: Lab, node: Node, count: int) -> list[float]:
    """Seconds of each join, one after another."""
    found = []
    n = lab.names
    for i in range(count):
        client = Client(node.url(n["in_ip"]), node.token(f"perf-{i}", Role.PASSIVE),
                        cert_hash=node.cert_hash, bind_address=n["pub_ip"])  # fmt: skip
        async with client:
            found.append(client.joined_at - client.started_at)
    return found


def processes(node: Node) -> list[int]:
    """The supervisor's process id and the data plane's."""
    assert node._child is not None
    return [node._child.pid, *node.dataplane_pids()]


async def _level(
    lab: Lab, node: Node, service: Service, present: int, creates: int, joins: int
) -> dict[str, Any]:
    """What it costs with so many rooms present; the rooms made here are taken away again."""
    memory = resident(processes(node)[0])
    names = [f"p{present}-{i}" for i in range(creates)]
    took = []
    for name in names:
        took.append(service.create(name))
        service.delete(name)
    with entered(lab.netns("pub")):
        joined = await join_s(lab, node, joins)
    level = {
        "rooms": present,
        "supervisor_mb": round(memory / 1e6, 2),
        "create_p50_ms": stats.digits((stats.percentile(took, 0.5) or 0) * 1e3),
        "create_p99_ms": stats.digits((stats.percentile(took, 0.99) or 0) * 1e3),
        "join_p50_ms": stats.digits((stats.percentile(joined, 0.5) or 0) * 1e3),
        "join_max_ms": stats.digits(max(joined) * 1e3),
        "resident": memory,
    }
    say(
        f"  {present} rooms: {level['supervisor_mb']} MB, "
        f"createRoom p99 {level['create_p99_ms']} ms, join {level['join_p50_ms']} ms"
    )
    return level


async def _rooms(
    lab: Lab, steps: Sequence[int], creates: int, joins: int, idle_s: float
) -> dict[str, Any]:
    n = lab.names
    base = lab.folder / "node"
    host = Host(lab.netns("fwd"), n["in_ip"])
    node = Node(host, base, [n["in_ip"]], [], "udp", 1, PORT)
    node.prepare()
    config = base / "demo.toml"
    config.write_text(config.read_text() + f"\n[rooms]\nmax_rooms = {max(steps) + 100}\n")
    with Bpffs(node.run_dir / "bpf"):
        try:
            await node.start()
            return await _measure(lab, node, steps, creates, joins, idle_s)
        finally:
            await node.clean_up()


async def _measure(
    lab: Lab, node: Node, steps: Sequence[int], creates: int, joins: int, idle_s: float
) -> dict[str, Any]:
    n = lab.names
    await asyncio.sleep(0.5)
    pids = processes(node)
    idle_mb = resident(pids[0]) / 1e6
    before, at = sum(map(cpu_s, pids)), time.monotonic()
    await asyncio.sleep(idle_s)
    idle = (sum(map(cpu_s, pids)) - before) / (time.monotonic() - at)
    await node.create_room(2)
    admin = await node.request("POST", "/v1/tokens", {"subject": "perf"})
    with entered(lab.netns("pub")):
        service = Service(n["in_ip"], admin["token"])
        service.create("first")
    levels = []
    have = 2
    warm = [service.create(f"warm-{i}") for i in range(20)]
    have += len(warm)
    for step in steps:
        for i in range(have, step):
            service.create(f"r{i}")
        have = max(have, step)
        levels.append(await _level(lab, node, service, have, creates, joins))
    service.close()
    status = await node.stop()
    slope = stats.slope([x["rooms"] for x in levels], [x.pop("resident") for x in levels])
    return {
        "supervisor_idle_mb": round(idle_mb, 1),
        "idle_cpu_share": round(idle, 5),
        "bytes_per_room": round(slope),
        "levels": levels,
        "exit_status": status,
    }


def rooms(
    lab: Lab, steps: Sequence[int], *, creates: int, joins: int, idle_s: float
) -> dict[str, Any]:
    """Memory, createRoom and join at each number of rooms."""
    return asyncio.run(_rooms(lab, steps, creates, joins, idle_s))
