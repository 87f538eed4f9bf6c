"""The steering program: load or adopt it, attach it to interfaces, fill its maps.

Law: what is in the kernel outlives this process. Maps, the program and one link for each
interface are pinned under `pin_dir`; `load` finds them again, and a changed object or changed
rates replace the program behind the links without a gap. Nothing is ever detached that is not
pinned there: a foreign XDP program stays, and is named in the error. The tables are in
steering_tables.py, their keys and values in steering_abi.py.

Pins: map_<name>, prog_steer, link_<ifindex>, group_<address>_<port> (the sockets of a selector).

No threads, no asyncio; every call is a few system calls (a load: tens of milliseconds).
Errors: `SteeringError` (what failed, on what, what to do), `ForeignXdpProgram`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from forwarder.dataplane import bpf, selector_bpf, steering_abi
from forwarder.dataplane.bpf import BpfError, BpfObject
from forwarder.dataplane.steering_abi import Flow, Rates
from forwarder.dataplane.steering_errors import ForeignXdpProgram, SteeringError
from forwarder.dataplane.steering_probe import PathProbe, probe
from forwarder.dataplane.steering_tables import SteeringTables

__all__ = [
    "AttachResult",
    "Flow",
    "ForeignXdpProgram",
    "PathProbe",
    "Rates",
    "Steering",
    "SteeringError",
    "ensure_bpffs",
    "probe",
]

SYS_FS_BPF = Path("/sys/fs/bpf")
DEFAULT_PIN_DIR = SYS_FS_BPF / "vcfwd"
OBJECT_DIR = Path(__file__).resolve().parents[2] / "build" / "ebpf"

PINS = ("map_*", "prog_steer", "link_*", "group_*")

Mode = Literal["native", "generic", "auto"]
Loaded = Literal["fresh", "kept", "program_replaced", "maps_replaced"]


@dataclass(frozen=True)
class AttachResult:
    """`mode` native or generic; `why` says in a sentence why not a better one."""

    ifname: str
    ifindex: int
    mode: str
    why: str


def ensure_bpffs(path: Path) -> bool:
    """Make the directory `path` on a BPF file system; True when one had to be mounted at `path`.

    Below /sys/fs/bpf it is mounted at that place, anywhere else at `path` itself. A namespace
    entered by `ip netns exec` has another /sys: give a path under /run then.
    """
    try:
        if SYS_FS_BPF in path.parents and not bpf.is_bpffs(SYS_FS_BPF):
            bpf.mount_bpffs(SYS_FS_BPF)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if bpf.is_bpffs(path):
            return False
        bpf.mount_bpffs(path)
        return True
    except OSError as error:
        raise SteeringError(
            f"prepare a BPF file system at {path}: {error}; run as root (CAP_SYS_ADMIN), or mount "
            f"one there: mount -t bpf bpf {path}"
        ) from error


def _digest(object_path: Path, rates: Rates) -> bytes:
    text = repr(sorted(rates.globals().items())).encode()
    try:
        return hashlib.sha256(object_path.read_bytes() + text).digest()
    except OSError as error:
        raise SteeringError(f"read {object_path}: {error}; build it with 'make -C ebpf'") from error


class Steering(SteeringTables):
    """The loaded program and its maps. Made by `load` or `adopt`."""

    def __init__(self, pin_dir: Path, rates: Rates, object_dir: Path) -> None:
        super().__init__(pin_dir)
        self.rates, self.object_dir = rates, object_dir
        self.loaded: Loaded = "fresh"
        self._prog_fd = -1
        self._mounted = False

    # -- life ---------------------------------------------------------------------------------

    @classmethod
    def load(
        cls,
        pin_dir: Path = DEFAULT_PIN_DIR,
        rates: Rates | None = None,
        object_dir: Path = OBJECT_DIR,
    ) -> Self:
        """Load, or take over what is pinned in `pin_dir`; `.loaded` tells which it was.

        maps_replaced means that the ABI changed: the tables are empty and want filling again,
        AF_XDP sockets included, and selectors want attaching again.
        """
        steering = cls(pin_dir, rates or Rates(), object_dir)
        steering._mounted = ensure_bpffs(pin_dir)
        try:
            steering._load()
        except BpfError as error:
            steering.close()
            raise SteeringError(
                f"load the steering program into {pin_dir}: {error}; it needs CAP_BPF and "
                "CAP_NET_ADMIN, and Linux 5.10 or later"
            ) from error
        return steering

    @classmethod
    def adopt(
        cls,
        pin_dir: Path = DEFAULT_PIN_DIR,
        rates: Rates | None = None,
        object_dir: Path = OBJECT_DIR,
    ) -> Self:
        """As `load`, but SteeringError when nothing is pinned there."""
        if not (pin_dir / "map_meta").exists():
            raise SteeringError(f"nothing to adopt in {pin_dir}: no steering maps are pinned there")
        return cls.load(pin_dir, rates, object_dir)

    def _load(self) -> None:
        path = self.object_dir / "steer.bpf.o"
        digest = _digest(path, self.rates)
        with BpfObject(path) as steer:
            shapes = steer.map_shapes()
            pinned = self._open_pinned_maps(list(shapes))
            try:
                usable = self._same_layout(pinned, shapes)
                if usable and self._meta(pinned)[1] == digest and self._keep(pinned):
                    return
                self.loaded = "program_replaced" if usable else "fresh"
                if pinned and not usable:
                    self.loaded = "maps_replaced"
                self._load_object(steer, pinned if usable else {})
            finally:
                if self._maps is not pinned:
                    for fd in pinned.values():
                        os.close(fd)
        self._publish(digest)

    def _keep(self, pinned: dict[str, int]) -> bool:
        prog_fd = bpf.get(self.pin_dir / "prog_steer")
        if prog_fd is None:
            return False
        self._maps, self._prog_fd, self.loaded = pinned, prog_fd, "kept"
        return True

    def _load_object(self, steer: BpfObject, reused: dict[str, int]) -> None:
        for name, value in self.rates.globals().items():
            steer.set_global(name, value)
        for name, fd in reused.items():
            steer.reuse_map(name, fd)
        steer.load()
        self._maps = {name: os.dup(steer.map_fd(name)) for name in steer.map_shapes()}
        self._prog_fd = os.dup(steer.prog_fd)

    def _publish(self, digest: bytes) -> None:
        """Pins first, links then, the digest last: whoever dies in between, `load` starts over."""
        if self.loaded != "program_replaced":
            for name, fd in self._maps.items():
                bpf.pin(fd, self.pin_dir / f"map_{name}")
            for stale in self.pin_dir.glob("map_select_*"):
                stale.unlink()
        bpf.pin(self._prog_fd, self.pin_dir / "prog_steer")
        for ifindex, link_fd in self._links().items():
            try:
                if bpf.link_read(link_fd).ifindex:
                    bpf.link_replace(link_fd, self._prog_fd)
                else:
                    (self.pin_dir / f"link_{ifindex}").unlink()
            finally:
                os.close(link_fd)
        meta = steering_abi.META.pack(steering_abi.ABI_VERSION, 0, digest)
        bpf.update(self._maps["meta"], steering_abi.U32.pack(0), meta)

    def _open_pinned_maps(self, names: list[str]) -> dict[str, int]:
        found = {name: bpf.get(self.pin_dir / f"map_{name}") for name in names}
        return {name: fd for name, fd in found.items() if fd is not None}

    def _same_layout(self, pinned: dict[str, int], shapes: dict[str, bpf.MapShape]) -> bool:
        if any(name not in pinned for name in shapes):
            return False
        same = all(bpf.map_shape(pinned[name]) == shape for name, shape in shapes.items())
        return same and self._meta(pinned)[0] == steering_abi.ABI_VERSION

    @staticmethod
    def _meta(maps: dict[str, int]) -> tuple[int, bytes]:
        raw = bpf.lookup(maps["meta"], steering_abi.U32.pack(0), steering_abi.META.size)
        version, _, digest = steering_abi.META.unpack(raw or bytes(steering_abi.META.size))
        return version, digest

    def close(self) -> None:
        """Give the descriptors back; program, links and maps stay pinned and at work."""
        for fd in (*self._maps.values(), *([self._prog_fd] if self._prog_fd >= 0 else ())):
            os.close(fd)
        self._maps, self._prog_fd = {}, -1

    def unload(self) -> None:
        """Detach every link, remove every pin, close: the host is as before `load`."""
        for ifindex, link_fd in self._links().items():
            self._drop_link(ifindex, link_fd)
        for pattern in PINS:
            for pin in self.pin_dir.glob(pattern):
                pin.unlink()
        self.close()
        # The kernel keeps maps.debug and progs.debug in each BPF file system.
        if self._mounted and all(left.suffix == ".debug" for left in self.pin_dir.iterdir()):
            bpf.unmount_bpffs(self.pin_dir)
            self._mounted = False

    # -- interfaces ---------------------------------------------------------------------------

    def attach(self, ifname: str, mode: Mode = "auto") -> AttachResult:
        """Attach to an interface; `auto` takes native, else generic. Attached already: kept.

        ForeignXdpProgram when somebody else is there, SteeringError when the mode is not possible.
        """
        ifindex = _ifindex(ifname)
        there = self.attached().get(ifindex)
        if there and mode in ("auto", there):
            return AttachResult(ifname, ifindex, there, "attached already, kept")
        if there:
            self.detach(ifname)
        self.refuse_foreign(ifname)
        why = "generic mode was asked for"
        if mode != "generic":
            try:
                self._link(ifname, ifindex, generic=False)
                return AttachResult(ifname, ifindex, "native", "the driver has native XDP")
            except BpfError as error:
                if mode == "native":
                    raise SteeringError(
                        f"{ifname}: {error}; the driver has no native XDP for this interface as it "
                        "is (queues, MTU): use mode generic or auto"
                    ) from error
                why = f"native XDP was refused: {os.strerror(error.errno or 0)}"
        try:
            self._link(ifname, ifindex, generic=True)
        except BpfError as error:
            raise SteeringError(f"{ifname}: {error} ({why}); use the socket path") from error
        return AttachResult(ifname, ifindex, "generic", why)

    def _link(self, ifname: str, ifindex: int, *, generic: bool) -> None:
        try:
            link_fd = bpf.link_xdp(self._prog_fd, ifindex, generic=generic)
        except BpfError as error:
            if error.errno in (errno.EBUSY, errno.EEXIST):
                state = bpf.xdp_read(ifindex)
                if state.prog_id:
                    raise ForeignXdpProgram(ifname, state) from error
            raise
        try:
            bpf.pin(link_fd, self.pin_dir / f"link_{ifindex}")
        finally:
            os.close(link_fd)

    def refuse_foreign(self, ifname: str) -> None:
        """ForeignXdpProgram when a program that is not ours is on the interface."""
        ifindex = _ifindex(ifname)
        state = bpf.xdp_read(ifindex)
        if state.prog_id and ifindex not in self.attached():
            raise ForeignXdpProgram(ifname, state)

    def detach(self, ifname: str) -> bool:
        """Detach our program; False when it is not attached. A foreign one is never touched."""
        ifindex = _ifindex(ifname)
        link_fd = bpf.get(self.pin_dir / f"link_{ifindex}")
        if link_fd is None:
            return False
        self._drop_link(ifindex, link_fd)
        return True

    def _drop_link(self, ifindex: int, link_fd: int) -> None:
        try:
            bpf.link_detach(link_fd)
        finally:
            os.close(link_fd)
            (self.pin_dir / f"link_{ifindex}").unlink(missing_ok=True)

    def attached(self) -> dict[int, str]:
        """ifindex -> native or generic, of our links whose interface is still there."""
        modes: dict[int, str] = {}
        for ifindex, link_fd in self._links().items():
            try:
                if bpf.link_read(link_fd).ifindex == ifindex:
                    modes[ifindex] = bpf.xdp_read(ifindex).mode
                else:
                    (self.pin_dir / f"link_{ifindex}").unlink()
            finally:
                os.close(link_fd)
        return modes

    def probe(self, ifname: str) -> list[PathProbe]:
        """steering_probe.probe, knowing that our own program is not foreign. Attaches nothing."""
        own = []
        for link_fd in self._links().values():
            own.append(bpf.link_read(link_fd).prog_id)
            os.close(link_fd)
        return probe(ifname, own)

    def _links(self) -> dict[int, int]:
        """ifindex -> descriptor (the caller closes) of every pinned link."""
        links: dict[int, int] = {}
        for pin in sorted(self.pin_dir.glob("link_*")):
            number = pin.name.removeprefix("link_")
            fd = bpf.get(pin) if number.isdecimal() else None
            if fd is not None:
                links[int(number)] = fd
        return links

    # -- selectors ----------------------------------------------------------------------------

    def attach_selector(self, sockets: list[socket.socket]) -> None:
        """Attach the eBPF selector to the SO_REUSEPORT group of one local address.

        `sockets`: slow first, then media by worker; all bound. Again on a living group is fine
        (adoption): sockets that are in place stay there. SteeringError when the kernel refuses.
        """
        if not 2 <= len(sockets) <= steering_abi.GROUP_MAX:
            most = steering_abi.GROUP_MAX
            raise SteeringError(f"{len(sockets)} sockets: a group has 2 to {most}")
        name = sockets[0].getsockname()
        try:
            selector_bpf.attach_selector(
                sockets,
                object_path=self.object_dir / "select.bpf.o",
                rates=self.rates.globals(),
                shared={name: self._maps[name] for name in ("flows", "admitted", "prefixes")},
                pin_dir=self.pin_dir,
            )
        except BpfError as error:
            hint = (
                "a socket is in another selector's group already: bind it anew"
                if error.errno == errno.EBUSY
                else "bind every socket of the group with SO_REUSEPORT first"
            )
            raise SteeringError(f"attach the selector at {name}: {error}; {hint}") from error


def _ifindex(ifname: str) -> int:
    try:
        return socket.if_nametoindex(ifname)
    except OSError as error:
        raise SteeringError(f"{ifname}: there is no such interface; see 'ip link'") from error
