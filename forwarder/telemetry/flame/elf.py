"""Names of functions in an ELF file (System V ABI, chapters 4 and 5), by the place in the file.

Only 64-bit little-endian files are read; of others, and of damaged ones, nothing is known.
Functions of assemblers often have no size: they reach up to the next one.
"""

from __future__ import annotations

import contextlib
import struct
from bisect import bisect_right
from pathlib import Path

FILE_MAX = 512 << 20  # bytes
MAGIC = b"\x7fELF\x02\x01"
DEBUG = Path("/usr/lib/debug/.build-id")
STUB = "[stub]"
_DAMAGED = (struct.error, IndexError, ValueError, OverflowError)
_SHT_SYMTAB, _SHT_DYNSYM = 2, 11
_PT_LOAD, _PT_NOTE = 1, 4
_NT_GNU_BUILD_ID = 3
_NOTYPE, _FUNC, _IFUNC = 0, 2, 10
_SYM = struct.Struct("<IBBHQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SEGMENT = struct.Struct("<IIQQQQQQ")


class Elf:
    """One file, read once.  `debug`: where detached symbols lie by build id, as Debian's -dbg
    packages put them."""

    def __init__(self, path: Path, debug: Path = DEBUG) -> None:
        self.data = _bytes(path)
        self._loads: list[tuple[int, int, int]] = []  # file offset, bytes, address
        self._starts: list[int] = []
        self._names: list[tuple[int, str]] = []  # end or 0, name
        found: dict[int, tuple[int, str, bool]] = {}
        try:
            build_id = self._segments()
            _tables(self.data, found)
        except _DAMAGED:
            return
        if len(build_id) > 1:
            detached = _bytes(debug / build_id[:1].hex() / f"{build_id[1:].hex()}.debug")
            with contextlib.suppress(*_DAMAGED):
                _tables(detached, found)
        for start in sorted(found):
            size, name, _ = found[start]
            self._starts.append(start)
            self._names.append((start + size if size else 0, name))

    def _segments(self) -> bytes:
        """What is loaded from where; answers the build id."""
        data, build_id = self.data, b""
        if data[:6] != MAGIC:
            return b""
        (ph,) = struct.unpack_from("<Q", data, 32)
        ph_size, ph_count = struct.unpack_from("<HH", data, 54)
        for i in range(ph_count):
            kind, _, offset, address, _, size, _, _ = _SEGMENT.unpack_from(data, ph + i * ph_size)
            if kind == _PT_LOAD:
                self._loads.append((offset, size, address))
            if kind == _PT_NOTE:
                build_id = _build_id(data[offset : offset + size]) or build_id
        return build_id

    def name(self, offset: int) -> str | None:
        """The function at this place in the file."""
        address = self._address(offset)
        at = bisect_right(self._starts, address) - 1 if address is not None else -1
        if at < 0 or address is None:
            return None
        end, name = self._names[at]
        return name if not end or address < end else None

    def _address(self, offset: int) -> int | None:
        for begin, size, address in self._loads:
            if begin <= offset < begin + size:
                return offset - begin + address
        return None

    def call_before(self, offset: int) -> tuple[bool, str | None]:
        """Whether the instruction before this place is a call (x86-64: E8 rel32, or FF /2), and
        which function of this file it calls, where that is written in it; STUB for a call out of
        the file."""
        before = self.data[max(0, offset - 7) : offset]
        if len(before) < 7:
            return False, None
        if before[-5] == 0xE8:
            target = offset + int.from_bytes(before[-4:], "little", signed=True)
            # Executable segments keep the distances of the file.
            return True, self._sized(target) or STUB
        return any(before[-k] == 0xFF and before[-k + 1] >> 3 & 7 == 2 for k in (2, 3, 6, 7)), None

    def _sized(self, offset: int) -> str | None:
        """As `name`, but only a function that is known to reach so far."""
        address = self._address(offset)
        at = bisect_right(self._starts, address) - 1 if address is not None else -1
        if at < 0 or address is None or address >= self._names[at][0]:
            return None
        return self._names[at][1]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.stat().st_size <= FILE_MAX else b""
    except OSError:
        return b""


def _build_id(notes: bytes) -> bytes:
    at = 0
    while at + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("<III", notes, at)
        begin = at + 12 + (name_size + 3 & ~3)
        if kind == _NT_GNU_BUILD_ID and notes[at + 12 : at + 16] == b"GNU\0":
            return notes[begin : begin + size]
        at = begin + (size + 3 & ~3)
    return b""


def _tables(data: bytes, found: dict[int, tuple[int, str, bool]]) -> None:
    """Adds all functions: address -> size, name, whether the name is a public one."""
    if data[:6] != MAGIC:
        return
    (sh,) = struct.unpack_from("<Q", data, 40)
    sh_size, sh_count = struct.unpack_from("<HH", data, 58)
    sections = [_SECTION.unpack_from(data, sh + i * sh_size) for i in range(sh_count)]
    for section in sections:
        if section[1] in (_SHT_SYMTAB, _SHT_DYNSYM):
            _symbols(data, section, sections[section[6]][4], found)


def _symbols(
    data: bytes, table: tuple[int, ...], strings: int, found: dict[int, tuple[int, str, bool]]
) -> None:
    for at in range(table[4], table[4] + table[5], _SYM.size):
        name_at, info, _, section, value, size = _SYM.unpack_from(data, at)
        if info & 15 not in (_NOTYPE, _FUNC, _IFUNC) or not section or not value:
            continue
        begin = strings + name_at
        name = data[begin : data.index(b"\0", begin)].decode(errors="replace")
        plain = not name.startswith("_")  # of several names the public one
        known = found.get(value)
        if name and (known is None or (plain and not known[2])):
            found[value] = (size or (known[0] if known else 0), name.partition("@")[0], plain)
