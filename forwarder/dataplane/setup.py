"""What a data plane is told once in its life: sizes, limits, interfaces, local addresses.

`Setup` is the Python side of `struct vc_ctl_setup` (c_helpers/include/vcfwd/abi.h).  A living
data plane answers with its own; a supervisor that adopts it compares and may restart it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag


class Crypto(IntEnum):
    """SRTP engines (enum vc_crypto_backend)."""

    AUTO = 0
    IMB = 1
    EVP = 2


class SetupFlags(IntFlag):
    """Bits of vc_ctl_setup.flags."""

    NONE = 0
    UDP_GSO = 1
    HOLD = 2
    """Of a restart only: receive nothing until Begin (VC_SETUP_HOLD)."""
    UDP_TXTIME = 4
    """Give the kernel departure times; only where it sends by fq."""


class Scheduler(IntEnum):
    """Scheduling class of the worker threads (enum vc_scheduler)."""

    OTHER = 0
    FIFO = 1


@dataclass(frozen=True)
class Interface:
    """An interface with AF_XDP sockets; `xsk_base` is the XSKMAP index of its queue 0."""

    name: str
    ifindex: int
    xsk_base: int
    zerocopy: bool = False
    worker_first: int = 0
    """The worker of its queue 0."""
    worker_cnt: int = 0
    """Workers that serve it, one queue each; 0: all from `worker_first` on."""

    def served_by(self, worker: int) -> bool:
        """Whether the worker can send there without a socket."""
        queue = worker - self.worker_first
        return queue >= 0 and (not self.worker_cnt or queue < self.worker_cnt)


@dataclass(frozen=True)
class Local:
    """A configured local address: a concrete one, never a wildcard."""

    ip: str
    port: int


@dataclass(frozen=True)
class Setup:
    """See struct vc_ctl_setup; times in the unit of the name's ending.

    `history_audio` and `history_video` are histories for the node, `*_slots` the slots of one
    (powers of two), `frames` the UMEM frames of a worker (a power of two).
    """

    locals: tuple[Local, ...]
    workers: int = 1
    interfaces: tuple[Interface, ...] = ()
    crypto: Crypto = Crypto.AUTO
    legs_max: int = 1024
    sources_max: int = 1024
    routes_max: int = 8192
    history_audio: int = 128
    history_video: int = 128
    audio_slots: int = 128
    video_slots: int = 512
    frames: int = 8192
    queue_limit_ms: int = 500
    idle_spin_us: int = 50
    busy_poll: bool = False
    rtcp_interval_ms: int = 1000
    orphan_s: int = 60
    flags: SetupFlags = SetupFlags.NONE
    scheduler: Scheduler = Scheduler.OTHER
    priority: int = 0
    """Of Scheduler.FIFO, 1 to 99."""
    cpus: tuple[int, ...] = ()
    """CPU of each worker; -1 or missing: not pinned."""
