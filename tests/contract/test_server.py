"""The QUIC server on loopback, by aioquic's own client."""

from __future__ import annotations

from pathlib import Path

from signaling_world import world

from forwarder.signaling import messages as m


async def test_join_is_welcomed(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.session(w.token(name="Ada")) as ada:
        welcome = await ada.join()
        assert welcome.room_id == "standup"
        assert not welcome.resumed
        assert w.backend.log == [f"opened {welcome.participant_id}"]
        assert isinstance(await ada.ask(type="ping"), m.Pong)
