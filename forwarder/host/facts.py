"""The host as it is: processors, NUMA nodes, NICs, isolation.  Reads and decides nothing.

Everything is optional: a virtual machine has no frequencies, a container no /sys.  What is not
there is empty, and processors that have no topology are cores of their own on node 0.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from forwarder.host import cpulist, vectors
from forwarder.host.root import Host, Unreadable
from forwarder.host.vectors import Vector

_CPU = "/sys/devices/system/cpu"
_NODE = "/sys/devices/system/node"
NICS_MAX = 256
"""Interfaces that are looked at."""
_TUNNELS = ("vxlan", "geneve", "gre", "gretap", "wireguard", "ipip", "sit")
_TUNNEL_TYPES = ("768", "769", "776", "778", "823")
"""ARPHRD_TUNNEL, TUNNEL6, SIT, IPGRE, IP6GRE (include/uapi/linux/if_arp.h)."""
_BY_DRIVER = {
    "macvlan": "macvlan", "macvtap": "macvlan", "ipvlan": "ipvlan", "tun": "tunnel",
    "bonding": "bond", "bridge": "bridge", "802.1Q VLAN Support": "vlan",
}  # fmt: skip
"""What ethtool says of those whose uevent says no type: macvlan does not (measured)."""


@dataclass(frozen=True)
class Cpu:
    """A processor of the kernel's; `siblings`: those of the same core, itself too; `cache`: those
    that share its last-level cache."""

    number: int
    node: int
    siblings: tuple[int, ...]
    cache: tuple[int, ...]
    cache_size: str


@dataclass(frozen=True)
class Nic:
    """An interface.  `node` -1: the device does not say; `kind`: physical, veth, bond, vlan,
    bridge, macvlan, ipvlan, tunnel, loopback or virtual; `lower`: what it is built on."""

    name: str
    kind: str
    driver: str
    node: int
    up: bool
    mtu: int
    queues: int
    queues_max: int
    master: str
    lower: tuple[str, ...]
    vectors: tuple[Vector, ...]
    ethtool: dict[str, Any]


@dataclass(frozen=True)
class Facts:
    kernel: str
    cmdline: str
    cpus: tuple[Cpu, ...]
    nodes: dict[int, tuple[int, ...]]
    smt: str
    isolated: tuple[int, ...]
    nohz_full: tuple[int, ...]
    cgroup: str  # v2, v1, or empty: no cpusets
    systemd: bool
    nics: dict[str, Nic]

    @property
    def release(self) -> tuple[int, int]:
        """The kernel's version: (6, 13)."""
        return _release(self.kernel)

    def cpu(self, number: int) -> Cpu | None:
        return self._by_number.get(number)

    @cached_property
    def _by_number(self) -> dict[int, Cpu]:
        return {cpu.number: cpu for cpu in self.cpus}


def release(host: Host) -> tuple[int, int]:
    """The kernel's version."""
    return _release(host.read("/proc/sys/kernel/osrelease") or "")


