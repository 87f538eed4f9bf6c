"""The machine, or a capture of it: everything that stages read and write goes through one Host.

`Host()` is this machine.  `Host(DIR)` is the machine that `vcfwd tune capture DIR` took down:
files under DIR, its NICs in DIR/ethtool.json; what is written goes there too, and nowhere else.
Reading needs no privileges; Unreadable says which file wants them.  Nothing here decides.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from forwarder.errors import HostError

KEEP = ".keep"
"""In a directory of a capture that has nothing else: version control knows no empty ones."""
_NET = "/sys/class/net"
FILE_MAX = 1 << 20
"""Bytes of a file that are read."""
UNENDED = "\udc0a"
"""Ends the text of a file whose last line has no line break: no byte is read as this."""


def printable(text: str) -> str:
    """The text for people and programs: bytes of a file that are no UTF-8 as `\\udcNN`."""
    ended = text.replace(UNENDED, " (no line break at the end)")
    return ended.encode(errors="backslashreplace").decode()


class Unreadable(HostError):
    """A value that only root may read; nothing is known about it."""


class NoCapture(HostError):
    """What --root names is not what `tune capture` writes: the argument is wrong, not a host."""


class Nics(Protocol):
    """What net.ethtool.Ethtool and a capture have in common."""

    def read(self, nic: str) -> dict[str, Any]: ...
    def section_of(self, nic: str, name: str) -> Any: ...
    def set(self, nic: str, section: str, name: str, value: str) -> None: ...


def _is_nic(sections: Any) -> bool:
    """Whether it has the shape of net.ethtool's sections."""
    if not isinstance(sections, dict) or not all(isinstance(v, dict) for v in sections.values()):
        return False

    def holds(name: str, kind: type) -> bool:
        return all(isinstance(value, kind) for value in sections.get(name, {}).values())

    table = sections.get("rss", {}).get("table", [])
    return (
        all(holds(name, int) for name in ("channels", "rings", "coalesce", "napi"))
        and all(holds(name, str) for name in ("driver", "hash", "rules"))
        and holds("features", dict)
        and all({"on", "fixed"} <= set(each) for each in sections.get("features", {}).values())
        and isinstance(table, list)
        and all(isinstance(queue, int) and queue >= 0 for queue in table)
    )


