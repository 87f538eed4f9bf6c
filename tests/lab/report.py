"""What the lab run found: facts of the tests, each with the raw reading it came from.

Facts end up in the one JSON line of `make lab`; readings lie under build/lab/report/.  A field
whose test did not tell it, or not wholly, is null there: nothing is filled in.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

FOLDER = Path(__file__).parents[2] / "build" / "lab" / "report"
PLACED: Final = ("threads", "irqs", "pages")
"""What `numa_checked` and `numa_misplaced` are told of, each by the test that looks at it."""
FIELDS: Final = (
    "kernel", "xdp_mode", "zerocopy", "queues_used", "workers", "packets_verified",
    "payload_mismatches", "accounting_balanced", "numa_checked", "numa_misplaced", "applied_steps",
    "revert_diff", "interrupted_apply_recovered", "lockout_recovered", "upgrade_packets",
    "upgrade_lost", "tests_passed", "tests_skipped",
)  # fmt: skip
"""Of the JSON line, in order."""


def reading(name: str, text: str) -> None:
    """Keeps raw text of the node or of a tool as it was read."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / name).write_text(text)


def fact(name: str, value: object) -> None:
    """One field of the JSON line; of a name that is told twice the later value counts.

    A dictionary adds its keys to what was told: `fact("numa_checked", {"pages": 512})`."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / "facts.json"
    known = facts()
    if isinstance(value, dict):
        value = {**known.get(name, {}), **value}
    file.write_text(json.dumps({**known, name: value}, indent=1))


def placed(what: str, checked: int, misplaced: int) -> None:
    """So many `threads`, `irqs` or `pages` were looked at, so many lay elsewhere than planned."""
    fact("numa_checked", {what: checked})
    fact("numa_misplaced", {what: misplaced})


def say(sentence: str) -> None:
    """Printed at once, and by `make lab` at its end."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    print(sentence)
    with (FOLDER / "said.txt").open("a") as file:
        file.write(f"{sentence}\n")


def said() -> str:
    """All that was said since `clear`."""
    file = FOLDER / "said.txt"
    return file.read_text() if file.exists() else ""


def facts() -> dict[str, Any]:
    """All that were told since `clear`."""
    file = FOLDER / "facts.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def summary(told: dict[str, Any], counts: dict[str, int]) -> dict[str, Any]:
    """The JSON line.  `counts`: tests_passed and tests_skipped; empty when pytest told none."""
    found = {name: {**told, **counts}.get(name) for name in FIELDS}
    for name in ("numa_checked", "numa_misplaced"):
        parts = found[name] or {}
        if not all(what in parts for what in PLACED):
            found[name] = None
    if found["numa_misplaced"] is not None:
        found["numa_misplaced"] = sum(found["numa_misplaced"][what] for what in PLACED)
    return found


def clear() -> None:
    """Before a run: nothing of an earlier one may be taken for its own."""
    for file in FOLDER.glob("*") if FOLDER.exists() else ():
        file.unlink()
