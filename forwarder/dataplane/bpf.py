"""libbpf for the rest of this package: typed, and with errors instead of negative numbers.

The only module that touches `_bpf` (C: c_helpers/src/bpf_user.h). It knows objects, maps, pins,
links and programs; what they are for is in steering.py.

Every function raises `BpfError` (an OSError with errno, the operation and the object it failed
on). File descriptors that are answered belong to the caller, except those of a `BpfObject`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from forwarder.dataplane._bpf import ffi, lib

VERIFIER_LOG_BYTES = 4 << 20
NAME_BYTES = 64

ANY, NO_EXIST = 0, 1  # BPF_ANY, BPF_NOEXIST

MODE_NAMES = {0: "none", 1: "native", 2: "generic", 3: "hardware", 4: "several"}


class BpfError(OSError):
    """A BPF operation failed: `errno`, what was done, on what; `log` is the verifier's, in full."""

    def __init__(self, code: int, doing: str, log: str = "") -> None:
        super().__init__(code, f"{doing}: {os.strerror(code)}" + (f"\n{log}" if log else ""))
        self.log = log


@dataclass(frozen=True)
class MapShape:
    """What must agree for one map to stand in for another."""

    map_type: int
    key_bytes: int
    value_bytes: int
    max_entries: int
    flags: int


@dataclass(frozen=True)
class XdpState:
    """The XDP program on an interface; `prog_id` 0 when there is none."""

    prog_id: int
    mode: str
    name: str


@dataclass(frozen=True)
class LinkState:
    """An XDP link; `ifindex` 0 when its interface is gone."""

    link_id: int
    prog_id: int
    ifindex: int


def _check(result: int, doing: str, log: str = "") -> int:
    if result < 0:
        raise BpfError(-result, doing, log)
    return result


def _messages() -> str:
    return _text(lib.vc_bpf_messages())


def _text(chars: Any) -> str:
    raw: bytes = ffi.string(chars)
    return raw.decode(errors="replace").rstrip("\n")


def _shape(raw: Any) -> MapShape:
    return MapShape(raw.map_type, raw.key_sz, raw.value_sz, raw.entries_max, raw.map_flags)


