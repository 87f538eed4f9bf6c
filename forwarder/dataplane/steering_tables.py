"""The tables of the steering program, by map descriptor: flows, admitted, listen, port_base.

Mechanism only: `Steering` (steering.py) says which maps these are. Every table has a limit, and
SteeringError names it when it is full.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from forwarder.dataplane import bpf, steering_abi
from forwarder.dataplane.bpf import BpfError
from forwarder.dataplane.steering_abi import Flow
from forwarder.dataplane.steering_errors import SteeringError
from forwarder.table import Tuple5


class SteeringTables:
    """Typed access to the maps; `_maps` (name -> descriptor) is filled by whoever loads."""

    def __init__(self, pin_dir: Path) -> None:
        self.pin_dir = pin_dir
        self._maps: dict[str, int] = {}

    def map_fds(self) -> dict[str, int]:
        """Every map by name, to be handed to the data plane; they stay ours."""
        return dict(self._maps)

    @property
    def xsks_fd(self) -> int:
        """The XSKMAP."""
        return self._maps["xsks"]

    def _set(self, name: str, key: bytes, value: bytes, what: str, limit: int) -> None:
        try:
            bpf.update(self._maps[name], key, value)
        except BpfError as error:
            hint = f"the table holds {limit}" if error.errno == errno.E2BIG else str(error)
            raise SteeringError(f"add {what} to the steering table {name!r}: {hint}") from error

    def set_flow(self, flow_key: Tuple5, flow: Flow) -> None:
        """Add or change a flow; its buckets go on as they are."""
        key = steering_abi.pack_flow_key(flow_key)
        old = bpf.lookup(self._maps["flows"], key, steering_abi.FLOW_BYTES)
        buckets = (old or bytes(steering_abi.FLOW_BYTES))[steering_abi.FLOW_HEAD.size :]
        self._set("flows", key, flow.pack_head() + buckets, str(flow_key), steering_abi.FLOWS_MAX)

    def del_flow(self, flow_key: Tuple5) -> bool:
        """False when it was not there."""
        return bpf.delete(self._maps["flows"], steering_abi.pack_flow_key(flow_key))

    def flows(self) -> dict[Tuple5, Flow]:
        """The whole table: the observed state that a reconciler compares."""
        found: dict[Tuple5, Flow] = {}
        fd = self._maps["flows"]
        for key in bpf.keys(fd, steering_abi.FLOW_KEY.size, steering_abi.FLOWS_MAX):
            raw = bpf.lookup(fd, key, steering_abi.FLOW_BYTES)
            if raw is not None:
                found[steering_abi.unpack_flow_key(key)] = Flow.unpack(raw)
        return found

    def admit(self, flow_key: Tuple5) -> None:
        """Vouch for a 5-tuple: it is charged to itself from now on. The least recent give way."""
        key = steering_abi.pack_flow_key(flow_key)
        if bpf.lookup(self._maps["admitted"], key, steering_abi.GUARD_BYTES) is None:
            bpf.update(self._maps["admitted"], key, bytes(steering_abi.GUARD_BYTES))

    def dismiss(self, flow_key: Tuple5) -> bool:
        """Take `admit` back."""
        return bpf.delete(self._maps["admitted"], steering_abi.pack_flow_key(flow_key))

    def add_listen(self, ip: str, port: int) -> None:
        """From now on UDP to this local address and port is ours."""
        key, value = steering_abi.pack_listen(ip, port), steering_abi.U32.pack(1)
        self._set("listen", key, value, f"{ip} port {port}", steering_abi.LISTEN_MAX)

    def del_listen(self, ip: str, port: int) -> bool:
        """False when it was not there."""
        return bpf.delete(self._maps["listen"], steering_abi.pack_listen(ip, port))

    def set_port_base(self, ifindex: int, base: int) -> None:
        """XSKMAP index of the interface's queue 0; leave room for all its receive queues."""
        if not 0 <= base < steering_abi.XSKS_MAX:
            raise SteeringError(f"port base {base}: the XSKMAP holds {steering_abi.XSKS_MAX}")
        key, value = steering_abi.U32.pack(ifindex), steering_abi.U32.pack(base)
        self._set("port_base", key, value, f"ifindex {ifindex}", steering_abi.PORTS_MAX)

    def del_port_base(self, ifindex: int) -> bool:
        """Packets of that interface fall to the media sockets. False when it was not there."""
        return bpf.delete(self._maps["port_base"], steering_abi.U32.pack(ifindex))

    def verdicts(self) -> dict[str, int]:
        """Packets by verdict label, of the steering program."""
        return _counters(self._maps["verdicts"])

    def select_verdicts(self) -> dict[str, int]:
        """The same of the selectors (socket path); all zero before the first one."""
        fd = bpf.get(self.pin_dir / "map_select_verdicts")
        if fd is None:
            return dict.fromkeys(bpf.verdict_labels(), 0)
        try:
            return _counters(fd)
        finally:
            os.close(fd)


def _counters(fd: int) -> dict[str, int]:
    return {label: bpf.percpu_sum(fd, i) for i, label in enumerate(bpf.verdict_labels())}
