"""Setup <-> struct vc_ctl_setup.  Pure."""

from __future__ import annotations

from typing import Any

from forwarder.dataplane.abi import ffi
from forwarder.dataplane.addresses import pack_ip, unpack_ip
from forwarder.dataplane.setup import Crypto, Interface, Local, Scheduler, Setup, SetupFlags
from forwarder.errors import DataPlaneError

_PLAIN = (
    "legs_max", "sources_max", "routes_max", "history_audio", "history_video", "audio_slots",
    "video_slots", "frames", "queue_limit_ms", "idle_spin_us", "rtcp_interval_ms", "orphan_s",
    "priority",
)  # fmt: skip


def encode(setup: Setup) -> Any:
    """The record of a set-up; raises DataPlaneError where it does not fit."""
    record = ffi.new("struct vc_ctl_setup *")
    for what, items, limit in (
        ("workers", range(setup.workers), len(record.cpus)),
        ("interfaces", setup.interfaces, len(record.interfaces)),
        ("local addresses", setup.locals, len(record.locals)),
    ):
        if len(items) > limit:
            raise DataPlaneError(f"{len(items)} {what} are configured; at most {limit} fit")
    for name in _PLAIN:
        setattr(record, name, getattr(setup, name))
    record.worker_cnt, record.crypto_backend = setup.workers, int(setup.crypto)
    record.interface_cnt, record.local_cnt = len(setup.interfaces), len(setup.locals)
    record.busy_poll, record.flags = int(setup.busy_poll), int(setup.flags)
    record.scheduler = int(setup.scheduler)
    for i in range(len(record.cpus)):
        record.cpus[i] = setup.cpus[i] if i < len(setup.cpus) else -1
    for i, interface in enumerate(setup.interfaces):
        to = record.interfaces[i]
        to.name = interface.name.encode()[:15]
        to.ifindex, to.xsk_base = interface.ifindex, interface.xsk_base
        to.zerocopy = int(interface.zerocopy)
        to.worker_first, to.worker_cnt = interface.worker_first, interface.worker_cnt
    for i, local in enumerate(setup.locals):
        ffi.memmove(record.locals[i].local_ip, pack_ip(local.ip), 16)
        record.locals[i].local_port_be = int.from_bytes(local.port.to_bytes(2, "big"), "little")
    return record


def decode(record: Any) -> Setup:
    """The set-up of a record."""
    cpus = [record.cpus[i] for i in range(record.worker_cnt)]
    return Setup(
        locals=tuple(
            Local(
                unpack_ip(bytes(ffi.buffer(record.locals[i].local_ip))),
                int.from_bytes(record.locals[i].local_port_be.to_bytes(2, "little"), "big"),
            )
            for i in range(record.local_cnt)
        ),
        workers=record.worker_cnt,
        interfaces=tuple(
            Interface(
                ffi.string(x.name).decode(),
                x.ifindex,
                x.xsk_base,
                bool(x.zerocopy),
                x.worker_first,
                x.worker_cnt,
            )
            for x in (record.interfaces[i] for i in range(record.interface_cnt))
        ),
        crypto=Crypto(record.crypto_backend),
        busy_poll=bool(record.busy_poll),
        flags=SetupFlags(record.flags) & ~SetupFlags.HOLD,
        scheduler=Scheduler(record.scheduler),
        cpus=tuple(cpus) if any(cpu >= 0 for cpu in cpus) else (),
        **{name: getattr(record, name) for name in _PLAIN},
    )
