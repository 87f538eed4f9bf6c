"""`vcfwd tune capture DIR`: this host as files, so that it can be looked at elsewhere.

What `show`, `plan` and `check` read is what is saved: a Recorder answers like the host and notes
each answer.  Addresses, serial numbers and secrets are taken out on the way: hardware and IP
addresses, the boot's identifier, words of the command line that we do not know, and all of a
configuration file but the lines that count.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from forwarder.config import Config
from forwarder.errors import HostError
from forwarder.host import conflicts, site
from forwarder.host.root import KEEP, Host, Nics
from forwarder.host.stages import STAGES

_MAC = re.compile(r"\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b", re.I)
_IP = re.compile(r"\b\d{1,3}(\.\d{1,3}){3}\b")
_BOOT_WORDS = re.compile(
    r"(isolcpus|nohz_full|rcu_nocbs|irqaffinity|skew_tick|nosoftlockup|mitigations|nohz|tsc"
    r"|intel_pstate|amd_pstate|intel_iommu|iommu|idle|processor\.max_cstate|default_hugepagesz"
    r"|hugepagesz|hugepages|transparent_hugepage|nosmt|ro|rw|quiet)(=\S*)?"
)
_NO_BOOT = "00000000-0000-0000-0000-000000000000"


class Recorder(Host):
    """A Host that writes down what it answers."""

    def __init__(self, folder: Path, root: str | os.PathLike[str] = "/") -> None:
        super().__init__(root)
        self._folder = folder
        self._tool: dict[str, Any] = {}
        self._inner = super().nics

    @property
    def nics(self) -> Nics:
        return _Noted(self._inner, self._tool) if hasattr(self, "_inner") else super().nics

    def _place(self, name: str) -> Path:
        place = self._folder / name.lstrip("/")
        parts = place.relative_to(self._folder).parts
        for depth in range(1, len(parts)):  # `..` below a directory that is not there yet
            (self._folder / Path(*parts[:depth])).mkdir(exist_ok=True)
        return place

    def _raw(self, name: str) -> bytes | None:
        raw = super()._raw(name)
        if raw is not None and not re.fullmatch(r"/proc/\d+/comm", name):
            text = raw.decode(errors="surrogateescape")
            kept = clean(name, text)
            if kept and text.endswith("\n") and not kept.endswith("\n"):
                kept += "\n"
            self._place(name).write_bytes(kept.encode(errors="surrogateescape"))
        return raw

    def names(self, name: str) -> list[str]:
        found = super().names(name)
        if not found or name == "/proc":
            return found
        place = self._place(name)
        place.mkdir(exist_ok=True)
        for entry in found:
            here = self.path(name) / entry
            if entry.startswith(("lower_", "upper_")) or entry == "master":
                self._symlink(place / entry, f"../{os.path.basename(os.readlink(here))}")
            elif name.endswith("/msi_irqs"):
                (place / entry).touch()
            elif here.is_dir() and entry not in ("subsystem", "power", "statistics"):
                (place / entry).mkdir(exist_ok=True)
        return found

    def exists(self, name: str) -> bool:
        found = super().exists(name)
        if found and self.path(name).is_dir():
            self._place(name).mkdir(exist_ok=True)
        elif found:
            self._place(name).touch()
        return found

    def link(self, name: str) -> str:
        found = super().link(name)
        if found:
            self._symlink(self._place(name), f"../{found}")
        return found

    def running(self, names: frozenset[str]) -> list[str]:
        found = super().running(names)
        for number, comm in enumerate(found, 1):
            self._place(f"/proc/{number}/comm").write_text(comm + "\n")
        return found

    def _symlink(self, place: Path, target: str) -> None:
        if not place.is_symlink():
            place.symlink_to(target)

    def finish(self) -> None:
        """The NICs' sections."""
        text = json.dumps(self._tool, indent=1, sort_keys=True)
        (self._folder / "ethtool.json").write_text(text + "\n")
        for place in self._folder.rglob("*"):
            if place.is_dir() and not place.is_symlink() and not any(place.iterdir()):
                (place / KEEP).touch()


class _Noted:
    """NICs whose answers are kept."""

    def __init__(self, inner: Nics, kept: dict[str, Any]) -> None:
        self._inner, self._kept = inner, kept

    def read(self, nic: str) -> dict[str, Any]:
        found = self._inner.read(nic)
        self._kept[nic] = found
        return found

    def section_of(self, nic: str, name: str) -> Any:
        return self.read(nic).get(name)

    def set(self, nic: str, section: str, name: str, value: str) -> None:
        raise HostError("a capture changes nothing")


def capture(folder: Path, config: Config, root: str | os.PathLike[str] = "/") -> int:
    """Writes it to a new directory; how many files.  HostError: the directory has something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise HostError(f"{folder} is not empty: name a new directory")
    folder.mkdir(parents=True, exist_ok=True)
    host = Recorder(folder, root)
    here = site.survey(host, config)
    physical = [nic.name for nic in here.site.facts.nics.values() if nic.kind == "physical"]
    for survey in (here, site.survey(host, config, physical)):
        for stage in STAGES:
            stage.check(survey.site)
    conflicts.find(host, None)
    host.boot_id()
    for name in ("/proc/stat", "/sys/fs/cgroup/cpuset.cpus.isolated"):
        host.read(name)
    host.finish()
    return sum(1 for path in folder.rglob("*") if path.is_file())


def clean(name: str, text: str) -> str:
    """The text without what says who the host is."""
    if name == "/proc/net/route":
        return "\n".join(_route4(line) for line in text.splitlines())
    if name == "/proc/net/ipv6_route":
        return "\n".join(_route6(line) for line in text.splitlines())
    if name == "/proc/cmdline":
        return " ".join(w for w in text.split() if _BOOT_WORDS.fullmatch(w))
    if name.endswith("/boot_id"):
        return _NO_BOOT
    if name == "/proc/cpuinfo":  # of one processor what it can, not which one it is
        return next((line for line in text.splitlines() if line.startswith("flags")), "")
    if name == "/proc/stat":
        return "\n".join(line for line in text.splitlines() if line.startswith("cpu"))
    if name.startswith("/etc/NetworkManager"):
        return "\n".join(line for line in text.splitlines() if line.startswith("["))
    if name.startswith("/etc/network/"):
        return "\n".join(x for x in text.splitlines() if conflicts.IFUPDOWN_LINE.match(x))
    return _IP.sub("0.0.0.0", _MAC.sub("00:00:00:00:00:00", text))


def _route4(line: str) -> str:
    """Interface, destination, gateway, flags, three counts, mask; only zeros tell something."""
    words = line.split()
    if len(words) < 8 or words[0] == "Iface":
        return line.strip()
    for at in (1, 7):
        words[at] = "00000000" if int(words[at], 16) == 0 else "FFFFFFFF"
    words[2] = "00000000"
    return "\t".join(words)


def _route6(line: str) -> str:
    words = line.split()
    if len(words) < 10:
        return ""
    for at in (0, 2, 4):
        words[at] = ("0" if int(words[at], 16) == 0 or at else "f") * 32
    return " ".join(words)
