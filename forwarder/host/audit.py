"""The audit trail: who changed what, when, with what result; a file, and journald where it is.

`log.jsonl` beside the journal, one object a line, only ever added to; LINES_MAX are shown.
"""

from __future__ import annotations

import json
import os
import pwd
import socket
import time
from pathlib import Path
from typing import Any, Final

from forwarder.host.root import Host, printable

LINES_MAX: Final = 10_000
TIME_MAX: Final = 1 << 36
"""Seconds since 1970: later ones are no time."""
_JOURNALD: Final = "/run/systemd/journal/socket"


class Audit:
    def __init__(self, host: Host, folder: Path) -> None:
        self._host, self.file = host, folder / "log.jsonl"

    def add(self, what: str, result: str, **more: str) -> None:
        """Never stops what it is about: what cannot be written is not."""
        what, result = printable(what), printable(result)
        line = {"time": time.time(), "who": who(), "what": what, "result": result, **more}
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a") as out:
                out.write(json.dumps(line) + "\n")
        except OSError:
            pass
        if self._host.live:
            _journald(f"{line['who']}: {what}: {result}", more)

    def read(self) -> list[dict[str, Any]]:
        """The last LINES_MAX lines, oldest first; broken ones are passed over."""
        try:
            lines = self.file.read_text(errors="replace").splitlines()[-LINES_MAX:]
        except OSError:
            return []
        found = []
        for text in lines:
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and _whole(line):
                found.append(line)
        return found


def _whole(line: dict[str, Any]) -> bool:
    when = line.get("time")
    words = all(isinstance(line.get(name), str) for name in ("who", "what", "result"))
    return words and isinstance(when, int | float) and 0 <= when < TIME_MAX


def who() -> str:
    """The person behind sudo, else the user of this process."""
    user = os.environ.get("SUDO_USER")
    if user:
        return f"{user} (sudo)"
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"


def _journald(message: str, more: dict[str, str]) -> None:
    """Its native protocol: FIELD=value lines; values with line breaks are made one line."""
    fields = {"MESSAGE": message, "SYSLOG_IDENTIFIER": "vcfwd-tune", "PRIORITY": "6"}
    fields |= {f"VCFWD_{name.upper()}": value for name, value in more.items()}
    text = "".join(f"{name}={' '.join(value.split())}\n" for name, value in fields.items())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(text.encode()[:65536], _JOURNALD)
    except OSError:
        pass  # no journald here
