"""From addresses to names: of a process by its map of memory, of the kernel by kallsyms."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

from forwarder.telemetry.flame.elf import Elf

PROC = Path("/proc")
UNKNOWN = "[unknown]"
KERNEL_FUNCTION_MAX = 1 << 17  # bytes: farther from a symbol is not of it


@dataclass(frozen=True)
class Region:
    """A stretch of executable memory of a process, backed by a file."""

    start: int
    end: int
    offset: int
    path: str


@dataclass(frozen=True)
class Place:
    """A function, and the file that holds it.  follows_call: the instruction before is a call,
    by name of `calls` where it is one to a function of the same file."""

    name: str
    module: str
    follows_call: bool = False
    calls: str | None = None


def parse_maps(text: str) -> list[Region]:
    """Executable regions out of /proc/PID/maps, in order."""
    regions = []
    for line in text.splitlines():
        words = line.split(maxsplit=5)
        if len(words) < 6 or "x" not in words[1] or not words[5].startswith(("/", "[")):
            continue
        start, _, end = words[0].partition("-")
        path = words[5].removesuffix(" (deleted)")
        regions.append(Region(int(start, 16), int(end, 16), int(words[2], 16), path))
    return regions


class Space:
    """The memory of one process.  `refresh` while it lives; names can be asked for later."""

    def __init__(self, pid: int, proc: Path = PROC) -> None:
        self._pid = pid
        self._proc = proc
        self._regions: dict[int, Region] = {}
        self._elves: dict[str, Elf] = {}
        self._places: dict[int, Place | None] = {}
        self._starts: list[int] = []
        self.main = ""
        self.refresh()

    def refresh(self) -> None:
        """Reads the map; what was mapped before stays known."""
        here = self._proc / str(self._pid)
        try:
            self.main = self.main or str((here / "exe").readlink()).removesuffix(" (deleted)")
            found = parse_maps((here / "maps").read_text())
        except OSError:
            return  # it has ended
        for region in found:
            self._regions[region.start] = region
            if region.path not in self._elves and region.path.startswith("/"):
                # By way of map_files also a file that was replaced meanwhile is found.
                mapped = here / "map_files" / f"{region.start:x}-{region.end:x}"
                self._elves[region.path] = Elf(mapped if mapped.exists() else Path(region.path))
        self._starts = sorted(self._regions)

    def place(self, address: int) -> Place | None:
        """None when no executable file is mapped there."""
        if address not in self._places:
            self._places[address] = self._find(address)
        return self._places[address]

    def _find(self, address: int) -> Place | None:
        at = bisect_right(self._starts, address) - 1
        region = self._regions[self._starts[at]] if at >= 0 else None
        if region is None or address >= region.end:
            return None
        module = region.path.rsplit("/", 1)[-1]
        elf = self._elves.get(region.path)
        offset = address - region.start + region.offset
        if elf is None:
            return Place(module, region.path)
        name = elf.name(offset) or f"[{module}]"
        return Place(name, region.path, *elf.call_before(offset))


class Kernel:
    """Functions of the kernel, of modules and of loaded BPF programs."""

    def __init__(self, kallsyms: Path = PROC / "kallsyms") -> None:
        found = []
        for line in kallsyms.read_text().splitlines():
            words = line.split()
            if len(words) >= 3 and words[1] in "tTwW":
                found.append((int(words[0], 16), words[2]))
        found.sort()
        self._starts = [start for start, _ in found]
        self._names = [name for _, name in found]
        self.readable = bool(found) and found[-1][0] > 0

    def name(self, address: int) -> str:
        at = bisect_right(self._starts, address) - 1
        if at < 0 or not self.readable or address - self._starts[at] > KERNEL_FUNCTION_MAX:
            return UNKNOWN
        return self._names[at]
