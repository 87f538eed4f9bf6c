"""Flows and headers of legs, on a table that is a dictionary."""

from __future__ import annotations

from reconcile_kit import Flows
from rooms_kit import tuple5

from forwarder.commands import LegHeader
from forwarder.dataplane.steering_abi import Flow
from forwarder.net.mirror import Unresolved
from forwarder.supervisor.legpaths import LegPaths
from forwarder.table import HeaderTemplate, Leg, Suite, Tuple5


def leg(number: int, *ports: int, worker: int = 0, nominated: int | None = 0) -> Leg:
    return Leg(
        number, worker, 1, Suite.AEAD_AES_128_GCM, b"k" * 16, b"s" * 12, b"k" * 16, b"s" * 12,
        tuples=tuple(map(tuple5, ports)), nominated=nominated if ports else None,
    )  # fmt: skip


def ports(flows: Flows) -> dict[int, int]:
    return {five.remote_port: flow.leg for five, flow in flows.table.items()}


def test_flows_follow_the_addresses_of_a_leg() -> None:
    flows = Flows([])
    paths = LegPaths(flows, None)
    paths.open([leg(1, 501, 502), leg(2, 601, worker=3)])
    assert ports(flows) == {501: 1, 502: 1, 601: 2}
    assert {flow.worker for flow in flows.table.values() if flow.leg == 2} == {3}
    paths.close_stale({1: leg(1, 502)}, [1])
    assert ports(flows) == {502: 1, 601: 2}
    paths.open([leg(1, 502, 501)])
    assert ports(flows) == {501: 1, 502: 1, 601: 2}
    paths.close_stale({}, [1, 2])  # both are gone
    assert ports(flows) == {} and paths.legs_with_flows() == set()


def test_what_is_open_is_not_opened_again() -> None:
    log: list[object] = []
    paths = LegPaths(Flows(log), None)
    paths.open([leg(1, 501)])
    paths.open([leg(1, 501)])
    assert log == [("open", 1)]
    paths.open([leg(1, 501, worker=1)])  # another worker: that is another flow
    assert log == [("open", 1), ("open", 1)]


def test_a_flow_that_went_to_another_leg_is_not_closed_by_the_old_one() -> None:
    flows = Flows([])
    paths = LegPaths(flows, None)
    paths.open([leg(1, 501)])
    paths.open([leg(2, 501)])
    paths.close_stale({1: leg(1)}, [1])
    assert ports(flows) == {501: 2}


def test_flows_of_an_earlier_supervisor_are_adopted() -> None:
    flows = Flows([])
    flows.table[tuple5(501)] = Flow(1, 0)
    flows.table[tuple5(502)] = Flow(8, 0)
    paths = LegPaths(flows, None)
    paths.adopt()
    assert paths.legs_with_flows() == {1, 8}
    paths.close_stale({1: leg(1, 501)}, [1, 8])
    assert flows.table == {Tuple5("192.0.2.7", 501, "127.0.0.1", 4433): Flow(1, 0)}


def test_without_xdp_there_is_nothing_to_do() -> None:
    paths = LegPaths(None, None)
    paths.adopt()
    paths.open([leg(1, 501)])
    assert paths.header(leg(1, 501)) is None
    paths.close_stale({}, [1])
    assert paths.legs_with_flows() == set()


def test_a_header_leads_to_the_nominated_address() -> None:
    asked: list[tuple[str, str, int, int]] = []

    def header_for(*at: object) -> HeaderTemplate:
        asked.append(at)  # type: ignore[arg-type]
        return HeaderTemplate(3, 0, 14, b"header", 1)

    paths = LegPaths(None, header_for)
    found = paths.header(leg(1, 501, 502, nominated=1))
    assert found == LegHeader(1, HeaderTemplate(3, 0, 14, b"header", 1))
    assert asked == [("127.0.0.1", "192.0.2.7", 4433, 502)]
    assert paths.header(leg(1, 501, 502, nominated=1)) is None, "sent already"
    paths.forget_headers()  # another data plane
    assert paths.header(leg(1, 501, 502, nominated=1)) is not None
    paths.forget_header(1)  # another leg of this id
    assert paths.header(leg(1, 501, 502, nominated=1)) is not None


def test_no_way_yet_is_the_socket_and_a_reason() -> None:
    answers: list[HeaderTemplate | Unresolved] = [
        Unresolved("v0 is down"),
        Unresolved("v0 is down"),
        HeaderTemplate(3, 0, 14, b"header", 1),
        Unresolved("v0 is down"),
    ]
    paths = LegPaths(None, lambda *at: answers.pop(0))
    assert paths.header(leg(1, 501)) is None, "a fresh leg sends through its socket anyhow"
    assert paths.unresolved == {1: "v0 is down"}
    assert paths.header(leg(1, 501)) is None
    found = paths.header(leg(1, 501))
    assert found is not None and found.template.header == b"header" and paths.unresolved == {}
    found = paths.header(leg(1, 501))
    assert found is not None and found.template.interface is None
    assert paths.unresolved == {1: "v0 is down"}
