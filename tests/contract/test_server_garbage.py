"""Malformed datagrams against an open session: counted, and nothing else."""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aioquic.buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicPacketType, pull_quic_header
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.tls import Epoch
from signaling_world import Client, World, world

from forwarder.signaling import messages as m
from forwarder.signaling.h3 import MAX_DATAGRAM
from forwarder.signaling.server import HANDSHAKES_MAX

STRANGER = ("192.0.2.9", 9999)


async def still_there(client: Client) -> None:
    assert isinstance(await client.ask(type="ping"), m.Pong)


def initials() -> list[bytes]:
    """A real client's first flight."""
    quic = QuicConnection(configuration=QuicConfiguration(is_client=True, alpn_protocols=["h3"]))
    quic.connect(("192.0.2.1", 4433), now=0.0)
    return [data for data, _ in quic.datagrams_to_send(now=0.0)]


def mutated(rng: random.Random, data: bytes) -> bytes:
    body = bytearray(data)
    match rng.randrange(4):
        case 0:
            for _ in range(rng.randrange(1, 9)):
                body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
        case 1:
            body = body[: rng.randrange(len(body))]
        case 2:
            at = rng.randrange(len(body))
            body[at:at] = rng.randbytes(rng.randrange(1, 40))
        case _:
            at = rng.randrange(min(40, len(body)))  # the header
            body[at] = rng.randrange(256)
    return bytes(body)


