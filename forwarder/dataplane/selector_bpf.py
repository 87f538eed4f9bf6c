"""One instance of ebpf/select.bpf.c for each SO_REUSEPORT group (see selector.py for groups).

Called through `Steering.attach_selector`. The group's sockets live in a pinned map, since a socket
can be in one such map only: whoever comes next must find that map again. The program itself is
held by the group.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path

from forwarder.dataplane import bpf
from forwarder.dataplane.addresses import pack_ip
from forwarder.dataplane.bpf import BpfError, BpfObject
from forwarder.dataplane.steering_abi import GROUP_MAX, U32

SO_ATTACH_REUSEPORT_EBPF = 52
SO_COOKIE = 57

U64 = struct.Struct("=Q")


def attach_selector(
    sockets: list[socket.socket],
    *,
    object_path: Path,
    rates: dict[str, int],
    shared: dict[str, int],
    pin_dir: Path,
) -> None:
    """Load an instance for the group of `sockets` (slow first, then media by worker), attach it.

    `rates`: load-time globals. `shared`: maps that it has in common with the steering program.
    BpfError when the kernel refuses; EBUSY: a socket is in another group's map.
    """
    ip, port = sockets[0].getsockname()[:2]
    pins = {
        "select_verdicts": pin_dir / "map_select_verdicts",
        "select_group": pin_dir / f"group_{pack_ip(ip).hex()}_{port}",
    }
    with BpfObject(object_path) as select:
        shapes = select.map_shapes()
        for name, value in rates.items():
            select.set_global(name, value)
        for name, fd in shared.items():
            select.reuse_map(name, fd)
        fresh = dict(pins)
        for name, path in pins.items():
            fd_or_none = bpf.get(path)
            if fd_or_none is None:
                continue
            if bpf.map_shape(fd_or_none) == shapes[name]:
                select.reuse_map(name, fd_or_none)  # libbpf keeps a descriptor of its own
                del fresh[name]
            os.close(fd_or_none)
        select.load()
        for name, path in fresh.items():
            bpf.pin(select.map_fd(name), path)
        _fill_group(select.map_fd("select_group"), sockets)
        try:
            sockets[0].setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, select.prog_fd)
        except OSError as error:
            raise BpfError(error.errno or errno.EINVAL, "attach to the group") from error


def _fill_group(group_fd: int, sockets: list[socket.socket]) -> None:
    """Index i -> sockets[i]. One that is in place already is left there: no gap for its packets."""
    for index in range(GROUP_MAX):
        key = U32.pack(index)
        there = bpf.lookup(group_fd, key, U64.size)
        wanted = sockets[index] if index < len(sockets) else None
        if there is not None:
            if wanted and wanted.getsockopt(socket.SOL_SOCKET, SO_COOKIE, U64.size) == there:
                continue
            bpf.delete(group_fd, key)
    for index, wanted in enumerate(sockets):
        key = U32.pack(index)
        if bpf.lookup(group_fd, key, U64.size) is None:
            bpf.update(group_fd, key, U64.pack(wanted.fileno()))