class BpfObject:
    """One BPF object file with one program: open, set globals, reuse maps, load."""

    def __init__(self, path: Path) -> None:
        self.path = path
        handle = ffi.new("struct vc_bpf **")
        result = lib.vc_bpf_open(str(path).encode(), handle)
        _check(result, f"open BPF object {path}", "" if result >= 0 else _messages())
        self._bpf: Any = handle[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give everything back; the kernel keeps what is pinned or attached."""
        if self._bpf is not None:
            lib.vc_bpf_close(self._bpf)
            self._bpf = None

    def set_global(self, name: str, value: int) -> None:
        """A `const volatile` global; before load(). ERANGE when it does not fit."""
        result = lib.vc_bpf_set_global(self._bpf, name.encode(), value)
        _check(result, f"set {name}={value} in {self.path}")

    def map_shapes(self) -> dict[str, MapShape]:
        """Every map of the object by name."""
        shapes: dict[str, MapShape] = {}
        name, raw = ffi.new("char[]", NAME_BYTES), ffi.new("struct vc_bpf_map_shape *")
        while lib.vc_bpf_map_name(self._bpf, len(shapes), name, NAME_BYTES) == 0:
            _check(lib.vc_bpf_map_shape(self._bpf, name, raw), f"read map {_text(name)}")
            shapes[_text(name)] = _shape(raw)
        return shapes

    def reuse_map(self, name: str, fd: int) -> None:
        """Take an existing map for `name`; before load()."""
        _check(lib.vc_bpf_reuse_map(self._bpf, name.encode(), fd), f"reuse map {name}")

    def load(self) -> None:
        """Make the maps and load the program; on failure the error has the verifier's full log."""
        log = ffi.new("char[]", VERIFIER_LOG_BYTES)
        result = lib.vc_bpf_load(self._bpf, log, VERIFIER_LOG_BYTES)
        if result < 0:
            _check(result, f"load BPF object {self.path}", f"{_text(log)}\n{_messages()}".strip())

    def map_fd(self, name: str) -> int:
        """Descriptor of a map; it belongs to the object."""
        return _check(lib.vc_bpf_map_fd(self._bpf, name.encode()), f"map {name} of {self.path}")

    @property
    def prog_fd(self) -> int:
        """Descriptor of the program; it belongs to the object."""
        return _check(lib.vc_bpf_prog_fd(self._bpf), f"program of {self.path}")


def pin(fd: int, path: Path) -> None:
    """Pin, in one step also over an older pin (bpffs renames atomically)."""
    part = path.with_name(path.name + "_new")
    part.unlink(missing_ok=True)
    _check(lib.vc_bpf_pin(fd, str(part).encode()), f"pin at {path}")
    part.rename(path)


def get(path: Path) -> int | None:
    """Open what is pinned at `path`; None when nothing is."""
    result: int = lib.vc_bpf_get(str(path).encode())
    return None if result == -errno.ENOENT else _check(result, f"open pin {path}")


def is_bpffs(path: Path) -> bool:
    """Whether `path` exists and lies on a BPF file system."""
    return bool(lib.vc_bpf_is_bpffs(str(path).encode()) == 1)


def mount_bpffs(path: Path) -> None:
    """Mount a BPF file system (mode 0700) at an existing directory; needs CAP_SYS_ADMIN."""
    _check(lib.vc_bpf_mount_bpffs(str(path).encode()), f"mount a BPF file system at {path}")


def unmount_bpffs(path: Path) -> None:
    """The reverse of mount_bpffs."""
    _check(lib.vc_bpf_unmount_bpffs(str(path).encode()), f"unmount the BPF file system at {path}")


def map_shape(fd: int) -> MapShape:
    """The shape of a map in the kernel."""
    raw = ffi.new("struct vc_bpf_map_shape *")
    _check(lib.vc_bpf_fd_shape(fd, raw), f"read the map at fd {fd}")
    return _shape(raw)


def update(fd: int, key: bytes, value: bytes, flags: int = ANY) -> None:
    """Set one element. E2BIG: the map is full."""
    _check(lib.vc_bpf_update(fd, key, value, flags), "update a map element")


def lookup(fd: int, key: bytes, value_bytes: int) -> bytes | None:
    """One element, or None."""
    value = ffi.new("char[]", value_bytes)
    result: int = lib.vc_bpf_lookup(fd, key, value)
    if result == -errno.ENOENT:
        return None
    _check(result, "look up a map element")
    return bytes(ffi.buffer(value, value_bytes))


def delete(fd: int, key: bytes) -> bool:
    """Remove one element; False when it was not there."""
    result: int = lib.vc_bpf_delete(fd, key)
    if result == -errno.ENOENT:
        return False
    _check(result, "delete a map element")
    return True


def keys(fd: int, key_bytes: int, limit: int) -> Iterator[bytes]:
    """All keys, at most `limit` (a key removed meanwhile makes the kernel start over)."""
    here, following = ffi.NULL, ffi.new("char[]", key_bytes)
    for _ in range(limit):
        result: int = lib.vc_bpf_next_key(fd, here, following)
        if result == -errno.ENOENT:
            return
        _check(result, "walk a map")
        key = bytes(ffi.buffer(following, key_bytes))
        yield key
        here = ffi.new("char[]", key)


def percpu_sum(fd: int, index: int) -> int:
    """Sum over all CPUs of a per-CPU array's u64 at `index`."""
    total = ffi.new("uint64_t *")
    _check(lib.vc_bpf_percpu_sum(fd, index, total), "sum a per-CPU counter")
    return int(total[0])


def prog_id(fd: int) -> int:
    """The kernel's id of a program."""
    number = ffi.new("uint32_t *")
    _check(lib.vc_bpf_prog_id(fd, number), f"read the program at fd {fd}")
    return int(number[0])


def link_xdp(prog_fd: int, ifindex: int, *, generic: bool) -> int:
    """Attach by a link; answers its descriptor. EBUSY/EEXIST: somebody else is attached."""
    doing = f"attach in {'generic' if generic else 'native'} mode to ifindex {ifindex}"
    return _check(lib.vc_bpf_link_xdp(prog_fd, ifindex, generic), doing)


def link_replace(link_fd: int, prog_fd: int) -> None:
    """Swap the program behind a link atomically."""
    _check(lib.vc_bpf_link_replace(link_fd, prog_fd), "replace the program of a link")


def link_detach(link_fd: int) -> None:
    """Detach, whoever else holds the link."""
    _check(lib.vc_bpf_link_detach(link_fd), "detach a link")


def link_read(link_fd: int) -> LinkState:
    """What a link holds."""
    raw = ffi.new("struct vc_bpf_link_state *")
    _check(lib.vc_bpf_link_read(link_fd, raw), "read a link")
    return LinkState(raw.link_id, raw.prog_id, raw.ifindex)


def xdp_read(ifindex: int) -> XdpState:
    """The XDP program attached to an interface, whoever attached it."""
    raw = ffi.new("struct vc_bpf_xdp_state *")
    _check(lib.vc_bpf_xdp_read(ifindex, raw), f"ask for the XDP program of ifindex {ifindex}")
    return XdpState(raw.prog_id, MODE_NAMES.get(raw.mode, str(raw.mode)), _text(raw.name))


def xdp_features(ifindex: int) -> int | None:
    """Bits of enum netdev_xdp_act; None where the kernel does not tell (before 6.3)."""
    bits = ffi.new("uint64_t *")
    result: int = lib.vc_bpf_xdp_features(ifindex, bits)
    return int(bits[0]) if result >= 0 else None


def test_run(prog_fd: int, frame: bytes, ifindex: int, queue: int = 0) -> tuple[int, bytes]:
    """Run an XDP program on one frame (>= 14 bytes): its verdict and the frame it left."""
    out_bytes = ffi.new("uint32_t *", len(frame) + 256)
    out = ffi.new("char[]", out_bytes[0])
    result = lib.vc_bpf_test_run(prog_fd, frame, len(frame), ifindex, queue, out, out_bytes)
    _check(result, f"test run on {len(frame)} bytes")
    return int(result), bytes(ffi.buffer(out, out_bytes[0]))


def tc_attach(prog_fd: int, ifindex: int) -> None:
    """Attach an egress classifier in the place of ours; the clsact qdisc is made if need be."""
    _check(lib.vc_bpf_tc_attach(prog_fd, ifindex), f"attach at the egress of ifindex {ifindex}")


def tc_detach(ifindex: int) -> bool:
    """Detach our egress classifier; False when there was none."""
    result: int = lib.vc_bpf_tc_detach(ifindex)
    if result in (-errno.ENOENT, -errno.EINVAL):  # EINVAL: there is not even a clsact qdisc
        return False
    _check(result, f"detach from the egress of ifindex {ifindex}")
    return True


def tc_prog_id(ifindex: int) -> int | None:
    """The kernel's id of our egress classifier on an interface, or None."""
    number = ffi.new("uint32_t *")
    result: int = lib.vc_bpf_tc_read(ifindex, number)
    if result in (-errno.ENOENT, -errno.EINVAL):
        return None
    _check(result, f"read the egress of ifindex {ifindex}")
    return int(number[0])


def test_run_tc(prog_fd: int, frame: bytes, tstamp_ns: int) -> tuple[int, int]:
    """Run a classifier on a frame that wants to leave at `tstamp_ns` (0: at once): its action and
    the departure time that it left."""
    tstamp = ffi.new("uint64_t *", tstamp_ns)
    result = lib.vc_bpf_test_run_tc(prog_fd, frame, len(frame), tstamp)
    _check(result, f"test run on {len(frame)} bytes")
    return int(result), int(tstamp[0])


def verdict_labels() -> tuple[str, ...]:
    """Labels of enum vc_verdict in order (ebpf/abi.h)."""
    return tuple(_text(lib.vc_bpf_verdict_label(i)) for i in range(lib.vc_bpf_verdict_cnt()))


def verdict_meanings() -> dict[str, str]:
    """Label -> what it means, one line."""
    return {label: _text(lib.vc_bpf_verdict_what(i)) for i, label in enumerate(verdict_labels())}
