"""What a node has a limited number of: ids of the three tables, histories, workers' time.

Law: an id that an object had is free when the data plane let go of that object, not before; one
that came and went unseen is free at once.
"""

from __future__ import annotations

from enum import StrEnum

from forwarder.errors import ErrorCode, Refused
from forwarder.ids import LegId, RouteId, SourceId
from forwarder.rooms.admission import Limits
from forwarder.rooms.allocate import IdPool
from forwarder.rtp.codecs import Kind


class IdKind(StrEnum):
    """Whose ids: the three tables of the data plane."""

    LEG = "leg"
    SOURCE = "source"
    ROUTE = "route"


class Pools:
    """Ids, histories and the load of each worker."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.legs = IdPool(limits.legs_max)
        self.sources = IdPool(limits.sources_max)
        self.routes = IdPool(limits.routes_max)
        self._pools = {
            IdKind.LEG: self.legs,
            IdKind.SOURCE: self.sources,
            IdKind.ROUTE: self.routes,
        }
        self.load = [0] * limits.workers
        """Legs and routes of each worker."""
        self.histories = {Kind.AUDIO: limits.history_audio, Kind.VIDEO: limits.history_video}
        """Histories that are free; one comes back when the data plane let go of its source."""
        self.history_of: dict[int, Kind] = {}
        self.taken: set[tuple[IdKind, int]] = set()
        """Ids taken since the last drain: nobody was told of them yet."""

    def _take(self, kind: IdKind) -> int:
        index = self._pools[kind].take()
        self.taken.add((kind, index))
        return index

    def _give_back(self, kind: IdKind, index: int) -> None:
        """What nobody was told of needs no word of the data plane."""
        self._pools[kind].give_back(index)
        if (kind, index) in self.taken:
            self.taken.remove((kind, index))
            self.released(kind, index)

    def released(self, kind: IdKind, index: int) -> bool:
        pool = self._pools[kind]
        if not pool.released(index):
            return False
        if kind is IdKind.SOURCE:
            self._free_history(SourceId(index))
        return True

    def observed(self, legs: set[int], sources: set[int], routes: set[int]) -> None:
        self.legs.observed(legs)
        self.routes.observed(routes)
        self.sources.observed(sources)
        for index in [i for i in self.history_of if not self.sources.holds(i)]:
            self._free_history(SourceId(index))

    def take_history(self, source: SourceId, kind: Kind) -> None:
        self.histories[kind] -= 1
        self.history_of[source] = kind

    def _free_history(self, source: SourceId) -> None:
        kind = self.history_of.pop(source, None)
        if kind is not None:
            self.histories[kind] += 1

    def new_leg(self) -> LegId:
        if self.legs.available == 0:
            raise Refused(
                ErrorCode.LIMIT,
                f"this node has no free leg of {self.limits.legs_max}: try another node, "
                "or raise dataplane.legs_max",
            )
        return LegId(self._take(IdKind.LEG))

    def check_sources(self, kinds: list[Kind]) -> None:
        """Raises Refused unless there is a source and a history for each."""
        if self.sources.available < len(kinds):
            raise Refused(
                ErrorCode.LIMIT,
                f"this node has no free source of {self.limits.sources_max}: try another node, "
                "or raise dataplane.sources_max",
            )
        for kind in Kind:
            if kinds.count(kind) > self.histories[kind]:
                raise Refused(
                    ErrorCode.LIMIT,
                    f"this node has no free {kind} history: try another node, "
                    f"or raise dataplane.history_{kind}",
                )

    def check_routes(self, count: int) -> None:
        if self.routes.available < count:
            raise Refused(
                ErrorCode.LIMIT,
                f"this node has no free route of {self.limits.routes_max}: try another node, "
                "or raise dataplane.routes_max",
            )

    def new_route(self) -> RouteId:
        return RouteId(self._take(IdKind.ROUTE))

    def new_source(self) -> SourceId:
        return SourceId(self._take(IdKind.SOURCE))

    def least_loaded(self) -> int:
        return min(range(len(self.load)), key=self.load.__getitem__)
