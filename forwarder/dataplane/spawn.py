"""Where a data plane process comes from: our own child, or one that a service manager keeps.

No state.  Errors: DataPlaneError.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from pathlib import Path

from forwarder.dataplane.control import Control
from forwarder.errors import DataPlaneError

LOG_NAME = "dataplane.log"
LOG_MAX = 1 << 20
"""Bytes after which the log starts anew at the next start."""
SERVED_S = 10.0
"""How long a service manager may take to start a data plane."""
SERVED_POLL_S = 0.01
SERVICE = "vcfwd-dataplane.service"


def find_binary() -> Path:
    """VCFWD_DATAPLANE, else build/vcfwd-dataplane of the checkout, else /usr/lib/vcfwd/."""
    named = os.environ.get("VCFWD_DATAPLANE")
    places = [Path(named)] if named else [
        Path(__file__).resolve().parents[2] / "build" / "vcfwd-dataplane",
        Path("/usr/lib/vcfwd/vcfwd-dataplane"),
    ]  # fmt: skip
    for place in places:
        if os.access(place, os.X_OK):
            return place
    tried = " or ".join(str(place) for place in places)
    raise DataPlaneError(f"there is no data plane program at {tried}: run 'make dataplane'")


def spawn(binary: Path, run_dir: Path) -> tuple[subprocess.Popen[bytes], Control]:
    """Starts a data plane of our own, which outlives us all the same."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path = run_dir / LOG_NAME
    mode = os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
    if path.exists() and path.stat().st_size > LOG_MAX:
        mode |= os.O_TRUNC
    out = os.open(path, mode, 0o600)
    with theirs:
        try:
            # Its own session: a terminal's Ctrl-C reaches the supervisor only, which
            # decides.  Its log is a file: a pipe would tie its life to ours.
            child = subprocess.Popen(
                [binary, "--run-dir", run_dir, "--control-fd", str(theirs.fileno())],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                pass_fds=[theirs.fileno()], start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            ours.close()
            raise DataPlaneError(f"cannot start the data plane: {error}") from error
        finally:
            os.close(out)
    return child, Control(ours)


async def served(run_dir: Path) -> Control:
    """A connection to the data plane that a service manager starts; waits for it."""
    give_up = time.monotonic() + SERVED_S
    while (control := Control.connect(run_dir)) is None:
        if time.monotonic() > give_up:
            raise DataPlaneError(
                f"nobody started a data plane for {run_dir} within {SERVED_S:g} s: "
                f"systemctl status {SERVICE}"
            )
        await asyncio.sleep(SERVED_POLL_S)
    return control


def last_words(run_dir: Path) -> str:
    """The last line of a data plane's log."""
    try:
        lines = (run_dir / LOG_NAME).read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    return f"its log ends with: {lines[-1]}" if lines else "its log is empty"
