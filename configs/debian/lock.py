"""What of requirements.lock an installed node needs: the closure of the dependencies in
pyproject.toml's [project], without the extras.  Pure.

pip-compile writes below each requirement who asked for it ("# via"); that is the graph read here,
so nothing is resolved anew and every hash is the lock's own.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field

ROOT_NAME = "vcfwd"


class LockError(Exception):
    """The lock file cannot be read; the message says which line, and what to do."""


@dataclass
class Requirement:
    """One pinned package: its lines in the lock file, and who asked for it."""

    name: str
    lines: list[str]
    via: set[str] = field(default_factory=set)


def normal(name: str) -> str:
    """The normalized name of a package (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse(text: str) -> dict[str, Requirement]:
    """The requirements of a lock file by name.  LockError where one has no hash or no origin."""
    found: dict[str, Requirement] = {}
    current: Requirement | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if pinned := re.match(r"([A-Za-z0-9][\w.-]*)==\S+", line):
            current = Requirement(normal(pinned[1]), [line])
            found[current.name] = current
        elif current is not None and line.startswith("    --hash="):
            current.lines.append(line)
        elif current is not None and (asked := re.match(r"    # (?:via)?\s*(\S+)", line)):
            current.via.add(ROOT_NAME if asked[1] == ROOT_NAME else normal(asked[1]))
        elif line.strip() and not line.startswith(("#", "    #", "--")):
            raise LockError(f"requirements.lock, line {number}: {line.strip()[:60]!r} is unknown")
    for item in found.values():
        if len(item.lines) < 2 or not item.via:
            raise LockError(f"requirements.lock: {item.name} has no hash or no '# via': make lock")
    return found


def wanted(pyproject: str) -> set[str]:
    """The names in [project] dependencies."""
    project = tomllib.loads(pyproject)["project"]
    names = (re.match(r"[A-Za-z0-9][\w.-]*", text) for text in project["dependencies"])
    return {normal(found[0]) for found in names if found}


def runtime(lock: str, pyproject: str) -> str:
    """The lock file of an installed node, in the order of the whole one."""
    every, needed = parse(lock), wanted(pyproject)
    missing = sorted(needed - set(every))
    if missing:
        raise LockError(f"requirements.lock lacks {', '.join(missing)}: make lock")
    while more := {name for name, item in every.items() if item.via & needed} - needed:
        needed |= more
    lines = [line for name, item in every.items() if name in needed for line in item.lines]
    return "\n".join(line.removesuffix(" \\") for line in _joined(lines)) + "\n"


def _joined(lines: list[str]) -> list[str]:
    """Continuation lines made one, so that taking comments out cannot cut a requirement."""
    out: list[str] = []
    for line in lines:
        text = line.strip().removesuffix("\\").strip()
        if line.startswith(" "):
            out[-1] += " " + text
        else:
            out.append(text)
    return out
