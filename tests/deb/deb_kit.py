"""What the tests of the packages share: the suite, the packages' contents, and commands in a Debian
with them.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import chroot

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "configs" / "debian" / "vcfwd"
COMMAND_S = 120
# A node has these; the packages that they come from are not vcfwd's to ask for.
FOUND_ON_A_NODE = ("apparmor", "systemd", "iproute2", "procps", "util-linux", "python3")


@dataclass(frozen=True)
class Suite:
    """What differs between the releases, as far as a test looks at it."""

    name: str
    number: int
    minor: int
    """Of /usr/bin/python3, whose version is 3.`minor`."""

    @property
    def suffix(self) -> str:
        """Ends the packages' versions, so that an upgrade of the release upgrades them too."""
        return f"~deb{self.number}"

    @property
    def python(self) -> str:
        return f"3.{self.minor}"

    @property
    def python_range(self) -> str:
        return f"python3 (>= 3.{self.minor}~), python3 (<< 3.{self.minor + 1}~)"

    @property
    def byte_code(self) -> str:
        return f".cpython-3{self.minor}.pyc"


SUITES = {
    suite.name: suite
    for suite in (
        Suite("trixie", number=13, minor=13),
        Suite("bookworm", number=12, minor=11),
    )
}


def chosen_suite() -> Suite:
    """By VCFWD_DEB_SUITE, else the first of SUITES.  ValueError: there is none of that name."""
    name = os.environ.get("VCFWD_DEB_SUITE") or next(iter(SUITES))
    if name not in SUITES:
        raise ValueError(f"VCFWD_DEB_SUITE is {name}; it is one of {', '.join(SUITES)}")
    return SUITES[name]


@dataclass(frozen=True)
class Packages:
    """The two files, for what they were built, and what `make deb` told on standard error."""

    suite: Suite
    runtime: Path
    own: Path
    told: str

    def field(self, name: str, package: Path | None = None) -> str:
        words = ["dpkg-deb", "--field", str(package or self.own), name]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()

    def files(self, package: Path) -> dict[str, tuple[str, int]]:
        """Path -> (mode and owner as tar shows them, bytes)."""
        words = ["dpkg-deb", "--contents", str(package)]
        told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        rows = [line.split(maxsplit=5) for line in told.splitlines()]
        return {row[5].removeprefix("."): (f"{row[0]} {row[1]}", int(row[2])) for row in rows}

    def script(self, name: str) -> str:
        """A maintainer script of vcfwd."""
        words = ["dpkg-deb", "--info", str(self.own), name]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@dataclass(frozen=True)
class Installed:
    """`root` is never changed: each command sees it through a layer that is thrown away."""

    root: Path

    @classmethod
    def make(cls, packages: Packages, folder: Path) -> Installed:
        root = folder / "root"
        names = [packages.runtime.name, packages.own.name]
        hooks = [
            f'cp {packages.runtime} {packages.own} "$1/root/"',
            'chroot "$1" apt-get install -y -q --no-install-recommends '
            + " ".join(f"/root/{name}" for name in names)
            + " >&2",
        ]
        chroot.bootstrap(packages.suite.name, root, FOUND_ON_A_NODE, hooks)
        return cls(root)

    def run(self, script: str, *, timeout: float = COMMAND_S) -> subprocess.CompletedProcess[str]:
        """A shell script as root there, with network, processes and mounts of its own."""
        layers = "lowerdir=$1,upperdir=/mnt/upper,workdir=/mnt/work"
        before = [
            "set -e",
            "mount -t tmpfs tmpfs /mnt",
            "mkdir /mnt/upper /mnt/work /mnt/root",
            f"mount -t overlay overlay -o {layers} /mnt/root",
            "mount --rbind /dev /mnt/root/dev",
            "mount -t proc proc /mnt/root/proc",
            "mount -t sysfs sysfs /mnt/root/sys",
            "ip link set lo up",
            "exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 "
            'chroot /mnt/root /bin/sh -euc "$2"',
        ]
        words = ["unshare", "--mount", "--pid", "--net", "--uts", "--fork", "--kill-child"]
        words += ["/bin/sh", "-c", "\n".join(before), "sh", str(self.root), script]
        return subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=timeout,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def told(self, script: str, *, timeout: float = COMMAND_S) -> str:
        """Its standard output; the script must succeed."""
        done = self.run(script, timeout=timeout)
        assert done.returncode == 0, f"{script}\n-> {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def unit_setting(unit: str, key: str) -> list[str]:
    """The words of a setting in a unit of the package."""
    lines = (UNITS / f"vcfwd.{unit}.service").read_text().splitlines()
    return [
        word for line in lines if line.startswith(f"{key}=") for word in line.split("=")[1].split()
    ]


def as_unit(unit: str, command: str) -> str:
    """The shell line that starts a command as the user of a unit, with its capabilities alone."""
    ambient, bounding = (
        unit_setting(unit, key) for key in ("AmbientCapabilities", "CapabilityBoundingSet")
    )
    assert ambient == bounding
    (user,) = unit_setting(unit, "User")
    some = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in ambient)])
    return (
        f"setpriv --reuid={user} --regid={user} --clear-groups --no-new-privs "
        f"--inh-caps={some} --ambient-caps={some} --bounding-set={some} {command}"
    )
