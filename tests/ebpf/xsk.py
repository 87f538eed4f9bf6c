"""A receive-only AF_XDP socket in Python: enough to see that a redirected frame arrives whole."""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import socket
import struct

AF_XDP, SOL_XDP = 44, 283
XDP_MMAP_OFFSETS, XDP_RX_RING, XDP_UMEM_REG = 1, 2, 4
XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING = 5, 6
FILL_RING_OFFSET = 0x100000000
XDP_COPY = 2

FRAMES, FRAME_BYTES = 64, 2048


class Xsk:
    """Bound in copy mode to (ifindex, queue) of the current network namespace."""

    def __init__(self, ifindex: int, queue: int = 0) -> None:
        self.sock = socket.socket(AF_XDP, socket.SOCK_RAW, 0)
        self.area = mmap.mmap(-1, FRAMES * FRAME_BYTES)
        view = ctypes.c_char.from_buffer(self.area)
        address = ctypes.addressof(view)
        del view
        region = struct.pack("=QQIIII", address, len(self.area), FRAME_BYTES, 0, 0, 0)
        self.sock.setsockopt(SOL_XDP, XDP_UMEM_REG, region)
        for ring in (XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_RX_RING):
            self.sock.setsockopt(SOL_XDP, ring, FRAMES)
        offsets = struct.unpack("=16Q", self.sock.getsockopt(SOL_XDP, XDP_MMAP_OFFSETS, 128))
        self.rx_producer, self.rx_consumer, self.rx_desc = offsets[0:3]
        fill_producer, _, fill_desc = offsets[8:11]
        fd = self.sock.fileno()
        self.rx = mmap.mmap(fd, self.rx_desc + FRAMES * 16)
        self.fill = mmap.mmap(fd, fill_desc + FRAMES * 8, offset=FILL_RING_OFFSET)
        for i in range(FRAMES):
            struct.pack_into("=Q", self.fill, fill_desc + i * 8, i * FRAME_BYTES)
        struct.pack_into("=I", self.fill, fill_producer, FRAMES)
        where = struct.pack("=HHIII", AF_XDP, XDP_COPY, ifindex, queue, 0)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.bind(fd, where, len(where)):
            code = ctypes.get_errno()
            raise OSError(code, f"bind AF_XDP to ifindex {ifindex}: {os.strerror(code)}")

    def receive(self, timeout_s: float) -> bytes | None:
        """The next frame (at most FRAMES in all), or None."""
        (consumer,) = struct.unpack_from("=I", self.rx, self.rx_consumer)
        (producer,) = struct.unpack_from("=I", self.rx, self.rx_producer)
        if producer == consumer:
            poll = select.poll()
            poll.register(self.sock, select.POLLIN)
            if not poll.poll(timeout_s * 1000):
                return None
        at = self.rx_desc + (consumer % FRAMES) * 16
        address, size = struct.unpack_from("=QI", self.rx, at)
        data = self.area[address : address + size]
        struct.pack_into("=I", self.rx, self.rx_consumer, consumer + 1)
        return data

    def close(self) -> None:
        """The rings hold the socket too: all of it goes."""
        self.rx.close()
        self.fill.close()
        self.sock.close()
        self.area.close()
