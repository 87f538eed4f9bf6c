"""The control socket of a data plane: messages and descriptors, see enum vc_ctl_type.

Law: one request at a time, each with a reply or a sentence; a reply that does not come within
its time is DataPlaneLost.  All descriptors that arrive are close-on-exec.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from forwarder.dataplane.abi import ffi, lib
from forwarder.errors import DataPlaneError, DataPlaneLost

SOCKET_NAME = "dataplane.sock"
SETUP_TIMEOUT_S = 15.0
"""A NIC driver may reset its link for seconds when AF_XDP sockets are bound."""
REPLY_TIMEOUT_S = 3.0
_FDS_MAX = 253
_MESSAGE_MAX = 16384


class FdKind(IntEnum):
    """enum vc_fd_kind."""

    WORKER_SHM = 1
    CMD_BELL = 2
    EVT_BELL = 3
    INDEX_STORE = 4
    SLOW_SOCKET = 5
    MEDIA_SOCKET = 6
    XSKS_MAP = 7
    OTHER = 8


@dataclass(frozen=True)
class LabelledFd:
    """A descriptor and what it is for: `a` is a worker or a local address, `b` a worker."""

    kind: FdKind
    a: int
    b: int
    fd: int


@dataclass(frozen=True)
class Ready:
    """What a set-up came to: the engine's name, and for each interface whether the kernel gave
    zero-copy.  `epoch`: start, CLOCK_MONOTONIC ns."""

    epoch: int
    crypto: str
    zerocopy: tuple[bool, ...]
    memory: str = ""
    """What is wrong with where the workers' memory lies, if anything is."""


@dataclass(frozen=True)
class State:
    """Set-up record and descriptors (now the caller's) of a living data plane."""

    record: Any
    fds: list[LabelledFd]
    ready: Ready


class Control:
    """A connection to a data plane."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock

    @classmethod
    def connect(cls, run_dir: Path) -> Control | None:
        """Connects to the data plane that serves `run_dir`; None when none does."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            folder = os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            sock.close()
            return None
        try:  # by the descriptor: a run directory's path may be longer than a socket address
            sock.connect(f"/proc/self/fd/{folder}/{SOCKET_NAME}")
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            return None
        except OSError as error:
            sock.close()
            raise DataPlaneError(
                f"cannot reach the data plane in {run_dir}: {error.strerror}; "
                "run as the user who started it"
            ) from error
        finally:
            os.close(folder)
        return cls(sock)

    def peer_pid(self) -> int:
        """The process at the other end (of a connection made by connect)."""
        raw = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int.from_bytes(raw[:4], "little")

    def _send(self, kind: int, body: bytes = b"", fds: Sequence[int] = ()) -> None:
        header = ffi.new("struct vc_ctl_header *")
        header.magic, header.abi_version = lib.VC_SHM_MAGIC, lib.VC_ABI_VERSION
        header.type, header.body_sz, header.fd_cnt = kind, len(body), len(fds)
        try:
            socket.send_fds(self.sock, [bytes(ffi.buffer(header)) + body], list(fds))
        except OSError as error:
            raise DataPlaneLost(f"the data plane does not take messages: {error}") from error

    async def _receive(self, timeout: float) -> tuple[int, bytes, list[int]]:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self.sock.fileno(), readable.set)
        try:
            async with asyncio.timeout(timeout):
                await readable.wait()
        except TimeoutError:
            raise DataPlaneLost(f"the data plane gave no answer within {timeout:g} s") from None
        finally:
            loop.remove_reader(self.sock.fileno())
        try:
            raw, fds, _flags, _address = socket.recv_fds(
                self.sock, _MESSAGE_MAX, _FDS_MAX, socket.MSG_CMSG_CLOEXEC
            )
        except OSError as error:
            raise DataPlaneLost(f"the data plane is gone: {error}") from error
        size = ffi.sizeof("struct vc_ctl_header")
        if len(raw) < size:
            raise DataPlaneLost("the data plane closed the connection: see its log")
        header = ffi.from_buffer("struct vc_ctl_header *", raw)
        if header.magic != lib.VC_SHM_MAGIC or header.abi_version != lib.VC_ABI_VERSION:
            for fd in fds:
                os.close(fd)
            raise DataPlaneError(
                "the data plane is of another build: end it, and start both of one build"
            )
        return int(header.type), raw[size:], list(fds)

    async def setup(self, record: Any, fds: Sequence[LabelledFd]) -> Ready:
        """Sets the data plane up; raises DataPlaneError with its sentence."""
        if len(fds) > _FDS_MAX:
            raise DataPlaneError(
                f"{len(fds)} descriptors for the data plane, which takes at most {_FDS_MAX}: "
                "configure fewer workers or addresses"
            )
        labels = ffi.new("struct vc_ctl_fd[]", len(fds))
        for label, item in zip(labels, fds, strict=True):
            label.kind, label.a, label.b = int(item.kind), item.a, item.b
        body = bytes(ffi.buffer(record)) + bytes(ffi.buffer(labels))
        self._send(lib.VC_CTL_SETUP, body, [item.fd for item in fds])
        return await self._ready(SETUP_TIMEOUT_S, record.interface_cnt)

    async def _ready(self, timeout: float, interfaces: int) -> Ready:
        kind, raw, _ = await self._receive(timeout)
        if kind == lib.VC_CTL_ERROR:
            raise DataPlaneError(f"the data plane did not start: {raw.decode(errors='replace')}")
        if kind != lib.VC_CTL_READY or len(raw) != ffi.sizeof("struct vc_ctl_ready"):
            raise DataPlaneError(f"the data plane answered by message {kind} instead of READY")
        ready = ffi.from_buffer("struct vc_ctl_ready *", raw)
        return Ready(
            epoch=int(ready.epoch),
            crypto=ffi.string(ready.crypto).decode(),
            zerocopy=tuple(bool(ready.zerocopy[i]) for i in range(interfaces)),
            memory=ffi.string(ready.memory).decode(),
        )

    async def state(self) -> State | None:
        """What a living data plane holds; None: it was not set up yet."""
        self._send(lib.VC_CTL_GET)
        kind, raw, fds = await self._receive(REPLY_TIMEOUT_S)
        size = ffi.sizeof("struct vc_ctl_setup")
        label_size = ffi.sizeof("struct vc_ctl_fd")
        if kind != lib.VC_CTL_STATE or len(raw) != size + len(fds) * label_size:
            for fd in fds:
                os.close(fd)
            raise DataPlaneError(f"the data plane answered by message {kind} of {len(raw)} bytes")
        record = ffi.new("struct vc_ctl_setup *")
        ffi.memmove(record, raw, size)
        labels = ffi.new("struct vc_ctl_fd[]", len(fds))
        ffi.memmove(labels, raw[size:], len(fds) * label_size)
        items = [
            LabelledFd(FdKind(label.kind), label.a, label.b, fd)
            for label, fd in zip(labels, fds, strict=True)
        ]
        if not items:
            return None
        return State(record, items, await self._ready(REPLY_TIMEOUT_S, record.interface_cnt))

    def shutdown(self) -> None:
        """Asks it to end; it does so within a second or two."""
        self._send(lib.VC_CTL_SHUTDOWN)

    def close(self) -> None:
        self.sock.close()
