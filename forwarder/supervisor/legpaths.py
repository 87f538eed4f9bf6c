"""How each leg is reached: its flows in the steering program and its prebuilt header.

Law: a flow is opened after the worker knows the leg and closed before it forgets it, so that no
packet of a known flow meets a worker that does not know it.  A header is sent again only when its
bytes or its interface changed.  Without XDP both are empty: legs send through media sockets; so
does a leg whose worker has no port on its interface, until it has moved to one that has.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from forwarder.commands import LegHeader
from forwarder.dataplane.setup import Interface
from forwarder.dataplane.steering_abi import Flow
from forwarder.errors import HostError
from forwarder.net.mirror import Unresolved
from forwarder.table import HeaderTemplate, Leg, Tuple5

log = logging.getLogger(__name__)


class FlowTable(Protocol):
    """The steering program's table (dataplane.steering.Steering)."""

    def set_flow(self, flow_key: Tuple5, flow: Flow) -> None: ...

    def del_flow(self, flow_key: Tuple5) -> bool: ...

    def flows(self) -> dict[Tuple5, Flow]: ...


HeaderFor = Callable[[str, str, int, int], HeaderTemplate | Unresolved]


class LegPaths:
    """Flows and headers of all legs; `flows` or `header_for` None: the node has no such part."""

    def __init__(
        self,
        flows: FlowTable | None,
        header_for: HeaderFor | None,
        interfaces: Sequence[Interface] = (),
        workers: int = 1,
    ) -> None:
        """`interfaces`: those of the set-up, in its order."""
        self._flows = flows
        self._header_for = header_for
        serving = [[w for w in range(workers) if item.served_by(w)] for item in interfaces]
        self._serving = [frozenset(some) for some in serving]
        self.split = any(len(some) < workers for some in serving)
        """Not every worker can send on every interface."""
        self._open: dict[Tuple5, Flow] = {}
        self._of_leg: dict[int, frozenset[Tuple5]] = {}
        self._sent: dict[int, tuple[int | None, bytes]] = {}
        self.unresolved: dict[int, str] = {}

    # ---- flows --------------------------------------------------------------------------------

    def adopt(self) -> None:
        """Learns the flows that an earlier supervisor opened."""
        if self._flows is not None:
            self._open = self._flows.flows()
            for item, flow in self._open.items():
                self._of_leg[flow.leg] = self._of_leg.get(flow.leg, frozenset()) | {item}

    def close_stale(self, legs: Mapping[int, Leg], concerned: Iterable[int]) -> None:
        """Closes the flows of the concerned legs that they no longer have (None: leg is gone)."""
        for leg_id in concerned:
            leg = legs.get(leg_id)
            wanted = frozenset(leg.tuples) if leg else frozenset()
            for item in self._of_leg.get(leg_id, frozenset()) - wanted:
                flow = self._open.get(item)
                if flow is not None and flow.leg == leg_id:
                    del self._open[item]
                    if self._flows is not None:
                        self._flows.del_flow(item)
            if leg is None:
                self._of_leg.pop(leg_id, None)
                self.forget_header(leg_id)
            else:
                self._of_leg[leg_id] = self._of_leg.get(leg_id, frozenset()) & wanted

    def open(self, legs: Iterable[Leg]) -> None:
        """Opens the flows of legs that are in force now."""
        for leg in legs:
            wanted = {t: Flow(leg.id, leg.worker) for t in leg.tuples}
            for item, flow in wanted.items():
                if self._open.get(item) == flow:
                    continue
                self._open[item] = flow
                if self._flows is not None:
                    try:
                        self._flows.set_flow(item, flow)
                    except HostError as error:
                        log.error("a client's flow cannot be opened: %s", error)
                        del self._open[item]
            self._of_leg[leg.id] = frozenset(wanted)

    def legs_with_flows(self) -> set[int]:
        return set(self._of_leg)

    # ---- headers ------------------------------------------------------------------------------

    def _find(self, leg: Leg) -> HeaderTemplate | Unresolved | None:
        if self._header_for is None or leg.nominated is None:
            return None
        at = leg.tuples[leg.nominated]
        return self._header_for(at.local_ip, at.remote_ip, at.local_port, at.remote_port)

    def home(self, leg: Leg) -> frozenset[int] | None:
        """The workers with a port on the leg's interface; None: not known, or any will do."""
        found = self._find(leg) if self.split else None
        if not isinstance(found, HeaderTemplate) or found.interface is None:
            return None
        return self._serving[found.interface]

    def header(self, leg: Leg) -> LegHeader | None:
        """The command that gives the leg its header, if it needs one now."""
        found = self._find(leg)
        if found is None:
            return None
        if isinstance(found, Unresolved):
            # Until it resolves the leg sends through its media socket; the kernel asks as well.
            self.unresolved[leg.id] = found.why
            found = HeaderTemplate(0, None, 0, b"", 0)
        else:
            self.unresolved.pop(leg.id, None)
            port = found.interface
            if self.split and port is not None and leg.worker not in self._serving[port]:
                found = HeaderTemplate(0, None, 0, b"", 0)
        key = (found.interface, found.header)
        if self._sent.get(leg.id, (None, b"")) == key:
            return None
        self._sent[leg.id] = key
        return LegHeader(leg.id, found)

    def forget_header(self, leg_id: int) -> None:
        self._sent.pop(leg_id, None)
        self.unresolved.pop(leg_id, None)

    def forget_headers(self) -> None:
        """The data plane started anew: it has none."""
        self._sent.clear()
