"""The HTTP API over TLS on TCP, over HTTP/3, over the Unix socket, and by the command line."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from signaling_world import SECRET, MemoryBackend, World, world

from forwarder.clock import SystemClock
from forwarder.errors import ErrorCode, HostError
from forwarder.ids import RoomId
from forwarder.rooms.roles import Role
from forwarder.signaling import api
from forwarder.signaling.certs import development
from forwarder.signaling.http import HttpServer
from forwarder.signaling.tokens import SigningKey, Tokens


class Node:
    """An API over TLS and a Unix socket."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.backend = MemoryBackend()
        self.tokens = Tokens([SigningKey("k1", SECRET)], clock=SystemClock())
        self.app = api.build(self.backend, self.tokens, metrics=lambda: b"vcfwd_up 1\n")
        self.certificate = development(run_dir, ["127.0.0.1", "::1"], clock=SystemClock())
        self.http = HttpServer(
            self.app,
            addresses=["127.0.0.1"],
            port=0,
            certificate=self.certificate,
            unix_path=run_dir / "api.sock",
        )

    @property
    def admin(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.tokens.create_admin(subject='test')[0]}"}

    def tls(self) -> httpx.AsyncClient:
        trust = ssl.create_default_context(cafile=str(self.certificate.cert_file))
        return httpx.AsyncClient(
            base_url=f"https://127.0.0.1:{self.http.ports[0]}", verify=trust, trust_env=False
        )

    def unix(self) -> httpx.AsyncClient:
        transport = httpx.AsyncHTTPTransport(uds=str(self.run_dir / "api.sock"))
        return httpx.AsyncClient(base_url="http://localhost", transport=transport)


@asynccontextmanager
async def node(run_dir: Path) -> AsyncIterator[Node]:
    one = Node(run_dir)
    await one.http.start()
    try:
        yield one
    finally:
        await one.http.stop()


async def test_a_room_from_birth_to_death_over_tls(tmp_path: Path) -> None:
    async with node(tmp_path) as n, n.tls() as http:
        http.headers.update(n.admin)
        wanted = {"id": "standup", "max_active": 2, "codecs": ["h264", "vp8"]}
        made = await http.post("/v1/rooms", json=wanted)
        assert made.status_code == 201
        assert made.json() == {
            "id": "standup",
            "created_at": 1_700_000_000.0,
            "active": 0,
            "passive": 0,
            "max_active": 2,
            "max_passive": 1000,
            "track_count": 0,
            "codecs": ["h264", "vp8"],
        }
        unnamed = await http.post("/v1/rooms")
        assert unnamed.status_code == 201
        listed = (await http.get("/v1/rooms")).json()
        assert [room["id"] for room in listed] == ["standup", unnamed.json()["id"]]
        shown = (await http.get("/v1/rooms/standup")).json()
        assert shown["participants"] == shown["tracks"] == []
        created = await http.post("/v1/rooms/standup/tokens", json={"role": "host", "name": "Ada"})
        assert created.status_code == 201
        claims = n.tokens.verify_join(created.json()["token"], room_id=RoomId("standup"))
        assert (claims.role, claims.name) == (Role.HOST, "Ada")
        assert created.json()["expires_at"] == claims.expires_at
        assert (await http.get("/v1/status")).json()["rooms"] == 2
        assert (await http.delete("/v1/rooms/standup")).status_code == 204
        assert (await http.get("/v1/rooms/standup")).status_code == 404


