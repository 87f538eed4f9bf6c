"""A cached Debian chroot, and commands in it.

Law: the chroot is never written to after it was made.  What a command needs of this host (name
service, certificate store, pip's configuration) is bound over it in a mount namespace of that
command, and is gone with it; so nothing of this host can end up in a package.  Needs root.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SUITES = {"trixie": 13, "bookworm": 12}
"""Debian's name and number."""
PACKAGES = (
    "apparmor", "build-essential", "ca-certificates", "clang", "debhelper", "dh-apparmor",
    "iproute2", "libbpf-dev", "libc6-dev", "libelf-dev", "libipsec-mb-dev", "libssl-dev",
    "libxdp-dev", "linux-libc-dev", "lintian", "llvm", "make", "pkgconf", "python3", "python3-dev",
    "python3-setuptools", "python3-venv", "systemd", "zlib1g-dev",
)  # fmt: skip
BUILD_TIMEOUT_S = 900
FREE_MIN = 4 << 30
"""Bytes that must be free before a chroot is made."""
_HOST_FILES = ("/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")
_PIP = re.compile(r"(PIP|SSL_CERT|REQUESTS_CA|https?_proxy|no_proxy)", re.IGNORECASE)


class ChrootError(Exception):
    """The chroot cannot be made or a command in it failed; one sentence."""


def say(text: str) -> None:
    """Progress; standard output is for the result."""
    print(f"deb: {text}", file=sys.stderr, flush=True)


def cache_home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vcfwd-deb"


def sources() -> list[tuple[str, str]]:
    """(address, code name) of each package source of this host."""
    form = "$(REPO_URI) $(CODENAME) $(LABEL)"
    told = _output("apt-get", "indextargets", "--format", form, "Created-By: Packages")
    rows = [line.split() for line in told.splitlines()]
    return [(row[0], row[1]) for row in rows if len(row) == 3 and row[2] == "Debian"]


def mirror() -> str:
    """Where this host gets Debian from: its own main source."""
    release = Path("/etc/os-release").read_text()
    found = re.search(r"^VERSION_CODENAME=(\w+)", release, re.MULTILINE)
    for address, codename in sources():
        if found and codename == found[1]:
            return address
    raise ChrootError("apt knows no Debian source for this host's release: run 'apt-get update'")


def _output(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def _apt_options() -> list[str]:
    """What this host tells apt about proxies and certificates."""
    dump = _output("apt-config", "dump").splitlines()
    return [line for line in dump if re.match(r"Acquire::https?::\S*(Proxy|CaInfo|Verify)", line)]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One build at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class Chroot:
    """`home` is the cache folder of this chroot, `root` its file system."""

    suite: str
    home: Path

    @property
    def root(self) -> Path:
        return self.home / "root"

    def run(
        self,
        command: Sequence[str],
        *,
        binds: Mapping[Path, str],
        network: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Runs a command; `binds` lays folders of this host over places in the chroot.

        ChrootError when it fails.  Its output goes to standard error.
        """
        lines = [
            "set -e",
            f"mount --rbind /dev {self.root}/dev",
            f"mount -t proc proc {self.root}/proc",
        ]
        lines += [f"mount -t tmpfs tmpfs {self.root}/{place}" for place in ("tmp", "run")]
        lines += [f"mount --bind {host} {self.root}{place}" for host, place in binds.items()]
        settings = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp", "LC_ALL": "C.UTF-8"}
        if network:
            there = [name for name in _HOST_FILES if (self.root / name[1:]).exists()]
            lines += [
                f"mount --bind {name} {self.root}{name}" for name in there if Path(name).exists()
            ]
            settings |= {key: value for key, value in os.environ.items() if _PIP.match(key)}
        settings |= env or {}
        lines.append(f'exec chroot {self.root} "$@"')
        words = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        words += [] if network else ["--net"]
        words += ["/bin/sh", "-c", "\n".join(lines), "sh", *command]
        done = subprocess.run(
            words, env=settings, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False,
            timeout=BUILD_TIMEOUT_S,
        )  # fmt: skip
        if done.returncode != 0:
            raise ChrootError(f"{command[0]} failed in the {self.suite} chroot: see above")


def known(suite: str) -> str:
    """The suite.  ChrootError: there is none of that name."""
    if suite not in SUITES:
        raise ChrootError(f"there is no SUITE {suite}; it is one of {', '.join(SUITES)}")
    return suite


def open_chroot(suite: str) -> Chroot:
    """The chroot of a suite, made when it is not there; older ones are removed."""
    text = "\n".join((suite, *PACKAGES, *_HOST_FILES))
    key = hashlib.sha256(text.encode()).hexdigest()[:12]
    home = cache_home() / f"{suite}-{key}"
    if (home / "complete").exists():
        return Chroot(suite, home)
    for old in cache_home().glob(f"{suite}-*"):
        shutil.rmtree(old)
    home.mkdir(parents=True)
    free = shutil.disk_usage(home).free
    if free < FREE_MIN:
        raise ChrootError(f"{home}: {free >> 20} MB are free; {FREE_MIN >> 20} MB are needed")
    _make(suite, home / "root")
    (home / "complete").touch()
    return Chroot(suite, home)


def bootstrap(suite: str, root: Path, packages: Sequence[str], hooks: Sequence[str] = ()) -> None:
    """A fresh minimal Debian in `root`, from this host's own mirror.  `hooks`: shell lines at its
    end, while packages can still be had ("$1": the folder)."""
    if shutil.which("mmdebstrap") is None:
        raise ChrootError("mmdebstrap is not installed: apt-get install mmdebstrap")
    # What it mounts is seen by nobody else, and goes when it ends, however that comes about.
    words = ["unshare", "--mount", "--fork", "--kill-child", "--"]
    words += ["mmdebstrap", "--quiet", "--mode=root", "--format=directory", "--variant=minbase"]
    words += [f"--aptopt={line}" for line in _apt_options()]
    words += [f"--include={','.join(packages)}", *(f"--customize-hook={line}" for line in hooks)]
    words += [suite, str(root), f"deb {mirror()} {suite} main"]
    done = subprocess.run(words, stdout=sys.stderr, check=False, timeout=BUILD_TIMEOUT_S)
    if done.returncode != 0:
        raise ChrootError(f"mmdebstrap could not make a {suite} chroot: see above")


def _make(suite: str, root: Path) -> None:
    say(f"making the {suite} chroot: a minute")
    bootstrap(suite, root, PACKAGES)
    # Places to lay this host's files over; a link would lead out of the chroot.
    for name in _HOST_FILES:
        place = root / name[1:]
        if place.is_symlink():
            place.unlink()
        place.write_bytes(place.read_bytes() if place.exists() and "resolv" not in name else b"")
    for place in ("build", "opt/vcfwd"):
        (root / place).mkdir(parents=True, exist_ok=True)
