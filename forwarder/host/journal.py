"""What was there before: the journal that `tune revert` lives on.

A line is one fact, JSON, on the disk before the setting is written: first `intend` (old, new),
after the setting was read back `done`, later `reverted` or `left`.  So after a kill -9 the host
has either the old or the new value of the last line, and both are known.  The old value of a
setting is that of its first line: applying twice does not forget what the operator had.

Run-time values die with the boot: those of another boot are archived, never replayed.  Persistent
ones (files) stay until they are reverted, over any number of boots.  One writer at a time: flock.
A last line without its end was being written when the host died, before its setting was: it is
dropped, with a sentence.  Any other line that cannot be read stops everything: HostError.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from forwarder.errors import HostError
from forwarder.host.stage import PERSISTENT, RUNTIME, Stage, Step

VERSION: Final = 1
LINES_MAX: Final = 100_000
"""Lines of a journal; applying again adds none where nothing changed."""


@dataclass
class Entry:
    """A setting that was changed and not yet put back; `news`: values that we gave it."""

    number: int
    apply: str
    boot_id: str
    stage: str
    key: str
    old: str
    lifetime: str
    news: list[str] = field(default_factory=list)
    done: bool = False


@dataclass(frozen=True)
class Applied:
    """What was applied in this boot and not reverted; `workers`: the cores that it was about."""

    stages: tuple[str, ...] = ()
    nics: tuple[str, ...] = ()
    workers: tuple[int, ...] = ()


class Busy(HostError):
    """Another apply or revert runs."""


class Journal:
    """The journal in a directory; made when it is first written to."""

    def __init__(self, folder: Path, boot_id: str) -> None:
        self.folder = folder
        self.file = folder / "journal.jsonl"
        self.boot_id = boot_id
        self.notes: list[str] = []
        self._next = 1
        self._locked = False

    # ---- one at a time -----------------------------------------------------------------------

    @contextmanager
    def locked(self, *, wait: bool = False) -> Iterator[None]:
        """Nobody else applies or reverts meanwhile.  Busy: somebody does, and `wait` is not set."""
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise Busy(
                    f"another vcfwd tune is changing this host ({self.folder}/lock): "
                    "wait until it is done"
                ) from None
            self._locked = True
            self._mend()
            yield
        finally:
            self._locked = False
            os.close(lock)

    # ---- reading -----------------------------------------------------------------------------

    def live(self) -> list[Entry]:
        """What is changed and not put back, in the order of the first change."""
        found: dict[str, Entry] = {}
        keys: dict[int, str] = {}
        for line in self._lines():
            event, number = line["event"], line["id"]
            self._next = max(self._next, number + 1)
            if event == "intend":
                keys[number] = line["key"]
                entry = found.get(line["key"])
                if entry is None:
                    entry = found[line["key"]] = Entry(
                        number, line["apply"], line["boot_id"], line["stage"], line["key"],
                        line["old"], line["lifetime"],
                    )  # fmt: skip
                entry.apply = line["apply"]
                entry.news.append(line["new"])
            elif event == "done" and keys.get(number) in found:
                found[keys[number]].done = True
            elif event in ("reverted", "left"):
                found.pop(keys.get(number, ""), None)
        return list(found.values())

    def current(self) -> list[Entry]:
        """Live entries that count in this boot."""
        return [e for e in self.live() if e.lifetime == PERSISTENT or e.boot_id == self.boot_id]

    def _lines(self) -> Iterator[dict[str, Any]]:
        try:
            raw = self.file.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise HostError(f"{self.file}: cannot be read: {error.strerror}") from error
        *whole, torn = raw.split(b"\n")
        if torn:
            note = f"{self.file}: the last line is half-written: its setting was not touched yet"
            if note not in self.notes:
                self.notes.append(note)
        if len(whole) > LINES_MAX:
            raise HostError(f"{self.file}: more than {LINES_MAX:,} lines: not a journal of ours")
        for number, text in enumerate(whole, 1):
            yield self._read(number, text)

    def _read(self, number: int, text: bytes) -> dict[str, Any]:
        try:
            line = json.loads(text)
            ok = isinstance(line, dict) and isinstance(line["id"], int)
            ok = ok and line["event"] in ("intend", "done", "reverted", "left")
            if ok and line["event"] == "intend":
                words = ("apply", "boot_id", "stage", "key", "old", "new", "lifetime")
                ok = all(isinstance(line[word], str) for word in words)
                if line["version"] != VERSION:
                    raise HostError(
                        f"{self.file}: line {number} is of version {line['version']}, this vcfwd "
                        f"knows {VERSION}: revert with the vcfwd that wrote it"
                    )
            if not ok:
                raise ValueError
        except (ValueError, KeyError, TypeError):
            raise HostError(
                f"{self.file}: line {number} cannot be read, so nothing is changed: put the file "
                "right from a backup, or move it away and lose what `tune revert` would restore"
            ) from None
        found: dict[str, Any] = line
        return found

    # ---- writing -----------------------------------------------------------------------------

    def intend(self, apply: str, step: Step, old: str) -> int:
        """To be called, and on the disk, before the setting is written."""
        number = self._next
        self._next += 1
        self._append(
            {
                "event": "intend", "id": number, "version": VERSION, "apply": apply,
                "boot_id": self.boot_id, "stage": step.stage, "key": step.key, "old": old,
                "new": step.wanted, "lifetime": step.lifetime,
            }
        )  # fmt: skip
        return number

    def note(self, number: int, event: str) -> None:
        """`done`, `reverted` or `left`."""
        self._append({"event": event, "id": number})

    def asked(self, stages: Sequence[Stage], nics: Sequence[str], workers: Sequence[int]) -> None:
        """What was applied in this boot, also where it found nothing to do: `tune watch` runs it
        again when a link comes up, and the data plane's workers run where it says."""
        before = self.applied()
        line = {
            "boot_id": self.boot_id,
            "stages": sorted({*before.stages, *(stage.name for stage in stages)}),
            "nics": list(dict.fromkeys((*before.nics, *nics))),
            "workers": list(workers),
        }
        self._write(self.folder / "applied.json", [line], append=False)

    def applied(self) -> Applied:
        """Of this boot; nothing where it cannot be read."""
        try:
            line = json.loads((self.folder / "applied.json").read_text())
            if line["boot_id"] == self.boot_id:
                return Applied(
                    tuple(str(name) for name in line["stages"]),
                    tuple(str(name) for name in line["nics"]),
                    tuple(int(cpu) for cpu in line["workers"]),
                )
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return Applied()

    def forget(self) -> None:
        """What is taken back, or a part of it, must not be run again before the next apply."""
        (self.folder / "applied.json").unlink(missing_ok=True)

    def archive(self) -> int:
        """Moves run-time entries of other boots to the archive; how many there were."""
        live = self.live()
        dead = [e for e in live if e.lifetime == RUNTIME and e.boot_id != self.boot_id]
        if not dead:
            return 0
        folder = self.folder / "archive"
        folder.mkdir(exist_ok=True)
        for entry in dead:
            name = "".join(c if c.isalnum() or c == "-" else "_" for c in entry.boot_id)
            self._write(folder / f"{name}.jsonl", [vars(entry)], append=True)
        keys = {entry.key for entry in live if entry not in dead}
        # Events of what is put back, or of another boot, go; those of what lives stay as they are.
        numbers: set[int] = set()
        kept = []
        for line in self._lines():
            if line["event"] == "intend" and line["key"] in keys:
                numbers.add(line["id"])
            if line["id"] in numbers:
                kept.append(line)
        self._write(self.file, kept, append=False)
        return len(dead)

    def _append(self, line: dict[str, Any]) -> None:
        if not self._locked:
            raise HostError("the journal is written without its lock")
        self._write(self.file, [line], append=True)

    def _write(self, file: Path, lines: list[dict[str, Any]], *, append: bool) -> None:
        """On the disk when it returns."""
        data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        target = file if append else file.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_APPEND if append else os.O_TRUNC)
        new = not target.exists()
        try:
            with open(os.open(target, flags, 0o644), "wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            if not append:
                target.replace(file)
            if new or not append:
                folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
        except OSError as error:
            raise HostError(
                f"{file}: cannot be written: {error.strerror}; nothing is changed without it"
            ) from error

    def _mend(self) -> None:
        """Takes a half-written last line away."""
        try:
            raw = self.file.read_bytes()
        except OSError:
            self.live()  # tells why, unless there is none
            return
        self.live()
        whole = raw.rfind(b"\n") + 1
        if whole != len(raw):
            os.truncate(self.file, whole)