PEOPLE = "/v1/rooms/taken/participants"
ACTIVE = {"json": {"role": "active"}}
ANY = "unknown_field"
BAD: list[tuple[str, str, str, dict[str, Any], int, str]] = [
    ("room exists", "POST", "/v1/rooms", {"json": {"id": "taken"}}, 409, "room_exists"),
    ("bad id", "POST", "/v1/rooms", {"json": {"id": "a b"}}, 400, "bad_message"),
    ("id with newline", "POST", "/v1/rooms", {"json": {"id": "a\n"}}, 400, "bad_message"),
    ("long id", "POST", "/v1/rooms", {"json": {"id": "a" * 65}}, 400, "bad_message"),
    ("unknown field", "POST", "/v1/rooms", {"json": {"maxactive": 1}}, 400, "unknown_field"),
    ("negative", "POST", "/v1/rooms", {"json": {"max_active": -1}}, 400, "bad_message"),
    ("huge", "POST", "/v1/rooms", {"json": {"max_active": 10**30}}, 400, "bad_message"),
    ("text for number", "POST", "/v1/rooms", {"json": {"max_active": "5"}}, 400, "bad_message"),
    ("no codec", "POST", "/v1/rooms", {"json": {"codecs": []}}, 400, "bad_message"),
    ("unknown codec", "POST", "/v1/rooms", {"json": {"codecs": ["h265"]}}, 400, "bad_message"),
    ("sound", "POST", "/v1/rooms", {"json": {"codecs": ["opus"]}}, 400, "bad_message"),
    ("codec twice", "POST", "/v1/rooms", {"json": {"codecs": ["vp8", "vp8"]}}, 400, "bad_message"),
    ("list", "POST", "/v1/rooms", {"json": []}, 400, "bad_message"),
    ("no JSON", "POST", "/v1/rooms", {"content": b"{"}, 400, "bad_message"),
    ("no UTF-8", "POST", "/v1/rooms", {"content": b'{"id":"\xff"}'}, 400, "bad_message"),
    ("deep", "POST", "/v1/rooms", {"content": b"[" * 60_000}, 400, "bad_message"),
    ("long body", "POST", "/v1/rooms", {"content": b" " * 65_537}, 413, "too_large"),
    ("no room", "GET", "/v1/rooms/none", {}, 404, "no_such_room"),
    ("bad room", "GET", "/v1/rooms/a%20b", {}, 400, "bad_message"),
    ("close no room", "DELETE", "/v1/rooms/none", {}, 404, "no_such_room"),
    ("role in no room", "PATCH", "/v1/rooms/none/participants/p1", ACTIVE, 404, "no_such_room"),
    ("role of nobody", "PATCH", f"{PEOPLE}/p1", ACTIVE, 404, "no_such_participant"),
    ("stage full", "PATCH", f"{PEOPLE}/eve", ACTIVE, 409, "room_full"),
    ("bad participant", "PATCH", f"{PEOPLE}/a%20b", ACTIVE, 400, "bad_message"),
    ("role left out", "PATCH", f"{PEOPLE}/eve", {"json": {}}, 400, "bad_message"),
    ("no such role", "PATCH", f"{PEOPLE}/eve", {"json": {"role": "king"}}, 400, "bad_message"),
    ("more than a role", "PATCH", f"{PEOPLE}/eve", {"json": {"role": "host", "x": 1}}, 400, ANY),
    (
        "token for no room",
        "POST",
        "/v1/rooms/none/tokens",
        {"json": {"role": "host", "name": "A"}},
        404,
        "no_such_room",
    ),
    ("no role", "POST", "/v1/rooms/taken/tokens", {"json": {"name": "A"}}, 400, "bad_message"),
    (
        "role unknown",
        "POST",
        "/v1/rooms/taken/tokens",
        {"json": {"role": "king", "name": "A"}},
        400,
        "bad_message",
    ),
    (
        "too long lived",
        "POST",
        "/v1/rooms/taken/tokens",
        {"json": {"role": "host", "name": "A", "ttl_s": 86_401}},
        400,
        "bad_message",
    ),
    ("no path", "GET", "/v2/rooms", {}, 404, "bad_message"),
    ("no method", "PUT", "/v1/rooms", {}, 405, "bad_message"),
    ("traversal", "GET", "/v1/rooms/..%2f..%2fetc", {}, 404, "bad_message"),
]


