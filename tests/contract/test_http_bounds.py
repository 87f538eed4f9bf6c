"""What a request may cost, over HTTP/3 and over TCP; uvloop; certificates changed while serving."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop
from signaling_world import PATIENCE_S, Client, world
from test_api import Node, node
from test_server import until

from forwarder.clock import SystemClock
from forwarder.signaling import asgi_h3, connection
from forwarder.signaling.bounds import PatientProtocol, bounded
from forwarder.signaling.certs import development


class App:
    """An application whose path says how it behaves."""

    def __init__(self) -> None:
        self.running = 0
        self.cancelled = 0
        self.release = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.running += 1
        try:
            await getattr(self, scope["path"].strip("/"))(scope, receive, send)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def waits(self, scope: Any, receive: Any, send: Any) -> None:
        await self.release.wait()
        await self.answers(scope, receive, send)

    async def answers(self, scope: Any, receive: Any, send: Any) -> None:
        body = json.dumps([scope["http_version"], scope["query_string"].decode()]).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Upper", b"1")]})
        await send({"type": "http.response.body", "body": body[:3], "more_body": True})
        await send({"type": "http.response.body", "body": body[3:]})

    async def raises(self, scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("a /secret/path")

    async def half(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("no more")

    async def reads(self, scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            more = (await receive())["more_body"]
        await self.answers(scope, receive, send)


async def test_http3_responses(tmp_path: Path) -> None:
    app = App()
    async with world(tmp_path, app=app) as w, w.client() as client:
        status, body = await client.request("GET", "/answers?a=b")
        assert (status, json.loads(body)) == (200, ["3", "a=b"])
        status, body = await client.request("GET", "/raises")
        assert (status, json.loads(body)["code"]) == (500, "internal")
        assert b"secret" not in body
        stream = start(client, "/half")
        status, _ = await client.request("GET", "/answers")
        assert (status, app.running) == (200, 0)
        assert not client.responses[stream][2].is_set()  # reset, not ended as if it were whole


def start(client: Client, path: str) -> int:
    """A request whose response nobody waits for yet."""
    stream = client._quic.get_next_available_stream_id()
    client.responses[stream] = (0, bytearray(), asyncio.Event())
    client.h3.send_headers(stream, client._request_headers("GET", path), end_stream=True)
    client.transmit()
    return stream


async def test_http3_requests_at_work_are_bounded(tmp_path: Path) -> None:
    app = App()
    async with world(tmp_path, app=app) as w, w.client() as client:
        streams = [start(client, "/waits") for _ in range(asgi_h3.REQUESTS_MAX)]
        await until(lambda: app.running == asgi_h3.REQUESTS_MAX)
        status, body = await client.request("GET", "/answers")
        assert (status, json.loads(body)["code"]) == (429, "limit")
        app.release.set()
        for stream in streams:
            assert (await client.response(stream))[0] == 200
        assert (await client.request("GET", "/answers"))[0] == 200


async def test_http3_requests_end_with_their_stream_and_connection(tmp_path: Path) -> None:
    app = App()
    async with world(tmp_path, app=app) as w:
        async with w.client() as client:
            stream = start(client, "/waits")
            start(client, "/waits")
            await until(lambda: app.running == 2)
            client._quic.stop_stream(stream, 0x10C)
            client.transmit()
            await until(lambda: app.cancelled == 1)
            assert app.running == 1
        await until(lambda: app.cancelled == 2)


async def test_http3_request_that_is_taken_back_at_once(tmp_path: Path) -> None:
    """Request and STOP_SENDING in one packet: the task is cancelled before its first step."""
    async with world(tmp_path, app=App()) as w, w.client() as client:
        for _ in range(asgi_h3.REQUESTS_MAX + 1):
            stream = client._quic.get_next_available_stream_id()
            client.responses[stream] = (0, bytearray(), asyncio.Event())
            headers = client._request_headers("GET", "/waits")
            client.h3.send_headers(stream, headers, end_stream=True)
            client._quic.stop_stream(stream, 0x10C)
            client.transmit()
            await client.ping()
        assert (await client.request("GET", "/answers"))[0] == 200


async def test_http3_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi_h3, "REQUEST_TIMEOUT_S", 0.01)
    async with world(tmp_path, app=App()) as w, w.client() as client:
        status, body = await client.request("GET", "/waits")
        assert (status, json.loads(body)["code"]) == (503, "unavailable")


async def test_time_and_body_limits_of_the_application() -> None:
    app = App()
    transport = httpx.ASGITransport(app=bounded(app, body_max=10, timeout_s=0.01))
    async with httpx.AsyncClient(base_url="http://node", transport=transport) as http:
        late = await http.get("/waits")
        assert (late.status_code, late.json()["code"]) == (503, "unavailable")
        assert app.cancelled == 1
        assert (await http.post("/reads", content=b"x" * 10)).status_code == 200
        long = await http.post("/reads", content=b"x" * 11)
        assert (long.status_code, long.json()["code"]) == (413, "too_large")


async def test_silent_tcp_connections_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PatientProtocol, "patience_s", 0.05)
    async with node(tmp_path) as n:
        path = str(tmp_path / "api.sock")
        for head in (b"", b"GET /v1/health HTTP/1.1\r\nHost:"):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(head)
            async with asyncio.timeout(PATIENCE_S):
                assert await reader.read() == b""
            writer.close()
        async with n.unix() as http:
            for _ in range(3):
                assert (await http.get("/v1/health")).status_code == 200


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0" * 1000,
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /v1/rooms HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/rooms HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /v1/health HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    ],
    ids=["tls", "version", "zeros", "long", "length", "chunk", "upgrade"],
)
async def test_malformed_http(tmp_path: Path, raw: bytes) -> None:
    async with node(tmp_path) as n:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "api.sock"))
        writer.write(raw)
        writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            answer = await reader.read()
        assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
        writer.close()
        async with n.unix() as http:
            assert (await http.get("/v1/health")).status_code == 200


async def test_a_connection_with_nothing_to_do_is_closed(tmp_path: Path) -> None:
    async with world(tmp_path, app=App()) as w, w.client() as client:
        assert (await client.request("GET", "/answers"))[0] == 200
        (own,) = w.server._connections
        now = asyncio.get_running_loop().time()
        own.sweep(now + connection.NO_WORK_TIMEOUT_S - 1, 10.0)
        assert (await client.request("GET", "/answers"))[0] == 200
        own.sweep(now + connection.NO_WORK_TIMEOUT_S + 60, 10.0)
        async with asyncio.timeout(PATIENCE_S):
            await client.gone.wait()


async def test_certificates_change_while_serving(tmp_path: Path) -> None:
    async with node(tmp_path) as n, world(tmp_path) as w:
        fresh = development(tmp_path / "fresh", ["127.0.0.1"], clock=SystemClock())
        n.http.set_certificate(fresh)
        w.server.set_certificate(fresh)
        w.certificate = n.certificate = fresh  # what clients trust from now on
        async with n.tls() as http:
            assert (await http.get("/v1/health")).status_code == 200
        async with w.session(w.token()) as client:
            await client.join()


async def test_cors(tmp_path: Path) -> None:
    from forwarder.signaling import api

    n = Node(tmp_path)
    app = api.build(n.backend, n.tokens, cors_origins=["https://app.example"])
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(base_url="http://node", transport=transport) as http:
        for origin, allowed in (("https://app.example", True), ("https://evil.example", False)):
            answer = await http.get("/v1/health", headers={"origin": origin})
            assert (answer.headers.get("access-control-allow-origin") == origin) is allowed


def test_on_uvloop(tmp_path: Path) -> None:
    """The supervisor's loop: UDP, TLS and the Unix socket, started and stopped."""

    async def main() -> None:
        async with node(tmp_path) as n, world(tmp_path) as w:
            async with w.session(w.token()) as client:
                await client.join()
            async with n.tls() as http, n.unix() as local:
                assert (await http.get("/v1/health")).status_code == 200
                assert (await local.post("/v1/rooms")).status_code == 201
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", n.http.ports[0])) != 0

    uvloop.run(main())
