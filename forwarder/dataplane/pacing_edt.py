"""Departure times for the socket path: the egress program ebpf/edt.bpf.c, loaded and filled.

It helps only where the interface sends by fq, which holds a packet until its time; elsewhere
nobody reads the stamp.  So `why_not` is asked first, and says in a sentence what is missing.

One `EdtPacer` serves any number of interfaces.  It owns program and maps; the kernel keeps an
attached program when this process ends, with its rates as they are, until `detach`.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from forwarder.dataplane import bpf
from forwarder.dataplane.bpf import BpfError, BpfObject
from forwarder.errors import VcfwdError
from forwarder.net import qdiscs

OBJECT: Final = Path(__file__).resolve().parents[2] / "build" / "ebpf" / "edt.bpf.o"
FQ: Final = "fq"
HORIZON_NS: Final = 250_000_000
RATE_MAX: Final = 100_000_000_000  # bytes a second
BURST_MAX_NS: Final = 1_000_000_000

OUTCOMES: Final = ("passed", "at_once", "stamped", "beyond")
"""Labels of VC_EDT_OUTCOMES in ebpf/edt.h, in order (tests/ebpf/test_edt.py holds them equal)."""

# ebpf/edt.h: struct vc_edt_key, struct vc_edt_rate, the due time
_KEY = struct.Struct("!16sHH")
_RATE = struct.Struct("=QQ")
_NEXT = struct.Struct("=Q")


class EdtError(VcfwdError):
    """The egress program cannot be used, or a flow cannot be paced; says which and why."""


def why_not(interface: str) -> str | None:
    """Why departure times would do nothing on this interface; None when they would be kept."""
    try:
        index = socket.if_nametoindex(interface)
    except OSError:
        return f"there is no interface {interface}"
    found = qdiscs.kinds(index)
    if found == (FQ,):
        return None
    told = ", ".join(found) or "none"
    return (
        f"{interface} sends by {told}, not by fq, so departure times would not be kept: "
        f"`tc qdisc replace dev {interface} root fq` (it needs the kernel's sch_fq)"
    )


def _address(ip: str) -> bytes:
    address = ipaddress.ip_address(ip)
    if isinstance(address, ipaddress.IPv6Address):
        return address.packed
    return bytes(10) + b"\xff\xff" + address.packed


def flow_key(remote: tuple[str, int], local_port: int) -> bytes:
    """Key of a flow on its way out."""
    try:
        return _KEY.pack(_address(remote[0]), remote[1], local_port)
    except (ValueError, struct.error) as error:
        raise EdtError(f"no flow to {remote[0]} port {remote[1]}: {error}") from None


class EdtPacer:
    """The loaded program.  Raises EdtError when the kernel refuses it."""

    def __init__(self, object_path: Path = OBJECT, horizon_ns: int = HORIZON_NS) -> None:
        if not object_path.exists():
            raise EdtError(f"there is no {object_path}: build it with 'make -C ebpf'")
        try:
            self._object = BpfObject(object_path)
        except BpfError as error:
            raise EdtError(str(error)) from error
        try:
            self._check_shapes(object_path)
            self._object.set_global("vc_edt_horizon_ns", horizon_ns)
            self._object.load()
            self._rates = self._object.map_fd("edt_rates")
            self._next = self._object.map_fd("edt_next")
            self._outcomes = self._object.map_fd("edt_outcomes")
        except BpfError as error:
            self._object.close()
            raise EdtError(str(error)) from error

    def _check_shapes(self, path: Path) -> None:
        shapes = self._object.map_shapes()
        for name, key, value in (
            ("edt_rates", _KEY.size, _RATE.size),
            ("edt_next", _KEY.size, _NEXT.size),
            ("edt_outcomes", 4, 8),
        ):
            shape = shapes.get(name)
            if shape is None or (shape.key_bytes, shape.value_bytes) != (key, value):
                self._object.close()
                raise EdtError(f"{path} is of another version (map {name}): run 'make -C ebpf'")

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
        """Gives program and maps back; where it is attached the kernel keeps both."""
        self._object.close()

    @property
    def prog_fd(self) -> int:
        """Of the program, for test runs."""
        return self._object.prog_fd

    # ---- interfaces -------------------------------------------------------------------------

    def attach(self, interface: str, *, even_without_fq: bool = False) -> None:
        """At the egress of an interface that has fq; EdtError with the reason otherwise."""
        reason = None if even_without_fq else why_not(interface)
        if reason is not None:
            raise EdtError(reason)
        try:
            bpf.tc_attach(self.prog_fd, socket.if_nametoindex(interface))
        except OSError as error:
            raise EdtError(f"{interface}: {error}") from error

    def attached(self, interface: str) -> bool:
        """Whether this very program is at the egress of the interface."""
        found = bpf.tc_prog_id(socket.if_nametoindex(interface))
        return found is not None and found == bpf.prog_id(self.prog_fd)

    # ---- flows ------------------------------------------------------------------------------

    def set_rate(
        self, remote: tuple[str, int], local_port: int, bytes_per_s: int, burst_ns: int = 0
    ) -> None:
        """Paces a flow from its next packet on; of a paced one the rate changes and the time at
        which its next packet is due stays.  bytes_per_s: of frames with all headers."""
        if not 1 <= bytes_per_s <= RATE_MAX:
            raise EdtError(f"a rate of {bytes_per_s} bytes/s: it must be 1 to {RATE_MAX}")
        if not 0 <= burst_ns <= BURST_MAX_NS:
            raise EdtError(f"a burst of {burst_ns} ns: it must be 0 to {BURST_MAX_NS}")
        key = flow_key(remote, local_port)
        try:
            if bpf.lookup(self._next, key, _NEXT.size) is None:
                bpf.update(self._next, key, _NEXT.pack(0))
            bpf.update(self._rates, key, _RATE.pack(bytes_per_s, burst_ns))
        except BpfError as error:
            raise EdtError(f"cannot pace {remote[0]} port {remote[1]}: {error}") from error

    def remove(self, remote: tuple[str, int], local_port: int) -> bool:
        """The flow is paced no longer; False when it was not."""
        key = flow_key(remote, local_port)
        known = bpf.delete(self._rates, key)
        bpf.delete(self._next, key)
        return known

    def outcomes(self) -> dict[str, int]:
        """Packets by what became of them, on all interfaces."""
        return {
            label: bpf.percpu_sum(self._outcomes, index) for index, label in enumerate(OUTCOMES)
        }


def detach(interface: str) -> bool:
    """Takes our program off an interface, whoever attached it; False when there was none."""
    try:
        return bpf.tc_detach(socket.if_nametoindex(interface))
    except OSError as error:
        raise EdtError(f"{interface}: {error}") from error
