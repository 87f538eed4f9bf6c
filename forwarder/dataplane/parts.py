"""What the supervisor and its data plane both hold: memory, bells, sockets, the XSKMAP.

Law: whoever restarts gets these from the other; they are made once in a node's life.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from forwarder.dataplane import setup_record as setups
from forwarder.dataplane.abi import Memory, Segment, format_index, index_size, make_memfd
from forwarder.dataplane.control import FdKind, LabelledFd
from forwarder.dataplane.setup import Setup
from forwarder.dataplane.sockets import Group, adopt_group, open_group
from forwarder.errors import DataPlaneError


@dataclass
class Parts:
    """Everything that both processes hold."""

    setup: Setup
    record: Any
    index: Memory
    segments: list[Segment]
    cmd_bells: list[int]
    evt_bells: list[int]
    groups: list[Group]
    xsks_map: int | None
    others: list[int] = field(default_factory=list)

    def labelled(self) -> list[LabelledFd]:
        fds = [LabelledFd(FdKind.INDEX_STORE, 0, 0, self.index.fd)]
        for w, segment in enumerate(self.segments):
            fds.append(LabelledFd(FdKind.WORKER_SHM, w, 0, segment.memory.fd))
            fds.append(LabelledFd(FdKind.CMD_BELL, w, 0, self.cmd_bells[w]))
            fds.append(LabelledFd(FdKind.EVT_BELL, w, 0, self.evt_bells[w]))
        for i, group in enumerate(self.groups):
            fds.append(LabelledFd(FdKind.SLOW_SOCKET, i, 0, group.slow.fileno()))
            for w, sock in enumerate(group.media):
                fds.append(LabelledFd(FdKind.MEDIA_SOCKET, i, w, sock.fileno()))
        if self.xsks_map is not None:
            fds.append(LabelledFd(FdKind.XSKS_MAP, 0, 0, self.xsks_map))
        fds += [LabelledFd(FdKind.OTHER, i, 0, fd) for i, fd in enumerate(self.others)]
        return fds

    def close(self) -> None:
        for memory in (self.index, *(segment.memory for segment in self.segments)):
            memory.close()
            os.close(memory.fd)
        for fd in (*self.cmd_bells, *self.evt_bells, *self.others):
            os.close(fd)
        if self.xsks_map is not None:
            os.close(self.xsks_map)
        for group in self.groups:
            group.close()


def create(setup: Setup, xsks_map: int | None, on_group: Callable[[Group], None] | None) -> Parts:
    """Opens and makes everything for a set-up; raises HostError, DataPlaneError."""
    groups: list[Group] = []
    try:
        for local in setup.locals:
            groups.append(open_group(local, setup.workers, on_group))
    except BaseException:
        for group in groups:
            group.close()
        raise
    bound = tuple(group.local for group in groups)  # port 0 has become a number
    record = setups.encode(replace(setup, locals=bound))
    index = Memory(make_memfd("vcfwd-index", index_size(record)))
    format_index(index, record)
    segments = [
        Segment(Memory(make_memfd(f"vcfwd-worker-{w}", Segment.size_for(record, w))), w)
        for w in range(setup.workers)
    ]
    flags = os.EFD_CLOEXEC | os.EFD_NONBLOCK
    return Parts(
        setups.decode(record),
        record,
        index,
        segments,
        [os.eventfd(0, flags) for _ in range(setup.workers)],
        [os.eventfd(0, flags) for _ in range(setup.workers)],
        groups,
        None if xsks_map is None else fcntl.fcntl(xsks_map, fcntl.F_DUPFD_CLOEXEC, 0),
    )


def assemble(record: Any, fds: Iterable[LabelledFd]) -> Parts:
    """The parts of a living data plane, from what it gave back."""
    setup = setups.decode(record)
    if len(setup.locals) == 0 or setup.workers == 0:
        raise DataPlaneError("the data plane says that it has no address or no worker")
    by = {(item.kind, item.a, item.b): item.fd for item in fds}
    take = by.pop
    workers = range(setup.workers)
    groups = [
        adopt_group(
            local,
            take((FdKind.SLOW_SOCKET, i, 0)),
            [take((FdKind.MEDIA_SOCKET, i, w)) for w in workers],
        )
        for i, local in enumerate(setup.locals)
    ]
    parts = Parts(
        setup,
        record,
        Memory(take((FdKind.INDEX_STORE, 0, 0))),
        [Segment(Memory(take((FdKind.WORKER_SHM, w, 0))), w) for w in workers],
        [take((FdKind.CMD_BELL, w, 0)) for w in workers],
        [take((FdKind.EVT_BELL, w, 0)) for w in workers],
        groups,
        by.pop((FdKind.XSKS_MAP, 0, 0), None),
        list(by.values()),
    )
    for segment in parts.segments:
        why = segment.check(record)
        if why is not None:
            parts.close()
            raise DataPlaneError(f"the data plane that runs cannot be adopted: {why}; end it")
    return parts


def drain(bell: int) -> None:
    """Empties an eventfd."""
    try:
        os.eventfd_read(bell)
    except BlockingIOError:
        return