def _release(text: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def gather(host: Host) -> Facts:
    """Reads it all; no privileges."""
    found = nodes(host)
    cpus = _cpus(host, found)
    found = {node: tuple(c.number for c in cpus if c.node == node) for node in sorted(found)}
    run_time = _list(host, "/sys/fs/cgroup/cpuset.cpus.isolated")
    return Facts(
        kernel=host.read("/proc/sys/kernel/osrelease") or "",
        cmdline=host.read("/proc/cmdline") or "",
        cpus=cpus,
        nodes=found,
        smt=host.read(f"{_CPU}/smt/control") or "unknown",
        isolated=tuple(sorted({*_list(host, f"{_CPU}/isolated"), *run_time})),
        nohz_full=_list(host, f"{_CPU}/nohz_full"),
        cgroup=_cgroup(host),
        systemd=host.systemd(),
        nics={name: nic(host, name) for name in host.interfaces()[:NICS_MAX]},
    )


def again(host: Host, old: Facts, names: Iterable[str]) -> Facts:
    """What an apply can change, read again: these interfaces (those that are gone left out) and
    the isolated processors.  Processors do not come and go meanwhile."""
    run_time = _list(host, "/sys/fs/cgroup/cpuset.cpus.isolated")
    nics = {name: nic(host, name) for name in names if host.path(f"/sys/class/net/{name}").is_dir()}
    isolated = tuple(sorted({*_list(host, f"{_CPU}/isolated"), *run_time}))
    return dataclasses.replace(old, nics=nics, isolated=isolated)


def _list(host: Host, path: str) -> tuple[int, ...]:
    try:
        return cpulist.parse((host.read(path) or "").strip("()\n nul"))
    except ValueError:
        return ()


def nodes(host: Host) -> dict[int, tuple[int, ...]]:
    """NUMA node -> its processors; one node where the host does not tell."""
    found = {
        int(entry[4:]): _list(host, f"{_NODE}/{entry}/cpulist")
        for entry in host.names(_NODE)
        if re.fullmatch(r"node\d+", entry)
    }
    return found or {0: ()}


def _cpus(host: Host, nodes: dict[int, tuple[int, ...]]) -> tuple[Cpu, ...]:
    home = {cpu: node for node, cpus in nodes.items() for cpu in cpus}
    online = _list(host, f"{_CPU}/online") or tuple(range(os.cpu_count() or 1))
    found = []
    for number in online:
        here = f"{_CPU}/cpu{number}"
        caches = [e for e in host.names(f"{here}/cache") if re.fullmatch(r"index\d+", e)]
        last = f"{here}/cache/{max(caches, key=lambda e: int(e[5:]))}" if caches else ""
        siblings = _list(host, f"{here}/topology/thread_siblings_list")
        siblings = tuple(sorted({number, *siblings}))
        shared = _list(host, f"{last}/shared_cpu_list") if last else ()
        size = (host.read(f"{last}/size") or "") if last else ""
        found.append(Cpu(number, home.get(number, min(nodes)), siblings, shared, size))
    return tuple(found)


def _cgroup(host: Host) -> str:
    if "cpuset" in (host.read("/sys/fs/cgroup/cgroup.controllers") or "").split():
        return "v2"
    return "v1" if host.exists("/sys/fs/cgroup/cpuset/cpuset.cpus") else ""


# ---- interfaces ------------------------------------------------------------------------------


def node_of(host: Host, name: str) -> int:
    """The NUMA node of an interface; -1: its device does not say, or it has none."""
    here = f"/sys/class/net/{name}/device"
    node = host.read(f"{here}/numa_node") or host.read(f"{here}/../numa_node")
    return int(node) if node and re.fullmatch(r"-?\d+", node) else -1


def nic(host: Host, name: str) -> Nic:
    """One interface; what its driver does not tell is empty."""
    here = f"/sys/class/net/{name}"
    try:
        tool = host.ethtool(name)
    except OSError:
        tool = {}
    driver = host.link(f"{here}/device/driver") or tool.get("driver", {}).get("driver", "")
    channels = tool.get("channels", {})
    queues = sum(entry.startswith("rx-") for entry in host.names(f"{here}/queues"))
    count = channels.get("combined_count") or channels.get("rx_count") or queues or 1
    most = channels.get("combined_max") or channels.get("rx_max") or count
    entries = host.names(here)
    lower = tuple(e.removeprefix("lower_") for e in entries if e.startswith("lower_"))
    flags = _number(host.read(f"{here}/flags"), 16)
    return Nic(
        name=name,
        kind=_kind(host, name, driver),
        driver=driver,
        node=node_of(host, name),
        up=bool(flags & 1),
        mtu=_number(host.read(f"{here}/mtu")),
        queues=count,
        queues_max=max(count, most),
        master=host.link(f"{here}/master"),
        lower=lower,
        vectors=_vectors(host, name),
        ethtool=tool,
    )


def _number(text: str | None, base: int = 10) -> int:
    """Zero: there is none."""
    try:
        return int(text or "0", base)
    except ValueError:
        return 0


def _vectors(host: Host, name: str) -> tuple[Vector, ...]:
    """None where only root may read /proc/interrupts: the stage that needs them says so."""
    try:
        return vectors.read(host, name)
    except Unreadable:
        return ()


def _kind(host: Host, name: str, driver: str) -> str:
    here = f"/sys/class/net/{name}"
    kind = (host.read(f"{here}/uevent") or "").partition("DEVTYPE=")[2].partition("\n")[0]
    hardware = host.read(f"{here}/type") or ""
    if hardware == "772":
        return "loopback"
    if kind in ("bond", "vlan", "bridge"):
        return kind
    if kind in _TUNNELS or hardware in _TUNNEL_TYPES:
        return "tunnel"
    if driver in _BY_DRIVER:
        return _BY_DRIVER[driver]
    if host.exists(f"{here}/device"):
        return "physical"
    return "veth" if driver == "veth" else "virtual"


def as_json(facts: Facts) -> dict[str, Any]:
    """For `tune show --json`."""
    body = dataclasses.asdict(facts)
    body["nodes"] = {str(node): list(cpus) for node, cpus in facts.nodes.items()}
    return body
