"""An apply that may cut the operator off takes itself back, unless it is confirmed in time.

`pending.json` beside the journal names the apply; whoever finds it there when the time is over
reverts that apply.  The clock is a transient systemd timer; without systemd a process of its own
session, which a lost terminal does not end.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from forwarder.errors import HostError
from forwarder.host.root import Host

UNIT = "vcfwd-tune-undo"
SECONDS_MIN, SECONDS_MAX = 5, 3600
_SYSTEMD_S = 100


def arm(host: Host, folder: Path, run: str, seconds: int, options: Sequence[str]) -> None:
    """Before anything is written.  `options`: --root and --config of this call.  HostError: the
    clock does not start, or another one runs."""
    if pending(folder):
        raise HostError(
            "an earlier apply still waits for its confirmation: `vcfwd tune confirm`, or wait"
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pending.json").write_text(json.dumps({"run": run}) + "\n")
    undo = [
        sys.executable, "-m", "forwarder.cli.app", "tune", "revert", "--unconfirmed", run, *options
    ]  # fmt: skip
    if host.live and host.systemd():
        # Without an accuracy of its own a timer may be a minute late.
        when = [f"--on-active={seconds}s", "--timer-property=AccuracySec=1s"]
        line = ["systemd-run", *when, f"--unit={UNIT}", "--collect", *undo]
        try:
            done = subprocess.run(
                line, capture_output=True, text=True, timeout=_SYSTEMD_S, check=False
            )
            fault = done.stderr.strip()[:200] if done.returncode else ""
        except subprocess.TimeoutExpired:
            fault = f"no answer in {_SYSTEMD_S} s"
        if fault:
            settle(folder)
            raise HostError(f"systemd-run: {fault}: nothing is changed")
        return
    subprocess.Popen(
        [*undo, "--after", str(seconds)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )


def pending(folder: Path) -> str:
    """The apply that waits for its confirmation; empty: none does."""
    try:
        found = json.loads((folder / "pending.json").read_text())
        return str(found["run"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def settle(folder: Path) -> None:
    """It waits no longer."""
    (folder / "pending.json").unlink(missing_ok=True)


def confirm(host: Host, folder: Path) -> str:
    """The apply that was confirmed.  HostError: none waits."""
    run = pending(folder)
    if not run:
        raise HostError("no apply waits for a confirmation: it was confirmed, or taken back")
    settle(folder)
    if host.live and host.systemd():
        with suppress(subprocess.TimeoutExpired):  # it finds nothing to take back
            subprocess.run(
                ["systemctl", "stop", f"{UNIT}.timer"],
                capture_output=True,
                timeout=_SYSTEMD_S,
                check=False,
            )
    return run
