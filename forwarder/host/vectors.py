"""Interrupts of a NIC by what they are for: (role, queue), for numbers change with every driver.

/proc/interrupts names each (`i40e-eth0-TxRx-3`, `mlx5_comp3@pci:0000:81:00.0`,
`virtio2-input.0`); /sys/class/net/X/device/msi_irqs says which ones are the NIC's.  Numbers stay
as long as the driver does, so they are looked up each time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from forwarder.host.root import Host

VECTORS_MAX = 4096
"""Interrupts of a NIC that are looked at."""
_NAME = re.compile(r"([A-Za-z]+)[-._]?(\d+)?(?:@\S*)?$")
_QUEUE_ROLES = ("txrx", "rx", "tx", "input", "output", "comp", "blk", "fp")


@dataclass(frozen=True)
class Vector:
    """An interrupt of a NIC; `queue` is -1 where it serves none (configuration, mailbox)."""

    number: int
    role: str
    queue: int
    name: str

    @property
    def of_queue(self) -> bool:
        return self.queue >= 0 and self.role.lower() in _QUEUE_ROLES


def read(host: Host, nic: str) -> tuple[Vector, ...]:
    """The vectors of an interface, by role and queue."""
    device = f"/sys/class/net/{nic}/device"
    numbers = host.names(f"{device}/msi_irqs") or host.names(f"{device}/../msi_irqs")
    mine = {int(entry) for entry in numbers[:VECTORS_MAX] if entry.isdecimal()}
    if not mine:
        return ()
    found: dict[tuple[str, int], Vector] = {}
    for line in (host.read("/proc/interrupts") or "").splitlines():
        head, colon, rest = line.strip().partition(":")
        if not colon or not head.isdecimal() or int(head) not in mine:
            continue
        words = rest.split()
        name = words[-1] if words else ""
        if name == nic:  # igb calls the one that serves no queue like the interface itself
            found.setdefault(("other", -1), Vector(int(head), "other", -1, name))
            continue
        match = _NAME.search(name)
        if match:
            queue = int(match[2]) if match[2] else -1
            vector = Vector(int(head), match[1], queue, name)
            found.setdefault((vector.role, queue), vector)
    return tuple(found[key] for key in sorted(found))


def number(host: Host, nic: str, role: str, queue: str) -> int | None:
    """The number that the interrupt has now; None: the NIC has no such one."""
    for vector in read(host, nic):
        if vector.role == role and str(vector.queue) == queue:
            return vector.number
    return None