async def test_bad_requests(tmp_path: Path) -> None:
    async with node(tmp_path) as n, n.tls() as http:
        http.headers.update(n.admin)
        await n.backend.create_room(RoomId("taken"), max_active=0, max_passive=None)
        n.backend.seat("taken", "eve", Role.PASSIVE)
        for what, method, path, options, status, code in BAD:
            answer = await http.request(method, path, **options)
            assert (what, answer.status_code) == (what, status)
            problem = answer.json()
            assert set(problem) == {"code", "message"}, what
            assert (what, problem["code"]) == (what, code)
            assert 0 < len(problem["message"]) < 700, what
        assert list(n.backend.rooms) == ["taken"]


async def test_who_may_call(tmp_path: Path) -> None:
    async with node(tmp_path) as n, n.tls() as http:
        join = n.tokens.create_join(RoomId("r"), role=Role.HOST, name="A")[0]
        other = Tokens([SigningKey("k1", b"x" * 32)], clock=SystemClock())
        for header, sentence in (
            (None, "needs an admin token"),
            ("Basic YTpi", "needs an admin token"),
            ("Bearer", "needs an admin token"),
            ("Bearer rubbish", "malformed"),
            (f"Bearer {join}", "does not grant 'admin'"),
            (f"Bearer {other.create_admin(subject='x')[0]}", "signature is wrong"),
        ):
            headers = {} if header is None else {"authorization": header}
            for path in ("/v1/rooms", "/v1/status", "/v1/rooms/none"):
                answer = await http.get(path, headers=headers)
                assert answer.status_code == 401, (header, path)
                assert answer.json()["code"] == "unauthorized"
                assert sentence in answer.json()["message"]
                assert answer.headers["www-authenticate"] == "Bearer"
            answer = await http.patch(f"{PEOPLE}/eve", json={"role": "host"}, headers=headers)
            assert answer.status_code == 401, header
        # Nobody gets in by claiming to be local.
        spoofed = await http.get("/v1/rooms", headers={"vcfwd.admin": "true"})
        assert spoofed.status_code == 401
        assert (await http.get("/v1/health")).json()["status"] == "ok"
        assert (await http.get("/metrics")).content == b"vcfwd_up 1\n"  # from loopback


async def test_metrics_from_elsewhere_need_a_token(tmp_path: Path) -> None:
    n = Node(tmp_path)
    transport = httpx.ASGITransport(app=n.app, client=("192.0.2.7", 1))  # type: ignore[arg-type]
    async with httpx.AsyncClient(base_url="http://node", transport=transport) as http:
        assert (await http.get("/metrics")).status_code == 401
        assert (await http.get("/metrics", headers=n.admin)).content == b"vcfwd_up 1\n"


async def test_faults_of_the_backend_stay_inside(tmp_path: Path) -> None:
    async with node(tmp_path) as n, n.unix() as http:

        async def broken() -> dict[str, Any]:
            raise RuntimeError("secret in /a/path")

        n.backend.status = broken  # type: ignore[method-assign]
        answer = await http.get("/v1/status")
        assert answer.status_code == 500
        assert answer.json()["code"] == "internal"
        assert "secret" not in answer.text
        assert (await http.get("/v1/health")).status_code == 200


