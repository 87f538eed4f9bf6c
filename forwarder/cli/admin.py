"""The command line's way to the node of this host: HTTP over its Unix socket.

Whoever can open `RUN_DIR/api.sock` (mode 0600) is an admin; no token is needed.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer

SOCKET_NAME: Final = "api.sock"
TIMEOUT_S: Final = 10.0

RunDir = Annotated[
    Path | None,
    typer.Option(
        help="Run directory of the node; by default that of configs/default.toml.",
        envvar="VCFWD_RUN_DIR",
        show_default=False,
    ),
]


class AdminError(Exception):
    """The node does not answer, or refused; the message says which, and what to do."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(str(self._path))


class Admin:
    """Requests to one node."""

    def __init__(self, run_dir: Path | None = None) -> None:
        self.path = (run_dir or _default_run_dir()) / SOCKET_NAME

    def request(self, method: str, target: str, body: dict[str, Any] | None = None) -> Any:
        """The answer's JSON, None where there is none.  Raises AdminError."""
        connection = _UnixConnection(self.path)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, target, data, {"content-type": "application/json"})
            response = connection.getresponse()
            raw = response.read()
        except PermissionError:
            raise AdminError(f"{self.path} belongs to another user: try as root") from None
        except (FileNotFoundError, ConnectionRefusedError):
            raise AdminError(f"no vcfwd answers on {self.path}: is `vcfwd up` running?") from None
        except (OSError, http.client.HTTPException) as exc:
            raise AdminError(f"the vcfwd on {self.path} does not answer: {exc}") from exc
        finally:
            connection.close()
        try:
            answer = json.loads(raw) if raw else None
        except ValueError:
            raise AdminError(f"what answers on {self.path} is no vcfwd") from None
        if response.status >= 400:
            reason = answer.get("message") if isinstance(answer, dict) else None
            raise AdminError(str(reason or f"the node answered {response.status}"))
        return answer


@contextmanager
def errors_told(command: str) -> Iterator[None]:
    """One line on standard error and exit status 1, instead of a traceback."""
    try:
        yield
    except AdminError as exc:
        print(f"vcfwd {command}: {exc}", file=sys.stderr)
        raise typer.Exit(1) from None


def _default_run_dir() -> Path:
    from forwarder import config

    return Path(config.load(None).node.run_dir)
