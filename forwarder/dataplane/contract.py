"""What a supervisor and a data plane of two builds must agree on, so that the one can take the
other over; and what the data plane that runs says of itself.

The data plane writes RUN_DIR/dataplane.version when it begins to serve (c_helpers/src/main.c):

    version 1.2.3
    contract abi2-1a2b3c4d5e6f7081-steer1
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from forwarder.dataplane.abi import lib
from forwarder.dataplane.steering_abi import ABI_VERSION

VERSION_NAME = "dataplane.version"
LOCK_NAME = "dataplane.lock"
LOCKS = Path("/proc/locks")
VERSION_MAX = 4096
"""Bytes of the file that are read."""
ASK_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Build:
    """A build of the data plane.  Empty: not known."""

    version: str = ""
    contract: str = ""


def installed() -> str:
    """The contract of this build: shared memory, and maps of the steering program."""
    return f"abi{lib.VC_ABI_VERSION}-{lib.vc_user_layout_hash():016x}-steer{ABI_VERSION}"


def parse(text: str) -> Build:
    """The lines of a version file; what is unknown is left out."""
    words = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
    return Build(words.get("version", "").strip(), words.get("contract", "").strip())


def running(run_dir: Path) -> Build | None:
    """The data plane that serves `run_dir`; None when none does.

    Nothing is said to it, and its lock is not tried: one that cannot be taken over must not
    believe that it was, and one that starts just now must find its lock free.
    """
    if not _locked(run_dir / LOCK_NAME):
        return None
    try:
        with (run_dir / VERSION_NAME).open(encoding="utf-8", errors="replace") as file:
            return parse(file.read(VERSION_MAX))
    except OSError:
        return Build()


def _locked(path: Path) -> bool:
    """Whether a process holds the lock file, by what the kernel lists."""
    try:
        inode = path.stat().st_ino
        lines = LOCKS.read_text().splitlines()
    except OSError:
        return False
    return any(" FLOCK " in line and f":{inode} " in line for line in lines)


def version_of(binary: Path) -> str:
    """What the program on disk says of itself; empty when it says nothing."""
    try:
        done = subprocess.run(
            [binary, "--version"],
            capture_output=True,
            text=True,
            timeout=ASK_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return parse(done.stdout).version


def misfit(run_dir: Path, on_disk: Callable[[], str]) -> str | None:
    """Why the data plane that runs cannot be taken over, and what to do; None: it can be.

    `on_disk` answers the version of the installed program.
    """
    found = running(run_dir)
    if found is None or found.contract in ("", installed()):
        return None
    here = on_disk() or "of another build"
    return (
        f"the data plane that runs in {run_dir} ({found.version or 'unknown'}, contract "
        f"{found.contract}) and this supervisor ({here}, {installed()}) do not fit together: its "
        "calls cannot be taken over.  With the earlier version: vcfwd drain, then upgrade.  To "
        "give its calls up: end it (systemctl stop vcfwd-dataplane), and start again"
    )


def changed(run_dir: Path, on_disk: Callable[[], str]) -> str:
    """In words, that the data plane that runs is of another version than the program on disk."""
    found, here = running(run_dir), on_disk()
    if found is None or not here or found.version in ("", here):
        return ""
    return f"running {found.version}, installed {here}"