async def test_openapi_names_every_route_and_its_errors(tmp_path: Path) -> None:
    async with node(tmp_path) as n, n.tls() as http:
        document = (await http.get("/v1/openapi.json")).json()
    paths = document["paths"]
    routes = {(path, method) for path, methods in paths.items() for method in methods}
    assert routes == {
        ("/v1/rooms", "post"),
        ("/v1/rooms", "get"),
        ("/v1/rooms/{room_id}", "get"),
        ("/v1/rooms/{room_id}", "delete"),
        ("/v1/rooms/{room_id}/tokens", "post"),
        ("/v1/rooms/{room_id}/participants/{participant_id}", "patch"),
        ("/v1/tokens", "post"),
        ("/v1/status", "get"),
        ("/v1/drain", "get"),
        ("/v1/drain", "post"),
        ("/v1/health", "get"),
    }
    problem = {"$ref": "#/components/schemas/Problem"}
    for path, methods in paths.items():
        for method, operation in methods.items():
            assert "422" not in operation["responses"], (path, method)
            errors = {s: r for s, r in operation["responses"].items() if int(s) >= 400}
            assert ("401" in errors) == (path != "/v1/health"), (path, method)
            assert ("security" in operation) == (path != "/v1/health")
            for response in errors.values():
                assert response["content"]["application/json"]["schema"] == problem
    refs = {part for part in json.dumps(document).split('"') if part.startswith("#/components")}
    for ref in refs:
        assert ref.rpartition("/")[2] in document["components"]["schemas"]


async def test_the_unix_socket_is_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    async with node(tmp_path) as n, n.unix() as http:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (await http.post("/v1/rooms", json={"id": "a"})).status_code == 201
        with pytest.raises(HostError, match="another vcfwd answers"):
            await Node(tmp_path).http.start()
        assert (await http.get("/v1/rooms/a")).status_code == 200  # the first one lives on
    assert not path.exists()


async def test_a_dead_nodes_socket_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with node(tmp_path) as n, n.unix() as http:
        assert (await http.get("/v1/health")).status_code == 200


async def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "api.sock").write_text("mine")
    with pytest.raises(HostError, match="is no socket"):
        await Node(tmp_path).http.start()
    assert (tmp_path / "api.sock").read_text() == "mine"


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    async with node(tmp_path) as n:
        port = n.http.ports[0]
        second = HttpServer(
            n.app, addresses=["127.0.0.1"], port=port, certificate=None, unix_path=None
        )
        with pytest.raises(HostError, match=f"127.0.0.1 port {port}: .*is another server there"):
            await second.start()


@asynccontextmanager
async def h3_world(tmp_path: Path) -> AsyncIterator[tuple[World, str]]:
    backend_box: list[MemoryBackend] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        tokens = Tokens([SigningKey("k1", SECRET)], clock=SystemClock())
        await api.build(backend_box[0], tokens)(scope, receive, send)

    async with world(tmp_path, app=app) as w:
        backend_box.append(w.backend)
        yield w, w.tokens.create_admin(subject="test")[0]


async def test_http3(tmp_path: Path) -> None:
    async with h3_world(tmp_path) as (w, token), w.client() as client:
        status, body = await client.request("GET", "/v1/health")
        assert (status, json.loads(body)["status"]) == (200, "ok")
        status, body = await client.request("GET", "/v1/rooms")
        assert (status, json.loads(body)["code"]) == (401, "unauthorized")
        wanted = json.dumps({"id": "h3"}).encode()
        status, body = await client.request("POST", "/v1/rooms", body=wanted, token=token)
        assert (status, json.loads(body)["id"]) == (201, "h3")
        status, body = await client.request("GET", "/v1/rooms/h3", token=token)
        assert (status, json.loads(body)["tracks"]) == (200, [])
        status, body = await client.request("DELETE", "/v1/rooms/h3", token=token)
        assert (status, body) == (204, b"")
        status, body = await client.request("GET", "/v1/rooms/h3?x=1", token=token)
        assert (status, json.loads(body)["code"]) == (404, "no_such_room")
        many = [client.request("GET", "/v1/rooms", token=token) for _ in range(10)]
        assert [status for status, _ in await asyncio.gather(*many)] == [200] * 10


async def test_http3_body_limit(tmp_path: Path) -> None:
    async with h3_world(tmp_path) as (w, token), w.client() as client:
        for size, wanted in ((64 * 1024, 400), (64 * 1024 + 1, 413), (300_000, 413)):
            status, body = await client.request(
                "POST", "/v1/rooms", body=b" " * (size - 1) + b"x", token=token
            )
            assert (size, status) == (size, wanted), body
        status, _ = await client.request("GET", "/v1/rooms", token=token)
        assert status == 200


