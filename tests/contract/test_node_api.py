"""The doors of a real node: HTTP/3, HTTPS and WebTransport; tokens at each; metrics; status."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import signaling_world
from aioquic.asyncio import connect
from aioquic.h3.connection import H3_ALPN
from aioquic.quic.configuration import QuicConfiguration
from node_kit import SECRET, Site, call_on, node_of, until
from prometheus_client.parser import text_string_to_metric_families

from forwarder.client import Client
from forwarder.client.quic import SessionRefused
from forwarder.clock import ManualClock
from forwarder.dataplane.tally import imbalance
from forwarder.ids import RoomId
from forwarder.rooms.roles import Role
from forwarder.signaling.tokens import Tokens
from forwarder.supervisor.node import Node

PATIENCE_S = 30.0
OTHER_SECRET = "another secret, which this node does not know of"


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest_asyncio.fixture
async def node(site: Site) -> AsyncIterator[Node]:
    async with node_of(site) as made:
        yield made


Answer = tuple[int, bytes]


async def by_tls(site: Site, method: str, path: str, token: str = "") -> Answer:
    def ask() -> Answer:
        context = ssl.create_default_context(cafile=str(cert_file(site)))
        connection = http.client.HTTPSConnection(
            "127.0.0.1", site.port, context=context, timeout=PATIENCE_S
        )
        headers = {"authorization": f"Bearer {token}"} if token else {}
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    return await asyncio.to_thread(ask)


async def by_http3(site: Site, method: str, path: str, token: str = "") -> Answer:
    configuration = QuicConfiguration(
        alpn_protocols=H3_ALPN,
        is_client=True,
        max_datagram_frame_size=1200,
        cafile=str(cert_file(site)),
    )
    async with connect(
        "127.0.0.1", site.port, configuration=configuration, create_protocol=signaling_world.Client
    ) as client:
        assert isinstance(client, signaling_world.Client)
        return await client.request(method, path, token=token or None)


def cert_file(site: Site) -> Path:
    (found,) = [p for p in (site.base / "state").glob("*.pem") if "PRIVATE" not in p.read_text()]
    return found


DOORS = {"tls": by_tls, "http3": by_http3}
Door = Callable[..., Any]


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> Door:
    return DOORS[request.param]


async def test_what_needs_no_token(site: Site, node: Node, door: Door) -> None:
    status, body = await door(site, "GET", "/v1/health")
    assert status == 200 and json.loads(body)["status"] == "ok"
    status, body = await door(site, "GET", "/v1/openapi.json")
    document = json.loads(body)
    assert status == 200 and document["openapi"].startswith("3.")
    assert {"/v1/rooms", "/v1/rooms/{room_id}", "/v1/rooms/{room_id}/tokens", "/v1/status"} <= set(
        document["paths"]
    )


def forged(site: Site, wall: float | None = None, secret: str = SECRET, kid: str = "k1") -> Tokens:
    clock = ManualClock(wall=wall) if wall is not None else None
    return site.tokens(secret, kid, clock)


BAD: dict[str, tuple[Callable[[Site], Tokens], str]] = {
    "expired": (lambda site: forged(site, time.time() - 7200), "expired"),
    "not yet": (lambda site: forged(site, time.time() + 7200), "not"),
    "signed by another": (lambda site: forged(site, secret=OTHER_SECRET), "sign"),
    "of an unknown key": (lambda site: forged(site, kid="k9"), "does not know"),
}


async def test_bad_tokens_at_the_api(site: Site, node: Node, door: Door) -> None:
    for fault, (tokens, reason) in BAD.items():
        token, _ = tokens(site).create_admin(subject="eve")
        status, body = await door(site, "GET", "/v1/rooms", token)
        answer = json.loads(body)
        assert (status, answer["code"]) == (401, "unauthorized"), fault
        assert reason in answer["message"], (fault, answer["message"])
    good, _ = site.tokens().create_admin(subject="ada")
    status, body = await door(site, "GET", "/v1/rooms", good)
    assert (status, json.loads(body)) == (200, [])


async def test_no_token_and_a_token_for_another_purpose(site: Site, node: Node, door: Door) -> None:
    assert (await door(site, "GET", "/v1/status"))[0] == 401
    assert (await door(site, "GET", "/v1/status", site.token()))[0] == 401


async def test_bad_tokens_at_the_session(site: Site, node: Node) -> None:
    await site.room()
    for tokens, reason in BAD.values():
        token, _ = tokens(site).create_join(RoomId("r"), role=Role.ACTIVE, name="eve")
        client = Client(site.url(), token, cert_hash=site.cert_hash)
        with pytest.raises(SessionRefused, match=reason) as caught:
            async with client:
                pass
        assert caught.value.status == 401
    assert list(node.rooms.participants()) == []
    async with site.client("ada") as welcome:
        assert welcome.welcome is not None


async def test_metrics_of_a_call(site: Site, node: Node) -> None:
    async with call_on(site) as call:
        await call.end()
        token, _ = site.tokens().create_admin(subject="prometheus")
        status, body = await by_tls(site, "GET", "/metrics", token)
    assert status == 200
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}

    def values(name: str, label: str) -> dict[str, float]:
        return {
            sample.labels[label]: sample.value
            for sample in families[name].samples
            if not sample.name.endswith("_created")
        }

    found = await node.status()
    assert values("vcfwd_worker_routed", "worker") == {"0": call.sent}
    assert values("vcfwd_worker_transmitted", "worker")["0"] >= call.sent
    for name in found["counters"]:
        assert f"vcfwd_worker_{name}" in families, "a counter of the workers is missing"
    reasons = {sample.labels["reason"] for sample in families["vcfwd_worker_drops"].samples}
    assert reasons == set(found["drops"])
    reasons = {sample.labels["reason"] for sample in families["vcfwd_worker_copy_drops"].samples}
    assert reasons == set(found["copy_drops"])
    verdicts = values("vcfwd_selector_packets", "verdict")
    assert set(verdicts) == set(found["steering"]["select_verdicts"])
    if found["selector"] == "ebpf":
        assert verdicts["select_media"] >= call.sent
    assert values("vcfwd_memory_bytes", "pool")["legs"] > 0
    assert families["vcfwd_participants"].samples[0].value == 2


async def test_the_status_of_a_call_balances(site: Site, node: Node) -> None:
    before = await node.status()
    assert all(pool == {"count": 0, "bytes": 0} for pool in before["memory"]["pools"].values())
    async with call_on(site) as call:
        await call.end()
        status = await node.status()
        assert status["balanced"] and imbalance(node.datapath.plane.counters()) is None
        assert status["counters"]["routed"] == call.sent
        assert sum(status["drops"].values()) == sum(status["copy_drops"].values()) == 0
        assert status["path"] == "udp" and "network.interfaces" in status["why"]
        assert status["rooms"] == {
            "count": 1, "participants": 2, "active": 1, "passive": 1, "away": 0, "tracks": 1,
            "subscriptions": 1,
        }  # fmt: skip
        assert status["legs"] == {"count": 2, "live": 2, "unresolved": {}}
        pools = status["memory"]["pools"]
        assert {name: pool["count"] for name, pool in pools.items()} == {
            "legs": 2, "sources": 1, "histories": 1, "routes": 1,
        }  # fmt: skip
        # The budgets of DESIGN.md section 9.
        assert 0 < pools["legs"]["bytes"] <= 2 * 6 * 1024
        assert 0 < pools["routes"]["bytes"] <= 2 * 1024
        assert 0 < pools["sources"]["bytes"] + pools["histories"]["bytes"] <= 1 << 20
        assert status["memory"]["supervisor_rss_mb"] > 0 < status["memory"]["dataplane_rss_mb"]
        again = await node.status()
        while again["rates"]["rx_packets_per_s"] == 0.0:  # nothing for the first 0.2 s
            await call.send_one()
            await asyncio.sleep(0.02)
            again = await node.status()
        assert again["rates"]["rx_bits_per_s"] > again["rates"]["rx_packets_per_s"] > 0
    await until(lambda: not list(node.rooms.participants()), "all have left")

    async with asyncio.timeout(PATIENCE_S):
        while any(pool["bytes"] for pool in (await node.status())["memory"]["pools"].values()):
            await asyncio.sleep(0.02)
    after = await node.status()
    assert all(pool == {"count": 0, "bytes": 0} for pool in after["memory"]["pools"].values())
    assert (
        after["balanced"] and after["counters"]["frames_free"] == after["counters"]["frames_total"]
    )
