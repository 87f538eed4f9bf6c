"""Who else sets what our stages set, by name, each with the line that makes peace.

Reads only; what only root may read is passed over (`check` needs no privileges).
"""

from __future__ import annotations

from dataclasses import dataclass

from forwarder.host import irqbalance
from forwarder.host.root import Host, Unreadable

_NIC = ("channels", "rings", "rss", "coalesce", "offloads")
_PROGRAMS = frozenset(
    {"tuned", "irqbalance", "NetworkManager", "power-profiles-", "kubelet", "dockerd"}
)
FILES_MAX = 64
"""Files of a directory of configuration that are looked at."""


@dataclass(frozen=True)
class Conflict:
    who: str
    stages: tuple[str, ...]
    peace: str


def find(host: Host, banned: str | None) -> list[Conflict]:
    """`banned`: the processors that irqbalance should leave alone, as a list; with them in its
    file it is no rival.  None: it is one if it runs."""
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
        peace = "give kubelet --reserved-cpus with the workers' cores"
        found.append(Conflict("kubelet's static CPU manager", ("isolation",), peace))
    if "dockerd" in running and host.names("/sys/fs/cgroup/cpuset/docker"):
        peace = "docker update --cpuset-cpus HOUSEKEEPING for each container"
        found.append(Conflict("docker's cpusets", ("isolation",), peace))
    return found + _files(host, "NetworkManager" in running)


def _files(host: Host, manager: bool) -> list[Conflict]:
    found = []
    for name, text in _texts(host, "/etc/systemd/network", ".link"):
        if any(word in text for word in ("Channels=", "BufferSize=", "Coalesce", "Offload=")):
            peace = f"take those lines out of /etc/systemd/network/{name}"
            found.append(Conflict(f"the link file {name}", _NIC, peace))
    if manager:
        for name, text in _texts(host, "/etc/NetworkManager/system-connections", ""):
            if "[ethtool]" in text:
                peace = f"take the [ethtool] section out of {name}"
                found.append(Conflict(f"NetworkManager ({name})", _NIC, peace))
    for name, text in _texts(host, "/etc/network/if-up.d", ""):
        calls = [line for line in text.splitlines() if "ethtool -" in line.split("#")[0]]
        if calls and name != "ethtool":  # Debian's own does only what interfaces(5) says
            peace = f"chmod -x /etc/network/if-up.d/{name}"
            found.append(Conflict(f"the ifupdown hook {name}", _NIC, peace))
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