async def test_a_thousand_datagrams_of_garbage(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.session(w.token()) as client:
        await client.join()
        rng = random.Random(1)
        (own,) = w.server._connections
        cids = list(w.server._connections[own])
        first = initials()
        before = w.hub.counters.values["quic_datagrams"]
        for number in range(1000):
            size = rng.choice([0, 1, 2, 7, 20, 21, 60, 1199, 1200, 1201, 1400, 9000])
            match number % 5:
                case 0:  # noise of every length
                    data, source = rng.randbytes(size), STRANGER
                case 1:  # short headers for a living connection, from elsewhere
                    cid = rng.choice(cids)
                    data = bytes([0x40 | rng.randrange(64)]) + cid + rng.randbytes(size)
                    source = STRANGER
                case 2:  # the same, as if from the client itself
                    cid = rng.choice(cids)
                    data = bytes([0x40 | rng.randrange(64)]) + cid + rng.randbytes(size)
                    source = w.validated[0]
                case 3:  # long headers of every kind and version
                    data = bytes([0xC0 | rng.randrange(64)]) + rng.choice(
                        [b"\0\0\0\0", b"\0\0\0\1", b"\x6b\x33\x43\xcf", rng.randbytes(4)]
                    )
                    data += bytes([8]) + rng.choice([*cids, rng.randbytes(8)]) + bytes([8])
                    data, source = data + rng.randbytes(size), STRANGER
                case _:
                    data, source = mutated(rng, rng.choice(first)), STRANGER
            w.server.datagram_received(data, source)
            if number % 100 == 0:
                await still_there(client)
        await still_there(client)
        values = w.hub.counters.values
        assert values["quic_datagrams"] >= before + 1000
        for name in ("quic_malformed", "quic_version", "quic_unknown_connection"):
            assert values[name] > 0, values
        assert values.get("quic_internal", 0) == 0, values
        assert own in w.server._connections


async def test_an_exception_out_of_aioquic_ends_one_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aioquic has had such faults; what matters is who suffers."""
    async with world(tmp_path) as w, w.session(w.token()) as victim:
        pid = (await victim.join()).participant_id
        (own,) = w.server._connections
        async with w.session(w.token()) as other:
            await other.join()

            def broken(*_: Any, **__: Any) -> None:
                raise IndexError("deque index out of range")

            monkeypatch.setattr(own.quic, "receive_datagram", broken)
            victim.tell(type="ping")
            await w.backend.wait_log(f"lost {pid}")
            assert w.hub.counters.values["quic_internal_IndexError"] == 1
            assert own not in w.server._connections
            assert all(route is not own for route in w.server._routes.values())
            await still_there(other)


async def test_bad_http3_ends_only_its_connection(tmp_path: Path) -> None:
    frames = [
        b"\x00\x05hello",  # DATA before HEADERS
        b"\x01\x05\xff\xff\xff\xff\xff",  # HEADERS that QPACK cannot read
        b"\x04\x00",  # SETTINGS on a request stream
        b"\x02\x00",  # a frame of HTTP/2
        b"\x05\x01\x00",  # PUSH_PROMISE from a client
    ]
    async with world(tmp_path) as w, w.session(w.token()) as good:
        await good.join()
        for frame in frames:
            async with w.client() as bad:
                stream = bad._quic.get_next_available_stream_id()
                bad._quic.send_stream_data(stream, frame, end_stream=True)
                bad.transmit()
                async with asyncio.timeout(20):
                    await bad.gone.wait()
            await still_there(good)
        assert w.hub.counters.values.get("quic_internal", 0) == 0


def sealed(client: Client, payload: bytes) -> bytes:
    """A packet of the client's own keys around frames that no client would send."""
    quic = client._quic
    builder = QuicPacketBuilder(
        host_cid=quic.host_cid,
        is_client=True,
        max_datagram_size=1200,
        packet_number=quic._packet_number,
        peer_cid=quic._peer_cid.cid,
        version=quic._version,
    )
    builder.start_packet(QuicPacketType.ONE_RTT, quic._cryptos[Epoch.ONE_RTT])
    builder.start_frame(payload[0] & 0x3F, capacity=len(payload)).push_bytes(payload[1:])
    datagrams, _ = builder.flush()
    quic._packet_number = builder.packet_number
    return bytes(datagrams[0])


async def test_sealed_garbage_ends_only_its_connection(tmp_path: Path) -> None:
    """Random frames behind a good seal: what reaches the inside of aioquic."""
    rng = random.Random(4)
    async with world(tmp_path) as w, w.session(w.token()) as good:
        await good.join()
        refused = 0
        for _ in range(20):
            async with w.client() as bad:
                port = bad._transport.get_extra_info("sockname")[1]
                (own,) = [c for c in w.server._connections if c.remote[1] == port]
                for _ in range(20):
                    kind = rng.choice([*range(0x20), 0x30, 0x31, 0x3A])
                    payload = bytes([kind]) + rng.randbytes(rng.choice([4, 8, 20, 60]))
                    own.datagram_received(sealed(bad, payload), own.address)
                refused += own.closed or own.quic._close_event is not None
        await still_there(good)
        # Whatever aioquic did not foresee is named here, and cost only its sender's connection.
        assert w.hub.sessions_open == 1
        assert refused > 10


async def test_a_connect_that_is_taken_back_at_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.client() as client:
        stream = client._quic.get_next_available_stream_id()
        client.responses[stream] = (0, bytearray(), asyncio.Event())
        fields = client._request_headers("CONNECT", f"/v1/join?token={w.token()}")
        client.h3.send_headers(stream, [*fields, (b":protocol", b"webtransport")])
        client._quic.stop_stream(stream, 0x10C)
        client.transmit()
        await client.ping()
        assert w.hub.sessions_open == 0
        status, _ = await client.open_session(f"/v1/join?token={w.token()}")
        assert status == 200
        await client.join()
        assert w.hub.counters.values.get("quic_internal", 0) == 0


async def test_random_bytes_on_streams(tmp_path: Path) -> None:
    rng = random.Random(2)
    async with world(tmp_path) as w, w.session(w.token()) as good:
        await good.join()
        for _ in range(25):
            async with w.client() as bad:
                for _ in range(rng.randrange(1, 4)):
                    stream = bad._quic.get_next_available_stream_id(
                        is_unidirectional=rng.random() < 0.5
                    )
                    data = rng.choice([b"", b"\x01", b"\x40\x41\x00", b"\x40\x54\x00", b"\x00"])
                    data += rng.randbytes(rng.randrange(200))
                    bad._quic.send_stream_data(stream, data, end_stream=rng.random() < 0.5)
                bad.transmit()
                with suppress(ConnectionError):
                    await bad.ping()  # answered, or the connection is refused: both are read
        await still_there(good)
        assert w.hub.counters.values.get("quic_internal", 0) == 0, w.hub.counters.values


async def test_random_requests(tmp_path: Path) -> None:
    """Headers that QPACK carries and HTTP does not allow, or that we do not expect."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    rng = random.Random(3)
    names = [b":method", b":scheme", b":authority", b":path", b":protocol", b"x", b"content-length"]
    values = [b"CONNECT", b"GET", b"https", b"a", b"/v1/join?token=\xff", b"/%ff%00", b"", b"-1"]
    values += [b"webtransport", b"/" + b"a" * 3000, b"//[", b"/v1/join?" + b"a=b&" * 40]
    async with world(tmp_path, app=app) as w, w.session(w.token()) as good:
        await good.join()
        for _ in range(30):
            async with w.client() as bad:
                for _ in range(3):
                    mixed = [(rng.choice(names), rng.choice(values)) for _ in range(6)]
                    fixed = [(b":method", rng.choice(values[:2])), (b":authority", b"a")]
                    stream = bad._quic.get_next_available_stream_id()
                    bad.responses[stream] = (0, bytearray(), asyncio.Event())
                    headers = fixed + mixed[: rng.randrange(6)]
                    bad.h3.send_headers(stream, headers, end_stream=rng.random() < 0.5)
                bad.transmit()
                with suppress(ConnectionError):
                    await bad.ping()
        await still_there(good)
        assert w.hub.counters.values.get("quic_internal", 0) == 0, w.hub.counters.values


def sent_to(w: World) -> list[bytes]:
    out: list[bytes] = []
    w.server._send = lambda data, _: out.append(data)
    return out


async def test_little_leaves_for_a_stranger(tmp_path: Path) -> None:
    """Anti-amplification: at most three bytes out for one in; nothing for less than 1200 bytes."""
    async with world(tmp_path) as w:
        out = sent_to(w)
        w.server.datagram_received(b"\xc0" + b"\x0a\x0a\x0a\x0a" + b"\0" * 60, STRANGER)
        w.server.datagram_received(initials()[0][:1100], STRANGER)
        assert out == []
        first = initials()
        for data in first:
            w.server.datagram_received(data, STRANGER)
        assert 0 < sum(map(len, out)) <= 3 * sum(map(len, first))
        assert max(map(len, out)) <= MAX_DATAGRAM
        out.clear()
        unknown = b"\xc0\x0a\x0a\x0a\x0a\x08" + os.urandom(8) + b"\x08" + os.urandom(8)
        w.server.datagram_received(unknown.ljust(1200, b"\0"), STRANGER)
        assert len(out) == 1 and len(out[0]) < 100  # version negotiation


async def test_forged_retry_tokens_make_no_connection(tmp_path: Path) -> None:
    async with world(tmp_path, retry_above=0) as w:
        out = sent_to(w)
        data = initials()[0]
        w.server.datagram_received(data, STRANGER)
        (retry,) = out
        assert len(retry) < len(data)
        assert w.server.connections_open == 0
        token = pull_quic_header(Buffer(data=retry), host_cid_length=8).token
        quic = QuicConnection(
            configuration=QuicConfiguration(is_client=True, alpn_protocols=["h3"], token=token)
        )
        quic.connect(("192.0.2.1", 4433), now=0.0)
        # A token belongs to one address and one connection id: this is neither.
        for datagram, _ in quic.datagrams_to_send(now=0.0):
            w.server.datagram_received(datagram, ("192.0.2.10", 1))
        assert w.hub.counters.values["quic_retry_token"] >= 1
        assert w.server.connections_open == 0


async def test_handshakes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from forwarder.signaling import server

    assert HANDSHAKES_MAX == 2048
    monkeypatch.setattr(server, "HANDSHAKES_MAX", 5)
    async with world(tmp_path) as w:
        sent_to(w)
        for number in range(20):
            w.server.datagram_received(initials()[0], ("192.0.2.9", number))
        assert w.server.connections_open == 5
        assert w.hub.counters.values["quic_connections_full"] == 15
        assert w.server.statistics()["handshakes"] == 5
        for connection in tuple(w.server._connections):
            connection.sweep(asyncio.get_running_loop().time() + 11.0, 10.0)
            connection.abandon()
        assert w.server.statistics()["handshakes"] == 0
        assert w.server._routes == {}
