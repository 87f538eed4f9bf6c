"""Who gets a datagram in a SO_REUSEPORT group: the classic-BPF selector, for hosts without root.

A group is one slow socket (index 0) and one media socket for each worker (index 1 + worker), in
the order in which they were bound. Media (first byte 128-191, RFC 7983) goes to a media socket,
everything else to the slow one. Classic BPF needs no privilege and knows no maps, so the worker
follows the sender's port, and the guard and the flow table are left to the worker. With root,
`Steering.attach_selector` attaches ebpf/select.bpf.c instead, which looks the flow up.

The kernel runs the program on the UDP payload; one too short to be read answers 0, the slow
socket. A selector belongs to the group: one call for one socket of it, before traffic.
"""

from __future__ import annotations

import array
import socket
import struct

from forwarder.errors import HostError

WORKERS_MAX = 16

SO_ATTACH_REUSEPORT_CBPF = 51

MEDIA_FIRST, MEDIA_LAST = 128, 191

# Opcodes (linux/filter.h): loads are absolute in the payload, or relative to the network header.
_LD_BYTE, _LD_HALF = 0x30, 0x28
_JGE, _JGT = 0x35, 0x25
_ADD, _MOD, _RET_A, _RET_K = 0x04, 0x94, 0x16, 0x06
_NETWORK_HEADER = 0xFFF00000  # SKF_NET_OFF
_SOURCE_PORT = {socket.AF_INET: 20, socket.AF_INET6: 40}


def classic_program(family: int, workers: int) -> bytes:
    """The program as an array of `struct sock_filter`. ValueError: 1 to 16 workers."""
    if not 1 <= workers <= WORKERS_MAX:
        raise ValueError(f"{workers} workers: a group has 1 to {WORKERS_MAX} media sockets")
    steps = (
        (_LD_BYTE, 0, 0, 0),
        (_JGE, 0, 5, MEDIA_FIRST),  # below: to the last step
        (_JGT, 4, 0, MEDIA_LAST),  # above: to the last step
        (_LD_HALF, 0, 0, _NETWORK_HEADER + _SOURCE_PORT[socket.AddressFamily(family)]),
        (_MOD, 0, 0, workers),
        (_ADD, 0, 0, 1),
        (_RET_A, 0, 0, 0),
        (_RET_K, 0, 0, 0),
    )
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def attach_classic(sockets: list[socket.socket]) -> None:
    """Attach to the group of `sockets` (slow first, then media by worker, in binding order).

    Needs no privilege. HostError when the kernel refuses, ValueError on a wrong count.
    """
    program = array.array("B", classic_program(sockets[0].family, len(sockets) - 1))
    address, size = program.buffer_info()
    fprog = struct.pack("@HP", size // 8, address)
    try:
        sockets[0].setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, fprog)
    except OSError as error:
        raise HostError(
            f"attach the classic selector to the group at {sockets[0].getsockname()}: {error}; "
            "bind every socket of the group with SO_REUSEPORT first"
        ) from error