class CapturedNics:
    """DIR/ethtool.json: a NIC's name -> its sections, as net.ethtool reads them."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def _all(self) -> dict[str, Any]:
        try:
            found = json.loads(self._file.read_text())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise NoCapture(f"{self._file}: not JSON: {error}: take the capture again") from error
        if not isinstance(found, dict) or not all(map(_is_nic, found.values())):
            raise NoCapture(f"{self._file}: not what `tune capture` writes: take the capture again")
        return found

    def read(self, nic: str) -> dict[str, Any]:
        found = self._all().get(nic)
        if not isinstance(found, dict):
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return found

    def section_of(self, nic: str, name: str) -> Any:
        return self.read(nic).get(name)

    def set(self, nic: str, section: str, name: str, value: str) -> None:
        every = self._all()
        part = every.get(nic, {}).get(section)
        if part is None:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        if section == "features":
            if part[name]["fixed"]:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            part[name]["on"] = value == "on"
        elif section == "rss":
            part["table"] = [int(queue) for queue in value.split()]
        elif section == "rules" and value == "none":
            part.pop(name, None)
        elif section in ("hash", "rules"):
            part[name] = value
        else:
            part[name] = int(value)
        self._file.write_text(json.dumps(every, indent=1) + "\n")


class Host:
    """See the module.  One thread."""

    def __init__(self, root: str | os.PathLike[str] = "/", nics: Nics | None = None) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise NoCapture(f"{self.root}: no such directory: give one that `tune capture` wrote")
        self.live = self.root.samefile("/")  # `//` is this machine too, and no capture
        self._nics = nics

    @property
    def nics(self) -> Nics:
        if self._nics is None:
            if self.live:
                from forwarder.net.ethtool import Ethtool

                self._nics = Ethtool()
            else:
                self._nics = CapturedNics(self.root / "ethtool.json")
        return self._nics

    def path(self, name: str) -> Path:
        """Where `/sys/...` of that machine lies on this one."""
        return self.root / name.lstrip("/")

    # ---- reading -----------------------------------------------------------------------------

    @cached_property
    def sysfs_is_ours(self) -> bool:
        """Whether /sys/class/net shows this network namespace: a process that entered one without
        mounting /sys anew would read, and write, the interfaces of another."""
        if not self.live:
            return True
        here = self.path("/sys/class/net")
        try:
            return all(
                int((here / name / "ifindex").read_text()) == index
                for index, name in socket.if_nameindex()
            )
        except (OSError, ValueError):
            return False

    def _hidden(self, name: str) -> bool:
        return name.startswith("/sys/class/net") and not self.sysfs_is_ours

    def interfaces(self) -> list[str]:
        """Those of this network namespace."""
        shown = [n for n in self.names("/sys/class/net") if self.path(f"{_NET}/{n}").is_dir()]
        return sorted(n for _, n in socket.if_nameindex()) if self.live else shown

    def first_name(self, name: str) -> str:
        """The name of an interface that has others besides (altname); empty: there is none."""
        try:
            return socket.if_indextoname(socket.if_nametoindex(name)) if self.live else ""
        except (OSError, ValueError):
            return ""

    def read(self, name: str) -> str | None:
        """A file's text without white space around it; None: the machine has no such thing."""
        raw = self._raw(name)
        return None if raw is None else raw[:FILE_MAX].decode(errors="replace").strip()

    def read_file(self, name: str) -> str | None:
        """A whole file of configuration as write_file() takes it, byte for byte, whatever its
        encoding.  HostError: it is larger than FILE_MAX."""
        raw = self._raw(name)
        if raw is not None and len(raw) > FILE_MAX:
            raise HostError(f"{name} is larger than {FILE_MAX >> 20} MiB: no such file is changed")
        return None if raw is None else raw.decode(errors="surrogateescape")

    def _raw(self, name: str) -> bytes | None:
        if self._hidden(name):
            return None
        try:
            with self.path(name).open("rb") as file:
                return file.read(FILE_MAX + 1)
        except PermissionError as error:
            raise Unreadable(f"{name} can be read by root only") from error
        except OSError:  # absent; or a driver that has no answer (EINVAL, EOPNOTSUPP)
            return None

    def names(self, name: str) -> list[str]:
        """Entries of a directory, in order; nothing if there is none."""
        if self._hidden(name):
            return []
        try:
            return sorted(set(os.listdir(self.path(name))) - {KEEP})
        except PermissionError as error:
            raise Unreadable(f"{name} can be read by root only") from error
        except OSError:
            return []

    def exists(self, name: str) -> bool:
        return not self._hidden(name) and self.path(name).exists()

    def link(self, name: str) -> str:
        """The last part of what a symbolic link points to; empty: there is none."""
        if self._hidden(name):
            return ""
        try:
            return os.path.basename(os.readlink(self.path(name)))
        except OSError:
            return ""

    def ethtool(self, nic: str) -> dict[str, Any]:
        """Sections of a NIC; OSError(ENODEV): it is gone."""
        return self.nics.read(nic)

    def ethtool_section(self, nic: str, name: str) -> Any:
        """One of them, for less work; None: the driver does not have it."""
        return self.nics.section_of(nic, name)

    def running(self, names: frozenset[str]) -> list[str]:
        """Which of these programs run (names as in /proc/PID/comm, at most 15 characters)."""
        found = set()
        for entry in self.names("/proc"):
            if entry.isdecimal():
                comm = self.read(f"/proc/{entry}/comm")
                if comm in names:
                    found.add(comm)
        return sorted(found)

    # ---- writing -----------------------------------------------------------------------------

    def write(self, name: str, text: str) -> None:
        """Into a file of the kernel's (in one write).  OSError with the kernel's reason."""
        if self._hidden(name):
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        flags = os.O_WRONLY | (0 if self.live else os.O_TRUNC | os.O_CREAT)
        with open(os.open(self.path(name), flags, 0o644), "wb") as file:
            file.write(text.encode() + b"\n")

    def write_file(self, name: str, text: str | None) -> None:
        """A whole file of configuration, atomically and on the disk; None removes it."""
        path = self.path(name)
        if text is None:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.vcfwd")
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o644
        with temporary.open("wb") as file:
            file.write(text.encode(errors="surrogateescape"))
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        temporary.replace(path)

    def make_directory(self, name: str) -> None:
        self.path(name).mkdir(exist_ok=True)

    def remove_directory(self, name: str) -> None:
        path = self.path(name)
        if not self.live:  # a cgroup's files go with its directory
            for entry in path.iterdir():
                entry.unlink()
        path.rmdir()

    # ---- the machine -------------------------------------------------------------------------

    def boot_id(self) -> str:
        return self.read("/proc/sys/kernel/random/boot_id") or "unknown"

    def systemd(self) -> bool:
        return self.exists("/run/systemd/system")
