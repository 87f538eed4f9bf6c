"""Errors of the steering program (below HostError in forwarder/errors.py)."""

from __future__ import annotations

from forwarder.dataplane.bpf import XdpState
from forwarder.errors import ForeignProgram, HostError


class SteeringError(HostError):
    """Loading, attaching or a map change failed; a retry mends what is half done."""


class ForeignXdpProgram(ForeignProgram):
    """Somebody else's XDP program is on the interface; it was left alone."""

    def __init__(self, ifname: str, state: XdpState) -> None:
        self.ifname, self.prog_id, self.name = ifname, state.prog_id, state.name
        super().__init__(
            f"{ifname}: the XDP program {state.name or '(unnamed)'!r} (id {state.prog_id}, "
            f"{state.mode} mode) is attached and was left alone; find its owner with 'bpftool prog "
            f"show id {state.prog_id}', end it (or 'ip link set dev {ifname} xdp off' if nobody "
            f"owns it), or take {ifname} out of the configuration to use the socket path"
        )
