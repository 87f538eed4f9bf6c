"""What the lab run found: facts of the tests, each with the raw reading it came from.

Facts end up in the one JSON line of `make lab`; readings lie under build/lab/report/.
"""

from __future__ import annotations

import json
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "build" / "lab" / "report"


def reading(name: str, text: str) -> None:
    """Keeps raw text of the node or of a tool as it was read."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / name).write_text(text)


def fact(name: str, value: object) -> None:
    """One field of the JSON line; of a name that is told twice the later value counts."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / "facts.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**known, name: value}, indent=1))


def facts() -> dict[str, object]:
    """All that were told since `clear`."""
    file = FOLDER / "facts.json"
    found: dict[str, object] = json.loads(file.read_text()) if file.exists() else {}
    return found


def clear() -> None:
    """Before a run: nothing of an earlier one may be taken for its own."""
    for file in FOLDER.glob("*") if FOLDER.exists() else ():
        file.unlink()
