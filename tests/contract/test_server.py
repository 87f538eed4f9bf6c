"""The QUIC server on loopback, by aioquic's own client: sessions from CONNECT to the end."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import jwt
import pytest
from signaling_world import PATIENCE_S, SECRET, Client, Person, World, world

from forwarder.clock import ManualClock
from forwarder.errors import ErrorCode
from forwarder.ids import ParticipantId, RoomId
from forwarder.rooms.roles import Role
from forwarder.signaling import messages as m
from forwarder.signaling.connection import EXTRA_STREAMS_MAX
from forwarder.signaling.framing import encode
from forwarder.signaling.session import ERRORS_MAX
from forwarder.signaling.tokens import SigningKey, Tokens

MIC = {
    "label": "mic",
    "kind": "audio",
    "codec": "opus",
    "pt": 111,
    "clock_hz": 48_000,
    "ssrc": 7,
}


async def until(condition: Any) -> None:
    """Lets the loop turn until the condition holds; the test fails if it never does."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.001)


async def ended(client: Client) -> m.Closing:
    """The `closing` of a session, after which its stream ends."""
    closing = await client.next("closing")
    assert isinstance(closing, m.Closing)
    async with asyncio.timeout(PATIENCE_S):
        assert await client.messages.get() is None
        await client.session_closed.wait()
    return closing


def error(message: m.ServerMessage) -> tuple[ErrorCode, str]:
    assert isinstance(message, m.Error), message
    return message.code, message.message


async def joined(w: World, client: Client) -> ParticipantId:
    return ParticipantId((await client.join()).participant_id)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_join_is_welcomed(tmp_path: Path, host: str) -> None:
    async with world(tmp_path, host=host) as w:
        async with w.session(w.token(name="Ada")) as ada:
            welcome = await ada.join()
            assert (welcome.room_id, welcome.resumed) == ("standup", False)
            assert w.backend.log == [f"opened {welcome.participant_id}"]
            assert isinstance(await ada.ask(type="ping"), m.Pong)
            (address,) = w.validated
            session = w.backend.people[ParticipantId(welcome.participant_id)].session
            assert session is not None
            assert (session.remote, session.local) == (address[:2], (host, w.port))
            assert address[:2] == (host, ada._transport.get_extra_info("sockname")[1]) or (
                "::" in host
            )
            assert w.closed == []
        await w.backend.wait_log(f"lost {welcome.participant_id}")
        await until(lambda: w.closed == [address])