def vcfwd(run_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "forwarder.cli.app", *arguments],
        env={**os.environ, "VCFWD_RUN_DIR": str(run_dir), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_command_line(tmp_path: Path) -> None:
    async with node(tmp_path) as n:

        async def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            return await asyncio.to_thread(vcfwd, tmp_path, *arguments)

        assert (await run("room", "list")).stdout.startswith("no rooms")
        made = await run("room", "create", "standup", "--max-active", "2")
        assert (made.returncode, made.stdout, made.stderr) == (0, "standup\n", "")
        listed = json.loads((await run("room", "list", "--json")).stdout)
        assert [(room["id"], room["max_active"]) for room in listed] == [("standup", 2)]
        assert "standup" in (await run("room", "list")).stdout
        assert "0 of 2" in (await run("room", "show", "standup")).stdout
        ada = n.backend.seat("standup", "ada", Role.PASSIVE)
        raised = await run("room", "role", "standup", "ada", "active")
        assert (raised.returncode, raised.stdout) == (0, "ada (ada) is active\n")
        assert ada.role is Role.ACTIVE
        lowered = await run("room", "role", "standup", "ada", "backstage", "--json")
        assert json.loads(lowered.stdout) == {"id": "ada", "name": "ada", "role": "backstage"}
        nobody = await run("room", "role", "standup", "bob", "active")
        assert (nobody.returncode, nobody.stdout) == (1, "")
        assert nobody.stderr == "vcfwd room role: nobody bob in standup\n"
        assert (await run("room", "role", "standup", "ada", "king")).returncode == 2
        token = (await run("token", "create", "--room", "standup", "--role", "host")).stdout
        assert n.tokens.verify_join(token.strip()).role is Role.HOST
        admin = json.loads((await run("token", "create", "--admin", "--json")).stdout)
        assert n.tokens.verify_admin(admin["token"]).subject == "admin"
        again = await run("room", "create", "standup")
        assert (again.returncode, again.stdout) == (1, "")
        assert again.stderr == "vcfwd room create: room standup exists\n"
        bad = await run("room", "show", "a/../b c")
        assert bad.returncode == 1
        assert "Traceback" not in bad.stderr
        status = await run("status", "--json")
        assert json.loads(status.stdout)["path"] == "udp"
        assert ["data", "path", "udp"] in [
            line.split() for line in (await run("status")).stdout.splitlines()
        ]
        assert (await run("room", "close", "standup")).stdout == "room standup is closed\n"
        neither = await run("token", "create")
        assert (neither.returncode, neither.stdout) == (2, "")


def test_command_line_without_a_node(tmp_path: Path) -> None:
    answer = vcfwd(tmp_path, "status")
    sock = tmp_path / "api.sock"
    assert (answer.returncode, answer.stdout) == (1, "")
    sentence = f"vcfwd status: no vcfwd answers on {sock}: is `vcfwd up` running?\n"
    assert answer.stderr == sentence


def test_command_line_imports_little() -> None:
    """`vcfwd up` has two seconds; nothing heavy may hang on the command line itself."""
    heavy = "av numpy numba rich fastapi uvicorn aioquic pyroute2 pydantic"
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom forwarder.cli.app import app\n"
        "result = CliRunner().invoke(app, ['--help'])\n"
        "assert result.exit_code == 0 and 'doctor' in result.output, result.output\n"
        f"print([name for name in {heavy!r}.split() if name in sys.modules])\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.stdout == "[]\n", answer.stdout + answer.stderr


def test_every_code_has_a_status() -> None:
    from forwarder.errors import HTTP_STATUS

    assert set(HTTP_STATUS) == set(ErrorCode)
