"""A systemd as process 1 of namespaces, in a Debian with the packages: real units, real sandboxes.

What it cannot have, because the host has it: cgroup controllers, AppArmor, real-time classes.
Those are for the lab node.
"""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from deb_kit import Installed

BOOT_S = 180
"""Seconds that a script may take, the boot included."""
HERE = Path(__file__).resolve().parent
UNIT = """
[Unit]
After=basic.target
[Service]
Type=oneshot
ExecStart=/bin/sh -eu /share/script
ExecStopPost=/bin/sh -c 'echo "$EXIT_STATUS" > /share/part; mv /share/part /share/status'
StandardOutput=file:/share/out
StandardError=file:/share/err
TimeoutStartSec=160
"""


@dataclass(frozen=True)
class Ran:
    """What a script came to; `console` is systemd's own log."""

    status: str
    out: str
    err: str
    console: str


def under_systemd(installed: Installed, script: str, share: Path) -> Ran:
    """Boots, runs the script as a unit, and ends it all.  `share` is /share there."""
    (share / "script").write_text(script)
    (share / "script.service").write_text(UNIT)
    (share / "console").touch()
    words = ["unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--fork"]
    words += [
        "--kill-child",
        "/bin/sh",
        "-eu",
        str(HERE / "boot.sh"),
        str(installed.root),
        str(share),
    ]
    told = (share / "boot").open("wb")
    with told, subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=told, stderr=told) as boot:
        end = time.monotonic() + BOOT_S
        while not (share / "status").exists() and boot.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        boot.kill()  # and all that it booted
    return Ran(
        *(_text(share / name) for name in ("status", "out", "err")), _text(share / "console")
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
