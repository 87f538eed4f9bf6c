"""Who else sets what our stages set, by name, each with the line that makes peace.

Reads only; what only root may read is passed over (`check` needs no privileges).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from forwarder.host import cpulist, irqbalance
from forwarder.host.root import Host, Unreadable

_NIC = ("channels", "rings", "rss", "coalesce", "offloads")
_PROGRAMS = frozenset(
    {"tuned", "irqbalance", "NetworkManager", "power-profiles-", "kubelet", "dockerd"}
)
FILES_MAX = 64
"""Files of a directory of configuration, and containers, that are looked at."""
LINK_LINE = re.compile(
    r"\s*((Rx|Tx|Other|Combined)Channels|\w*BufferSize|\w*Coalesce\w*|\w*Offload\w*|NTupleFilter)="
)
"""A line of a .link file that sets what our stages set (systemd.link(5))."""
IFUPDOWN_LINE = re.compile(r"[^#]*\bethtool -|\s*(hardware-|offload-|ethernet-|lro-|gro-)")
"""The same in a script or a file of ifupdown (Debian's ethtool package reads the options)."""
_CONNECTIONS = (
    "/etc/NetworkManager/system-connections", "/run/NetworkManager/system-connections",
)  # fmt: skip
_V1, _V2 = "/sys/fs/cgroup/cpuset/docker", "/sys/fs/cgroup/system.slice"


@dataclass(frozen=True)
class Conflict:
    who: str
    stages: tuple[str, ...]
    peace: str


def find(host: Host, banned: str | None, house: str = "HOUSEKEEPING") -> list[Conflict]:
    """`banned`: the processors that others should leave alone, as a list; with them in its file
    irqbalance is no rival.  None: it is one if it runs.  `house`: where others may run."""
    running = set(host.running(_PROGRAMS))
    found = []
    if "tuned" in running:
        profile = _read(host, "/etc/tuned/active_profile") or "some profile"
        found.append(
            Conflict(
                f"tuned ({profile})",
                ("sysctls", "governor", "cstates", "thp", "workqueues", "isolation"),
                "systemctl disable --now tuned",
            )
        )
    if "irqbalance" in running:
        lines = _read(host, irqbalance.FILE).splitlines()
        if banned is None or f'IRQBALANCE_BANNED_CPULIST="{banned}"' not in lines:
            peace = "vcfwd tune apply irqbalance && systemctl restart irqbalance"
            found.append(Conflict("irqbalance", ("irq",), peace))
    if "power-profiles-" in running:
        peace = "systemctl disable --now power-profiles-daemon"
        found.append(Conflict("power-profiles-daemon", ("governor",), peace))
    if host.exists("/etc/systemd/system/multi-user.target.wants/cpupower.service"):
        found.append(Conflict("cpupower", ("governor",), "systemctl disable --now cpupower"))
    if "kubelet" in running and '"policyName":"static"' in _read(
        host, "/var/lib/kubelet/cpu_manager_state"
    ).replace(" ", ""):
        peace = f"start kubelet with --reserved-cpus={banned or 'WORKERS'}"
        found.append(Conflict("kubelet's static CPU manager", ("isolation",), peace))
    if "dockerd" in running:
        found += _docker(host, banned, house)
    return found + _files(host, "NetworkManager" in running)


def _docker(host: Host, banned: str | None, house: str) -> list[Conflict]:
    """Containers whose own cpuset has a worker's core (cgroup v1, v2)."""
    places = {name: f"{_V1}/{name}/cpuset.cpus" for name in host.names(_V1) if len(name) == 64}
    for name in host.names(_V2):
        match = re.fullmatch(r"docker-([0-9a-f]{64})\.scope", name)
        if match:
            places[match[1]] = f"{_V2}/{name}/cpuset.cpus"
    found = []
    for name, place in list(places.items())[:FILES_MAX]:
        try:
            theirs = set(cpulist.parse(_read(host, place)))
            ours = set(cpulist.parse(banned)) if banned is not None else theirs
        except ValueError:
            continue
        if theirs & ours:
            peace = f"docker update --cpuset-cpus {house} {name[:12]}"
            found.append(Conflict(f"docker's cpuset of {name[:12]}", ("isolation",), peace))
    return found


def _files(host: Host, manager: bool) -> list[Conflict]:
    found = []
    for folder in ("/etc/systemd/network", "/run/systemd/network"):
        for name, text in _texts(host, folder, ".link"):
            if any(LINK_LINE.match(line) for line in text.splitlines()):
                peace = f"take those lines out of {folder}/{name}"
                found.append(Conflict(f"the link file {name}", _NIC, peace))
    for folder in _CONNECTIONS if manager else ():
        for name, text in _texts(host, folder, ""):
            if "[ethtool]" in text:
                peace = f"take the [ethtool] section out of {folder}/{name}"
                found.append(Conflict(f"NetworkManager ({name})", _NIC, peace))
    for folder in ("/etc/network/if-pre-up.d", "/etc/network/if-up.d"):
        for name, text in _texts(host, folder, ""):
            calls = any(IFUPDOWN_LINE.match(line) for line in text.splitlines())
            if calls and name != "ethtool":  # Debian's own does only what interfaces(5) says
                peace = f"chmod -x {folder}/{name}"
                found.append(Conflict(f"the ifupdown hook {name}", _NIC, peace))
    interfaces = [("interfaces", _read(host, "/etc/network/interfaces"))]
    interfaces += [(f"interfaces.d/{name}", text) for name, text in
                   _texts(host, "/etc/network/interfaces.d", "")]  # fmt: skip
    for name, text in interfaces:
        lines = [line.strip() for line in text.splitlines() if IFUPDOWN_LINE.match(line)]
        if lines:
            peace = f"take `{lines[0]}` out of /etc/network/{name}"
            found.append(Conflict(f"ifupdown ({name})", _NIC, peace))
    return found


def _texts(host: Host, folder: str, ending: str) -> list[tuple[str, str]]:
    try:
        names = [name for name in host.names(folder) if name.endswith(ending)]
    except Unreadable:
        return []
    return [(name, _read(host, f"{folder}/{name}")) for name in names[:FILES_MAX]]


def _read(host: Host, path: str) -> str:
    try:
        return host.read(path) or ""
    except Unreadable:
        return ""