async def test_settings_for_every_browser(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.session(w.token()) as client:
        settings = client.h3.received_settings
        assert settings is not None
        wanted = {0x2B603742: 1, 0xC671706A: 1, 0x14E9CD29: 1, 0x2C7CF000: 1, 0x33: 1, 0x8: 1}
        assert wanted.items() <= settings.items()
        assert client._quic._remote_max_datagram_frame_size
        assert client.connect_stream is not None
        answer = client.headers[client.connect_stream]
        assert answer[b"sec-webtransport-http3-draft"] == b"draft02"


def forged(**changes: Any) -> str:
    clock = ManualClock()
    claims = {"room": "standup", "role": "host", "name": "A", "sub": "a", "grants": ["join"]}
    times = {"iat": int(clock.wall()), "exp": int(clock.wall()) + 60}
    return jwt.encode({**claims, **times, **changes}, SECRET, "HS256", {"kid": "k1"})


async def test_tokens_are_checked_before_the_session(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.client() as client:
        other = Tokens([SigningKey("k1", b"x" * 32)], clock=ManualClock(wall=4e9))
        for token, sentence in (
            ("rubbish", "malformed"),
            ("", "malformed"),
            (forged(), "expired"),
            (forged(iat=2**33, exp=2**33 + 60), "not valid yet"),
            (other.create_join(RoomId("standup"), role=Role.HOST, name="A")[0], "signature"),
            (w.tokens.create_admin(subject="ops")[0], "does not grant 'join'"),
            (f"{w.token()}&token={w.token()}", "several tokens"),
        ):
            status, body = await client.open_session(f"/v1/join?token={token}")
            assert (status, body["code"]) == (401, "unauthorized"), token
            assert sentence in body["message"]
        status, body = await client.open_session("/v1/join", authorization="Bearer rubbish")
        assert status == 401
        assert w.hub.sessions_open == 0
        status, _ = await client.open_session("/v1/join", authorization=f"Bearer {w.token()}")
        assert status == 200
        await client.join()


async def test_what_else_is_refused_before_the_session(tmp_path: Path) -> None:
    async with world(tmp_path, max_sessions=1) as w, w.client() as client:
        for path in ("/v1/elsewhere", "//[", "/v1/join/", "/%", "*", "https://[/v1/join"):
            status, body = await client.open_session(path)
            assert (path, status, body["code"]) == (path, 404, "bad_message")
        status, body = await client.open_session("/v1/join?" + "a=b&" * 17)
        assert (status, body["code"]) == (400, "bad_message")
        status, body = await client.open_session("/v1/join", protocol="websocket")
        assert (status, body["code"]) == (400, "bad_message")
        async with w.session(w.token()) as first:
            await first.join()
            status, body = await client.open_session("/v1/join")
            assert (status, body["code"]) == (503, "unavailable")
            status, body = await first.open_session("/v1/join")
            assert (status, body["code"]) == (429, "limit")


async def test_without_a_token_one_can_only_resume(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.session() as client:
        code, sentence = error(await client.ask(type="join", v=1))
        assert (code, "?token=" in sentence) == (ErrorCode.UNAUTHORIZED, True)
        code, _ = error(await client.ask(type="join", v=1, resume="guess"))
        assert code is ErrorCode.RESUME_INVALID
        assert w.backend.log == []


async def test_a_call_between_two(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.session(w.token(name="Ada")) as ada:
        a = await joined(w, ada)
        async with w.session(w.token(name="Bo", role=Role.PASSIVE)) as bo:
            welcome = await bo.join()
            assert [person.name for person in welcome.participants] == ["Ada"]
            came = await ada.next()
            assert isinstance(came, m.ParticipantJoined)
            assert came.participant.name == "Bo"
            published = await ada.ask(type="publish", tracks=[MIC])
            assert isinstance(published, m.Published)
            told = await bo.next()
            assert isinstance(told, m.TrackPublished)
            assert (told.track.participant_id, told.track.id) == (a, published.tracks[0].track_id)
            got = await bo.ask(type="subscribe", track_ids=[told.track.id])
            assert isinstance(got, m.Subscribed)
            assert [one.track_id for one in got.subscriptions] == [told.track.id]
            assert isinstance(await ada.ask(type="mute", track_id="t", muted=True), m.Ok)
            assert isinstance(await bo.next(), m.TrackMuted)
            long = "ä" * (m.DATA_MAX // 2)
            assert isinstance(await ada.ask(type="data", payload=long), m.Ok)
            assert await bo.next() == m.DataReceived(participant_id=a, payload=long)
            code, _ = error(await bo.ask(type="publish", tracks=[MIC]))
            assert code is ErrorCode.FORBIDDEN
            code, _ = error(await bo.ask(type="unpublish", track_ids=["none"]))
            assert code is ErrorCode.NO_SUCH_TRACK
            assert isinstance(await bo.ask(type="unsubscribe", track_ids=["t"]), m.Unsubscribed)
            assert isinstance(await bo.ask(type="leave"), m.Ok)
            assert (await ended(bo)).reason == "you left"
        left = await ada.next("participant_left")
        assert isinstance(left, m.ParticipantLeft)
        assert w.backend.log[-1] == f"left {welcome.participant_id}"
        assert f"lost {welcome.participant_id}" not in w.backend.log


async def test_a_welcome_to_a_full_house(tmp_path: Path) -> None:
    """50 active and 1,000 passive."""
    async with world(tmp_path) as w:
        room = w.backend.rooms["standup"]
        for number in range(1050):
            pid = ParticipantId(f"participant-{number:06}")
            room.people[pid] = Person(pid, room.id, "n" * m.LABEL_MAX, Role.PASSIVE, "")
        async with w.session(w.token()) as client:
            welcome = await client.join()
            assert len(welcome.participants) == 1050
            assert len(encode(welcome)) > 100_000
            assert isinstance(await client.ask(type="ping"), m.Pong)


async def test_a_full_room(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.backend.rooms["standup"].max_active = 0
        async with w.session(w.token()) as client:
            code, sentence = error(await client.ask(type="join", v=1))
            assert (code, sentence) == (ErrorCode.ROOM_FULL, "room standup has its 0 active")
            w.backend.rooms["standup"].max_active = 1
            await client.join()


async def test_resume_replaces_the_old_session(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.session(w.token()) as old:
        welcome = await old.join()
        async with w.session() as new:
            again = await new.join(resume=welcome.resume)
            assert (again.participant_id, again.resumed) == (welcome.participant_id, True)
            assert "another session" in (await ended(old)).reason
            assert isinstance(await new.ask(type="publish", tracks=[MIC]), m.Published)
            await until(lambda: w.hub.sessions_open == 1)
            assert w.backend.log == [f"opened {welcome.participant_id}"] * 2
        await w.backend.wait_log(f"lost {welcome.participant_id}")
        assert w.backend.log.count(f"lost {welcome.participant_id}") == 1


async def test_a_lost_session_may_be_resumed(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        async with w.session(w.token()) as first:
            welcome = await first.join()
        await w.backend.wait_log(f"lost {welcome.participant_id}")
        async with w.session() as second:
            assert (await second.join(resume=welcome.resume)).resumed


async def test_a_client_that_goes_while_it_joins(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.backend.gate = asyncio.Event()
        async with w.session(w.token()) as client:
            client.tell(type="join", v=1)
            await until(lambda: w.hub._tasks)
        await until(lambda: w.hub.sessions_open == 0)
        assert w.backend.people == {}
        w.backend.gate.set()
        await w.hub.wait_idle()
        (pid,) = w.backend.people
        assert w.backend.log == [f"lost {pid}"]


async def test_a_connection_that_fails_under_the_welcome(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.session(w.token()) as client:
        (own,) = w.server._connections
        own.send = lambda data: own.abandon()  # type: ignore[method-assign]
        client.tell(type="join", v=1)
        await until(lambda: w.backend.log)
        (pid,) = w.backend.people
        assert w.backend.log == [f"lost {pid}"]
        assert (w.hub.sessions_open, w.hub._speakers) == (0, {})


@pytest.mark.parametrize(
    "how", ["control stream", "connect stream", "reset", "stop", "half a message"]
)
async def test_ends_of_a_session(tmp_path: Path, how: str) -> None:
    async with world(tmp_path) as w, w.session(w.token()) as client:
        pid = await joined(w, client)
        assert client.control is not None and client.connect_stream is not None
        match how:
            case "control stream":
                client._quic.send_stream_data(client.control, b"", end_stream=True)
            case "connect stream":
                client.h3.send_data(client.connect_stream, b"", end_stream=True)
            case "reset":
                client._quic.reset_stream(client.control, 0)
            case "stop":
                client._quic.stop_stream(client.control, 0)
            case "half a message":
                client._quic.send_stream_data(client.control, b"\0\0\0\x09{", end_stream=True)
        client.transmit()
        await w.backend.wait_log(f"lost {pid}")
        assert w.hub.sessions_open == 0
        assert w.hub.counters.values.get("session_half_frame", 0) == (how == "half a message")


async def test_bad_messages_get_errors_and_the_session_goes_on(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.session(w.token()) as client:
        code, _ = error(await client.ask(type="publish", tracks=[MIC]))
        assert code is ErrorCode.NOT_JOINED
        pid = await joined(w, client)
        for raw, wanted in (
            (b"\0\0\0\0", ErrorCode.BAD_MESSAGE),
            (b"\0\0\0\2\xff\xfe", ErrorCode.BAD_MESSAGE),
            (b'\0\0\0\x10{"type":"dance"}', ErrorCode.UNKNOWN_TYPE),
            ((300_000).to_bytes(4, "big") + b"x" * 300_000, ErrorCode.TOO_LARGE),
        ):
            client.write(raw)
            code, _ = error(await client.next())
            assert code is wanted
        code, _ = error(await client.ask(type="join", v=1))
        assert code is ErrorCode.ALREADY_JOINED
        code, _ = error(await client.ask(type="ping", color="red"))
        assert code is ErrorCode.UNKNOWN_FIELD
        assert isinstance(await client.ask(type="ping"), m.Pong)
        for _ in range(ERRORS_MAX):
            client.tell(type="dance")
        assert (await ended(client)).code is ErrorCode.LIMIT
        await w.backend.wait_log(f"lost {pid}")


async def test_one_byte_at_a_time(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.session(w.token()) as client:
        body = b'{"type":"join","id":1,"v":1}'
        for byte in len(body).to_bytes(4, "big") + body:
            client.write(bytes([byte]))
            await asyncio.sleep(0)
        assert isinstance(await client.next(), m.Welcome)


async def test_faults_of_the_backend_stay_inside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(tmp_path) as w, w.session(w.token()) as client:
        await client.join()
        with caplog.at_level(logging.ERROR):
            code, sentence = error(await client.ask(type="keyframe", track_id="t1"))
        assert code is ErrorCode.INTERNAL
        assert "secret" not in sentence
        assert "/secret/path" in caplog.text  # the operator learns all
        assert isinstance(await client.ask(type="ping"), m.Pong)


async def test_a_closed_room_ends_its_sessions(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.session(w.token()) as client:
        pid = await joined(w, client)
        await w.backend.close_room(RoomId("standup"), "the room was closed")
        assert (await ended(client)).reason == "the room was closed"
        assert f"lost {pid}" not in w.backend.log
        async with asyncio.timeout(PATIENCE_S):
            await client.gone.wait()  # the connection ends soon after its session


async def test_a_node_that_stops_says_so(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.session(w.token()) as client:
        await client.join()
        w.hub.close_all("the node stops")
        w.server.close()
        assert (await ended(client)).code is ErrorCode.UNAVAILABLE
        async with asyncio.timeout(PATIENCE_S):
            await client.gone.wait()
        assert w.server.connections_open == 0
        assert w.closed == w.validated


async def test_who_does_not_join_is_sent_away(tmp_path: Path) -> None:
    async with world(tmp_path, join_timeout_s=0.0) as w:
        async with w.session(w.token()) as client:
            client.write(b"\0")
            assert (await ended(client)).code is ErrorCode.NOT_JOINED
        async with w.session(w.token()) as silent:  # without a stream to say it on
            async with asyncio.timeout(PATIENCE_S):
                await silent.session_closed.wait()
            assert silent.connect_stream is not None
            assert b"no join within" in silent.responses[silent.connect_stream][1]
        assert w.hub.counters.values["session_join_timeout"] == 2


async def test_a_client_that_does_not_read_is_sent_away(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.session(w.token()) as client:
        pid = await joined(w, client)
        session = w.backend.people[pid].session
        assert session is not None
        big = m.DataReceived(participant_id="p", payload="x" * m.DATA_MAX)
        for _ in range(300):  # 4.8 MB in one step of the loop: nothing can be acknowledged yet
            session.push(big)
        assert w.hub.counters.values["session_backlog"] == 1
        assert w.backend.log[-1] == f"lost {pid}"
        assert w.hub.sessions_open == 0
        async with asyncio.timeout(PATIENCE_S):
            await client.gone.wait()  # whatever of the 4.8 MB arrived meanwhile


async def test_streams_beside_the_control_stream(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.session(w.token()) as client:
        pid = await joined(w, client)
        assert client.connect_stream is not None
        client.h3.send_datagram(client.connect_stream, b"hello")
        for number in range(EXTRA_STREAMS_MAX):
            stream = client.h3.create_webtransport_stream(
                client.connect_stream, is_unidirectional=number % 2 == 0
            )
            client._quic.send_stream_data(stream, b"hello")
        client.transmit()
        assert isinstance(await client.ask(type="ping"), m.Pong)
        assert w.hub.counters.values["wt_stream_refused"] == EXTRA_STREAMS_MAX
        assert w.hub.counters.values["quic_datagram_ignored"] == 1
        stream = client.h3.create_webtransport_stream(client.connect_stream)
        client._quic.send_stream_data(stream, b"one too many")
        client.transmit()
        async with asyncio.timeout(PATIENCE_S):
            await client.gone.wait()
        await w.backend.wait_log(f"lost {pid}")


async def test_a_control_stream_that_overtakes_its_connect(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.client() as client:
        client._quic.get_next_available_stream_id()
        client.control = 4
        body = b'{"type":"join","id":1,"v":1}'
        # Stream 4 begins before stream 0 has a byte; 0x41 is WEBTRANSPORT_STREAM, 0 its session.
        client._quic._local_next_stream_id_bidi = 4
        client._quic.send_stream_data(4, b"\x40\x41\x00" + len(body).to_bytes(4, "big") + body)
        client.transmit()
        await until(lambda: any(c._early for c in w.server._connections))
        client._quic._local_next_stream_id_bidi = 0
        client.connect_stream = 0
        fields = client._request_headers("CONNECT", f"/v1/join?token={w.token()}")
        client.h3.send_headers(0, [*fields, (b":protocol", b"webtransport")])
        client.transmit()
        assert isinstance(await client.next(), m.Welcome)


async def test_a_client_behind_a_nat_that_forgets(tmp_path: Path) -> None:
    """The client's port changes: the new one is proved and admitted, the old one let go."""
    async with world(tmp_path) as w, w.session(w.token()) as client:
        await client.join()
        old_transport, loop = client._transport, asyncio.get_running_loop()
        server = client._quic.get_peer_address()

        class Relay(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                client.datagram_received(data, server)

        transport, _ = await loop.create_datagram_endpoint(Relay, local_addr=("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]

        class Towards:
            def sendto(self, data: bytes, addr: Any) -> None:
                transport.sendto(data, ("127.0.0.1", w.port))

            def close(self) -> None:
                transport.close()
                old_transport.close()

        client._transport = Towards()  # type: ignore[assignment]
        assert isinstance(await client.ask(type="ping"), m.Pong)
        await until(lambda: len(w.validated) == 2)
        assert w.validated[1] == ("127.0.0.1", port)
        assert w.closed == w.validated[:1]
        assert isinstance(await client.ask(type="ping"), m.Pong)


async def test_retry_when_many_handshakes_are_under_way(tmp_path: Path) -> None:
    async with world(tmp_path, retry_above=0) as w:
        async with w.session(w.token()) as client:
            await client.join()
        assert w.hub.counters.values["quic_retry"] >= 1


async def test_a_restarted_node_resets_the_clients_of_the_one_before(tmp_path: Path) -> None:
    """The token that a client was given is the one that the next process sends."""
    async with world(tmp_path) as w, w.session(w.token()) as client:
        await client.join()
        own = client._quic._peer_cid
        others = client._quic._peer_cid_available
        tokens = {cid.cid: cid.stateless_reset_token for cid in (own, *others)}
        assert len(tokens) == 8
        (connection,) = w.server._connections
        datagrams: list[bytes] = []
        client._transport.sendto = lambda data, _: datagrams.append(data)  # type: ignore[method-assign]
        client.tell(type="ping")
        async with world(tmp_path) as after:
            out: list[bytes] = []
            after.server._send = lambda data, _: out.append(data)
            after.server.datagram_received(datagrams[0], ("192.0.2.9", 9))
            (answer,) = out
            assert answer[-16:] == own.stateless_reset_token
            assert answer[0] & 0xC0 == 0x40
            assert len(answer) < len(datagrams[0])
            for cid, token in tokens.items():
                after.server.datagram_received(b"\x41" + cid + bytes(40), ("192.0.2.9", 9))
                assert out[-1][-16:] == token
            count = len(out)
            after.server.datagram_received(b"\x41" + own.cid + bytes(12), ("192.0.2.9", 9))
            assert len(out) == count  # too short to be answered by something shorter
            for _ in range(1000):
                after.server.datagram_received(b"\x41" + os.urandom(60), ("192.0.2.9", 9))
            assert len(out) < 500  # at most RESETS_PER_S
        assert connection in w.server._connections
