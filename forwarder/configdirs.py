"""Directories of the configuration that this user can write to, and files that others can read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def _writable(path: str) -> bool:
    """Whether the directory, or the nearest one above it that exists, can be written to."""
    here = Path(path)
    while not here.exists():
        here = here.parent
    return here.is_dir() and os.access(here, os.W_OK | os.X_OK)


def _fallback(name: str, environ: Mapping[str, str], euid: int) -> str:
    if name == "run_dir":
        base = environ.get("XDG_RUNTIME_DIR", "")
        return f"{base}/vcfwd" if base.startswith("/") else f"/tmp/vcfwd-{euid}"
    base = environ.get("XDG_STATE_HOME", "")
    home = environ.get("HOME", "")
    if base.startswith("/"):
        return f"{base}/vcfwd"
    return f"{home}/.local/state/vcfwd" if home.startswith("/") else f"/tmp/vcfwd-{euid}/state"


def exposed(path: str | os.PathLike[str] | None, given: set[str]) -> list[str]:
    """A sentence, if others can read the token secrets in the file."""
    if path is None or "api.token_keys" not in given or not os.stat(path).st_mode & 0o004:
        return []
    return [f"{path}: everybody on this host can read its api.token_keys: chmod 600 {path}"]


def settle_directories(
    node: dict[str, Any], given: set[str], environ: Mapping[str, str], euid: int
) -> list[str]:
    """Replaces default directories that this user cannot write to; says so in sentences."""
    notes = []
    for name in ("run_dir", "state_dir"):
        if euid == 0 or f"node.{name}" in given or _writable(node[name]):
            continue
        own = _fallback(name, environ, euid)
        notes.append(f"node.{name}: {node[name]} is not writable without root; using {own}")
        node[name] = own
    return notes
